"""The Python runner: holds a target's baselines and calls them when told to. Trusted code, no walls.

Started by the judge as `python -m kernelevolve.harness.pyrunner BASELINES.py THREADS MEMORY DEVICE NAME:MODE...
COMMANDS ANSWERS INPUTS OUTPUTS`.
"""

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import cast

import torch

from kernelevolve.harness.access import Memory
from kernelevolve.harness.runner_loop import serve
from kernelevolve.languages.base import Kernel


def main(argv: list[str]) -> None:
    """Serve until the judge closes the pipe."""
    path, threads, memory, device, *named = argv[1:-4]
    torch.set_num_threads(int(threads))
    torch.set_grad_enabled(False)
    torch._dynamo.config.recompile_limit = 256  # one graph a workload; past the limit it would fall back to eager
    warnings.filterwarnings("ignore", message="The given buffer is not writable")  # inputs never are
    file = Path(path)
    serve(
        lambda: (_functions(file, named, device), None), cast(Memory, memory), device,
        [int(fd) for fd in argv[-4:]], folder=file.parent,
    )  # fmt: skip


def _functions(path: Path, named: list[str], device: str) -> list[Kernel]:
    spec = importlib.util.spec_from_file_location("kernelevolve_baselines", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernelevolve_baselines"] = module
    spec.loader.exec_module(module)
    # On a GPU the best that torch.compile can do; its graphs are left out, since calls are timed as calls.
    mode = None if device == "cpu" else "max-autotune-no-cudagraphs"
    found = []
    for name_and_mode in named:
        name, _, compiled = name_and_mode.partition(":")
        function = getattr(module, name)
        found.append(torch.compile(function, dynamic=False, mode=mode) if compiled == "compiled" else function)
    return found


if __name__ == "__main__":
    main(sys.argv)
