"""Kernels for tests: the doubling target's in the languages of a GPU, each with one tunable."""

TRITON = """\
import triton
import triton.language as tl

TUNABLES = {"BLOCK": [512, 1024]}


@triton.jit
def double(x, y, n, B: tl.constexpr):
    o = tl.program_id(0) * B + tl.arange(0, B)
    tl.store(y + o, tl.load(x + o, mask=o < n) * 2, mask=o < n)


def run(x, y):
    double[(triton.cdiv(x.numel(), BLOCK),)](x, y, x.numel(), B=BLOCK)
"""
CUDA = """\
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

// tunable BLOCK: 256 128 512
namespace ffi = tvm::ffi;

__global__ void twice(const float* x, float* y, int64_t n) {
  const int64_t i = blockIdx.x * int64_t{BLOCK} + threadIdx.x;
  if (i < n) y[i] = 2 * x[i];
}

void run(ffi::TensorView x, ffi::TensorView y) {
  const DLDevice device = x.device();
  const auto stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(device.device_type, device.device_id));
  const int64_t n = x.size(0);
  twice<<<(n + BLOCK - 1) / BLOCK, BLOCK, 0, stream>>>(
      static_cast<const float*>(x.data_ptr()), static_cast<float*>(y.data_ptr()), n);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << cudaGetErrorString(error);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
"""
