"""What knowledge is asked for."""

from pydantic import Field

from kernelevolve.hardware import architectures
from kernelevolve.schema import Change, Hardware, Record, Target


class Query(Record):
    """The situation that a brief is written for. None means that it doesn't matter."""

    target: str = Field("", description="name of the operation")
    summary: str = Field("", description="what it computes, or any words to search for")
    language: str | None = None
    hardware: Hardware | None = None
    bottleneck: str = Field("unknown", description="as `Bottleneck.name` has it")
    change: Change | None = None
    skills: bool = Field(False, description="whether what earlier runs learned may be among the answers")
    documents: int = Field(6, ge=1, description="at most, beside those that are always included")
    characters: int = Field(32_000, ge=0, description="of all texts together, at most; what is always included counts")

    @classmethod
    def of(cls, target: Target, hardware: Hardware, language: str, **more: object) -> "Query":
        """The query for a search of that target on that hardware; `more` are further fields."""
        fields = {"target": target.name, "summary": target.summary, "hardware": hardware, "language": language, **more}
        return cls.model_validate(fields)

    @property
    def platform(self) -> frozenset[str] | None:
        """The tags that the hardware bears; None where any hardware will do."""
        return None if self.hardware is None else platform(self.hardware)


def platform(hardware: Hardware) -> frozenset[str]:
    """Tags of a machine, from general to particular. A CPU of AMD's bears amd-cpu: amd is for its GPUs."""
    if hardware.device == "gpu":
        return frozenset({"gpu", hardware.vendor, architectures.plain(hardware.architecture)})
    family = "x86" if hardware.architecture.startswith("x86-64") else hardware.architecture
    return frozenset({"cpu", f"{hardware.vendor}-cpu", family, hardware.architecture, *hardware.features})
