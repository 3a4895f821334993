"""The seam of search policies: which parents breed next."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from kernelevolve.schema import Change, Memory, Parent


@dataclass(frozen=True)
class Plan:
    """What the next brief is about: a draft (no parents), or a change to the parents named."""

    change: Change
    parents: tuple[Parent, ...] = ()
    memory: Memory = "clean"


class Policy(Protocol):
    """Keeps the population and picks from it. Deterministic under its seed and the order of calls.

    A policy is constructed as `Policy(config, seed=..., changes=...)`, where `config` is its own frozen
    record `Policy.Config` and `changes` are the kinds of change that the proposer can make to a parent.
    """

    name: ClassVar[str]

    def ask(self) -> Plan:
        """The next plan, for the step with the next number. May be called again before earlier ones are told."""

    def tell(self, step: int, outcome: Parent | None) -> None:
        """File an evaluated candidate; None where the step's answer never became one.

        A failed candidate never becomes a parent of anything but a repair. One that passed without a verdict on any
        workload becomes a parent once it was confirmed.
        """

    def statistics(self) -> dict[str, float]:
        """What the policy's state looks like now, for the log of the run."""
