"""Everything that is printed. Results go to standard output, all else to standard error."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, TypeAdapter
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from kernelevolve.cli import formats
from kernelevolve.errors import KernelevolveError
from kernelevolve.schema import Measurement

_out = Console(soft_wrap=True, highlight=False)
_err = Console(stderr=True, soft_wrap=True, highlight=False)
_PIPE_WIDTH = 500

Json = BaseModel | Mapping[str, object] | Sequence[object]
"""What can be printed as a JSON document: records, and plain values around them."""

_adapter: TypeAdapter[object] = TypeAdapter(object)


def document(value: Json) -> None:
    """Print one JSON document on standard output."""
    print(json.dumps(_adapter.dump_python(value, mode="json"), indent=2, ensure_ascii=False))


def text(line: str = "") -> None:
    """Print a line of the result."""
    _out.print(line, markup=False)


def verbatim(text: str) -> None:
    """Print text of somebody else's as it is: nothing in it is wrapped, coloured or taken for a sign.

    All of it is out before anything that is said on standard error afterwards.
    """
    print(text, flush=True)


def show(renderable: RenderableType) -> None:
    """Print something that rich can draw, as part of the result."""
    _out.print(renderable)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; a column whose name begins with ">" is set flush right."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        if name.startswith(">"):
            drawn.add_column(name[1:], justify="right", no_wrap=True)
        else:
            drawn.add_column(name, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    # What reads a pipe wants a line for each row, however long.
    (_out if _out.is_terminal else Console(width=_PIPE_WIDTH, highlight=False)).print(drawn, soft_wrap=False)


def measurements(rows: Iterable[Measurement]) -> None:
    """Print candidate against baseline, a line for each workload."""
    table(
        (
            "WORKLOAD",
            ">CANDIDATE, US",
            "BASELINE",
            ">BASELINE, US",
            ">SPEED-UP",
            "INTERVAL",
            ">ROOFLINE",
            "VERDICT",
        ),
        [
            (
                m.workload,
                formats.microseconds(m.candidate_us),
                m.baseline,
                formats.microseconds(m.baseline_us),
                formats.times(m.speedup),
                formats.interval(m.low, m.high),
                formats.share(m.roofline_share),
                f"{m.verdict}, baseline disturbed" if m.disturbed else m.verdict,
            )
            for m in rows
        ],
    )


def note(line: str) -> None:
    """Say something on standard error: progress, advice."""
    _err.print(line, markup=False)


def failure(error: KernelevolveError, *, as_json: bool) -> None:
    """Say what went wrong and what to do about it."""
    if as_json:
        found = {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy}
        document({"error": {**found, "exit_code": error.exit_code}})
    _err.print(Text.assemble(("error: ", "bold red"), error.message))
    _err.print(Text.assemble(("remedy: ", "bold"), error.remedy))


def console() -> Console:
    """The console of standard error, for a live display."""
    return _err


def set_up_logging(verbose: bool) -> None:
    """Send the log to standard error: warnings and worse, or everything worth knowing with `verbose`."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        force=True,
    )
