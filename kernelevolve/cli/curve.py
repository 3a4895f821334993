"""The curve of a search as SVG: best so far with its interval, against finished evaluations."""

import math
from dataclasses import dataclass

from kernelevolve.cli.formats import interval, times
from kernelevolve.cli.summary import Best, finished, history, verdict_on
from kernelevolve.schema import Failed, Passed, Run

_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 16, 44
_TICKS = (0.1, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
_LOWEST = 0.25


@dataclass(frozen=True)
class _Frame:
    """Evaluations 1 to `count` across, speed-ups `low` to `high` upwards on a logarithmic scale."""

    count: int
    low: float
    high: float

    def x(self, number: float) -> float:
        return _LEFT + (number - 0.5) / self.count * (_WIDTH - _LEFT - _RIGHT)

    def y(self, speedup: float) -> float:
        clamped = min(max(speedup, self.low), self.high)
        part = math.log(clamped / self.low) / math.log(self.high / self.low)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


def draw(run: Run) -> str:
    """The whole figure; classes, not colours, so that the page's style decides. Empty without evaluations."""
    steps = finished(run)
    bests = history(run)
    if not steps:
        return ""
    frame = _frame(run, bests)
    marks: list[str] = []
    for number, step in enumerate(steps, 1):
        verdict = verdict_on(step)
        if isinstance(verdict, Passed):
            name = step.candidate.label if step.candidate else ""
            title = _title(f"{number}: {times(verdict.speedup)} {interval(*verdict.interval)} {name}")
            spot = f'cx="{frame.x(number):.1f}" cy="{frame.y(verdict.speedup):.1f}" r="2.6"'
            marks.append(f'<circle class="tried" {spot}>{title}</circle>')
        elif isinstance(verdict, Failed):
            title = _title(f"{number}: failed")
            marks.append(f'<path class="failed" d="{_cross(frame.x(number), _HEIGHT - _BOTTOM - 6)}">{title}</path>')
    parts = [*_axes(frame), *_band(frame, bests), *marks]
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Best speed-up so far by evaluation"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{"".join(parts)}</svg>'


def _frame(run: Run, bests: tuple[Best | None, ...]) -> _Frame:
    speedups = [v.speedup for v in map(verdict_on, run.steps) if isinstance(v, Passed)]
    edges = [edge for best in bests if best for edge in best.passed.interval]
    low = max(_LOWEST, min([*speedups, *edges, 0.8]))
    return _Frame(len(bests), low / 1.05, max([*speedups, *edges, 1.25]) * 1.08)


def _axes(frame: _Frame) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts: list[str] = []
    for tick in (t for t in _TICKS if frame.low <= t <= frame.high):
        y = frame.y(tick)
        style = "baseline" if tick == 1 else "grid"
        parts.append(f'<line class="{style}" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}x</text>')
    every = next((step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if frame.count / step <= 12), 1000)
    for number in range(every, frame.count + 1, every):
        spot = f'x="{frame.x(number):.1f}" y="{bottom + 18}" text-anchor="middle"'
        parts.append(f'<text class="tick" {spot}>{number}</text>')
    parts.append(f'<text class="tick" x="{right}" y="{frame.y(1) - 5:.1f}" text-anchor="end">fastest baseline</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">finished evaluations</text>')
    return parts


def _band(frame: _Frame, bests: tuple[Best | None, ...]) -> list[str]:
    """The interval of the best as an area, its lower end as a line: flat between evaluations."""
    upper: list[str] = []
    lower: list[str] = []
    for number, best in enumerate(bests, 1):
        if best is None:
            continue
        low, high = best.passed.interval
        for x in (frame.x(number - 0.5), frame.x(number + 0.5)):
            upper.append(f"{x:.1f},{frame.y(high):.1f}")
            lower.append(f"{x:.1f},{frame.y(low):.1f}")
    if not lower:
        return []
    area = " ".join((*upper, *reversed(lower)))
    return [
        f'<polygon class="band" points="{area}"/>',
        f'<polyline class="best" points="{" ".join(lower)}"/>',
    ]


def _cross(x: float, y: float) -> str:
    return f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6"


def _title(text: str) -> str:
    safe = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"<title>{safe}</title>"
