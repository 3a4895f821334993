"""Which of several entries serves a machine, a shape and its element types. Pure."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from kernelevolve.schema import Entry, Hardware


@dataclass(frozen=True)
class Match:
    """The entry to serve."""

    entry: Entry


@dataclass(frozen=True)
class NoMatch:
    """Why no entry has proved itself here: the first condition that leaves none."""

    reason: Literal["no_entry", "hardware", "dtype", "shape"]
    message: str


def match(
    entries: Iterable[Entry], hardware: Hardware, axes: Mapping[str, int], dtypes: Mapping[str, str]
) -> Match | NoMatch:
    """Pick among the entries of one target.

    An entry qualifies if it was certified on this hardware, and if one box of its domain contains the shape.
    Of several, the one with the highest lower bound of the speed-up on the nearest measured workload wins
    (Euclidean distance between the logarithms of the axes, `log(1 + size)`; of equally near workloads the
    lowest bound counts). Equal ones are told apart by their digest.
    """
    shape, types = dict(axes), dict(dtypes)
    present = tuple(entries)
    if not present:
        return NoMatch("no_entry", "no kernel is certified for this operation")
    here = [entry for entry in present if same_machine(entry.hardware, hardware)]
    if not here:
        known = ", ".join(sorted({_machine(entry.hardware) for entry in present}))
        return NoMatch("hardware", f"no kernel is certified on {_machine(hardware)}, only on {known}")
    typed = [entry for entry in here if any(box.dtypes == types for box in entry.domain)]
    if not typed:
        return NoMatch("dtype", f"no kernel is certified for {_words(types)}")
    fitting = [entry for entry in typed if contains(entry, shape, types)]
    if not fitting:
        return NoMatch("shape", f"no kernel is certified for {_words(shape)}")
    return Match(min(fitting, key=lambda entry: (-_expected(entry, shape, types), entry.digest)))


def same_machine(one: Hardware, other: Hardware) -> bool:
    """Whether one's key is a key or an alias of the other, and both have the same instructions.

    A shared alias is not enough: two devices of a family may both be known by the family's name. And a virtual machine
    may hide instructions that the same processor offers elsewhere: its baselines are slower, or its kernels.
    """
    named = one.key in (other.key, *other.aliases) or other.key in one.aliases
    return named and one.architecture == other.architecture


def _machine(hardware: Hardware) -> str:
    return f"{hardware.key} ({hardware.architecture})"


def contains(entry: Entry, axes: dict[str, int], dtypes: dict[str, str]) -> bool:
    """Whether a shape lies in the entry's domain. A box over other axes contains nothing."""
    return any(box.axes.keys() == axes.keys() and box.contains(axes, dtypes) for box in entry.domain)


def _expected(entry: Entry, axes: dict[str, int], dtypes: dict[str, str]) -> float:
    """Lower bound of the speed-up on the nearest measured workload; 0 where none is comparable."""
    measured = [m for m in entry.evidence if m.dtypes == dtypes and m.axes.keys() == axes.keys()]
    return min(((_distance(m.axes, axes), m.low) for m in measured), default=(0.0, 0.0))[1]


def _distance(one: Mapping[str, int], other: Mapping[str, int]) -> float:
    return math.hypot(*(math.log1p(one[name]) - math.log1p(other[name]) for name in one))


def _words(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
