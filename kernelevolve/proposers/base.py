"""The seam of whoever writes candidates."""

from typing import ClassVar, Protocol, runtime_checkable

from kernelevolve.schema import Answer, Brief, Change, ModelRequest, Parent, Proposal


class Proposer(Protocol):
    """Answers briefs. Deterministic under its seed and the order of calls.

    A proposer is constructed as `Proposer(config, seed=..., models=...)`, where `config` is its own frozen record
    `Proposer.Config` and `models` are those of the run. One that asks nobody passes them over, and says so with
    `asks = False`; one that brings a model of its own names it as `MODEL`.

    It asks nobody itself: where it needs a language model it returns the question, and the search, which puts it
    and keeps the answer, comes back with that (see `Asks`). So nothing is lost or paid twice, whoever dies when.
    """

    name: ClassVar[str]
    changes: ClassVar[tuple[Change, ...]]
    """kinds of change it can make to a parent (`draft`, which needs none, is always possible)"""

    def propose(self, brief: Brief) -> Proposal | ModelRequest | None:
        """An answer, a question to put first, or None when nothing new is left to propose for this brief."""

    def tell(self, outcome: Parent) -> None:
        """Learn how a candidate ended."""


@runtime_checkable
class Asks(Protocol):
    """What a proposer has beside that returns questions."""

    def read(self, brief: Brief, request: ModelRequest, answer: Answer) -> Proposal | ModelRequest:
        """What becomes of the answer to a question of this brief: a proposal (with its `trouble` where it holds no
        kernel), or one more question."""


@runtime_checkable
class Remembers(Protocol):
    """What a proposer may have beside: a cheaper way to learn what it once proposed than to propose it again."""

    def recall(self, brief: Brief, proposal: Proposal) -> None:
        """Stand afterwards as if `propose` had just answered this brief with this proposal, without a question."""
