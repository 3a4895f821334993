"""What a new run is asked to do, out of today's settings."""

from datetime import UTC, datetime
from importlib.metadata import version

from kernelevolve import __version__, hardware, targets
from kernelevolve.catalog import LANGUAGES, POLICIES, PROPOSERS
from kernelevolve.errors import UsageError
from kernelevolve.languages import language_for
from kernelevolve.languages.cuda import toolkit
from kernelevolve.languages.triton import triton_version
from kernelevolve.llm.budget import check_budgets
from kernelevolve.resources import targets_dir
from kernelevolve.runs import Runs
from kernelevolve.schema import Budgets, Hardware, ModelInfo, RunSpec, StopRules
from kernelevolve.settings import Settings

TRIAGE = "triage"
"""The executor that judges for a device which isn't here: nothing is timed, confirmed or certified."""


def commission(settings: Settings, target_name: str, executor: str) -> RunSpec:
    """The record of a new run; nothing is written yet. Raises `UsageError` and `ToolchainError`."""
    target = targets.load(target_name, targets_dir(settings.targets))
    machine = _machine(settings, executor)
    language = settings.language_on(machine)
    if not target.select(machine.device, "search"):
        raise UsageError(
            f"target {target.name} has no search workload for a {machine.device}",
            remedy="add one to its target.toml",
        )
    return RunSpec(
        run=Runs(settings.runs).new_name(target_name),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        target=target,
        # Of the run, so that its briefs, and a replay's, tell of the same versions wherever they are written.
        hardware=machine.model_copy(update={"toolchain": {**machine.toolchain, **_compilers(language)}}),
        language=language,
        proposer=settings.chosen_proposer,
        policy=settings.policy,
        seed=settings.seed,
        evals=settings.evals,
        minutes=settings.minutes,
        budgets=_budgets(settings),
        stop=StopRules(speedup=settings.target_speedup, roofline=settings.target_roofline, stall=settings.stall),
        models=models(settings),
        lanes=settings.lanes,
        knowledge=settings.knowledge,
        diagnostics=settings.diagnostics,
        skills=settings.skills,
        tuning=settings.tuning,
        workers=settings.workers_on(hardware.detect() if executor == TRIAGE else machine),
        threads=settings.threads_on(machine),
        sandbox=settings.require_sandbox,
        executor=executor,
        kernelevolve=__version__,
    )


def models(settings: Settings) -> tuple[ModelInfo, ...]:
    """Whom the run asks: the models that were named, or the one that its proposer brings; nobody if it asks none.

    Raises `UsageError` for a name that nobody knows, and for a budget that can't be kept.
    """
    from kernelevolve.llm.models import resolve

    proposer = PROPOSERS.load(settings.chosen_proposer)
    own: ModelInfo | None = getattr(proposer, "MODEL", None)
    if not settings.model or not getattr(proposer, "asks", True):
        return (own,) if own is not None else ()
    found = resolve(settings.model, settings.models_file)
    check_budgets(_budgets(settings), found)
    return found


def _compilers(language: str) -> dict[str, str]:
    """What compiles a GPU's languages, by version: other versions know other features. Raises `ToolchainError`."""
    if language == "triton":
        return {"triton": triton_version(), "torch": version("torch")}
    return {"nvcc": toolkit().version} if language == "cuda" else {}


def _machine(settings: Settings, executor: str) -> Hardware:
    apart = executor == TRIAGE
    machine = hardware.described(settings.hardware) if apart else hardware.find(settings.hardware)
    # A wrong name is said before anything is measured or written.
    LANGUAGES.load(settings.language_on(machine))
    for catalog, name in ((PROPOSERS, settings.chosen_proposer), (POLICIES, settings.policy)):
        catalog.load(name)
    models(settings)
    if not apart:
        machine = hardware.measured(settings.hardware, settings.threads, settings.cache)
    language_for(settings.language_on(machine), machine)
    return machine


def _budgets(settings: Settings) -> Budgets:
    return Budgets(usd=settings.usd, tokens=settings.tokens, device_seconds=settings.device_seconds)
