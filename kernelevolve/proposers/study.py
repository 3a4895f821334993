"""What is known of a family as an Optuna study, and the members that it suggests."""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from kernelevolve.proposers.family import Family, Member
from kernelevolve.schema import Value

_T = TypeVar("_T")

_MOST_BEST, _MOST_LATEST, _MOST_FAILURES = 32, 64, 32
"""Of a family's members, what the sampler gets to see."""


def suggestions(family: Family, *, startup: int, seed: int) -> Iterator[Member]:
    """Members that promise a high fitness, without end; used ones recur.

    Before `startup` outcomes they are drawn uniformly. The study is built anew for each question, so that the
    answer doesn't depend on who asked before.
    """
    study = _study(family, startup, seed)
    axes = {name: _Axis(values) for name, values in family.space.items()}
    while True:
        trial = study.ask({name: axis.distribution for name, axis in axes.items()})
        yield tuple(axis.value(trial.params[name]) for name, axis in axes.items())
        study.tell(trial, state=TrialState.FAIL)  # failed trials are no evidence to the sampler


class _Axis:
    """A tunable to the sampler: numbers are rungs of a ladder, as neighbours behave alike; else a set."""

    def __init__(self, values: tuple[Value, ...]) -> None:
        self._rungs = sorted(v for v in values if isinstance(v, int))
        self._ordered = len(self._rungs) == len(values)
        self.distribution: BaseDistribution = (
            IntDistribution(0, len(values) - 1) if self._ordered else CategoricalDistribution(values)
        )

    def value(self, parameter: Value) -> Value:
        """The tunable's value behind the sampler's parameter."""
        return self._rungs[int(parameter)] if self._ordered else parameter

    def parameter(self, value: Value) -> Value:
        """The sampler's parameter for a value that the source declares."""
        return self._rungs.index(int(value)) if self._ordered else value


def _study(family: Family, startup: int, seed: int) -> optuna.Study:
    """Maximise the logarithm of the fitness.

    Failures are pruned trials, which count as worse than any other and carry no score; members under way are
    running ones, which the constant liar keeps the sampler away from. Of a large family the best and the latest stand
    for all: the sampler compares the best tenth with the rest, and takes longer the more it is given.
    """
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(
        [
            *(_trial(family, m, TrialState.COMPLETE, math.log(family.passed[m])) for m in _telling(family)),
            *(_trial(family, m, TrialState.PRUNED) for m in _latest(tuple(family.failed), _MOST_FAILURES)),
            *(_trial(family, m, TrialState.RUNNING) for m in family.pending),
        ]
    )
    return study


def _telling(family: Family) -> tuple[Member, ...]:
    """The members that passed; of many, the best and the latest, in the order in which they were told."""
    passed = tuple(family.passed)
    best = sorted(passed, key=family.passed.__getitem__, reverse=True)[:_MOST_BEST]
    kept = {*best, *_latest(passed, _MOST_LATEST)}
    return tuple(member for member in passed if member in kept)


def _latest(members: Sequence[_T], most: int) -> tuple[_T, ...]:
    return tuple(islice(members, max(0, len(members) - most), None))


def _trial(family: Family, member: Member, state: TrialState, value: float | None = None) -> FrozenTrial:
    axes = {name: _Axis(values) for name, values in family.space.items()}
    return create_trial(
        state=state,
        value=value,
        params={name: axes[name].parameter(chosen) for name, chosen in zip(axes, member, strict=True)},
        distributions={name: axis.distribution for name, axis in axes.items()},
    )
