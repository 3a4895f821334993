"""Measured ceilings of a CPU: what the share of the roofline is a share of."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from kernelevolve.errors import ToolchainError, UsageError
from kernelevolve.schema import Bandwidth, Ceilings, Hardware, digest_of

_log = logging.getLogger(__name__)

_PROGRAM = Path(__file__).with_suffix(".cpp")
_FLAGS = ("-O3", "-march=native", "-fopenmp")
_LARGEST_BYTES = 512 << 20


def measure(hardware: Hardware, threads: int) -> Ceilings:
    """Measure read bandwidth by footprint and multiply-add rates with `threads` threads, in about 2 s.

    float16 and bfloat16 have a peak of their own where the CPU multiplies them natively (AVX512-FP16,
    AVX512-BF16, AMX, the half-precision vectors of ARM); elsewhere the peak of float32 stands for them, since
    kernels convert.
    Raises `ToolchainError` without g++, and `UsageError` for a GPU.
    """
    if hardware.device != "cpu":
        raise UsageError(
            f"the ceilings of {hardware.key} can't be measured: only those of CPUs can",
            remedy="choose a CPU; kernelevolve hardware list shows what is here",
        )
    with tempfile.TemporaryDirectory(prefix="kernelevolve-ceilings-") as folder:
        program = _build(Path(folder))
        largest = min(_LARGEST_BYTES, hardware.memory_bytes // 4)
        text = _run([str(program), str(threads), str(largest)], "measuring the ceilings failed")
    return _read(text, threads)


def cached(hardware: Hardware, threads: int, cache_dir: Path) -> Hardware:
    """The hardware with its ceilings, measured once for each device, thread count and toolchain.

    They are kept as JSON in `cache_dir`/ceilings. Raises as `measure` does.
    """
    program = hashlib.sha256(_PROGRAM.read_bytes()).hexdigest()
    identity = digest_of(hardware.model_dump(mode="json", exclude={"ceilings"}), threads, program)
    file = cache_dir / "ceilings" / f"{hardware.key}-{threads}t-{identity[:16]}.json"
    ceilings = _load(file)
    if ceilings is None:
        ceilings = measure(hardware, threads)
        _save(file, ceilings)
    return hardware.model_copy(update={"ceilings": ceilings})


def _build(folder: Path) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        raise ToolchainError("there is no g++ on this machine", remedy="install it, for instance: apt install g++")
    program = folder / "ceilings"
    _run([compiler, *_FLAGS, str(_PROGRAM), "-o", str(program)], "g++ can't build the measuring program")
    return program


def _run(command: list[str], failure: str) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            f"{failure}: no end within 120 seconds", remedy="try again on a quieter machine"
        ) from error
    if answer.returncode != 0:
        raise ToolchainError(f"{failure}: {answer.stderr.strip()}", remedy="check: kernelevolve doctor")
    return answer.stdout


def _read(text: str, threads: int) -> Ceilings:
    """Out of what the program prints. No footprint may seem slower than a larger one: that is noise."""
    measured = json.loads(text)
    bandwidths: list[Bandwidth] = []
    best = 0.0
    for footprint, gbps in sorted(((int(k), v) for k, v in measured["read_gbps"].items()), reverse=True):
        best = max(best, gbps)
        bandwidths.insert(0, Bandwidth(footprint_bytes=footprint, gbps=best))
    return Ceilings(
        bandwidths=tuple(bandwidths),
        peak_gflops=measured["peak_gflops"],
        threads=threads,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _load(file: Path) -> Ceilings | None:
    if not file.is_file():
        return None
    try:
        return Ceilings.model_validate_json(file.read_bytes())
    except ValidationError as error:
        _log.warning("%s is damaged and is measured again: %s", file, error)
        return None


def _save(file: Path, ceilings: Ceilings) -> None:
    # Written aside and renamed: a process that reads at the same moment sees one whole file.
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(ceilings.model_dump_json(indent=2))
    Path(name).replace(file)
