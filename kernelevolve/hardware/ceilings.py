"""Measured ceilings of a device: what the share of the roofline is a share of."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import ValidationError

from kernelevolve.errors import ToolchainError
from kernelevolve.hardware.torch_build import explain
from kernelevolve.schema import Bandwidth, Ceilings, Hardware, digest_of

_log = logging.getLogger(__name__)

_PROGRAM = Path(__file__).with_suffix(".cpp")
_GPU_PROGRAM = Path(__file__).with_name("gpu_ceilings.py")
_FLAGS = ("-O3", "-march=native", "-fopenmp")
_LARGEST_BYTES = 512 << 20
_GPU_SECONDS = 180.0
"""20 s of measuring; the rest is for a cold import and a first context."""


def measure(hardware: Hardware, threads: int) -> Ceilings:
    """Measure read bandwidth by footprint and multiply-add rates: of a CPU with `threads` threads, in about 2 s, with
    the cost of an empty parallel region; of a GPU in about 20 s, in a process of its own.

    float16 and bfloat16 have a peak of their own where the CPU multiplies them natively (AVX512-FP16,
    AVX512-BF16, AMX, the half-precision vectors of ARM); elsewhere the peak of float32 stands for them, since
    kernels convert. A GPU has `tf32` as well, and `float32` is what a kernel right to float32 can reach at most
    (`gpu_ceilings.peaks` says how).
    Raises `ToolchainError` without g++, or where torch can't use the GPU.
    """
    if hardware.device == "gpu":
        return _measure_gpu(hardware)
    with tempfile.TemporaryDirectory(prefix="kernelevolve-ceilings-") as folder:
        program = _build(Path(folder))
        largest = min(_LARGEST_BYTES, hardware.memory_bytes // 4)
        text = _run([str(program), str(threads), str(largest)], "measuring the ceilings failed")
    return _read(text, threads)


def _measure_gpu(hardware: Hardware) -> Ceilings:
    from kernelevolve.hardware.gpu_state import LIMITED_BY_POWER, Watch  # which imports this package

    command = [sys.executable, "-m", "kernelevolve.hardware.gpu_ceilings", hardware.product]
    try:
        with Watch(hardware) as watch:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=_GPU_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(
            f"the ceilings of {hardware.key} can't be measured: no end within {_GPU_SECONDS:g} seconds",
            remedy="the GPU is in use or hangs: check nvidia-smi or amd-smi",
        ) from error
    if answer.returncode != 0:
        cause = explain(answer.stderr)
        raise ToolchainError(f"the ceilings of {hardware.key} can't be measured: {cause.message}", remedy=cause.remedy)
    for note in json.loads(answer.stdout).get("notes", ()):
        _log.info("%s: %s", hardware.key, note)
    if watch.state is not None and not set(watch.state.throttled_by) <= LIMITED_BY_POWER:
        _log.warning(
            "ceilings were measured while %s: measure again (remove the file in the cache)", watch.state.message
        )
    return _read(answer.stdout, threads=1)


def cached(hardware: Hardware, threads: int, cache_dir: Path) -> Hardware:
    """The hardware with its ceilings, measured once for each device, thread count (of a CPU) and toolchain.

    They are kept as JSON in `cache_dir`/ceilings. Raises as `measure` does.
    """
    gpu = hardware.device == "gpu"
    program = hashlib.sha256((_GPU_PROGRAM if gpu else _PROGRAM).read_bytes()).hexdigest()
    with_what = [_torch_version()] if gpu else threads
    identity = digest_of(hardware.model_dump(mode="json", exclude={"ceilings"}), with_what, program)
    name = hardware.key if gpu else f"{hardware.key}-{threads}t"
    file = cache_dir / "ceilings" / f"{name}-{identity[:16]}.json"
    ceilings = _load(file)
    if ceilings is None:
        ceilings = measure(hardware, threads)
        _save(file, ceilings)
    return hardware.model_copy(update={"ceilings": ceilings})


def _torch_version() -> str | None:
    try:
        return version("torch")
    except PackageNotFoundError:
        return None


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
        fork_join_us=measured.get("fork_join_us"),
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
