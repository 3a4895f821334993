// Rows, not groups, are the unit of work. Every group is cut into tasks of at most TASK rows, so that one
// large group still keeps all threads busy; a task is cut again into register tiles of up to ROWS rows.
// Weights are read where they are, in their own precision.
//
// Tiles of a task are of nearly equal height (13 rows become 4, 4, 5, not 6, 6, 1). A tile of few rows has
// few chains of multiply-adds to hide their latency behind, so it is made wider (WIDE pairs of vectors for
// a single row): that is what small groups need.

#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace ffi = tvm::ffi;

// tunable ROWS: 6 4 5 8 12
// tunable WIDE: 4 2 1
// tunable UNROLL: 2 1 4
// tunable TASK: 48 24 96 192
// Static tasks give a thread the same groups at each call: their weights are still in its cache.
// tunable SCHEDULE: static dynamic guided

constexpr int VECTOR_BYTES = __BIGGEST_ALIGNMENT__;  // 64 with AVX-512, 32 with AVX, else 16
constexpr int WIDTH = 2 * VECTOR_BYTES / 4;          // columns in a Pair
constexpr int STEPS = UNROLL;                        // a pragma takes a constant, not a macro
#define UNROLLED _Pragma("GCC unroll 16")            // or GCC keeps the tile in memory, not in registers
typedef float Vec __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(VECTOR_BYTES), aligned(2), may_alias));

struct bf16 {
  uint16_t bits;
};

inline float widen(float x) { return x; }

inline float widen(bf16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}

// WIDTH neighbouring columns. In fp32 two halves; in bf16 the even and the odd columns, since a 32-bit word
// that holds two bf16 widens by one shift and one mask, and narrows the same way: no shuffles.
struct Pair {
  Vec a, b;
};

inline Pair load(const float* p) { return {((const Vec*)p)[0], ((const Vec*)p)[1]}; }

inline Pair load(const bf16* p) {
  const Bits words = *(const Bits*)p;
  return {(Vec)(words << 16), (Vec)(words & 0xffff0000u)};
}

inline void store(float* p, const Pair& x) {
  ((Vec*)p)[0] = x.a;
  ((Vec*)p)[1] = x.b;
}

// To the nearest, ties to even; a NaN stays one, which adding alone could turn into infinity.
inline Bits rounded(Vec x) {
  const Bits bits = (Bits)x;
  return x == x ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000;
}

inline void store(bf16* p, const Pair& x) {
  *(Bits*)p = rounded(x.a) >> 16 | (rounded(x.b) & 0xffff0000u);
}

// Memory ends with the tensor: the last, incomplete pair of a row goes through a buffer.
template <class T>
Pair load(const T* p, int64_t columns) {
  T row[WIDTH] = {};
  std::memcpy(row, p, columns * sizeof(T));
  return load(row);
}

template <class T>
void store(T* p, const Pair& x, int64_t columns) {
  T row[WIDTH];
  store(row, x);
  std::memcpy(p, row, columns * sizeof(T));
}

// out[R, V pairs] = a[R, K] @ b[K, V pairs]; a pair that isn't WHOLE has `rest` columns.
template <int R, int V, bool WHOLE, class T>
void tile(const float* a, const T* b, T* out, int64_t K, int64_t N, int64_t rest) {
  Pair sum[R][V] = {};
#pragma GCC unroll STEPS
  for (int64_t k = 0; k < K; ++k, b += N)
    UNROLLED for (int v = 0; v < V; ++v) {
      const Pair x = WHOLE ? load(b + v * WIDTH) : load(b, rest);
      UNROLLED for (int r = 0; r < R; ++r) {
        sum[r][v].a += a[r * K + k] * x.a;
        sum[r][v].b += a[r * K + k] * x.b;
      }
    }
  UNROLLED for (int r = 0; r < R; ++r)
    UNROLLED for (int v = 0; v < V; ++v) {
      if (WHOLE) store(out + r * N + v * WIDTH, sum[r][v]);
      else store(out + r * N, sum[r][v], rest);
    }
}

// Columns n to N of R rows: tiles of V pairs, then of half as many, at last the incomplete pair.
template <int R, int V, class T>
void columns(const float* a, const T* b, T* out, int64_t K, int64_t N, int64_t n) {
  for (; n + V * WIDTH <= N; n += V * WIDTH) tile<R, V, true>(a, b + n, out + n, K, N, 0);
  if constexpr (V > 1) columns<R, V / 2>(a, b, out, K, N, n);
  else if (n < N) tile<R, 1, false>(a, b + n, out + n, K, N, N - n);
}

// All columns of `rows` rows, by tiles of just that height.
template <int R, class T>
void row_block(int64_t rows, const float* a, const T* b, T* out, int64_t K, int64_t N) {
  if constexpr (R > 1) {
    if (rows < R) return row_block<R - 1>(rows, a, b, out, K, N);
  }
  columns<R, R == 1 ? WIDE : R == 2 ? (WIDE + 1) / 2 : 1>(a, b, out, K, N, 0);
}

inline const float* widen(const float* a, int64_t, float*) { return a; }

inline const float* widen(const bf16* a, int64_t count, float* scratch) {
  for (int64_t i = 0; i < count; ++i) scratch[i] = widen(a[i]);
  return scratch;
}

struct Task {
  int64_t group, first, last;  // rows of one group
};

template <class T>
void run_typed(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView b, ffi::TensorView out) {
  const int64_t G = b.size(0), K = b.size(1), N = b.size(2);
  const T* rows = static_cast<const T*>(a.data_ptr());
  const T* weights = static_cast<const T*>(b.data_ptr());
  const int64_t* offset = static_cast<const int64_t*>(offsets.data_ptr());
  T* result = static_cast<T*>(out.data_ptr());

  std::vector<Task> tasks;
  for (int64_t g = 0; g < G; ++g) {
    const int64_t size = offset[g + 1] - offset[g], pieces = (size + TASK - 1) / TASK;
    for (int64_t i = 0; i < pieces; ++i)
      tasks.push_back({g, offset[g] + size * i / pieces, offset[g] + size * (i + 1) / pieces});
  }
#pragma omp parallel
  {
    std::vector<float> scratch(ROWS * K);
#pragma omp for schedule(SCHEDULE)
    for (size_t t = 0; t < tasks.size(); ++t) {
      const auto [g, first, last] = tasks[t];
      const int64_t size = last - first, blocks = (size + ROWS - 1) / ROWS;
      for (int64_t i = 0; i < blocks; ++i) {
        const int64_t row = first + size * i / blocks, count = first + size * (i + 1) / blocks - row;
        const float* block = widen(rows + row * K, count * K, scratch.data());
        row_block<ROWS>(count, block, weights + g * K * N, result + row * N, K, N);
      }
    }
  }
}

void run(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView b, ffi::TensorView out) {
  const DLDataType type = out.dtype();
  TVM_FFI_CHECK(type.code == kDLBfloat || type.bits == 32, TypeError) << "takes float32 and bfloat16";
  (type.bits == 16 ? run_typed<bf16> : run_typed<float>)(a, offsets, b, out);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
