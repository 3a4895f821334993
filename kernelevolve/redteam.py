"""The red team: candidates that cheat or break out, and clean ones of unusual style, before the real judge.

A corpus is a folder. A case is a TOML file (the fields of `schema.Exploit`) with its sources beside it; targets of
the corpus' own lie in its folder `targets`.
"""

import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from pydantic import ValidationError

from kernelevolve import hardware, targets
from kernelevolve.catalog import EXECUTORS, LANGUAGES
from kernelevolve.errors import UsageError
from kernelevolve.executors import Executor
from kernelevolve.executors.interpreted import InterpretedExecutor
from kernelevolve.hardware.devices import known
from kernelevolve.languages import Language
from kernelevolve.resources import targets_dir
from kernelevolve.schema import (
    Calibration,
    CalibrationJob,
    Candidate,
    Evaluation,
    Exploit,
    ExploitOutcome,
    Failed,
    Hardware,
    Job,
    Lineage,
    Passed,
    RedTeamReport,
    Target,
    TimingPlan,
)
from kernelevolve.settings import Settings

TIMING = TimingPlan(confidence=0.9, min_pairs=6, max_pairs=12, half_width=0.25, turn_us=2_000.0, seconds=1.5)
"""Enough to see a cheat; how fast a clean kernel is doesn't matter here."""

LOOKS = 3
"""At a clean kernel whose time is lost in the noise."""

PRETENDED = "nvidia-h200"
"""The device of candidates that Python loads: they run in an interpreter."""

TARGETS = "targets"


@dataclass(frozen=True)
class Case:
    """One candidate with what is expected of it."""

    name: str
    exploit: Exploit
    candidate: Candidate
    target: Target


def load(folder: Path, settings: Settings, only: str = "*") -> tuple[Case, ...]:
    """The cases of a folder whose names fit the pattern. Raises `UsageError` that names file and key."""
    files = [f for f in sorted(folder.rglob("*.toml")) if TARGETS not in f.relative_to(folder).parts]
    if not files:
        raise UsageError(f"there are no cases in {folder}", remedy="a case is a TOML file with its sources beside it")
    named = {f.relative_to(folder).with_suffix("").as_posix(): f for f in files}
    chosen = {name: file for name, file in named.items() if fnmatch(name, only)}
    if not chosen:
        raise UsageError(f"no case fits {only!r}", remedy=f"there are {len(named)}, {next(iter(named))} for instance")
    loaded: dict[str, Target] = {}
    return tuple(_case(name, file, folder, settings, loaded) for name, file in chosen.items())


def _case(name: str, file: Path, folder: Path, settings: Settings, loaded: dict[str, Target]) -> Case:
    exploit = _exploit(file)
    if exploit.target not in loaded:
        own = folder / TARGETS
        where = own if exploit.target in targets.names(own) else targets_dir(settings.targets)
        loaded[exploit.target] = targets.load(exploit.target, where)
    paths = [file.parent / path for path in exploit.files] or _beside(file)
    sources = {path.name: _text(path, file) for path in paths}
    candidate = Candidate(language=_language(paths, file), files=sources, lineage=Lineage(origin=name))
    for workload in exploit.workloads:
        loaded[exploit.target].workload(workload)
    return Case(name, exploit, candidate, loaded[exploit.target])


def _exploit(file: Path) -> Exploit:
    try:
        found = Exploit.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}", remedy="mend the TOML syntax there") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        remedy = f"the keys are: {', '.join(Exploit.model_fields)}"
        raise UsageError(f"{file}: {key}: {first['msg'].lower()}", remedy=remedy) from error
    if found.expected == "clean" and (found.stage or found.kind or found.most_speedup):
        remedy = 'remove the key, or write expected = "caught"'
        raise UsageError(f"{file}: a clean kernel has no stage, kind or most_speedup", remedy=remedy)
    return found


def _beside(file: Path) -> list[Path]:
    found = [path for path in sorted(file.parent.glob(f"{file.stem}.*")) if path != file]
    if not found:
        raise UsageError(f"{file}: no source lies beside it", remedy=f"add {file.stem}.cpp, or name `files`")
    return found


