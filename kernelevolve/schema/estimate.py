"""What a call might take on a device, worked out from static facts. Nothing here was measured."""

from pydantic import Field

from kernelevolve.schema.hardware import Bound
from kernelevolve.schema.record import Record


class EstimateParts(Record):
    """What each limit alone would make of all launches of a call, in microseconds. They overlap, but for the last."""

    memory_us: float = Field(description="bytes to and from the device's memory")
    cache_us: float = Field(description="bytes that blocks load and store, through the last cache")
    compute_us: float = Field(description="arithmetic, by tensor cores or ordinary units")
    instructions_us: float = Field(description="issue of instructions, and of loads and stores among them")
    spill_us: float = Field(description="spilled registers, to the cache and back; adds to the others")
    tail_us: float = Field(description="multiprocessors that wait for the one with most blocks; within the others")
    launch_us: float = Field(description="start of each launch; adds to the others")


class Estimate(Record):
    """A call's time on one workload as the static model sees it: good for ranking, and never a measurement.

    It is not published, no certificate rests on it, and the runtime doesn't know of it.
    """

    workload: str
    estimated_us: float = Field(description="microseconds")
    low_us: float = Field(description="lower end of what the model holds possible, microseconds")
    high_us: float = Field(description="upper end, microseconds")
    floor_us: float | None = Field(
        None, description="what the compulsory bytes, or the operations, take at the device's peak, microseconds"
    )
    bound: Bound
    parts: EstimateParts
    launches: int
    moved_bytes: int = Field(description="least traffic with the device's memory, by the tensors that launches get")

    @property
    def room(self) -> float:
        """How many times the floor is estimated; 1 where there is no floor."""
        return self.estimated_us / self.floor_us if self.floor_us else 1.0


class NoEstimate(Record):
    """A workload on which a call's time can't be estimated."""

    workload: str
    reason: str
