"""What a brief carries at a step: memory, bottleneck, knowledge, seeds."""

import random

import pytest

from kernelevolve.briefing import MOST_ATTEMPTS, Briefing
from kernelevolve.knowledge import Library
from kernelevolve.policies.base import Plan
from kernelevolve.prompts import Prompts
from kernelevolve.schema import (
    Cheat,
    Counters,
    Duplicate,
    LimitExceeded,
    Lineage,
    NumericDifference,
    Parent,
    Profile,
    Raised,
    Trouble,
)
from kernelevolve.testing.landscape import a_seed
from kernelevolve.testing.records import a_candidate, a_failed, a_passed, a_proposal, a_run_spec, a_triaged

SEEDS = (a_seed("plain"), a_seed("tiled"))


class Story:
    """A run so far: each step names its parents by number."""

    def __init__(self, **spec):
        self.briefing = Briefing(a_run_spec(**spec), SEEDS, baseline_us={"n1024": 15.0})
        self.parents = {}

    def step(self, number, *above, speedup=None, model="m", change="rewrite", confirm=False, failure=None, **proposal):
        lineage = Lineage(
            change=change if above else "draft",
            parents=tuple(self.parents[n].candidate.digest for n in above),
            origin=f"k{number}",
        )
        candidate = a_candidate(lineage=lineage)
        purpose = "confirm" if confirm else "search"
        if speedup is None:
            said = failure or a_failed(candidate, "build")
        else:
            said = a_passed(candidate, speedup, purpose=purpose)
        self.parents[number] = Parent(candidate=candidate, evaluation=said)
        told = a_proposal(candidate, model=model, idea=f"idea {number}", **proposal)
        self.briefing.tell(number, told, self.parents[number], said)

    def labels(self, memory, *above, change="rewrite"):
        plan = Plan(change, tuple(self.parents[n] for n in above), memory)
        return [a.label.split()[0] for a in self.briefing.brief(99, plan).history]


@pytest.fixture
def family():
    return a_family()


def a_family(**spec):
    """0 is the root; 1 and 2 are made of it; 3, 4 and 5 of 1."""
    story = Story(**spec)
    story.step(0, speedup=1.0)
    story.step(1, 0, speedup=1.5)
    story.step(2, 0)
    story.step(3, 1, speedup=1.2)
    story.step(4, 1, speedup=2.0)
    story.step(5, 1)
    return story


def test_a_clean_slate_remembers_nothing(family):
    assert family.labels("clean", 1) == []


def test_siblings_are_what_else_was_made_of_the_same_parent_the_fastest_first(family):
    assert family.labels("siblings", 1) == ["k4", "k3", "k5"]


def test_what_others_make_of_the_same_parent_at_this_moment_is_told(family):
    plan = Plan("rewrite", (family.parents[1],), "siblings")
    family.briefing.begin(family.briefing.brief(6, plan))
    assert all(a.outcome != "pending" for a in family.briefing.brief(7, plan).history), "nobody knows its idea yet"
    proposed = a_proposal(a_candidate(), model="m", idea="unroll")
    family.briefing.propose(6, proposed)
    (open_, *_) = family.briefing.brief(7, plan).history
    assert (open_.outcome, open_.change, open_.idea) == ("pending", "rewrite", "unroll")
    assert family.briefing.brief(7, Plan("rewrite", (family.parents[2],), "siblings")).history == ()
    family.step(6, 1, speedup=3.0)
    assert [a.outcome for a in family.briefing.brief(7, plan).history] == ["passed", "passed", "failed", "passed"]


def test_inherited_is_the_line_that_led_there_and_what_was_made_beside_it(family):
    assert family.labels("inherit", 4) == ["k4", "k3", "k5", "k1", "k2", "k0"]


def test_combined_is_both(family):
    assert set(family.labels("combine", 1)) == {"k0", "k1", "k2", "k3", "k4", "k5"}


def test_combined_tells_what_came_of_the_latest_answers_too():
    story = a_family()
    for number in range(10, 15):
        story.step(number, 2, speedup=0.1)  # of other parents, and led by nobody
    story.step(15, 2, model=None, speedup=0.1)
    assert {"k12", "k13", "k14"} <= set(story.labels("combine", 1))
    assert not {"k10", "k15"} & set(story.labels("combine", 1))


def test_the_siblings_of_a_draft_are_the_other_drafts(family):
    family.step(6, speedup=0.7)
    assert family.labels("siblings", change="draft") == ["k0", "k6"]


def test_a_crossover_knows_the_children_of_either_parent(family):
    family.step(6, 1, 4, speedup=2.5, change="crossover")
    assert set(family.labels("siblings", 1, 4)) == {"k6", "k3", "k4", "k5"}


