"""What a program can see, reach, use and leave behind."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from leftovers import a_marker, gone, running

from kernelevolve.errors import JudgeError, ToolchainError
from kernelevolve.harness import sandbox as walls_module
from kernelevolve.harness.sandbox import Finished, Sandbox, native_tool, run_trusted
from kernelevolve.schema import Limits

SH = "/bin/sh"
SMALL = Limits(memory_bytes=300 << 20, processes=20, file_bytes=1 << 20, output_bytes=1 << 16)


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tool = tmp_path_factory.mktemp("probe") / "probe"
    subprocess.run(["g++", "-O1", str(Path(__file__).with_name("probe.cpp")), "-o", str(tool)], check=True)
    return tool


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def run(
    sandbox: Sandbox, argv: Sequence[object], seconds: float = 20.0, limits: Limits = SMALL, **folders: Any
) -> Finished:
    return sandbox.run([str(a) for a in argv], limits=limits, seconds=seconds, **folders)


def shell(sandbox: Sandbox, script: str, seconds: float = 20.0, limits: Limits = SMALL, **folders: Any) -> Finished:
    return run(sandbox, [SH, "-c", script], seconds, limits, **folders)


def probed(sandbox: Sandbox, probe: Path, *argv: object, limits: Limits = SMALL) -> Finished:
    return run(sandbox, [probe, *argv], limits=limits, readable=[probe])


@pytest.fixture(params=["namespaces", "limits only"])
def any_walls(request: pytest.FixtureRequest, cache_dir: Path) -> Sandbox:
    """What holds on every machine: with namespaces and without."""
    opened = Sandbox.open(cache_dir)
    if request.param == "namespaces" and not opened.namespaces:
        pytest.skip("no namespaces on this machine")
    return replace(opened, namespaces=request.param == "namespaces")


@pytest.fixture
def open_probe(probe: Path, any_walls: Sandbox) -> Path:
    """The probe where it can be run without namespaces too: an ordinary user must be able to reach it."""
    if not any_walls.namespaces:
        for folder in probe.parents[:3]:
            folder.chmod(0o755)
    return probe


# --- what it sees ---


def test_it_sees_the_systems_programs_and_nothing_of_its_users(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    secret.chmod(0o644)
    seen = shell(sandbox, "ls -A / /etc /tmp /dev").output
    tops = seen.split("\n\n")[0].split("\n")[1:]
    assert set(tops) <= {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "tmp", "usr"}
    assert "passwd" not in seen
    for path in (secret, Path.home(), Path.cwd(), "/proc/self", "/sys", "/etc/passwd", "/var/log", "/dev/shm"):
        done = shell(sandbox, f"ls -d '{path}'")
        assert done.returncode != 0, path
    assert shell(sandbox, "ls -A /tmp").output == ""


def test_it_sees_the_folders_that_it_is_given_and_writes_where_it_may(
    sandbox: Sandbox, tmp_path: Path, work: Path
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "note").write_text("hello")
    done = shell(sandbox, f"cat {given}/note; echo a > made; echo b > {given}/made; echo c > {given}/note",
                 readable=[given], writable=[work], cwd=work)  # fmt: skip
    assert done.output.startswith("hello")
    assert [p.name for p in work.iterdir()] == ["made"]
    assert [p.read_text() for p in given.iterdir()] == ["hello"]


@pytest.mark.parametrize("place", ["/usr/made", "/made", "/etc/made", "/bin/made", "/dev/made"])
def test_it_writes_nowhere_else(sandbox: Sandbox, place: str) -> None:
    assert shell(sandbox, f"echo x > {place}").returncode != 0
    assert not Path(place).exists()


def test_what_it_writes_to_its_own_tmp_is_gone_afterwards(sandbox: Sandbox) -> None:
    marker = a_marker()
    assert shell(sandbox, f"echo x > /tmp/{marker} && cat /tmp/{marker}").output == "x\n"
    assert not Path(f"/tmp/{marker}").exists()
    assert shell(sandbox, f"cat /tmp/{marker}").returncode != 0


def test_its_environment_holds_nothing_of_ours(any_walls: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    done = run(any_walls, ["/usr/bin/env"])
    assert {line.partition("=")[0] for line in done.output.split()} == {"PATH", "LANG", "HOME"}


def test_it_has_no_descriptor_but_its_output(any_walls: Sandbox, open_probe: Path, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        assert probed(any_walls, open_probe, "descriptors").output == "open: 0 1 2\n"


def test_it_sees_no_other_process(sandbox: Sandbox, probe: Path) -> None:
    lines = probed(sandbox, probe, "processes").output.splitlines()
    assert lines == ["others: 1", "parent: 0"], "the namespace's first process, which only waits, is all"


def test_a_device_brings_its_node_and_a_proc_of_its_own_processes(sandbox: Sandbox) -> None:
    """What a GPU's driver needs; no other node, and no other process."""
    errors, errors_write = os.pipe()
    script = "ls /dev; head -c 1 /dev/full | wc -c; ls -d /proc/[0-9]* | wc -l"
    line = sandbox.command(
        [SH, "-c", script], SMALL, seconds=10, memory_bytes=None, devices=[Path("/dev/full")], errors=errors_write,
        uid=sandbox.user(),
    )  # fmt: skip
    done = subprocess.run(line, pass_fds=(errors_write,), capture_output=True, text=True, check=True)
    os.close(errors_write)
    assert os.read(errors, 100) == b""
    os.close(errors)
    *seen, processes = done.stdout.split()
    assert seen == ["full", "null", "urandom", "zero", "1"]
    assert int(processes) < 8


