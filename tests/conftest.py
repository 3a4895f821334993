"""What the tests share: one build cache, and one target that is judged in a moment."""

from pathlib import Path

import pytest

from kernelevolve import targets

pytest.register_assert_rewrite("kernelevolve.testing")

SHRUNK = (
    ("64x", "16x"), ("512x", "64x"), ("x2048", "x512"), ("x500", "x300"),
    ("rows = 64", "rows = 16"), ("rows = 512", "rows = 64"), ("n = 2048", "n = 512"), ("n = 500", "n = 300"),
)  # fmt: skip


@pytest.fixture(scope="session")
def cache_dir(request: pytest.FixtureRequest) -> Path:
    """A build cache that outlives the session: native tools and the precompiled header are built once."""
    assert request.config.cache is not None
    return request.config.cache.mkdir("kernelevolve")


@pytest.fixture(scope="session")
def tiny_target_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one target, `tiny`: the template, on shapes that take microseconds, without torch.compile."""
    folder = tmp_path_factory.mktemp("targets")
    file = targets.create("tiny", folder) / "target.toml"
    lines = [line for line in file.read_text().splitlines() if "compiled = true" not in line]
    text = "\n".join(lines)
    for old, new in SHRUNK:
        text = text.replace(old, new)
    file.write_text(text)
    return folder
