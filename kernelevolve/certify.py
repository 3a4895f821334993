"""Certification: the best candidate, measured again in fresh processes on workloads that no brief ever showed."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from kernelevolve import __version__
from kernelevolve.catalog import EXECUTORS
from kernelevolve.executors import Executor, judged
from kernelevolve.plans import certification
from kernelevolve.registry.domain import domain
from kernelevolve.rest import AtRest
from kernelevolve.schema import (
    CalibrationJob,
    Candidate,
    Entry,
    Evaluation,
    Failed,
    Hardware,
    Job,
    Passed,
    Provenance,
    Refused,
    Run,
    Sandboxing,
    Target,
)
from kernelevolve.settings import Settings


@dataclass(frozen=True)
class Subject:
    """What a candidate is certified for, and where it comes from."""

    target: Target
    hardware: Hardware
    threads: int
    sandbox: Sandboxing
    run: str
    rest: AtRest

    @classmethod
    def of(cls, run: Run) -> Self:
        """As the run was asked for."""
        spec = run.spec
        return cls(
            target=spec.target, hardware=spec.hardware, threads=spec.threads, sandbox=spec.sandbox, run=spec.run,
            rest=AtRest.of(run),
        )  # fmt: skip


def certify(best: Candidate, subject: Subject, settings: Settings) -> Entry | Refused:
    """Measure a candidate on all timed workloads, the held-out ones included, against the fastest baseline of each.

    What stays ambiguous, or had a baseline that took much longer than it can, is measured once more, longer and in a
    fresh process; and all of it where noise hid a time. The entry's domain is where it was
    measured to win; every loss is kept as evidence. Raises `JudgeError`.
    """
    return outcome(best, subject, _measure(best, subject, settings))


def outcome(best: Candidate, subject: Subject, evaluation: Evaluation) -> Entry | Refused:
    """What a certification's measurements amount to."""
    if isinstance(evaluation, Failed):
        said = "; ".join(d.message for d in evaluation.diagnostics)
        return Refused(
            candidate=best.digest, reason="failed", message=f"failed at the stage {evaluation.stage}: {said}",
            evaluation=evaluation,
        )  # fmt: skip
    if not isinstance(evaluation, Passed):
        message = "it was triaged and not measured: an estimate certifies nothing"
        return Refused(candidate=best.digest, reason="failed", message=message, evaluation=evaluation)
    boxes = domain(evaluation.measurements)
    if not boxes:
        return Refused(
            candidate=best.digest, reason="no_win", message="faster than the fastest baseline on no workload",
            evaluation=evaluation,
        )  # fmt: skip
    return Entry(
        target=subject.target.name,
        target_digest=subject.target.digest,
        hardware=subject.hardware,
        candidate=best,
        domain=boxes,
        evidence=evaluation.measurements,
        environment=evaluation.environment,
        provenance=Provenance(
            run=subject.run,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            kernelevolve=__version__,
        ),
    )


def _measure(best: Candidate, subject: Subject, settings: Settings) -> Evaluation:
    workloads = tuple(w.name for w in subject.target.select(subject.hardware.device, "search", "held_out"))
    executor: Executor = EXECUTORS.load("local")(EXECUTORS.load("local").Config(workers=1))
    cache_dir = str(settings.cache)
    try:
        calibration = executor.calibrate(
            CalibrationJob(
                target=subject.target,
                hardware=subject.hardware,
                workloads=workloads,
                threads=subject.threads,
                sandbox=subject.sandbox,
                cache_dir=cache_dir,
            )
        )
        plan, longer = certification(len(workloads))
        subject.rest.calibrated(calibration)
        job = Job(
            target=subject.target, candidate=best, hardware=subject.hardware, purpose="certify", workloads=workloads,
            baselines={w: (calibration.fastest(w),) for w in workloads}, rest_us=subject.rest.us, timing=plan,
            threads=subject.threads, sandbox=subject.sandbox, cache_dir=cache_dir,
        )  # fmt: skip
        first = judged(executor, job)
        unclear = _unclear(first)
        if not unclear:
            return first
        again = judged(executor, job.model_copy(update={"workloads": unclear, "timing": longer}))
        return _merged(first, again)
    finally:
        executor.close()


def _unclear(evaluation: Evaluation) -> tuple[str, ...]:
    """Workloads on which it isn't settled which one is faster, or by how much."""
    if not isinstance(evaluation, Passed):
        return ()
    return tuple(m.workload for m in evaluation.measurements if m.verdict == "ambiguous" or m.disturbed)


def _merged(first: Evaluation, again: Evaluation) -> Evaluation:
    """The second look replaces the first where there was one; a candidate that fails then has failed."""
    if not isinstance(first, Passed) or not isinstance(again, Passed):
        return again
    looked_again = {m.workload: m for m in again.measurements}
    measurements = tuple(looked_again.get(m.workload, m) for m in first.measurements)
    return first.model_copy(update={"measurements": measurements})
