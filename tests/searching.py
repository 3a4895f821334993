"""Searches of a test's own: with the real judge in this process, on a made-up landscape, and as a command."""

import atexit
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import ClassVar

import pytest

from kernelevolve.catalog import PROPOSERS, Catalog
from kernelevolve.harness.judge import Judge
from kernelevolve.runs import Runs
from kernelevolve.schema import (
    BaselineTime,
    Calibration,
    CalibrationJob,
    Candidate,
    Evaluation,
    Job,
    Record,
    Run,
)
from kernelevolve.settings import Settings
from kernelevolve.store import SqlStore
from kernelevolve.testing.inline import InlineExecutor
from kernelevolve.testing.records import a_passed, an_environment

USERS = ("outside", "certify", "evaluate", "drain", "redteam")
"""Modules that start an executor."""


class Here(InlineExecutor):
    """The real judge in this process, kept from one search to the next: torch and baselines start once."""

    class Config(Record):
        """As that of the local executor."""

        workers: int = 1

    def __init__(self, config: Config) -> None:
        super().__init__()

    def _judge(self, cache_dir: str) -> Judge:
        return _kept_judge(cache_dir)


@cache
def _kept_judge(cache_dir: str) -> Judge:
    judge = Judge(Path(cache_dir))
    atexit.register(judge.close)
    return judge


def judge_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every search, certification and evaluation use `Here`."""
    for user in USERS:
        monkeypatch.setattr(f"kernelevolve.{user}.EXECUTORS", Catalog("executors", {"local": "searching:Here"}))


class Landscape:
    """An executor that knows the answers; the class itself is what a test sets up, with `landscape`."""

    name: ClassVar[str] = "local"
    answer: ClassVar[Callable[[Job], Evaluation]]
    jobs: ClassVar[list[Job]]

    class Config(Record):
        """As that of the local executor."""

        workers: int = 1

    def __init__(self, config: Config) -> None:
        self.concurrency = config.workers
        self._pool = ThreadPoolExecutor(config.workers)

    def calibrate(self, job: CalibrationJob) -> Calibration:
        names = job.workloads or [w.name for w in job.target.select("cpu", "search")]
        times = {name: (BaselineTime(baseline="eager", median_us=15.0),) for name in names}
        return Calibration(target=job.target.digest, times=times, environment=an_environment())

    def submit(self, job: Job) -> Future[Evaluation]:
        type(self).jobs.append(job)
        return self._pool.submit(type(self).answer, job)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def landscape(monkeypatch: pytest.MonkeyPatch, speedup: Callable[[Job], float | Evaluation]) -> list[Job]:
    """Have searches ask this function instead of a machine; the jobs that were submitted, in order."""

    def answer(job: Job) -> Evaluation:
        said = speedup(job)
        if not isinstance(said, float):
            return said
        return a_passed(job.candidate, said, purpose=job.purpose, target=job.target.digest)

    monkeypatch.setattr(Landscape, "answer", staticmethod(answer), raising=False)
    monkeypatch.setattr(Landscape, "jobs", [], raising=False)
    monkeypatch.setattr("kernelevolve.outside.EXECUTORS", Catalog("executors", {"local": "searching:Landscape"}))
    return Landscape.jobs


def propose_with(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Have searches know one more proposer, `scripted`, of that module and class."""
    for user in ("search", "commission"):
        known = Catalog("proposers", {**PROPOSERS.builtins, "scripted": path})
        monkeypatch.setattr(f"kernelevolve.{user}.PROPOSERS", known)


def by_tunables(job: Job) -> float:
    """A landscape with one summit, the same on each visit."""
    numbers = [v for v in job.candidate.tunables.values() if isinstance(v, int)]
    return 1.0 + sum(numbers) % 7 / 10


def some_settings(base: Path, cache_dir: Path, folder: Path, **changes: object) -> Settings:
    """Settings whose folders are the test's own. One thread: the tests share the cores with whatever else runs."""
    fields = {"runs": base / "runs", "registry": base / "registry", "cache": cache_dir, "targets": folder}
    return Settings.model_validate({"threads": 1, "workers": 1, "evals": 3, **fields, **changes})


def stored(settings: Settings, run: str) -> Run:
    """What the store has of a run."""
    with SqlStore.open(Runs(settings.runs).database, read_only=True) as store:
        return store.run(run)


def candidates(run: Run) -> list[Candidate | None]:
    """What was proposed, in order."""
    return [step.candidate for step in run.steps]


def variant(folder: Path, base: Path, name: str, files: dict[str, str]) -> Path:
    """A folder with one target, a copy of `tiny`, in which files are replaced or added."""
    home = base / name
    shutil.copytree(folder / "tiny", home / "tiny")
    for path, text in files.items():
        file = home / "tiny" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return home


def kernel(body: str, head: str = "") -> str:
    """A C++ kernel of the target `tiny` with this body; `rows`, `n`, `from`, `by` and `to` are there."""
    return f"""\
#include <tvm/ffi/tvm_ffi.h>
#include <cstdint>
{head}
using tvm::ffi::TensorView;

void run(TensorView x, TensorView factor, TensorView out) {{
  const int64_t rows = x.size(0), n = x.size(1);
  const float* from = static_cast<const float*>(x.data_ptr());
  const float* by = static_cast<const float*>(factor.data_ptr());
  float* to = static_cast<float*>(out.data_ptr());
  {body}
}}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
"""


SCALE = "for (int64_t i = 0; i < rows * n; ++i) to[i] = from[i] * by[i % n];"
SLOWLY = f"for (volatile int again = 0; again < 40; again = again + 1) {{ {SCALE} }}"
QUICKLY = "for (int64_t r = 0; r < rows; ++r) for (int64_t i = 0; i < n; ++i) to[r * n + i] = from[r * n + i] * by[i];"

SLOW_BASELINE = '''\
"""A user who does everything twenty times."""

import torch


def eager(x: torch.Tensor, factor: torch.Tensor, out: torch.Tensor) -> None:
    for _ in range(20):
        torch.mul(x, factor, out=out)
'''
"""So slow that a right kernel wins, however busy the machine."""


def environment(settings: Settings) -> dict[str, str]:
    """The environment in which a command uses these settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KERNELEVOLVE_")}
    chosen = {k: ",".join(v) if isinstance(v, tuple) else v for k, v in settings.model_dump().items()}
    given = {f"KERNELEVOLVE_{k.upper()}": str(v) for k, v in chosen.items() if v is not None}
    return {**inherited, **given}


def argv(*words: str) -> list[str]:
    """The command line of `kernelevolve`."""
    return [sys.executable, "-c", "import sys; from kernelevolve.cli.app import main; sys.exit(main())", *words]


def command(settings: Settings, *words: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    """Run `kernelevolve` to its end, in a folder of its own."""
    settings.runs.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        argv(*words),
        capture_output=True,
        text=True,
        env={**environment(settings), **changes},
        cwd=settings.runs.parent,
        timeout=240,
    )
