"""The judge: build, check, time. It never runs candidate code, and nothing a candidate writes is read as a verdict."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

import torch

from kernelevolve.harness.access import Access, access_to
from kernelevolve.harness.bench import Bench, versions
from kernelevolve.harness.build import BuildFailed, Built, build
from kernelevolve.harness.changing import Changing
from kernelevolve.harness.checking import check
from kernelevolve.harness.cpu_time import at_rest, counted
from kernelevolve.harness.device import Device, room_for
from kernelevolve.harness.graphs import launch_bound, replayed
from kernelevolve.harness.machine import Machine
from kernelevolve.harness.machine_code import code_digest
from kernelevolve.harness.plausible import above_the_floor, batches_agree, floor_slots
from kernelevolve.harness.pressure import Pressure
from kernelevolve.harness.profiling import counters
from kernelevolve.harness.programs import MODULE_RUNNER, Program, candidate_program, module_program
from kernelevolve.harness.quiet import LOOKS, Quiet, cautious, void
from kernelevolve.harness.roofline import profile, roofline_us
from kernelevolve.harness.runner import Runner, RunnerFailed
from kernelevolve.harness.sandbox import Sandbox
from kernelevolve.harness.timing import Side, Timing, Verify, measure
from kernelevolve.harness.zygote import Preload, Zygote, zygote
from kernelevolve.schema import (
    Calibration,
    CalibrationJob,
    Diagnostic,
    Duplicate,
    Environment,
    Evaluation,
    Failed,
    Job,
    Limits,
    Measurement,
    Passed,
    Stage,
    StageCosts,
    Workload,
)

log = logging.getLogger(__name__)

LOAD_S = {"native": 20.0, "python": 120.0}
"""By kind of runner: one starts in milliseconds, the other imports torch."""


PYTHON_PROCESSES = 256


class Judge:
    """Evaluates jobs one after the other; keeps what candidates have in common (inputs, answers, baselines)."""

    def __init__(self, cache_dir: Path, access: Access | None = None) -> None:
        """`access`: how a device's memory is reached; None means the strongest way that the machine offers."""
        self.cache_dir = cache_dir
        self.sandbox = Sandbox.open(cache_dir)
        self.machine = Machine(cache_dir)
        self._access = access
        self._benches: dict[tuple[str, str, tuple[str, ...], int], Bench] = {}

    def close(self) -> None:
        """End every process, give all memory back."""
        for bench in self._benches.values():
            bench.close()
        self._benches.clear()

    def evaluate(self, job: Job) -> Evaluation:
        """Build, check and time one candidate; the first stage that fails ends it."""
        with room_for(job):
            return _Case(self, job).run()

    def calibrate(self, job: CalibrationJob) -> Calibration:
        """Time the baselines of every workload against each other."""
        with room_for(job):
            timed = tuple(self.timed(job))
            bench = self.bench(job, timed)
            for workload in timed:
                with self.machine.shared():  # not held throughout: a baseline may be compiled for minutes
                    bench.warm_up(workload.name)
            with self.machine.alone():
                times = {w.name: bench.calibrate(w.name, job.timing) for w in timed}
        return Calibration(target=job.target.digest, times=times, environment=self.environment(job))

    def bench(self, job: Job | CalibrationJob, timed: tuple[Workload, ...]) -> Bench:
        """The bench for these workloads and the target's check workloads."""
        if job.sandbox == "full":
            self.sandbox.require_all()
        device = job.hardware.device
        workloads = (*job.target.select(device, "check"), *timed)
        key = (job.hardware.key, job.target.digest, tuple(w.name for w in workloads), job.threads)
        if key in self._benches and not self._benches[key].arena.intact():
            log.warning("the inputs were changed behind the judge's back: they are made anew")
            self._benches.pop(key).close()
        if key not in self._benches:
            torch.set_num_threads(job.threads)
            with self.machine.shared():
                self._benches[key] = self._make_bench(job, workloads)
        return self._benches[key]

    def _make_bench(self, job: Job | CalibrationJob, workloads: tuple[Workload, ...]) -> Bench:
        return Bench(job.target, workloads, job.threads, self.cache_dir, access=self.access(job))

    def access(self, job: Job | CalibrationJob) -> Access:
        """How judge and runner reach the tensors. Raises `ToolchainError` where torch can't use the device."""
        return self._access or access_to(job.hardware)

    def timed(self, job: Job | CalibrationJob) -> Iterator[Workload]:
        """The workloads that a job names, or all search workloads of its device."""
        if not job.workloads:
            yield from job.target.select(job.hardware.device, "search")
        for name in job.workloads:
            yield job.target.workload(name)

    def environment(self, job: Job | CalibrationJob) -> Environment:
        """Where and with what this judge measures."""
        return Environment(
            hardware_key=job.hardware.key,
            threads=job.threads,
            versions=versions(job.hardware),
            sandbox=(*self.sandbox.walls, *self.access(job).walls),
        )


