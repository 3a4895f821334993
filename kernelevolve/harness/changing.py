"""The inputs of one workload while a candidate is timed: they change where they lie."""

from contextlib import AbstractContextManager

from kernelevolve.harness.bench import Bench
from kernelevolve.harness.pressure import Pressure
from kernelevolve.harness.runner import Runner


class Changing:
    """Changes inputs for the candidate's runner and the baselines' alike."""

    def __init__(self, bench: Bench, runner: Runner, workload: int, pressure: Pressure) -> None:
        self._bench, self._runner, self._workload, self._pressure = bench, runner, workload, pressure
        self._constants_due = bench.access.memory == "shared"
        """once: every truth has to be worked out again"""

    def change(self, slot: int) -> None:
        """Change a part of one slot, the first time the constants too, and the truth with it."""
        if self._constants_due:
            self._constants_due = False
            self._bench.arena.change_constants(self._workload)
            if self._runner.has_prepare:
                self._runner.resume()
                self._runner.prepare(self._workload)
                self._runner.stop()
        self._bench.arena.change(self._workload, slot)
        for holder in (self._runner, self._bench.baselines):
            holder.refresh(self._workload, slot)

    def pressure(self) -> AbstractContextManager[None]:
        """Other processes that want the cores."""
        return self._pressure.on()

    def touch(self, slot: int, *, same: bool) -> bool:
        """Write single elements of one slot for now: others' values, or their own."""
        return self._bench.access.memory == "shared" and self._bench.arena.touch(self._workload, slot, same=same)

    def restore(self) -> None:
        """Undo every touch."""
        self._bench.arena.restore()