def test_an_attempt_says_what_was_tried_and_how_it_ended(family):
    plan = Plan("rewrite", (family.parents[1],), "siblings")
    best, _, failed = family.briefing.brief(9, plan).history
    assert (best.change, best.idea, best.outcome, best.speedup) == ("rewrite", "idea 4", "passed", pytest.approx(2.0))
    assert (failed.outcome, failed.speedup) == ("failed", None)
    assert failed.finding == "build: expected ';' before '}'"
    assert best.by_workload_us == {"n1024": pytest.approx(7.5)}
    assert failed.by_workload_us == {}


def test_a_confirmation_replaces_what_the_search_had_measured(family):
    family.step(4, 1, speedup=1.1, confirm=True)
    assert family.labels("siblings", 1) == ["k3", "k4", "k5"]
    family.step(4, 1, speedup=3.0)
    assert family.labels("siblings", 1) == ["k3", "k4", "k5"]


def test_what_was_never_put_to_the_test_is_no_attempt(family):
    family.step(6, 1, trouble=Trouble(reason="prose", detail="no code"))
    family.step(
        7,
        1,
        failure=a_failed(stage="parse", diagnostics=(Duplicate(message="as k3", advice="x", of="k3", by="source"),)),
    )
    family.step(8, 1, failure=a_failed(a_candidate(), "check", purpose="certify"))
    assert family.labels("siblings", 1) == ["k4", "k3", "k5"]


def test_the_tuner_does_not_crowd_out_ideas():
    story = Story()
    story.step(0, speedup=1.0)
    for number in range(1, 40):
        story.step(number, 0, speedup=2.0 + number / 100, model=None, change="retune")
    story.step(40, 0, speedup=1.1)
    assert story.labels("siblings", 0) == ["k40", "k39", "k38"]


def test_history_is_bounded_however_much_was_tried():
    story = Story()
    story.step(0, speedup=1.0)
    for number in range(1, 300):
        story.step(number, 0, speedup=None if number % 3 else 1.0 + number / 1e4)
    assert story.labels("combine", 0)[:3] == ["k297", "k0", "k299"]
    assert len(story.labels("combine", 0)) <= MOST_ATTEMPTS


def test_a_line_without_end_is_cut_short():
    story = Story()
    story.step(0, speedup=1.0)
    for number in range(1, 60):
        story.step(number, number - 1, speedup=1.0 + number / 100)
    assert story.labels("inherit", 59)[:3] == ["k59", "k58", "k57"]
    assert len(story.labels("inherit", 59)) < MOST_ATTEMPTS


def test_the_order_of_telling_makes_no_difference(family):
    told = [(0, (), 1.0), (1, (0,), 1.5), (2, (0,), None), (3, (1,), 1.2), (4, (1,), 2.0), (5, (1,), None)]
    for seed in range(5):
        other = Story()
        other.parents = family.parents
        for number, above, speedup in random.Random(seed).sample(told, len(told)):
            other.step(number, *above, speedup=speedup)
        assert other.labels("combine", 1) == family.labels("combine", 1)


def profile(workload, bound, share):
    return Profile(
        message=f"{workload}: {share:.0%} ({bound} bound)", advice="x", workload=workload, bound=bound,
        roofline_share=share, achieved_gbps=1.0, achieved_gflops=1.0,
    )  # fmt: skip


def counted(bound, occupancy):
    return Counters(
        message="kernel_0: half of stalls are barrier", advice="x", source="ncu", kernel="kernel_0", launches=1,
        bound=bound, metrics={"occupancy_pct": occupancy},
    )  # fmt: skip


def difference():
    return NumericDifference(
        message="y differs on n7: 3 of 7", advice="x", workload="n7", output="y", wrong=3, total=7, pattern="tail",
        first_index=(4,), expected="1", actual="0",
    )  # fmt: skip


def broken(stage, *diagnostics):
    return a_failed(a_candidate(), stage, diagnostics=diagnostics) if diagnostics else a_failed(a_candidate(), stage)


def measured(*diagnostics):
    return a_passed(a_candidate(), 0.8, diagnostics=diagnostics)


TOO_MUCH = LimitExceeded(message="too much", advice="x", resource="shared_memory", limit=1.0)
PROFILES = (profile("a", "compute", 0.7), profile("b", "memory", 0.4), profile("c", "memory", 0.6))


