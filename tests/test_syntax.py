"""Sources are read from several threads at once."""

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kernelevolve import syntax
from kernelevolve.schema import evaluate

SOURCE = "def f(x):\n" + "".join(f"    y{i} = {'(' * 40}x + {i}{')' * 40} * [1, (2, x)][0]\n" for i in range(60))


class Cycle:
    """What a collection has to finalise, which lets another thread go on."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        sum(range(50))


@pytest.fixture
def busy_collector() -> Iterator[None]:
    """Collections in the middle of everything, and threads that change places all the time."""
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(5)
    sys.setswitchinterval(1e-6)
    yield
    gc.set_threshold(*thresholds)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("busy_collector")
def test_threads_may_read_source_and_work_out_sizes_at_once() -> None:
    """Python 3.11 fails where two trees are built at once, and a search with several lanes ended that way."""

    def read() -> int:
        for _ in range(20):
            Cycle()
        return len(syntax.module(SOURCE).body) + evaluate("2 * rows * (k + 1) + min(rows, k)", {"rows": 3, "k": 5})

    with ThreadPoolExecutor(4) as pool:
        assert {found.result() for found in [pool.submit(read) for _ in range(100)]} == {40}
