"""What model calls may cost, and what they have cost."""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kernelevolve.errors import UsageError
from kernelevolve.llm.tokens import estimate_tokens
from kernelevolve.schema import Answer, Budgets, ModelInfo, ModelRequest, Record


class Totals(Record):
    """Where a run's account stands."""

    calls: int = 0
    in_flight: int = 0
    tokens: int = 0
    tokens_in_flight: int = 0
    usd: float = 0.0
    usd_in_flight: float = 0.0
    unpriced_calls: int = 0
    """calls whose cost nobody knows; `usd` is without them"""


class Forecast(Record):
    """What a run may cost, before it starts."""

    calls_low: int
    calls_high: int
    tokens_low: int
    tokens_high: int
    usd_low: float | None
    """None where the price isn't known"""
    usd_high: float | None


@dataclass(frozen=True)
class _Amount:
    tokens: int
    usd: float | None


@dataclass
class _Account:
    calls: int = 0
    tokens: int = 0
    usd: float = 0.0
    unpriced: int = 0
    in_flight: dict[str, _Amount] = field(default_factory=dict)


class Spending:
    """Money and tokens of a run's model calls. Calls under way count at their worst case until they are settled.

    The worst case is one try that uses every token it may. A call that pays for tries in vain (empty replies, streams
    that break) can cost a little more than that; what it really cost is counted when it is settled.
    """

    def __init__(self, limits: Budgets, already: Iterable[Answer] = ()) -> None:
        """`already`: answers of earlier sittings; a resumed run keeps its total."""
        self._limits = limits
        self._account = _Account()
        self._lock = threading.Lock()
        for answer in already:
            self._count(answer)

    def may_ask(self, request: ModelRequest, info: ModelInfo) -> bool:
        """Whether there is room for the call, whatever it and those under way come to."""
        with self._lock:
            return self._room_for(worst_case(request, info))

    def reserve(self, request: ModelRequest, info: ModelInfo) -> bool:
        """Put the call's worst case aside, if there is room for it; says whether there was."""
        amount = worst_case(request, info)
        with self._lock:
            if not self._room_for(amount):
                return False
            self._account.in_flight[request.digest] = amount
            return True

    def settle(self, request: ModelRequest, answer: Answer) -> None:
        """Count what the call really cost in place of what was put aside for it."""
        with self._lock:
            self._account.in_flight.pop(request.digest, None)
            self._count(answer)

    def release(self, request: ModelRequest) -> None:
        """Free what was put aside for a call that was given up. What the service charges for it, nobody learns."""
        with self._lock:
            self._account.in_flight.pop(request.digest, None)

    def totals(self) -> Totals:
        """Where the account stands."""
        with self._lock:
            account = self._account
            under_way = account.in_flight.values()
            return Totals(
                calls=account.calls,
                in_flight=len(account.in_flight),
                tokens=account.tokens,
                tokens_in_flight=sum(amount.tokens for amount in under_way),
                usd=account.usd,
                usd_in_flight=sum(amount.usd or 0.0 for amount in under_way),
                unpriced_calls=account.unpriced,
            )

    def exhausted(self) -> str | None:
        """Which limit is reached by what is settled, in words; None while there is something left."""
        with self._lock:
            usd, tokens = self._limits.usd, self._limits.tokens
            if usd is not None and self._account.usd >= usd:
                return f"the budget of ${usd:g} for model calls is spent"
            if tokens is not None and self._account.tokens >= tokens:
                return f"the budget of {tokens} tokens is spent"
            return None

    def _room_for(self, amount: _Amount) -> bool:
        under_way = (*self._account.in_flight.values(), amount)
        if self._limits.tokens is not None:
            tokens = self._account.tokens + sum(other.tokens for other in under_way)
            if tokens > self._limits.tokens:
                return False
        if self._limits.usd is not None:
            costs = [other.usd for other in under_way]
            known = [usd for usd in costs if usd is not None]
            return len(known) == len(costs) and self._account.usd + sum(known) <= self._limits.usd
        return True

    def _count(self, answer: Answer) -> None:
        usage = answer.usage
        self._account.calls += 1
        self._account.tokens += usage.input_tokens + usage.output_tokens
        self._account.usd += usage.cost_usd or 0.0
        self._account.unpriced += usage.cost_usd is None


