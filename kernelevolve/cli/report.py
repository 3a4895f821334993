"""The report of a run, as a page and as Markdown: a pure function of its record."""

import difflib
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kernelevolve.catalog import LANGUAGES
from kernelevolve.cli import formats
from kernelevolve.cli.curve import draw
from kernelevolve.cli.summary import (
    Best,
    Certification,
    ancestor,
    best_of,
    command_again,
    evidence,
    failures,
    finished,
    nothing_wins,
    triaged,
    verdict_on,
)
from kernelevolve.cli.waste import Waste, ends, rows
from kernelevolve.proposers.evidence import without_folders
from kernelevolve.schema import Candidate, Failed, Passed, Run, Step, Triaged


@dataclass(frozen=True)
class Report:
    """Both forms of a report."""

    html: str
    markdown: str


@dataclass(frozen=True)
class _Try:
    """A line of the list of tried candidates."""

    number: int
    change: str
    name: str
    outcome: str
    good: bool


def write(run: Run, certification: Certification, waste: Waste) -> Report:
    """The report of a run, with what certification said of it, and what its steps came to."""
    best = best_of(run.steps)
    steps = finished(run)
    context: dict[str, object] = {
        "run": run,
        "spec": run.spec,
        "best": best,
        "certification": certification,
        "headline": headline(run, best, certification),
        "curve": Markup(draw(run)),
        "evaluated": len(steps),
        "failed": sum(isinstance(verdict_on(step), Failed) for step in steps),
        "failures": failures(run),
        "tries": [_tried(step) for step in steps],
        "sources": _sources(run, best.candidate) if best else {},
        "diff": _diff(run, best.candidate) if best else "",
        "origin": ancestor(run, best.candidate).label.split()[0] if best else "",
        "command": command_again(run.spec),
        "baselines": _baselines(run),
        "waste": waste if waste.total.calls or len(waste.total.ends) > 1 else None,
        "waste_ends": ends(waste),
        "waste_rows": rows(waste),
        "evidence": evidence(nothing) if (nothing := nothing_wins(run)) else (),
    }
    return Report(_render("report.html.j2", context, escape=True), _render("report.md.j2", context, escape=False))


def headline(run: Run, best: Best | None, certification: Certification) -> str:
    """The result in one sentence."""
    where = f"{run.spec.target.name} on {run.spec.hardware.key}"
    if best is None and (found := triaged(run)):
        return f"{where}: {len(found)} candidates passed triage; nothing was measured"
    if best is None:
        return f"{where}: no candidate passed"
    speed = formats.speedup(best.passed)
    if best.passed.fitness <= 1:
        return f"{where}: nothing beats the baselines; the best candidate reaches {speed}"
    state = {"certified": "certified", "refused": "refused by certification", "none": "not certified"}
    return f"{where}: {speed} over the fastest baseline, {state[certification.verdict]}"


def _tried(step: Step) -> _Try:
    verdict = verdict_on(step)
    name = step.candidate.label if step.candidate else "not a candidate"
    if isinstance(verdict, Passed):
        confirmed = ", confirmed" if step.confirmations else ""
        outcome, good = f"{formats.speedup(verdict)}{confirmed}", verdict.fitness > 1
    elif isinstance(verdict, Triaged):
        time = "none" if verdict.estimated_us is None else f"{formats.microseconds(verdict.estimated_us)} us"
        outcome, good = f"triaged, not measured; estimate: {time}", False
    elif isinstance(verdict, Failed):
        reason = verdict.diagnostics[0].message.splitlines()[0] if verdict.diagnostics else ""
        outcome, good = f"failed at {verdict.stage}: {reason[:120]}", False
    else:
        outcome, good = "under way", False
    return _Try(step.number, step.proposal.lineage.change, name, outcome, good)


def _sources(run: Run, candidate: Candidate) -> dict[str, str]:
    found: dict[str, str] = LANGUAGES.load(run.spec.language)().sources(candidate)
    return found


def _diff(run: Run, candidate: Candidate) -> str:
    """Against the source that the line of this candidate began with, its tunables at their defaults."""
    root = ancestor(run, candidate)
    before = _sources(run, root.model_copy(update={"tunables": {}}))
    after = _sources(run, candidate)
    lines: list[str] = []
    for path in sorted({*before, *after}):
        old, new = before.get(path, "").splitlines(), after.get(path, "").splitlines()
        lines += difflib.unified_diff(old, new, f"seed/{path}", f"winner/{path}", lineterm="")
    return "\n".join(lines)


def _baselines(run: Run) -> list[tuple[str, str, str]]:
    """Workload, baseline, and its time or its problem, out of the calibration."""
    times = run.calibration.times if run.calibration else {}
    return [
        (workload, time.baseline, without_folders(time.problem or formats.microseconds(time.median_us or 0.0)))
        for workload, found in times.items()
        for time in found
    ]


def _render(template: str, context: dict[str, object], *, escape: bool) -> str:
    environment = Environment(
        loader=PackageLoader("kernelevolve.cli"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "us": formats.microseconds,
        "times": formats.times,
        "share": formats.share,
        "interval": lambda m: formats.interval(m.low, m.high),
        "cell": lambda text: str(text).replace("|", "\\|").replace("\n", " "),
        "moment": formats.moment,
        "sentence": lambda text: f"{str(text).rstrip('. ')}.",
        "lines": lambda text: str(text).splitlines(),
    }
    return environment.get_template(template).render(context)
