"""Nsight Compute, on the command line: counters of every launch, at the price of running it several times."""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from kernelevolve.harness.profilers.base import Launch, Refused, Source, summarise, tool
from kernelevolve.schema import Counters

LAUNCHES = 20
"""Launches that are looked at: each is run a dozen times, with all that it wrote put back between."""

_PACKAGED = Path("/opt/nvidia/nsight-compute")
"""where a distribution's package puts what a toolkit's `ncu` starts"""
_TIME = "gpu__time_duration.sum"
_LARGEST = {
    "dram_pct": (
        "dram__throughput.avg.pct_of_peak_sustained_elapsed", "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    ),
    "l2_pct": ("lts__throughput.avg.pct_of_peak_sustained_elapsed",),
    "sm_pct": ("sm__throughput.avg.pct_of_peak_sustained_elapsed",),
    "tensor_core_pct": (
        "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
        "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    ),
    "occupancy_pct": ("sm__warps_active.avg.pct_of_peak_sustained_active",),
    "bank_conflicts": ("l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",),
    "registers": ("launch__registers_per_thread",),
}  # fmt: skip
"""Our name of a metric, and those of Nsight Compute on one architecture or another."""
_SUM = {
    "local_bytes": ("l1tex__t_bytes_pipe_lsu_mem_local_op_ld.sum", "l1tex__t_bytes_pipe_lsu_mem_local_op_st.sum"),
    "shared_bytes": ("launch__shared_mem_per_block_static", "launch__shared_mem_per_block_dynamic"),
}
_STALL = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
_REASONS = (
    "barrier", "branch_resolving", "dispatch_stall", "drain", "gmma", "imc_miss", "lg_throttle", "long_scoreboard",
    "math_pipe_throttle", "membar", "mio_throttle", "misc", "no_instruction", "not_selected", "short_scoreboard",
    "sleeping", "tex_throttle", "wait", "warpgroup_arrive",
)  # fmt: skip
_UNITS = {
    "nsecond": 1e-3, "ns": 1e-3, "usecond": 1.0, "us": 1.0, "msecond": 1e3, "ms": 1e3, "second": 1e6, "s": 1e6,
    "byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9,
}  # fmt: skip
"""Factor to microseconds and bytes. Older versions spell times out."""

_PROBLEMS = (
    (
        "ERR_NVGPUCTRPERM|does not have permission to access NVIDIA GPU Performance Counters",
        "this user may not read the GPU's counters (ERR_NVGPUCTRPERM)",
        "as root: modprobe option NVreg_RestrictProfilingToAdminUsers=0 for the nvidia module, then reload it; or run "
        "as root; in a container, add the capability SYS_ADMIN",
    ),
    (
        "driver resource was unavailable|ERR_NVGPUCTR",
        "another tool holds the GPU's counters",
        "pause it (DCGM: dcgmi profile --pause) and profile again",
    ),
    (
        "not supported on this GPU|No supported GPUs|Unsupported GPU|is not compatible with|driver is not compatible",
        "this version of Nsight Compute doesn't know the GPU or its driver",
        "install the one that comes with a newer CUDA toolkit",
    ),
    ("No kernels were profiled", "no kernel was launched", "profile a call that launches one"),
    ("application returned an error code|error code \\(", "the program failed under the profiler", "see what it said"),
)


class Ncu:
    """Runs a command under `ncu`, with clocks left alone."""

    name: ClassVar[Source] = "ncu"

    def __init__(self, launches: int = LAUNCHES, kernel: str | None = None) -> None:
        """`kernel`: a regular expression of the kernels to look at; None for all."""
        self._launches, self._kernel = launches, kernel

    def available(self) -> bool:
        """Whether `ncu` is on this machine."""
        return tool("ncu") is not None

    def folders(self) -> tuple[Path, ...]:
        """The one that `ncu` lies in; for a toolkit's, which is a script, also those that it leads to."""
        program = tool("ncu")
        if program is None:
            return ()
        beside = sorted(program.parents[1].glob("nsight-compute*"))
        return tuple(folder for folder in (program.parent, *beside, _PACKAGED) if folder.is_dir())

    def wrap(self, argv: Sequence[str], report: Path) -> list[str]:
        """The command under `ncu`. By default it would lock the clocks, and print among the program's own lines."""
        chosen = ["--kernel-name", f"regex:{self._kernel}"] if self._kernel is not None else []
        return [
            str(tool("ncu") or "ncu"), "--csv", "--page", "raw", "--print-units", "base",
            "--target-processes", "all", "--clock-control", "none", "--launch-count", str(self._launches), *chosen,
            "--metrics", ",".join(wanted()), "--log-file", str(report), *argv,
        ]  # fmt: skip

    def read(self, report: Path) -> str:
        """The log."""
        return report.read_text(errors="replace") if report.is_file() else ""

    def parse(self, text: str, workload: str | None = None) -> tuple[Counters, ...] | Refused:
        """Read a log: lines of the tool, then CSV, one row a launch (--page raw) or one a metric."""
        found = summarise("ncu", _launches(text), workload)
        return found or _refused(text)


def restricted(parameters: str) -> bool:
    """Whether the driver lets only administrators read counters, by the text of /proc/driver/nvidia/params."""
    return re.search(r"^RmProfilingAdminOnly: 1$", parameters, re.MULTILINE) is not None


def wanted() -> tuple[str, ...]:
    """Metrics that are asked for; a device that lacks one answers n/a."""
    named = [metric for table in (_LARGEST, _SUM) for metrics in table.values() for metric in metrics]
    return (_TIME, *named, *(_STALL.format(reason) for reason in _REASONS))


def _refused(text: str) -> Refused:
    for pattern, message, advice in _PROBLEMS:
        if re.search(pattern, text):
            return Refused(message=f"Nsight Compute: {message}", advice=advice)
    said = [line for line in text.splitlines() if line.startswith(("==ERROR==", "==WARNING=="))]
    return Refused(
        message=f"Nsight Compute reported no kernel: {said[-1] if said else 'it said nothing'}",
        advice="run the same command by hand",
    )


def _launches(text: str) -> Iterator[Launch]:
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID",')), None)
    if start is None:
        return
    header, *rows = csv.reader(line for line in lines[start:] if line.startswith('"'))
    if "Metric Name" in header:
        yield from _long(header, rows)
    elif "Kernel Name" in header:
        yield from _wide(header, rows)


def _wide(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[Launch]:
    """A column a metric; the first row holds units and has no ID."""
    units = dict(zip(header, rows[0], strict=False)) if rows and not rows[0][0] else {}
    for row in rows:
        if row[0].isdigit():
            cells = dict(zip(header, row, strict=False))
            values = {name: _value(cell, units.get(name, "")) for name, cell in cells.items() if "__" in name}
            yield _launch(cells["Kernel Name"], {n: v for n, v in values.items() if v is not None})


def _long(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[Launch]:
    """A row a metric."""
    launches: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        cells = dict(zip(header, row, strict=False))
        if cells["ID"].isdigit():
            values = launches.setdefault((cells["ID"], cells["Kernel Name"]), {})
            value = _value(cells.get("Metric Value", ""), cells.get("Metric Unit", ""))
            if value is not None:
                values[cells["Metric Name"]] = value
    for (_, kernel), values in launches.items():
        yield _launch(kernel, values)


def _value(cell: str, unit: str) -> float | None:
    """A number in microseconds, bytes or the count that it is; None for what couldn't be measured ("(!) n/a")."""
    try:
        number = float(cell.replace(",", ""))
    except ValueError:
        return None
    return None if math.isnan(number) else number * _UNITS.get(unit.partition("/")[0], 1.0)


def _launch(kernel: str, values: dict[str, float]) -> Launch:
    metrics = {n: max(values[m] for m in names if m in values) for n, names in _LARGEST.items() if _any(names, values)}
    metrics |= {n: sum(values.get(m, 0.0) for m in names) for n, names in _SUM.items() if _any(names, values)}
    stalls = {reason: values[m] for reason in _REASONS if (m := _STALL.format(reason)) in values}
    return Launch(kernel=kernel[:200], duration_us=values.get(_TIME), metrics=metrics, stalls=stalls)


def _any(names: Sequence[str], values: dict[str, float]) -> bool:
    return any(name in values for name in names)
