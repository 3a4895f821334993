"""Asking nvidia-smi: no CUDA context is made, no library is loaded, nothing is set."""

import csv
import logging
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache

_log = logging.getLogger(__name__)

SECONDS = 15.0
"""Without persistence mode the driver is loaded for each question, which takes seconds on a machine with many GPUs."""

_UNKNOWN = re.compile(r'Field "([^"]+)" is not a valid field to query')
_ABSENT = frozenset({
    "", "N/A", "[N/A]", "[Not Supported]", "Not Supported", "[Unknown Error]", "[GPU is lost]",
    "[Insufficient Permissions]", "[GPU requires reset]", "Unknown Error", "ERR!",
})  # fmt: skip
"""What stands where a value isn't to be had."""

Row = Mapping[str, str]
"""Field to value; what the driver doesn't know, or doesn't tell, is left out."""


def query(fields: Sequence[str], device: str | None = None) -> tuple[Row, ...]:
    """Values of fields, one row a GPU (or of the one whose index, UUID or bus id is `device`).

    Fields come and go with driver versions: those that this driver doesn't know are left out of every row. Nothing
    is returned, and a warning logged, where the driver doesn't answer; without nvidia-smi there is no row either.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    asked = _known(program, tuple(fields))
    answer = _ask([program, *arguments(asked, device)]) if asked else None
    if answer is None:
        return ()
    if answer.returncode != 0:
        _known.cache_clear()  # the driver may have been exchanged
        _log.warning("nvidia-smi failed: %s: GPUs are left out", (answer.stdout + answer.stderr).strip())
        return ()
    return read(answer.stdout, asked)


@cache
def _known(program: str, fields: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the fields that this driver knows: it names the first that it doesn't. Asked once a process."""
    asked = list(fields)
    while asked:
        answer = _ask([program, *arguments(asked, None)])
        unknown = _UNKNOWN.search(answer.stdout + answer.stderr) if answer is not None else None
        if unknown is None or unknown[1] not in asked:
            break
        asked.remove(unknown[1])
    return tuple(asked)


def arguments(fields: Sequence[str], device: str | None) -> list[str]:
    """Command-line arguments of a query."""
    chosen = [f"--id={device}"] if device is not None else []
    return [f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", *chosen]


def read(text: str, fields: Sequence[str]) -> tuple[Row, ...]:
    """Rows of a query's answer. A line that has not as many values as were asked for is left out."""
    rows = []
    for values in csv.reader(text.strip().splitlines(), skipinitialspace=True):
        if len(values) == len(fields):
            pairs = zip(fields, (value.strip() for value in values), strict=True)
            rows.append({field: value for field, value in pairs if value not in _ABSENT})
        else:
            _log.warning("a line of nvidia-smi is not understood: %s", ", ".join(values))
    return tuple(rows)


def listing() -> str:
    """What `nvidia-smi -L` prints: GPUs, and below each its MIG devices. Empty where it doesn't answer."""
    program = shutil.which("nvidia-smi")
    answer = _ask([program, "-L"]) if program is not None else None
    return answer.stdout if answer is not None and answer.returncode == 0 else ""


def cuda_version() -> str | None:
    """Newest CUDA that the driver supports, from the head of nvidia-smi's table; None where it isn't told."""
    program = shutil.which("nvidia-smi")
    answer = _ask([program]) if program is not None else None
    found = re.search(r"CUDA (?:UMD )?Version:\s*(\d+\.\d+)", answer.stdout) if answer is not None else None
    return found[1] if found else None


def _ask(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        _log.warning("nvidia-smi gave no answer within %g seconds: GPUs are left out", SECONDS)
    except OSError as error:
        _log.warning("nvidia-smi can't be run: %s: GPUs are left out", error)
    return None
