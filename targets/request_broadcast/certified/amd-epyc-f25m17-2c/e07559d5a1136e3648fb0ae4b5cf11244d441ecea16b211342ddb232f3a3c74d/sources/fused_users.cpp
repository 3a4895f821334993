// The user's part as a starting value: W_user @ e_user is computed once a user, and its block is what a
// candidate's accumulators begin with. The addition costs a load, and only `out` goes back to memory.
//
// Both products run through one register tile of up to ROWS rows by two vectors. The weights are repacked
// at each call, so that a tile reads them as one stream; M is cut into blocks of nearly equal height (43
// rows become 5, 5, 6, 5, ...), because a last block of one row would cost almost as much as a full one.

#include <tvm/ffi/tvm_ffi.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace ffi = tvm::ffi;

// tunable ROWS: 6 4 5 8 12
// tunable UNROLL: 2 1 4
// tunable AHEAD: 1 0 2
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

inline int64_t padded(int64_t N) { return (N + WIDTH - 1) / WIDTH * WIDTH; }

// block[M, N] = w[M, K] @ e[K, N] for a user; out[M, N] = block[M, N] + w[M, K] @ e[K, N] for a candidate.
template <class T>
struct Product {
  const float* w;  // packed
  const T* e;
  float* block;  // [M, padded(N)], each row in pairs as the tile has them
  T* out;        // null for a user
  int64_t M, K, N;
};

// R rows of one pair of columns, which is WHOLE but at the end of a row.
template <int R, bool WHOLE, class T>
void tile(const Product<T>& p, int64_t row, int64_t pair) {
  const int64_t stride = padded(p.N), rest = p.N - pair * WIDTH;
  float* block = p.block + row * stride + pair * WIDTH;
  T* out = p.out + row * p.N + pair * WIDTH;
  Pair sum[R];
  UNROLLED for (int r = 0; r < R; ++r) sum[r] = p.out ? load(block + r * stride) : Pair{};

  const float* w = p.w + row * p.K;
  const T* e = p.e + pair * WIDTH;
#pragma GCC unroll STEPS
  for (int64_t k = 0; k < p.K; ++k, w += R, e += p.N) {
    const Pair x = WHOLE ? load(e) : load(e, rest);
    UNROLLED for (int r = 0; r < R; ++r) {
      sum[r].a += w[r] * x.a;
      sum[r].b += w[r] * x.b;
    }
  }

  UNROLLED for (int r = 0; r < R; ++r) {
    if (!p.out) store(block + r * stride, sum[r]);
    else if (WHOLE) store(out + r * p.N, sum[r]);
    else store(out + r * p.N, sum[r], rest);
  }
}

// All columns of `rows` rows, by tiles of just that height.
template <int R, class T>
void tile_row(const Product<T>& p, int64_t row, int64_t rows) {
  if constexpr (R > 1) {
    if (rows < R) return tile_row<R - 1>(p, row, rows);
  }
  const int64_t whole = p.N / WIDTH;
  for (int64_t pair = 0; pair < whole; ++pair) tile<R, true>(p, row, pair);
  if (whole * WIDTH < p.N) tile<R, false>(p, row, whole);
}

inline int64_t block_count(int64_t M) { return (M + ROWS - 1) / ROWS; }
inline int64_t block_row(int64_t M, int64_t i) { return M * i / block_count(M); }

template <class T>
void row_block(const Product<T>& p, int64_t i) {
  const int64_t row = block_row(p.M, i);
  tile_row<ROWS>(p, row, block_row(p.M, i + 1) - row);
}

// Block i of w[M, K], k by k: what a tile reads at each k lies together.
template <class T>
void pack(const T* w, float* packed, int64_t M, int64_t K, int64_t i) {
  const int64_t first = block_row(M, i), last = block_row(M, i + 1);
  packed += first * K;
  for (int64_t k = 0; k < K; ++k)
    for (int64_t m = first; m < last; ++m) *packed++ = widen(w[m * K + k]);
}

// Asks for p[first, last) before it is needed; an address behind the tensor does no harm.
template <class T>
void fetch(const T* p, int64_t first, int64_t last) {
  for (int64_t i = first; AHEAD && i < last; i += 64 / sizeof(T)) __builtin_prefetch(p + i);
}

template <class T>
void run_typed(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of,
               ffi::TensorView w_cand, ffi::TensorView w_user, ffi::TensorView out) {
  const int64_t C = e_cand.size(0), Kc = e_cand.size(1), N = e_cand.size(2);
  const int64_t U = e_user.size(0), Ku = e_user.size(1), M = w_cand.size(0);
  const T* candidates = static_cast<const T*>(e_cand.data_ptr());
  const T* users = static_cast<const T*>(e_user.data_ptr());
  const int64_t* owner = static_cast<const int64_t*>(user_of.data_ptr());
  T* result = static_cast<T*>(out.data_ptr());

  const int64_t blocks = block_count(M), block_size = M * padded(N);
  std::vector<float> wc(M * Kc), wu(M * Ku), table(U * block_size);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < blocks; ++i) {
      pack(static_cast<const T*>(w_cand.data_ptr()), wc.data(), M, Kc, i);
      pack(static_cast<const T*>(w_user.data_ptr()), wu.data(), M, Ku, i);
    }
    // Users are few: only with their row blocks are there enough tasks for all threads.
#pragma omp for collapse(2) schedule(static)
    for (int64_t u = 0; u < U; ++u)
      for (int64_t i = 0; i < blocks; ++i)
        row_block<T>({wu.data(), users + u * Ku * N, table.data() + u * block_size, nullptr, M, Ku, N}, i);
#pragma omp for schedule(SCHEDULE)
    for (int64_t c = 0; c < C; ++c) {
      const T* e = candidates + c * Kc * N;
      float* block = table.data() + owner[c] * block_size;
      for (int64_t i = 0; i < blocks; ++i) {
        fetch(e + AHEAD * Kc * N, Kc * N * i / blocks, Kc * N * (i + 1) / blocks);
        row_block<T>({wc.data(), e, block, result + c * M * N, M, Kc, N}, i);
      }
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
