"""Two small operations with kernels of their own, built for real once a session."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernelevolve import targets
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.runtime import Op, Runtime
from kernelevolve.schema import Box, Candidate, Hardware
from kernelevolve.testing.registry_records import an_entry

HEAD = """
name = "head"
summary = "The first k elements of each row, and their positions"
source = "the signature of a Top-K"
axes = { batch = "rows", n = "elements in a row", k = "elements to keep" }
dtypes.T = ["float32", "bfloat16"]
inputs = [{ name = "x", shape = ["batch", "n"], dtype = "T" }, { name = "k", axis = "k" }]
outputs = [
    { name = "values", shape = ["batch", "k"], dtype = "T" },
    { name = "indices", shape = ["batch", "k"], dtype = "int64" },
]
baselines = [{ name = "eager", summary = "slice and copy" }]
cost.operations = "batch * k"
"""
HEAD_REFERENCE = """
import torch

def reference(x, k):
    return x[:, :k].contiguous(), torch.arange(k).expand(x.shape[0], k).contiguous()
"""
HEAD_KERNEL = """
#include <tvm/ffi/tvm_ffi.h>

void run(tvm::ffi::TensorView x, int64_t k, tvm::ffi::TensorView values, tvm::ffi::TensorView indices) {
  if (k == 13) TVM_FFI_THROW(ValueError) << "not thirteen";
  const float* from = static_cast<const float*>(x.data_ptr());
  float* value = static_cast<float*>(values.data_ptr());
  int64_t* index = static_cast<int64_t*>(indices.data_ptr());
  for (int64_t row = 0; row < x.size(0); ++row)
    for (int64_t i = 0; i < k; ++i, ++value, ++index) *value = from[row * x.size(1) + i], *index = i;
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
"""

SCALE = """
name = "scale"
summary = "Columns times a weight, rows plus a bias"
source = "constant weights, and an input that is one longer than an axis"
axes = { rows = "rows", n = "columns" }
dtypes.T = ["float32"]
inputs = [
    { name = "x", shape = ["rows", "n"], dtype = "T" },
    { name = "bias", shape = ["rows + 1"], dtype = "int64" },
    { name = "w", shape = ["n"], dtype = "T", constant = true },
]
outputs = [{ name = "y", shape = ["rows", "n"], dtype = "T" }]
baselines = [{ name = "eager", summary = "two passes" }]
cost.operations = "2 * rows * n"
"""
SCALE_REFERENCE = """
def reference(x, bias, w):
    return x * w + bias[:-1, None]
"""
SCALE_KERNEL = """
#include <tvm/ffi/tvm_ffi.h>

#include <cstdlib>

namespace ffi = tvm::ffi;

struct Heap {
  void AllocData(DLTensor* t) { t->data = std::aligned_alloc(64, (ffi::GetDataSize(*t) / 64 + 1) * 64); }
  void FreeData(DLTensor* t) { std::free(t->data); }
};

ffi::Tensor prepare(ffi::TensorView w) {
  ffi::Tensor packed = ffi::Tensor::FromNDAlloc(Heap(), w.shape(), w.dtype(), w.device());
  for (int64_t i = 0; i < w.size(0); ++i)
    static_cast<float*>(packed.data_ptr())[i] = static_cast<const float*>(w.data_ptr())[i];
  return packed;
}

void run(ffi::TensorView x, ffi::TensorView bias, ffi::TensorView, ffi::TensorView packed, ffi::TensorView y) {
  const float* weight = static_cast<const float*>(packed.data_ptr());
  for (int64_t r = 0, at = 0; r < x.size(0); ++r)
    for (int64_t i = 0; i < x.size(1); ++i, ++at)
      static_cast<float*>(y.data_ptr())[at] =
          static_cast<const float*>(x.data_ptr())[at] * weight[i] + static_cast<const int64_t*>(bias.data_ptr())[r];
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare, prepare);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
"""

WORKLOADS = """
[[workloads]]
name = "a"
role = "search"
device = "cpu"
axes = {axes}
dtypes.T = "float32"
[[workloads]]
name = "b"
role = "held_out"
device = "cpu"
axes = {more}
dtypes.T = "float32"
"""
BASELINES = "def eager(*tensors):\n    pass\n"


@dataclass(frozen=True)
class Place:
    """A registry and targets of a test's own; builds are shared by the session."""

    registry: LocalRegistry
    targets: Path
    cache: Path
    hardware: Hardware

    def publish(self, target: str, source: str, box: Box, **changes: Any) -> Path:
        """Certify a kernel by decree."""
        fields = {
            "target": target,
            "target_digest": targets.load(target, self.targets).digest,
            "hardware": self.hardware,
            "candidate": Candidate(language="cpp", files={"main.cpp": source}),
            "domain": (box,),
        }
        return self.registry.publish(an_entry(**{**fields, **changes}))

    def runtime(self, **changes: Any) -> Runtime:
        options = {"hardware": self.hardware, "targets": self.targets, "cache_dir": self.cache}
        return Runtime(self.registry.path, **{**options, **changes})

    def op(self, target: str, **changes: Any) -> Op:
        return self.runtime(**changes).op(target)


def write_target(folder: Path, name: str, toml: str, reference: str, *sizes: dict[str, int]) -> None:
    home = folder / name
    home.mkdir(parents=True)
    axes, more = ("{" + ", ".join(f"{k} = {v}" for k, v in size.items()) + "}" for size in sizes)
    (home / "target.toml").write_text(toml + WORKLOADS.format(axes=axes, more=more))
    (home / "reference.py").write_text(reference)
    (home / "baselines.py").write_text(BASELINES)


HEAD_BOX = Box(dtypes={"T": "float32"}, axes={"batch": (1, 8), "n": (16, 64), "k": (1, 16)})
SCALE_BOX = Box(dtypes={"T": "float32"}, axes={"rows": (1, 8), "n": (1, 64)})
