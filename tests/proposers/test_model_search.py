"""Whole searches by a model that does what its brief says. Seeds are fixed: a failure is a change, not bad luck."""

import re

import pytest
from answers import MODEL, block, fenced, wanted

from kernelevolve.briefing import Briefing
from kernelevolve.policies.base import Plan
from kernelevolve.policies.greedy import Greedy
from kernelevolve.proposers.model import Model
from kernelevolve.schema import Candidate, CompileError, Evaluation, Parent, Profile, Proposal
from kernelevolve.testing.answering import answered
from kernelevolve.testing.landscape import admitted
from kernelevolve.testing.records import a_failed, a_passed, a_run_spec
from kernelevolve.testing.scripted_client import ScriptedClient

SUMMIT = {"kWidth": 6, "kDepth": 9}


def source(width: int, depth: int) -> str:
    """A kernel with two constants that only a model changes, and a tunable for the tuner."""
    return f"""\
// tunable BLOCK: 8 16 32 64
constexpr int kWidth = {width};
constexpr int kDepth = {depth};
void run() {{}}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
"""


def constants(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"constexpr int (k\w+) = (\d+);", text)}


def judged(candidate: Candidate) -> Evaluation:
    """Fastest at the summit; the finding says which constant is farthest off, and in which direction."""
    values = constants(candidate.files["main.cpp"])
    if values["kWidth"] > 8:
        finding = CompileError(message="kWidth is too large", advice="at most 8", file="main.cpp", line=2)
        return a_failed(candidate, "build", diagnostics=(finding,))
    away = {name: best - values[name] for name, best in SUMMIT.items()}
    name = max(away, key=lambda n: abs(away[n]))
    advice = "it is as fast as it gets" if not away[name] else f"{'raise' if away[name] > 0 else 'lower'} {name}"
    share = 0.9 ** sum(abs(d) for d in away.values())
    profile = Profile(
        message=f"{share:.0%} of the roofline", advice=advice, workload="n1024", bound="memory", roofline_share=share,
        achieved_gbps=1.0, achieved_gflops=1.0,
    )  # fmt: skip
    return a_passed(candidate, 2 * share + candidate.tunables["BLOCK"] / 1000, diagnostics=(profile,))


def heedful(request):
    """Moves the constant that the findings name, where the parent has it; starts low, and mends what doesn't build."""
    if wanted(request) == "draft":
        return fenced(source(1 + request.step % 3, 2 + request.attempt))
    parent = constants(request.prompt)
    advice = re.search(r"(Raise|Lower) (k\w+)", request.prompt)
    if advice is None:
        return "I see nothing to improve."
    name, step = advice[2], 1 if advice[1] == "Raise" else -1
    value = parent[name] + step * (1 + request.attempt)
    if wanted(request) == "diff":
        return block(f"constexpr int {name} = {parent[name]};", f"constexpr int {name} = {value};")
    text = re.search(r"```cpp file=main.cpp\n(.*?)```", request.prompt, re.DOTALL)[1]
    return fenced(text.replace(f"{name} = {parent[name]};", f"{name} = {value};"))


def search(evals, *, client, seed=0, memory="combine", **config):
    """Steps of a search: what was proposed, and how it ended. Whatever is no new kernel costs a step."""
    model = Model(Model.Config(**config), seed=seed, models=(MODEL,))
    policy = Greedy(Greedy.Config(drafts=2), seed=seed, changes=("rewrite", "diff"))
    briefing, seen, steps = Briefing(a_run_spec(seed=seed), ()), set(), []
    for number in range(evals):
        plan = policy.ask()
        brief = briefing.brief(number, Plan(plan.change, plan.parents, memory if plan.parents else "clean"))
        proposal = answered(model, brief, client)
        parent = None
        if proposal.trouble is None and admitted(proposal).normal not in seen:
            candidate = admitted(proposal)
            seen.add(candidate.normal)
            parent = Parent(candidate=candidate, evaluation=judged(candidate))
            policy.tell(number, parent)
            model.tell(parent)
        briefing.tell(number, proposal, parent, parent.evaluation if parent else a_failed(stage="parse"))
        steps.append((brief, proposal, parent))
    return steps


def best(steps):
    passed = [(p.evaluation.speedup, p.candidate) for _, _, p in steps if p and p.evaluation.outcome == "passed"]
    return max(passed, key=lambda found: found[0])


def test_a_model_that_heeds_its_briefs_gets_to_the_summit_and_the_tuner_does_the_rest():
    client = ScriptedClient(heedful)
    speedup, candidate = best(search(40, client=client, tuning=0.3))
    assert constants(candidate.files["main.cpp"]) == SUMMIT
    assert candidate.tunables == {"BLOCK": 64}
    assert speedup == pytest.approx(2.064)


def test_members_that_the_tuner_walks_cost_no_question():
    client = ScriptedClient(heedful)
    steps = search(40, client=client, tuning=0.3)
    tuned = [proposal for _, proposal, _ in steps if proposal.model is None]
    assert 4 < len(tuned) < 20
    assert sum(p.usage.input_tokens for p in tuned) == 0
    assert len({r.step for r in client.requests}) == 40 - len(tuned)


def test_no_kernel_is_judged_twice_and_no_prose_at_all():
    steps = search(40, client=ScriptedClient(heedful))
    judged_codes = [parent.candidate.normal for _, _, parent in steps if parent]
    assert len(set(judged_codes)) == len(judged_codes)
    assert all(parent is None for _, proposal, parent in steps if proposal.trouble)


def test_briefs_late_in_a_search_know_what_was_tried_and_stay_bounded():
    steps = search(60, client=ScriptedClient(heedful), tuning=0.3)
    brief = next(brief for brief, _, _ in reversed(steps) if brief.parents)
    assert 3 < len(brief.history) <= 16
    assert any(attempt.idea for attempt in brief.history)


def test_the_same_search_again_asks_the_same():
    first, second = ScriptedClient(heedful), ScriptedClient(heedful)
    assert [s[1] for s in search(25, client=first)] == [s[1] for s in search(25, client=second)]
    assert first.requests == second.requests


def test_what_is_said_of_a_proposal_can_be_stored_and_read_back():
    for _, proposal, _ in search(8, client=ScriptedClient(heedful)):
        assert Proposal.model_validate_json(proposal.model_dump_json()) == proposal
