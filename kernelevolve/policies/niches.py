"""Where a search stands: niches of kernels alike in structure, and in each the peaks among its numbers.

A peak is a candidate with no better one within a few of the steps that changes usually take (after M. Preuss,
"Niching the CMA-ES via nearest-better clustering", 2010). Peaks that turn out to be slopes of the same hill merge.
"""

import math
from collections import deque
from collections.abc import Iterable
from statistics import median

from kernelevolve.policies.elites import Elite, Elites
from kernelevolve.policies.structure import Structure

_MOST_NICHES, _MOST_PEAKS, _ELITES = 64, 24, 4
_STEPS = 100
"""changes behind the usual step"""
_FEW_STEPS = 5
_HOPE = 0.02
"""pace that something new is credited with: 2 % a change"""
_LARGEST_GAIN = 1.0
"""of one change: a factor of e; a lucky leap is no pace"""


class Arm:
    """A place to search on from, with what came of doing so."""

    def __init__(self) -> None:
        self.elites = Elites(_ELITES)
        self.spent = 0
        """changes made here that were told"""
        self.pace = _HOPE
        """gain of a change, as the logarithm of a speed-up, averaged with an emphasis on the latest"""

    def credit(self, gain: float, memory: float) -> None:
        """Note what a change came to; `memory` is the number of changes that the average goes over."""
        self.spent += 1
        self.pace += (min(max(gain, 0.0), _LARGEST_GAIN) - self.pace) / memory


class Peak(Arm):
    """Candidates around a local best."""

    def __init__(self, niche: "Niche", structure: Structure) -> None:
        super().__init__()
        self.niche = niche
        self.structure = structure
        """of its best"""
        self.merged_into: Peak | None = None
        self.gone = False


class Niche(Arm):
    """Candidates alike in structure; its founder's is what others are compared with."""

    def __init__(self, founder: Structure) -> None:
        super().__init__()
        self.founder = founder
        self.peaks: list[Peak] = []


