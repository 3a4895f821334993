"""A call's time from static facts: what triage knows of each launch, the target's cost model, the device's rates.

A launch takes, in the spirit of the roofline (Williams et al., 2009), about as long as the slowest of four flows, each
of which needs parallelism to reach its rate (Little's law; Hong and Kim, 2009; Volkov, 2016):

- memory: the bytes of the tensors that the launch gets, at the rate that the bytes in flight sustain;
- cache: the bytes that all blocks load and store, so that small tiles pay for reading a matrix many times;
- compute: the target's operations, at the peak of tensor cores or of ordinary units, whichever the code has;
- instructions: issue slots, and one load, store or shuffle a clock.

How often a loop runs isn't in the code: it is taken as the operations, or else the bytes, over what the loop with the
tensor-core instructions (or where there is none, all of the code) does of them in one go. The four overlap, though not
perfectly (a p-norm), spills come on top, the multiprocessor with the most blocks decides (wave quantisation), and each
launch costs a few microseconds. Not seen: loops that depend on values, bank conflicts, atomics on the same address,
divergence, the host's time between launches.

So an estimate ranks candidates, and has an interval that is wide on purpose: `LOW` to `HIGH` about it, more where
launches or counts aren't known. Neither was fitted to anything; `scripts/bench-estimate` finds out what they are worth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness.roofline import precision
from kernelevolve.schema import (
    Bound,
    Ceilings,
    CompiledKernel,
    Estimate,
    EstimateParts,
    Instructions,
    NoEstimate,
    Target,
    TensorUse,
    Triage,
    Workload,
)

LOW, HIGH = 3.0, 4.0
"""How much faster, and slower, than estimated a call is still held possible. What isn't seen slows down."""
UNKNOWN = 2.0
"""Both are as much wider where a launch's tensors or its tensor-core shapes aren't known."""
LAUNCH_US = 3.0
"""A launch in a stream that is never empty: start, drain, and the gap to the next."""
MEMORY_LATENCY_US = 0.65
"""Of a load that misses every cache, on a busy device."""
CACHE_BYTES_A_CLOCK = 28.0
"""Through the last cache, a multiprocessor: what microbenchmarks of A100 and H100 reach of the 64 on paper."""
MEMORY_SHARE, COMPUTE_SHARE = 0.93, 0.78
"""Of a datasheet's rate that very good kernels reach: measured on an H200. Measured ceilings are taken whole."""
SINGLE_WARP_SHARE = 0.6
"""Of the tensor cores' peak on a Hopper or later, for instructions that a single warp issues (HMMA)."""
ISSUES_A_CLOCK, LOADS_A_CLOCK = 4.0, 1.0
"""Instructions of a warp, and loads, stores and shuffles among them, a multiprocessor."""
TENSOR_WARPS, ORDINARY_WARPS = 8, 16
"""Warps of a multiprocessor that keep its tensor cores, or its other units, busy."""
OUTSTANDING_BYTES = 64
"""Loaded by a thread before it waits, at most."""
OVERLAP = 4
"""Exponent of the norm that adds the four flows: 1 would be one after the other, infinity perfect overlap."""

_FALLBACK = {"tf32": "float32", "float8_e4m3fn": "float16", "float8_e5m2": "float16", "bfloat16": "float16"}


def estimates(
    triage: Triage, target: Target, gpu: Gpu, ceilings: Ceilings | None = None
) -> tuple[Estimate | NoEstimate, ...]:
    """One for each search workload for GPUs. Pure: the same triage gives the same answer."""
    found = []
    for workload in target.select("gpu", "search"):
        kernels = tuple(k for k in triage.kernels if k.workload == workload.name)
        cut_short = any(getattr(d, "workload", None) == workload.name for d in triage.diagnostics)
        found.append(
            NoEstimate(workload=workload.name, reason="not all of its launches are known")
            if cut_short
            else estimate(workload, kernels, target, gpu, ceilings)
        )
    return tuple(found)


