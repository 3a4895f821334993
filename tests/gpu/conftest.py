"""One judge on the first GPU for all tests here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kernelevolve import hardware, targets
from kernelevolve.harness.judge import Judge
from kernelevolve.schema import Hardware, Target


@pytest.fixture(scope="session")
def gpu(cache_dir: Path) -> Hardware:
    """The first GPU of this machine, with its ceilings."""
    found = [machine for machine in hardware.detect_all() if machine.device == "gpu"]
    assert found, "there is no GPU here, or its tool (nvidia-smi, amd-smi) doesn't answer"
    return hardware.measured(found[0].key, None, cache_dir)


@pytest.fixture(scope="session")
def judge(cache_dir: Path) -> Iterator[Judge]:
    judge = Judge(cache_dir)
    yield judge
    judge.close()


@pytest.fixture(scope="session")
def tiny(tiny_target_folder: Path) -> Target:
    """Each column of a matrix times a factor of its own."""
    return targets.load("tiny", tiny_target_folder)