class Niches:
    """Files candidates, and knows which peak each belongs to. Bounded, whatever the length of the run.

    `apart` is the least structural distance (0 to 1) between niches, `reach` the radius of a peak in usual steps,
    `memory` the number of changes over which a pace is averaged.
    """

    def __init__(self, *, apart: float, reach: float, memory: float) -> None:
        self._apart, self._reach, self._memory = apart, reach, memory
        self.niches: list[Niche] = []
        self._home: dict[str, Peak] = {}
        self._number_steps: deque[float] = deque(maxlen=_STEPS)
        self._structure_steps: deque[float] = deque(maxlen=_STEPS)

    def home(self, digest: str | None) -> Peak | None:
        """The peak that a candidate belongs to; None for one that isn't known, or whose peak was given up."""
        peak = None if digest is None else self._home.get(digest)
        while peak is not None and peak.merged_into is not None:
            peak = peak.merged_into
        return None if peak is None or peak.gone else peak

    def place(self, elite: Elite, structure: Structure, parent: str | None) -> None:
        """File a new candidate, and credit the peak that it comes from."""
        origin, worth = self.home(parent), elite.worth
        if origin is not None:
            self._measure(origin.structure, structure)
        niche = self._niche(structure, origin)
        peak = self._peak(niche, structure, origin, worth)
        if origin is not None:
            origin.credit(_gain(origin, worth) if peak is origin else 0.0, self._memory)
            origin.niche.credit(_gain(niche, worth) if niche is origin.niche else 0.0, self._memory)
        self._home[elite.digest] = peak
        leads = not peak.elites or worth >= peak.elites.worth
        peak.elites.file(elite)
        niche.elites.file(elite)
        if leads:
            peak.structure = structure
            self._merge(peak)
        if len(niche.peaks) > _MOST_PEAKS:
            _give_up(min(niche.peaks, key=lambda p: p.elites.worth))

    def fail(self, parent: str | None) -> None:
        """Charge a peak for a change that came to nothing."""
        origin = self.home(parent)
        if origin is not None:
            origin.credit(0.0, self._memory)
            origin.niche.credit(0.0, self._memory)

    def correct(self, digest: str, elite: Elite | None) -> bool:
        """Take over a second look at a candidate; None for one that failed it. False where it has no place yet."""
        peak = self.home(digest)
        if peak is None:
            return False
        for arm in (peak, peak.niche):
            if elite is None:
                arm.elites.discard(digest)
            elif digest in arm.elites:
                arm.elites.file(elite)
        if not peak.elites:
            _give_up(peak)
        niche = peak.niche
        if not niche.peaks:
            self.niches.remove(niche)
        elif not niche.elites:
            for rest in niche.peaks:
                niche.elites.take(rest.elites)
        return True

    def _measure(self, origin: Structure, structure: Structure) -> None:
        self._structure_steps.append(origin.apart(structure))
        distance = origin.distance(structure)
        if distance:
            self._number_steps.append(distance)

    def _niche(self, structure: Structure, origin: Peak | None) -> Niche:
        """Where changes usually turn the whole kernel over, structure says little, and niches lie further apart."""
        usual = median(self._structure_steps) if len(self._structure_steps) >= _FEW_STEPS else 0.0
        limit = max(self._apart, 1.5 * usual)
        if origin is not None and origin.structure.apart(structure) <= limit:
            return origin.niche
        distances = [niche.founder.apart(structure) for niche in self.niches]
        nearest = min(range(len(distances)), key=distances.__getitem__, default=None)
        if nearest is not None and (distances[nearest] <= limit or len(self.niches) >= _MOST_NICHES):
            return self.niches[nearest]
        self.niches.append(Niche(structure))
        return self.niches[-1]

    def _peak(self, niche: Niche, structure: Structure, origin: Peak | None, worth: float) -> Peak:
        here = origin if origin is not None and origin.niche is niche else None
        if here is not None and self._near(here.structure, structure):
            return here
        near = [peak for peak in niche.peaks if self._near(peak.structure, structure)]
        if near:
            return min(near, key=lambda peak: peak.structure.distance(structure) or 0.0)
        if here is not None and worth > here.elites.worth:
            return here  # a long step uphill moves the peak
        niche.peaks.append(Peak(niche, structure))
        return niche.peaks[-1]

    def _near(self, one: Structure, other: Structure) -> bool:
        """Where numbers don't correspond, kernels are near that differ by half of what sets niches apart."""
        distance = one.distance(other)
        if distance is None:
            return one.apart(other) <= self._apart / 2
        if len(self._number_steps) < _FEW_STEPS:
            return distance <= 0.5
        return distance <= self._reach * median(self._number_steps)

    def _merge(self, peak: Peak) -> None:
        """Join the peaks that a new best has come near to."""
        for other in [p for p in peak.niche.peaks if p is not peak and self._near(p.structure, peak.structure)]:
            low, high = sorted((peak, other), key=lambda p: p.elites.worth)
            low.merged_into = high
            high.elites.take(low.elites)
            peak.niche.peaks.remove(low)
            if low is peak:
                return


def _gain(arm: Arm, worth: float) -> float:
    return worth - arm.elites.worth if arm.elites else 0.0


def _give_up(peak: Peak) -> None:
    peak.gone = True
    peak.niche.peaks.remove(peak)


def promise(arm: Arm, arms: Iterable[Arm], pending: int, *, horizon: float, curiosity: float) -> float:
    """Upper confidence bound of where an arm may get to: its best, plus its pace kept up for `horizon` changes, plus
    `curiosity` where it was hardly tried (UCB1: Auer et al., "Finite-time analysis of the multiarmed bandit", 2002).

    `pending` changes are under way here.
    """
    total = sum(other.spent for other in arms)
    return (
        arm.elites.worth + horizon * arm.pace + curiosity * math.sqrt(math.log(total + 1) / (arm.spent + pending + 1))
    )
