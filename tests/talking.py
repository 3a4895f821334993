"""Searches that ask: a proposer with nothing but questions, and worlds in which the order of things is fixed."""

import re
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, ClassVar

import pytest
from searching import SCALE, kernel, propose_with, some_settings

from kernelevolve.llm.base import Client
from kernelevolve.outside import Live
from kernelevolve.schema import (
    Answer,
    Brief,
    Change,
    Lineage,
    ModelInfo,
    ModelRequest,
    Parent,
    Proposal,
    Record,
    Reply,
    Trouble,
)
from kernelevolve.search import Session
from kernelevolve.settings import Settings
from kernelevolve.testing.dialogue import a_reply
from kernelevolve.testing.scripted_client import ScriptedClient
from kernelevolve.traffic import Flights

MODEL = "openai-chat:test-model@http://127.0.0.1:9/v1"
"""Nobody answers there."""


SYSTEM = "Write kernels."


class Asker:
    """Has a question for each brief. Reads `kernel N` as a kernel, `again` as a reason to ask once more."""

    name: ClassVar[str] = "scripted"
    changes: ClassVar[tuple[Change, ...]] = ("rewrite",)

    class Config(Record):
        """None."""

    def __init__(self, config: Config, *, seed: int, models: tuple[ModelInfo, ...]) -> None:
        self._models = models
        self._asked = 0
        self._read = 0
        self._told = 0

    def propose(self, brief: Brief) -> ModelRequest:
        self._asked += 1
        return self._question(brief, 0)

    def read(self, brief: Brief, request: ModelRequest, answer: Answer) -> Proposal | ModelRequest:
        self._read += 1
        text = answer.text if isinstance(answer, Reply) else ""
        if text == "again":
            return self._question(brief, request.attempt + 1)
        found = re.search(r"kernel (\d+)", text)
        return Proposal(
            proposer=self.name,
            brief=brief.digest,
            language=brief.language,
            files={"main.cpp": source(int(found[1]))} if found else {},
            lineage=Lineage(change=brief.change, parents=tuple(p.candidate.digest for p in brief.parents)),
            answer=text,
            model=request.model,
            prompt_digest=request.digest,
            usage=answer.usage,
            trouble=None if found else _trouble(answer),
        )

    def tell(self, outcome: Parent) -> None:
        self._told += 1

    def _question(self, brief: Brief, attempt: int) -> ModelRequest:
        """All that it has lived through is in the prompt: one that has forgotten some of it asks something else."""
        history = f"{self._asked} asked, {self._read} read, {self._told} told"
        parents = " ".join(parent.candidate.digest[:8] for parent in brief.parents)
        model = self._models[(self._asked + self._told) % len(self._models)]
        return ModelRequest(
            step=brief.step, attempt=attempt, model=model.name, system=SYSTEM,
            prompt=f"{brief.change} {parents}; {history}", max_output_tokens=1000,
        )  # fmt: skip


def _trouble(answer: Answer) -> Trouble:
    if not isinstance(answer, Reply):
        return Trouble(reason="no_reply", detail=answer.message)
    if answer.stop != "end":
        return Trouble(reason="refusal" if answer.stop == "refusal" else "truncated", detail="it says no kernel")
    return Trouble(reason="prose", detail=f"{answer.text!r} is no kernel")


def source(number: int) -> str:
    """A kernel of the target `tiny` that is unlike those of other numbers."""
    return kernel(SCALE, f"static const int number = {number};")


def number_of(files: dict[str, str]) -> int:
    """The number of such a kernel."""
    found = re.search(r"number = (\d+)", files["main.cpp"])
    assert found
    return int(found[1])


def a_kernel(request: ModelRequest) -> Reply:
    """A reply with a kernel of its own for each step and attempt."""
    return a_reply(f"kernel {10 * request.step + request.attempt}")


def by_number(job: Any) -> float:
    """A landscape with one summit over the kernels' numbers."""
    return 1.0 + number_of(job.candidate.files) * 7 % 11 / 10


class InStep(Live):
    """The world with its clocks in step: everything under way ends, and the lowest step lands first."""

    def choose(self, flights: Flights) -> "Future[Any] | None":
        wait(flights)
        return super().choose(flights)


def talk(monkeypatch: pytest.MonkeyPatch, client: Client, proposer: str = "talking:Asker") -> None:
    """Have searches put their questions to this client, and the proposer `scripted` be one that asks."""

    def opened(*_: object) -> Client:
        if isinstance(client, ScriptedClient):
            client._closed = False  # by the sitting before
        return client

    monkeypatch.setattr("kernelevolve.outside.Switchboard", opened)
    monkeypatch.setattr("kernelevolve.search.greet", lambda models: None)
    propose_with(monkeypatch, proposer)


def talking_settings(base: Path, cache_dir: Path, folder: Path, **changes: object) -> Settings:
    """Settings of a search that asks."""
    fields = {"proposer": "scripted", "model": (MODEL,), "policy": "random", "evals": 8, "lanes": 2}
    return some_settings(base, cache_dir, folder, **{**fields, **changes})


def in_step(session: Session) -> InStep:
    """That world for a session."""
    return InStep(session._settings, session.spec, session._store)
