"""Proton, Triton's own profiler: the time of every kernel, nearly for free, and no counters."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, TypeAlias

from kernelevolve.harness.profilers.base import Refused, Source, counters
from kernelevolve.schema import Counters

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

SUFFIX = ".hatchet"
_OWN = "__proton_launch_metadata"
"""What is launched below this is Proton's own doing."""


@dataclass
class _Total:
    launches: float = 0.0
    time_us: float = 0.0


class Proton:
    """Runs a Python script under Proton; `recording` does the same within a process."""

    name: ClassVar[Source] = "proton"

    def available(self) -> bool:
        """Whether this Triton carries Proton."""
        spec = find_spec("triton")
        folders = spec.submodule_search_locations if spec is not None else None
        return any((Path(folder) / "profiler" / "proton.py").is_file() for folder in folders or ())

    def folders(self) -> tuple[Path, ...]:
        """Nothing but Triton, which is there anyway."""
        return ()

    def wrap(self, argv: Sequence[str], report: Path) -> list[str]:
        """The script under Proton; `argv` is an interpreter, a script and its arguments."""
        return [argv[0], "-m", "triton.profiler.proton", "--name", _stem(report), *argv[1:]]

    def read(self, report: Path) -> str:
        """The profile."""
        file = Path(_stem(report) + SUFFIX)
        return file.read_text() if file.is_file() else ""

    def parse(self, text: str, workload: str | None = None) -> tuple[Counters, ...] | Refused:
        """Read a profile in the hatchet format: a tree of frames, and the devices. Times are means."""
        try:
            document: Json = json.loads(text)
        except ValueError:
            return Refused(message="Proton left no profile", advice="run the same command by hand")
        totals: dict[str, _Total] = {}
        for root in document if isinstance(document, list) else [document]:
            for kernel, launches, time_us in _kernels(root):
                total = totals.setdefault(kernel, _Total())
                total.launches += launches
                total.time_us += time_us
        if not totals:
            return Refused(message="Proton saw no kernel", advice="profile a call that launches one")
        return tuple(
            counters(
                "proton", kernel, launches=round(total.launches), duration_us=total.time_us / total.launches,
                metrics={}, stalls={}, workload=workload,
            )
            for kernel, total in sorted(totals.items(), key=lambda item: item[1].time_us, reverse=True)
        )  # fmt: skip


@contextmanager
def recording(report: Path) -> Iterator[None]:
    """Record every kernel that this process launches within; `Proton().read(report)` has them afterwards.

    Raises `RuntimeError` where Proton can't start (no driver, or another profiler at work).
    """
    from triton import profiler

    session = profiler.start(_stem(report))
    try:
        yield
    finally:
        profiler.finalize(session, "hatchet")


def _stem(report: Path) -> str:
    return str(report.with_suffix("") if report.suffix == SUFFIX else report)


def _kernels(node: Json) -> Iterator[tuple[str, float, float]]:
    """Name, launches and microseconds of every frame that ran on a device."""
    if not isinstance(node, dict):
        return
    frame, metrics, children = node.get("frame"), node.get("metrics"), node.get("children")
    name = frame.get("name") if isinstance(frame, dict) else None
    if name == _OWN:
        return
    if isinstance(metrics, dict) and isinstance(name, str):
        launches, nanoseconds = metrics.get("count"), metrics.get("time (ns)")
        if isinstance(launches, int | float) and isinstance(nanoseconds, int | float) and launches > 0:
            yield name[:200], float(launches), nanoseconds / 1e3
    for child in children if isinstance(children, list) else ():
        yield from _kernels(child)
