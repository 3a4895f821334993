"""The runner of candidates that are loaded by Python: Triton modules, and CUDA libraries through tvm-ffi.

Started inside the walls as `python -I -m kernelevolve.harness.module_runner LANGUAGE ARTIFACT ENTRY MEMORY DEVICE
GPU REPORT COMMANDS ANSWERS INPUTS OUTPUTS`. GPU is the key of a device to pretend, where kernels are interpreted;
REPORT is where a profile goes; "-" stands for neither.
"""

import contextlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from kernelevolve.catalog import LANGUAGES
from kernelevolve.harness.access import Memory
from kernelevolve.harness.runner_loop import serve
from kernelevolve.languages.base import Kernel


def main(argv: list[str]) -> None:
    """Serve until the judge closes the pipe."""
    language, artifact, entry, memory, device, gpu, report = argv[1:8]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)

    def load() -> tuple[Sequence[Kernel], Kernel | None]:
        loaded = LANGUAGES.load(language)().load(Path(artifact), entry)
        return (loaded.run,), loaded.prepare

    with contextlib.ExitStack() as stack:
        if gpu != "-":
            _interpret(stack, gpu)
        descriptors = [int(fd) for fd in argv[-4:]]
        serve(
            load, cast(Memory, memory), device, descriptors, folder=Path(artifact).parent,
            report=None if report == "-" else Path(report),
        )  # fmt: skip


def _interpret(stack: contextlib.ExitStack, gpu: str) -> None:
    """Let kernels run in Triton's interpreter, as if that device was there."""
    from kernelevolve.hardware.devices import known
    from kernelevolve.harness.triton_device import pretending
    from kernelevolve.harness.triton_mends import OnCpu, mend

    mend()
    stack.enter_context(pretending(known(gpu)))
    stack.enter_context(OnCpu())


if __name__ == "__main__":
    main(sys.argv)
