"""Certified kernels (or seeds) against every baseline, on every timed workload, interleaved in one run."""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kernelevolve import hardware, settings, targets
from kernelevolve.catalog import LANGUAGES
from kernelevolve.harness.judge import Judge
from kernelevolve.plans import EVALUATION
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.resources import targets_dir
from kernelevolve.schema import (
    CalibrationJob,
    Candidate,
    Entry,
    Failed,
    Hardware,
    Job,
    Lineage,
    Measurement,
    Passed,
    Target,
    Workload,
)


@dataclass(frozen=True)
class Kernel:
    """What is measured; `entry` where it is certified."""

    candidate: Candidate
    entry: Entry | None

    def serves(self, workload: Workload) -> bool:
        return self.entry is not None and any(b.contains(workload.axes, workload.dtypes) for b in self.entry.domain)


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
    chosen = settings.load(registry=options.registry, hardware=options.hardware)
    machine = hardware.measured(chosen.hardware, None, chosen.cache)
    folder = targets_dir(chosen.targets)
    document: dict[str, object] = {"hardware": machine.model_dump(mode="json"), "targets": {}}
    status = 0
    for name in options.target or targets.names(folder):
        target = targets.load(name, folder)
        kernels = seeds(options, machine, name, folder) if options.seeds else newest(chosen, target, machine.key)
        if not kernels:
            print(f"{name}: nothing certified here; run kernelevolve search {name}", file=sys.stderr)
            status = 1
        results = []
        for kernel, result in zip(kernels, measure(target, kernels, machine, chosen), strict=True):
            results.append(as_json(kernel, result))
            status = 1 if isinstance(result, Failed) else status
            if not options.json:
                show(name, kernel, result)
        document["targets"][name] = results
    if options.json:
        print(json.dumps(document, indent=2))
    return status


def newest(chosen: settings.Settings, target: Target, key: str) -> list[Kernel]:
    """The latest certified kernel of this target and machine, if there is one."""
    stored = [s.entry for s in LocalRegistry(chosen.registry).entries(target.name, key)]
    current = [entry for entry in stored if entry.target_digest == target.digest]
    entry = max(current, key=lambda e: e.provenance.created_at, default=None)
    return [] if entry is None else [Kernel(entry.candidate, entry)]


def seeds(options: argparse.Namespace, machine: Hardware, target: str, folder: Path) -> list[Kernel]:
    """The target's seeds as they stand, in the languages of this machine."""
    return [
        Kernel(Candidate(language=seed.language, files=seed.files, lineage=Lineage(origin=seed.name)), None)
        for seed in targets.seeds(target, folder)
        if machine.device in LANGUAGES.load(seed.language).devices and options.language in (None, seed.language)
    ]


def measure(
    target: Target, kernels: list[Kernel], machine: Hardware, chosen: settings.Settings
) -> Iterator[list[Row] | Failed]:
    """Each kernel on every timed workload against every baseline that is right there."""
    timed = target.select(machine.device, "search", "held_out")
    workloads = tuple(w.name for w in timed)
    common = {"target": target, "hardware": machine, "threads": chosen.threads_on(machine), "workloads": workloads}
    judge = Judge(chosen.cache)
    try:
        times = judge.calibrate(CalibrationJob(cache_dir=str(chosen.cache), **common)).times if kernels else {}
        # A baseline that raises or is wrong on a workload can't be compared with there.
        usable = {w: tuple(t.baseline for t in times[w] if t.problem is None) for w in times}
        for kernel in kernels:
            job = Job(
                candidate=kernel.candidate, purpose="eval", baselines=usable, timing=EVALUATION,
                cache_dir=str(chosen.cache), **common,
            )  # fmt: skip
            evaluation = judge.evaluate(job)
            if isinstance(evaluation, Failed) and evaluation.unsettled:  # the machine's noise says nothing of it
                evaluation = judge.evaluate(job)
            yield evaluation if isinstance(evaluation, Failed) else rows_of(timed, kernel, evaluation)
    finally:
        judge.close()


def rows_of(timed: tuple[Workload, ...], kernel: Kernel, evaluation: Passed) -> list[Row]:
    return [
        Row(kernel.serves(w), tuple(m for m in evaluation.measurements if m.workload == w.name)) for w in timed
    ]  # fmt: skip


def geometric_mean(rows: list[Row]) -> float:
    return math.exp(sum(math.log(row.hardest.speedup) for row in rows) / len(rows))


def as_json(kernel: Kernel, result: list[Row] | Failed) -> dict[str, object]:
    head: dict[str, object] = {
        "entry": kernel.entry.digest if kernel.entry else None,
        "language": kernel.candidate.language,
        "candidate": kernel.candidate.label,
    }
    if isinstance(result, Failed):
        return head | {"failed": result.stage, "diagnostics": [d.model_dump(mode="json") for d in result.diagnostics]}
    return head | {
        "geometric_mean_over_fastest": geometric_mean(result),
        "rows": [
            {"served": row.served, "measurements": [m.model_dump(mode="json") for m in row.measurements]}
            for row in result
        ],
    }


def show(name: str, kernel: Kernel, result: list[Row] | Failed) -> None:
    print(f"\n{name}: {kernel.candidate.language} {kernel.candidate.label}")
    if isinstance(result, Failed):
        print(f"  failed at {result.stage}: {'; '.join(d.message for d in result.diagnostics)}")
        return
    print(f"  {'workload':<34} {'kernel us':>10}  baseline over kernel, 99 % interval")
    for row in result:
        each = "  ".join(
            f"{m.baseline} {m.speedup:.2f} [{m.low:.2f}, {m.high:.2f}]{' *' if m is row.hardest else ''}"
            for m in row.measurements
        )
        lost = "" if row.hardest.verdict == "faster" else "  <- no win"
        print(f"  {row.hardest.workload:<34} {row.hardest.candidate_us:>10.1f}  {each}{lost}")
    print(f"  geometric mean over the fastest baseline (*): {geometric_mean(result):.2f}x")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--registry", type=Path, help="where the certified kernels lie")
    parser.add_argument("--hardware", help="key or alias of a device (default: this machine's CPU)")
    parser.add_argument("--seeds", action="store_true", help="the targets' seeds instead of what is certified")
    parser.add_argument("--language", help="only seeds in this language")
    parser.add_argument("--target", action="append", help="only this one; may be given again")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
