"""One candidate from files, before the judge."""

from collections.abc import Sequence
from pathlib import Path

from kernelevolve import hardware, targets
from kernelevolve.catalog import EXECUTORS
from kernelevolve.errors import UsageError
from kernelevolve.executors import Executor, judged
from kernelevolve.languages import language_for
from kernelevolve.plans import EVALUATION
from kernelevolve.resources import targets_dir
from kernelevolve.schema import Candidate, Evaluation, Failed, Job, Lineage
from kernelevolve.settings import Settings


def evaluate_file(
    settings: Settings, target_name: str, paths: Sequence[Path], workloads: Sequence[str] = ()
) -> Evaluation:
    """Judge one candidate from files, on the named workloads or all search ones."""
    target = targets.load(target_name, targets_dir(settings.targets))
    machine = hardware.measured(settings.hardware, settings.threads, settings.cache)
    files = {path.name: _read(path) for path in paths}
    language = settings.language_on(machine)
    findings = language_for(language, machine).admit(files)
    if findings:
        return Failed(candidate=None, target=target.digest, purpose="eval", stage="parse", diagnostics=findings)
    executor: Executor = EXECUTORS.load("local")(EXECUTORS.load("local").Config(workers=1))
    job = Job(
        target=target,
        candidate=Candidate(language=language, files=files, lineage=Lineage(origin=paths[0].name)),
        hardware=machine, purpose="eval", workloads=tuple(target.workload(w).name for w in workloads),
        timing=EVALUATION, counters=True, threads=settings.threads_on(machine), sandbox=settings.require_sandbox,
        cache_dir=str(settings.cache),
    )  # fmt: skip
    try:
        return judged(executor, job)
    finally:
        executor.close()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read {path}: {error}", remedy="name a source file") from error
