"""How far a verdict can be trusted, counted over many trials through the judge itself.

A kernel against itself must not be found faster, one slowed by a known share must be found slower, a certified interval
must hold in new processes, and the best of many copies of the best kernel must not be crowned. The last is a
resampling: real evaluations of the kernel against itself, drawn at random, go through the search's own rule.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy.stats import binomtest
from trust_kernel import Duel

from kernelevolve import settings
from kernelevolve.plans import certification, confirmation
from kernelevolve.schema import Evaluation, Passed, TimingPlan

COPIES = 200
RUNS = 1000
LONG = TimingPlan(min_pairs=40, max_pairs=120, half_width=0.012, seconds=20.0)


@dataclass(frozen=True)
class Row:
    """One question: how often it happened, what that says of how often it happens (95 %), and the aim."""

    question: str
    hits: int
    trials: int
    at_most: float | None = None
    at_least: float | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's (1934)."""
        found = binomtest(self.hits, self.trials).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)

    @property
    def met(self) -> bool:
        share = self.hits / self.trials
        return (self.at_most is None or share <= self.at_most) and (self.at_least is None or share >= self.at_least)

    @property
    def aim(self) -> str:
        return f"at most {self.at_most:.0%}" if self.at_most is not None else f"at least {self.at_least:.0%}"


@dataclass(frozen=True)
class Facts:
    """What else came out of it."""

    loaded: bool
    load_average: float
    seconds: float
    verdicts: dict[str, dict[str, int]]
    """question to how often each verdict (or failure) was given"""
    measured_slower: dict[str, float]
    """by construction to by a long measurement, in percent"""
    processes_differ: dict[str, float]
    """of a kernel against itself: quantiles of the speed-ups, standard deviation, pairs and seconds of a trial"""


def main() -> int:
    options = arguments()
    began, load = time.monotonic(), os.getloadavg()[0]
    duel = Duel(settings.load().cache)
    try:
        with busy(options.loaded):
            trials = Trials(duel, options.trials)
            rows = trials.ask()
    finally:
        duel.close()
    facts = Facts(
        loaded=options.loaded, load_average=load, seconds=time.monotonic() - began,
        verdicts={name: dict(counts) for name, counts in trials.verdicts.items()},
        measured_slower=trials.long, processes_differ=trials.spread,
    )  # fmt: skip
    document = {
        **asdict(facts),
        "rows": [{**asdict(row), "interval": row.interval, "met": row.met} for row in rows],
    }
    if options.out:
        options.out.write_text(json.dumps(document, indent=2))
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        show(facts, rows)
    return 0 if all(row.met for row in rows) else 1


