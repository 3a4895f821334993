"""What a run's steps came to and what they cost, by model and by kind of change: a pure function of its record."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

from pydantic import Field

from kernelevolve.schema import Ask, Duplicate, Evaluation, Failed, NoKernel, Record, Reused, Run, Step, Usage

End = Literal[
    "measured", "reused", "triaged", "no_reply", "refusal", "truncated", "empty", "prose", "malformed_edit", "parse",
    "duplicate_source", "duplicate_code", "build", "load", "check", "time", "under_way",
]  # fmt: skip
"""How a step ended: with an evaluation, without a kernel, as a duplicate, at a stage, or not yet."""

ENDS: tuple[End, ...] = get_args(End)

NOBODY = "(no model)"
"""Who wrote what no model wrote."""


class Account(Record):
    """Steps that have something in common: how many, how they ended, and what their questions cost."""

    name: str = Field(description="of the model, or of the kind of change")
    steps: int
    ends: dict[End, int] = Field(description="number of steps by how they ended; they add up to `steps`")
    calls: int = Field(description="questions that were answered, or given up")
    input_tokens: int
    output_tokens: int
    usd: float | None = Field(description="None where a price isn't known")


class Waste(Record):
    """What became of every step of a run."""

    proposals: int = Field(description="steps that have one")
    total: Account
    by_model: tuple[Account, ...] = Field(description="add up to `total`")
    by_change: tuple[Account, ...] = Field(description="add up to `total`")
    open_steps: int = Field(description="steps with paid questions that came to no proposal yet; no part of `total`")
    open_usage: Usage = Field(description="what those have cost")


def waste_of(run: Run, asks: Iterable[Ask]) -> Waste:
    """Out of a run's steps, and its questions with their answers."""
    usage = {ask.number: [exchange.answer.usage for exchange in ask.exchanges] for ask in asks}
    by_model, by_change = (
        _groups(run, lambda s: s.proposal.model or NOBODY),
        _groups(run, lambda s: s.proposal.lineage.change),
    )
    known = {step.number for step in run.steps}
    open_ones = [used for number, used in usage.items() if number not in known and used]
    return Waste(
        proposals=len(run.steps),
        total=_account("total", run.steps, usage),
        by_model=tuple(_account(name, steps, usage) for name, steps in by_model),
        by_change=tuple(_account(name, steps, usage) for name, steps in by_change),
        open_steps=len(open_ones),
        open_usage=_sum([one for used in open_ones for one in used]),
    )


def end_of(evaluation: Evaluation | None) -> End:
    """How a step ended, by its evaluation in the search."""
    if evaluation is None:
        return "under_way"
    for finding in evaluation.diagnostics:
        if isinstance(finding, Reused):
            return "reused"
        if isinstance(finding, Duplicate):
            return "duplicate_source" if finding.by == "source" else "duplicate_code"
        if isinstance(finding, NoKernel):
            return finding.reason
    if isinstance(evaluation, Failed):
        return evaluation.stage
    return "measured" if evaluation.outcome == "passed" else "triaged"


def rows(waste: Waste) -> list[tuple[str, ...]]:
    """The accounts as a table: who or what, steps, then a column for each end that occurs, tokens and money."""
    shown = ends(waste)
    return [_row(account, shown) for account in (*waste.by_model, *waste.by_change, waste.total)]


def ends(waste: Waste) -> tuple[End, ...]:
    """The ends that occur."""
    return tuple(end for end in ENDS if waste.total.ends.get(end))


def money(usd: float | None) -> str:
    """US dollars."""
    return "unknown" if usd is None else f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def _row(account: Account, shown: Iterable[End]) -> tuple[str, ...]:
    counts = [str(account.ends.get(end, 0)) for end in shown]
    tokens = f"{account.input_tokens:,}", f"{account.output_tokens:,}"
    return account.name, str(account.steps), *counts, str(account.calls), *tokens, money(account.usd)


def _groups(run: Run, key: Callable[[Step], str]) -> list[tuple[str, list[Step]]]:
    """Steps by what they have in common, the most frequent first."""
    found: dict[str, list[Step]] = defaultdict(list)
    for step in run.steps:
        found[key(step)].append(step)
    return sorted(found.items(), key=lambda item: -len(item[1]))


def _account(name: str, steps: Sequence[Step], usage: Mapping[int, Sequence[Usage]]) -> Account:
    spent = [one for step in steps for one in usage.get(step.number, ())]
    total = _sum(spent)
    return Account(
        name=name,
        steps=len(steps),
        ends=dict(Counter(end_of(step.evaluation) for step in steps)),
        calls=len(spent),
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        usd=total.cost_usd,
    )


def _sum(usages: Sequence[Usage]) -> Usage:
    costs = [usage.cost_usd for usage in usages]
    known = [cost for cost in costs if cost is not None]
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
        cost_usd=sum(known) if len(known) == len(costs) else None,
    )
