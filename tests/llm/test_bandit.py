import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelevolve.errors import UnknownNameError
from kernelevolve.llm.bandit import Bandit
from kernelevolve.schema import ModelInfo


def model(name, usd_per_mtok=None):
    return ModelInfo(
        name=name, protocol="openai-chat", input_usd_per_mtok=usd_per_mtok, output_usd_per_mtok=usd_per_mtok
    )


def bandit(*models, seed=0, **config):
    return Bandit(Bandit.Config(**config), models, seed=seed)


def play(chooser, rates, costs, steps=300, seed=1):
    """How often each model is asked, if it improves at that rate."""
    luck = random.Random(seed)
    asked = Counter()
    for step in range(steps):
        name = chooser.choose(step)
        asked[name] += 1
        chooser.tell(name, luck.random() < rates[name], costs[name])
    return asked


def test_of_two_models_at_one_price_the_better_is_asked_more():
    asked = play(bandit(model("good", 5), model("bad", 5)), {"good": 0.5, "bad": 0.1}, {"good": 0.06, "bad": 0.06})
    assert asked["good"] > 2 * asked["bad"] > 0


def test_of_two_equally_good_models_the_cheaper_is_asked_more():
    asked = play(
        bandit(model("dear", 50), model("cheap", 5)), {"dear": 0.3, "cheap": 0.3}, {"dear": 0.6, "cheap": 0.06}
    )
    assert asked["cheap"] > 2 * asked["dear"]


def test_a_dear_model_is_worth_it_if_it_is_better_by_more_than_its_price():
    rates, costs = {"dear": 0.6, "cheap": 0.02}, {"dear": 0.3, "cheap": 0.06}
    asked = play(bandit(model("dear", 25), model("cheap", 5)), rates, costs)
    assert asked["dear"] > asked["cheap"]


def test_a_model_without_a_price_is_neither_free_nor_shunned():
    choosing = bandit(model("known", 5), model("unknown"))
    asked = Counter(choosing.choose(step) for step in range(400))
    assert 100 < asked["unknown"] < 300
    rates = {"known": 0.1, "unknown": 0.6}
    assert play(choosing, rates, {"known": 0.06, "unknown": None})["unknown"] > 200


def test_where_nothing_has_a_price_the_better_is_asked_more():
    asked = play(
        bandit(model("good"), model("bad"), step_usd=0), {"good": 0.5, "bad": 0.1}, {"good": None, "bad": None}
    )
    assert asked["good"] > 2 * asked["bad"]


def test_a_model_of_ones_own_costs_its_evaluations():
    asked = play(bandit(model("own", 0), model("bought", 1)), {"own": 0.05, "bought": 0.6}, {"own": 0, "bought": 0.012})
    assert asked["bought"] > asked["own"], "being free is not enough"


def test_several_questions_before_an_answer_go_to_several_models():
    choosing = bandit(model("a", 5), model("b", 5))
    assert {choosing.choose(step) for step in range(10)} == {"a", "b"}


def test_asking_changes_nothing():
    one, other = bandit(model("a", 5), model("b", 5)), bandit(model("a", 5), model("b", 5))
    for step in range(50):
        one.choose(step)
    assert [one.choose(step) for step in range(50)] == [other.choose(step) for step in range(50)]


def test_another_seed_chooses_otherwise():
    choices = [[bandit(model("a", 5), model("b", 5), seed=seed).choose(s) for s in range(20)] for seed in (1, 2)]
    assert choices[0] != choices[1]


told = st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1), st.none() | st.floats(0, 1)), min_size=1, max_size=30)


@given(told, st.randoms(use_true_random=False))
def test_choices_follow_from_what_was_told_in_whatever_order(tells, shuffler):
    straight, shuffled = bandit(model("a", 5), model("b")), bandit(model("a", 5), model("b"))
    for tell in tells:
        straight.tell(*tell)
    shuffler.shuffle(tells)
    for tell in tells:
        shuffled.tell(*tell)
    assert [straight.choose(step) for step in range(20)] == [shuffled.choose(step) for step in range(20)]
    assert straight.statistics() == shuffled.statistics()


def test_what_makes_no_sense_is_refused():
    choosing = bandit(model("a"))
    with pytest.raises(UnknownNameError, match="'b'"):
        choosing.tell("b", 1, None)
    with pytest.raises(ValueError, match="between 0 and 1"):
        choosing.tell("a", 1.5, None)