def worst_case(request: ModelRequest, info: ModelInfo) -> _Amount:
    """Tokens and US dollars of one try that writes all that it may."""
    asked = estimate_tokens(request.system) + estimate_tokens(request.prompt)
    return _Amount(asked + request.max_output_tokens, info.cost_usd(asked, request.max_output_tokens))


def check_budgets(limits: Budgets, models: Sequence[ModelInfo]) -> None:
    """Raises `UsageError` for a budget in money with a model whose price nobody knows."""
    unpriced = [info.name for info in models if info.cost_usd(1, 1) is None]
    if limits.usd is not None and unpriced:
        raise UsageError(
            f"a budget of ${limits.usd:g} can't be kept: the price of {' and '.join(unpriced)} isn't known",
            remedy="state it in your models_file (input_usd_per_mtok and output_usd_per_mtok, 0 for a server of your "
            "own), or limit tokens instead",
        )


def check_first(request: ModelRequest | None, models: Sequence[ModelInfo], limits: Budgets) -> None:
    """Raises `UsageError` for a budget that isn't sure to last for the first question of a run (None: it has none)."""
    info = next((model for model in models if request is not None and model.name == request.model), None)
    if request is None or info is None or Spending(limits).may_ask(request, info):
        return
    most = worst_case(request, info)
    costs = f"{most.tokens:,} tokens" + ("" if most.usd is None else f" or ${most.usd:.4f}")
    raise UsageError(
        f"the budget isn't sure to last for one question to {info.name}, which may take {costs}",
        remedy="allow more with --usd or --tokens, or state fewer output_tokens for the model in your models_file",
    )


def estimate(
    evals: int, prompt_tokens: int, info: ModelInfo, *, reply_tokens: int = 1_500, questions: int = 3
) -> Forecast:
    """What a run of so many evaluations may cost, if this model is asked for each.

    Low: one question an evaluation, and replies of `reply_tokens`, about a kernel of 100 lines without thinking. High:
    `questions` questions an evaluation (replies that hold no kernel are asked for again), each answered at full length.
    """
    replies = min(reply_tokens, info.output_tokens)
    high = evals * questions
    return Forecast(
        calls_low=evals,
        calls_high=high,
        tokens_low=evals * (prompt_tokens + replies),
        tokens_high=high * (prompt_tokens + info.output_tokens),
        usd_low=info.cost_usd(evals * prompt_tokens, evals * replies),
        usd_high=info.cost_usd(high * prompt_tokens, high * info.output_tokens),
    )


def estimate_for_any(evals: int, prompt_tokens: int, models: Sequence[ModelInfo]) -> Forecast:
    """The same where it is open which of several models is asked: all the cheapest, or all the dearest.

    Where one price isn't known, neither is the cost.
    """
    all_of = [estimate(evals, prompt_tokens, info) for info in models]
    lows = [forecast.usd_low for forecast in all_of if forecast.usd_low is not None]
    highs = [forecast.usd_high for forecast in all_of if forecast.usd_high is not None]
    known = len(lows) == len(highs) == len(all_of) > 0
    return Forecast(
        calls_low=min((forecast.calls_low for forecast in all_of), default=0),
        calls_high=max((forecast.calls_high for forecast in all_of), default=0),
        tokens_low=min((forecast.tokens_low for forecast in all_of), default=0),
        tokens_high=max((forecast.tokens_high for forecast in all_of), default=0),
        usd_low=min(lows) if known else None,
        usd_high=max(highs) if known else None,
    )
