"""How judge and runner reach a device's tensors."""

import logging
from dataclasses import dataclass
from typing import Literal

import torch

from kernelevolve.errors import ToolchainError
from kernelevolve.harness import cuda_driver
from kernelevolve.harness.device_choice import narrow
from kernelevolve.schema import Hardware

log = logging.getLogger(__name__)

Memory = Literal["shared", "mapped", "copied"]
"""`shared`: pages of the judge's that a runner maps. `mapped`: the same on a device, handed over as descriptors.
`copied`: the runner keeps copies on its device, and the judge moves bytes in and out between calls."""


@dataclass(frozen=True)
class Access:
    """Where tensors are computed on, and whose memory they lie in while a candidate runs."""

    torch_device: str
    """where the judge makes inputs and compares outputs, by torch's name"""
    memory: Memory

    @property
    def interpreted(self) -> bool:
        """Whether kernels for a GPU run in an interpreter: only the harness' own tests do that."""
        return self.memory == "copied" and self.torch_device == "cpu"

    @property
    def walls(self) -> tuple[str, ...]:
        """For the evaluation's record: whose memory a device's tensors lie in."""
        return () if self.memory == "shared" else (f"{self.memory}-device-memory",)


HOST = Access("cpu", "shared")
INTERPRETED = Access("cpu", "copied")


def access_to(hardware: Hardware) -> Access:
    """The strongest way that this machine offers, to the one GPU that is meant.

    Raises `ToolchainError` where torch can't use the device, and `UsageError` where this process may not see it.
    """
    if hardware.device == "cpu":
        return HOST
    narrow(hardware)
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        raise ToolchainError(
            f"torch {torch.__version__} can't use {hardware.key}",
            remedy=f"it is built for {built}: install the driver that this needs, or a torch for driver "
            f"{hardware.driver}" if built else "install a torch that is built for this device",
        )  # fmt: skip
    if hardware.vendor != "nvidia":
        return Access("cuda", "copied")
    try:
        cuda_driver.probe(torch.cuda.current_device())
    except cuda_driver.DriverError as error:
        log.warning("device memory can't be shared (%s): candidates work on copies", error)
        return Access("cuda", "copied")
    return Access("cuda", "mapped")
