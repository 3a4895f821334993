"""CUDA C++: the contract of a language, and what is its own."""

from pathlib import Path

import pytest

from kernelevolve.errors import ToolchainError, UsageError
from kernelevolve.hardware.devices import known
from kernelevolve.harness.build import BuildFailed, build
from kernelevolve.languages import cuda
from kernelevolve.languages.cuda import Cuda, machine_code, warnings
from kernelevolve.schema import Candidate, Diagnostic, Hardware, Limits
from kernelevolve.testing.language_contract import LanguageContract
from kernelevolve.testing.records import a_candidate
from kernelevolve.testing.sources import CUDA as SOURCE

CUDA = Cuda()
H200 = known("nvidia-h200").hardware
# Without tvm-ffi's headers, which take most of a build's time.
QUICK = """\
#define TVM_FFI_DLL_EXPORT_TYPED_FUNC(name, function) extern "C" void __tvm_ffi_##name() {}
__global__ void kernel(float* x) {
  x[threadIdx.x] = 1;
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
"""


def a_cuda_candidate(source: str = SOURCE, **files: str) -> Candidate:
    return a_candidate(language="cuda", files={"main.cu": source, **files}, tunables={})


class TestCuda(LanguageContract):
    language = CUDA
    good = a_cuda_candidate()
    broken = a_cuda_candidate(QUICK.replace("= 1;", "= one;"))
    broken_at = ("main.cu", 3)
    without_entry = {"main.cu": SOURCE.replace("TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)", "")}
    ill_formed_tunable = {"main.cu": SOURCE.replace("BLOCK: 256", "BLOCK 256")}
    hardware = H200
    other_architecture = "sm_80"


def findings(source: str, cache_dir: Path, hardware: Hardware = H200) -> tuple[Diagnostic, ...]:
    failed = build(a_cuda_candidate(source), hardware, Limits(), cache_dir)
    assert isinstance(failed, BuildFailed)
    return failed.diagnostics


@pytest.mark.parametrize(
    ("body", "line", "words", "advice"),
    [
        ("static_assert(sizeof(int) == 8);", 3, "static assertion failed", "tunables"),
        ("nowhere(x);", 3, "identifier", "include"),
        ('asm volatile("bogus.f32 %0;" : "+f"(x[0]));', None, "ptxas: Not a name of any known instruction", "PTX"),
    ],
)
def test_whoever_refuses_is_quoted(body: str, line: int | None, words: str, advice: str, cache_dir: Path) -> None:
    first = findings(QUICK.replace("x[threadIdx.x] = 1;", body), cache_dir)[0]
    assert first.kind == "compile"
    assert first.line == line
    assert words in first.message
    assert advice in first.advice


def test_more_static_shared_memory_than_can_be_declared_is_a_limit_with_its_number(cache_dir: Path) -> None:
    body = "__shared__ float s[20000]; s[threadIdx.x] = x[0]; __syncthreads(); x[0] = s[threadIdx.x ^ 1];"
    a100 = known("nvidia-a100").hardware
    (first,) = findings(QUICK.replace("x[threadIdx.x] = 1;", body), cache_dir, a100)
    assert first.kind == "limit"
    assert (first.resource, first.limit) == ("shared_memory", 49152)
    assert "80000 bytes" in first.message


def test_a_file_of_the_machine_cannot_be_included(cache_dir: Path) -> None:
    (first,) = findings(f'#include "/etc/passwd"\n{QUICK}', cache_dir)
    assert first.kind == "compile"
    assert "/etc/passwd: No such file" in first.message


def test_a_compiler_kept_busy_is_stopped(cache_dir: Path) -> None:
    ten = "".join(f"#define A{i + 1} {f'A{i} ' * 10}\n" for i in range(9))
    failed = build(
        a_cuda_candidate(f"#define A0 1,\n{ten}int a[] = {{A9}};\n{QUICK}"), H200, Limits(build_s=2.0), cache_dir
    )
    assert isinstance(failed, BuildFailed)
    (finding,) = failed.diagnostics
    assert finding.kind == "limit"
    assert finding.resource in ("time", "memory")


