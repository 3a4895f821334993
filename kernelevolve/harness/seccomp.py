"""Which system calls a program inside the walls may make, as a filter that the kernel applies.

Compilers, Python and GPU drivers need most of what there is, so the filter names what none of them needs and what
has served to get out of containers: looking into other processes, namespaces and mounts, kernel keys and tracing,
asynchronous submission past the filter, sockets but those of this machine. It is built by libseccomp.
"""

import errno
import logging
import os
from functools import cache
from pathlib import Path
from threading import get_native_id
from typing import Literal

from kernelevolve.schema import digest_of

log = logging.getLogger(__name__)

DENIED = (
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd", "perf_event_open",
    "unshare", "setns", "mount", "umount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen",
    "fsconfig", "fsmount", "fspick", "mount_setattr", "name_to_handle_at", "open_by_handle_at", "quotactl", "swapon",
    "swapoff", "bpf", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "add_key",
    "request_key", "keyctl", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
    "reboot", "acct", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "sethostname", "setdomainname",
    "iopl", "ioperm", "syslog", "vhangup", "fanotify_init", "lookup_dcookie", "personality", "mknod", "mknodat",
)  # fmt: skip
"""Refused with EPERM."""
_PROFILING = frozenset({"ptrace", "process_vm_readv", "process_vm_writev"})
"""What Nsight Compute needs to look into the process that it has started, and a socket to talk to it."""

Role = Literal["usual", "alone", "profiled"]
"""Whom a filter is for. `alone`: it starts no other process. `profiled`: it has started under a profiler, in namespaces
where there is no process and no network but its own."""

_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00000080)
"""CLONE_NEW* of `clone`: mount, cgroup, UTS, IPC, user, pid, network, time."""
_THREAD = 0x00010000
"""CLONE_THREAD."""
_LOCAL = 1
"""AF_UNIX: drivers talk to their daemons through it."""
_PUSH_INPUT = 0x5412
"""TIOCSTI: types into a terminal."""


@cache
def filter_file(folder: Path, role: Role = "usual") -> Path | None:
    """The filter as the kernel takes it, made once; None where libseccomp is missing (then nothing is filtered).

    To be `alone` refuses other processes, threads excepted. A kernel on a CPU needs none, and one that it left running
    would go on while its own process is held still.
    """
    file = folder / f"seccomp-{digest_of(DENIED, _NAMESPACES, role, Path(__file__).read_text())[:16]}.bpf"
    if file.is_file():
        return file
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError) as error:
        log.warning("no filter for system calls: libseccomp can't be loaded (%s)", error)
        return None
    wanted = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    refused = pyseccomp.ERRNO(errno.EPERM)
    for name in DENIED:
        if role != "profiled" or name not in _PROFILING:
            wanted.add_rule(refused, name)
    for flag in _NAMESPACES:
        wanted.add_rule(refused, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))
    if role == "alone":
        for name in ("fork", "vfork"):
            wanted.add_rule(refused, name)
        wanted.add_rule(refused, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _THREAD, 0))
    # Its flags lie in memory, where a filter can't look: the C library falls back on clone.
    wanted.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    if role != "profiled":
        wanted.add_rule(refused, "socket", pyseccomp.Arg(0, pyseccomp.NE, _LOCAL))
    wanted.add_rule(refused, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, _PUSH_INPUT))
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.{get_native_id()}")
    with partial.open("wb") as stream:
        wanted.export_bpf(stream)
    partial.rename(file)
    return file
