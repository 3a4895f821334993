"""Measures what a GPU can do at most, with torch: run as a process of its own, prints one JSON document.

`python -m kernelevolve.hardware.gpu_ceilings PRODUCT`. A rate is that of the fastest of several rounds. Nothing is
set: clocks are what they are, and a device that is too hot has lower ceilings (see gpu_state).
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

_MIB = 1 << 20
Call = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long."""

    footprints: tuple[int, ...]
    """bytes, growing: some within the last cache, some far beyond"""
    sides: tuple[int, ...]
    """of square matrices, growing"""
    seconds: float = 0.25
    """for each rate"""
    total_seconds: float = 20.0
    """after which larger sizes are left out"""


def plan(memory_bytes: int) -> Plan:
    """Sizes for a device with so much free memory: an eighth of it holds any working set, a quarter any product."""
    footprints = tuple(s * _MIB for s in (2, 8, 16, 32, 64, 128, 256, 512, 2048) if s * _MIB <= memory_bytes // 8)
    sides = tuple(n for n in (1024, 2048, 4096, 8192) if 3 * 8 * n * n <= memory_bytes // 4)
    return Plan(footprints=footprints or (2 * _MIB,), sides=sides or (512,))


@dataclass
class Meter:
    """Times calls on one device."""

    device: torch.device
    plan: Plan
    started: float = field(default_factory=time.monotonic)
    notes: list[str] = field(default_factory=list)

    @property
    def late(self) -> bool:
        """Whether the time for everything is used up."""
        return time.monotonic() - self.started > self.plan.total_seconds

    def seconds(self, call: Call) -> float:
        """Of one call, in the fastest of several rounds of back-to-back calls."""
        for _ in range(2):
            call()
        once = self._round(call, 1)
        count = max(1, min(200, math.ceil(0.005 / max(once, 1e-6))))
        run, calls = self._batch(call, count)
        best, end = math.inf, time.monotonic() + self.plan.seconds
        for number in range(1000):
            best = min(best, self._round(run, 1) / calls)
            if number >= 2 and time.monotonic() > end:
                break
        return best

    def _batch(self, call: Call, count: int) -> tuple[Call, int]:
        """The calls as one graph, so that the host's launching is not measured; a loop where that can't be."""

        def loop() -> None:
            for _ in range(count):
                call()

        if self.device.type != "cuda" or count == 1:
            return loop, count
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loop()
        except RuntimeError as error:  # an operation that can't be captured
            self.notes.append(f"no graph: {error}")
            torch.cuda.synchronize(self.device)
            return loop, count
        return graph.replay, count

    def _round(self, call: Call, count: int) -> float:
        if self.device.type != "cuda":
            begun = time.perf_counter()
            for _ in range(count):
                call()
            return (time.perf_counter() - begun) / count
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / count


def bandwidths(meter: Meter) -> dict[int, float]:
    """Footprint to 10^9 bytes a second, the higher one of reading it and of copying its one half to its other."""
    tiny = torch.zeros(1, device=meter.device)
    empty = meter.seconds(lambda: tiny.add_(1))
    found: dict[int, float] = {}
    for footprint in meter.plan.footprints:
        if found and meter.late:
            break
        with _memory(meter, f"a working set of {footprint} bytes"):
            data = torch.ones(footprint // 4, device=meter.device)
            total = torch.empty((), device=meter.device)
            first, second = data.chunk(2)
            took = min(
                meter.seconds(lambda d=data, t=total: torch.sum(d, dim=0, out=t)),  # type: ignore[misc]
                meter.seconds(lambda a=first, b=second: b.copy_(a)),  # type: ignore[misc]
            )
            # What starting a kernel costs is no bandwidth, and at small sizes it is most of the time.
            found[footprint] = footprint / max(took - empty, took / 2) / 1e9
    return found


def peaks(meter: Meter) -> dict[str, float]:
    """Element type to 10^9 operations a second in square matrix products.

    `tf32` is the rate of float32 operands rounded to TF32; `float32_fma` that of the ordinary float32 units.
    `float32`, which bounds kernels whose results are right to float32, is the higher one of `float32_fma` and a third
    of `tf32`: a product that is split into three TF32 ones loses nothing (Markidis et al., 2018), so no honest float32
    kernel is faster, and one that computes in plain TF32 is no float32 kernel.
    """
    found: dict[str, float] = {}
    for name, dtype in (("float64", torch.float64), ("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        _add(found, name, _fastest(meter, name, lambda n, d=dtype: _plain(n, d, meter.device)))  # type: ignore[misc]
    for name, precision in (("float32_fma", "highest"), ("tf32", "high")):
        if name == "tf32" and not _has_tf32(meter.device):
            continue
        with _float32_products(precision):
            _add(found, name, _fastest(meter, name, lambda n: _plain(n, torch.float32, meter.device)))
    for name, make in (("float8_e4m3fn", _fp8), ("float8_e4m3fnuz", _fp8), ("int8", _int8)):
        _add(found, name, _fastest(meter, name, lambda n, m=make, d=name: m(n, d, meter.device)))  # type: ignore[misc]
    if "float8_e4m3fn" in found:  # the same units
        found["float8_e5m2"] = found["float8_e4m3fn"]
    if "float32_fma" in found:
        found["float32"] = max(found["float32_fma"], found.get("tf32", 0.0) / 3)
    return found


def _add(found: dict[str, float], name: str, rate: float | None) -> None:
    if rate is not None:
        found[name] = rate


def _fastest(meter: Meter, name: str, make: Callable[[int], Call]) -> float | None:
    """Best rate over growing sizes; None where the device has no such product, which is noted."""
    best: float | None = None
    for side in meter.plan.sides:
        if best is not None and meter.late:
            break
        try:
            with _memory(meter, f"{name} products of {side}"):
                took = meter.seconds(make(side))
                best = max(best or 0.0, 2 * side**3 / took / 1e9)
                if took > 0.1:  # the next size takes eight times as long and gains little
                    break
        except (RuntimeError, ValueError, NotImplementedError) as error:  # no such product on this device
            meter.notes.append(f"{name}: {str(error).splitlines()[0][:200]}")
            break
    return best


def _plain(side: int, dtype: torch.dtype, device: torch.device) -> Call:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: torch.mm(a, b, out=out)


def _fp8(side: int, name: str, device: torch.device) -> Call:
    """Scaled by one, accumulated fast: the second operand has to be column-major."""
    a, b = (torch.randn(side, side, device=device).to(getattr(torch, name)) for _ in range(2))
    one = torch.ones((), device=device)
    return lambda: torch._scaled_mm(
        a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=device.type == "cuda"
    )


def _int8(side: int, _: str, device: torch.device) -> Call:
    a, b = (torch.randint(-8, 8, (side, side), device=device, dtype=torch.int8) for _ in range(2))
    return lambda: torch._int_mm(a, b.t())


def _has_tf32(device: torch.device) -> bool:
    return device.type != "cuda" or torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


@contextmanager
def _float32_products(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _memory(meter: Meter, what: str) -> Iterator[None]:
    """A size that doesn't fit is noted and left out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        meter.notes.append(f"{what}: {str(error).splitlines()[0][:200]}")
    finally:
        if meter.device.type == "cuda":
            torch.cuda.empty_cache()


def measure(device: torch.device, sizes: Plan) -> dict[str, object]:
    """The document that is printed."""
    meter = Meter(device, sizes)
    peak = peaks(meter)
    return {"read_gbps": bandwidths(meter), "peak_gflops": peak, "notes": meter.notes}


def choose(names: list[str], product: str) -> int:
    """Index of the device of that product, else the first one."""
    return next((index for index, name in enumerate(names) if name == product), 0)


def main(product: str) -> None:
    """Measure the first device of that product."""
    torch.cuda.init()  # type: ignore[no-untyped-call]
    index = choose([torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())], product)
    device = torch.device("cuda", index)
    with torch.cuda.device(device):
        free, _ = torch.cuda.mem_get_info(device)
        document = measure(device, plan(free))
    if not document["read_gbps"] or not document["peak_gflops"]:
        sys.exit("; ".join(map(str, document["notes"] if isinstance(document["notes"], list) else ())))
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
