"""All that a search meets and doesn't decide itself: machines, models, clocks, knowledge."""

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Protocol

from kernelevolve import targets
from kernelevolve.asking import Switchboard, by_file
from kernelevolve.briefing import Briefing
from kernelevolve.catalog import EXECUTORS
from kernelevolve.course import Earlier, Work
from kernelevolve.executors import Executor
from kernelevolve.knowledge import Library
from kernelevolve.llm.base import Client
from kernelevolve.prompts import Prompts
from kernelevolve.resources import prompts_dir, targets_dir
from kernelevolve.reuse import EarlierRuns
from kernelevolve.runs import Runs
from kernelevolve.schema import Calibration, ModelRequest, RunSpec
from kernelevolve.settings import Settings
from kernelevolve.standing import baseline_times_us
from kernelevolve.store import Store
from kernelevolve.traffic import Flight, Flights

_LOOK_EVERY_S = 0.5
"""How long a look for what has come in may take: the clock and whoever listens want their turn."""


class Outside(Protocol):
    """The world of one sitting."""

    def executor(self) -> Executor:
        """Judges, started."""

    def client(self) -> Client:
        """Whoever answers questions."""

    def briefing(self, calibration: Calibration) -> Briefing:
        """Where briefs come from."""

    def earlier(self, calibration: Calibration) -> Earlier:
        """What is known from earlier runs."""

    def choose(self, flights: Flights) -> "Future[Any] | None":
        """What lands next; None where nothing has come in yet."""

    def is_late(self, seconds: float) -> bool:
        """Whether this sitting, which has lasted so long, begins nothing more."""

    def may_begin(self, number: int) -> bool:
        """Whether a step may be begun, as far as the world has a say in that."""

    def leaves(self, flights: Flights) -> bool:
        """Whether, now that it is late, what is under way stays open for the next sitting."""


class Live:
    """The world as it is."""

    def __init__(self, settings: Settings, spec: RunSpec, store: Store) -> None:
        self._settings = settings
        self._spec = spec
        self._store = store

    def executor(self) -> Executor:
        """See `Outside`."""
        kind = EXECUTORS.load(self._spec.executor)
        executor: Executor = kind(kind.Config(workers=self._spec.workers))
        return executor

    def client(self) -> Client:
        """See `Outside`."""
        settings, spec = self._settings, self._spec
        return Switchboard(spec.models, Runs(settings.runs), spec.run, settings.reply_seconds)

    def briefing(self, calibration: Calibration) -> Briefing:
        """See `Outside`. Raises `UsageError` where the knowledge can't be read."""
        return briefing_of(self._settings, self._spec, baseline_times_us(calibration))

    def earlier(self, calibration: Calibration) -> Earlier:
        """See `Outside`."""
        return EarlierRuns(self._spec, calibration, self._store)

    def choose(self, flights: Flights) -> "Future[Any] | None":
        """See `Outside`. Of several that have come in, the evaluation of the lowest step is first."""
        done, _ = wait(flights, timeout=_LOOK_EVERY_S, return_when=FIRST_COMPLETED)
        return min(done, key=lambda future: _place(flights[future]), default=None)

    def is_late(self, seconds: float) -> bool:
        """See `Outside`."""
        return self._spec.minutes is not None and seconds > self._spec.minutes * 60

    def may_begin(self, number: int) -> bool:
        """See `Outside`: it has none."""
        return True

    def leaves(self, flights: Flights) -> bool:
        """See `Outside`: where all of it are questions that somebody answers by file, at a time of their own."""
        return all(isinstance(f, ModelRequest) and by_file(self._spec.models, f) for f in flights.values())


def briefing_of(settings: Settings, spec: RunSpec, baseline_us: Mapping[str, float] | None = None) -> Briefing:
    """The briefs of a run by today's targets and knowledge. Raises `UsageError` where those can't be read."""
    # Documents are for models: a proposer that asks none does without reading them.
    wanted = spec.knowledge and bool(spec.models)
    library = Library.load(Prompts(prompts_dir(settings.prompts)), Runs(settings.runs).skills) if wanted else None
    seeds = targets.seeds(spec.target.name, targets_dir(settings.targets))
    return Briefing(spec, seeds, library=library, baseline_us=baseline_us)


def _place(flight: Flight) -> tuple[bool, int, str]:
    if isinstance(flight, Work):
        return False, flight.number, flight.purpose
    return True, flight.step, ""
