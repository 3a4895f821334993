"""What the container or service manager grants this process: Linux control groups, version 1 and 2."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that this process may use; None where nothing bounds it."""
    quotas = [
        int(words[0]) / int(words[1]) for text in _values(root, "cpu", "cpu.max") if (words := text.split())[0] != "max"
    ]
    for folder in _folders(root, "cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes that this process may use; None where nothing bounds it."""
    limits = [int(text) for text in _values(root, "memory", "memory.max") if text != "max"]
    limits += [int(text) for text in _values(root, "memory", "memory.limit_in_bytes")]
    return min(limits, default=None)


def _values(root: Path, controller: str, file: str) -> Iterator[str]:
    for folder in _folders(root, controller):
        if text := _read(folder / file):
            yield text


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups this process is in, each up to the root: an ancestor's limit binds its children.

    Inside a container the path that the kernel names may not be mounted; the walk still ends at the mount
    point, which there is the container's own group.
    """
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / (controller if controllers else "")
        inside = PurePosixPath(path.lstrip("/"))
        yield from (mount / part for part in dict.fromkeys((inside, *inside.parents)))


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:  # not mounted, or not readable from inside the container
        return None
