"""Triton candidates without a GPU: compiled for one, and interpreted."""

import subprocess
import sys
from pathlib import Path

import pytest
import triton_kernels as kernels

from kernelevolve.errors import UsageError
from kernelevolve.hardware.devices import known
from kernelevolve.harness.compile_check import judged
from kernelevolve.harness.launches import CaptureReport, Launch
from kernelevolve.harness.triage import triage
from kernelevolve.schema import (
    Candidate,
    CompileError,
    Input,
    Instructions,
    Output,
    Resources,
    Target,
    Triage,
    Workload,
)
from kernelevolve.testing.records import a_candidate, a_target

H200 = known("nvidia-h200")


def on_gpu(name: str, role: str, **axes: int) -> Workload:
    return Workload(name=name, role=role, device="gpu", axes=axes, dtypes={"T": "float32"})


DOUBLING = a_target(workloads=(on_gpu("big", "search", N=1 << 20), on_gpu("small", "check", N=1000),
                               on_gpu("vast", "check", N=1 << 24)))  # fmt: skip


def a_triton_candidate(source: str) -> Candidate:
    return Candidate(language="triton", files={"main.py": source})


def examined(source: str, cache_dir: Path, target: Target = DOUBLING, device: str = "nvidia-h200") -> Triage:
    return triage(a_triton_candidate(source), target, known(device), cache_dir)


def matmul_target(dtype: str) -> Target:
    return a_target(
        axes={"M": "rows", "N": "columns", "K": "summed"}, dtypes={"T": (dtype,)},
        inputs=(
            Input(name="a", shape=("M", "K"), dtype="T"),
            Input(name="b", shape=("N", "K"), dtype="T", constant=True),
        ),
        outputs=(Output(name="c", shape=("M", "N"), dtype="T"),),
        workloads=tuple(
            Workload(name=name, role=role, device="gpu", axes=axes, dtypes={"T": dtype})
            for name, role, axes in (
                ("big", "search", {"M": 4096, "N": 4096, "K": 1024}), ("small", "check", {"M": 70, "N": 65, "K": 48}),
            )
        ),
        files={"reference.py": "def reference(a, b):\n    return a @ b.T\n", "baselines.py": ""},
    )  # fmt: skip


def test_a_good_kernel_is_compiled_compared_and_known_the_second_time(cache_dir: Path, tmp_path: Path) -> None:
    found = examined(kernels.DOUBLE, tmp_path)
    assert found.passed, found.diagnostics
    (kernel,) = found.kernels
    assert (kernel.kernel, kernel.workload, kernel.grid) == ("double", "big", (2048, 1, 1))
    assert kernel.configuration["B"] == "512"
    assert kernel.resources.registers > 0
    assert kernel.resources.instructions.vector_loads > 0
    assert kernel.occupancy == 1.0
    assert (found.checked, found.unchecked) == (("small",), ("vast",))

    again = examined(kernels.DOUBLE, tmp_path)
    assert again.seconds["compile"] == again.seconds["interpret"] == 0.0
    assert again.kernels == found.kernels
    assert again.checked == found.checked


def test_a_mistake_of_the_front_end_is_placed_and_costs_no_interpretation(cache_dir: Path) -> None:
    found = examined(kernels.UNKNOWN_NAME, cache_dir)
    (finding,) = found.diagnostics
    assert isinstance(finding, CompileError)
    assert (finding.file, finding.line) == ("main.py", 9)
    assert "nothing" in finding.message
    assert not found.passed
    assert not found.checked


def test_a_store_without_its_mask_is_found_and_not_left_to_corrupt_the_heap(cache_dir: Path) -> None:
    (finding,) = examined(kernels.UNMASKED_STORE, cache_dir).diagnostics
    assert finding.kind == "raised"
    assert "main.py:9" in finding.message
    assert "stores outside of its tensors, at 24 of 512" in finding.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        (kernels.NO_POWER_OF_TWO, 8, "power of 2"),
        (kernels.IN_A_HELPER, 8, "unknown is not defined"),
        (kernels.BAD_ASSEMBLY, None, "bogus"),
    ],
)
def test_whoever_refuses_to_compile_is_quoted(source: str, line: int | None, words: str, cache_dir: Path) -> None:
    first = examined(source, cache_dir).diagnostics[0]
    assert isinstance(first, CompileError)
    assert first.line == line
    assert words in first.message
    assert first.advice


