"""A made-up landscape of kernels: what a policy and a proposer find when no machine is asked.

Fitness is a function of a seed's name and its tunables, so that a search of hundreds of candidates takes a
second and its optimum is known.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kernelevolve.policies.base import Policy
from kernelevolve.proposers.base import Proposer
from kernelevolve.schema import (
    Brief,
    Candidate,
    Change,
    Diagnostic,
    Evaluation,
    Parent,
    Proposal,
    Seed,
    Value,
)
from kernelevolve.testing.answering import answered
from kernelevolve.testing.records import a_failed, a_hardware, a_passed, a_target


def a_seed(name: str, tunables: Mapping[str, tuple[Value, ...]] | None = None) -> Seed:
    """A C++ seed that parses and declares these tunables; it does nothing."""
    lines = [f"// tunable {key}: {' '.join(str(v) for v in values)}" for key, values in (tunables or {}).items()]
    text = "\n".join([f"// {name}", *lines, "void run() {}", "TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);", ""])
    return Seed(name=name, language="cpp", files={"main.cpp": text})


def a_brief(
    step: int = 0, change: Change = "draft", parents: tuple[Parent, ...] = (), seeds: tuple[Seed, ...] = ()
) -> Brief:
    """A brief about the doubling target, for C++."""
    return Brief(
        step=step,
        target=a_target(),
        hardware=a_hardware(),
        language="cpp",
        change=change,
        parents=parents,
        seeds=seeds,
    )


def admitted(proposal: Proposal) -> Candidate:
    """The candidate that a proposal becomes once its language admits it."""
    return Candidate(
        language=proposal.language, files=proposal.files, tunables=proposal.tunables, lineage=proposal.lineage
    )


@dataclass(frozen=True)
class Landscape:
    """Seeds, and how fast each of their members is."""

    seeds: tuple[Seed, ...]
    speedup: Callable[[str, Mapping[str, Value]], float | Diagnostic]
    """name of the seed and tunables to a speed-up, or to the reason why the build fails"""

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """What a judge would say."""
        answer = self.speedup(candidate.lineage.origin, candidate.tunables)
        if isinstance(answer, float):
            return a_passed(candidate, answer)
        return a_failed(candidate, "build", diagnostics=(answer,))

    def explore(self, policy: Policy, proposer: Proposer, *, evals: int, workers: int = 1) -> tuple[Parent, ...]:
        """Search with `workers` candidates under way, until nothing is left; what was told, in order."""
        told: list[Parent] = []
        under_way: deque[tuple[int, Candidate]] = deque()
        asked = 0
        while True:
            while asked < evals and len(under_way) < workers:
                plan = policy.ask()
                proposal = answered(proposer, a_brief(asked, plan.change, plan.parents, self.seeds))
                if proposal is None:
                    break
                under_way.append((asked, admitted(proposal)))
                asked += 1
            if not under_way:
                return tuple(told)
            step, candidate = under_way.popleft()
            outcome = Parent(candidate=candidate, evaluation=self.evaluate(candidate))
            proposer.tell(outcome)
            policy.tell(step, outcome)
            told.append(outcome)