def geometric_mean(found: Sequence[Estimate | NoEstimate]) -> float | None:
    """Of the estimates, in microseconds; None unless every workload has one."""
    times = [e.estimated_us for e in found if isinstance(e, Estimate)]
    if not times or len(times) < len(found):
        return None
    return math.exp(sum(map(math.log, times)) / len(times))


def estimate(
    workload: Workload, kernels: Sequence[CompiledKernel], target: Target, gpu: Gpu, ceilings: Ceilings | None = None
) -> Estimate | NoEstimate:
    """Of a call that makes these launches; of a launch's configurations the best usable one counts."""
    sites = [[k for k in kernels if k.launch == number] for number in sorted({k.launch for k in kernels})]
    usable = [[k for k in site if not k.diagnostics and k.blocks_per_multiprocessor] for site in sites]
    if not sites:
        return NoEstimate(workload=workload.name, reason="nothing that it launches is known")
    if not all(usable):
        return NoEstimate(workload=workload.name, reason="a launch has no configuration that fits the device")
    device = _Device.of(gpu, ceilings)
    compulsory, operations = target.compulsory_bytes(workload), target.operations(workload)
    traffic = _traffic(usable, gpu, compulsory)
    shares = _shares(usable)
    kind = precision(target, workload)
    launches = [
        min(
            (_launch(k, device, moved, operations * share, kind) for k in site),
            key=lambda flows: flows.total_us,
        )
        for site, moved, share in zip(usable, traffic, shares, strict=True)
    ]
    least_memory_us = compulsory / device.memory_gbps / 1e3
    busy_us = max(sum(f.total_us for f in launches), least_memory_us)
    estimated_us = busy_us + LAUNCH_US * len(sites)
    floor_us = max(compulsory / device.memory_peak_gbps / 1e3, operations / device.highest_peak(kind) / 1e6)
    wider = 1.0 if all(f.known for f in launches) else UNKNOWN
    parts = EstimateParts(
        memory_us=max(sum(f.memory_us for f in launches), least_memory_us),
        cache_us=sum(f.cache_us for f in launches), compute_us=sum(f.compute_us for f in launches),
        instructions_us=sum(f.instructions_us for f in launches), spill_us=sum(f.spill_us for f in launches),
        tail_us=sum(f.tail_us for f in launches), launch_us=LAUNCH_US * len(sites),
    )  # fmt: skip
    return Estimate(
        workload=workload.name, estimated_us=estimated_us, low_us=max(floor_us, estimated_us / (LOW * wider)),
        high_us=estimated_us * HIGH * wider, floor_us=floor_us, bound=_bound(parts), parts=parts, launches=len(sites),
        moved_bytes=max(compulsory, sum(m.memory_bytes for m in traffic)),
    )  # fmt: skip


@dataclass(frozen=True)
class _Device:
    """What the device can do: measured ceilings where there are any, else a share of the datasheet."""

    gpu: Gpu
    memory_gbps: float
    memory_peak_gbps: float
    tflops: dict[str, float]
    """achievable, by element type"""
    peak_tflops: dict[str, float]

    @classmethod
    def of(cls, gpu: Gpu, ceilings: Ceilings | None) -> "_Device":
        tflops = {dtype: COMPUTE_SHARE * peak for dtype, peak in gpu.peak_tflops.items()}
        if ceilings is None:
            return cls(gpu, MEMORY_SHARE * gpu.memory_gbps, gpu.memory_gbps, tflops, gpu.peak_tflops)
        measured = {dtype: gflops / 1e3 for dtype, gflops in ceilings.peak_gflops.items()}
        if "float32_fma" in measured:  # of the ordinary units, which is what float32 means here
            measured["float32"] = measured["float32_fma"]
        gbps = ceilings.bandwidth_gbps(8 * gpu.cache_bytes)
        return cls(gpu, gbps, gbps, {**tflops, **measured}, {**gpu.peak_tflops, **measured})

    def achievable(self, kind: str, tensor_core: bool) -> float:
        """10^12 operations a second."""
        return _rate(self.tflops, _unit(kind, tensor_core))

    def highest_peak(self, kind: str) -> float:
        """10^12 operations a second, by whichever unit is faster."""
        return max(_rate(self.peak_tflops, _unit(kind, tensor_core)) for tensor_core in (True, False))


