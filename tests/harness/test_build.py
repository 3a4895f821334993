"""Building: cached by content, contained, bounded; the compiler's refusals are values, our own failures errors."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import BODY, a_kernel, source

from kernelevolve.errors import KernelevolveError, ToolchainError
from kernelevolve.harness.build import BuildFailed, Built, build
from kernelevolve.languages.cpp import compiler
from kernelevolve.schema import Candidate, CompileError, Limits
from kernelevolve.testing.records import a_hardware

BLOCKED = "// tunable BLOCK: 8 16 32\nstatic const int block = BLOCK;"


def made(candidate: Candidate, cache_dir: Path, limits: Limits | None = None) -> Built | BuildFailed:
    return build(candidate, a_hardware(), limits or Limits(), cache_dir)


def error_of(candidate: Candidate, cache_dir: Path, limits: Limits | None = None) -> CompileError:
    failed = made(candidate, cache_dir, limits)
    assert isinstance(failed, BuildFailed)
    assert isinstance(failed.diagnostics[0], CompileError)
    return failed.diagnostics[0]


@pytest.fixture
def marker(request: pytest.FixtureRequest) -> str:
    """A comment that no earlier session has in its cache."""
    return f"// {os.getpid()} {request.node.name} {os.urandom(8).hex()}"


def test_a_kernel_is_built_once(cache_dir: Path, marker: str) -> None:
    candidate = a_kernel(global_code=marker)
    first, second = made(candidate, cache_dir), made(candidate, cache_dir)
    assert isinstance(first, Built)
    assert isinstance(second, Built)
    assert (first.cached, second.cached) == (False, True)
    assert first.artifact == second.artifact
    assert first.artifact.is_file()


def test_lineage_makes_no_other_kernel_and_tunables_do(cache_dir: Path, marker: str) -> None:
    candidate = a_kernel(global_code=f"{BLOCKED} {marker}", BLOCK=8)
    built = [
        made(candidate.model_copy(update=update), cache_dir)
        for update in ({}, {"lineage": {"origin": "elsewhere"}}, {"tunables": {"BLOCK": 16}})
    ]
    assert [b.cached for b in built if isinstance(b, Built)] == [False, True, False]


def test_another_machine_or_limit_is_another_build_or_not(cache_dir: Path, marker: str) -> None:
    candidate = a_kernel(global_code=marker)
    made(candidate, cache_dir)
    other = a_hardware(features=("avx512",))
    elsewhere = build(candidate, other, Limits(), cache_dir)
    assert isinstance(elsewhere, Built)
    assert not elsewhere.cached
    again = made(candidate, cache_dir, Limits(call_s=99))
    assert isinstance(again, Built)
    assert again.cached


def test_a_refusal_is_not_cached_as_a_kernel(cache_dir: Path) -> None:
    broken = a_kernel(BODY + "oops")
    assert isinstance(made(broken, cache_dir), BuildFailed)
    assert isinstance(made(broken, cache_dir), BuildFailed)


def test_an_error_is_found_on_the_line_that_was_written(cache_dir: Path) -> None:
    """Also below a tunable, and in the file it is in; no path of the build folder shows."""
    text = source(global_code=f'{BLOCKED}\n#include "parts/scale.h"')
    part = "#pragma once\n\ninline float scaled(float x) { return x * factr; }\n"
    candidate = Candidate(language="cpp", files={"main.cpp": text, "parts/scale.h": part}, tunables={"BLOCK": 32})
    error = error_of(candidate, cache_dir)
    assert (error.file, error.line) == ("parts/scale.h", 3)
    assert "factr" in error.message
    below = a_kernel("  return undeclared;", global_code=BLOCKED)
    error = error_of(below, cache_dir)
    assert error.file == "main.cpp"
    assert error.line is not None
    assert source("  return undeclared;", global_code=BLOCKED).splitlines()[error.line - 1] == "  return undeclared;"


def test_several_files_make_one_kernel(cache_dir: Path) -> None:
    files = {
        "main.cpp": source("  scale(x, factor, out, rows, n);", global_code='#include "scale.h"'),
        "scale.h": "#include <cstdint>\nvoid scale(const float*, const float*, float*, int64_t, int64_t);\n",
        "deep/scale.cc": '#include "../scale.h"\nvoid scale(const float* x, const float* factor, float* out, int64_t '
        f"rows, int64_t n) {{\n{BODY}}}\n",
    }
    assert isinstance(made(Candidate(language="cpp", files=files), cache_dir), Built)


def test_a_symbol_that_nobody_defines_is_named(cache_dir: Path) -> None:
    error = error_of(a_kernel("  missing();", global_code="void missing();"), cache_dir)
    assert "undefined reference to `missing()'" in error.message
    assert "/" not in error.message.split("undefined")[0].replace("/usr/bin/ld", "")


def test_a_combination_of_tunables_that_cannot_be_is_told_apart(cache_dir: Path) -> None:
    guarded = f'{BLOCKED}\nstatic_assert(BLOCK <= 16, "BLOCK is too large");'
    assert isinstance(made(a_kernel(global_code=guarded, BLOCK=16), cache_dir), Built)
    error = error_of(a_kernel(global_code=guarded, BLOCK=32), cache_dir)
    assert "BLOCK is too large" in error.message
    assert "tunables" in error.advice


# --- contained ---


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../../../etc/passwd", "SECRET"])
@pytest.mark.parametrize("directive", ['#include "{}"', 'asm(".incbin \\"{}\\"");'], ids=["include", "incbin"])
def test_a_build_reads_nothing_of_this_machine(cache_dir: Path, tmp_path: Path, path: str, directive: str) -> None:
    secret = tmp_path / "secret.h"
    secret.write_text("the secret of root:x:0:0\n")
    line = directive.format(path.replace("SECRET", str(secret)))
    failed = made(a_kernel(global_code=line), cache_dir)
    assert isinstance(failed, BuildFailed)
    said = " ".join(d.message for d in failed.diagnostics)
    assert "root:" not in said
    assert "the secret" not in said


def test_a_build_does_not_see_other_candidates(cache_dir: Path, marker: str) -> None:
    other = made(a_kernel(global_code=marker), cache_dir)
    assert isinstance(other, Built)
    error = error_of(a_kernel(global_code=f'#include "{other.artifact.parent / "main.cpp"}"'), cache_dir)
    assert "No such file" in error.message


# --- bounded ---

BOMB = """\
template <int A, int B> struct Bomb {
  static const int value = Bomb<A - 1, B>::value + Bomb<A - 1, B + (1 << A)>::value;
};
template <int B> struct Bomb<0, B> { static const int value = B; };
static const int bomb = Bomb<24, 0>::value;"""


@pytest.mark.parametrize("code", [BOMB, '#include "/dev/zero"'], ids=["templates", "an endless file"])
def test_a_build_without_end_is_ended(cache_dir: Path, code: str) -> None:
    failed = made(a_kernel(global_code=code), cache_dir, Limits(build_s=1.5))
    assert isinstance(failed, BuildFailed)
    (limit,) = failed.diagnostics
    assert limit.kind == "limit"
    assert (limit.resource, limit.limit) in (("time", 1.5), ("memory", Limits().memory_bytes))
    assert limit.advice


def test_a_build_that_takes_too_much_memory_is_told_so(cache_dir: Path) -> None:
    failed = made(a_kernel(global_code=BOMB), cache_dir, Limits(memory_bytes=180 << 20, build_s=30))
    assert isinstance(failed, BuildFailed)
    (limit,) = failed.diagnostics
    assert limit.kind == "limit"
    assert (limit.resource, limit.limit) == ("memory", 180 << 20)


def test_a_kernel_may_speak_of_memory_without_having_run_out_of_it(cache_dir: Path) -> None:
    assert isinstance(made(a_kernel(global_code='#pragma message("never out of memory")'), cache_dir), Built)
    error = error_of(a_kernel(global_code="#error no space left on device, out of memory"), cache_dir)
    assert "no space left" in error.message


def test_errors_without_end_are_cut_short(cache_dir: Path) -> None:
    code = "\n".join(
        f"template <class T> void f{i}() {{ g(T{{}}, {i}); }} static void* p{i} = (void*)f{i}<int>;" for i in range(999)
    )
    failed = made(a_kernel(global_code=code), cache_dir)
    assert isinstance(failed, BuildFailed)
    assert 1 <= len(failed.diagnostics) <= 20


# --- our own failures ---


@pytest.fixture
def forgotten_compiler() -> Iterator[None]:
    compiler.cache_clear()
    yield
    compiler.cache_clear()


def test_a_machine_without_a_compiler_is_told_what_to_install(
    cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten_compiler: None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"g\+\+") as caught:
        made(a_kernel(), cache_dir)
    assert "install" in caught.value.remedy


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk that is soon full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"can't mount a small disk: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_our_failure_and_says_where(full_disk: Path, cache_dir: Path) -> None:
    with pytest.raises(KernelevolveError) as caught:
        made(a_kernel(), full_disk)
    assert "disk" in caught.value.remedy


@pytest.mark.parametrize("room", [0, 20_000])
def test_a_disk_that_fills_up_in_the_middle_is_not_the_candidates_failure(
    full_disk: Path, cache_dir: Path, marker: str, room: int
) -> None:
    """The tools are there; what is left of the disk doesn't hold the sources, or not what is made of them."""
    for part in ("native", "preludes"):
        (full_disk / part).symlink_to(cache_dir / part)
    made(a_kernel(), cache_dir)
    with (full_disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1000))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        filler.truncate(filler.tell() - room)
    with pytest.raises(ToolchainError, match=str(full_disk)) as caught:
        made(a_kernel(global_code=marker), full_disk)
    assert "space" in caught.value.remedy


def test_a_folder_that_cannot_be_written_is_our_failure(tmp_path: Path, cache_dir: Path) -> None:
    blocked = tmp_path / "cache"
    blocked.mkdir()
    for part in ("native", "preludes"):
        (blocked / part).symlink_to(cache_dir / part)
    (blocked / "builds").write_text("a file where a folder should be")
    with pytest.raises(ToolchainError, match="builds"):
        made(a_kernel(), blocked)


def test_a_cache_behind_a_symbolic_link_works(tmp_path: Path, cache_dir: Path, marker: str) -> None:
    made(a_kernel(), cache_dir)
    (tmp_path / "link").symlink_to(cache_dir)
    assert isinstance(made(a_kernel(global_code=marker), tmp_path / "link"), Built)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_strict_umask_does_no_harm(cache_dir: Path, marker: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        built = made(a_kernel(global_code=marker), cache_dir)
    finally:
        os.umask(before)
    assert isinstance(built, Built), built
    assert built.artifact.stat().st_mode & 0o444 == 0o444, "readable for whichever user runs it"