@pytest.mark.slow
def test_a_wrong_tail_is_described_as_for_any_other_language(cache_dir: Path) -> None:
    (finding,) = examined(kernels.SHORT_TAIL, cache_dir).diagnostics
    assert finding.kind == "numeric"
    assert (finding.workload, finding.wrong, finding.first_index, finding.pattern) == ("small", 5, (995,), "poison")


@pytest.mark.slow
def test_a_launcher_that_reads_values_is_checked_but_not_captured(cache_dir: Path) -> None:
    found = examined(kernels.READS_VALUES, cache_dir)
    assert [finding.kind for finding in found.diagnostics] == ["uncaptured"]
    assert "main.py:13" in found.diagnostics[0].message
    assert found.passed
    assert found.checked == ("small",)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "kind"), [(kernels.RAISES, "raised"), (kernels.EXITS, "crash")])
def test_a_launcher_that_fails_is_a_value(source: str, kind: str, cache_dir: Path) -> None:
    found = examined(source, cache_dir)
    assert {finding.kind for finding in found.diagnostics} == {kind}


@pytest.mark.slow
@pytest.mark.parametrize(("device", "fits"), [("nvidia-h200", 1), ("amd-mi300x", 1)])
def test_a_tuner_is_compiled_in_all_configurations_and_its_bfloat16_is_right(
    device: str, fits: int, cache_dir: Path
) -> None:
    found = examined(kernels.MATMUL, cache_dir, matmul_target("bfloat16"), device)
    assert found.passed, found.diagnostics
    assert {k.configuration["BM"] for k in found.kernels} == {"64", "256"}
    assert sum(not k.diagnostics for k in found.kernels) == fits
    assert [(f.kind, f.resource) for f in found.rejected] == [("limit", "shared_memory")]
    assert all(k.resources.instructions.tensor_core for k in found.kernels)
    assert found.checked == ("small",)


@pytest.mark.slow
def test_a_sort_takes_seconds_and_not_minutes(cache_dir: Path) -> None:
    target = a_target(
        axes={"R": "rows", "N": "columns"},
        inputs=(Input(name="x", shape=("R", "N"), dtype="T"),),
        outputs=(Output(name="y", shape=("R", "N"), dtype="T"),),
        workloads=(on_gpu("big", "search", R=64, N=1024), on_gpu("small", "check", R=4, N=1024)),
        files={"reference.py": "def reference(x):\n    return x.sort(-1).values\n", "baselines.py": ""},
    )  # fmt: skip
    found = examined(kernels.SORT, cache_dir, target)
    assert found.passed, found.diagnostics
    assert found.checked == ("small",)


def test_a_launch_fails_only_where_no_configuration_is_left() -> None:
    counts = Instructions(total=1, tensor_core=0, vector_loads=0, async_copies=0, local_memory=0)

    def needs(shared: int) -> Resources:
        return Resources(registers=32, spill_bytes=0, shared_bytes=shared, num_warps=4, num_stages=1,
                         instructions=counts)  # fmt: skip

    def launch(number: int, shared: int | None) -> Launch:
        error = None if shared else CompileError(message="no", advice="none")
        return Launch(workload="w", number=number, kernel="k", configuration={"S": str(shared)},
                      resources=needs(shared) if shared else None, error=error)  # fmt: skip

    launches = (launch(0, 1 << 10), launch(0, 300_000), launch(0, None), launch(1, 300_000))
    found = judged(CaptureReport(launches=launches, diagnostics=(), seconds={}), H200)
    assert [finding.kind for finding in found.rejected] == ["limit", "compile"]
    assert [finding.kind for finding in found.diagnostics] == ["limit"]


def test_what_is_no_module_is_refused_without_starting_anything(cache_dir: Path) -> None:
    found = examined("def run(x, y:\n", cache_dir)
    assert [finding.kind for finding in found.diagnostics] == ["parse"]
    assert not found.passed


def test_another_language_is_a_mistake_of_the_caller(cache_dir: Path) -> None:
    with pytest.raises(UsageError, match="cpp"):
        triage(a_candidate(), DOUBLING, H200, cache_dir)


def test_a_pass_of_the_compiler_that_fails_is_placed() -> None:
    script = """
from kernelevolve.harness.triton_errors import of_compiler
said = "/tmp/x/main.py:12:20: error: operation scheduled before its operands\\n"
print(of_compiler(RuntimeError("PassManager::run failed"), said, {}).model_dump_json())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    finding = CompileError.model_validate_json(done.stdout)
    assert (finding.file, finding.line, finding.column) == ("main.py", 12, 20)
    assert "scheduled before" in finding.message
