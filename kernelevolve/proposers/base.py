"""The seam of whoever writes candidates."""

from typing import ClassVar, Protocol

from kernelevolve.schema import Brief, Change, Parent, Proposal


class Proposer(Protocol):
    """Answers briefs. Deterministic under its seed and the order of calls."""

    name: ClassVar[str]
    changes: ClassVar[tuple[Change, ...]]
    """kinds of change it can make to a parent (`draft`, which needs none, is always possible)"""

    def propose(self, brief: Brief) -> Proposal | None:
        """An answer, or None when nothing new is left to propose for this brief."""

    def tell(self, outcome: Parent) -> None:
        """Learn how a candidate ended."""
