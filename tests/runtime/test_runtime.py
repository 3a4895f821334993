"""The entrance to serving."""

import subprocess
import sys

import pytest
import torch
from serving import HEAD_BOX, HEAD_KERNEL, Place

from kernelevolve import Runtime
from kernelevolve.errors import TargetError, UsageError

SERVE = """
import sys
import torch
from pathlib import Path
from kernelevolve import Runtime
from kernelevolve.hardware import detect

registry, targets, cache = map(Path, sys.argv[1:])
head = Runtime(registry, targets=targets, cache_dir=cache).op("head")
head(torch.randn(4, 16), 3)
assert head.stats.hits == 1, head.stats
heavy = "sqlalchemy alembic optuna typer rich openai anthropic kernelevolve.store kernelevolve.settings".split()
print(sorted(set(heavy) & set(sys.modules)))
"""


def test_a_serving_process_carries_no_database_no_search_and_no_command_line(place: Place):
    place.publish("head", HEAD_KERNEL, HEAD_BOX)
    command = [sys.executable, "-c", SERVE, *map(str, (place.registry.path, place.targets, place.cache))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_is_left_out_comes_from_the_settings(place: Place, monkeypatch):
    place.publish("head", HEAD_KERNEL, HEAD_BOX)
    monkeypatch.setenv("KERNELEVOLVE_REGISTRY", str(place.registry.path))
    monkeypatch.setenv("KERNELEVOLVE_TARGETS", str(place.targets))
    monkeypatch.setenv("KERNELEVOLVE_CACHE", str(place.cache))
    head = Runtime().op("head")
    head(torch.randn(4, 16), 3)
    assert head.stats.hits == 1


def test_an_operation_is_made_once(place: Place):
    runtime = place.runtime()
    assert runtime.op("head") is runtime.op("head")
    assert "head" in repr(runtime.op("head"))


def test_an_unknown_operation_is_an_error(place: Place):
    with pytest.raises(TargetError, match="hea"):
        place.op("hea")


def test_an_input_named_like_the_keyword_out_is_refused(place: Place):
    for file in ("target.toml", "reference.py"):
        path = place.targets / "head" / file
        text = path.read_text()
        path.write_text(text.replace('name = "x"', 'name = "out"').replace("x, k", "out, k").replace("x[", "out["))
    with pytest.raises(UsageError, match="can't be called 'out'"):
        place.op("head")


def test_a_registry_of_one_s_own_can_be_served_from(place: Place):
    place.publish("head", HEAD_KERNEL, HEAD_BOX)
    runtime = Runtime(place.registry, hardware=place.hardware, targets=place.targets, cache_dir=place.cache)
    head = runtime.op("head")
    head(torch.randn(4, 16), 3)
    assert head.stats.hits == 1
