"""Certified kernels against every baseline, on every timed workload, interleaved in one run."""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernelevolve import hardware, settings, targets
from kernelevolve.harness.judge import Judge
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.resources import targets_dir
from kernelevolve.schema import CalibrationJob, Entry, Job, Measurement, Passed, Target, TimingPlan

TIMING = TimingPlan(min_pairs=12, max_pairs=40, half_width=0.01, seconds=10.0)


@dataclass(frozen=True)
class Row:
    """One workload: the kernel against each baseline."""

    served: bool
    measurements: tuple[Measurement, ...]

    @property
    def hardest(self) -> Measurement:
        """Against the fastest baseline."""
        return min(self.measurements, key=lambda m: m.speedup)


def main() -> int:
    options = arguments()
    chosen = settings.load(registry=options.registry)
    machine = hardware.measured(None, None, chosen.cache)
    folder = targets_dir(chosen.targets)
    document: dict[str, object] = {"hardware": machine.model_dump(mode="json"), "targets": {}}
    status = 0
    for name in options.target or targets.names(folder):
        target = targets.load(name, folder)
        entry = newest(LocalRegistry(chosen.registry), target, machine.key)
        if entry is None:
            print(f"{name}: nothing certified here; run kernelevolve search {name}", file=sys.stderr)
            status = 1
            continue
        rows = list(measure(target, entry, machine, chosen.cache))
        document["targets"][name] = as_json(entry, rows)
        if not options.json:
            show(name, entry, rows)
    if options.json:
        print(json.dumps(document, indent=2))
    return status


def newest(registry: LocalRegistry, target: Target, key: str) -> Entry | None:
    stored = [s.entry for s in registry.entries(target.name, key) if s.entry.target_digest == target.digest]
    return max(stored, key=lambda e: e.provenance.created_at, default=None)


def measure(target: Target, entry: Entry, machine: hardware.Hardware, cache: Path) -> Iterator[Row]:
    timed = target.select("cpu", "search", "held_out")
    common = {"target": target, "hardware": machine, "threads": machine.cores, "cache_dir": str(cache)}
    workloads = tuple(w.name for w in timed)
    judge = Judge(cache)
    try:
        times = judge.calibrate(CalibrationJob(workloads=workloads, **common)).times
        # A baseline that raises or is wrong on a workload can't be compared with there.
        usable = {w: tuple(t.baseline for t in times[w] if t.problem is None) for w in workloads}
        evaluation = judge.evaluate(
            Job(
                candidate=entry.candidate,
                purpose="eval",
                workloads=workloads,
                baselines=usable,
                timing=TIMING,
                **common,
            )
        )
    finally:
        judge.close()
    if not isinstance(evaluation, Passed):
        raise SystemExit(f"{target.name}: the certified kernel fails: {evaluation.diagnostics}")
    for workload in timed:
        found = tuple(m for m in evaluation.measurements if m.workload == workload.name)
        yield Row(any(box.contains(workload.axes, workload.dtypes) for box in entry.domain), found)


def geometric_mean(rows: list[Row]) -> float:
    return math.exp(sum(math.log(row.hardest.speedup) for row in rows) / len(rows))


def as_json(entry: Entry, rows: list[Row]) -> dict[str, object]:
    return {
        "entry": entry.digest,
        "candidate": entry.candidate.label,
        "geometric_mean_over_fastest": geometric_mean(rows),
        "rows": [
            {"served": row.served, "measurements": [m.model_dump(mode="json") for m in row.measurements]}
            for row in rows
        ],
    }


def show(name: str, entry: Entry, rows: list[Row]) -> None:
    print(f"\n{name}: {entry.candidate.label}")
    print(f"  {'workload':<34} {'kernel us':>10}  baseline over kernel, 99 % interval")
    for row in rows:
        each = "  ".join(
            f"{m.baseline} {m.speedup:.2f} [{m.low:.2f}, {m.high:.2f}]{' *' if m is row.hardest else ''}"
            for m in row.measurements
        )
        lost = "" if row.hardest.verdict == "faster" else "  <- no win"
        print(f"  {row.hardest.workload:<34} {row.hardest.candidate_us:>10.1f}  {each}{lost}")
    print(f"  geometric mean over the fastest baseline (*): {geometric_mean(rows):.2f}x")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--registry", type=Path, help="where the certified kernels lie")
    parser.add_argument("--target", action="append", help="only this one; may be given again")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
