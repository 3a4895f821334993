"""A broken Triton candidate of each kind, and what is said of it. A demonstration as much as a test."""

from pathlib import Path

import pytest
import triton.language as tl
import triton_kernels as kernels
from test_triage import DOUBLING, examined, matmul_target

from kernelevolve.harness import compile_check, interpreter_check
from kernelevolve.schema import Target

REMOVED = "make_block_ptr"


def said(source: str, cache_dir: Path, target: Target = DOUBLING, device: str = "nvidia-h200") -> list[tuple[str, str]]:
    found = examined(source, cache_dir, target, device)
    assert not found.passed
    return [(finding.kind, f"{finding.message} ({finding.advice})") for finding in found.diagnostics]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        (kernels.UNKNOWN_NAME, "compile", ("no attribute 'nothing'", "look for its present name")),
        (kernels.GONE, "compile", ("libdevice", "use from triton.language.extra import libdevice")),
        (kernels.BAD_ASSEMBLY, "compile", ("ptxas", "bogus", "inline assembly")),
        (kernels.BAD_CONSTRAINTS, "crash", ("SIGABRT", "number of input constraints")),
        (kernels.TOO_MANY_THREADS, "limit", ("2048 threads", "1024", "num_warps")),
        (kernels.TOO_MUCH_SHARED, "limit", ("bytes of shared memory", "232448", "num_stages")),
        (kernels.SHORT_TAIL, "numeric", ("5 of 1000 elements (poison)", "never written")),
        (kernels.UNMASKED_STORE, "raised", ("stores outside of its tensors, at 24 of 512",)),
        (kernels.IMPORTS, "raised", ("main.py:1: ModuleNotFoundError: No module named 'nowhere_to_be_found'",)),
        (kernels.RAISES, "raised", ("main.py:13: NameError: name 'z' is not defined",)),
        (kernels.EXITS, "crash", ("code 3", "never exit")),
    ],
)
def test_every_kind_of_mistake_is_named_with_what_to_do(
    source: str, kind: str, words: tuple[str, ...], cache_dir: Path
) -> None:
    first, message = said(source, cache_dir)[0]
    assert first == kind
    for word in words:
        assert word in message


@pytest.mark.slow
def test_an_error_that_both_checks_meet_is_told_once(cache_dir: Path) -> None:
    assert len(said(kernels.IMPORTS, cache_dir)) == 1


@pytest.mark.slow
def test_a_run_that_never_ends_is_ended(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = compile_check.LIMITS.model_copy(update={"build_s": 2.0, "call_s": 2.0})
    monkeypatch.setattr(compile_check, "LIMITS", short)
    monkeypatch.setattr(interpreter_check, "_CALL_LIMITS", short)
    kinds = said(kernels.HANGS, cache_dir)
    assert [kind for kind, _ in kinds] == ["limit", "limit"]
    assert all("longer than 2 s" in message for _, message in kinds)


@pytest.mark.slow
def test_a_compiler_that_a_launcher_catches_is_still_quoted(cache_dir: Path) -> None:
    source = kernels.UNKNOWN_NAME.replace("    double[", "    try:\n        double[") + "    except Exception: pass\n"
    (finding, message), *_ = said(source, cache_dir)
    assert (finding, "nothing" in message) == ("compile", True)


@pytest.mark.slow
def test_what_the_installed_triton_no_longer_has_is_named_with_its_successor(cache_dir: Path) -> None:
    found = examined(kernels.BLOCK_POINTER, cache_dir)
    if found.passed:  # a Triton that still has block pointers: they are compiled and interpreted
        assert found.checked == ("small",)
        return
    (finding,) = found.diagnostics
    assert hasattr(tl, REMOVED) <= ("removed" in finding.message)
    assert finding.kind == "compile"
    assert "make_tensor_descriptor" in finding.advice


@pytest.mark.slow
def test_a_tuner_without_a_configuration_that_fits_fails(cache_dir: Path) -> None:
    source = kernels.MATMUL.replace(
        '        triton.Config({"BM": 64, "BN": 64, "BK": 32}, num_warps=4, num_stages=3),\n', ""
    )
    kinds = said(source, cache_dir, matmul_target("bfloat16"), "amd-mi300x")
    assert kinds[0][0] == "limit"
    assert "65536" in kinds[0][1]
