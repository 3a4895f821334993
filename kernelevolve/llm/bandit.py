"""The choice between several models: who gets the next question."""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from kernelevolve.errors import UnknownNameError
from kernelevolve.schema import ModelInfo, Record


class Bandit:
    """Budgeted Thompson sampling: improvement per dollar.

    Xia, Li, Qin, Yu, Liu, "Thompson Sampling for Budgeted Multi-armed Bandits", IJCAI 2015: draw how often a model
    improves from what is known of it (a Beta distribution), and take the one with the most improvement for its cost.
    Where the paper draws the cost too, here it is the mean: a few bills tell it well enough.
    The idea of letting a bandit choose among models, minding their price, is ShinkaEvolve's (arXiv 2509.19349); the
    method differs: that one has upper confidence bounds.

    The cost of a question is its model's mean so far, with one expected question at the listed price as a start, plus
    what a step costs beside it. A model of unknown price is taken to cost as much as the mean of the others: neither
    is it free, nor is it shunned; where no price is known, cost plays no part.

    A choice follows from the seed, the step and what was told before, in whatever order: after a restart, tell the
    finished steps again. Asking changes nothing.
    """

    class Config(Record):
        """How costs and rewards are weighed."""

        step_usd: float = Field(
            0.01, ge=0, description="what a step costs beside its question: the evaluation; a free model isn't free"
        )
        usual_input_tokens: int = Field(8_000, ge=1, description="of a question, before anything is known")
        usual_output_tokens: int = Field(4_000, ge=1, description="of a reply, before anything is known")

    def __init__(self, config: Config, models: Sequence[ModelInfo], *, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._arms = {
            info.name: _Arm(info.cost_usd(config.usual_input_tokens, config.usual_output_tokens)) for info in models
        }

    def choose(self, step: int) -> str:
        """The name of the model that step's question goes to."""
        draws = np.random.default_rng([self._seed, step])
        costs = self._costs()
        scores = {
            name: draws.beta(1 + arm.reward, 1 + arm.told - arm.reward) / costs[name]
            for name, arm in self._arms.items()
        }
        return max(scores, key=lambda name: scores[name])

    def tell(self, model: str, reward: float, cost_usd: float | None) -> None:
        """Learn how a question ended: 1 for an improvement, 0 for none, or a share of one in between.

        `cost_usd` is what it really cost; None where that isn't known. Raises `UnknownNameError`.
        """
        arm = self._arms.get(model)
        if arm is None:
            raise UnknownNameError(
                f"this run asks no model called {model!r}", remedy=f"its models: {', '.join(self._arms)}"
            )
        if not 0 <= reward <= 1:
            raise ValueError(f"a reward lies between 0 and 1, and not at {reward}")
        arm.tell(float(reward), cost_usd)

    def statistics(self) -> dict[str, float]:
        """What is known of each model: questions told, mean reward, cost of a step in US dollars."""
        costs = self._costs()
        found: dict[str, float] = {}
        for name, arm in self._arms.items():
            found[f"model {name} told"] = float(arm.told)
            found[f"model {name} reward"] = (1 + arm.reward) / (2 + arm.told)
            found[f"model {name} usd"] = costs[name]
        return found

    def _costs(self) -> dict[str, float]:
        """Of one step with each model, US dollars; 1 for all where nothing costs anything."""
        means = {name: arm.mean_usd for name, arm in self._arms.items()}
        known = [usd for usd in means.values() if usd is not None]
        unknown = sum(known) / len(known) if known else 0.0
        costs = {name: self._config.step_usd + (unknown if usd is None else usd) for name, usd in means.items()}
        return costs if all(costs.values()) else dict.fromkeys(costs, 1.0)


class _Arm:
    """What is known of one model. Sums are exact, so that they don't depend on the order of what was told."""

    def __init__(self, expected_usd: float | None) -> None:
        self._rewards: list[float] = []
        self._bills: list[float] = [] if expected_usd is None else [expected_usd]

    def tell(self, reward: float, cost_usd: float | None) -> None:
        """One more question."""
        self._rewards.append(reward)
        if cost_usd is not None:
            self._bills.append(cost_usd)

    @property
    def told(self) -> int:
        """How many questions have ended."""
        return len(self._rewards)

    @property
    def reward(self) -> float:
        """Of all of them together."""
        return math.fsum(self._rewards)

    @property
    def mean_usd(self) -> float | None:
        """Of a question; None while neither price nor bill is known."""
        return math.fsum(self._bills) / len(self._bills) if self._bills else None
