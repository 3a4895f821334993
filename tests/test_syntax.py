"""Sources are read from several threads at once."""

from concurrent.futures import ThreadPoolExecutor

from kernelevolve import syntax
from kernelevolve.schema import evaluate

SOURCE = "def f(x):\n" + "".join(f"    y{i} = {'(' * 40}x + {i}{')' * 40} * [1, (2, x)][0]\n" for i in range(60))


def test_threads_may_read_source_and_work_out_sizes_at_once() -> None:
    """Python 3.11 breaks where two trees are built at once: a search with several lanes ended that way."""
    with ThreadPoolExecutor(4) as pool:
        trees = [pool.submit(syntax.module, SOURCE) for _ in range(60)]
        sizes = [pool.submit(evaluate, "2 * rows * (k + 1) + min(rows, k)", {"rows": 3, "k": 5}) for _ in range(2000)]
    assert all(len(tree.result().body) == 1 for tree in trees)
    assert {size.result() for size in sizes} == {39}