def _text(path: Path, file: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: can't read {path.name}: {error}", remedy="correct `files`") from error


def _language(paths: Sequence[Path], file: Path) -> str:
    for name in ("cpp", "triton"):
        language: Language = LANGUAGES.load(name)()
        if any(path.suffix == language.suffixes[0] for path in paths):
            return name
    raise UsageError(f"{file}: none of its sources is C++ or Python", remedy="name files .cpp or .py")


class RedTeam:
    """Judges cases one after the other. Use as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._executors: dict[str, Executor] = {}
        self._calibrated: dict[tuple[str, str, int, tuple[str, ...]], Calibration] = {}

    def __enter__(self) -> "RedTeam":
        return self

    def __exit__(self, *_: object) -> None:
        for executor in self._executors.values():
            executor.close()

    def judge(self, case: Case) -> ExploitOutcome:
        """What the judge makes of it."""
        started = time.monotonic()
        found = outcome(case, self._evaluate(case), 0.0)
        for _ in range(LOOKS - 1):
            if case.exploit.expected == "caught" or found.kind != "unsettled":
                break
            found = outcome(case, self._evaluate(case), 0.0)  # the machine's noise says nothing of the kernel
        return found.model_copy(update={"seconds": time.monotonic() - started})

    def _evaluate(self, case: Case) -> Evaluation:
        device = self._hardware(case)
        findings = _language_of(case.candidate).admit(case.candidate.files, case.candidate.entry)
        if findings:
            digest = case.target.digest
            return Failed(candidate=None, target=digest, purpose="search", stage="parse", diagnostics=findings)
        executor = self._executor(case.candidate.language)
        calibration = self._calibration(case, device, executor)
        job = Job(  # as a search judges it: what fewer draws let pass meets the defence that it was written against
            target=case.target, candidate=case.candidate, hardware=device, purpose="search",
            workloads=tuple(calibration.times), timing=TIMING, limits=case.exploit.limits,
            baselines={name: (calibration.fastest(name),) for name in calibration.times},
            threads=case.exploit.threads, cache_dir=str(self._settings.cache),
        )  # fmt: skip
        return executor.submit(job).result()

    def _hardware(self, case: Case) -> Hardware:
        if case.candidate.language == "cpp":
            return hardware.measured(None, case.exploit.threads, self._settings.cache)
        return known(PRETENDED).hardware

    def _executor(self, language: str) -> Executor:
        if language not in self._executors:
            local = EXECUTORS.load("local")
            kind = local if language == "cpp" else InterpretedExecutor
            self._executors[language] = kind(local.Config(workers=1))
        return self._executors[language]

    def _calibration(self, case: Case, device: Hardware, executor: Executor) -> Calibration:
        exploit = case.exploit
        key = (device.key, case.target.digest, exploit.threads, exploit.workloads)
        if key not in self._calibrated:
            self._calibrated[key] = executor.calibrate(
                CalibrationJob(
                    target=case.target,
                    hardware=device,
                    workloads=exploit.workloads,
                    timing=TIMING,
                    threads=exploit.threads,
                    cache_dir=str(self._settings.cache),
                )
            )
        return self._calibrated[key]


def _language_of(candidate: Candidate) -> Language:
    language: Language = LANGUAGES.load(candidate.language)()
    return language


def run(cases: Sequence[Case], settings: Settings, heard: Callable[[int, ExploitOutcome], None]) -> RedTeamReport:
    """Judge all cases; `heard` is told of each, with how many have been judged so far."""
    with RedTeam(settings) as team:
        return report(_judged(team, cases, heard))


def _judged(
    team: RedTeam, cases: Sequence[Case], heard: Callable[[int, ExploitOutcome], None]
) -> Iterator[ExploitOutcome]:
    for number, case in enumerate(cases, 1):
        found = team.judge(case)
        heard(number, found)
        yield found


def outcome(case: Case, evaluation: Evaluation, seconds: float) -> ExploitOutcome:
    """Hold an evaluation against what is expected."""
    exploit = case.exploit
    failed = evaluation if isinstance(evaluation, Failed) else None
    speedup = evaluation.speedup if isinstance(evaluation, Passed) else None
    fair = speedup is not None and exploit.most_speedup is not None and speedup <= exploit.most_speedup
    first = failed.diagnostics[0] if failed else None
    caught = failed is not None or fair
    as_named = fair or (
        failed is not None
        and exploit.stage in (None, failed.stage)
        and (exploit.kind is None or any(d.kind == exploit.kind for d in failed.diagnostics))
    )
    return ExploitOutcome(
        name=case.name, expected=exploit.expected, row=exploit.row, defence=exploit.defence, caught=caught,
        as_expected=as_named if exploit.expected == "caught" else not caught, speedup=speedup, seconds=seconds,
        stage=failed.stage if failed else None, kind=first.kind if first else None,
        message=first.message if first else "",
    )  # fmt: skip


def report(outcomes: Iterator[ExploitOutcome] | Sequence[ExploitOutcome]) -> RedTeamReport:
    """Count them."""
    found = tuple(outcomes)
    exploits = [o for o in found if o.expected == "caught"]
    clean = [o for o in found if o.expected == "clean"]
    caught, flagged = sum(o.caught for o in exploits), sum(o.caught for o in clean)
    return RedTeamReport(
        recall=caught / len(exploits) if exploits else None, false_alarms=flagged / len(clean) if clean else None,
        exploits=len(exploits), caught=caught, clean=len(clean), flagged=flagged,
        mistaken=sum(o.caught and not o.as_expected for o in exploits), outcomes=found,
    )  # fmt: skip
