"""Processes that are forked for candidates stand behind the same walls as programs that are started for them."""

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import triton_kernels as kernels
from leftovers import a_marker, gone, running
from test_triage import examined

from kernelevolve.errors import JudgeError
from kernelevolve.harness import zygote
from kernelevolve.harness.programs import python_command
from kernelevolve.harness.sandbox import Finished, Sandbox
from kernelevolve.harness.zygote import Preload, Zygote, run_forked
from kernelevolve.schema import Limits

PROBE = "kernelevolve.testing.probe"
SMALL = Limits(memory_bytes=16 << 30, processes=20, file_bytes=1 << 20, output_bytes=1 << 16)


@pytest.fixture(scope="module")
def server(cache_dir: Path) -> Iterator[Zygote]:
    os.environ["API_KEY"] = "secret"
    trunk = Zygote.start(cache_dir)
    del os.environ["API_KEY"]
    yield trunk.branch(Preload((PROBE,)))
    trunk.close()


@pytest.fixture(params=["namespaces", "limits only"])
def any_walls(request: pytest.FixtureRequest, cache_dir: Path) -> Sandbox:
    opened = Sandbox.open(cache_dir)
    if request.param == "namespaces" and not opened.namespaces:
        pytest.skip("no namespaces on this machine")
    return replace(opened, namespaces=request.param == "namespaces")


def forked(server: Zygote, walls: Sandbox, work: Path, code: str, seconds: float = 20.0) -> Finished:
    for folder in (work, *work.parents[:2]):
        folder.chmod(0o755)
    _, readable = python_command(PROBE)
    return run_forked(
        server, walls, (PROBE, textwrap.dedent(code)), environment={"MINE": "1"}, limits=SMALL, seconds=seconds,
        readable=readable, folder=work,
    )  # fmt: skip


def test_it_has_its_own_environment_user_folder_and_nothing_open(
    server: Zygote, any_walls: Sandbox, tmp_path: Path
) -> None:
    done = forked(
        server, any_walls, tmp_path,
        """
        import os
        opened = []
        for fd in range(4096):
            try:
                os.fstat(fd)
                opened.append(fd)
            except OSError:
                pass
        print(sorted(os.environ), opened, os.getcwd(), os.getuid(), os.getgroups(), os.read(0, 1))
        """,
    )  # fmt: skip
    assert done.returncode == 0, done.output
    names, rest = done.output.strip().split("] ", 1)
    assert names == "['HOME', 'LANG', 'MINE', 'PATH'"
    assert rest.startswith(f"[0, 1, 2] {tmp_path} ")
    if os.geteuid() == 0:
        assert int(rest.split()[4]) >= 60_000
        assert rest.endswith("[] b''")


def test_its_memory_holds_nothing_of_the_judges_environment(server: Zygote, sandbox: Sandbox, tmp_path: Path) -> None:
    code = """
        import ctypes
        environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
        count = 0
        while environ[count]:
            print(environ[count].decode())
            count += 1
        """
    assert "secret" not in forked(server, sandbox, tmp_path, code).output


def test_it_sees_no_other_process_and_no_file_of_a_user(server: Zygote, sandbox: Sandbox, tmp_path: Path) -> None:
    done = forked(
        server, sandbox, tmp_path,
        """
        import os, signal
        print(os.getpid(), os.getppid(), os.path.exists("/proc"), os.listdir("/tmp"), os.path.exists("/etc/passwd"))
        for pid in range(3, 70000):
            try:
                os.kill(pid, 0)
                print("sees", pid)
            except ProcessLookupError:
                pass
        """,
    )  # fmt: skip
    pid, parent, proc, *_ = done.output.split()
    assert (int(pid) < 5, parent, proc) == (True, "0", "False"), done.output
    assert "sees" not in done.output
    assert done.output.splitlines()[0].endswith("False")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        ("import socket; socket.create_connection(('127.0.0.1', 9), 2)", "unreachable|refused|not permitted"),
        ("import os; os.setuid(0)", "not permitted"),
        ("open('/usr/here', 'w')", "Read-only|denied"),
        ("open('much', 'w').write('x' * (4 << 20))", "too large"),
        ("import ctypes; c = ctypes.CDLL(None, use_errno=True); r = c.unshare(0x10000000); "
         "raise SystemExit('denied' if r else 0)", "denied"),
    ],
)  # fmt: skip
def test_what_the_walls_refuse_is_refused(
    server: Zygote, sandbox: Sandbox, tmp_path: Path, attempt: str, words: str
) -> None:
    if "unshare" in attempt and not sandbox.filters:
        pytest.skip("no libseccomp on this machine")
    done = forked(server, sandbox, tmp_path, f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{attempt}")
    assert done.returncode != 0
    assert any(word in done.output for word in words.split("|")) or "unshare" in attempt, done.output


def test_two_candidates_share_nothing_that_one_writes(server: Zygote, sandbox: Sandbox, tmp_path: Path) -> None:
    forked(server, sandbox, tmp_path, "import os, json; json.dumps = None; os.environ['X'] = '1'; open('/tmp/x', 'w')")
    done = forked(
        server, sandbox, tmp_path, "import os, json; print(json.dumps('x' in os.listdir('/tmp')), 'X' in os.environ)"
    )
    assert done.output == "false False\n"


@pytest.mark.parametrize(
    ("code", "returncode"),
    [("import os; os._exit(7)", 7), ("raise SystemExit(3)", 3), ("1 / 0", 1),
     ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV)],
)  # fmt: skip
def test_how_it_ends_is_known(server: Zygote, any_walls: Sandbox, tmp_path: Path, code: str, returncode: int) -> None:
    assert forked(server, any_walls, tmp_path, code).returncode == returncode


