"""The verdict that nothing wins here, with its evidence."""

from pydantic import Field

from kernelevolve.schema.candidate import Change
from kernelevolve.schema.record import Record


class Lever(Record):
    """One kind of change to one family of kernels, and what came of it."""

    origin: str = Field(description="where the family began: a seed's name, or the proposer's")
    change: Change
    tried: int = Field(description="candidates that were evaluated")
    passed: int
    best_speedup: float | None = Field(description="over the fastest baseline; None where none was measured")


class NothingWins(Record):
    """No candidate was shown to be faster than the fastest baseline: how near the best came, and what was tried."""

    evaluated: int
    passed: int
    best_speedup: float | None = Field(description="of the best that was looked at twice; None where none passed")
    low: float | None = Field(description="lower end of its interval")
    high: float | None = Field(description="upper end of its interval: what may still be true of it")
    roofline_share: float | None = Field(
        description="geometric mean over the workloads of the least possible over the best's time; None: no ceilings"
    )
    baseline_roofline_share: float | None = Field(
        description="the same of the fastest baselines: the least possible time over theirs"
    )
    levers: tuple[Lever, ...] = Field(description="the most tried first")

    @property
    def headroom(self) -> float | None:
        """Speed-up over the baselines that the roofline leaves room for at most; None without ceilings."""
        return None if self.baseline_roofline_share is None else 1 / self.baseline_roofline_share
