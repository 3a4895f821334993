"""A parent as a prompt shows it: its source, what was measured, what was found."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from kernelevolve.catalog import LANGUAGES
from kernelevolve.schema import (
    CompileError,
    Counters,
    Diagnostic,
    Estimate,
    Failed,
    KernelNeeds,
    Measurement,
    Parent,
    Passed,
    Stage,
    Triaged,
    Value,
)

MOST_FINDINGS = 8
_AROUND = 2
"""lines shown before and after one that a compiler complains about"""

_FOLDERS = re.compile(r"(?<![\w/.:])(?:/[\w.+@-]+)+/(?=[\w.+@-])")


@dataclass(frozen=True)
class Finding:
    """A diagnostic in words."""

    text: str
    advice: str
    """empty where an earlier finding said the same"""
    excerpt: str = ""
    """the lines of the source that it is about, numbered; empty where it names none"""


@dataclass(frozen=True)
class Evidence:
    """A candidate with what the judge said of it."""

    label: str
    language: str
    files: dict[str, str]
    chosen: dict[str, Value]
    """values of its tunables when it was judged"""
    outcome: str
    """passed, failed or triaged"""
    stage: Stage | None
    """at which it failed"""
    speedup: float | None
    low: float | None
    high: float | None
    measurements: tuple[Measurement, ...]
    estimated_us: float | None
    estimates: tuple[Estimate, ...]
    """of a candidate that was not timed, by workload"""
    kernels: tuple[KernelNeeds, ...]
    """what was compiled of it"""
    findings: tuple[Finding, ...]


def evidence_of(parent: Parent) -> Evidence:
    """Everything that a prompt may say of a parent."""
    candidate, said = parent.candidate, parent.evaluation
    passed = said if isinstance(said, Passed) else None
    return Evidence(
        label=candidate.label,
        language=candidate.language,
        files=candidate.files,
        chosen=_chosen(parent),
        outcome=said.outcome,
        stage=said.stage if isinstance(said, Failed) else None,
        speedup=passed.speedup if passed else None,
        low=passed.interval[0] if passed else None,
        high=passed.interval[1] if passed else None,
        measurements=passed.measurements if passed else (),
        estimated_us=said.estimated_us if isinstance(said, Triaged) else None,
        estimates=said.estimates if isinstance(said, Triaged) else (),
        kernels=said.kernels if isinstance(said, Triaged) else (),
        findings=tuple(_findings(parent)),
    )


def without_folders(text: str) -> str:
    """The text with absolute paths cut down to their last part: where things lie here concerns nobody."""
    return _FOLDERS.sub("", text)


def _chosen(parent: Parent) -> dict[str, Value]:
    """Every tunable with the value that was judged."""
    candidate = parent.candidate
    declared = LANGUAGES.load(candidate.language)().tunables(candidate.files)
    return {name: candidate.tunables.get(name, values[0]) for name, values in declared.items()}


def _findings(parent: Parent) -> Iterator[Finding]:
    """The first diagnostics in words; what to do about them is said once where it is the same."""
    lines = {path: text.split("\n") for path, text in parent.candidate.files.items()}
    advised: set[str] = set()
    for diagnostic in parent.evaluation.diagnostics[:MOST_FINDINGS]:
        finding = _finding(diagnostic, lines)
        yield replace(finding, advice="") if finding.advice in advised else finding
        advised.add(finding.advice)


def _finding(diagnostic: Diagnostic, lines: Mapping[str, list[str]]) -> Finding:
    text = without_folders(diagnostic.message)
    excerpt = ""
    if isinstance(diagnostic, CompileError) and diagnostic.line is not None:
        file = without_folders(diagnostic.file or "")
        text = f"{file}:{diagnostic.line}: {text}"
        excerpt = _excerpt(lines.get(file, []), diagnostic.line)
    if isinstance(diagnostic, Counters):
        text = f"{text}{_counted(diagnostic)}"
    return Finding(text=text, advice=without_folders(diagnostic.advice), excerpt=excerpt)


def _excerpt(lines: list[str], line: int) -> str:
    if not 1 <= line <= len(lines):
        return ""
    shown = range(max(1, line - _AROUND), min(len(lines), line + _AROUND) + 1)
    return "\n".join(f"{'>' if n == line else ' '}{n:5d} | {lines[n - 1]}" for n in shown)


def _counted(counters: Counters) -> str:
    """What the message of a profile leaves out: counts a launch, and the stalls after the largest."""
    parts = [f"{name} {value:.4g}" for name, value in counters.metrics.items() if not name.endswith("_pct")]
    parts += [f"{share:.0%} {reason}" for reason, share in list(counters.stalls.items())[1:4]]
    return f" [{', '.join(parts)}]" if parts else ""
