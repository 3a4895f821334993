"""A kernel with tunables: the set of its members, and what is known of each."""

import itertools
import random
from collections.abc import Iterator, Mapping

from kernelevolve.schema import Candidate, Evaluation, Failed, LimitExceeded, Passed, Stage, Value

Member = tuple[Value, ...]
"""One value for every tunable, in the order in which the source declares them."""

_GIVE_UP_AFTER = 3
"""failures at one stage, the default's among them, after which a family that never passed is retired"""

_BLIND_DRAWS = 64
"""random draws for an open member before the members are listed one by one"""

_LISTED = 100_000
"""members that are listed at most, in the order of declaration, to find an open one"""


class Family:
    """Sources that differ in nothing but the values of their tunables."""

    def __init__(self, sources: Candidate, space: Mapping[str, tuple[Value, ...]], origin: str) -> None:
        self.sources = sources
        """any member: only its language and its files count"""
        self.space = dict(space)
        self.origin = origin
        """the seed's name, or the origin that the first candidate named"""
        self.passed: dict[Member, float] = {}
        """member to what ranks it: its fitness or, where nobody measures, the rate that was estimated"""
        self.unranked: dict[Member, None] = {}
        """triaged without an estimate"""
        self.failed: dict[Member, Stage] = {}
        self.pending: dict[Member, None] = {}
        """proposed and not yet told, in the order of proposing"""
        self._oversized: list[Member] = []

    @property
    def default(self) -> Member:
        """The first value of every tunable."""
        return tuple(values[0] for values in self.space.values())

    @property
    def tried(self) -> int:
        """Number of members that were proposed or told."""
        return len(self.passed) + len(self.unranked) + len(self.failed) + len(self.pending)

    @property
    def best(self) -> float | None:
        """Highest fitness (or estimated rate) of a member; None while none has one."""
        return max(self.passed.values(), default=None)

    @property
    def usable(self) -> bool:
        """Whether a member passed, or was triaged and nothing found."""
        return bool(self.passed or self.unranked)

    @property
    def retired(self) -> bool:
        """Whether its default and two more failed at the same stage, and no member ever passed."""
        stage = self.failed.get(self.default)
        return not self.usable and stage is not None and [*self.failed.values()].count(stage) >= _GIVE_UP_AFTER

    @property
    def exhausted(self) -> bool:
        """Whether every member was proposed, told, or is too large to build."""
        return next(self._open(), None) is None

    def member(self, tunables: Mapping[str, Value]) -> Member:
        """The member that a candidate's tunables name; what they leave out is at its default."""
        return tuple(tunables.get(name, values[0]) for name, values in self.space.items())

    def tunables(self, member: Member) -> dict[str, Value]:
        """A value for every tunable."""
        return dict(zip(self.space, member, strict=True))

    def is_open(self, member: Member) -> bool:
        """Whether the member is new and may be possible to build."""
        if any(member in known for known in (self.passed, self.unranked, self.failed, self.pending)):
            return False
        return not any(_at_least(member, size) for size in self._oversized)

    def draw(self, rng: random.Random) -> Member:
        """An open member, uniformly. Raises `IndexError` when the family is exhausted."""
        for _ in range(_BLIND_DRAWS):
            member = tuple(rng.choice(values) for values in self.space.values())
            if self.is_open(member):
                return member
        return rng.choice(list(self._open()))

    def record(self, member: Member, evaluation: Evaluation) -> None:
        """Learn how a member ended; a later word on the same member replaces the earlier one.

        Values that the source doesn't declare make no member, and are passed over.
        """
        if any(value not in values for value, values in zip(member, self.space.values(), strict=True)):
            return
        self.pending.pop(member, None)
        if isinstance(evaluation, Failed):
            self.passed.pop(member, None)
            self.unranked.pop(member, None)
            self.failed[member] = evaluation.stage
            usable = (*self.passed, *self.unranked)
            if _too_large(evaluation) and not any(_at_least(other, member) for other in usable):
                self._oversized.append(member)
            return
        self.failed.pop(member, None)
        rank = evaluation.fitness if isinstance(evaluation, Passed) else evaluation.estimated_rate
        if rank is None:
            self.unranked[member] = None
        else:
            self.passed[member] = rank
        # A pass of a larger member shows that larger isn't harder here.
        self._oversized = [size for size in self._oversized if not _at_least(member, size)]

    def _open(self) -> Iterator[Member]:
        """Every open member, in the order of declaration."""
        members = itertools.islice(itertools.product(*self.space.values()), _LISTED)
        return (member for member in members if self.is_open(member))


def _too_large(failure: Failed) -> bool:
    """Whether a smaller member might fit: it ran out of memory, of a device's too, or its build out of time.

    A call that runs out of time says nothing of the kind: small tiles are as likely to be slow as large ones.
    """
    resources = {d.resource for d in failure.diagnostics if isinstance(d, LimitExceeded)}
    return bool(resources & {"memory", "shared_memory", "threads"}) or (
        failure.stage == "build" and "time" in resources
    )


def _at_least(member: Member, other: Member) -> bool:
    """Whether every number of `member` is as large as that of `other`, everything else being equal."""
    pairs = zip(member, other, strict=True)
    return all(a >= b if isinstance(a, int) and isinstance(b, int) else a == b for a, b in pairs)
