"""What the policies have in common: the candidates told so far, and plans that start from them."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from kernelevolve.policies.base import Plan
from kernelevolve.policies.ranking import Ranking, worth
from kernelevolve.policies.uses import Uses
from kernelevolve.schema import Change, Evaluation, Failed, Memory, Parent, Passed

WORTHY = math.log(2.0)
"""How much less a crossover's second parent may be worth: one that is half as fast has nothing to give."""
_MATES = 8
"""candidates that are drawn for one"""
_JOINED = 2
"""Times that the same two are joined, one after the other: the next answer would be much like the last."""
COLD = 0.05
"""Share of changes that are asked for without the run's memory, so that a local optimum can be left."""
REPAIRS = 2
"""Times that the repair of one failed candidate is tried."""
_NOT_ITS_CODE = frozenset({"cheat", "duplicate", "unsettled"})
"""Kinds of finding that no repair is the answer to."""
_REPAIRABLE = 32
"""failed candidates that are remembered for repair, the latest ones"""
_REPAIR_SHARE = 0.15
_REPAIR_SHARE_BEFORE_A_PASS = 0.5


@dataclass(frozen=True)
class Filing:
    """What became of an outcome that was told."""

    first: bool
    """whether nothing was known of the candidate"""
    usable: bool
    """whether it may be a parent now"""


def _behind(theirs: Evaluation, mine: Evaluation) -> bool:
    """Whether one is no faster than the other on any of several workloads."""
    if not isinstance(theirs, Passed) or not isinstance(mine, Passed) or len(mine.measurements) < 2:
        return False
    times = {m.workload: m.candidate_us for m in mine.measurements}
    return all(m.candidate_us >= times.get(m.workload, 0.0) for m in theirs.measurements)


