"""What the tests share: one build cache, and one target that is judged in a moment."""

import signal
from pathlib import Path

import pytest

from kernelevolve import targets

pytest.register_assert_rewrite("kernelevolve.testing")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so do its children


@pytest.fixture(autouse=True)
def _settings_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What whoever runs the tests has set for themselves is not what they are about."""
    for name in ("REGISTRY", "RUNS", "CACHE", "TARGETS", "PROMPTS", "SETTINGS"):
        monkeypatch.delenv(f"KERNELEVOLVE_{name}", raising=False)


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
