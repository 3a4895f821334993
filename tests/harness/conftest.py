"""One judge for all tests of the harness: its inputs and its baselines' process are made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kernelevolve import targets
from kernelevolve.harness.judge import Judge
from kernelevolve.harness.sandbox import Sandbox
from kernelevolve.schema import Target


@pytest.fixture(scope="session")
def tiny(tiny_target_folder: Path) -> Target:
    """Each column of a matrix times a factor of its own."""
    return targets.load("tiny", tiny_target_folder)


@pytest.fixture(scope="session")
def judge(cache_dir: Path) -> Iterator[Judge]:
    before = torch.get_num_threads()
    judge = Judge(cache_dir)
    yield judge
    judge.close()
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sandbox(cache_dir: Path) -> Sandbox:
    """With namespaces, or the test is skipped: there is nothing to see without them."""
    sandbox = Sandbox.open(cache_dir)
    if not sandbox.namespaces:
        pytest.skip("no namespaces on this machine")
    return sandbox
