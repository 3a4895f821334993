// The operation as it is written: W_user @ e_user once a user, into a table; then, for each candidate, its
// user's block of that table plus W_cand @ e_cand. Both products are the same loop nest. A strip of one
// output row is summed in a small array over all of k; memory runs along n, so the compiler can vectorise
// there.

#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace ffi = tvm::ffi;

// tunable STRIP: 32 16 64
// tunable SCHEDULE: static dynamic

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

// out[M, N] = start[M, N] + w[M, K] @ e[K, N], summed in single precision; `start` may be null.
template <class T, class Out>
void product(const T* w, const T* e, const float* start, Out* out, int64_t M, int64_t K, int64_t N) {
  for (int64_t m = 0; m < M; ++m) {
    for (int64_t first = 0; first < N; first += STRIP) {
      const int64_t width = std::min<int64_t>(STRIP, N - first);
      float sum[STRIP] = {};
      if (start) std::copy_n(start + m * N + first, width, sum);
      for (int64_t k = 0; k < K; ++k) {
        const float a = widen(w[m * K + k]);
        const T* row = e + k * N + first;
        // A constant trip count lets the compiler keep `sum` in registers.
        if (width == STRIP) {
          for (int n = 0; n < STRIP; ++n) sum[n] += a * widen(row[n]);
        } else {
          for (int n = 0; n < width; ++n) sum[n] += a * widen(row[n]);
        }
      }
      for (int n = 0; n < width; ++n) narrow(sum[n], out[m * N + first + n]);
    }
  }
}

template <class T>
void run_typed(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of,
               ffi::TensorView w_cand, ffi::TensorView w_user, ffi::TensorView out) {
  const int64_t C = e_cand.size(0), Kc = e_cand.size(1), N = e_cand.size(2);
  const int64_t U = e_user.size(0), Ku = e_user.size(1), M = w_cand.size(0);
  const T* candidates = static_cast<const T*>(e_cand.data_ptr());
  const T* users = static_cast<const T*>(e_user.data_ptr());
  const T* wc = static_cast<const T*>(w_cand.data_ptr());
  const T* wu = static_cast<const T*>(w_user.data_ptr());
  const int64_t* owner = static_cast<const int64_t*>(user_of.data_ptr());
  T* result = static_cast<T*>(out.data_ptr());

  std::vector<float> table(U * M * N);
#pragma omp parallel
  {
#pragma omp for schedule(SCHEDULE)
    for (int64_t u = 0; u < U; ++u) {
      product(wu, users + u * Ku * N, nullptr, &table[u * M * N], M, Ku, N);
    }
#pragma omp for schedule(SCHEDULE)
    for (int64_t c = 0; c < C; ++c) {
      product(wc, candidates + c * Kc * N, &table[owner[c] * M * N], result + c * M * N, M, Kc, N);
    }
  }
}

void run(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of, ffi::TensorView w_cand,
         ffi::TensorView w_user, ffi::TensorView out) {
  const DLDataType type = out.dtype();
  TVM_FFI_CHECK(type.code == kDLBfloat || type.bits == 32, TypeError) << "takes float32 and bfloat16";
  (type.bits == 16 ? run_typed<bf16> : run_typed<float>)(e_cand, e_user, user_of, w_cand, w_user, out);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
