"""How a GPU is doing: clocks, temperature, power, throttling, memory errors. Watched, never set."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from types import TracebackType

from kernelevolve.hardware import amd, nvidia_smi, visible_devices
from kernelevolve.hardware.amd import Json, at, number
from kernelevolve.schema import DeviceState, Hardware

_log = logging.getLogger(__name__)

_FIELDS = (
    "clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "clocks_event_reasons.active",
    "clocks_throttle_reasons.active", "ecc.errors.uncorrected.volatile.total", "gpu_recovery_action",
)  # fmt: skip
"""Drivers from 535 on say clocks_event_reasons, older ones clocks_throttle_reasons, some know both."""

_IDLE = 0x1
_SLOWED = {
    0x04: "sw_power_cap", 0x08: "hw_slowdown", 0x10: "sync_boost", 0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown", 0x80: "hw_power_brake_slowdown",
}  # fmt: skip
"""Bits of the reasons' mask (nvml.h). Clocks that somebody has set (0x2, 0x100) are not a slow-down."""

LIMITED_BY_POWER = frozenset({"sw_power_cap", "ppt"})
"""Reasons that any heavy load brings about."""


@dataclass(frozen=True)
class Sample:
    """A device at one moment; None for what its driver doesn't tell."""

    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttled_by: tuple[str, ...] = ()
    idle: bool = False
    uncorrected_errors: int | None = None
    """of memory (ECC), since the driver was loaded"""
    recovery: str | None = None
    """what the driver says the device needs: Reset, Reboot, Drain P2P"""


def sample(hardware: Hardware, device: str | None = None) -> Sample | None:
    """The state of a GPU; None where its tool is missing or doesn't answer, and for what is no GPU.

    `device` is an index or UUID as the tool takes it; without one, the first of that product that this process sees.
    """
    if hardware.device != "gpu":
        return None
    device = device or _meant(hardware.vendor, hardware.key)
    if hardware.vendor == "nvidia":
        rows = nvidia_smi.query(_FIELDS, device)
        return of_nvidia(rows[0]) if rows else None
    if hardware.vendor == "amd":
        chosen = device or "0"
        if text := amd.ask("amd-smi", "metric", "--gpu", chosen, "--json"):
            return next((of_amd_smi(found) for found in amd.gpus(amd.read(text))), None)
        if text := amd.ask("rocm-smi", "-d", chosen, "--showtemp", "--showpower", "--showclocks", "--json"):
            return of_rocm_smi(amd.read(text))
    return None


@cache
def _meant(vendor: str, key: str) -> str | None:
    """The device of that key by its tool's name; None where it isn't told, which the tools take for the first."""
    return next((device.tool for device in visible_devices(vendor) if device.hardware.key == key), None)


def of_nvidia(row: nvidia_smi.Row) -> Sample:
    """A row that nvidia-smi answered."""
    text = row.get("clocks_event_reasons.active") or row.get("clocks_throttle_reasons.active") or "0"
    mask = int(text, 16) if text.startswith("0x") else 0
    errors = number(row.get("ecc.errors.uncorrected.volatile.total"))
    recovery = row.get("gpu_recovery_action", "None")
    return Sample(
        sm_clock_mhz=number(row.get("clocks.sm")),
        memory_clock_mhz=number(row.get("clocks.mem")),
        temperature_c=number(row.get("temperature.gpu")),
        power_w=number(row.get("power.draw")),
        throttled_by=tuple(name for bit, name in _SLOWED.items() if mask & bit),
        idle=bool(mask & _IDLE),
        uncorrected_errors=None if errors is None else int(errors),
        recovery=None if recovery == "None" else recovery,
    )


def of_amd_smi(device: Json) -> Sample:
    """A device of `amd-smi metric --json`. Of several clock domains, the fastest counts: others sleep."""
    clocks = at(device, "clock")
    errors = number(at(device, "ecc", "total_uncorrectable_count"))
    temperature = number(at(device, "temperature", "hotspot"))
    throttle = at(device, "throttle")
    activity = number(at(device, "usage", "gfx_activity"))
    return Sample(
        sm_clock_mhz=max(_clocks(clocks, "gfx"), default=None),
        memory_clock_mhz=max(_clocks(clocks, "mem"), default=None),
        temperature_c=number(at(device, "temperature", "edge")) if temperature is None else temperature,
        power_w=number(at(device, "power", "socket_power")),
        throttled_by=tuple(dict.fromkeys(_violated(throttle, ""))),
        idle=activity == 0,
        uncorrected_errors=None if errors is None else int(errors),
    )