def test_what_is_hidden_is_empty_though_the_folder_around_it_can_be_read(sandbox: Sandbox) -> None:
    package = walls_module.BUNDLED.parent
    done = shell(sandbox, f"ls {package}/harness | head -1; ls {package}/bundled | wc -l", readable=[package])
    assert done.output.split() == ["__init__.py", "0"]


def test_it_reaches_no_network_and_no_socket_of_this_machine(sandbox: Sandbox, probe: Path) -> None:
    name = a_marker()
    with socket.socket() as server, socket.socket(socket.AF_UNIX) as local:
        server.bind(("127.0.0.1", 0))
        server.listen()
        local.bind(f"\0{name}")
        local.listen()
        outside = subprocess.run(
            [probe, "connect", str(server.getsockname()[1])], capture_output=True, text=True, check=True
        )
        assert outside.stdout == "network: yes\n"
        assert probed(sandbox, probe, "connect", server.getsockname()[1]).output == "network: no\n"
        assert probed(sandbox, probe, "abstract", name).output == "abstract socket: no\n"


def test_it_has_no_privileges_and_can_get_none(sandbox: Sandbox, probe: Path) -> None:
    answers = probed(sandbox, probe, "privileges").output.splitlines()
    assert len(answers) == 5
    assert all(answer.endswith(": no") for answer in answers), answers
    who = shell(sandbox, "id -u; id -G").output.split()
    assert len(who) == 2, "no supplementary groups"
    assert "0" not in who


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user can't become another one")
def test_a_judge_that_is_root_gives_each_program_a_user_of_its_own(any_walls: Sandbox) -> None:
    users = {int(shell(any_walls, "id -u").output) for _ in range(3)}
    assert all(user >= 60_000 for user in users)
    assert len(users) > 1


# --- what it may use ---


def test_past_its_time_it_is_ended_with_all_that_it_started(any_walls: Sandbox) -> None:
    marker = a_marker()
    done = shell(any_walls, f"sh -c 'sleep 60; : {marker}' & sh -c 'sleep 60; : {marker}'; : {marker}", seconds=0.5)
    assert done.timed_out
    assert gone(marker)


def test_a_program_that_closes_its_output_and_stays_is_ended_too(any_walls: Sandbox, open_probe: Path) -> None:
    marker = a_marker()
    done = run(any_walls, [open_probe, "silent", marker], seconds=0.5, readable=[open_probe])
    assert done.timed_out
    assert gone(marker)


@pytest.mark.parametrize("how", ["leave-behind", "leave-spinning"])
def test_a_process_that_is_left_behind_ends_with_its_program(sandbox: Sandbox, probe: Path, how: str) -> None:
    marker = a_marker()
    done = probed(sandbox, probe, how, marker)
    assert (done.returncode, done.output) == (0, "left: yes\n")
    assert gone(marker)


def test_a_child_in_the_background_ends_with_its_program(any_walls: Sandbox) -> None:
    marker = a_marker()
    done = shell(any_walls, f"(sh -c 'sleep 60; : {marker}' >/dev/null 2>&1 &); echo done")
    assert done.output == "done\n"
    assert gone(marker)


def test_what_it_prints_is_bounded(any_walls: Sandbox) -> None:
    marker = a_marker()
    done = shell(any_walls, f"yes {marker}")
    assert SMALL.output_bytes <= len(done.output) <= 2 * SMALL.output_bytes + 65536
    assert not done.timed_out
    assert gone(marker)


def test_a_file_that_it_writes_is_bounded(any_walls: Sandbox, work: Path) -> None:
    done = shell(any_walls, "head -c 20000000 /dev/zero > big", writable=[work], cwd=work)
    assert done.returncode != 0
    assert (work / "big").stat().st_size <= SMALL.file_bytes


def test_the_room_in_its_tmp_is_bounded(sandbox: Sandbox) -> None:
    limits = Limits(file_bytes=200 << 20)
    done = shell(
        sandbox, "for i in 1 2 3 4; do head -c 100000000 /dev/zero > /tmp/$i; done; du -sm /tmp", limits=limits
    )
    assert int(done.output.splitlines()[-1].split()[0]) <= 256


