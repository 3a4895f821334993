"""The tuner walks seeds and their tunables, and learns from what it is told."""

import logging

import pytest

from kernelevolve.proposers.tuner import Tuner
from kernelevolve.schema import CompileError, Crash, LimitExceeded, Lineage, Parent
from kernelevolve.testing.landscape import a_brief, a_seed, admitted
from kernelevolve.testing.records import a_candidate, a_failed, a_passed, a_triaged

PLAIN = a_seed("plain")
TILED = a_seed("tiled", {"TILE": (8, 16, 32, 64), "UNROLL": (1, 2, 4)})
WIDE = a_seed("wide", {"WIDTH": (1, 2, 3)})


def a_tuner(seed=0):
    return Tuner(Tuner.Config(), seed=seed)


def draft(tuner, *seeds, step=0):
    return tuner.propose(a_brief(step, seeds=seeds))


def retune(tuner, parent, *seeds):
    return tuner.propose(a_brief(0, "retune", (parent,), seeds))


def passed(candidate, speedup=1.5, **changes):
    return Parent(candidate=candidate, evaluation=a_passed(candidate, speedup, **changes))


def failed(candidate, stage="build", *diagnostics):
    changes = {"diagnostics": diagnostics} if diagnostics else {}
    return Parent(candidate=candidate, evaluation=a_failed(candidate, stage, **changes))


def everything(tuner, *seeds, told=None):
    """Tunables of all that is proposed until nothing is left; `told` says how each one ends."""
    found = []
    while (proposal := draft(tuner, *seeds)) is not None:
        found.append(proposal.tunables)
        if told:
            tuner.tell(told(admitted(proposal)))
        assert len(found) < 200
    return found


def limit(resource):
    return LimitExceeded(message=f"out of {resource}", advice="use less", resource=resource, limit=1.0)


def test_every_seed_comes_first_at_its_defaults():
    tuner = a_tuner()
    proposals = [draft(tuner, PLAIN, TILED, WIDE) for _ in range(3)]
    assert [p.lineage.origin for p in proposals] == ["plain", "tiled", "wide"]
    assert [p.tunables for p in proposals] == [{}, {"TILE": 8, "UNROLL": 1}, {"WIDTH": 1}]
    assert proposals[1].files == TILED.files


def test_seeds_of_another_language_are_not_its_business():
    other = PLAIN.model_copy(update={"language": "triton"})
    assert draft(a_tuner(), other, WIDE).lineage.origin == "wide"


def test_a_seed_that_is_no_kernel_is_left_out_and_named_once(caplog):
    broken = TILED.model_copy(update={"name": "broken", "files": {"main.cpp": "void run() {}"}})
    tuner = a_tuner()
    with caplog.at_level(logging.WARNING):
        assert [draft(tuner, broken, PLAIN).lineage.origin, draft(tuner, broken, PLAIN)] == ["plain", None]
    assert [r.getMessage().startswith("seed broken is left out") for r in caplog.records] == [True]


def test_every_member_of_every_family_is_proposed_once_and_then_none():
    found = everything(a_tuner(), PLAIN, TILED, WIDE)
    assert len(found) == 1 + 12 + 3
    assert len({tuple(sorted(t.items())) for t in found}) == len(found)


def test_a_retune_stays_in_the_family_of_its_parent():
    tuner = a_tuner()
    parents = [passed(admitted(draft(tuner, PLAIN, TILED, WIDE))) for _ in range(3)]
    for parent in parents:
        tuner.tell(parent)
    proposal = retune(tuner, parents[1], PLAIN, TILED, WIDE)
    assert (proposal.files, proposal.lineage.origin) == (TILED.files, "tiled")
    assert proposal.lineage == Lineage(change="retune", parents=(parents[1].candidate.digest,), origin="tiled")


def test_a_retune_of_a_family_that_is_used_up_becomes_a_draft_of_another():
    tuner = a_tuner()
    parent = passed(admitted(draft(tuner, PLAIN)))
    tuner.tell(parent)
    assert retune(tuner, parent, PLAIN, WIDE).lineage == Lineage(change="draft", origin="wide")


def test_a_kernel_from_elsewhere_is_walked_like_a_seed_once_it_passed():
    tuner = a_tuner()
    foreign = a_candidate(lineage=Lineage(change="rewrite", origin="somebody"))
    tuner.tell(failed(foreign))
    assert draft(tuner) is None
    tuner.tell(passed(foreign))
    assert draft(tuner).files == foreign.files
    assert retune(tuner, passed(foreign)).tunables["BLOCK"] in (16, 32)
    assert draft(tuner) is None


