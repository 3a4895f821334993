"""Everything that judging a target on a set of workloads needs, made once and used for every candidate."""

import logging
import random
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch

from kernelevolve.errors import JudgeError, TargetError, ToolchainError
from kernelevolve.harness.access import Access
from kernelevolve.harness.arena import Arena
from kernelevolve.harness.correctness import compare, sampled
from kernelevolve.harness.oracle import Oracle
from kernelevolve.harness.programs import baseline_program
from kernelevolve.harness.quiet import Quiet
from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.harness.timing import Side
from kernelevolve.languages.cpp import compiler
from kernelevolve.languages.cuda import toolkit
from kernelevolve.languages.triton import triton_version
from kernelevolve.schema import BaselineTime, Hardware, Limits, Target, TimingPlan, Workload

log = logging.getLogger(__name__)

BASELINE_LIMITS = Limits(call_s=600.0)
"""torch.compile may take its time over the first call of a baseline."""

CALIBRATION_TURNS, MOST_CALIBRATION_TURNS = 7, 28
"""More than the first only where noise has swallowed half of them."""
QUIET_TURNS = 3
HOPELESS = 4.0
"""A baseline this many times slower than the fastest at first sight is not timed any further."""


class Bench:
    """An arena with the baselines in a process of their own."""

    def __init__(
        self, target: Target, workloads: tuple[Workload, ...], threads: int, cache_dir: Path, *, access: Access
    ) -> None:
        self.target = target
        self.workloads = workloads
        self._folder = tempfile.TemporaryDirectory(prefix="kernelevolve-judge-")
        self.rng = random.SystemRandom()
        folder = Path(self._folder.name)
        self.access = access
        oracle = Oracle(target, folder, self.rng.getrandbits(60), access.torch_device)
        self.arena = Arena(target, workloads, oracle, access)
        device = workloads[0].device
        self._names = [b.name for b in target.baselines if device in b.devices]
        self._threads = threads
        self._cache_dir = cache_dir
        self._baselines: Runner | None = None
        self.quiet = Quiet()
        self._called: set[tuple[str, str]] = set()

    def index(self, workload: str) -> int:
        """Position of a workload in the arena."""
        return self.arena.layout.index(workload)

    def slots(self, workload: str) -> int:
        """How many different inputs a workload rotates through."""
        return self.arena.layout.workloads[self.index(workload)].slots

    @property
    def baselines(self) -> Runner:
        """The process that holds the baselines, started on first use."""
        if self._baselines is None:
            folder = Path(self._folder.name)
            (folder / "baselines.py").write_text(self.target.files["baselines.py"])
            functions = [(b.name, b.compiled) for b in self.target.baselines if b.name in self._names]
            runner = Runner(
                baseline_program(folder, functions, self._threads, self._cache_dir, self.access),
                self.arena,
                BASELINE_LIMITS,
            )
            try:
                runner.load(120.0)
            except RunnerFailed as failure:
                runner.kill()
                raise TargetError(
                    f"the baselines of {self.target.name} can't be loaded: {failure}",
                    remedy="mend its baselines.py",
                ) from failure
            self._baselines = runner
        return self._baselines

    def baseline_side(self, workload: str, baseline: str) -> Side:
        """A baseline as one side of a timing."""
        if baseline not in self._names:
            raise TargetError(
                f"target {self.target.name} has no baseline {baseline!r}",
                remedy=f"choose one of: {', '.join(self._names)}",
            )
        return Side(self.baselines, self._names.index(baseline), self.index(workload), self.slots(workload))

    def warm(self, workload: str, baseline: str) -> bool:
        """Whether it was called before."""
        return (workload, baseline) in self._called

    def warm_up(self, workload: str, baselines: Sequence[str] = ()) -> None:
        """Call baselines (all of them by default) once, which may compile them for minutes: not while others wait.

        Who fails here fails again when it is timed, and is told then.
        """
        for name in baselines or self._names:
            if not self.warm(workload, name):
                self._called.add((workload, name))
                side = self.baseline_side(workload, name)
                side.runner.resume()
                with suppress(RunnerFailed):
                    side.call([0])

    def rest(self, workload: str, baseline: str, plan: TimingPlan) -> None:
        """Time a baseline by itself, where that wasn't done: before a candidate is started."""
        if self.quiet.rest_us(workload, baseline) is None:
            side = self.baseline_side(workload, baseline)
            side.runner.resume()
            side.size(plan.turn_us)
            for _ in range(QUIET_TURNS):
                side.turn(self.rng.getrandbits(32))
            self.quiet.saw(workload, baseline, _median(side.turns, f"{baseline} on {workload}"))

    def verify(self, runner: Runner, workload: int, slot: int, *, whole: bool = True) -> None:
        """Compare a slot's outputs, or a random part of them, with the truth. Raises `RunnerFailed`."""
        device = self.access.torch_device  # where outputs are copies, they are compared where the truth lies
        outputs = {name: value.to(device) for name, value in runner.answer(workload, slot).items()}
        inputs = {name: value.to(device) for name, value in self.arena.inputs(workload, slot).items()}
        told, truths = self.workloads[workload], self.arena.truth(workload, slot)
        part = None if whole else sampled(self.target, inputs, outputs, truths, self.rng)
        if part is not None and not compare(self.target, told, *part):
            return
        found = compare(self.target, told, inputs, outputs, truths)
        if found:
            raise RunnerFailed(*found)

    def calibrate(self, workload: str, plan: TimingPlan) -> tuple[BaselineTime, ...]:
        """Time every baseline on a workload, in turns. Raises `TargetError` where none is right."""
        self.baselines.resume()
        sides: dict[str, Side] = {}
        medians: dict[str, float] = {}
        problems: dict[str, str] = {}
        for name in self._names:
            side = self.baseline_side(workload, name)
            try:
                medians[name] = self._first_look(side, plan)
                sides[name] = side
            except RunnerFailed as failure:
                log.warning("baseline %s fails on %s: %s", name, workload, str(failure).partition("\n")[0])
                problems[name] = str(failure)
        if not sides:
            raise TargetError(
                f"no baseline of {self.target.name} is right on {workload}: {problems}", remedy="mend its baselines.py"
            )
        contenders = [name for name in sides if medians[name] < HOPELESS * min(medians.values())]
        for number in range(MOST_CALIBRATION_TURNS):
            if number >= CALIBRATION_TURNS and all(_heard(sides[name].turns) for name in contenders):
                break
            seed = self.rng.getrandbits(32)
            for name in contenders:
                sides[name].turn(seed)
        for name in contenders:
            medians[name] = _median(sides[name].turns, f"{name} on {workload}")
            self.quiet.saw(workload, name, medians[name])
        return tuple(
            BaselineTime(baseline=name, median_us=medians.get(name), problem=problems.get(name)) for name in self._names
        )

    def _first_look(self, side: Side, plan: TimingPlan) -> float:
        """Check two answers; a rough time, microseconds. Raises `RunnerFailed`."""
        for slot in range(2):
            side.call([slot])
            self.verify(side.runner, side.workload, slot)
        return side.size(plan.turn_us)

    def close(self) -> None:
        """End the baselines' process and give the memory back."""
        if self._baselines is not None:
            self._baselines.__exit__()
        self.arena.close()
        self._folder.cleanup()


def _median(turns: list[float], what: str) -> float:
    if not _heard(turns):
        raise JudgeError(f"the time of {what} is lost in the noise of the machine", remedy="use a quieter machine")
    return statistics.median(took for took in turns if took > 0)


def _heard(turns: list[float]) -> bool:
    """Whether most turns took any time: noise may swallow one."""
    return sum(took > 0 for took in turns) * 2 > len(turns)


def versions(hardware: Hardware) -> dict[str, str]:
    """What the judge measures with."""
    found = {"torch": version("torch"), "tvm-ffi": version("apache-tvm-ffi"), "g++": compiler()[1]}
    if hardware.device == "gpu":
        found["triton"] = triton_version()
        runtime = torch.version.cuda or torch.version.hip
        found |= {"runtime": runtime} if runtime else {}
        found |= {"driver": hardware.driver} if hardware.driver else {}
        with suppress(ToolchainError):  # needed for candidates in CUDA C++ alone
            found |= {"nvcc": toolkit().version} if hardware.vendor == "nvidia" else {}
    return found
