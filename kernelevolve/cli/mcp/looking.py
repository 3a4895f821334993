"""The tools that only look: targets, runs, what came of a step, the line of a candidate, the best, documents."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import anyio
from anyio import to_thread
from pydantic import Field

from kernelevolve import hardware as machines
from kernelevolve import targets
from kernelevolve.cli.mcp.children import Searches
from kernelevolve.cli.mcp.driving import RunName, Wait
from kernelevolve.cli.mcp.options import ServerOptions
from kernelevolve.cli.mcp.results import (
    Ancestor,
    Ancestry,
    BestCandidate,
    KnowledgeFound,
    KnowledgeLine,
    RunList,
    StepReport,
    TargetLine,
    TargetList,
    Verdict,
)
from kernelevolve.cli.standing import RunStanding, best_so_far, standing_of
from kernelevolve.cli.summary import best_of, verdict_on
from kernelevolve.errors import UnknownNameError, UsageError
from kernelevolve.knowledge import Library, Query
from kernelevolve.llm.desk import brief_id
from kernelevolve.prompts import Prompts
from kernelevolve.resources import prompts_dir, targets_dir
from kernelevolve.runs import Runs
from kernelevolve.schema import Candidate, Document, Failed, Hardware, Passed, Run, Step
from kernelevolve.store import SqlStore

_EVERY_S = 0.5
"""Between two looks for an evaluation."""

_CONCLUDED = ("certified", "refused")


class Looking:
    """Reads what targets, runs and documents there are; every answer is from the store, whoever runs the search."""

    def __init__(self, options: ServerOptions, searches: Searches) -> None:
        self._settings = options.settings
        self._searches = searches
        self._runs = Runs(options.settings.runs)

    def list_targets(self) -> TargetList:
        """List the operations that can be made faster."""
        folder = targets_dir(self._settings.targets)
        return TargetList(targets=tuple(_target(name, folder) for name in targets.names(folder)))

    def runs(self) -> RunList:
        """List the searches that were made, newest first."""
        if not self._runs.database.is_file():
            return RunList(runs=())
        with self._store() as store:
            return RunList(runs=store.summaries())

    def status(self, run: RunName) -> RunStanding:
        """Where a run stands: evaluations so far, the best with its interval, open briefs."""
        found = standing_of(self._runs, run)
        return found.model_copy(update={"standing": self._searches.standing(run, found.standing)})

    async def read_evaluation(
        self, run: RunName, step: Annotated[int, Field(ge=0, description="the part of a brief's name before the dot")],
        wait_seconds: Wait = 0.0,
    ) -> StepReport:  # fmt: skip
        """How a step ended: its verdict, times against the fastest baseline, and findings with advice."""
        until = time.monotonic() + wait_seconds
        while True:
            found = await to_thread.run_sync(self._step, run, step)
            late = time.monotonic() >= until
            if found is not None and (late or found.state in {"judged", "asked"}):
                return found
            if late:
                raise UsageError(f"run {run} has no step {step}", remedy="a step is the part of a brief before the dot")
            await anyio.sleep(_EVERY_S)

    def lineage(
        self,
        run: RunName,
        step: Annotated[int | None, Field(ge=0, description="of the candidate (default: the best one)")] = None,
    ) -> Ancestry:
        """A candidate and all that it was made of, the latest first: kinds of change, ideas, and how each ended."""
        found = self._read(run)
        best = best_of(found.steps)
        number = step if step is not None else best.step if best else None
        if number is None:
            return Ancestry(run=run, steps=())
        start = next((s.candidate for s in found.steps if s.number == number), None)
        if start is None:
            raise UsageError(f"step {number} of run {run} has no candidate", remedy="read_evaluation tells why")
        return Ancestry(run=run, steps=tuple(_ancestor(s, s.candidate) for s in _line(found, start) if s.candidate))

    def best(self, run: RunName) -> BestCandidate:
        """The best candidate of a run so far, with its sources and its times; and whether it was certified."""
        found = self._read(run)
        said = next((f"{e.kind}: {e.detail}" for e in reversed(found.events) if e.kind in _CONCLUDED), "")
        best = best_of(found.steps)
        if best is None:
            return BestCandidate(run=run, certification=said)
        return BestCandidate(
            run=run,
            best=best_so_far(found),
            language=best.candidate.language,
            files=best.candidate.files,
            tunables=best.candidate.tunables,
            measurements=best.passed.measurements,
            certification=said,
        )

    def knowledge_search(  # noqa: PLR0917, a tool's arguments all have names
        self,
        words: Annotated[str, Field(description="what you want to know, in a few words")],
        target: Annotated[str, Field(description="name of the operation, if it is about one")] = "",
        language: Annotated[str | None, Field(description="only documents for this kernel language")] = None,
        hardware: Annotated[str | None, Field(description="only documents for this device: its key or alias")] = None,
        bottleneck: Annotated[str, Field(description="memory, compute, latency, occupancy, compile, correctness, ...")]
        = "unknown",
        at_most: Annotated[int, Field(ge=1, le=50, description="documents to name")] = 8,
    ) -> KnowledgeFound:  # fmt: skip
        """Search what is known about writing fast kernels; knowledge_read opens a document."""
        query = Query(
            target=target, summary=words, language=language, bottleneck=bottleneck, skills=True,
            hardware=None if hardware is None else _machine(hardware),
        )  # fmt: skip
        found = self._library().find(query)[:at_most]
        lines = [KnowledgeLine(path=m.line.path, title=m.line.title, gives=m.line.gives, score=m.score) for m in found]
        return KnowledgeFound(documents=tuple(lines))

    def knowledge_read(self, path: Annotated[str, Field(description="as knowledge_search names it")]) -> Document:
        """Read a document about writing fast kernels."""
        return self._library().document(path)

    def _library(self) -> Library:
        return Library.load(Prompts(prompts_dir(self._settings.prompts)), self._runs.skills)

    def _step(self, run: str, number: int) -> StepReport | None:
        with self._store() as store:
            found = store.run(run)
            asked = next((r for r in store.open_questions(run) if r.step == number), None)
            answered = store.find_answer(run, number, 0) is not None
        step = next((s for s in found.steps if s.number == number), None)
        if step is not None:
            return _report(run, step)
        if asked is not None:
            return StepReport(run=run, step=number, state="asked", brief=brief_id(asked))
        if answered:
            return StepReport(run=run, step=number, state="answered")
        return None

    def _read(self, run: str) -> Run:
        with self._store() as store:
            return store.run(run)

    @contextmanager
    def _store(self) -> Iterator[SqlStore]:
        with SqlStore.open(self._runs.database, read_only=True) as store:
            yield store


def _target(name: str, folder: Path) -> TargetLine:
    target = targets.load(name, folder)
    languages = sorted({seed.language for seed in targets.seeds(name, folder)})
    workloads = tuple(w.name for w in target.workloads if w.role == "search")
    return TargetLine(name=name, summary=target.summary, workloads=workloads, languages=tuple(languages))


def _machine(name: str) -> Hardware:
    try:
        return machines.find(name)
    except UnknownNameError:
        return machines.described(name)


def _report(run: str, step: Step) -> StepReport:
    lineage, said = step.proposal.lineage, step.evaluation
    return StepReport(
        run=run,
        step=step.number,
        state="judging" if said is None else "judged",
        change=lineage.change,
        parents=lineage.parents,
        label=step.candidate.label if step.candidate else "",
        idea=step.proposal.idea,
        evaluation=Verdict.of(said) if said else None,
        confirmation=Verdict.of(step.confirmations[-1]) if step.confirmations else None,
    )


def _line(run: Run, candidate: Candidate) -> list[Step]:
    """The steps of a candidate and of all its ancestors in the run, the latest first."""
    steps = {step.candidate.digest: step for step in reversed(run.steps) if step.candidate is not None}
    left, found = [candidate], dict[str, Step]()
    while left:
        one = left.pop()
        if one.digest in steps and one.digest not in found:
            found[one.digest] = steps[one.digest]
            left += [p for name in one.lineage.parents if name in steps and (p := steps[name].candidate)]
    return sorted(found.values(), key=lambda step: step.number, reverse=True)


def _ancestor(step: Step, candidate: Candidate) -> Ancestor:
    said = verdict_on(step)
    passed = said if isinstance(said, Passed) else None
    low, high = passed.interval if passed else (None, None)
    return Ancestor(
        step=step.number,
        candidate=candidate.digest,
        change=candidate.lineage.change,
        parents=candidate.lineage.parents,
        label=candidate.label,
        idea=step.proposal.idea,
        outcome=said.outcome if said else "judging",
        speedup=passed.speedup if passed else None,
        low=low,
        high=high,
        finding=_finding(said) if isinstance(said, Failed) else "",
    )


def _finding(failed: Failed) -> str:
    first = failed.diagnostics[0].message if failed.diagnostics else ""
    return f"{failed.stage}: {first}".rstrip(": ")