def of_rocm_smi(document: Json) -> Sample | None:
    """The first card of what rocm-smi prints; it tells neither reasons nor errors."""
    cards = document.items() if isinstance(document, dict) else ()
    for name, card in cards:
        if name.startswith("card") and isinstance(card, dict):
            values = {key.lower().rstrip(":"): value for key, value in card.items()}
            power = next((number(v) for k, v in values.items() if "power (w)" in k and "max" not in k), None)
            return Sample(
                sm_clock_mhz=number(values.get("sclk clock speed")),
                memory_clock_mhz=number(values.get("mclk clock speed")),
                temperature_c=number(values.get("temperature (sensor junction) (c)"))
                or number(values.get("temperature (sensor edge) (c)")),
                power_w=power,
            )
    return None


def _clocks(clocks: Json, prefix: str) -> Iterator[float]:
    if isinstance(clocks, dict):
        for name, clock in clocks.items():
            value = number(at(clock, "clk"))
            if name.startswith(prefix) and value is not None:
                yield value


def _violated(node: Json, name: str) -> Iterator[str]:
    """Names of limits whose `..._violation_status` is ACTIVE, on the device or on any of its parts."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _violated(value, key if key.endswith("_violation_status") else name)
    elif isinstance(node, list):
        for value in node:
            yield from _violated(value, name)
    elif node == "ACTIVE" and name and "low_utilization" not in name:
        yield name.removesuffix("_violation_status")


class Watch:
    """Looks at a device while something is timed on it. Use as a context manager, then ask for the `state`."""

    def __init__(
        self,
        hardware: Hardware,
        device: str | None = None,
        interval_s: float = 1.0,
        take: Callable[[Hardware, str | None], Sample | None] = sample,
    ) -> None:
        self._hardware, self._device, self._interval_s, self._take = hardware, device, interval_s, take
        self._samples: list[Sample] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="device-watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(nvidia_smi.SECONDS)  # a tool that hangs must not hold up the judge

    def _look(self) -> None:
        """The last look is taken after the end: a device that has just worked is not idle yet."""
        while True:
            last = self._done.is_set()
            found = self._take(self._hardware, self._device)
            if found is None:
                return
            self._samples.append(found)
            if last:
                return
            self._done.wait(self._interval_s)

    @property
    def new_errors(self) -> int | None:
        """Uncorrected memory errors that came up while it was watched; None where the device counts none."""
        counts = [s.uncorrected_errors for s in self._samples if s.uncorrected_errors is not None]
        return counts[-1] - counts[0] if counts else None

    @property
    def state(self) -> DeviceState | None:
        """What was seen, as a finding; None where the driver told neither clock nor temperature."""
        return summarise(self._hardware.product, tuple(self._samples))


def summarise(product: str, samples: tuple[Sample, ...]) -> DeviceState | None:
    """Extremes over the samples; those of an idle device count only where there are no others."""
    busy = [s for s in samples if not s.idle] or list(samples)
    clocks = [s.sm_clock_mhz for s in busy if s.sm_clock_mhz is not None]
    memory = [s.memory_clock_mhz for s in busy if s.memory_clock_mhz is not None]
    temperature = max((s.temperature_c for s in busy if s.temperature_c is not None), default=None)
    power = max((s.power_w for s in busy if s.power_w is not None), default=None)
    reasons = tuple(dict.fromkeys(reason for s in busy for reason in s.throttled_by))
    if not clocks or temperature is None:
        return None
    span = f"{clocks[0]:.0f} MHz" if min(clocks) == max(clocks) else f"{min(clocks):.0f} to {max(clocks):.0f} MHz"
    slowed = f", slowed down by {', '.join(reasons)}" if reasons else ""
    watts = f", {power:.0f} W" if power is not None else ""
    return DeviceState(
        message=f"{product} ran at {span}, {temperature:.0f} C{watts}{slowed}",
        advice=_advice(reasons),
        sm_clock_mhz=(min(clocks), max(clocks)),
        memory_clock_mhz=(min(memory), max(memory)) if memory else None,
        temperature_c=temperature,
        power_w=power,
        throttled_by=reasons,
    )


def _advice(reasons: tuple[str, ...]) -> str:
    if any("thermal" in r or "prochot" in r or r == "hw_slowdown" for r in reasons):
        return "times are of a device that was too hot or short of power: cool it, then measure again"
    if any("brake" in r for r in reasons):
        return "the machine's power supply held the device back: measure again under less load on its neighbours"
    if reasons and LIMITED_BY_POWER.issuperset(reasons):
        return "the board's power limit set the clock, as under any heavy load: moving less data lets it clock higher"
    if reasons:
        return "times are of a device whose clock was held back: measure again"
    return "nothing to do: clocks were not held back"
