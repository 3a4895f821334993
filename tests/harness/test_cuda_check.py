"""CUDA candidates without a GPU: compiled for one, and what they would launch."""

from pathlib import Path

import cuda_kernels as kernels
import pytest

from kernelevolve.errors import UsageError
from kernelevolve.hardware.devices import known
from kernelevolve.harness import cuda_check
from kernelevolve.harness.cubin import kernels as kernels_of
from kernelevolve.harness.cuda_calls import Called
from kernelevolve.harness.triage import triage
from kernelevolve.schema import Candidate, Limits, Triage, Workload
from kernelevolve.testing.records import a_target

DOUBLING = a_target(
    workloads=tuple(
        Workload(name=name, role=role, device="gpu", axes={"N": n}, dtypes={"T": "float32"})
        for name, role, n in (("big", "search", 1 << 20), ("other", "search", 1000), ("small", "check", 7))
    )
)


def examined(source: str, cache_dir: Path, device: str = "nvidia-h200", **tunables: int) -> Triage:
    candidate = Candidate(language="cuda", files={"main.cu": source}, tunables=tunables)
    return triage(candidate, DOUBLING, known(device), cache_dir)


def test_a_launch_is_known_with_its_grid_its_needs_and_the_tensors_that_it_gets(cache_dir: Path) -> None:
    found = examined(kernels.DOUBLE, cache_dir)
    assert found.passed, found.diagnostics
    big, other = found.kernels
    assert (big.kernel, big.workload, big.grid) == ("twice", "big", (4096, 1, 1))
    assert (other.workload, other.grid) == ("other", (4, 1, 1))
    assert big.configuration == {"BLOCK": "256"}
    assert (big.resources.num_warps, big.resources.shared_bytes, big.resources.num_stages) == (8, 0, None)
    assert 0 < big.resources.registers < 64
    assert big.resources.instructions.load_store >= 2
    assert big.occupancy == 1.0
    assert [t.bytes for t in big.tensors] == [4 << 20, 4 << 20]
    assert (found.checked, found.unchecked, found.hints) == ((), ("small",), ())
    again = examined(kernels.DOUBLE, cache_dir)
    assert again.seconds["compile"] == 0.0
    assert again.kernels == found.kernels


def test_a_mistake_is_placed_and_nothing_is_launched(cache_dir: Path) -> None:
    found = examined(kernels.with_body("  y[i] = z;\n"), cache_dir)
    (finding,) = found.diagnostics
    assert finding.kind == "compile"
    assert (finding.file, finding.line) == ("main.cu", 10)
    assert not found.kernels


@pytest.mark.parametrize(
    ("source", "resource", "limit", "words"),
    [
        (kernels.TOO_MUCH_SHARED, "shared_memory", 227 << 10, "300000 bytes"),
        (kernels.SHARED_UNASKED, "shared_memory", 48 << 10, "100000 bytes"),
        pytest.param(kernels.TOO_MANY_THREADS, "threads", 1024, "2048 threads", marks=pytest.mark.slow),
        pytest.param(kernels.BEYOND_ITS_BOUNDS, "threads", 64, "__launch_bounds__ allow 64", marks=pytest.mark.slow),
        pytest.param(kernels.LONG_SIDE, "grid", 65535, "70000", marks=pytest.mark.slow),
        pytest.param(kernels.NOTHING_TO_DO, "grid", 1, "a side is 0", marks=pytest.mark.slow),
    ],
)
def test_what_a_device_would_refuse_is_a_limit_with_its_number(
    source: str, resource: str, limit: int, words: str, cache_dir: Path
) -> None:
    found = examined(source, cache_dir)
    assert not found.passed
    finding = found.diagnostics[0]
    assert finding.kind == "limit"
    assert (finding.resource, finding.limit) == (resource, limit)
    assert words in finding.message


