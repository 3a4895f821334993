"""When a search ends before its budget does."""

import math
from dataclasses import dataclass
from typing import Literal

from kernelevolve.schema import Budgets, Change, Failed, Lever, NothingWins, Parent, Passed, StopRules

StopReason = Literal["speedup", "roofline", "budget", "usd", "tokens", "device_seconds", "stall"]
"""`budget` is that of evaluations."""


@dataclass(frozen=True)
class Spent:
    """What a run has used up, what is under way included."""

    evaluations: int
    usd: float = 0.0
    tokens: int = 0
    device_seconds: float = 0.0


def stop(
    rules: StopRules, budgets: Budgets, evals: int, *, spent: Spent, best: Passed | None, stalled: int
) -> StopReason | None:
    """Why nothing more should be asked for; None to go on.

    `best` is the best that a second look confirmed, `stalled` the number of evaluations since it became that, or since
    the beginning. A rule that needs what isn't known (a roofline without ceilings) never ends a run. The first of the
    reasons counts, the good news before the bad.
    """
    if best is not None:
        share = roofline_share(best)
        if rules.speedup is not None and best.fitness >= rules.speedup:
            return "speedup"
        if rules.roofline is not None and share is not None and share >= rules.roofline:
            return "roofline"
    if (spent_out := _spent_out(budgets, evals, spent)) is not None:
        return spent_out
    if rules.stall is not None and stalled >= rules.stall:
        return "stall"
    return None


def roofline_share(passed: Passed) -> float | None:
    """Geometric mean over the workloads, as of the speed-up; None unless each has a share."""
    return _geometric_mean([m.roofline_share for m in passed.measurements])


class Levers:
    """Counts what a run tried: families by where they began, and kinds of change."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Change], Lever] = {}

    def tell(self, outcome: Parent) -> None:
        """Count an evaluation of the search; second looks only correct what was counted, and are passed over."""
        said, lineage = outcome.evaluation, outcome.candidate.lineage
        if said.purpose != "search":
            return
        speedup = said.speedup if isinstance(said, Passed) else None
        known = self._known.get((lineage.origin, lineage.change))
        if known is None:
            known = Lever(origin=lineage.origin, change=lineage.change, tried=0, passed=0, best_speedup=None)
        fastest = max((s for s in (known.best_speedup, speedup) if s is not None), default=None)
        self._known[lineage.origin, lineage.change] = known.model_copy(
            update={
                "tried": known.tried + 1,
                "passed": known.passed + (not isinstance(said, Failed)),
                "best_speedup": fastest,
            }
        )

    def verdict(self, best: Passed | None) -> NothingWins | None:
        """That nothing wins here, with the evidence; None where the best is faster for certain."""
        if best is not None and best.fitness > 1:
            return None
        levers = sorted(self._known.values(), key=lambda lever: (-lever.tried, lever.origin, lever.change))
        share = None if best is None else roofline_share(best)
        return NothingWins(
            evaluated=sum(lever.tried for lever in levers),
            passed=sum(lever.passed for lever in levers),
            best_speedup=None if best is None else best.speedup,
            low=None if best is None else best.interval[0],
            high=None if best is None else best.interval[1],
            roofline_share=share,
            baseline_roofline_share=None if share is None or best is None else min(1.0, share / best.speedup),
            levers=tuple(levers),
        )


def _spent_out(budgets: Budgets, evals: int, spent: Spent) -> StopReason | None:
    if spent.evaluations >= evals:
        return "budget"
    if budgets.usd is not None and spent.usd >= budgets.usd:
        return "usd"
    if budgets.tokens is not None and spent.tokens >= budgets.tokens:
        return "tokens"
    if budgets.device_seconds is not None and spent.device_seconds >= budgets.device_seconds:
        return "device_seconds"
    return None


def _geometric_mean(shares: list[float | None]) -> float | None:
    known = [share for share in shares if share]
    if not known or len(known) < len(shares):
        return None
    return math.exp(sum(math.log(share) for share in known) / len(known))
