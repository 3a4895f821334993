"""The machine that a kernel runs on: what it is, and what it can do at most."""

from typing import Literal

from pydantic import Field

from kernelevolve.schema.record import Record
from kernelevolve.schema.target import Device


class Bandwidth(Record):
    """Highest read rate measured over a working set of a given size."""

    footprint_bytes: int
    gbps: float = Field(description="10^9 bytes a second")


class Ceilings(Record):
    """Measured limits of a machine, for the number of threads they were measured with."""

    bandwidths: tuple[Bandwidth, ...] = Field(description="by growing footprint")
    peak_gflops: dict[str, float] = Field(description="element type to 10^9 operations a second")
    fork_join_us: float | None = Field(
        None, description="least time of an empty OpenMP parallel region, microseconds; None for one thread, or a GPU"
    )
    threads: int
    measured_at: str = Field(description="UTC, ISO 8601")

    def bandwidth_gbps(self, footprint_bytes: int) -> float:
        """Rate of the largest measured footprint that is no larger than this one (10^9 bytes a second).

        A smaller working set is never slower, so this bounds the working set from above.
        """
        fitting = [b for b in self.bandwidths if b.footprint_bytes <= footprint_bytes]
        return (fitting[-1] if fitting else self.bandwidths[0]).gbps

    def roofline_us(self, operations: int, moved_bytes: int, footprint_bytes: int, precision: str) -> float:
        """Least time (microseconds) that the work can take on this machine: the roofline of Williams et al., 2009."""
        memory = moved_bytes / (self.bandwidth_gbps(footprint_bytes) * 1e3)
        peak = self.peak_gflops.get(precision)
        return max(memory, operations / (peak * 1e3) if peak else 0.0)


class Hardware(Record):
    """A machine as far as kernels can tell. `key` names it in the registry."""

    key: str = Field(description="lower case, for instance amd-epyc-7b13-2c or nvidia-h200")
    aliases: tuple[str, ...] = Field((), description="other keys under which the same machine is known")
    device: Device
    vendor: str
    product: str
    architecture: str = Field(description="for instance x86-64-v3 or sm_90")
    microarchitecture: str | None = Field(None, description="of a CPU, for instance Zen 4; None where it isn't known")
    cache_bytes: dict[str, int] = Field(
        default_factory=dict, description="data cache (L1d, L2, L3) to its size; of a core, or shared by several"
    )
    cores: int = Field(description="CPU cores that kernels may use, or multiprocessors")
    memory_bytes: int
    features: tuple[str, ...] = Field((), description="instruction sets and the like, sorted")
    driver: str | None = None
    toolchain: dict[str, str] = Field(default_factory=dict, description="tool to version")
    ceilings: Ceilings | None = None


Bound = Literal["memory", "compute", "latency"]
"""Which limit a kernel sits at: bandwidth, arithmetic, or neither (overhead and dependencies)."""
