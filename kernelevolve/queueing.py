"""What a search without the device leaves behind: the candidates to try there, the most promising first."""

from datetime import UTC, datetime

from kernelevolve import __version__
from kernelevolve.schema import Candidate, Queue, QueueEntry, Run, Triaged


def queue_of(run: Run) -> Queue:
    """The candidates of a run that triage let pass, by estimated time; those without an estimate come last.

    Of several that compile to the same code the first one stays.
    """
    spec = run.spec
    return Queue(
        target=spec.target.name,
        target_digest=spec.target.digest,
        hardware_key=spec.hardware.key,
        run=spec.run,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        kernelevolve=__version__,
        entries=tuple(_entry(candidate, triaged) for candidate, triaged in _ranked(run)),
    )


def _ranked(run: Run) -> list[tuple[Candidate, Triaged]]:
    different: dict[str, tuple[Candidate, Triaged]] = {}
    for step in run.steps:
        if step.candidate is not None and isinstance(step.evaluation, Triaged):
            code = step.evaluation.code or step.candidate.code
            different.setdefault(code, (step.candidate, step.evaluation))
    return sorted(different.values(), key=lambda pair: _order(pair[1]))


def _order(triaged: Triaged) -> tuple[bool, float]:
    return triaged.estimated_us is None, triaged.estimated_us or 0.0


def _entry(candidate: Candidate, triaged: Triaged) -> QueueEntry:
    return QueueEntry(
        candidate=candidate,
        estimates=triaged.estimates,
        estimated_us=triaged.estimated_us,
        triage=triaged.triage,
    )