def _unit(kind: str, tensor_core: bool) -> str:
    """Whose peak counts: ordinary units do narrow types at the rate of float32, tensor cores do float32 as tf32."""
    if kind == "float64" or not tensor_core:
        return "float64" if kind == "float64" else "float32"
    return "tf32" if kind == "float32" else kind


def _rate(tflops: dict[str, float], kind: str) -> float:
    while kind not in tflops:
        kind = _FALLBACK.get(kind, "float32")
    return tflops[kind]


@dataclass(frozen=True)
class _Traffic:
    """Least bytes that a launch moves: to and from memory, and those that the launches before it left in the cache."""

    memory_bytes: int
    cached_bytes: int
    known: bool


def _traffic(sites: Sequence[Sequence[CompiledKernel]], gpu: Gpu, compulsory: int) -> list[_Traffic]:
    """Each tensor of a launch moves once; one that was touched a little while ago is still in the cache."""
    found = []
    age: dict[int, int] = {}
    """storage to the bytes that were touched since"""
    for site in sites:
        tensors = site[0].tensors
        if not tensors:
            found.append(_Traffic(compulsory // len(sites), 0, known=False))
            continue
        touched = sum(t.bytes for t in tensors)
        kept = [t for t in tensors if _in_cache(t, age, touched, gpu)]
        cached = sum(t.bytes for t in kept)
        found.append(_Traffic(touched - cached, cached, known=True))
        age = {storage: since + touched for storage, since in age.items()} | {t.storage: 0 for t in tensors}
    return found


def _in_cache(tensor: TensorUse, age: dict[int, int], touched: int, gpu: Gpu) -> bool:
    # Half of it: the cache is shared with whatever else moves, and its replacement isn't perfect.
    return tensor.storage in age and age[tensor.storage] + touched <= gpu.cache_bytes // 2


def _shares(sites: Sequence[Sequence[CompiledKernel]]) -> list[float]:
    """How the operations are divided: among the launches with tensor cores, or all where none has, by their warps."""
    tensor_core = [any(k.resources.instructions.tensor_core for k in site) for site in sites]
    warps = [
        float(_blocks(site[0]) * site[0].resources.num_warps) if has or not any(tensor_core) else 0.0
        for site, has in zip(sites, tensor_core, strict=True)
    ]
    return [w / sum(warps) for w in warps]


def _blocks(kernel: CompiledKernel) -> int:
    return max(1, math.prod(kernel.grid) * kernel.resources.num_ctas)


@dataclass(frozen=True)
class _Flows:
    """One launch: what each limit alone would make of it, in microseconds."""

    memory_us: float
    cache_us: float
    compute_us: float
    instructions_us: float
    spill_us: float
    even_us: float
    """the total, were the blocks spread evenly over all multiprocessors"""
    known: bool

    @property
    def total_us(self) -> float:
        return _overlapped(self.memory_us, self.cache_us, self.compute_us, self.instructions_us) + self.spill_us

    @property
    def tail_us(self) -> float:
        return max(0.0, self.total_us - self.even_us)


def _overlapped(*times: float) -> float:
    longest = max(times)
    return longest * sum((t / longest) ** OVERLAP for t in times) ** (1 / OVERLAP) if longest else 0.0


def _launch(kernel: CompiledKernel, device: _Device, moved: _Traffic, operations: float, kind: str) -> _Flows:
    gpu, needs, counts = device.gpu, kernel.resources, kernel.resources.instructions
    blocks = _blocks(kernel)
    warps, threads = blocks * needs.num_warps, blocks * needs.num_warps * gpu.warp_size
    most = math.ceil(blocks / gpu.multiprocessors)
    resident = min(kernel.blocks_per_multiprocessor, most)
    # The multiprocessor with most blocks decides; its share of the work, relative to an even one.
    uneven = most * gpu.multiprocessors / blocks
    clocks_a_us = gpu.clock_mhz * gpu.multiprocessors
    trips = _trips(kernel, moved, operations, warps, threads)
    loop = needs.loop or counts
    through = max(moved.memory_bytes + moved.cached_bytes, _run(counts, loop, trips, "global_bytes") * threads)
    cache_us = through / (CACHE_BYTES_A_CLOCK * clocks_a_us)
    compute_us = operations / _arithmetic(kernel, device, kind, resident) / 1e6
    total, load_store = (_run(counts, loop, trips, name) for name in ("total", "load_store"))
    issued = max(total / ISSUES_A_CLOCK, load_store / LOADS_A_CLOCK)
    busy = min(1.0, resident * needs.num_warps / ORDINARY_WARPS)
    instructions_us = issued * warps / clocks_a_us / busy
    spill_us = 2 * trips * needs.spill_bytes * threads / (CACHE_BYTES_A_CLOCK * clocks_a_us)
    memory_us = moved.memory_bytes / _memory_gbps(kernel, device, blocks) / 1e3
    even_us = _overlapped(memory_us, cache_us, compute_us, instructions_us) + spill_us
    return _Flows(
        memory_us, cache_us * uneven, compute_us * uneven, instructions_us * uneven, spill_us * uneven, even_us,
        known=moved.known and bool(counts.tensor_operations or not counts.tensor_core),
    )  # fmt: skip


def _trips(kernel: CompiledKernel, moved: _Traffic, operations: float, warps: int, threads: int) -> float:
    """How often the loop runs: until the operations are done, or where their number isn't told, all was touched."""
    counts = kernel.resources.loop or kernel.resources.instructions
    if counts.tensor_operations:
        return max(1.0, operations / (counts.tensor_operations * warps))
    if counts.global_bytes:
        return max(1.0, (moved.memory_bytes + moved.cached_bytes) / (counts.global_bytes * threads))
    return 1.0


def _run(counts: Instructions, loop: Instructions, trips: float, name: str) -> float:
    """How often instructions of a kind run in a thread: those outside of the loop once."""
    once, again = float(getattr(counts, name)), float(getattr(loop, name))
    return max(0.0, once - again) + trips * again


def _memory_gbps(kernel: CompiledKernel, device: _Device, blocks: int) -> float:
    """The memory's rate, or what so many bytes in flight sustain (Little's law)."""
    gpu, needs = device.gpu, kernel.resources
    threads = needs.num_warps * gpu.warp_size
    flying = float(threads * min(max(needs.instructions.global_bytes, 4), OUTSTANDING_BYTES))
    stages = needs.num_stages or 2  # where it isn't told, half of the copies are taken to be under way
    if needs.instructions.async_copies and stages > 1:
        flying = max(flying, needs.shared_bytes * (stages - 1) / stages)
    resident = min(kernel.blocks_per_multiprocessor * gpu.multiprocessors, blocks)
    return min(device.memory_gbps, flying * resident / MEMORY_LATENCY_US / 1e3)


def _arithmetic(kernel: CompiledKernel, device: _Device, kind: str, resident: int) -> float:
    """10^12 operations a second with that many blocks on each multiprocessor."""
    gpu, counts = device.gpu, kernel.resources.instructions
    tensor_core = bool(counts.tensor_core)
    enough = TENSOR_WARPS if tensor_core else ORDINARY_WARPS
    share = min(1.0, resident * kernel.resources.num_warps / enough)
    if tensor_core and not counts.warpgroup and gpu.vendor == "nvidia" and gpu.capability >= (9, 0):
        share *= SINGLE_WARP_SHARE
    return share * device.achievable(kind, tensor_core)


def _bound(parts: EstimateParts) -> Bound:
    """The limit that matters most."""
    memory = max(parts.memory_us, parts.cache_us, parts.spill_us)
    compute = max(parts.compute_us, parts.instructions_us)
    if parts.launch_us >= max(memory, compute):
        return "latency"
    return "memory" if memory >= compute else "compute"
