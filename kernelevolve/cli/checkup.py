"""What a machine offers to a search: probed without importing anything heavy."""

import ctypes
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from kernelevolve import hardware
from kernelevolve.cli import checkup_gpu
from kernelevolve.cli.finding import Finding
from kernelevolve.errors import KernelevolveError
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.runs import Runs
from kernelevolve.schema import Hardware
from kernelevolve.settings import Settings

_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_VERSION = 1
_PR_GET_SECCOMP = 21


def examine(settings: Settings) -> tuple[Finding, ...]:
    """Look at everything that a search or a serving process uses."""
    cpu, *gpus = hardware.detect_all()
    return (
        *_cpu(cpu),
        *checkup_gpu.examine(gpus),
        _compiler(cpu),
        _package("apache-tvm-ffi", "kernels can't be built or called", essential=True),
        _package("torch", "no reference, no baselines: nothing can be judged", essential=True),
        _package("triton", "no Triton kernels; C++ is not affected", essential=False),
        *_walls(),
        _store(settings),
        _registry(settings),
        _concurrency(settings, cpu),
    )


def _cpu(cpu: Hardware) -> Iterator[Finding]:
    memory = f"{cpu.memory_bytes / 2**30:.1f} GiB"
    yield Finding(name="cpu", state="ok", found=f"{cpu.key}: {cpu.product}, {cpu.cores} cores, {memory}")
    vectors = " ".join(cpu.features) or "none"
    wide = any(f in cpu.features for f in ("avx2", "neon", "sve"))
    cost = "" if wide else "no wide vectors: little can be won over PyTorch here"
    yield Finding(name="vector instructions", state="ok" if wide else "note", found=vectors, cost=cost)


def _compiler(cpu: Hardware) -> Finding:
    found = cpu.toolchain.get("g++")
    if found is None:
        cost = "no C++ kernel can be built, searched for or served; install it, for instance: apt install g++"
        return Finding(name="g++", state="broken", found="missing", cost=cost)
    return Finding(name="g++", state="ok", found=found)


def _package(name: str, cost: str, *, essential: bool) -> Finding:
    try:
        return Finding(name=name, state="ok", found=version(name))
    except PackageNotFoundError:
        state: Literal["broken", "note"] = "broken" if essential else "note"
        return Finding(name=name, state=state, found="missing", cost=f"{cost}; pip install {name}")


def _walls() -> Iterator[Finding]:
    """What can hold a candidate; without any of it, resource limits and a process of its own remain."""
    open_to_all = "a candidate that means harm sees other processes and files of this user"
    for name, flags in (
        ("user namespaces", ("--user", "--map-root-user")),
        ("pid namespaces", ("--user", "--map-root-user", "--pid", "--fork")),
        ("network namespaces", ("--user", "--map-root-user", "--net")),
    ):
        problem = _unshare(flags)
        cost = f"{open_to_all}; allow unprivileged user namespaces (kernel.unprivileged_userns_clone)"
        yield _wall(name, problem, cost)
    yield _wall("seccomp", _seccomp(), "candidates may make any system call; install libseccomp2")
    yield _wall("landlock", _landlock(), "nothing yet: file access rests on namespaces", found="there, not used so far")


def _wall(name: str, problem: str | None, cost: str, found: str = "works") -> Finding:
    if problem is None:
        return Finding(name=name, state="ok", found=found)
    return Finding(name=name, state="note", found=problem, cost=cost)


def _unshare(flags: tuple[str, ...]) -> str | None:
    program = shutil.which("unshare")
    if program is None:
        return "can't be probed: unshare is missing (package util-linux)"
    try:
        answer = subprocess.run([program, *flags, "true"], capture_output=True, text=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return "no answer within 5 seconds"
    return None if answer.returncode == 0 else answer.stderr.strip()


def _seccomp() -> str | None:
    mode = ctypes.CDLL(None, use_errno=True).prctl(_PR_GET_SECCOMP, 0, 0, 0, 0)
    if mode < 0:
        return f"not in this kernel ({errno.errorcode.get(ctypes.get_errno(), '?')})"
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "libseccomp is missing"
    return None


def _landlock() -> str | None:
    call = ctypes.CDLL(None, use_errno=True).syscall
    level = call(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    return None if level > 0 else f"not in this kernel ({errno.errorcode.get(ctypes.get_errno(), '?')})"


def _store(settings: Settings) -> Finding:
    database = Runs(settings.runs).database
    if not database.is_file():
        return _folder("store", settings.runs, "no runs yet", "a search can't be recorded")
    from kernelevolve.store import SqlStore  # slow to import

    try:
        with SqlStore.open(database, read_only=True) as store:
            count = len(store.summaries())
    except KernelevolveError as error:
        return Finding(name="store", state="note", found=error.message, cost=error.remedy)
    return Finding(name="store", state="ok", found=f"{database}: {count} runs")


def _registry(settings: Settings) -> Finding:
    if not settings.registry.is_dir():
        return _folder("registry", settings.registry, "empty so far", "nothing can be published")
    try:
        checked = LocalRegistry(settings.registry).verify()
    except KernelevolveError as error:
        return Finding(name="registry", state="note", found=error.message, cost=error.remedy)
    damaged = sum(not finding.ok for finding in checked)
    found = f"{settings.registry}: {len(checked)} entries"
    if damaged:
        cost = "damaged entries are not served; see: kernelevolve registry verify"
        return Finding(name="registry", state="note", found=f"{found}, {damaged} damaged", cost=cost)
    return Finding(name="registry", state="ok", found=found)


def _folder(name: str, folder: Path, found: str, cost: str) -> Finding:
    """A folder that isn't there yet: can it be made?"""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if os.access(existing, os.W_OK | os.X_OK):
        return Finding(name=name, state="ok", found=f"{folder}: {found}")
    return Finding(name=name, state="note", found=f"{existing} is not writable", cost=cost)


def _concurrency(settings: Settings, cpu: Hardware) -> Finding:
    workers, threads = settings.workers_on(cpu), settings.threads_on(cpu)
    found = f"{workers} evaluations at once build and check; one at a time is timed, with {threads} threads"
    cost = ""
    if threads > cpu.cores:
        cost = f"{threads} threads on {cpu.cores} cores get in each other's way; lower --threads"
    elif workers > cpu.cores:
        cost = f"{workers} workers on {cpu.cores} cores: more than {cpu.cores} bring nothing; lower --workers"
    return Finding(name="concurrency", state="note" if cost else "ok", found=found, cost=cost)
