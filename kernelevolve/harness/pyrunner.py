"""The Python runner: holds a target's baselines and calls them when told to. Trusted code, no walls.

Started by the judge as `python -m kernelevolve.harness.pyrunner BASELINES.py THREADS NAME:MODE... COMMANDS ANSWERS
INPUTS OUTPUTS`; it speaks the protocol that native/runner.cpp describes.
"""

import ctypes
import importlib.util
import mmap
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch

from kernelevolve.harness.layout import COMMAND, CONSTANT, OUTPUT, SCALAR, Argument, Layout, Reader, unpack
from kernelevolve.harness.oracle import torch_dtype

Function = Callable[..., Any]
PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Serve until the judge closes the pipe."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    path, threads, *named = argv[1:-4]
    commands, answers, inputs, outputs = (int(fd) for fd in argv[-4:])
    torch.set_num_threads(int(threads))
    torch.set_grad_enabled(False)
    torch._dynamo.config.recompile_limit = 256  # one graph a workload; past the limit it would fall back to eager
    warnings.filterwarnings("ignore", message="The given buffer is not writable")  # inputs never are
    read = Reader(commands)
    try:
        layout = unpack(read)
        calls = slot_arguments(
            layout, map_block(inputs, mmap.PROT_READ), map_block(outputs, mmap.PROT_READ | mmap.PROT_WRITE)
        )
        functions = _functions(path, named)
        os.write(answers, b".")
        while True:
            _serve_one(read, answers, functions, calls)
    except EOFError:
        return


def _serve_one(read: Reader, answers: int, functions: list[Function], calls: list[list[tuple[Any, ...]]]) -> None:
    _, function, workload, _, count = COMMAND.unpack(read(COMMAND.size))
    slots = read(count)
    run, arguments = functions[function], calls[workload]
    try:
        for slot in slots:
            run(*arguments[slot])
    except Exception as error:  # noqa: BLE001 - the process boundary: whatever a baseline raises becomes an answer
        text = f"{type(error).__name__}: {error}".encode()[:4000]
        os.write(answers, b"!" + len(text).to_bytes(2, "little") + text)
    else:
        os.write(answers, b".")


def map_block(fd: int, protection: int) -> mmap.mmap | None:
    """A block of the judge's shared memory; None for an empty one."""
    size = os.fstat(fd).st_size
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=protection) if size else None


def slot_arguments(layout: Layout, inputs: mmap.mmap | None, outputs: mmap.mmap | None) -> list[list[tuple[Any, ...]]]:
    """The arguments of `run`, by workload and slot: tensors without a copy, and integers."""

    def value(a: Argument, slot: int) -> torch.Tensor | int:
        if a.kind == SCALAR:
            return a.value
        dtype = torch_dtype(a.dtype)
        count = 1
        for size in a.shape:
            count *= size
        memory = outputs if a.kind == OUTPUT else inputs
        if count == 0 or memory is None:
            return torch.empty(a.shape, dtype=dtype)
        offset = a.offset + slot * (0 if a.kind == CONSTANT else a.stride)
        return torch.frombuffer(memory, dtype=dtype, count=count, offset=offset).view(a.shape)

    return [
        [tuple(value(a, slot) for a in workload.arguments) for slot in range(workload.slots)]
        for workload in layout.workloads
    ]


def _functions(path: str, named: list[str]) -> list[Function]:
    spec = importlib.util.spec_from_file_location("kernelevolve_baselines", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernelevolve_baselines"] = module
    spec.loader.exec_module(module)
    found = []
    for name_and_mode in named:
        name, _, mode = name_and_mode.partition(":")
        function = getattr(module, name)
        found.append(torch.compile(function, dynamic=False) if mode == "compiled" else function)
    return found


if __name__ == "__main__":
    main(sys.argv)
