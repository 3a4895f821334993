"""A target as a prompt may know it: nothing that is held out, no seed, no tolerance, no path of this machine."""

import ast
from dataclasses import dataclass
from functools import lru_cache

from kernelevolve import syntax
from kernelevolve.errors import UsageError
from kernelevolve.hardware import devices
from kernelevolve.schema import ErrorRule, ExactRule, Hardware, Input, Output, Target, Workload


@dataclass(frozen=True)
class Argument:
    """A parameter of `run`, in its order."""

    name: str
    output: bool
    shape: str
    """by axis names, for instance [batch, n]; empty for a scalar"""
    dtype: str
    """an element type, or the name of a type parameter"""
    constant: bool
    rule: str
    """what counts as right, for an output"""


@dataclass(frozen=True)
class SearchWorkload:
    """A workload that is timed."""

    name: str
    axes: str
    dtypes: str
    inputs: str
    operations: int
    compulsory_bytes: int
    baseline_us: float | None


@dataclass(frozen=True)
class Task:
    """What is to be made fast."""

    name: str
    summary: str
    axes: dict[str, str]
    dtypes: dict[str, tuple[str, ...]]
    arguments: tuple[Argument, ...]
    reference: str
    """source of the function that defines the right answer"""
    workloads: tuple[SearchWorkload, ...]
    inputs: dict[str, str]
    """case of the input generator to what it makes, for the cases of these workloads that say so"""
    baselines: dict[str, str]
    operations: str
    """as an expression over the axes"""

    @property
    def constants(self) -> tuple[Argument, ...]:
        """The arguments that `prepare` gets."""
        return tuple(argument for argument in self.arguments if argument.constant)


@dataclass(frozen=True)
class Bandwidths:
    """Highest read rate over a working set up to a size."""

    footprint: str
    gbps: float


@dataclass(frozen=True)
class Machine:
    """The hardware with its ceilings."""

    product: str
    architecture: str
    """with the microarchitecture, where it is known"""
    device: str
    cores: int
    memory_gib: float
    caches: dict[str, str]
    features: tuple[str, ...]
    toolchain: dict[str, str]
    datasheet: dict[str, str]
    """of a GPU whose ceilings nobody has measured here, and its limits"""
    threads: int | None
    """with which the ceilings were measured"""
    bandwidths: tuple[Bandwidths, ...]
    peak_gflops: dict[str, float]
    fork_join_us: float | None
    """of an empty parallel region; None for one thread, or a GPU"""


def task_of(target: Target, device: Hardware, baseline_us: dict[str, float]) -> Task:
    """What may be said of a target to whoever writes kernels for a device."""
    workloads = target.select(device.device, "search")
    cases = _cases(target.files.get("inputs.py", ""))
    return Task(
        name=target.name,
        summary=target.summary,
        axes=target.axes,
        dtypes=_dtypes(target, device),
        arguments=tuple(_argument(tensor) for tensor in target.tensors),
        reference=target.files["reference.py"].strip(),
        workloads=tuple(_workload(target, w, baseline_us.get(w.name)) for w in workloads),
        inputs={w.inputs: cases[w.inputs] for w in workloads if w.inputs in cases},
        baselines={b.name: b.summary for b in target.baselines if device.device in b.devices},
        operations=target.cost.operations,
    )


def machine_of(hardware: Hardware) -> Machine:
    """What may be said of a machine."""
    ceilings = hardware.ceilings
    return Machine(
        product=hardware.product,
        architecture=", ".join(filter(None, (hardware.microarchitecture, hardware.architecture))),
        device="CPU" if hardware.device == "cpu" else "GPU",
        cores=hardware.cores,
        memory_gib=hardware.memory_bytes / (1 << 30),
        caches={name: size(count) for name, count in hardware.cache_bytes.items()},
        features=hardware.features,
        toolchain=hardware.toolchain,
        datasheet=_datasheet(hardware),
        threads=ceilings.threads if ceilings else None,
        bandwidths=tuple(Bandwidths(size(b.footprint_bytes), b.gbps) for b in ceilings.bandwidths) if ceilings else (),
        peak_gflops=ceilings.peak_gflops if ceilings else {},
        fork_join_us=ceilings.fork_join_us if ceilings else None,
    )


def _datasheet(hardware: Hardware) -> dict[str, str]:
    if hardware.device == "cpu":
        return {}
    try:
        gpu = devices.of(hardware)
    except UsageError:  # nothing is known of it, nor of one like it
        return {}
    limits = {
        "L2": size(gpu.cache_bytes), "shared memory of a block": size(gpu.shared_per_block),
        "registers of a multiprocessor": str(gpu.registers_per_multiprocessor),
        "clock": f"{gpu.clock_mhz:.0f} MHz",
    }  # fmt: skip
    if hardware.ceilings is not None:
        return limits
    rates = {name: f"{peak:.4g} TFLOP/s" for name, peak in gpu.peak_tflops.items()}
    return {**limits, "memory": f"{gpu.memory_gbps:.4g} GB/s", **rates}


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    number = float(count)
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} GiB"


def _dtypes(target: Target, device: Hardware) -> dict[str, tuple[str, ...]]:
    """The element types that occur on this kind of device."""
    used = [w.dtypes for w in target.workloads if w.device == device.device]
    return {
        name: tuple(t for t in types if any(dtypes.get(name) == t for dtypes in used))
        for name, types in target.dtypes.items()
    }


def _argument(tensor: Input | Output) -> Argument:
    output = isinstance(tensor, Output)
    return Argument(
        name=tensor.name,
        output=output,
        shape="" if tensor.shape is None else f"[{', '.join(map(str, tensor.shape))}]",
        dtype=tensor.dtype,
        constant=isinstance(tensor, Input) and tensor.constant,
        rule=_rule(tensor) if isinstance(tensor, Output) else "",
    )


def _rule(output: Output) -> str:
    """A numeric rule in words. Its numbers stay with the judge: an error is not there to be used up."""
    rule = output.rule
    if isinstance(rule, ExactRule):
        return "every element equals the reference's in value; NaN matches NaN and nothing else"
    if isinstance(rule, ErrorRule):
        return (
            "compared with a float64 reference, row by row: the error may be little more than that of an honest "
            "implementation in the same element type that sums in float32, so that such sums are right in any order, "
            "and sums or products in less than float32 are not; NaN and infinity where the reference has "
            "them, and nowhere else"
        )
    return (
        f"positions into the last axis of {rule.source}: in range, without repeats, and naming the elements that "
        f"{rule.values} holds; which of several equal elements is named doesn't matter"
    )


def _workload(target: Target, workload: Workload, baseline_us: float | None) -> SearchWorkload:
    return SearchWorkload(
        name=workload.name,
        axes=", ".join(f"{name} = {value}" for name, value in workload.axes.items()),
        dtypes=", ".join(f"{name} = {dtype}" for name, dtype in workload.dtypes.items()),
        inputs=workload.inputs,
        operations=target.operations(workload),
        compulsory_bytes=target.compulsory_bytes(workload),
        baseline_us=baseline_us,
    )


@lru_cache(maxsize=64)
def _cases(source: str) -> dict[str, str]:
    """First lines of the docstrings of a generator's functions: what each case makes, in its author's words."""
    found = {}
    for node in syntax.module(source).body:
        if isinstance(node, ast.FunctionDef) and (said := ast.get_docstring(node)):
            found[node.name] = said.split("\n", 1)[0]
    return found
