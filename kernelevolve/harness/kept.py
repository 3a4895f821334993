"""What was found out about a candidate before, as JSON files."""

import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from kernelevolve.schema import Record

log = logging.getLogger(__name__)

_R = TypeVar("_R", bound=Record)


def recall(file: Path, kind: type[_R]) -> _R | None:
    """What the file says; None where there is none that can be read."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        log.warning("%s is damaged and is made again: %s", file, error)
        return None


def kept(file: Path, kind: type[_R], find_out: Callable[[], _R]) -> tuple[_R, float]:
    """What the file says, else what is found out now, and then kept; and the seconds that took."""
    if (known := recall(file, kind)) is not None:
        return known, 0.0
    started = time.perf_counter()
    record = find_out()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed: a process that reads at the same moment sees one whole file.
    descriptor, name = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(record.model_dump_json())
    Path(name).replace(file)
    return record, time.perf_counter() - started
