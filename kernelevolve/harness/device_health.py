"""After a fault: is the device fit for the next candidate? Asked in a fresh process, and of the error counters."""

import logging
import subprocess
import sys
from dataclasses import dataclass

from kernelevolve.errors import JudgeError
from kernelevolve.hardware import gpu_state
from kernelevolve.harness.device_probe import HEALTHY
from kernelevolve.schema import Hardware

log = logging.getLogger(__name__)

SECONDS = 60.0
"""For a cold import of torch and a context; the computation itself takes milliseconds."""


@dataclass(frozen=True)
class Healthy:
    """The device computes, and no memory error was counted."""


@dataclass(frozen=True)
class Unhealthy:
    """What the device does is not to be trusted."""

    reason: str


Health = Healthy | Unhealthy


def uncorrected_errors(hardware: Hardware, device: str | None = None) -> int | None:
    """Memory errors counted so far, to be compared after a fault; None where the device counts none."""
    found = gpu_state.sample(hardware, device)
    return None if found is None else found.uncorrected_errors


def probe(
    hardware: Hardware,
    device: str | None = None,
    *,
    errors_before: int | None = None,
    torch_device: str = "cuda",
    seconds: float = SECONDS,
) -> Health:
    """Compute something on the device in a child process, and compare the counter of memory errors.

    `device` is what the vendor's tool takes (index or UUID), `torch_device` what torch takes. It takes 2 to 5 s.
    """
    computed = _compute(torch_device, seconds)
    if isinstance(computed, Unhealthy):
        return computed
    now = gpu_state.sample(hardware, device)
    if now is None:
        return Healthy()
    if now.recovery is not None:
        return Unhealthy(f"the driver says that the device needs: {now.recovery}")
    if errors_before is not None and (now.uncorrected_errors or 0) > errors_before:
        return Unhealthy(
            f"{(now.uncorrected_errors or 0) - errors_before} uncorrected memory errors (ECC) were counted"
        )
    return Healthy()


def ensure(health: Health, hardware: Hardware) -> None:
    """Raises `JudgeError` for a device on which nothing can be judged any more."""
    if isinstance(health, Unhealthy):
        raise JudgeError(
            f"{hardware.key} is not fit for further candidates: {health.reason}",
            remedy="reset it (nvidia-smi --gpu-reset or amd-smi reset --gpureset, as root) or restart the machine, "
            "then resume the run",
        )


def _compute(torch_device: str, seconds: float) -> Health:
    command = [sys.executable, "-m", "kernelevolve.harness.device_probe", torch_device]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said, complained = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return Unhealthy(f"it didn't answer within {seconds:g} seconds")
    if process.returncode != 0:
        lines = complained.strip().splitlines()
        return Unhealthy(lines[-1][:300] if lines else f"the probe ended with code {process.returncode}")
    return Healthy() if said.strip() == HEALTHY else Unhealthy(said.strip())


def _end(process: "subprocess.Popen[str]") -> None:
    """Kill a probe. One that hangs inside the driver can't be killed: it is left to the kernel."""
    process.kill()
    try:
        process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        log.warning("the probe of the device (process %d) hangs in the driver and can't be killed", process.pid)