class Population:
    """Every candidate told so far, by digest, and how often each was used.

    In a search without the device, those that triage let pass stand in their place. Their estimates are kept apart
    from fitness, and rank only where nothing was measured.
    A confirmation replaces what the search had said of the same candidate, so that a lucky measurement is
    corrected, and a candidate that fails its second look is gone. Evaluations made for any other purpose,
    and confirmations of a candidate that was never told, are not filed. What passed without a verdict anywhere
    waits for its confirmation. Each call costs the same however many candidates there are.
    """

    def __init__(self, changes: Sequence[Change] = ()) -> None:
        self._changes = tuple(changes)
        self.uses = Uses()
        self._usable: dict[str, Parent] = {}
        self._order: list[str] = []
        self._place: dict[str, int] = {}
        self._measured, self._estimated = Ranking(), Ranking()
        self._waiting: set[str] = set()
        self._failed: set[str] = set()
        self._repairable: dict[str, Parent] = {}
        self._confirmed: set[str] = set()
        self._drafts = 0

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, digest: str) -> Parent:
        return self._usable[digest]

    def __contains__(self, digest: object) -> bool:
        return digest in self._usable

    def tell(self, step: int, outcome: Parent | None) -> Filing | None:
        """File an outcome; None where it isn't filed."""
        self.uses.close(step)
        if outcome is None:
            return None
        digest, evaluation = outcome.candidate.digest, outcome.evaluation
        first = digest not in self._usable and digest not in self._failed and digest not in self._waiting
        if evaluation.purpose == "confirm" and not first:
            self._confirmed.add(digest)
        elif evaluation.purpose != "search" or digest in self._confirmed:
            return None
        if first:
            self.uses.tell(outcome.candidate.lineage)
            self._drafts += outcome.candidate.lineage.change == "draft"
        self._take_out(digest)
        if isinstance(evaluation, Failed):
            self._file_failure(outcome, evaluation)
        elif isinstance(evaluation, Passed) and not evaluation.settled:
            self._waiting.add(digest)
        else:
            self._take_in(outcome)
        return Filing(first=first, usable=digest in self._usable)

    @property
    def best(self) -> Parent | None:
        """The usable candidate of the highest fitness, of equals the first told; None while there is none.

        Where nothing was measured, the one of the highest estimated rate, or any where nothing was estimated.
        """
        digest = self._measured.top or self._estimated.top or next(iter(self._usable), None)
        return None if digest is None else self._usable[digest]

    def draw(self, rng: random.Random, *, but: Parent | None = None) -> Parent:
        """A usable candidate, uniformly; `but` is left out. Raises `ValueError` when there is none."""
        if but is None:
            return self._usable[self._order[rng.randrange(len(self._order))]]
        place = rng.randrange(len(self._order) - 1)
        return self._usable[self._order[place + (place >= self._place[but.candidate.digest])]]

    def breed(self, rng: random.Random, parent: Parent, partner: Parent | None = None, *, cold: float = COLD) -> Plan:
        """A change to `parent`, drawn uniformly from those that apply to it; a draft where none does.

        A crossover's second parent is `partner` or, without one, drawn uniformly from the other candidates that are
        worth it; where none is found, another change is made. `cold` is the share of changes that remember nothing.
        """
        others = len(self._order) > 1
        applicable = [c for c in self._changes if c not in ("draft", "repair") and (c != "crossover" or others)]
        if not applicable:
            return Plan("draft")
        change = rng.choice(applicable)
        memory = self._memory(rng, parent, cold)
        if change != "crossover":
            return Plan(change, (parent,), memory)
        mate = partner if partner is not None and self._worthy(partner, parent) else self._mate(rng, parent)
        if mate is not None:
            return Plan(change, (parent, mate), memory)
        alone = [c for c in applicable if c != "crossover"]
        return Plan(rng.choice(alone), (parent,), memory) if alone else Plan("draft")

    def _mate(self, rng: random.Random, parent: Parent) -> Parent | None:
        """Another candidate that is worth about as much; None where a few draws find none."""
        drawn = (self.draw(rng, but=parent) for _ in range(_MATES))
        return next((other for other in drawn if self._worthy(other, parent)), None)

    def _worthy(self, other: Parent, parent: Parent) -> bool:
        """Whether there may be something in one that is missing in the other, and wasn't looked for often enough."""
        mine, theirs = parent.evaluation, other.evaluation
        if isinstance(mine, Failed) or isinstance(theirs, Failed) or _behind(theirs, mine):
            return False
        if parent.candidate.files == other.candidate.files:
            return False
        pair = parent.candidate.digest, other.candidate.digest
        fresh = self.uses.joined(*pair) < _JOINED and not self.uses.joining(*pair)
        return fresh and worth(theirs) >= worth(mine) - WORTHY

    def repair(self, rng: random.Random) -> Plan | None:
        """Now and then, and more often while nothing works, the repair of a candidate that failed lately."""
        if "repair" not in self._changes or not self._repairable:
            return None
        share = _REPAIR_SHARE if self._order else _REPAIR_SHARE_BEFORE_A_PASS
        open_ones = [p for digest, p in self._repairable.items() if self.uses.of(digest) < REPAIRS]
        if not open_ones or rng.random() >= share:
            return None
        return Plan("repair", (rng.choice(open_ones),), "inherit")

    def ask(self, turn: int, plan: Plan) -> Plan:
        """Note that this plan is about to be asked for, and hand it on."""
        self.uses.ask(turn, plan)
        return plan

    def statistics(self) -> dict[str, float]:
        """Counts and fitness for the log; a number that doesn't exist yet is left out."""
        told = len(self._usable) + len(self._failed) + len(self._waiting)
        found = {
            "told": float(told),
            "passed": float(len(self._usable) + len(self._waiting)),
            "failed": float(len(self._failed)),
            "confirmed": float(len(self._confirmed)),
        }
        if self._waiting:
            found["unsettled"] = float(len(self._waiting))
        if told:
            found["draft_share"] = self._drafts / told
        if len(self._measured):
            found["best_fitness"] = self._measured.highest
            found["mean_fitness"] = self._measured.mean
        if len(self._estimated):
            found["estimated_best_us"] = 1e6 / self._estimated.highest
        return found

    def _memory(self, rng: random.Random, parent: Parent, cold: float) -> Memory:
        """Nothing at the share `cold`; siblings only where there are some to compare."""
        if rng.random() < cold:
            return "clean"
        if not self.uses.children(parent.candidate.digest):
            return "inherit"
        return rng.choice(("inherit", "siblings", "combine"))

    def _take_in(self, outcome: Parent) -> None:
        digest, evaluation = outcome.candidate.digest, outcome.evaluation
        self._usable[digest] = outcome
        self._place[digest] = len(self._order)
        self._order.append(digest)
        if isinstance(evaluation, Passed):
            self._measured.set(digest, evaluation.fitness)
        elif not isinstance(evaluation, Failed) and evaluation.estimated_rate is not None:
            self._estimated.set(digest, evaluation.estimated_rate)
        for parent in outcome.candidate.lineage.parents:
            self._repairable.pop(parent, None)

    def _take_out(self, digest: str) -> None:
        """Forget how a candidate ended, not that it was told."""
        self._failed.discard(digest)
        self._waiting.discard(digest)
        self._repairable.pop(digest, None)
        if self._usable.pop(digest, None) is None:
            return
        self._measured.discard(digest)
        self._estimated.discard(digest)
        place, last = self._place.pop(digest), self._order.pop()
        if last != digest:
            self._order[place] = last
            self._place[last] = place

    def _file_failure(self, outcome: Parent, evaluation: Failed) -> None:
        digest = outcome.candidate.digest
        self._failed.add(digest)
        # Constants of a kernel that works, which don't build together, are left alone.
        settings = outcome.candidate.lineage.change == "retune" and evaluation.stage == "build"
        its_code = not settings and not any(d.kind in _NOT_ITS_CODE for d in evaluation.diagnostics)
        if evaluation.purpose == "search" and its_code:
            self._repairable[digest] = outcome
            if len(self._repairable) > _REPAIRABLE:
                del self._repairable[next(iter(self._repairable))]
