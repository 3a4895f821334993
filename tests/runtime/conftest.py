"""A place to serve from, for each test."""

from pathlib import Path

import pytest
from serving import (
    HEAD,
    HEAD_BOX,
    HEAD_KERNEL,
    HEAD_REFERENCE,
    SCALE,
    SCALE_BOX,
    SCALE_KERNEL,
    SCALE_REFERENCE,
    Place,
    write_target,
)

from kernelevolve import hardware
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.runtime import Op


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(tmp_path: Path, session_cache: Path) -> Place:
    folder = tmp_path / "targets"
    sizes = {"batch": 4, "n": 16, "k": 4}
    write_target(folder, "head", HEAD, HEAD_REFERENCE, sizes, {**sizes, "n": 32})
    write_target(folder, "scale", SCALE, SCALE_REFERENCE, {"rows": 4, "n": 16}, {"rows": 4, "n": 32})
    return Place(LocalRegistry(tmp_path / "registry"), folder, session_cache, hardware.detect())


@pytest.fixture
def head(place: Place) -> Op:
    """The operation `head`, with a kernel for batch 1 to 8, n 16 to 64, k 1 to 16 in float32."""
    place.publish("head", HEAD_KERNEL, HEAD_BOX)
    return place.op("head")


@pytest.fixture
def scale(place: Place) -> Op:
    """The operation `scale`, with a kernel that packs its weights."""
    place.publish("scale", SCALE_KERNEL, SCALE_BOX)
    return place.op("scale")