def test_what_the_linkers_say_is_told_apart_from_the_front_end() -> None:
    (extern,) = CUDA.diagnose("ptxas fatal   : Unresolved extern function '_Z1gPf'\n")
    assert "uses them" in extern.advice
    output = "/usr/bin/ld: /tmp/x.o: in function `run()':\nx.cudafe1.cpp:(.text+0x87): undefined reference to `h()'\n"
    (linked,) = CUDA.diagnose(output)
    assert "undefined reference to `h()'" in linked.message
    assert "libcuda" in linked.advice
    (host,) = CUDA.diagnose("main.cu:12:5: error: 'foo' was not declared in this scope\n")
    assert host.kind == "compile"
    assert (host.file, host.line, host.column) == ("main.cu", 12, 5)


def test_a_mistake_in_a_template_names_the_line_that_asked_for_it() -> None:
    output = (
        'main.cu(1): error: static assertion failed with "N too small"\n  template<int N> struct A ...\n      ^\n'
        '          detected during instantiation of class "A<N> [with N=2]" at line 2\n\n1 error detected\n'
    )
    (first,) = CUDA.diagnose(output)
    assert first.kind == "compile"
    assert first.line == 1
    assert first.message.endswith("(asked for at line 2)")


def test_code_for_a_device_has_the_features_of_its_own_architecture() -> None:
    assert [machine_code(name) for name in ("sm_80", "sm_89", "sm_90", "sm_90a", "sm_100")] == [
        "80", "89", "90a", "90a", "100a",
    ]  # fmt: skip


def test_a_device_of_another_vendor_or_one_that_nvcc_has_forgotten_is_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match="gfx942"):
        CUDA.build_plan(a_cuda_candidate(), known("amd-mi300x").hardware)
    with pytest.raises(ToolchainError, match="sm_35") as caught:
        CUDA.build_plan(a_cuda_candidate(), H200.model_copy(update={"architecture": "sm_35"}))
    assert "sm_90" in caught.value.remedy


def test_a_machine_without_nvcc_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.toolkit.cache_clear()
    monkeypatch.setattr(cuda, "_places", lambda: iter(()))
    try:
        with pytest.raises(ToolchainError, match="nvcc") as caught:
            CUDA.build_plan(a_cuda_candidate(), H200)
        assert "install" in caught.value.remedy
    finally:
        cuda.toolkit.cache_clear()


def test_suspicious_calls_are_hints_and_no_reason_to_refuse() -> None:
    source = SOURCE.replace(
        "const int64_t n", "void* p;\n  cudaMalloc(&p, 4);  // cudaDeviceSynchronize()\n  const int64_t n"
    )
    source = source.replace("TVMFFIEnvGetStream(device.device_type, device.device_id)", "nullptr")
    source = source.replace("cudaGetLastError()", "cudaSuccess")
    assert CUDA.admit({"main.cu": source}) == ()
    found = CUDA.hints({"main.cu": f"#include <cublas_v2.h>\n{source}"})
    assert len(found) == 4
    assert found[0].startswith("main.cu:1: ")
    assert "cublas" in found[0]
    assert "main.cu:18: cudaMalloc " in found[1]
    assert "default stream" in found[2]
    assert "checked" in found[3]
    assert CUDA.hints({"main.cu": SOURCE}) == ()


def test_warnings_of_both_compilers_are_read() -> None:
    output = (
        'main.cu(2): warning #177-D: variable "unused" was declared but never referenced\n   int unused;\n\n'
        "Remark: The warnings can be suppressed\n"
        "main.cu:7:3: warning: unused variable 'b' [-Wunused-variable]\n"
    )
    assert warnings(output) == (
        'main.cu:2: variable "unused" was declared but never referenced',
        "main.cu:7: unused variable 'b' [-Wunused-variable]",
    )
