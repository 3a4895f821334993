"""Replies for tests: kernels that parse, one for each question, in the form that the question asks for."""

import re

from kernelevolve.schema import ModelInfo, ModelRequest
from kernelevolve.testing.scripted_client import ScriptedClient

MODEL = ModelInfo(name="m", protocol="openai-chat", context_tokens=128_000, output_tokens=4_000)


def kernel(number: int, tunables: str = "// tunable BLOCK: 8 16 32\n") -> str:
    """A C++ kernel that parses and differs by its number."""
    return f"{tunables}constexpr int kNumber = {number};\nvoid run() {{}}\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);\n"


def fenced(text: str, idea: str = "") -> str:
    """A reply with one file."""
    return f"Idea: {idea or 'another number'}\n\n```cpp file=main.cpp\n{text}```\n"


def block(search: str, replace: str) -> str:
    """A reply with one search/replace block."""
    return f"Idea: a small change\n\n```cpp\n<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n```\n"


def wanted(request: ModelRequest) -> str:
    """The kind of change that a question asks for."""
    found = re.search(r"^# What is wanted: (\w+)$", request.prompt, re.MULTILINE)
    assert found is not None
    return found[1]


def sensible(request: ModelRequest) -> str:
    """What a model with a little sense answers: whole files, blocks for a diff, and something else when asked again."""
    number = request.step + 1000 * request.attempt
    if wanted(request) != "diff":
        return fenced(kernel(number))
    line = re.search(r"^void run.*$", request.prompt, re.MULTILINE)
    assert line is not None
    return block(line[0], f"constexpr int kAdded{number} = 1;\n{line[0]}")


def a_client() -> ScriptedClient:
    """Somebody sensible."""
    return ScriptedClient(sensible)
