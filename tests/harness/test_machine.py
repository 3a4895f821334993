"""Who times has the machine to itself, across processes too."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kernelevolve.errors import JudgeError
from kernelevolve.harness.machine import Machine


def holding(cache_dir: Path, how: str) -> subprocess.Popen[str]:
    """Another process that holds the machine until it is told to end."""
    program = (
        "import sys; from pathlib import Path; from kernelevolve.harness.machine import Machine\n"
        f"with Machine(Path({str(cache_dir)!r})).{how}(): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    return other


def free(cache_dir: Path, how: str) -> bool:
    """Whether it can be had now: the thread that waits in vain gets it once the other process has gone."""
    got = threading.Event()

    def take() -> None:
        with getattr(Machine(cache_dir), how)():
            got.set()

    threading.Thread(target=take, daemon=True).start()
    return got.wait(0.3)


@pytest.mark.parametrize(
    ("theirs", "mine", "together"),
    [("shared", "shared", True), ("shared", "alone", False), ("alone", "shared", False), ("alone", "alone", False)],
)
def test_builders_share_and_timers_are_alone(tmp_path: Path, theirs: str, mine: str, together: bool) -> None:
    other = holding(tmp_path, theirs)
    try:
        assert free(tmp_path, mine) is together
    finally:
        other.kill()
        other.communicate()
    assert free(tmp_path, "alone"), "the machine is free again when its holder has died"


def test_waiting_is_counted(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    with machine.shared():
        pass
    before = machine.waited_s
    with machine.alone():
        threading.Timer(0.2, lambda: None).start()
    assert machine.waited_s >= before >= 0


def test_a_folder_that_cannot_be_used_is_our_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JudgeError, match=r"timing\.lock") as caught:
        Machine(tmp_path / "file")
    assert "cache" in caught.value.remedy


def test_who_waits_to_be_alone_is_not_passed_by(tmp_path: Path) -> None:
    """Otherwise a few searches that build and check by turns would keep a timer out for good."""
    order: list[str] = []

    def take(how: str) -> None:
        with getattr(Machine(tmp_path), how)():
            order.append(how)

    builder = holding(tmp_path, "shared")
    threads = []
    try:
        for how in ("alone", "shared"):
            threads.append(threading.Thread(target=take, args=(how,), daemon=True))
            threads[-1].start()
            threads[-1].join(0.3)  # until it waits
        assert order == []
    finally:
        builder.kill()
        builder.communicate()
    for thread in threads:
        thread.join(5)
    assert order == ["alone", "shared"]
