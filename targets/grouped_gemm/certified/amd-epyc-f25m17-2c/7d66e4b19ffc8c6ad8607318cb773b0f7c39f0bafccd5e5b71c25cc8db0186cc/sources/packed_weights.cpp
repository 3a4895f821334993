// The weights repacked once, by `prepare`: for each group, panels of WIDTH columns that lie k by k, padded
// with zeros. A tile reads them as one stream, of whole vectors only. PANEL chooses the precision of bf16
// weights in there: T keeps them small (widened at each use), float saves the widening and doubles the
// bytes.
//
// Work is divided without regard to groups: each thread takes an equal share of the rows, finds the group
// that its share starts in, and walks on from there. At the next call the same weights are still in its
// cache.

#include <omp.h>
#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>

namespace ffi = tvm::ffi;

// tunable ROWS: 6 4 5 8 12
// tunable WIDE: 4 2 1
// tunable UNROLL: 2 1 4
// tunable AHEAD: 1 0 2
// tunable PANEL: T float

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

// The last, incomplete pair of a row goes through a buffer: memory ends with the tensor.
template <class T>
void store(T* p, const Pair& x, int64_t columns) {
  T row[WIDTH];
  store(row, x);
  std::memcpy(p, row, columns * sizeof(T));
}

// out[R, V panels] = a[R, K] @ b; `rest` columns of the last panel exist.
template <int R, int V, class P, class T>
void tile(const float* a, const P* b, T* out, int64_t K, int64_t N, int64_t rest) {
  Pair sum[R][V] = {};
#pragma GCC unroll STEPS
  for (int64_t k = 0; k < K; ++k)
    UNROLLED for (int v = 0; v < V; ++v) {
      const Pair x = load(b + (v * K + k) * WIDTH);
      UNROLLED for (int r = 0; r < R; ++r) {
        sum[r][v].a += a[r * K + k] * x.a;
        sum[r][v].b += a[r * K + k] * x.b;
      }
    }
  UNROLLED for (int r = 0; r < R; ++r)
    UNROLLED for (int v = 0; v < V; ++v) {
      T* to = out + r * N + v * WIDTH;
      if (v < V - 1 || rest >= WIDTH) store(to, sum[r][v]);
      else store(to, sum[r][v], rest);
    }
}

// Columns n to N of R rows: tiles of V panels, then of half as many.
template <int R, int V, class P, class T>
void columns(const float* a, const P* b, T* out, int64_t K, int64_t N, int64_t n) {
  constexpr int others = (V - 1) * WIDTH;
  for (; n + others < N; n += V * WIDTH) tile<R, V>(a, b + n * K, out + n, K, N, N - n - others);
  if constexpr (V > 1) columns<R, V / 2>(a, b, out, K, N, n);
}

// All columns of `rows` rows, by tiles of just that height. Few rows have few chains of multiply-adds to hide
// their latency behind: their tiles are wider, up to WIDE panels for a single row.
template <int R, class P, class T>
void row_block(int64_t rows, const float* a, const P* b, T* out, int64_t K, int64_t N) {
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

// Asks for memory before it is needed; an address behind the tensor does no harm.
template <class T>
void fetch(const T* p, int64_t count) {
  for (int64_t i = 0; AHEAD && i < count; i += 64 / sizeof(T)) __builtin_prefetch(p + i);
}

struct Allocator {
  void AllocData(DLTensor* t) { t->data = std::aligned_alloc(64, (ffi::GetDataSize(*t) / 64 + 1) * 64); }
  void FreeData(DLTensor* t) { std::free(t->data); }
};

inline void assign(float x, float& y) { y = x; }
inline void assign(bf16 x, bf16& y) { y = x; }
inline void assign(bf16 x, float& y) { y = widen(x); }

// The column at place i of a panel: a bf16 pair has its even columns first, so its fp32 panel must too.
template <class P, class T>
int64_t column(int64_t i) {
  if (std::is_same_v<P, T>) return i;
  return i < WIDTH / 2 ? 2 * i : 2 * (i - WIDTH / 2) + 1;
}

template <class T>
ffi::Tensor pack(ffi::TensorView b) {
  using P = PANEL;
  const int64_t G = b.size(0), K = b.size(1), N = b.size(2), panels = (N + WIDTH - 1) / WIDTH;
  const DLDataType type = std::is_same_v<P, T> ? b.dtype() : DLDataType{kDLFloat, 32, 1};
  ffi::Tensor packed = ffi::Tensor::FromNDAlloc(Allocator(), {G, panels, K, WIDTH}, type, b.device());
  const T* from = static_cast<const T*>(b.data_ptr());
  P* to = static_cast<P*>(packed.data_ptr());
  for (int64_t g = 0; g < G; ++g, from += K * N)
    for (int64_t p = 0; p < panels; ++p)
      for (int64_t k = 0; k < K; ++k)
        for (int64_t i = 0; i < WIDTH; ++i) {
          const int64_t n = p * WIDTH + column<P, T>(i);
          assign(n < N ? from[k * N + n] : T{}, *to++);
        }
  return packed;
}

ffi::Tensor prepare(ffi::TensorView b) { return (b.dtype().bits == 16 ? pack<bf16> : pack<float>)(b); }

template <class T>
void run_typed(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView packed, ffi::TensorView out) {
  using P = PANEL;
  const int64_t G = packed.size(0), K = a.size(1), M = out.size(0), N = out.size(1);
  const int64_t group_size = packed.size(1) * K * WIDTH;
  const T* rows = static_cast<const T*>(a.data_ptr());
  const P* weights = static_cast<const P*>(packed.data_ptr());
  const int64_t* offset = static_cast<const int64_t*>(offsets.data_ptr());
  T* result = static_cast<T*>(out.data_ptr());

#pragma omp parallel
  {
    std::vector<float> scratch(ROWS * K);
    const int64_t shares = omp_get_num_threads(), share = omp_get_thread_num();
    const int64_t end = M * (share + 1) / shares;
    int64_t first = M * share / shares;
    int64_t g = std::upper_bound(offset, offset + G + 1, first) - offset - 1;
    for (; first < end; first = offset[++g]) {
      const int64_t size = std::min(end, offset[g + 1]) - first, blocks = (size + ROWS - 1) / ROWS;
      for (int64_t i = 0; i < blocks; ++i) {
        const int64_t row = first + size * i / blocks, count = first + size * (i + 1) / blocks - row;
        fetch(rows + (row + AHEAD * ROWS) * K, count * K);
        fetch(result + (row + AHEAD * ROWS) * N, count * N);
        const float* block = widen(rows + row * K, count * K, scratch.data());
        row_block<ROWS>(count, block, weights + g * group_size, result + row * N, K, N);
      }
    }
  }
}

void run(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView, ffi::TensorView packed,
         ffi::TensorView out) {
  const DLDataType type = out.dtype();
  TVM_FFI_CHECK(type.code == kDLBfloat || type.bits == 32, TypeError) << "takes float32 and bfloat16";
  (type.bits == 16 ? run_typed<bf16> : run_typed<float>)(a, offsets, packed, out);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare, prepare)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
