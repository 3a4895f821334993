"""Every step of a run is accounted for, and so is every token."""

import pytest
from example_run import a_run, step

from kernelevolve.cli.report import write
from kernelevolve.cli.summary import Certification, command_again, evidence, nothing_wins
from kernelevolve.cli.waste import ENDS, NOBODY, end_of, ends, rows, waste_of
from kernelevolve.schema import (
    Ask,
    Budgets,
    Duplicate,
    Lineage,
    NoKernel,
    ParseError,
    Reused,
    Run,
    Step,
    StopRules,
    Usage,
)
from kernelevolve.testing.dialogue import a_model, a_reply, an_exchange, no_reply
from kernelevolve.testing.landscape import a_brief
from kernelevolve.testing.records import a_candidate, a_failed, a_passed, a_proposal, a_run_spec, a_triaged

WORDS = {"message": "m", "advice": "a"}


def said(finding, stage="parse"):
    return a_failed(stage=stage, diagnostics=(finding,))


def asked(number, *answers):
    exchanges = tuple(an_exchange(number, attempt, answer=answer) for attempt, answer in enumerate(answers))
    return Ask(number=number, brief=a_brief(number), exchanges=exchanges)


@pytest.fixture
def mixed():
    """A run of two models and the tuner in which everything happens, with its questions."""
    endings = [
        ("one", "draft", a_passed()),
        ("one", "draft", said(NoKernel(reason="refusal", **WORDS))),
        ("one", "diff", said(NoKernel(reason="malformed_edit", **WORDS))),
        ("two", "diff", said(Duplicate(of="x", by="source", **WORDS))),
        ("two", "rewrite", said(Duplicate(of="x", by="code", **WORDS), "build")),
        ("two", "rewrite", said(NoKernel(reason="no_reply", **WORDS))),
        ("two", "draft", a_failed(stage="check")),
        (None, "retune", a_passed(diagnostics=(Reused(of="x", **WORDS),))),
        (None, "retune", None),
    ]
    steps = [
        Step(number=n, proposal=a_proposal(model=model, lineage=Lineage(change=change)), evaluation=evaluation)
        for n, (model, change, evaluation) in enumerate(endings)
    ]
    asks = [asked(n, a_reply()) for n in range(6)]
    asks += [asked(6, a_reply("again"), a_reply()), asked(7), asked(8), asked(9, a_reply("again")), asked(10)]
    asks[5] = asked(5, no_reply(usage=Usage(input_tokens=500, cost_usd=None)))
    return Run(spec=a_run_spec(models=(a_model("one"), a_model("two"))), steps=steps), asks


def test_the_accounts_add_up_to_the_steps_and_to_the_tokens(mixed):
    run, asks = mixed
    waste = waste_of(run, asks)
    assert (waste.proposals, waste.total.steps, sum(waste.total.ends.values())) == (9, 9, 9)
    for accounts in (waste.by_model, waste.by_change):
        for name in ("steps", "calls", "input_tokens", "output_tokens"):
            assert sum(getattr(account, name) for account in accounts) == getattr(waste.total, name)
        for end in ENDS:
            assert sum(a.ends.get(end, 0) for a in accounts) == waste.total.ends.get(end, 0)
        assert all(sum(account.ends.values()) == account.steps for account in accounts)
    paid = [e.answer.usage for ask in asks for e in ask.exchanges]
    everything = waste.total.input_tokens + waste.open_usage.input_tokens
    assert everything == sum(usage.input_tokens for usage in paid)
    assert (waste.total.calls + 1, waste.open_steps) == (len(paid), 1)


def test_steps_are_told_by_model_and_by_kind_of_change(mixed):
    waste = waste_of(*mixed)
    assert [(a.name, a.steps) for a in waste.by_model] == [("two", 4), ("one", 3), (NOBODY, 2)]
    one = waste.by_model[1]
    assert one.ends == {"measured": 1, "refusal": 1, "malformed_edit": 1}
    assert one.usd == pytest.approx(0.006)
    assert waste.by_model[0].usd is None  # a call whose price isn't known
    assert {a.name: a.steps for a in waste.by_change} == {"draft": 3, "diff": 2, "rewrite": 2, "retune": 2}


@pytest.mark.parametrize(
    ("evaluation", "end"),
    [
        (None, "under_way"),
        (a_triaged(), "triaged"),
        (a_failed(stage="load"), "load"),
        (said(ParseError(**WORDS)), "parse"),
        (a_passed(diagnostics=(Reused(of="x", **WORDS),)), "reused"),
    ],
)
def test_an_end_is_told_by_the_evaluation(evaluation, end):
    assert end_of(evaluation) == end


def test_a_table_has_a_column_for_each_end_that_occurs(mixed):
    waste = waste_of(*mixed)
    assert {len(row) for row in rows(waste)} == {2 + len(ends(waste)) + 4}
    assert rows(waste)[-1][:2] == ("total", "9")


def test_the_report_has_the_table(mixed):
    run, asks = mixed
    made = write(run, Certification("none"), waste_of(run, asks))
    assert "| total | 9 |" in made.markdown
    assert "What the steps came to" in made.html
    assert "What the steps came to" not in write(a_run(), Certification("none"), waste_of(Run(spec=run.spec), ())).html


def test_that_nothing_wins_is_said_with_what_was_tried():
    seed = a_candidate()
    slow = [step(n, a_candidate(tunables={"BLOCK": 8 * 2**n}), 0.8, 0.8 if n == 0 else None) for n in range(3)]
    run = Run(spec=a_run_spec(), steps=[*slow, step(3, seed, None)])
    found = nothing_wins(run)
    assert found is not None
    told = evidence(found)
    assert told[0] == "tried: 4 candidates, of which 3 were right"
    assert "main.cpp, draft: 4 tried, 3 right, the best 0.80x" in told[1]
    assert any("the best reaches 0.80x" in line for line in told)
    assert "Nothing wins here" in write(run, Certification("none"), waste_of(run, ())).html
    assert nothing_wins(a_run()) is None


def test_the_command_that_repeats_a_run_has_its_models_and_its_ends():
    spec = a_run_spec(
        proposer="model", models=(a_model("one", base_url="http://localhost:1/v1"),), lanes=8, knowledge=False,
        budgets=Budgets(usd=2.5), stop=StopRules(stall=30),
    )  # fmt: skip
    words = command_again(spec)
    assert "--model openai-chat:one@http://localhost:1/v1 --lanes 8" in words
    assert "--no-knowledge --usd 2.5 --stall 30" in words
