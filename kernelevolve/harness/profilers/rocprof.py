"""rocprofv3, of ROCm: kernel times, and a few counters in several passes."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from kernelevolve.harness.profilers.base import Launch, Refused, Source, summarise, tool
from kernelevolve.schema import Counters

_PASSES = (
    ("OccupancyPercent", "MemUnitBusy"),
    ("MfmaUtil", "VALUBusy"),
    ("LDSBankConflict", "L2CacheHit"),
    ("FETCH_SIZE", "WRITE_SIZE"),
)
"""Few counters fit into the hardware at once: the program is run once for each group."""

_METRICS = {
    "OccupancyPercent": "occupancy_pct", "MemUnitBusy": "memory_unit_pct", "MfmaUtil": "tensor_core_pct",
    "VALUBusy": "sm_pct", "LDSBankConflict": "bank_conflict_pct", "L2CacheHit": "l2_hit_pct",
}  # fmt: skip
_KILOBYTES = {"FETCH_SIZE": "read_bytes", "WRITE_SIZE": "written_bytes"}


class Rocprof:
    """Runs a command under `rocprofv3`; the report is a folder."""

    name: ClassVar[Source] = "rocprof"

    def available(self) -> bool:
        """Whether `rocprofv3` is on this machine."""
        return tool("rocprofv3") is not None

    def folders(self) -> tuple[Path, ...]:
        """ROCm's own: its libraries and Python modules lie beside the folder of programs."""
        program = tool("rocprofv3")
        return (program.parents[1],) if program is not None else ()

    def wrap(self, argv: Sequence[str], report: Path) -> list[str]:
        """The command under `rocprofv3`; the groups of counters are written to `report`/passes.txt."""
        report.mkdir(parents=True, exist_ok=True)
        passes = report / "passes.txt"
        passes.write_text("".join(f"pmc: {' '.join(group)}\n" for group in _PASSES))
        return [
            str(tool("rocprofv3") or "rocprofv3"), "--input", str(passes), "--kernel-trace",
            "--output-format", "csv", "--output-directory", str(report), "--output-file", "%pid%", "--", *argv,
        ]  # fmt: skip

    def read(self, report: Path) -> str:
        """The counters of all passes, and the trace of the first: every pass launches the same kernels."""
        files = sorted(report.rglob("*.csv"))
        counted = [file for file in files if file.stem.endswith("_counter_collection")]
        traced = [file for file in files if file.stem.endswith("_kernel_trace")]
        once = [file for file in traced if file.parent == traced[0].parent]
        return "\n".join(file.read_text(errors="replace") for file in (*once, *counted))

    def parse(self, text: str, workload: str | None = None) -> tuple[Counters, ...] | Refused:
        """Read kernel traces and counter collections, each with its own header."""
        found = summarise("rocprof", _launches(text), workload)
        if found:
            return found
        return Refused(
            message="rocprofv3 reported no kernel",
            advice="run the same command by hand; counters need a user in the groups render and video",
        )


def _launches(text: str) -> Iterator[Launch]:
    """Times out of traces, where there are any (counting slows kernels down), and counters out of collections."""
    traced: list[Launch] = []
    counted: dict[tuple[str, str, str], Launch] = {}
    for row in _rows(text):
        kernel = row["Kernel_Name"][:200]
        took = _microseconds(row)
        if "Counter_Name" in row:
            # Dispatches are numbered anew in each pass: the same number is the same dispatch.
            key = (row.get("Agent_Id", ""), row.get("Dispatch_Id", ""), kernel)
            launch = counted.setdefault(key, Launch(kernel=kernel, duration_us=took))
            _count(launch, row)
        else:
            traced.append(Launch(kernel=kernel, duration_us=took, metrics=_resources(row)))
    if not traced or not counted:
        yield from (*traced, *counted.values())
        return
    metrics: dict[str, list[Launch]] = {}
    for launch in counted.values():
        metrics.setdefault(launch.kernel, []).append(launch)
    for launch in traced:
        if same := metrics.get(launch.kernel):
            launch.metrics |= same.pop(0).metrics
        yield launch


def _rows(text: str) -> Iterator[Mapping[str, str]]:
    """Rows as tables from header to value. A line that names `Kernel_Name` is a header."""
    header: list[str] = []
    for cells in csv.reader(text.splitlines()):
        if "Kernel_Name" in cells:
            header = cells
        elif header and len(cells) == len(header):
            yield dict(zip(header, cells, strict=True))


def _count(launch: Launch, row: Mapping[str, str]) -> None:
    name = row["Counter_Name"]
    try:
        value = float(row["Counter_Value"])
    except ValueError:
        return
    if name in _METRICS:
        launch.metrics[_METRICS[name]] = value
    elif name in _KILOBYTES:
        launch.metrics[_KILOBYTES[name]] = value * 1024
    launch.metrics |= _resources(row)


def _resources(row: Mapping[str, str]) -> dict[str, float]:
    """What a launch is given, by whichever of its names the version has."""
    found = {}
    for metric, columns in (
        ("registers", ("VGPR_Count", "Vgpr_Count")),
        ("shared_bytes", ("LDS_Block_Size", "Lds_Block_Size", "Group_Segment_Size")),
        ("local_bytes", ("Scratch_Size", "Private_Segment_Size")),
    ):
        value = next((row[column] for column in columns if column in row), "")
        if value.isdigit():
            found[metric] = float(value)
    return found


def _microseconds(row: Mapping[str, str]) -> float | None:
    start, end = row.get("Start_Timestamp", ""), row.get("End_Timestamp", "")
    return (int(end) - int(start)) / 1e3 if start.isdigit() and end.isdigit() else None
