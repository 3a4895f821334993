"""Whether torch can use a GPU here, and why not: looked at in a process of its own, since torch is slow to import.

The child (`python -m kernelevolve.hardware.torch_build`) prints one JSON document.
"""

import re
import subprocess
import sys

from pydantic import Field, ValidationError

from kernelevolve.schema import Record

SECONDS = 120.0
"""A cold import from a network disk, and a first context on a machine with eight GPUs, take their time."""


class TorchBuild(Record):
    """What torch says about itself and the GPUs."""

    version: str
    cuda: str | None = Field(None, description="version of CUDA that torch is built for")
    hip: str | None = Field(None, description="version of ROCm that torch is built for")
    devices: tuple[str, ...] = Field((), description="products, in torch's order")
    problem: str | None = Field(None, description="why no kernel runs on a GPU, in torch's words")


class Explained(Record):
    """A failure to use a GPU."""

    message: str
    remedy: str


_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        "not compiled with CUDA|no attribute '_cuda|built for CPU only",
        "torch is built without GPU support",
        "install a build of torch for CUDA (or ROCm); its version has no +cpu at the end",
    ),
    (
        "driver on your system is too old|driver version is insufficient|insufficient for CUDA runtime",
        "the GPU's driver is older than the CUDA that torch is built for",
        "update the driver, or install a torch built for a CUDA that the driver supports (nvidia-smi shows which)",
    ),
    (
        "unsupported display driver|driver / cuda driver combination|orward compatibility was attempted|Error 80[34]",
        "the driver's library and its kernel module don't belong together",
        "reload the kernel module or restart the machine; in a container, drop the cuda-compat package",
    ),
    (
        "system not yet initialized|Error 802",
        "the GPU is waiting for its fabric manager",
        "start nvidia-fabricmanager in the driver's version",
    ),
    (
        "no NVIDIA driver|No HIP GPUs|no CUDA-capable device|No CUDA GPUs|invalid device ordinal|Error 100[^0-9]",
        "torch sees no GPU",
        "give this process the device (container: --gpus all; check CUDA_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES)",
    ),
    (
        "no kernel image|not compatible with the current PyTorch|invalid device function",
        "this build of torch has no kernels for this GPU's architecture",
        "install a newer build of torch, or one for a newer CUDA",
    ),
    (
        "out of memory|memory allocation",
        "the GPU's memory is taken",
        "end the process that holds it (nvidia-smi or amd-smi process shows which)",
    ),
    (
        "busy or unavailable|exclusive",
        "another process has the GPU to itself",
        "end that process, or set the compute mode back to default",
    ),
    (
        "ECC|[Uu]nknown error|1 \\+ 1 is not 2|illegal memory|GPU is lost|fallen off the bus",
        "the GPU is in a bad state",
        "reset it (nvidia-smi --gpu-reset as root) or restart the machine",
    ),
    (
        "No module named '?torch",
        "torch is missing",
        "pip install torch",
    ),
)


def explain(text: str) -> Explained:
    """What a failure of torch or CUDA to use a GPU comes down to, from what was said."""
    lines = [line.strip()[:300] for line in text.splitlines() if line.strip()] or ["nothing was said"]
    for pattern, message, remedy in _CAUSES:
        if line := next((line for line in lines if re.search(pattern, line)), None):
            return Explained(message=f"{message}: {line}", remedy=remedy)
    error = next((line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)), lines[-1])
    return Explained(message=error, remedy="check: kernelevolve doctor")


def probe(seconds: float = SECONDS) -> TorchBuild:
    """Look at torch in a child process; a child that dies or hangs is a problem like any other."""
    command = [sys.executable, "-m", "kernelevolve.hardware.torch_build"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return TorchBuild(version="unknown", problem=f"no answer within {seconds:g} seconds")
    try:
        return TorchBuild.model_validate_json(answer.stdout)
    except ValidationError:
        return TorchBuild(version="unknown", problem=answer.stderr.strip() or f"exit code {answer.returncode}")


def look() -> TorchBuild:
    """In the child: import torch and run a kernel on the first GPU."""
    import torch

    build = TorchBuild(version=torch.__version__, cuda=torch.version.cuda, hip=torch.version.hip)
    if build.cuda is None and build.hip is None:
        return build.model_copy(update={"problem": "this torch is built for CPU only"})
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        names = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        if torch.ones(1, device="cuda").add(1).item() != 2:
            return build.model_copy(update={"devices": names, "problem": "1 + 1 is not 2 on the device"})
    except (RuntimeError, AssertionError) as error:  # torch raises nothing narrower
        return build.model_copy(update={"problem": str(error)})
    return build.model_copy(update={"devices": names})


if __name__ == "__main__":
    sys.stdout.write(look().model_dump_json())
