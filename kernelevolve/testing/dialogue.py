"""Small, valid records of questions and answers for tests; like `records`, the same each time."""

from typing import Any

from kernelevolve.schema import CallFailed, Exchange, ModelInfo, ModelRequest, Reply, Usage


def a_model(name: str = "test-model", **changes: Any) -> ModelInfo:
    """A model at 1 dollar for a million tokens in, and 5 for a million out."""
    fields: dict[str, Any] = {
        "name": name,
        "protocol": "openai-chat",
        "input_usd_per_mtok": 1.0,
        "output_usd_per_mtok": 5.0,
    }
    return ModelInfo(**{**fields, **changes})


def a_request(step: int = 0, attempt: int = 0, **changes: Any) -> ModelRequest:
    """A question at a step."""
    fields: dict[str, Any] = {
        "step": step,
        "attempt": attempt,
        "model": "test-model",
        "system": "You write kernels.",
        "prompt": f"Write the kernel of step {step}, attempt {attempt}.",
        "max_output_tokens": 1000,
    }
    return ModelRequest(**{**fields, **changes})


def a_reply(text: str = "```cpp\nvoid run() {}\n```", **changes: Any) -> Reply:
    """A reply of 200 tokens to a prompt of 1000, at the prices of `a_model`."""
    fields: dict[str, Any] = {
        "text": text,
        "stop": "end",
        "usage": Usage(input_tokens=1000, output_tokens=200, cost_usd=0.002),
        "seconds": 1.5,
    }
    return Reply(**{**fields, **changes})


def no_reply(**changes: Any) -> CallFailed:
    """A call that a service didn't answer in time."""
    fields: dict[str, Any] = {"reason": "timeout", "message": "no answer within 60 s", "tries": 3}
    return CallFailed(**{**fields, **changes})


def an_exchange(step: int = 0, attempt: int = 0, **changes: Any) -> Exchange:
    """A question with its answer."""
    fields: dict[str, Any] = {"request": a_request(step, attempt), "answer": a_reply()}
    return Exchange(**{**fields, **changes})
