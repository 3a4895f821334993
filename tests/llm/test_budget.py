import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelevolve.errors import UsageError
from kernelevolve.llm.budget import Spending, check_budgets, estimate, estimate_for_any
from kernelevolve.llm.tokens import estimate_tokens
from kernelevolve.schema import Budgets, CallFailed, ModelInfo, Reply, Usage
from kernelevolve.testing.client_contract import a_question

PRICED = ModelInfo(name="m", protocol="openai-chat", input_usd_per_mtok=1e4, output_usd_per_mtok=1e4)
"""A cent a token."""
UNPRICED = ModelInfo(name="free?", protocol="openai-chat")


def question(step=0):
    """60 tokens at worst: 10 in, 50 out."""
    return a_question(step=step, system="", prompt="x" * 25, max_output_tokens=50)


def reply(tokens, cost="cents"):
    cost_usd = tokens / 100 if cost == "cents" else cost
    return Reply(text="k", stop="end", usage=Usage(output_tokens=tokens, cost_usd=cost_usd))


def test_calls_under_way_count_at_their_worst_case():
    spending = Spending(Budgets(usd=1.3))
    assert spending.reserve(question(0), PRICED)
    assert spending.reserve(question(1), PRICED)
    assert not spending.reserve(question(2), PRICED), "a third could cost 60 cents more"
    assert spending.totals().usd_in_flight == pytest.approx(1.2)
    spending.settle(question(0), reply(5))
    assert spending.may_ask(question(2), PRICED), "the first was cheaper than it could have been"
    assert spending.totals().usd == pytest.approx(0.05)


def test_tokens_have_a_limit_of_their_own():
    spending = Spending(Budgets(tokens=100))
    assert spending.reserve(question(0), UNPRICED)
    assert not spending.may_ask(question(1), UNPRICED)
    spending.settle(question(0), reply(40, cost=None))
    assert spending.may_ask(question(1), UNPRICED)
    assert spending.totals().unpriced_calls == 1


def test_without_limits_there_is_always_room():
    spending = Spending(Budgets())
    assert all(spending.reserve(question(step), UNPRICED) for step in range(100))
    assert spending.totals().in_flight == 100
    assert spending.exhausted() is None


def test_a_call_that_was_given_up_frees_what_was_put_aside():
    spending = Spending(Budgets(usd=0.6))
    spending.reserve(question(0), PRICED)
    spending.release(question(0))
    assert spending.may_ask(question(1), PRICED)
    assert spending.totals().in_flight == 0


def test_a_resumed_run_keeps_its_total():
    before = [reply(30), CallFailed(reason="empty", message="", usage=Usage(output_tokens=30, cost_usd=0.3))]
    spending = Spending(Budgets(usd=0.6), before)
    assert (spending.totals().calls, spending.totals().usd) == (2, pytest.approx(0.6))
    assert not spending.may_ask(question(), PRICED)
    assert "$0.6" in (spending.exhausted() or "")


def test_an_exhausted_budget_of_tokens_says_so():
    assert "50 tokens" in (Spending(Budgets(tokens=50), [reply(50)]).exhausted() or "")


@given(st.lists(st.integers(0, 60), max_size=60), st.floats(0.1, 5))
def test_a_budget_in_money_is_never_exceeded(costs, limit):
    spending = Spending(Budgets(usd=limit))
    waiting = []
    for step, tokens in enumerate(costs):
        if spending.reserve(question(step), PRICED):
            waiting.append((step, tokens))
        if len(waiting) > 2:
            at, used = waiting.pop(0)
            spending.settle(question(at), reply(used))
        totals = spending.totals()
        assert totals.usd + totals.usd_in_flight <= limit + 1e-9


def test_a_budget_in_money_needs_prices():
    check_budgets(Budgets(usd=1), [PRICED])
    check_budgets(Budgets(tokens=1), [UNPRICED])
    with pytest.raises(UsageError, match=r"free\?") as caught:
        check_budgets(Budgets(usd=1), [PRICED, UNPRICED])
    assert "models_file" in caught.value.remedy


def test_an_estimate_has_a_low_and_a_high_end():
    forecast = estimate(60, 8_000, PRICED)
    assert forecast.calls_low == 60 < forecast.calls_high
    assert forecast.tokens_low < forecast.tokens_high
    assert forecast.usd_low is not None
    assert forecast.usd_high is not None
    assert 0 < forecast.usd_low < forecast.usd_high
    assert estimate(60, 8_000, UNPRICED).usd_low is None


def test_an_estimate_for_several_models_spans_all_of_them():
    cheap = PRICED.model_copy(update={"name": "cheap", "input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0})
    both = estimate_for_any(10, 100, [PRICED, cheap])
    assert both.usd_low == estimate(10, 100, cheap).usd_low
    assert both.usd_high == estimate(10, 100, PRICED).usd_high
    assert estimate_for_any(10, 100, [PRICED, UNPRICED]).usd_high is None


@pytest.mark.parametrize(("text", "low", "high"), [("", 0, 0), ("for (int i = 0; i < n; ++i) {", 12, 29)])
def test_tokens_are_rather_overestimated(text, low, high):
    assert low <= estimate_tokens(text) <= high


def test_text_beyond_ascii_has_more_tokens_than_characters():
    assert estimate_tokens("日本語") >= 3
    assert estimate_tokens("\ud800") == 1, "not even a broken character is an error"
