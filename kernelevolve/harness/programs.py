"""What runners execute: the native one, and Python around modules and baselines."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from kernelevolve.harness.access import HOST, Access
from kernelevolve.harness.sandbox import Sandbox, clean_environment, native_tool, openmp_environment
from kernelevolve.harness.seccomp import Role
from kernelevolve.languages import Language
from kernelevolve.languages.cpp import Cpp
from kernelevolve.languages.triton import python
from kernelevolve.resources import gpu_environment
from kernelevolve.schema import Hardware

if TYPE_CHECKING:
    from kernelevolve.harness.zygote import Zygote

MODULE_RUNNER = "kernelevolve.harness.module_runner"
"""Holds candidates that Python loads."""

_OWN = {
    "TRITON_CACHE_DIR": "/tmp/triton", "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor", "XDG_CACHE_HOME": "/tmp/cache",
    "USER": "candidate", "OPENBLAS_NUM_THREADS": "1",
}  # fmt: skip
"""A candidate's compilers write to its own empty /tmp, and ask for the name of a user who has no entry inside the
walls; libraries that it doesn't need start no threads."""


@dataclass(frozen=True)
class Program:
    """What a runner executes, and what it may see and use."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    """folders for a profiler's report; a candidate that is timed has none"""
    devices: tuple[Path, ...] = ()
    """device nodes; with any, the address space isn't bounded, since a device's memory counts there"""
    sandbox: Sandbox | None = None
    """None for our own code (baselines)"""
    role: Role = "usual"
    """which system calls it needs"""
    server: "Zygote | None" = None
    """what forks it: `argv` is then a module of ours and its arguments"""


def candidate_program(artifact: Path, entry: str, sandbox: Sandbox, cache_dir: Path, threads: int) -> Program:
    """The native runner around a shared object."""
    runner = native_tool("runner", cache_dir)
    return Program(
        argv=(str(runner), str(artifact), entry),
        environment=dict(clean_environment(threads)),
        readable=(runner, artifact, *Cpp().libraries),
        sandbox=sandbox,
        role="alone",
    )


def module_program(
    artifact: Path,
    entry: str,
    language: Language,
    sandbox: Sandbox,
    *,
    access: Access,
    hardware: Hardware,
    server: "Zygote | None" = None,
    report: Path | None = None,
) -> Program:
    """The Python runner around an artifact that Python loads; `report` is where a profile goes.

    `server`: what forks it, where there is one. A profiler has to start it from nothing.
    """
    gpu = hardware.key if access.interpreted else "-"
    arguments = (language.name, str(artifact), entry, access.memory, access.torch_device, gpu, str(report or "-"))
    argv, readable = python_command(MODULE_RUNNER, *arguments)
    if server is not None:
        argv = (MODULE_RUNNER, *arguments)
    environment = {**clean_environment(1), **_OWN}
    folders: tuple[Path, ...] = ()
    if access.interpreted:
        environment["TRITON_INTERPRET"] = "1"
    else:
        folders = driver_folders()
        environment.update(device_environment())
    return Program(
        argv=argv, environment=environment, readable=(*readable, *language.libraries, artifact.parent, *folders),
        writable=(report.parent,) if report else (), devices=() if access.interpreted else device_nodes(),
        sandbox=sandbox, server=server,
    )  # fmt: skip


def device_environment() -> dict[str, str]:
    """What a process needs to find the GPU's driver, and the same GPU as this one's."""
    folders = driver_folders()
    having = [folder for folder in folders if (folder / "libcuda.so.1").exists()]
    # Triton links its launchers against the driver, and would ask ldconfig for it, which isn't there inside the walls.
    triton = {"TRITON_LIBCUDA_PATH": str(having[0])} if having else {}
    return {"LD_LIBRARY_PATH": ":".join(map(str, folders)), **triton, **gpu_environment()}


def python_command(module: str, *arguments: str) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """A command line that runs a module of ours in isolated mode, and the folders that it has to read.

    Where packages are installed is handed on: isolated mode (-I) leaves out PYTHONPATH, which may be how we were found.
    """
    package = Path(__file__).resolve().parents[1]
    prefixes = (Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())
    installed = [p for p in map(Path, filter(None, sys.path)) if p.is_dir() and any(p.glob("*.dist-info"))]
    more = [str(p.resolve()) for p in installed if not any(p.resolve().is_relative_to(prefix) for prefix in prefixes)]
    start = (
        f"import sys; sys.path += {[*more, str(package.parent)]!r}; import runpy; "
        f"runpy.run_module({module!r}, None, '__main__', True)"
    )
    return (python(), "-I", "-c", start, *arguments), tuple(dict.fromkeys((*prefixes, *map(Path, more), package)))


def baseline_program(
    folder: Path, functions: Sequence[tuple[str, bool]], threads: int, cache_dir: Path, access: Access = HOST
) -> Program:
    """The Python runner around a target's baselines (name, whether to compile it), which are trusted."""
    named = [f"{name}:{'compiled' if compiled else 'eager'}" for name, compiled in functions]
    environment = {
        **os.environ,
        **openmp_environment(threads),
        "TORCHINDUCTOR_CACHE_DIR": str(cache_dir / "inductor"),
        # An eager operation's temporaries must not pay page faults in every call: keep them on the heap.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    }
    argv = (
        sys.executable,
        "-m",
        "kernelevolve.harness.pyrunner",
        str(folder / "baselines.py"),
        str(threads),
        access.memory,
        access.torch_device,
        *named,
    )
    return Program(argv=argv, environment=environment)


def device_nodes(root: Path = Path("/dev")) -> tuple[Path, ...]:
    """The nodes through which a process reaches GPUs."""
    patterns = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-caps/*", "kfd", "dri/renderD*")
    return tuple(sorted(path for pattern in patterns for path in root.glob(pattern)))


@cache
def driver_folders(maps: Path = Path("/proc/self/maps")) -> tuple[Path, ...]:
    """Where the GPU driver's libraries lie: torch has loaded them into this process."""
    loaded = {Path(line.split()[-1]) for line in maps.read_text().splitlines() if "/" in line}
    drivers = ("libcuda.so", "libnvidia-", "libhsa-runtime")
    return tuple(sorted({path.parent for path in loaded if path.name.startswith(drivers)}))
