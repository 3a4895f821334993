"""Whole searches with the store, briefs, policy and a model service over HTTP, in which nothing is judged.

The model is a server on this machine that writes another kernel each time, after a given latency; the judge makes its
speed-ups up out of a candidate's digest, at once. What is left is the engine's own work, in milliseconds an evaluation
(by the clock, and of it what the engine's own thread computes: a model's client works in others), the same for the
tuner, which asks nobody, how well lanes hide the models' latency, and how many files a run leaves.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from kernelevolve import targets
from kernelevolve.outside import Live
from kernelevolve.resources import targets_dir
from kernelevolve.runs import Runs
from kernelevolve.schema import BaselineTime, Calibration, CalibrationJob, Evaluation, Job
from kernelevolve.search import Progress, Session
from kernelevolve.settings import Settings
from kernelevolve.store import SqlStore
from kernelevolve.testing.model_server import Asked, ModelServer
from kernelevolve.testing.records import a_measurement, a_passed, an_environment

TARGET = "topk"
LATENCY_S, LATENT, LANES = 1.0, 100, 8
AIM_LATENT_S, AIM_MS, AIM_FILES = 13.5, 20.0, 100


class MadeUp:
    """Stands in a judge's place and judges nothing: a speed-up from .5 to 2.5 out of the candidate's digest."""

    name, concurrency = "made-up", 2

    def calibrate(self, job: CalibrationJob) -> Calibration:
        times = {w.name: (BaselineTime(baseline="eager", median_us=15.0),) for w in job.target.select("cpu", "search")}
        return Calibration(target=job.target.digest, times=times, environment=an_environment())

    def submit(self, job: Job) -> Future[Evaluation]:
        speedup = 0.5 + int(job.candidate.digest[:6], 16) / 2**23
        found = tuple(a_measurement(speedup, workload=w.name) for w in job.target.select("cpu", "search"))
        outcome: Future[Evaluation] = Future()
        outcome.set_result(a_passed(job.candidate, purpose=job.purpose, target=job.target.digest, measurements=found))
        return outcome

    def close(self) -> None:
        """Nothing was started."""


class World(Live):
    """The world as it is, but for the judge."""

    def executor(self) -> MadeUp:
        return MadeUp()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--evals", type=int, action="append", help="length of a run; again for more (100 and 1000)")
    options = parser.parse_args()
    os.environ.setdefault("OPENAI_API_KEY", "made-up")
    lengths = options.evals or (100, 1000)
    runs = [measured(evals, 0.0) for evals in lengths]
    tuned = [measured(evals, None) for evals in lengths]
    latent = measured(LATENT, LATENCY_S)
    found = {
        "ms_an_evaluation": {run["evals"]: run["each_ms"] for run in runs},
        "own_thread_ms": {run["evals"]: run["own_ms"] for run in runs},
        "tuner_ms_an_evaluation": {run["evals"]: run["each_ms"] for run in tuned},
        "last_100_ms": {run["evals"]: run["last_100_ms"] for run in runs},
        "files": {run["evals"]: run["files"] for run in runs},
        "latent": {"evals": LATENT, "latency_s": LATENCY_S, "lanes": LANES, "seconds": latent["seconds"]},
    }
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for run, alone in zip(runs, tuned, strict=True):
            print(f"{run['evals']} evaluations: {run['each_ms']:.1f} ms each, of which its own thread computes "
                  f"{run['own_ms']:.1f}; the last 100 {run['last_100_ms']:.1f} ms each (aim: {AIM_MS:.0f}); "
                  f"{run['files']} files; by the tuner: {alone['each_ms']:.1f} ms each")  # fmt: skip
        print(f"{LATENT} evaluations with models that take {LATENCY_S:.0f} s, {LANES} lanes: {latent['seconds']:.1f} s "
              f"(aim: {AIM_LATENT_S})")  # fmt: skip
    fine = latent["seconds"] <= AIM_LATENT_S and all(
        run["last_100_ms"] <= AIM_MS and (run["evals"] > 1000 or run["files"] < AIM_FILES) for run in runs
    )
    return 0 if fine else 1


def measured(evals: int, latency_s: float | None) -> dict[str, float]:
    """One search in a fresh folder: its seconds, those of its last hundred evaluations, and the files it left.

    A latency of None is a search by the tuner, which may come to its end before so many evaluations.
    """
    arrivals: list[float] = []

    def listen(progress: Progress) -> None:
        while len(arrivals) < progress.evaluated:
            arrivals.append(time.perf_counter())

    with ExitStack() as open_:
        home = Path(open_.enter_context(tempfile.TemporaryDirectory(prefix="kernelevolve-bench-")))
        asked = {} if latency_s is None else {
            "lanes": LANES, "proposer": "model", "tuning": 0.0,
            "model": (f"openai-chat:made-up@{open_.enter_context(served(latency_s))}",),
        }  # fmt: skip
        settings = Settings(evals=evals, workers=2, runs=home / "runs", registry=home / "registry", **asked)
        session = Session.start(settings, TARGET)
        began, own = time.perf_counter(), time.thread_time()
        session.run(listen, World(settings, session.spec, SqlStore.open(Runs(settings.runs).database)))
        seconds, own_s = time.perf_counter() - began, time.thread_time() - own
        files = sum(path.is_file() for path in (home / "runs").rglob("*"))
    last = arrivals[-1] - arrivals[-101] if len(arrivals) > 100 else arrivals[-1] - arrivals[0]
    count = len(arrivals)
    return {
        "evals": count, "seconds": seconds, "each_ms": 1e3 * seconds / count, "own_ms": 1e3 * own_s / count,
        "last_100_ms": 1e3 * last / min(100, count - 1), "files": files,
    }  # fmt: skip


@contextmanager
def served(latency_s: float) -> Iterator[str]:
    """Where the model is, in a process of its own: what it costs is not the engine's."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(latency_s, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def serve(latency_s: float, asked_for: Connection) -> None:
    """A model whose every kernel is another one: a seed with a number in it."""
    seed = next(s for s in targets.seeds(TARGET, targets_dir()) if s.language == "cpp")
    ((path, text),) = seed.files.items()

    def write(asked: Asked) -> str:
        code = text.replace("namespace ffi", f"constexpr int kNumber = {asked.number};\nnamespace ffi", 1)
        return f"Idea: number {asked.number}.\n\n```cpp file={path}\n{code}\n```\n"

    with ModelServer(write, latency_s=latency_s) as server:
        asked_for.send(server.base_url("openai-chat"))
        server.closing.wait()


if __name__ == "__main__":
    sys.exit(main())
