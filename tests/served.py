"""Model services for whole searches: they write kernels out of what the prompt shows, and keep their own books."""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from searching import landscape

from kernelevolve.catalog import Catalog
from kernelevolve.llm.service import Service
from kernelevolve.llm.tokens import estimate_tokens
from kernelevolve.schema import Evaluation, Job
from kernelevolve.testing.model_server import Asked, Behaviour, Fails, ModelServer, Says
from kernelevolve.testing.model_wire import PROTOCOLS

IN_PRICE, OUT_PRICE = 3.0, 15.0
"""US dollars per million tokens."""

QUICK = Service.Config(first_wait_s=0.001, stall_s=0.2, deadline_s=5.0)
"""Limits for services on this machine, which are slow only where a test says so."""

Change = Callable[[str, Asked], str]
"""Makes another kernel out of a source."""


class Writer:
    """A model with the memory of a model: it changes the kernel that it is shown, or one that it remembers."""

    def __init__(self, first: str, change: Change) -> None:
        """`first`: what it knows of before it has been shown anything."""
        self.written: set[str] = set()
        """every kernel that it ever wrote, as a whole"""
        self._known = first
        self._change = change
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Says:
        """A whole kernel, or one search/replace block where those are asked for."""
        with self._lock:
            before = self._known = shown(asked.prompt) or self._known
            after = self._change(before, asked)
            self.written.add(after.strip() + "\n")
        idea = f"Idea: what number {asked.number} says.\n\n"
        if "Answer with search/replace blocks" in asked.prompt and shown(asked.prompt):
            return Says(idea + _blocks(before, after))
        return Says(f"{idea}```cpp file=main.cpp\n{after.strip()}\n```\n")


def shown(prompt: str) -> str | None:
    """The kernel that a prompt holds: the first parent's or the example's."""
    heading = re.search(r"^# (The parent|Parent 1|A kernel of this task)\b", prompt, re.MULTILINE)
    source = heading and re.search(r"```cpp file=\S+\n(.*?)\n```", prompt[heading.end() :], re.DOTALL)
    return source[1] if source else None


def numbered(source: str, asked: Asked) -> str:
    """The kernel whose number is one higher, unlike any other kernel; a kernel without a number has the number 0."""
    found = re.search(r"const int number = (\d+), salt = \d+;", source)
    line = f"const int number = {int(found[1]) + 1 if found else 1}, salt = {asked.number};"
    return source.replace(found[0], line) if found else source.replace("void run(", f"{line} void run(")


def number_of(files: Mapping[str, str]) -> int:
    """The number of such a kernel."""
    found = re.search(r"const int number = (\d+)", "".join(files.values()))
    return int(found[1]) if found else 0


def _blocks(before: str, after: str) -> str:
    """A block for each line that differs; the change keeps the number of lines."""
    lines = zip(before.strip().splitlines(), after.strip().splitlines(), strict=True)
    return "\n".join(f"<<<<<<< SEARCH\n{a}\n=======\n{b}\n>>>>>>> REPLACE" for a, b in lines if a != b)


@dataclass(frozen=True)
class Bill:
    """What a service has counted."""

    input_tokens: int
    output_tokens: int

    @property
    def usd(self) -> float:
        """At the prices of these tests."""
        return (self.input_tokens * IN_PRICE + self.output_tokens * OUT_PRICE) / 1e6


class Books:
    """Stands before a script, and notes what was said to each request."""

    def __init__(self, script: Callable[[Asked], Behaviour | str]) -> None:
        self.said: dict[int, Behaviour] = {}
        self._script = script

    def __call__(self, asked: Asked) -> Behaviour:
        """What the script says."""
        said = self._script(asked)
        self.said[asked.number] = Says(said) if isinstance(said, str) else said
        return self.said[asked.number]

    def bill(self, server: ModelServer) -> Bill:
        """Of streamed replies: what the service reported or, where a reply broke off before that, the estimate."""
        entries = [_entry(asked, self.said[asked.number]) for asked in server.asked if asked.number in self.said]
        return Bill(sum(e.input_tokens for e in entries), sum(e.output_tokens for e in entries))


def _entry(asked: Asked, said: Behaviour) -> Bill:
    if isinstance(said, Fails):
        return Bill(0, 0)
    words = next(p for p in PROTOCOLS if p.name == asked.protocol).words(asked.body).input_tokens
    if isinstance(said, Says):
        return Bill(words, said.output_tokens)
    asked_for = words if asked.protocol == "anthropic" else estimate_tokens(asked.system + asked.prompt)
    return Bill(asked_for, estimate_tokens(getattr(said, "text", "half a")))


def models_file(folder: Path, server: ModelServer, protocol: str) -> Path:
    """A models file that knows the server's model `fake`, and what it costs."""
    file = folder / "models.toml"
    file.write_text(
        f'[models.fake]\nprotocol = "{protocol}"\nbase_url = "{server.base_url(protocol)}"\noutput_tokens = 2_000\n'
        f"input_usd_per_mtok = {IN_PRICE}\noutput_usd_per_mtok = {OUT_PRICE}\n"
    )
    return file


def at_home(monkeypatch: pytest.MonkeyPatch, home: Path, **folders: Path) -> None:
    """Have commands in this process use folders of the test's own, one thread, and no key of whoever runs the tests."""
    monkeypatch.chdir(home)
    for name, value in {"registry": home / "registry", "threads": 1, **folders}.items():
        monkeypatch.setenv(f"KERNELEVOLVE_{name.upper()}", str(value))
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)


def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have searches give up on a silent service at once, and try again at once."""
    monkeypatch.setattr(Service.Config, "within", lambda seconds: QUICK)


def on_landscape(monkeypatch: pytest.MonkeyPatch, speedup: Callable[[Job], float | Evaluation]) -> list[Job]:
    """Have searches and certifications ask this function instead of a machine; the jobs, in order."""
    jobs = landscape(monkeypatch, speedup)
    monkeypatch.setattr("kernelevolve.certify.EXECUTORS", Catalog("executors", {"local": "searching:Landscape"}))
    return jobs


def turned(source: str, asked: Asked) -> str:
    """The kernel with another default for one of its tunables and, where it has one, another constant."""
    lines = source.strip().splitlines()
    declared = [at for at, line in enumerate(lines) if line.startswith("// tunable ")]
    at = declared[asked.number % len(declared)]
    name, _, values = lines[at].partition(": ")
    first, *others = values.split()
    lines[at] = f"{name}: {' '.join([*others, first])}"
    constant = r"(constexpr int64_t k\w+ = )(\d+);"
    return re.sub(constant, lambda m: f"{m[1]}{int(m[2]) + 8 * asked.number + 8};", "\n".join(lines), count=1)
