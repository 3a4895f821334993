"""Cores that are kept busy, on and off."""

import os
import time
from pathlib import Path

from kernelevolve.harness.pressure import Pressure
from kernelevolve.harness.sandbox import Sandbox


def spent(pids: list[int]) -> float:
    """Seconds of CPU time that these processes have taken."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_cores_are_busy_while_it_is_on_and_left_alone_else(cache_dir: Path) -> None:
    before = children()
    with Pressure(2, Sandbox.open(cache_dir).launcher) as pressure:
        idlers = sorted(children() - before)
        assert len(idlers) == 2
        with pressure.on():
            time.sleep(0.3)
        at_rest = spent(idlers)
        assert at_rest > 0.05
        time.sleep(0.3)
        assert spent(idlers) - at_rest < 0.05
    assert children() <= before, "nothing is left behind"