@pytest.mark.slow
def test_shared_memory_that_is_asked_for_is_granted(cache_dir: Path) -> None:
    found = examined(kernels.SHARED_ASKED, cache_dir)
    assert found.passed, found.diagnostics
    assert found.kernels[0].resources.shared_bytes == 100000
    assert found.kernels[0].blocks_per_multiprocessor == 2


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (kernels.READS_VALUES, "cudaMemcpy"),
        pytest.param(kernels.UNKNOWN_CALL, "cudaProfilerStart", marks=pytest.mark.slow),
    ],
)
def test_what_only_a_device_can_tell_is_left_to_it(source: str, words: str, cache_dir: Path) -> None:
    found = examined(source, cache_dir)
    assert {finding.kind for finding in found.diagnostics} == {"uncaptured"}
    assert words in found.diagnostics[0].message
    assert found.passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        (kernels.THROWS, "raised", "not that shape"),
        (kernels.TOUCHES, "raised", "from the host"),
    ],
)
def test_a_host_side_that_fails_is_a_value(source: str, kind: str, words: str, cache_dir: Path) -> None:
    found = examined(source, cache_dir)
    assert found.diagnostics[0].kind == kind
    assert words in found.diagnostics[0].message
    assert not found.passed


@pytest.mark.slow
def test_a_host_side_that_ends_the_process_or_its_report_is_told(cache_dir: Path) -> None:
    for source in (kernels.EXITS, kernels.FORGED):
        found = examined(source, cache_dir)
        assert not found.passed
        assert found.diagnostics[0].kind == "crash"
        assert not found.kernels


@pytest.mark.slow
def test_a_host_side_that_never_returns_is_stopped(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_check, "LIMITS", Limits(call_s=1.0))
    found = examined(kernels.LOOPS, cache_dir)
    assert [(d.kind, d.limit) for d in found.diagnostics if d.kind == "limit"] == [("limit", 1.0)]


@pytest.mark.slow
def test_hints_come_from_the_compiler_and_from_the_launches(cache_dir: Path) -> None:
    assert any('"never" was declared' in hint for hint in examined(kernels.WARNED, cache_dir).hints)
    assert any("twice runs on another stream" in hint for hint in examined(kernels.DEFAULT_STREAM, cache_dir).hints)


@pytest.mark.slow
def test_registers_that_don_t_suffice_show_as_local_memory(cache_dir: Path) -> None:
    needs = examined(kernels.SPILLS, cache_dir).kernels[0].resources
    assert needs.spill_bytes >= 1200
    assert needs.instructions.local_memory > 0


def test_another_vendor_s_device_and_a_language_of_the_cpu_are_mistakes_of_usage(cache_dir: Path) -> None:
    with pytest.raises(UsageError, match="gfx942"):
        examined(kernels.DOUBLE, cache_dir, "amd-mi300x")
    with pytest.raises(UsageError, match="cpp"):
        triage(Candidate(language="cpp", files={"main.cpp": ""}), DOUBLING, known("nvidia-h200"), cache_dir)


def test_a_kernel_is_called_by_its_name_and_template_arguments() -> None:
    def name(demangled: str) -> str:
        return Called(
            workload=0, number=0, symbol="s", name=demangled, grid=(1, 1, 1), block=(1, 1, 1), dynamic_shared=0,
            allowed_shared=0, current_stream=True, cluster=False, tensors=(),
        ).kernel  # fmt: skip

    assert name("twice(float const*, float*, long)") == "twice"
    assert name("void (anonymous namespace)::count<unsigned int, 0>(unsigned int const*, long)") == (
        "count<unsigned int, 0>"
    )
    assert name("void ns::f<&g(int), (ns::Kind)2>(float*)") == "ns::f<&g(int), (ns::Kind)2>"
    assert name("plain_c_symbol") == "plain_c_symbol"


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF" + bytes(200), bytes(range(256))])
def test_a_damaged_cubin_is_an_error_and_not_a_crash(content: bytes) -> None:
    try:
        assert kernels_of(content) == {}
    except ValueError as error:
        assert "cubin" in str(error)