def test_what_does_not_fit_in_memory_excludes_everything_as_large():
    def told(candidate):
        small = candidate.tunables["TILE"] < 32 or candidate.tunables["UNROLL"] < 2
        return passed(candidate) if small else failed(candidate, "check", limit("memory"))

    tuner = a_tuner()
    tuner.tell(passed(admitted(draft(tuner, TILED))))
    corner = a_candidate(files=TILED.files, tunables={"TILE": 32, "UNROLL": 2})
    tuner.tell(told(corner))
    found = everything(tuner, TILED, told=told)
    assert len(found) == 12 - 1 - 4
    assert not [t for t in found if t["TILE"] >= 32 and t["UNROLL"] >= 2]


@pytest.mark.parametrize(
    ("stage", "diagnostic", "left"),
    [
        ("build", limit("time"), 7),
        ("build", limit("shared_memory"), 7),
        ("build", limit("threads"), 7),
        ("build", limit("registers"), 10),  # more warps may need fewer each
        ("check", limit("time"), 10),
        ("build", CompileError(message="static assertion failed: too wide", advice="choose others"), 10),
        ("check", Crash(message="segmentation fault", advice="mind the bounds"), 10),
    ],
)
def test_only_a_limit_that_size_explains_excludes_more_than_the_member(stage, diagnostic, left):
    tuner = a_tuner()
    tuner.tell(passed(admitted(draft(tuner, TILED))))
    tuner.tell(failed(a_candidate(files=TILED.files, tunables={"TILE": 32, "UNROLL": 2}), stage, diagnostic))
    assert len(everything(tuner, TILED)) == left


def test_a_larger_member_that_passes_takes_the_exclusion_back():
    tuner = a_tuner()
    small, large = (a_candidate(files=WIDE.files, tunables={"WIDTH": width}) for width in (2, 3))
    tuner.tell(failed(small, "build", limit("memory")))
    tuner.tell(passed(large))
    assert everything(tuner, WIDE) == [{"WIDTH": 1}]


def test_a_family_of_which_triage_let_some_pass_is_never_given_up():
    def told(candidate):
        first = candidate.tunables == {"TILE": 8, "UNROLL": 1}
        said = a_triaged(candidate, None) if first else a_failed(candidate, "check")
        return Parent(candidate=candidate, evaluation=said)

    assert len(everything(a_tuner(), TILED, told=told)) == 12


def test_a_family_that_fails_three_times_at_one_stage_is_given_up():
    assert len(everything(a_tuner(), TILED, told=lambda c: failed(c, "check"))) == 3


def test_a_family_that_passed_once_is_never_given_up():
    def told(candidate):
        return passed(candidate) if candidate.tunables == {"TILE": 8, "UNROLL": 1} else failed(candidate, "check")

    assert len(everything(a_tuner(), TILED, told=told)) == 12


def test_better_families_get_more_drafts_and_worse_ones_still_some():
    good, poor = (a_seed(name, {"N": tuple(range(60))}) for name in ("good", "poor"))
    tuner, drafts = a_tuner(), []
    for step in range(60):
        proposal = draft(tuner, poor, good, step=step)
        drafts.append(proposal.lineage.origin)
        tuner.tell(passed(admitted(proposal), 3.0 if drafts[-1] == "good" else 1.1))
    assert 5 < drafts.count("poor") < drafts.count("good") < 55


def test_certification_does_not_teach_it():
    tuner = a_tuner()
    tuner.tell(passed(a_candidate(), purpose="certify"))
    assert draft(tuner) is None


def test_tunables_with_values_that_the_source_does_not_declare_do_no_harm():
    tuner = a_tuner()
    tuner.tell(passed(a_candidate(files=WIDE.files, tunables={"WIDTH": 77})))
    assert sorted(t["WIDTH"] for t in everything(tuner, WIDE, told=passed)) == [1, 2, 3]


def test_a_family_of_a_million_members_is_walked_without_listing_them():
    huge = a_seed("huge", {f"T{n}": tuple(range(10)) for n in range(6)})
    tuner = a_tuner()
    for step in range(20):
        tuner.tell(passed(admitted(draft(tuner, huge, step=step))))
    assert draft(tuner, huge) is not None
