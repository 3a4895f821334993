"""A proposer that isn't one: it reads its answers from a list."""

from collections.abc import Iterable
from typing import ClassVar

from kernelevolve.schema import Brief, Change, Parent, Proposal


class ScriptedProposer:
    """Gives prepared proposals one by one, whatever the brief asks for, then None.

    Keeps what it was asked (`briefs`) and told (`told`) for the test to look at.
    """

    name: ClassVar[str] = "scripted"
    changes: ClassVar[tuple[Change, ...]] = ("rewrite",)

    def __init__(self, proposals: Iterable[Proposal | None]) -> None:
        self.briefs: list[Brief] = []
        self.told: list[Parent] = []
        self._script = iter(proposals)

    def propose(self, brief: Brief) -> Proposal | None:
        """The next proposal of the script, as this proposer's answer to this brief."""
        self.briefs.append(brief)
        proposal = next(self._script, None)
        if proposal is None:
            return None
        answer = {"proposer": self.name, "brief": brief.digest}
        return Proposal.model_validate({**proposal.model_dump(), **answer})

    def tell(self, outcome: Parent) -> None:
        """Remember an outcome."""
        self.told.append(outcome)
