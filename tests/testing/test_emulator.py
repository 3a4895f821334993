"""The CUDA emulator of the tests: it computes what a device does, and doesn't forgive what a device doesn't."""

from pathlib import Path

import pytest

from kernelevolve.errors import UsageError
from kernelevolve.schema import Candidate, Input, Workload
from kernelevolve.testing.emulator import translate
from kernelevolve.testing.emulator.check import built, compared
from kernelevolve.testing.records import a_target

# Every way doubles a vector of 256 numbers, if the device does what the programmer of that way counts on.
SOURCE = """\
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

__global__ void through_shared(const float* x, float* y, bool waits) {
  __shared__ float kept[256];
  kept[threadIdx.x] = 2 * x[threadIdx.x];
  if (waits) __syncthreads();
  y[255 - threadIdx.x] = kept[255 - threadIdx.x];
}

__global__ void through_copies(const float* x, float* y, bool waits) {
  extern __shared__ __align__(16) float copied[];
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(copied + 4 * threadIdx.x));
  asm volatile("cp.async.cg.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(x + 4 * threadIdx.x), "n"(16), "r"(16));
  asm volatile("cp.async.commit_group;" ::);
  if (waits) asm volatile("cp.async.wait_group %0;" ::"n"(0));
  __syncthreads();
  for (int i = 0; i < 4; ++i) y[252 - 4 * threadIdx.x + i] = 2 * copied[252 - 4 * threadIdx.x + i];
  asm volatile("cp.async.wait_group %0;" ::"n"(0));
}

__global__ void through_lanes(const float* x, float* y, bool all) {
  const float other = __shfl_xor_sync(~0u, x[threadIdx.x ^ 1], 1);
  if (all || threadIdx.x % 2) __syncwarp();
  const unsigned odd = __ballot_sync(~0u, threadIdx.x & 1);
  y[threadIdx.x] = odd == 0xaaaaaaaa ? 2 * other : 0;
}

__global__ void in_fours(const float* x, float* y, int at) {
  const float4 four = *reinterpret_cast<const float4*>(x + 4 * threadIdx.x + at);
  y[4 * threadIdx.x + at] = 2 * four.x;
  for (int i = 0; i < 4; ++i) y[4 * threadIdx.x + i] = 2 * x[4 * threadIdx.x + i];
}

void run(tvm::ffi::TensorView x, int64_t way, tvm::ffi::TensorView y) {
  const float* from = static_cast<const float*>(x.data_ptr());
  float* to = static_cast<float*>(y.data_ptr());
  const bool right = way % 2 == 0;
  if (way / 2 == 0) through_shared<<<1, 256>>>(from, to, right);
  if (way / 2 == 1) through_copies<<<1, 64, 1024>>>(from, to, right);
  if (way / 2 == 2) through_lanes<<<1, 256>>>(from, to, right);
  if (way / 2 == 3) in_fours<<<1, 64>>>(from, to, right ? 0 : 1);
  if (way / 2 == 4) through_shared<<<1, 256, right ? 0 : 100000>>>(from, to, true);
  if (cudaGetLastError() != cudaSuccess) TVM_FFI_THROW(RuntimeError) << "refused";
}
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
"""
WAYS = ("shared", "copies", "lanes", "fours", "launch")
TARGET = a_target(
    axes={"N": "elements", "way": "how"},
    inputs=(Input(name="x", shape=("N",), dtype="T"), Input(name="way", axis="way")),
    files={"reference.py": "def reference(x, way):\n    return x * 2\n", "baselines.py": ""},
)


def workloads(*ways: int) -> list[Workload]:
    return [
        Workload(name=str(way), role="check", device="cpu", axes={"N": 256, "way": way}, dtypes={"T": "float32"})
        for way in ways
    ]


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built so that threads run in falling order, and copies as late as they may."""
    folder = tmp_path_factory.mktemp("late")
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o755)
    return built(Candidate(language="cuda", files={"main.cu": SOURCE}), folder, order=1)


def test_what_is_right_on_a_device_is_right(late: Path, cache_dir: Path) -> None:
    assert compared(late, TARGET, workloads(0, 2, 4, 6, 8), cache_dir) == ()


@pytest.mark.parametrize(
    ("way", "kind"),
    [(1, "numeric"), (3, "numeric"), (5, "numeric"), (7, "crash"), (9, "raised")],
    ids=["a barrier is missing", "a copy isn't waited for", "a lane isn't waited for", "misaligned", "shared memory"],
)
def test_what_a_device_does_not_forgive_is_found(way: int, kind: str, late: Path, cache_dir: Path) -> None:
    (finding,) = compared(late, TARGET, workloads(way), cache_dir)
    assert finding.kind == kind


def test_lines_stay_where_they_are() -> None:
    changed = translate(SOURCE)
    assert changed.count("\n") == SOURCE.count("\n")
    assert "<<<" not in changed
    assert "asm" not in changed
    assert changed.splitlines()[4] == SOURCE.splitlines()[4]


def test_a_launch_over_several_lines_keeps_template_and_arguments() -> None:
    text = 'f<int, g<3>>\n    <<<dim3(a, b), 32, h(c, (d)),\n  s>>>(\n   x[0], "(",\n  y);\n'
    changed = translate(text)
    assert changed.count("\n") == text.count("\n")
    assert (
        "emulated::launch(reinterpret_cast<const void*>(&f<int, g<3>>), dim3(a, b), 32, h(c, (d)),\n  s, [&]" in changed
    )
    with pytest.raises(UsageError, match="never closes"):
        translate("f<<<1, 1>>>(x;")
