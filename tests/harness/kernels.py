"""Candidates for the tiny target (`out = x * factor`, column by column): a right one, and others made from it."""

from kernelevolve.schema import Candidate, Lineage

BODY = """\
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < n; ++c) out[r * n + c] = x[r * n + c] * factor[c];
"""

_SOURCE = """\
#include <tvm/ffi/tvm_ffi.h>
@INCLUDES@
using tvm::ffi::TensorView;
@GLOBALS@
void run(TensorView x_, TensorView factor_, TensorView out_) {
  const int64_t rows = x_.size(0), n = x_.size(1);
  const float* x = static_cast<const float*>(x_.data_ptr());
  const float* factor = static_cast<const float*>(factor_.data_ptr());
  float* out = static_cast<float*>(out_.data_ptr());
  (void)x, (void)factor, (void)out, (void)rows, (void)n;
@BODY@
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
"""

PREPARED = """\
#include <tvm/ffi/tvm_ffi.h>
#include <tvm/ffi/container/tensor.h>
using namespace tvm::ffi;

struct Heap {
  void AllocData(DLTensor* t) { t->data = new float[t->shape[0]]; }
  void FreeData(DLTensor* t) { delete[] static_cast<float*>(t->data); }
};

// Twice the factors: where `run` multiplies by half of what it gets, the answer is right only if this has run.
Tensor prepare(TensorView factor) {
  Tensor twice = Tensor::FromNDAlloc(Heap(), factor.shape(), factor.dtype(), factor.device());
  const float* from = static_cast<const float*>(factor.data_ptr());
  float* to = static_cast<float*>(twice.data_ptr());
  for (int64_t i = 0; i < factor.size(0); ++i) to[i] = 2.0f * from[i];
  return twice;
}

void run(TensorView x_, TensorView, TensorView twice, TensorView out_) {
  const int64_t rows = x_.size(0), n = x_.size(1);
  const float* x = static_cast<const float*>(x_.data_ptr());
  const float* packed = static_cast<const float*>(twice.data_ptr());
  float* out = static_cast<float*>(out_.data_ptr());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < n; ++c) out[r * n + c] = x[r * n + c] * (0.5f * packed[c]);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare, prepare);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
"""


def source(body: str = BODY, *, includes: str = "", global_code: str = "") -> str:
    """A kernel with that body, which sees x, factor, out, rows and n."""
    named = "\n".join(f"#include <{header}>" for header in includes.split())
    return _SOURCE.replace("@INCLUDES@", named).replace("@GLOBALS@", global_code).replace("@BODY@", body.rstrip())


def a_kernel(body: str = BODY, *, includes: str = "", global_code: str = "", **tunables: int) -> Candidate:
    """The candidate around it."""
    text = source(body, includes=includes, global_code=global_code)
    return Candidate(language="cpp", files={"main.cpp": text}, tunables=tunables, lineage=Lineage(origin="main.cpp"))
