"""How a search is followed: a live display on a terminal, a line now and then elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kernelevolve.cli import formats, output

if TYPE_CHECKING:
    from kernelevolve.search import Progress

_EVERY = 10
"""Evaluations between two lines that bring no new best."""


@contextmanager
def follow() -> Iterator[Callable[["Progress"], None]]:
    """A listener for a search, for as long as the block lasts."""
    if not output.console().is_terminal:
        yield Lines(output.note)
        return
    with Live(console=output.console(), refresh_per_second=4, transient=True) as live:
        yield lambda progress: live.update(panel(progress))


class Lines:
    """Says a line at each new stage and new best, and else every ten evaluations at most."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._stage = ""
        self._best = ""
        self._said_at = 0

    def __call__(self, progress: "Progress") -> None:
        """Hear of the search."""
        best = progress.best.candidate if progress.best else progress.best_label
        waited = progress.evaluated - self._said_at
        if (progress.stage, best) == (self._stage, self._best) and waited < _EVERY:
            return
        self._stage, self._best, self._said_at = progress.stage, best, progress.evaluated
        self._say(line(progress))


def line(progress: "Progress") -> str:
    """All of it in one line."""
    return f"{progress.stage}: {_counts(progress)}, {best_so_far(progress)}, {_clock(progress)}"


def panel(progress: "Progress") -> Group:
    """All of it as two lines with a bar."""
    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=progress.budget, completed=progress.evaluated, width=30)
    head.add_row(Text(progress.stage, style="bold"), bar, _counts(progress), _clock(progress))
    return Group(head, Text(best_so_far(progress)))


def best_so_far(progress: "Progress") -> str:
    """The best candidate with its interval."""
    if progress.best is None and progress.estimated_us is not None:
        return f"best estimate {formats.microseconds(progress.estimated_us)} us, {progress.best_label}"
    if progress.best is None:
        return "nothing passed yet"
    return f"best {formats.speedup(progress.best)} {progress.best_label}".rstrip()


def _counts(progress: "Progress") -> str:
    done = f"{progress.evaluated}/{progress.budget} evaluated"
    counts = f"{done}, {progress.failed} failed, {progress.in_flight} under way"
    if not progress.asked and not progress.tokens:
        return counts
    return f"{counts}, {progress.asked} asked, {progress.tokens:,} tokens, ${progress.usd:.2f}"


def _clock(progress: "Progress") -> str:
    passed = formats.duration(progress.seconds)
    return passed if progress.seconds_left is None else f"{passed}, {formats.duration(progress.seconds_left)} left"
