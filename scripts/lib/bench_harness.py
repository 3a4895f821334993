"""What the harness itself costs for one candidate: the build and the kernels' own time apart."""

import argparse
import json
import statistics
import sys

from kernelevolve import hardware, settings, targets
from kernelevolve.harness.judge import Judge
from kernelevolve.resources import targets_dir
from kernelevolve.schema import CalibrationJob, Candidate, Job, Lineage, StageCosts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--target", default="topk")
    parser.add_argument("--rounds", type=int, default=15, help="evaluations, after one that warms up")
    options = parser.parse_args()
    chosen = settings.load()
    machine = hardware.measured(None, None, chosen.cache)
    folder = targets_dir(chosen.targets)
    target, seed = targets.load(options.target, folder), targets.seeds(options.target, folder)[0]
    common = {"target": target, "hardware": machine, "threads": machine.cores, "cache_dir": str(chosen.cache)}
    judge = Judge(chosen.cache)
    try:
        calibration = judge.calibrate(CalibrationJob(**common))
        job = Job(
            candidate=Candidate(language=seed.language, files=seed.files, lineage=Lineage(origin=seed.name)),
            baselines={w: (calibration.fastest(w),) for w in calibration.times},
            **common,
        )
        costs = [judge.evaluate(job).costs for _ in range(options.rounds + 1)][1:]
    finally:
        judge.close()
    stages = {
        "load and check": [c.check_s for c in costs],
        "timing, without the kernels": [c.time_s - c.kernel_s for c in costs],
        "all of the harness": [own(c) for c in costs],
        "kernels and baselines": [c.kernel_s for c in costs],
    }
    table = {name: summary([1e3 * s for s in seconds]) for name, seconds in stages.items()}
    if options.json:
        print(json.dumps({"hardware": machine.key, "target": target.name, "rounds": options.rounds, "ms": table}))
    else:
        print(f"{target.name} on {machine.key}, {options.rounds} evaluations, milliseconds")
        for name, row in table.items():
            print(f"  {name:<28} median {row['median']:8.1f}   range {row['min']:.1f} to {row['max']:.1f}")
    return 0


def own(costs: StageCosts) -> float:
    return costs.total_s - costs.build_s - costs.kernel_s - costs.wait_s


def summary(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


if __name__ == "__main__":
    sys.exit(main())