class _Case:
    """One candidate before the judge."""

    def __init__(self, judge: Judge, job: Job) -> None:
        self._judge = judge
        self._job = job
        self._seconds: dict[str, float] = {
            "build": 0.0,
            "load": 0.0,
            "check": 0.0,
            "time": 0.0,
            "kernel": 0.0,
        }
        self._stage: Stage = "build"
        self._code: str | None = None
        self._started = time.monotonic()
        self._waited = judge.machine.waited_s
        self._device = Device(job.hardware, judge.access(job))

    def run(self) -> Evaluation:
        job, judge = self._job, self._judge
        timed = tuple(judge.timed(job))
        bench = judge.bench(job, timed)
        with judge.machine.shared(), self._at("build"):
            built = build(job.candidate, job.hardware, job.limits, judge.cache_dir)
        if isinstance(built, BuildFailed):
            return self._failed(built.diagnostics)
        self._code = code_digest(built.artifact)
        if self._code in job.known:
            return self._failed((_duplicate(job.known[self._code]),))
        try:
            return self._passed(*self._measure(bench, timed, built))
        except RunnerFailed as failure:
            self._device.still_fit(failure.diagnostics)
            return self._failed(failure.diagnostics)

    def _measure(
        self, bench: Bench, timed: tuple[Workload, ...], built: Built
    ) -> tuple[list[Measurement], list[Diagnostic]]:
        judge, job = self._judge, self._job
        for name, known in job.rest_us.items():
            for baseline, took_us in known.items():
                bench.quiet.saw(name, baseline, took_us)
        self._rest(bench, timed)
        with (
            Runner(self._program(bench, built), bench.arena, self._limits(built)) as runner,
            Pressure(job.threads, judge.sandbox.launcher) as pressure,
        ):
            with judge.machine.shared():
                with self._at("load"):
                    runner.load(LOAD_S[built.language.runner])
                with self._at("check"):
                    prepared = check(bench, runner, timed, built.language, pressure, purpose=job.purpose)
            runner.stop()  # its idle threads must not spin while somebody else times
            measurements: list[Measurement] = []
            profiles: list[Diagnostic] = []
            with judge.machine.alone(), self._at("time"), self._device.watched(profiles):
                for workload in timed:
                    prepare_us = prepared.get(workload.name)
                    measurements += self._time(bench, runner, workload, prepare_us, profiles, pressure=pressure)
                if job.hardware.device == "cpu":
                    at_rest(runner, 0)
        return measurements, [*profiles, *self._counters(bench, built, measurements)]

    def _rest(self, bench: Bench, timed: tuple[Workload, ...]) -> None:
        """Time the baselines while no candidate is there, which may leave something running."""
        named = [(w.name, b) for w in timed for b in self._job.baselines.get(w.name, ())]
        for workload, baseline in named:
            if not bench.warm(workload, baseline):
                with self._judge.machine.shared():
                    bench.warm_up(workload, (baseline,))
        new = [(workload, baseline) for workload, baseline in named if bench.quiet.rest_us(workload, baseline) is None]
        if not new:
            return
        with self._judge.machine.alone():
            for workload, baseline in new:
                bench.rest(workload, baseline, self._job.timing)

    def _program(self, bench: Bench, built: Built, report: Path | None = None) -> Program:
        job, judge = self._job, self._judge
        if built.language.runner == "native":
            return candidate_program(
                built.artifact, job.candidate.entry, judge.sandbox, judge.cache_dir, job.threads
            )  # fmt: skip
        return module_program(
            built.artifact, job.candidate.entry, built.language, judge.sandbox, access=bench.access,
            hardware=job.hardware, server=None if report else self._server(bench.access), report=report,
        )  # fmt: skip

    def _server(self, access: Access) -> Zygote | None:
        """What forks candidates that Python loads, each with torch and Triton's driver in it already."""
        if access.interpreted:
            return None
        modules = (MODULE_RUNNER, "tvm_ffi", "triton.compiler", "triton.language")
        driver = ("kernelevolve.harness.triton_driver",) if self._job.hardware.vendor == "nvidia" else ()
        return zygote(Preload((*driver, *modules), device=True), self._judge.cache_dir)

    def _limits(self, built: Built) -> Limits:
        """Those of the job; where Python and a driver run beside the kernel, with room for their threads."""
        limits = self._job.limits
        if built.language.runner == "native":
            return limits
        return limits.model_copy(update={"processes": max(limits.processes, PYTHON_PROCESSES)})

    def _counters(self, bench: Bench, built: Built, measured: list[Measurement]) -> tuple[Diagnostic, ...]:
        """What a profiler says of the workload on which the candidate does worst."""
        if not (self._job.counters and self._device.shared):
            return ()
        worst = min(measured, key=lambda m: m.speedup).workload
        with self._judge.machine.alone():
            return counters(
                lambda report: self._program(bench, built, report), bench.arena, bench.index(worst),
                self._job.hardware, LOAD_S[built.language.runner],
            )  # fmt: skip

    def _time(
        self,
        bench: Bench,
        runner: Runner,
        workload: Workload,
        prepare_us: float | None,
        notes: list[Diagnostic],
        *,
        pressure: Pressure,
    ) -> list[Measurement]:
        job = self._job
        if workload.name in job.baselines:
            names = job.baselines[workload.name]
        else:
            times = bench.calibrate(workload.name, job.timing)
            names = (min((t.median_us, t.baseline) for t in times if t.median_us is not None)[1],)
        found = []
        for name in names:
            look = partial(
                self._look, bench, runner, workload, name, prepare_us=prepare_us, notes=notes, pressure=pressure
            )
            found.append(self._against(look, bench.quiet))
        if job.hardware.ceilings is not None:
            notes.append(profile(job.target, workload, job.hardware.ceilings, bench.slots(workload.name), found[0]))
        return found

    def _against(self, look: Callable[[], Measurement], quiet: Quiet) -> Measurement:
        """Against one baseline, again where that takes much longer than at rest. Raises `RunnerFailed`."""
        for _ in range(LOOKS):
            found = look()
            if not found.disturbed:
                break
        else:
            quiet.forget(found.workload, found.baseline)
            if self._device.shared:
                raise RunnerFailed(void(found))
            return cautious(found, self._job.timing.confidence)
        quiet.saw(found.workload, found.baseline, found.baseline_us)
        return found

    def _look(
        self,
        bench: Bench,
        runner: Runner,
        workload: Workload,
        baseline: str,
        *,
        prepare_us: float | None,
        notes: list[Diagnostic],
        pressure: Pressure,
    ) -> Measurement:
        """Take turns with one baseline. Raises `RunnerFailed`."""
        job, number = self._job, bench.index(workload.name)
        mine = Side(runner, 0, number, bench.slots(workload.name), verify=self._verifier(bench, number))
        theirs = bench.baseline_side(workload.name, baseline)
        rng = Random(bench.rng.getrandbits(32))
        try:
            # The candidate may be slow on purpose where nothing is asked of it: the baselines' runner is ours.
            round_trip_us = min(runner.round_trip(number), theirs.runner.round_trip(number))
            with counted(runner, number, workload.device, job.threads):
                timing = measure(mine, theirs, job.timing, rng, Changing(bench, runner, number, pressure))
            batches_agree(mine, timing, round_trip_us, workload.device)
            found = self._measurement(bench, workload, baseline, timing, prepare_us)
            if self._device.has_graphs and launch_bound(timing) and not found.disturbed:
                notes.append(replayed(mine, theirs, job.timing, rng, baseline))
        finally:
            runner.resume()
            self._seconds["kernel"] += (mine.kernel_us + theirs.kernel_us) / 1e6
        return found

    def _measurement(
        self, bench: Bench, workload: Workload, baseline: str, timing: Timing, prepare_us: float | None
    ) -> Measurement:
        job, share = self._job, None
        if job.hardware.ceilings is not None:
            slots, ceilings = bench.slots(workload.name), job.hardware.ceilings
            share = roofline_us(job.target, workload, ceilings, slots) / timing.candidate_us
            counted = floor_slots(job.hardware, job.target.compulsory_bytes(workload), slots)
            least = roofline_us(job.target, workload, ceilings, counted)
            above_the_floor(workload.name, least / timing.candidate_us)
        return Measurement(
            workload=workload.name,
            axes=workload.axes,
            dtypes=workload.dtypes,
            baseline=baseline,
            baseline_rest_us=bench.quiet.rest_us(workload.name, baseline),
            prepare_us=prepare_us,
            roofline_share=share,
            **timing.__dict__,
        )

    def _verifier(self, bench: Bench, number: int) -> Verify:
        def verify(runner: Runner, slot: int, /, *, whole: bool) -> None:
            bench.verify(runner, number, slot, whole=whole)

        return verify

    @contextmanager
    def _at(self, stage: Stage) -> Iterator[None]:
        self._stage = stage
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[stage] += time.monotonic() - started

    def _costs(self) -> StageCosts:
        seconds = self._seconds
        return StageCosts(
            build_s=seconds["build"],
            check_s=seconds["load"] + seconds["check"],
            time_s=seconds["time"],
            kernel_s=seconds["kernel"],
            wait_s=self._judge.machine.waited_s - self._waited,
            total_s=time.monotonic() - self._started,
        )

    def _failed(self, diagnostics: tuple[Diagnostic, ...]) -> Failed:
        job = self._job
        return Failed(
            candidate=job.candidate.digest,
            target=job.target.digest,
            purpose=job.purpose,
            stage=self._stage,
            diagnostics=diagnostics,
            code=self._code,
            environment=self._judge.environment(job),
            costs=self._costs(),
        )

    def _passed(self, measurements: list[Measurement], diagnostics: list[Diagnostic]) -> Passed:
        job = self._job
        return Passed(
            candidate=job.candidate.digest,
            target=job.target.digest,
            purpose=job.purpose,
            measurements=tuple(measurements),
            diagnostics=tuple(diagnostics),
            code=self._code,
            environment=self._judge.environment(job),
            costs=self._costs(),
        )


def _duplicate(of: str) -> Duplicate:
    return Duplicate(
        message=f"the compiler made the same code of it as of candidate {of[:12]}",
        advice="change what the kernel does: names, comments, and values that the code doesn't use change nothing",
        of=of,
        by="code",
    )
