"""Searches without the device, and queues: a target with GPU workloads, and a triage that knows the answers."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from searching import Landscape, variant

from kernelevolve import targets
from kernelevolve.catalog import Catalog
from kernelevolve.hardware import detect
from kernelevolve.schema import (
    Calibration,
    CalibrationJob,
    Candidate,
    Environment,
    Evaluation,
    Job,
    Lineage,
    Queue,
    QueueEntry,
    digest_of,
)
from kernelevolve.testing.records import a_triaged, an_estimate

SEED = '''\
"""Each column times its factor."""

import triton
import triton.language as tl

TUNABLES = {"BLOCK": [256, 512, 1024], "WARPS": [4, 2]}


@triton.jit
def scale(x, factor, out, n, total, B: tl.constexpr):
    places = tl.program_id(0) * B + tl.arange(0, B)
    inside = places < total
    value = tl.load(x + places, mask=inside) * tl.load(factor + places % n, mask=inside)
    tl.store(out + places, value, mask=inside)


def run(x, factor, out):
    scale[(triton.cdiv(x.numel(), BLOCK),)](x, factor, out, x.shape[1], x.numel(), B=BLOCK, num_warps=WARPS)
'''
WORKLOADS = """\
workloads = [
    { name = "gpu-1024x4096", role = "search", device = "gpu", axes = { rows = 1024, n = 4096 }, dtypes = { T = "float32" }, inputs = "normal" },
    { name = "gpu-1000x500", role = "held_out", device = "gpu", axes = { rows = 1000, n = 500 }, dtypes = { T = "float32" }, inputs = "normal" },
    { name = "gpu-check-odd", role = "check", device = "gpu", axes = { rows = 3, n = 17 }, dtypes = { T = "float32" }, inputs = "spikes" },
"""  # noqa: E501


def gpu_target(folder: Path, base: Path, seed: str = SEED) -> Path:
    """A folder with the target `tiny`, for GPUs as well, with a Triton seed of six members."""
    text = (folder / "tiny" / "target.toml").read_text()
    files = {"target.toml": text.replace("workloads = [\n", WORKLOADS), "seeds/triton/scale.py": seed}
    return variant(folder, base, "for-gpus", files)


class TriageLandscape(Landscape):
    """A triage that is asked nothing but a function."""

    name: ClassVar[str] = "triage"

    def calibrate(self, job: CalibrationJob) -> Calibration:
        environment = Environment(hardware_key=job.hardware.key, threads=1, versions={}, sandbox=())
        return Calibration(target=job.target.digest, times={}, environment=environment)


def triage_landscape(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Job], Evaluation | float | None]) -> list[Job]:
    """Have searches with --triage ask this function; a number is an estimate in microseconds. The jobs, in order."""

    def said(job: Job) -> Evaluation:
        found = answer(job)
        if found is None or isinstance(found, int | float):
            return a_triaged(job.candidate, found, target=job.target.digest, purpose=job.purpose)
        return found

    monkeypatch.setattr(TriageLandscape, "answer", staticmethod(said), raising=False)
    monkeypatch.setattr(TriageLandscape, "jobs", [], raising=False)
    catalog = Catalog("executors", {"triage": "triaging:TriageLandscape"})
    monkeypatch.setattr("kernelevolve.outside.EXECUTORS", catalog)
    return TriageLandscape.jobs


def estimated(candidate: Candidate, us: float | None, workloads: tuple[str, ...]) -> QueueEntry:
    """An entry of a queue with the same estimate for every workload."""
    estimates = () if us is None else tuple(an_estimate(us, workload=name) for name in workloads)
    return QueueEntry(candidate=candidate, estimates=estimates, estimated_us=us, triage=digest_of("triage"))


def cpu_queue(folder: Path, sources: dict[str, str], estimates: tuple[float | None, ...] = ()) -> Queue:
    """A queue of C++ candidates of `tiny` for this machine's CPU, with these estimates in turn or none."""
    target = targets.load("tiny", folder)
    timed = tuple(w.name for w in target.select("cpu", "search"))
    times = (*estimates, *[None] * (len(sources) - len(estimates)))
    candidates = [
        Candidate(language="cpp", files={"main.cpp": text}, lineage=Lineage(origin=name))
        for name, text in sources.items()
    ]
    return Queue(
        target="tiny", target_digest=target.digest, hardware_key=detect().key, created_at="2026-01-02T03:04:05+00:00",
        kernelevolve="0.1.0",
        entries=tuple(estimated(c, us, timed) for c, us in zip(candidates, times, strict=True)),
    )  # fmt: skip