def test_its_memory_is_bounded(any_walls: Sandbox, open_probe: Path) -> None:
    done = probed(any_walls, open_probe, "allocate")
    got = int(done.output.removeprefix("MiB: "))
    assert 100 < got < SMALL.memory_bytes >> 20


def test_a_fork_bomb_stops_at_its_limit_and_nothing_of_it_stays(any_walls: Sandbox, open_probe: Path) -> None:
    marker = a_marker()
    done = probed(any_walls, open_probe, "fork-bomb", marker)
    assert 1 <= int(done.output.removeprefix("children: ")) < SMALL.processes
    assert gone(marker)


def test_a_signal_that_ends_it_is_reported(any_walls: Sandbox) -> None:
    assert shell(any_walls, "kill -SEGV $$").returncode == -11
    assert shell(any_walls, "kill -ABRT $$").returncode == -6
    assert shell(any_walls, "exit 7").returncode == 7


# --- who sets it up ---


def test_the_record_says_which_walls_there_were(cache_dir: Path) -> None:
    launcher = native_tool("walls", cache_dir)
    full = Sandbox(launcher, namespaces=True, own_user=True)
    fewer, bare = replace(full, namespaces=False), replace(full, namespaces=False, own_user=False)
    assert set(full.walls) - set(fewer.walls) == {"pid-namespace", "network-namespace", "ipc-namespace", "own-root"}
    assert set(fewer.walls) - set(bare.walls) == {"unprivileged-user"}


def test_a_machine_without_namespaces_gets_what_it_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container's root with everything in its own home: no namespaces, and no other user can read anything."""
    really = walls_module._tried
    monkeypatch.setattr(walls_module, "_tried", lambda c: "not here" if "--namespaces" in c else really(c))
    tmp_path.chmod(0o700)
    (tmp_path / "work").mkdir()
    opened = Sandbox.open(tmp_path)
    assert not opened.namespaces
    assert not opened.own_user
    assert "not here" in caplog.text
    assert shell(opened, "echo hi > made", writable=[tmp_path / "work"], cwd=tmp_path / "work").returncode == 0
    assert shell(opened, f"{opened.launcher} 2>/dev/null").returncode == 125, "what lies there can be run"
    command = opened.command(["true"], SMALL, seconds=1, memory_bytes=1, errors=2)
    assert int(command[command.index("--processes") + 1]) > SMALL.processes, "the user's other processes count too"


def test_a_wall_that_cannot_be_raised_is_our_failure(sandbox: Sandbox) -> None:
    with pytest.raises(JudgeError, match="sandbox") as caught:
        shell(sandbox, "true", readable=[Path("/no/such/folder")])
    assert caught.value.remedy


def test_a_program_cannot_pretend_that_the_walls_failed(sandbox: Sandbox) -> None:
    done = shell(sandbox, "echo 'walls: unshare: Operation not permitted'; exit 125")
    assert done.returncode == 125


def test_ending_the_judge_ends_what_it_holds(sandbox: Sandbox, cache_dir: Path) -> None:
    marker = a_marker()
    program = (
        "from pathlib import Path\n"
        "from kernelevolve.harness.sandbox import Sandbox\n"
        "from kernelevolve.schema import Limits\n"
        f"command = ['/bin/sh', '-c', 'sleep 60; : {marker}']\n"
        f"Sandbox.open(Path({str(cache_dir)!r})).run(command, limits=Limits(), seconds=60)"
    )
    judge = subprocess.Popen([sys.executable, "-c", program])
    while len(running(marker)) < 3:  # the judge, the walls and the program name it
        assert judge.poll() is None
        time.sleep(0.01)
    judge.kill()
    judge.wait()
    assert gone(marker)


def test_our_own_build_that_fails_says_why(cache_dir: Path) -> None:
    with pytest.raises(ToolchainError, match="can't build our own code") as caught:
        run_trusted(["g++", "-x", "c++", "/dev/null", "-o", "/no/such/folder/tool"])
    assert "doctor" in caught.value.remedy


def test_native_tools_are_built_once(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = native_tool("walls", cache_dir)
    native_tool.cache_clear()

    def refuse(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(walls_module, "run_trusted", refuse)
    assert native_tool("walls", cache_dir) == tool


@pytest.mark.parametrize("call", ["unshare -U true", "cd /tmp && mknod k$$ p && rm k$$"])
def test_system_calls_that_no_kernel_needs_are_refused(any_walls: Sandbox, call: str) -> None:
    if not any_walls.filters:
        pytest.skip("no libseccomp on this machine")
    assert shell(replace(any_walls, filters={}), f"PATH=/usr/bin; {call}").returncode == 0
    done = shell(any_walls, f"PATH=/usr/bin; {call}")
    assert done.returncode != 0
    assert "not permitted" in done.output


def test_open_files_are_bounded(any_walls: Sandbox) -> None:
    assert int(shell(any_walls, "ulimit -n").output) <= 1024
