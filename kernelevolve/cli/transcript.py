"""A run as a text: every question that was put, every answer, and how each step ended."""

from collections.abc import Iterable, Iterator

from kernelevolve.cli import formats
from kernelevolve.schema import Ask, Evaluation, Exchange, Failed, Passed, Reply, Run, Step, Triaged


def transcript(run: Run, asks: Iterable[Ask]) -> Iterator[str]:
    """Lines of Markdown, by step. The system text is said where it is first used, and where it changes."""
    spec = run.spec
    yield f"# Transcript of {spec.run}"
    yield ""
    yield (
        f"{spec.target.name} on {spec.hardware.key}, {spec.language}, proposer {spec.proposer}, policy {spec.policy}, "
        f"seed {spec.seed}; kernelevolve {spec.kernelevolve}."
    )
    by_step = {ask.number: ask for ask in asks}
    system = ""
    for step in run.steps:
        ask = by_step.get(step.number)
        for exchange in ask.exchanges if ask else ():
            yield from _exchange(exchange, said=exchange.request.system == system)
            system = exchange.request.system
        yield from _outcome(step)


def _exchange(exchange: Exchange, *, said: bool) -> Iterator[str]:
    request, answer = exchange.request, exchange.answer
    yield from ("", f"## Question {request.step}.{request.attempt} to {request.model}")
    if not said:
        yield from ("", "### System", "", request.system.strip())
    yield from ("", "### Prompt", "", request.prompt.strip(), "", "### Answer", "")
    yield answer.text.strip() if isinstance(answer, Reply) else f"none ({answer.reason}): {answer.message}"


def _outcome(step: Step) -> Iterator[str]:
    label = step.candidate.label if step.candidate else step.proposal.lineage.origin
    yield from ("", f"### Step {step.number}, {step.proposal.lineage.change}: {label}", "")
    yield "not judged" if step.evaluation is None else _verdict(step.evaluation)
    for again in step.confirmations:
        yield f"looked at again: {_verdict(again)}"


def _verdict(found: Evaluation) -> str:
    if isinstance(found, Failed):
        first = found.diagnostics[0].message if found.diagnostics else "without a finding"
        return f"failed at {found.stage}: {first}"
    if isinstance(found, Passed):
        return f"passed, {formats.speedup(found)}"
    assert isinstance(found, Triaged)
    guess = "no estimate" if found.estimated_us is None else f"estimated {formats.microseconds(found.estimated_us)} us"
    return f"triaged, not measured: {guess}"
