// The operation as it is written: each group's rows times its matrix, one group after the other. A strip of
// one output row is summed in a small array over all of k; memory runs along n, so the compiler can
// vectorise there. Threads take groups, which is only fair where groups are of similar size.

#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace ffi = tvm::ffi;

// tunable STRIP: 64 32 16
// tunable SCHEDULE: dynamic static guided

struct bf16 {
  uint16_t bits;
};

inline float widen(float x) { return x; }

inline float widen(bf16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}

inline void narrow(float x, float& y) { y = x; }

// To the nearest, ties to even; a NaN stays one, which adding alone could turn into infinity.
inline void narrow(float x, bf16& y) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  y.bits = uint16_t((x == x ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000) >> 16);
}

// One row: out[N] = a[K] @ b[K, N], summed in single precision.
template <class T>
void row_product(const T* a, const T* b, T* out, int64_t K, int64_t N) {
  for (int64_t first = 0; first < N; first += STRIP) {
    const int64_t width = std::min<int64_t>(STRIP, N - first);
    float sum[STRIP] = {};
    for (int64_t k = 0; k < K; ++k) {
      const float x = widen(a[k]);
      const T* row = b + k * N + first;
      // A constant trip count lets the compiler keep `sum` in registers.
      if (width == STRIP) {
        for (int n = 0; n < STRIP; ++n) sum[n] += x * widen(row[n]);
      } else {
        for (int n = 0; n < width; ++n) sum[n] += x * widen(row[n]);
      }
    }
    for (int n = 0; n < width; ++n) narrow(sum[n], out[first + n]);
  }
}

template <class T>
void run_typed(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView b, ffi::TensorView out) {
  const int64_t G = b.size(0), K = b.size(1), N = b.size(2);
  const T* rows = static_cast<const T*>(a.data_ptr());
  const T* weights = static_cast<const T*>(b.data_ptr());
  const int64_t* offset = static_cast<const int64_t*>(offsets.data_ptr());
  T* result = static_cast<T*>(out.data_ptr());

#pragma omp parallel for schedule(SCHEDULE)
  for (int64_t g = 0; g < G; ++g) {
    for (int64_t i = offset[g]; i < offset[g + 1]; ++i) {
      row_product(rows + i * K, weights + g * K * N, result + i * N, K, N);
    }
  }
}

void run(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView b, ffi::TensorView out) {
  const DLDataType type = out.dtype();
  TVM_FFI_CHECK(type.code == kDLBfloat || type.bits == 32, TypeError) << "takes float32 and bfloat16";
  (type.bits == 16 ? run_typed<bf16> : run_typed<float>)(a, offsets, b, out);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
