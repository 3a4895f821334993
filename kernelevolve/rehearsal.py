"""What a search would ask first and what it may cost, found out without asking anybody."""

from dataclasses import dataclass

from kernelevolve.briefing import Briefing
from kernelevolve.llm.budget import Forecast, estimate
from kernelevolve.llm.tokens import estimate_tokens
from kernelevolve.policies.base import Policy
from kernelevolve.proposers.base import Proposer
from kernelevolve.schema import Brief, ModelRequest, RunSpec

_MOST_BRIEFS = 200
"""After which a proposer that has asked nothing is taken for one that never does."""


@dataclass(frozen=True)
class Rehearsal:
    """The first question of a run, and what all of them may cost."""

    brief: Brief
    request: ModelRequest | None
    """None for a proposer that asks nobody"""
    before: int
    """proposals that come before it without a question"""
    forecasts: dict[str, Forecast]
    """by model, if it alone were asked"""


def rehearse(spec: RunSpec, proposer: Proposer, policy: Policy, briefing: Briefing) -> Rehearsal:
    """Brief the proposer until it has a question. None of the four may be used for the run itself afterwards."""
    brief = briefing.brief(0, policy.ask())
    for step in range(min(spec.evals, _MOST_BRIEFS) if spec.models else 0):
        brief = briefing.brief(step, policy.ask()) if step else brief
        said = proposer.propose(brief)
        if isinstance(said, ModelRequest):
            return Rehearsal(brief, said, step, _forecasts(spec, said, spec.evals - step))
    return Rehearsal(brief, None, 0, {})


def _forecasts(spec: RunSpec, request: ModelRequest, evals: int) -> dict[str, Forecast]:
    tokens = estimate_tokens(request.system) + estimate_tokens(request.prompt)
    return {model.name: estimate(evals, tokens, model) for model in spec.models}
