"""From a brief to a question that fits into a model's context."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace

from kernelevolve.llm.tokens import estimate_tokens
from kernelevolve.prompts import Prompts
from kernelevolve.proposers.evidence import Evidence, evidence_of, without_folders
from kernelevolve.proposers.task import Machine, Task, machine_of, task_of
from kernelevolve.proposers.templates import Templates
from kernelevolve.schema import Attempt, Bottleneck, Brief, Change, Document, ModelInfo, ModelRequest, Seed

SYSTEM, BRIEF, FOLLOW_UP = "system.j2", "brief.j2", "followup.j2"

_FIRST_DOCUMENTS, _FIRST_ATTEMPTS = 2, 4
"""What is kept longest of each: the contract and the language's page come first among documents."""


@dataclass(frozen=True)
class View:
    """The variables of the template of a brief: everything that a model may be told, and nothing else."""

    change: Change
    language: str
    suffix: str
    """of a source file, for instance .cpp"""
    task: Task
    machine: Machine | None
    parents: tuple[Evidence, ...]
    bottleneck: Bottleneck | None
    history: tuple[Attempt, ...]
    documents: tuple[Document, ...]
    example: Seed | None
    """a seed that shows what a kernel looks like"""
    tuned: bool
    """whether a tuner walks declared tunables afterwards"""

    @classmethod
    def of(cls, brief: Brief, suffix: str, example: Seed | None, *, tuned: bool) -> "View":
        """All that there is to say about a brief."""
        bottleneck = brief.bottleneck and Bottleneck(
            name=brief.bottleneck.name, message=without_folders(brief.bottleneck.message)
        )
        history = (a.model_copy(update={"finding": without_folders(a.finding)}) for a in brief.history)
        return cls(
            change=brief.change,
            language=brief.language,
            suffix=suffix,
            task=task_of(brief.target, brief.hardware, brief.baseline_us),
            machine=machine_of(brief.hardware),
            parents=tuple(evidence_of(parent) for parent in brief.parents),
            bottleneck=bottleneck,
            history=tuple(history),
            documents=brief.documents,
            example=example,
            tuned=tuned,
        )

    @property
    def variables(self) -> dict[str, object]:
        """By the names that templates use."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True)
class Complaint:
    """What is wrong with an answer, for the question that follows it."""

    reply: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A request, and what of the brief it leaves out."""

    request: ModelRequest
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class TooLong:
    """What may not be left out has no room in a model's context."""

    needed: int
    """tokens, as far as they can be told"""
    room: int


@dataclass(frozen=True)
class _Less:
    """A view with one part fewer."""

    dropped: str
    view: View


class Renderer:
    """Asks in the words of the templates of a folder. Every method raises `UsageError` for one that can't be used."""

    def __init__(self, prompts: Prompts) -> None:
        self._templates = Templates(prompts.templates)
        parts = (name for name in prompts.template_names() if name.startswith(("contract-", "change-")))
        for name in (BRIEF, SYSTEM, *parts):
            self._templates.check(name, [field.name for field in fields(View)])
        self._templates.check(FOLLOW_UP, [field.name for field in fields(Complaint)])

    def question(
        self,
        brief: Brief,
        view: View,
        model: ModelInfo,
        *,
        temperature: float | None,
        complaint: Complaint | None = None,
    ) -> Question | TooLong:
        """The question with as much as fits.

        The least useful part goes first: documents after the first two, attempts after the first four, the example,
        the other attempts, the machine, measurements, the first documents, and findings. The task, the contract,
        sources of parents, the change that is wanted and a complaint are never left out.
        """
        room = model.context_tokens - model.output_tokens
        after = self._templates.render(FOLLOW_UP, asdict(complaint)) if complaint else ""
        system = self._templates.render(SYSTEM, view.variables)
        dropped: list[str] = []
        steps = _reductions(view)
        prompt = self._prompt(view, after)
        while (needed := estimate_tokens(system) + estimate_tokens(prompt)) > room:
            less = next(steps, None)
            if less is None:
                return TooLong(needed, room)
            dropped.append(less.dropped)
            prompt = self._prompt(less.view, after)
        request = ModelRequest(
            step=brief.step,
            attempt=1 if complaint else 0,
            model=model.name,
            system=system,
            prompt=prompt,
            max_output_tokens=model.output_tokens,
            temperature=temperature,
        )
        return Question(request, tuple(dropped))

    def _prompt(self, view: View, after: str) -> str:
        variables: Mapping[str, object] = view.variables
        sections = [self._templates.render(BRIEF, variables, block) for block in self._templates.blocks(BRIEF)]
        return "\n\n".join(section for section in (*sections, after) if section) + "\n"


def _reductions(view: View) -> Iterator[_Less]:
    """One part fewer each time, the least useful first."""
    for document in reversed(view.documents[_FIRST_DOCUMENTS:]):
        view = replace(view, documents=view.documents[:-1])
        yield _Less(f"document {document.path}", view)
    while len(view.history) > _FIRST_ATTEMPTS:
        view = replace(view, history=view.history[:-1])
        yield _Less(f"attempt {len(view.history) + 1}", view)
    if view.example is not None:
        name, view = view.example.name, replace(view, example=None)
        yield _Less(f"example {name}", view)
    while view.history:
        view = replace(view, history=view.history[:-1])
        yield _Less(f"attempt {len(view.history) + 1}", view)
    if view.machine is not None:
        view = replace(view, machine=None)
        yield _Less("machine", view)
    if any(parent.measurements for parent in view.parents):
        view = replace(view, parents=tuple(replace(parent, measurements=()) for parent in view.parents))
        yield _Less("measurements", view)
    for document in reversed(view.documents):
        view = replace(view, documents=view.documents[:-1])
        yield _Less(f"document {document.path}", view)
    if any(parent.findings for parent in view.parents):
        view = replace(view, parents=tuple(replace(parent, findings=()) for parent in view.parents))
        yield _Less("findings", view)