def test_past_its_time_it_is_ended_with_all_that_it_started(server: Zygote, any_walls: Sandbox, tmp_path: Path) -> None:
    marker = a_marker()
    code = f"import subprocess; subprocess.run(['/bin/sh', '-c', 'sleep 60; : {marker}'])"
    done = forked(server, any_walls, tmp_path, code, seconds=1.0)
    assert done.timed_out
    assert gone(marker)


def test_what_it_leaves_behind_ends_with_it(server: Zygote, any_walls: Sandbox, tmp_path: Path) -> None:
    marker = a_marker()
    code = f"import subprocess; subprocess.Popen(['/bin/sh', '-c', 'sleep 60; : {marker}'])"
    assert not forked(server, any_walls, tmp_path, code).timed_out
    assert gone(marker)


def test_a_wall_that_cannot_be_raised_is_our_failure(server: Zygote, sandbox: Sandbox, tmp_path: Path) -> None:
    _, readable = python_command(PROBE)
    with pytest.raises(JudgeError, match="can't be set up"):
        run_forked(
            server, sandbox, (PROBE, "print(1)"), environment={}, limits=SMALL, seconds=20.0,
            readable=(*readable, Path("/nowhere/at/all")), folder=tmp_path,
        )  # fmt: skip


def test_a_server_in_which_threads_run_forks_nothing_and_says_what_started_them(cache_dir: Path) -> None:
    trunk = Zygote.start(cache_dir)
    begin = "import threading, time; threading.Thread(target=time.sleep, args=({},), daemon=True).start()"
    with pytest.raises(JudgeError, match=rf"other threads run in it \(.+, since {PROBE}.warm_up was loaded\)"):
        trunk.branch(Preload((PROBE,), (begin.format(60),)))
    trunk.branch(Preload((PROBE,), (begin.format(0.3),)))  # one that ends soon is waited for
    trunk.close()


def test_a_server_that_dies_is_our_failure_and_takes_its_children_along(
    cache_dir: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    trunk = Zygote.start(cache_dir)
    errors, errors_write = os.pipe()
    marker = a_marker()
    _, readable = python_command(PROBE)
    command = sandbox.command(
        (PROBE, f"import subprocess; subprocess.run(['/bin/sh', '-c', 'sleep 60; : {marker}'])"), SMALL,
        seconds=60.0, memory_bytes=SMALL.memory_bytes, readable=readable, errors=errors_write, uid=sandbox.user(),
    )  # fmt: skip
    child = trunk.spawn(command, environment={}, descriptors=(errors_write,), output=2)
    deadline = time.monotonic() + 20
    while not running(marker) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running(marker)
    trunk.close()
    with pytest.raises(JudgeError, match="has died"):
        child.wait(10)
    assert gone(marker)
    os.close(errors)
    os.close(errors_write)
    with pytest.raises(JudgeError):
        trunk.branch(Preload((PROBE,)))


def test_the_server_ends_with_its_judge(cache_dir: Path) -> None:
    marker = cache_dir.resolve()
    script = (
        "import sys; from pathlib import Path; from kernelevolve.harness.zygote import Preload, zygote\n"
        f"server = zygote(Preload(({PROBE!r},)), Path({str(marker)!r})); print(server is not None, flush=True)\n"
        "sys.stdin.read()"
    )
    judge = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert judge.stdout is not None
    assert select.select([judge.stdout], [], [], 120)[0]
    assert judge.stdout.readline() == "True\n"
    children = Path(f"/proc/{judge.pid}/task/{judge.pid}/children").read_text().split()
    judge.kill()
    judge.communicate()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert children
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


@pytest.mark.slow
def test_without_a_server_candidates_are_examined_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise JudgeError("no", remedy="none")

    monkeypatch.setattr(Zygote, "start", staticmethod(none))
    zygote._branches.cache_clear()
    zygote._trunk.cache_clear()
    found = examined(kernels.DOUBLE, tmp_path)
    zygote._branches.cache_clear()
    assert found.passed, found.diagnostics
    assert found.checked == ("small",)
