"""Which processes are there: a test marks what it starts by an argument that nobody else uses."""

import time
import uuid
from pathlib import Path


def a_marker() -> str:
    return f"marker-{uuid.uuid4().hex}"


def running(marker: str) -> list[int]:
    """Processes with that argument."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in command.read_bytes():
                found.append(int(command.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def gone(marker: str, within: float = 5.0) -> bool:
    """Whether all of them have ended, or do so in a moment: the kernel ends a namespace in the background."""
    deadline = time.monotonic() + within
    while running(marker):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
