"""The Python runner around a Triton candidate under Triton's interpreter. Runs inside the walls.

Started as `python -I -m kernelevolve.harness.triton_interpreter MODULE ENTRY DEVICE COMMANDS ANSWERS INPUTS OUTPUTS`
with TRITON_INTERPRET=1 in the environment; it speaks the protocol that native/runner.cpp describes.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

from kernelevolve.hardware.devices import known
from kernelevolve.harness.layout import COMMAND, CONSTANT, OUTPUT, Layout, Reader, unpack
from kernelevolve.harness.pyrunner import PR_SET_PDEATHSIG, map_block, slot_arguments
from kernelevolve.harness.triton_device import pretending
from kernelevolve.harness.triton_mends import OnCpu, mend
from kernelevolve.languages.base import Loaded
from kernelevolve.languages.triton import Triton


class _Served:
    """A loaded candidate and the arguments of its calls."""

    def __init__(self, loaded: Loaded, layout: Layout, calls: list[list[tuple[Any, ...]]]) -> None:
        self._loaded = loaded
        self._layout = layout
        self._calls = calls

    def prepare(self, workload: int) -> None:
        """Pack the constants once; the result goes between inputs and outputs."""
        arguments = self._layout.workloads[workload].arguments
        constants = [v for a, v in zip(arguments, self._calls[workload][0], strict=True) if a.kind == CONSTANT]
        assert self._loaded.prepare is not None
        packed = self._loaded.prepare(*constants)
        inputs = sum(a.kind != OUTPUT for a in arguments)
        self._calls[workload] = [(*call[:inputs], packed, *call[inputs:]) for call in self._calls[workload]]

    def run(self, workload: int, slots: bytes) -> None:
        """Call once for each slot."""
        for slot in slots:
            self._loaded.run(*self._calls[workload][slot])


def main(argv: list[str]) -> None:
    """Serve until the judge closes the pipe."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    module, entry, device = argv[1:4]
    commands, answers, inputs, outputs = (int(fd) for fd in argv[4:])
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    mend()
    read = Reader(commands)
    with pretending(known(device)), OnCpu(), torch.no_grad(), contextlib.suppress(EOFError):
        layout = unpack(read)
        memory = map_block(inputs, mmap.PROT_READ), map_block(outputs, mmap.PROT_READ | mmap.PROT_WRITE)
        calls = slot_arguments(layout, *memory)
        try:
            served = _Served(loaded := Triton().load(Path(module), entry), layout, calls)
        except Exception as error:  # noqa: BLE001 - the process boundary: what the module raises becomes an answer
            _refuse(answers, error, module)
            return
        os.write(answers, b"p" if loaded.prepare else b".")
        while True:
            _serve_one(read, answers, served, module)


def _serve_one(read: Reader, answers: int, served: _Served, module: str) -> None:
    operation, _, workload, _, count = COMMAND.unpack(read(COMMAND.size))
    slots = read(count)
    try:
        if operation == b"p":
            served.prepare(workload)
        else:
            served.run(workload, slots)
    except Exception as error:  # noqa: BLE001 - the process boundary: what the candidate raises becomes an answer
        _refuse(answers, error, module)
    else:
        os.write(answers, b".")


def _refuse(answers: int, error: BaseException, module: str) -> None:
    """Answer with the innermost cause and the candidate's line that it comes from."""
    while error.__cause__ is not None:
        error = error.__cause__
    folder = Path(module).parent
    # The interpreter works on rewritten copies of kernels: they keep file name and lines.
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == folder]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
    text = f"{where}{type(error).__name__}: {error}".encode()[:4000]
    os.write(answers, b"!" + len(text).to_bytes(2, "little") + text)


if __name__ == "__main__":
    main(sys.argv)