class Trials:
    """All questions, one after the other."""

    def __init__(self, duel: Duel, trials: int) -> None:
        self._duel, self._trials = duel, trials
        self.verdicts: dict[str, Counter[str]] = {}
        self.long: dict[str, float] = {}
        self.spread: dict[str, float] = {}

    def ask(self) -> list[Row]:
        itself = self._fought("against itself", self._trials, 0, 0, TimingPlan())
        self.spread = spread(itself)
        rows = [
            Row("the same kernel: found faster", self._count("against itself", "faster"), len(itself), at_most=0.01)
        ]
        for percent in (3, 10):
            name = f"{percent} % slower"
            extra = percent * 10
            self.long[name] = 100 * (1 / passed([self._duel.fight(extra, 0, LONG)])[0].speedup - 1)
            found = self._fought(name, max(1, self._trials // 3), extra, 0, TimingPlan())
            rows.append(Row(f"{name}: found slower", self._count(name, "slower"), len(found), at_least=0.95))
        rows.append(self._held())
        rows.append(self._crowned(itself))
        return rows

    def _held(self) -> Row:
        """Certify a kernel that wins by 10 %, and measure it again, both sides in new processes."""
        held = count = 0
        (plan, _), again = certification(1), TimingPlan()
        for _ in range(max(1, self._trials // 4)):
            pair = passed([self._duel.fight(0, 100, plan), self._duel.fight(0, 100, again)])
            if len(pair) == 2:
                count += 1
                (entry,) = pair[0].measurements
                held += entry.low <= pair[1].speedup <= entry.high
        return Row("certified: holds in new processes", held, count, at_least=0.9)

    def _crowned(self, itself: Sequence[Evaluation]) -> Row:
        looks = passed(itself)
        closer = passed(
            self._fought("against itself, confirmed", max(10, self._trials // 6), 0, 0, confirmation(COPIES))
        )
        rng, crowned = random.Random(2), 0
        for _ in range(RUNS):
            best = rng.choice(closer)
            seconds = [rng.choice(closer) for look in rng.choices(looks, k=COPIES) if look.may_beat(best)]
            crowned += any(second.beats(best) for second in seconds)
        return Row(f"best of {COPIES} copies: one crowned (resampled)", crowned, RUNS, at_most=0.01)

    def _fought(self, name: str, trials: int, candidate: int, baseline: int, plan: TimingPlan) -> list[Evaluation]:
        found = []
        for number in range(trials):
            found.append(self._duel.fight(candidate, baseline, plan))
            if sys.stderr.isatty():
                print(f"\r{name}: {number + 1}/{trials} ", end="", file=sys.stderr, flush=True)
        self.verdicts[name] = Counter(said(evaluation) for evaluation in found)
        return found

    def _count(self, name: str, verdict: str) -> int:
        return self.verdicts[name][verdict]


def passed(evaluations: Sequence[Evaluation]) -> list[Passed]:
    return [evaluation for evaluation in evaluations if isinstance(evaluation, Passed)]


def said(evaluation: Evaluation) -> str:
    """The verdict, or what the failure was."""
    if isinstance(evaluation, Passed):
        return evaluation.measurements[0].verdict
    return f"failed: {evaluation.diagnostics[0].kind}"


def spread(itself: Sequence[Evaluation]) -> dict[str, float]:
    measured = [evaluation.measurements[0] for evaluation in passed(itself)]
    speedups = sorted(m.speedup for m in measured)
    percentiles = statistics.quantiles(speedups, n=100)
    return {
        "p01": percentiles[0], "p05": percentiles[4], "median": statistics.median(speedups), "p95": percentiles[94],
        "p99": percentiles[98], "sd": statistics.stdev(speedups),
        "half_width": statistics.median((m.high - m.low) / 2 for m in measured),
        "pairs": statistics.mean(m.pairs for m in measured),
        "seconds": statistics.mean(evaluation.costs.time_s for evaluation in passed(itself)),
        "call_us": statistics.median(m.candidate_us for m in measured),
    }  # fmt: skip


@contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """A process that keeps one core busy, where it is wanted."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def show(facts: Facts, rows: Sequence[Row]) -> None:
    beside = "one busy process beside it" if facts.loaded else "nothing beside it of ours"
    print(f"{beside}; load average at the start {facts.load_average:.1f}; {facts.seconds:.0f} s")
    print(f"  {'question':<46} {'count':>10} {'share':>7}  95 % interval      aim")
    for row in rows:
        low, high = row.interval
        print(
            f"  {row.question:<46} {f'{row.hits}/{row.trials}':>10} {row.hits / row.trials:>7.1%}  "
            f"{low:>6.1%} to {high:>6.1%}   {row.aim}{'' if row.met else '   <- missed'}"
        )
    for name, counts in facts.verdicts.items():
        print(f"  {name}: " + ", ".join(f"{verdict} {count}" for verdict, count in sorted(counts.items())))
    for name, percent in facts.measured_slower.items():
        print(f"  {name} by construction, {percent:.1f} % in a long measurement")
    print("  against itself: " + ", ".join(f"{name} {value:.4g}" for name, value in facts.processes_differ.items()))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--trials", type=int, default=300, help="of the kernel against itself; fewer of the others")
    parser.add_argument("--loaded", action="store_true", help="with a busy process beside the measurements")
    parser.add_argument("--out", type=Path, help="write the JSON document to this file too")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
