"""The folder of skills: a record and a page for each, and the index that retrieval goes by."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from kernelevolve.errors import StoreError, UsageError
from kernelevolve.hardware import architectures
from kernelevolve.knowledge.index import IndexLine, header
from kernelevolve.knowledge.skills import Fault, Help, Skill, merged

_SHOWN = 3
"""pieces of evidence that a page names for each lesson"""
_REMEDY = "check that you may write there and that the disk has room"


def learn(folder: Path, skill: Skill) -> Path:
    """Merge a skill into the folder, and return its page. Raises `StoreError` and `UsageError`.

    The records (`*.json`) are what counts: pages and index are written anew from them.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            record = folder / f"{skill.slug}.json"
            known = merged(_read(record), skill) if record.is_file() else skill
            _write(record, known.model_dump_json(indent=1) + "\n")
            _write(folder / f"{skill.slug}.md", page(known))
            lines = [_line(_read(path)).row() for path in sorted(folder.glob("*.json"))]
            _write(folder / "index.md", "\n".join(("# What searches learned", "", header(), *lines, "")))
    except OSError as error:
        raise StoreError(f"can't write the skills to {folder}: {error.strerror}", remedy=_REMEDY) from error
    return folder / f"{skill.slug}.md"


def page(skill: Skill) -> str:
    """A skill as the document that a brief carries (Markdown)."""
    lines = [
        f"# {_title(skill)}",
        "",
        f"Out of measured searches of {skill.target} ({skill.summary.rstrip('.')}) on {skill.hardware.product} "
        f"({skill.hardware.architecture}). What helped there need not help elsewhere: measure it.",
        "",
    ]
    if skill.helps:
        lines += ["## What made a kernel faster, for certain", "", *map(_help, skill.helps), ""]
    if skill.faults:
        lines += ["## What failed, and what mended it", "", *map(_fault, skill.faults), ""]
    lines += ["## Sources", "", f"Runs {', '.join(skill.runs)}."]
    if skill.helps:
        confidence = min(gain.confidence for help_ in skill.helps for gain in help_.evidence)
        lines += [
            f"Speed-ups are over the fastest baseline, as intervals of {confidence:.0%} coverage; a change is listed "
            "where the child's whole interval lies above its parents'."
        ]
    return "\n".join(lines) + "\n"


def _title(skill: Skill) -> str:
    return f"{skill.target} in {skill.language} on {skill.hardware.key}: what searches found"


def _help(lesson: Help) -> str:
    evidence = "; ".join(
        f"{g.parent_low:.2f} to {g.parent_high:.2f}x became {g.child_low:.2f} to {g.child_high:.2f}x "
        f"({g.child[:12]} out of {g.parent[:12]}, {g.run})"
        for g in lesson.evidence[:_SHOWN]
    )
    more = f" Seen {len(lesson.evidence)} times." if len(lesson.evidence) > _SHOWN else ""
    gain = f"at least {lesson.evidence[0].at_least:.2f} times as fast"
    return f"- {lesson.bottleneck}, {lesson.change}: {lesson.idea} ({gain}). {evidence}.{more}"


def _fault(lesson: Fault) -> str:
    where = ", ".join(f"{s.candidate[:12] or 'no candidate'} in {s.run}" for s in lesson.evidence[:_SHOWN])
    parts = [f"- {lesson.stage}, {lesson.kind}: {lesson.message.rstrip('.')}."]
    if lesson.idea:
        parts.append(f"Came from: {lesson.idea.rstrip('.')}.")
    if lesson.mended:
        parts.append(f"Mended by: {lesson.mended.rstrip('.')}.")
    elif lesson.advice:
        parts.append(f"Advice: {lesson.advice.rstrip('.')}.")
    parts.append(f"Seen {len(lesson.evidence)} times ({where}).")
    return " ".join(parts)


def _line(skill: Skill) -> IndexLine:
    bottlenecks = dict.fromkeys([*(h.bottleneck for h in skill.helps), *(f.bottleneck for f in skill.faults)])
    hardware = skill.hardware
    tag = architectures.plain(hardware.architecture) if hardware.device == "gpu" else hardware.architecture
    ideas = "; ".join(h.idea for h in skill.helps[:3]) or "failures and what mended them"
    return IndexLine(
        path=f"{skill.slug}.md", title=_title(skill), operations=(skill.target,), bottlenecks=tuple(bottlenecks),
        hardware=(tag,), languages=(skill.language,), gives=ideas,
    )  # fmt: skip


def _read(record: Path) -> Skill:
    try:
        return Skill.model_validate_json(record.read_bytes())
    except ValidationError as error:
        raise UsageError(
            f"{record} is no skill, or a damaged one: {error.errors()[0]['msg']}",
            remedy="remove it with its page; kernelevolve knowledge learn RUN writes it anew",
        ) from error


def _write(path: Path, text: str) -> None:
    """Put a text into a file, whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(name).chmod(0o644)
    Path(name).replace(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two searches may end at the same time, and both add to the same pages."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
