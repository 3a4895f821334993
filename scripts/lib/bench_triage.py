"""Every GPU seed compiled for every device and interpreted, and what the triage itself takes, cold and repeated.

Cold: nothing is known of the candidate, but our own tools are built and the server that
candidates are forked from is up, as in a search after its first candidate. No time here is a kernel's.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from kernelevolve import settings, targets
from kernelevolve.errors import ToolchainError, UsageError
from kernelevolve.hardware.devices import known
from kernelevolve.harness.triage import triage
from kernelevolve.resources import targets_dir
from kernelevolve.schema import Candidate, CompiledKernel, Lineage, Target, Triage

DEVICES = ("nvidia-h200", "nvidia-a100", "nvidia-b200", "amd-mi300x", "amd-mi355x")
LANGUAGES = ("triton", "cuda")
REPEATS = 5


@dataclass(frozen=True)
class Row:
    """One seed on one device."""

    target: str
    seed: str
    language: str
    device: str
    found: Triage
    cold_s: tuple[float, ...]
    repeat_s: tuple[float, ...]


def main() -> int:
    options = arguments()
    if options.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="kernelevolve-bench-") as cache:
        Path(cache).chmod(0o755)
        started = time.perf_counter()
        first = next(rows(options, Path(cache), warm=False))
        start_s = time.perf_counter() - started
        found = []
        for row in rows(options, Path(cache), warm=True):
            found.append(row)
            if not options.json:
                show(row)
    if options.json:
        print(json.dumps(as_json(found, first, start_s), indent=2))
    else:
        summarise(found, start_s)
    return 0 if all(row.found.passed for row in found) else 1


def rows(options: argparse.Namespace, cache: Path, *, warm: bool) -> Iterator[Row]:
    folder = targets_dir(settings.load().targets)
    for name in options.target or targets.names(folder):
        target = targets.load(name, folder)
        for seed in targets.seeds(name, folder):
            if seed.language not in (options.language or LANGUAGES):
                continue
            candidate = Candidate(language=seed.language, files=seed.files, lineage=Lineage(origin=seed.name))
            for device in options.hardware or DEVICES:
                try:
                    yield measured(candidate, target, device, cache, options.rounds if warm else 1)
                except (UsageError, ToolchainError) as error:  # CUDA C++ on AMD, or no nvcc here
                    print(f"{name} {seed.name} on {device}: {error.message}", file=sys.stderr)


def measured(candidate: Candidate, target: Target, device: str, cache: Path, rounds: int) -> Row:
    gpu, cold, repeated = known(device), [], []
    for _ in range(rounds):
        shutil.rmtree(cache / "triage", ignore_errors=True)
        seconds, found = timed(candidate, target, gpu, cache)
        cold.append(seconds)
    for _ in range(REPEATS):
        seconds, _ = timed(candidate, target, gpu, cache)
        repeated.append(seconds)
    return Row(
        target.name, candidate.lineage.origin or "", candidate.language, device, found, tuple(cold), tuple(repeated)
    )


def timed(candidate: Candidate, target: Target, gpu, cache: Path) -> tuple[float, Triage]:
    started = time.perf_counter()
    found = triage(candidate, target, gpu, cache)
    return time.perf_counter() - started, found


def show(row: Row) -> None:
    found = row.found
    print(
        f"\n{row.target} {row.seed} ({row.language}) on {row.device}: {'passed' if found.passed else 'FAILED'}; "
        f"compared {len(found.checked)}, not {len(found.unchecked)}; "
        f"cold {spread(row.cold_s)} s, repeat {spread([1e3 * s for s in row.repeat_s])} ms"
    )
    print(f"  {'kernel':<18}{'warps':>6}{'grid':>24}{'regs':>5}{'spill':>6}{'shared':>8}{'occ':>5}{'waves':>14}"
          f"{'tensor':>7}{'vector':>7}{'async':>6}  fits")  # fmt: skip
    for _, same in groupby(sorted(found.kernels, key=signature), key=signature):
        print(f"  {described(list(same))}")
    for finding in (*found.diagnostics, *found.rejected):
        print(f"  {finding.kind}: {finding.message}")
    sys.stdout.flush()


def signature(kernel: CompiledKernel) -> tuple[object, ...]:
    needs = kernel.resources
    counts = needs.instructions
    return (kernel.kernel, needs.num_warps, needs.registers, needs.shared_bytes, needs.spill_bytes,
            counts.tensor_core, counts.vector_loads, kernel.occupancy, bool(kernel.diagnostics))  # fmt: skip


def described(kernels: list[CompiledKernel]) -> str:
    """Launches of the same code on several workloads, as one line."""
    first, needs = kernels[0], kernels[0].resources
    counts = needs.instructions
    grids = sorted({k.grid for k in kernels}, key=lambda g: (g[0] * g[1] * g[2], g))
    waves = sorted(k.waves for k in kernels if k.waves is not None)
    return (
        f"{first.kernel:<18}{needs.num_warps:>6}{ends(['x'.join(map(str, trimmed(g))) for g in grids]):>24}"
        f"{needs.registers:>5}{needs.spill_bytes:>6}{needs.shared_bytes:>8}{first.occupancy:>5.0%}"
        f"{ends([f'{w:.2f}' for w in waves]):>14}{counts.tensor_core:>7}{counts.vector_loads:>7}"
        f"{counts.async_copies:>6}  {'no' if first.diagnostics else 'yes'}"
    )


def trimmed(grid: tuple[int, int, int]) -> tuple[int, ...]:
    return grid if grid[2] > 1 else grid[:2] if grid[1] > 1 else grid[:1]


def ends(texts: list[str]) -> str:
    return "-" if not texts else texts[0] if texts[0] == texts[-1] else f"{texts[0]}..{texts[-1]}"


def spread(values: list[float] | tuple[float, ...]) -> str:
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def summarise(found: list[Row], start_s: float) -> None:
    cold = [s for row in found for s in row.cold_s]
    repeated = [1e3 * s for row in found for s in row.repeat_s]
    if cold:
        print(f"\n{len(found)} triages on {len(os.sched_getaffinity(0))} cores, median [range]: "
              f"cold {spread(cold)} s, repeat {spread(repeated)} ms; "
              f"the first of all, tools and servers started, {start_s:.1f} s")  # fmt: skip


def as_json(found: list[Row], first: Row, start_s: float) -> dict[str, object]:
    return {
        "cores": len(os.sched_getaffinity(0)), "versions": first.found.versions, "first_s": start_s,
        "rows": [
            {"target": r.target, "seed": r.seed, "language": r.language, "device": r.device,
             "passed": r.found.passed, "cold_s": r.cold_s, "repeat_s": r.repeat_s,
             **r.found.model_dump(mode="json", include={"kernels", "rejected", "checked", "unchecked", "diagnostics"})}
            for r in found
        ],
    }  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--hardware", action="append", help=f"only this device; again for more (else {DEVICES})")
    parser.add_argument("--target", action="append", help="only this one; may be given again")
    parser.add_argument("--language", action="append", choices=LANGUAGES, help="only this one; may be given again")
    parser.add_argument("--rounds", type=int, default=3, help="cold triages of each seed on each device")
    parser.add_argument("--one-core", action="store_true", help="everything on one core")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
