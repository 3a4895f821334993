"""What this machine offers for kernels of GPUs: compilers anywhere, the rest where a GPU is."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from kernelevolve.cli.finding import Finding
from kernelevolve.errors import KernelevolveError
from kernelevolve.hardware import devices, gpu_state, nvidia_smi, torch_build
from kernelevolve.harness.profilers.ncu import restricted
from kernelevolve.schema import Hardware

_PARAMETERS = Path("/proc/driver/nvidia/params")


def examine(gpus: Sequence[Hardware]) -> Iterator[Finding]:
    """Rows about GPUs, their drivers and their tools. torch is looked at in a process of its own, if there is a GPU."""
    for gpu in gpus:
        yield _gpu(gpu)
        yield from _state(gpu)
    if not gpus:
        cost = (
            "searches are for this CPU; for a GPU install its driver (nvidia-smi, amd-smi or rocm-smi are asked), and "
            "give a container the device. Kernels of GPUs can be checked here all the same: kernelevolve triage"
        )
        yield Finding(name="gpu", state="note", found="none", cost=cost)
    yield from _nvcc(gpus)
    if any(gpu.vendor == "nvidia" for gpu in gpus):
        yield _ncu()
    if any(gpu.vendor == "amd" for gpu in gpus):
        yield _tool("amd-smi", "clocks and errors are read from the older rocm-smi, or not at all; it comes with ROCm")
        yield _tool("rocprofv3", "profiles have times (Proton) but no counters; it comes with ROCm (rocprofiler-sdk)")
    if gpus:
        yield _torch()


def _gpu(gpu: Hardware) -> Finding:
    found = f"{gpu.key}: {gpu.product}, {gpu.architecture}, {gpu.memory_bytes / 2**30:.0f} GiB, driver {gpu.driver}"
    known = any(gpu.key in (row.key, *row.aliases) for row in devices.DEVICES)
    if known:
        return Finding(name="gpu", state="ok", found=found)
    cost = "a product without a row in the table of devices: limits are those of its, or the nearest, architecture"
    return Finding(name="gpu", state="note", found=found, cost=f"{cost}; its kernels are filed under its own key")


def _state(gpu: Hardware) -> Iterator[Finding]:
    """How the device is doing, where its tool tells."""
    now = gpu_state.sample(gpu)
    if now is None:
        return
    told = [
        f"{value:.0f} {unit}"
        for value, unit in ((now.sm_clock_mhz, "MHz"), (now.temperature_c, "C"), (now.power_w, "W"))
        if value is not None
    ]
    cost = ""
    if now.recovery is not None:
        cost = f"the driver says that it needs: {now.recovery}; nothing that it computes is to be trusted"
    elif now.uncorrected_errors:
        told.append(f"{now.uncorrected_errors} uncorrected memory errors")
        cost = "errors since the driver was loaded: reset the device, and watch whether the count grows"
    elif now.throttled_by:
        cost = f"its clock is held back ({', '.join(now.throttled_by)}): times will be too long"
    if told or cost:
        yield Finding(name="gpu state", state="note" if cost else "ok", found=", ".join(told) or "unknown", cost=cost)


def _nvcc(gpus: Sequence[Hardware]) -> Iterator[Finding]:
    """The compiler of CUDA C++, and whether it, the devices and their driver fit together."""
    from kernelevolve.languages import cuda

    try:
        version = cuda.toolkit().version
        for gpu in gpus:
            if gpu.vendor == "nvidia":
                cuda.machine_code(gpu.architecture)
    except KernelevolveError as error:
        cost = f"CUDA C++ kernels can't be compiled or checked; Triton's are not affected; {error.remedy}"
        yield Finding(name="nvcc", state="note", found=error.message, cost=cost)
        return
    supported = nvidia_smi.cuda_version() if gpus else None
    cost = ""
    if supported is not None and int(version.split(".")[0]) > int(supported.split(".")[0]):
        cost = f"the driver supports CUDA up to {supported}: update it, or what is compiled here won't run"
    yield Finding(name="nvcc", state="note" if cost else "ok", found=version, cost=cost)


def _ncu() -> Finding:
    found = _tool("ncu", "profiles have times (Proton) but no counters; it comes with the CUDA toolkit")
    if found.state == "ok" and os.geteuid() != 0 and _PARAMETERS.is_file() and restricted(_PARAMETERS.read_text()):
        cost = (
            "the driver lets only administrators read counters: profiles have times (Proton) but no counters; set the "
            "nvidia module's option NVreg_RestrictProfilingToAdminUsers=0 and reload it"
        )
        return found.model_copy(update={"state": "note", "cost": cost})
    return found


def _tool(name: str, cost: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(name=name, state="note", found="missing", cost=cost)
    return Finding(name=name, state="ok", found=path)


def _torch() -> Finding:
    """Whether torch computes on the GPU: a driver too old for it, or the wheel for CPUs, are found here."""
    build = torch_build.probe()
    made_for = f"CUDA {build.cuda}" if build.cuda else f"ROCm {build.hip}" if build.hip else "CPU only"
    found = f"torch {build.version} ({made_for})"
    if build.problem is None:
        return Finding(name="torch on the gpu", state="ok", found=f"{found} sees {', '.join(build.devices)}")
    cause = torch_build.explain(build.problem)
    cost = f"nothing can be judged, measured or served on the GPU; {cause.remedy}"
    return Finding(name="torch on the gpu", state="note", found=f"{found}: {cause.message}", cost=cost)
