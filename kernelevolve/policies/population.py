"""What the policies have in common: the candidates told so far, and plans that start from them."""

import random
from collections.abc import Sequence

from kernelevolve.policies.base import Plan
from kernelevolve.schema import Change, Failed, Parent, Passed


class Population:
    """Every candidate told so far, by digest: the passed ones with their fitness, in the order of telling.

    In a search without the device, those that triage let pass stand in their place. Their estimates are kept apart
    from fitness, and rank only where nothing was measured.
    A confirmation replaces what the search had said of the same candidate, so that a lucky measurement is
    corrected, and a candidate that fails its second look is gone. Evaluations made for any other purpose,
    and confirmations of a candidate that was never told, are not filed.
    """

    def __init__(self) -> None:
        self._passed: dict[str, Parent] = {}
        self._fitness: dict[str, float] = {}
        self._estimated_rate: dict[str, float] = {}
        self._failed: set[str] = set()
        self._confirmed: set[str] = set()
        self._drafts: set[str] = set()

    def tell(self, outcome: Parent) -> None:
        """File an outcome."""
        digest, evaluation = outcome.candidate.digest, outcome.evaluation
        told = digest in self._passed or digest in self._failed
        if evaluation.purpose == "confirm" and told:
            self._confirmed.add(digest)
        elif evaluation.purpose != "search" or digest in self._confirmed:
            return
        if outcome.candidate.lineage.change == "draft":
            self._drafts.add(digest)
        self._fitness.pop(digest, None)
        self._estimated_rate.pop(digest, None)
        if isinstance(evaluation, Failed):
            self._passed.pop(digest, None)
            self._failed.add(digest)
            return
        self._passed[digest] = outcome
        self._failed.discard(digest)
        if isinstance(evaluation, Passed):
            self._fitness[digest] = evaluation.fitness
        elif evaluation.estimated_rate is not None:
            self._estimated_rate[digest] = evaluation.estimated_rate

    @property
    def passed(self) -> tuple[Parent, ...]:
        """Candidates that may become parents."""
        return tuple(self._passed.values())

    @property
    def best(self) -> Parent | None:
        """The passed candidate of the highest fitness, of equals the first told; None while none passed.

        Where nothing was measured, the one of the highest estimated rate, or the first where nothing was estimated.
        """
        ranks = self._fitness or self._estimated_rate
        return self._passed[max(ranks, key=ranks.__getitem__)] if ranks else next(iter(self.passed), None)

    def breed(self, rng: random.Random, changes: Sequence[Change], parent: Parent) -> Plan:
        """A change to `parent`, drawn uniformly from those that apply to it; a draft where none does.

        A repair needs a failed parent and never applies; a crossover needs a second parent, which is drawn
        uniformly from the other passed candidates.
        """
        others = [p for digest, p in self._passed.items() if digest != parent.candidate.digest]
        usable = [c for c in changes if c not in ("draft", "repair") and (c != "crossover" or others)]
        if not usable:
            return Plan("draft")
        change = rng.choice(usable)
        return Plan(change, (parent, rng.choice(others)) if change == "crossover" else (parent,))

    def statistics(self) -> dict[str, float]:
        """Counts and fitness for the log; a number that doesn't exist yet is left out."""
        told = len(self._passed) + len(self._failed)
        found = {"told": float(told), "passed": float(len(self._passed)), "failed": float(len(self._failed))}
        found["confirmed"] = float(len(self._confirmed))
        if told:
            found["draft_share"] = len(self._drafts) / told
        if self._fitness:
            found["best_fitness"] = max(self._fitness.values())
            found["mean_fitness"] = sum(self._fitness.values()) / len(self._fitness)
        if self._estimated_rate:
            found["estimated_best_us"] = 1e6 / max(self._estimated_rate.values())
        return found
