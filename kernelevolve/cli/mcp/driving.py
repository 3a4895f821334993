"""The tools that do something: begin searches, answer their briefs, have a candidate judged."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import anyio
from anyio import to_thread
from pydantic import Field

from kernelevolve.cli.mcp.children import Child, Searches
from kernelevolve.cli.mcp.options import ServerOptions
from kernelevolve.cli.mcp.results import EvalDocument, NextBrief, Receipt, SearchStarted, Verdict
from kernelevolve.errors import UsageError
from kernelevolve.llm.desk import Desk, Standing, brief_id
from kernelevolve.runs import Runs
from kernelevolve.schema import ModelRequest
from kernelevolve.store import SqlStore

_BEGINS_WITHIN_S = 300.0
"""A search has measured the machine's ceilings by then, if this is the first one, and has a run to its name."""
_EVERY_S = 0.5
"""Between two looks for an open brief."""
_LONGEST_WAIT_S = 300.0

RunName = Annotated[str, Field(description="name of the run")]
BriefName = Annotated[str, Field(description="as next_brief names it: STEP.ATTEMPT")]
Wait = Annotated[
    float,
    Field(ge=0, le=_LONGEST_WAIT_S, description="seconds to wait for it; many clients give up on a call after 60"),
]


class Driving:
    """Searches run as commands in processes of their own; what is submitted goes through the walls of any candidate."""

    def __init__(self, options: ServerOptions, searches: Searches) -> None:
        self._options = options
        self._searches = searches
        self._runs = Runs(options.settings.runs)

    async def start_search(  # noqa: PLR0917, a tool's arguments all have names
        self,
        target: Annotated[str, Field(description="name of a target, see list_targets")],
        evals: Annotated[int | None, Field(ge=1, description="total budget of evaluations")] = None,
        minutes: Annotated[float | None, Field(gt=0, description="wall-clock budget of this sitting")] = None,
        language: Annotated[str | None, Field(description="kernel language: cpp, triton or cuda")] = None,
        hardware: Annotated[str | None, Field(description="key or alias of a device of this machine")] = None,
        policy: Annotated[str | None, Field(description="which parents breed next")] = None,
        seed: Annotated[int | None, Field(ge=0, description="of proposer and policy")] = None,
        proposer: Annotated[
            Literal["agent", "tuner"], Field(description="agent: you answer its briefs; tuner: walks constants alone")
        ] = "agent",
    ) -> SearchStarted:
        """Start a search for a faster kernel, then ask next_brief for work. What is left out is set by the server."""
        words = _words(
            evals=evals, minutes=minutes, language=language, hardware=hardware, policy=policy, seed=seed,
            proposer=proposer,
        )  # fmt: skip
        return await self._begin(*words, "--", target)

    async def resume_search(self, run: RunName) -> SearchStarted:
        """Go on with a run that was stopped, to its total budget. Answers that were given meanwhile are taken up."""
        standing = await to_thread.run_sync(self._standing, run)
        if standing == "searching":
            raise UsageError(f"run {run} is being searched already", remedy="ask next_brief for work")
        return await self._begin(f"--resume={run}")

    async def stop_search(self, run: RunName) -> Receipt:
        """Stop a search that this server runs. Nothing is lost: resume_search goes on with it."""
        if not self._searches.alive(run):
            raise UsageError(f"this server runs no search of {run}", remedy="the tool runs lists what there is")
        await to_thread.run_sync(self._searches.stop, run)
        return Receipt(run=run, brief="", standing=await to_thread.run_sync(self._standing, run))

    async def next_brief(
        self,
        run: RunName,
        wait_seconds: Wait = 0.0,
        again: Annotated[
            bool, Field(description="where nothing else is open: also one that was handed out already")
        ] = False,
        remember: Annotated[
            bool,
            Field(description="you remember this run's answered briefs: what they have shown is only named"),
        ] = False,
    ) -> NextBrief:
        """Take the next open brief of a run: a task with all there is to know. It is handed out to nobody else for
        half an hour. Answer it with submit_candidate, or pass it over with skip_brief."""
        until = time.monotonic() + wait_seconds
        while True:
            found = await to_thread.run_sync(self._next, run, again, remember)
            if found.brief is not None or found.standing != "searching" or time.monotonic() >= until:
                return found
            await anyio.sleep(_EVERY_S)

    async def submit_candidate(
        self,
        run: RunName,
        brief: BriefName,
        answer: Annotated[str, Field(description="in the form that the brief asks for")],
    ) -> Receipt:
        """Answer a brief. The answer is parsed, built, checked and timed by the search; read_evaluation tells how it
        ended."""
        return await to_thread.run_sync(self._answer, run, brief, answer)

    async def skip_brief(
        self, run: RunName, brief: BriefName, reason: Annotated[str, Field(description="for the record")] = ""
    ) -> Receipt:
        """Pass a brief over: it gets no answer, and the search goes on without."""
        return await to_thread.run_sync(self._skip, run, brief, reason)

    async def evaluate(
        self,
        target: Annotated[str, Field(description="name of a target")],
        files: Annotated[dict[str, str], Field(description="file name, for instance kernel.cpp, to source text")],
        workloads: Annotated[
            list[str] | None, Field(description="only these (default: all that a search uses)")
        ] = None,
        language: Annotated[str | None, Field(description="kernel language: cpp, triton or cuda")] = None,
        hardware: Annotated[str | None, Field(description="key or alias of a device of this machine")] = None,
    ) -> Verdict:
        """Judge one candidate outside any run: build it, compare its results, time it against the fastest baseline."""
        words = _words(language=language, hardware=hardware)
        words += [f"--workload={name}" for name in workloads or ()]
        with _written(files) as paths:
            child = Child(self._options.environment, "eval", *words, "--", target, *paths)
            try:
                said = await to_thread.run_sync(child.outcome, EvalDocument, abandon_on_cancel=True)
            finally:
                child.interrupt()
        return said.verdict

    async def _begin(self, *words: str) -> SearchStarted:
        child = Child(self._options.environment, "search", *words)
        try:
            run = await to_thread.run_sync(child.run_name, _BEGINS_WITHIN_S, abandon_on_cancel=True)
        except BaseException:  # whatever it is, cancellation included: nobody would know the name of this search
            child.interrupt()
            raise
        self._searches.add(run, child)
        return SearchStarted(run=run)

    def _next(self, run: str, again: bool, remember: bool) -> NextBrief:
        with self._desk(run) as desk:
            found = desk.take(again=again)
            standing = self._seen(desk)
            if found is None:
                return NextBrief(run=run, standing=standing, remark=self._why_none(run, standing, len(desk.briefs())))
            request = desk.abridged(found.request) if remember else found.request
        return NextBrief(run=run, brief=found.id, system=request.system, prompt=request.prompt, standing=standing)

    def _answer(self, run: str, brief: str, answer: str) -> Receipt:
        with self._desk(run, writes=True) as desk:
            return self._receipt(desk, desk.answer(brief, answer))

    def _skip(self, run: str, brief: str, reason: str) -> Receipt:
        with self._desk(run, writes=True) as desk:
            return self._receipt(desk, desk.skip(brief, reason))

    def _receipt(self, desk: Desk, request: ModelRequest) -> Receipt:
        standing = self._seen(desk)
        remark = "" if standing == "searching" else "kept; no search is running: resume_search takes it up"
        return Receipt(run=desk.run, brief=brief_id(request), standing=standing, remark=remark)

    def _standing(self, run: str) -> Standing:
        with self._desk(run) as desk:
            return self._seen(desk)

    def _seen(self, desk: Desk) -> Standing:
        return self._searches.standing(desk.run, desk.standing())

    def _why_none(self, run: str, standing: Standing, left: int) -> str:
        if left:
            return f"{left} open, all of them handed out already; again=true hands them out once more"
        if standing == "searching":
            return "no brief is open just now: the search is judging, or still starting; wait_seconds waits for one"
        if error := self._searches.failure(run):
            return f"the search ended: {error}"
        if standing == "ended" and self._searches.alive(run):
            return "the search is over, no brief will come; the best is being certified"
        if standing == "ended":
            return "the run has ended: no brief will come; best tells what was found"
        return "no search is running: resume_search goes on with it"

    @contextmanager
    def _desk(self, run: str, *, writes: bool = False) -> Iterator[Desk]:
        # Opened to be read first: one that is opened to be written to would be made.
        with SqlStore.open(self._runs.database, read_only=True) as store:
            if not writes:
                yield Desk(self._runs, store, run)
                return
        with SqlStore.open(self._runs.database) as store:
            yield Desk(self._runs, store, run)


def _words(**options: object) -> list[str]:
    return [f"--{name}={value}" for name, value in options.items() if value is not None]


@contextmanager
def _written(files: dict[str, str]) -> Iterator[list[str]]:
    """The files of a candidate in a folder for as long as the block lasts. Raises `UsageError` for their names."""
    if not files:
        raise UsageError("there is no candidate", remedy="give at least one file with its source")
    with TemporaryDirectory(prefix="kernelevolve-") as folder:
        paths = []
        for name, text in files.items():
            if name in {"", ".", ".."} or Path(name).name != name or "\0" in name:
                raise UsageError(f"{name!r} can't be the name of a file", remedy="give plain names, without folders")
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8")
            paths.append(str(path))
        yield paths