@pytest.mark.parametrize(
    ("evaluation", "name", "evidence"),
    [
        (broken("build"), "compile", "main.cpp:8: expected ';'"),
        (broken("load", Raised(message="undefined symbol", advice="x")), "compile", "undefined"),
        (broken("build", TOO_MUCH), "limits", "too much"),
        (broken("check", difference(), difference()), "correctness", "3 of 7 (and 1 more)"),
        (broken("check"), "correctness", "stage check"),
        (broken("time", Cheat(message="forged", advice="x", name="forged")), "cheat", "forged"),
        (measured(*PROFILES), "memory", "b: 40% (memory bound); the other workloads reach 60% to 70% of theirs"),
        (measured(profile("a", "latency", 0.1), counted("memory", 80.0)), "memory", "profiler"),
        (measured(counted("latency", 12.0)), "occupancy", "stalls"),
        (measured(), "unknown", "0.800 times as fast as eager"),
        (a_triaged(a_candidate()), "memory", "static model"),
    ],
)
def test_the_bottleneck_is_named_with_its_evidence(evaluation, name, evidence):
    plan = Plan("rewrite", (Parent(candidate=a_candidate(), evaluation=evaluation),))
    found = Briefing(a_run_spec(), ()).brief(0, plan).bottleneck
    assert found.name == name
    assert evidence in found.message


def test_a_draft_has_no_bottleneck_and_knows_seeds_and_baselines():
    brief = Story().briefing.brief(3, Plan("draft"))
    assert (brief.step, brief.bottleneck, brief.parents) == (3, None, ())
    assert (brief.seeds, brief.baseline_us) == (SEEDS, {"n1024": 15.0})


def test_seeds_of_other_languages_are_shown_only_where_there_are_none_of_its_own():
    foreign = a_seed("foreign").model_copy(update={"language": "triton"})
    assert Briefing(a_run_spec(), (*SEEDS, foreign)).brief(0, Plan("draft")).seeds == SEEDS
    assert Briefing(a_run_spec(), (foreign,)).brief(0, Plan("draft")).seeds == (foreign,)


@pytest.fixture
def library(tmp_path):
    """Documents about everything, one about memory, and one that a run learned."""
    rows = []
    for path, bottlenecks in (
        ("constraints/contract.md", "any"), ("languages/cpp.md", "any"), ("guidance/memory.md", "memory"),
        ("guidance/compute.md", "compute"), ("skills/double.md", "any"),
    ):  # fmt: skip
        file = tmp_path / "knowledge" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# {path}\n\nText about {bottlenecks}.\n")
        rows.append(f"| [{path}]({path}) | any | {bottlenecks} | any | any | what to do about {bottlenecks} |")
    head = "| document | operations | bottlenecks | hardware | languages | what it gives |\n|" + " --- |" * 6
    (tmp_path / "knowledge" / "index.md").write_text("\n".join(["# Index", "", head, *rows, ""]))
    return Library.load(Prompts(tmp_path))


def documents(library, number=0, bound="memory", **spec):
    briefing = Briefing(a_run_spec(**spec), (), library=library)
    evaluation = a_passed(a_candidate(), diagnostics=(profile("n1024", bound, 0.5),))
    brief = briefing.brief(number, Plan("rewrite", (Parent(candidate=a_candidate(), evaluation=evaluation),)))
    return [document.path for document in brief.documents]


def test_documents_answer_the_bottleneck_after_the_contract_and_the_language(library):
    assert documents(library, skills=0.0)[:3] == ["languages/cpp.md", "constraints/contract.md", "guidance/memory.md"]
    assert documents(library, bound="compute", skills=0.0)[2] == "guidance/compute.md"


def test_a_run_without_diagnostics_tells_how_it_ended_and_nothing_of_why():
    family = a_family(diagnostics=False)
    brief = family.briefing.brief(7, Plan("rewrite", (family.parents[1],), "siblings"))
    assert brief.bottleneck is None
    assert [p.evaluation.diagnostics for p in brief.parents] == [()]
    assert {attempt.finding for attempt in brief.history} == {""}
    assert {"passed", "failed"} <= {attempt.outcome for attempt in brief.history}


def test_a_run_without_knowledge_has_no_documents(library):
    assert documents(library, knowledge=False) == []
    assert documents(None) == []


def test_skills_are_shown_at_the_rate_that_was_set_and_the_draw_goes_by_the_step(library):
    shown = [any(p.startswith("skills/") for p in documents(library, number, skills=0.5)) for number in range(60)]
    assert 18 < sum(shown) < 42
    assert shown == [
        any(p.startswith("skills/") for p in documents(library, number, skills=0.5)) for number in range(60)
    ]
    assert not any(p.startswith("skills/") for number in range(9) for p in documents(library, number, skills=0.0))
    assert all("skills/double.md" in documents(library, number, skills=1.0) for number in range(9))
