#include <tvm/ffi/tvm_ffi.h>

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace ffi = tvm::ffi;

// tunable ROWS: 9 11 6
// tunable HINT: 3 2
// tunable DIST: 1 2
// tunable OWN: 1 0
// tunable ZIGZAG: 1 0
// tunable STAGE: 1 0

constexpr int64_t kSmall = 1000000;  // multiply-adds that are worth a second thread

#if !defined(__AVX512F__) || !defined(__AVX512BF16__) || !defined(__AVX512BW__) || !defined(__AVX512VL__)
#error "needs AVX-512 with bf16"
#endif

static_assert(ROWS * 2 + 3 <= 32, "accumulators don't fit the registers");
#define UNROLLED _Pragma("GCC unroll 16")

struct bf16 {
  uint16_t bits;
};

struct Allocator {
  void AllocData(DLTensor* t) { t->data = std::aligned_alloc(64, (ffi::GetDataSize(*t) / 64 + 1) * 64); }
  void FreeData(DLTensor* t) { std::free(t->data); }
};

inline int64_t block_count(int64_t M) { return (M + ROWS - 1) / ROWS; }
inline int64_t block_row(int64_t M, int64_t i) { return M * i / block_count(M); }

// Steps of k: one row in float32, two rows in bfloat16.
template <class T>
inline int64_t steps_of(int64_t K) { return sizeof(T) == 4 ? K : (K + 1) / 2; }

inline void pack(const float* w, uint32_t* to, int64_t M, int64_t K) {
  for (int64_t i = 0; i < block_count(M); ++i)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t m = block_row(M, i); m < block_row(M, i + 1); ++m) std::memcpy(to++, w + m * K + k, 4);
}

inline void pack(const bf16* w, uint32_t* to, int64_t M, int64_t K) {
  for (int64_t i = 0; i < block_count(M); ++i)
    for (int64_t k = 0; k < K; k += 2)
      for (int64_t m = block_row(M, i); m < block_row(M, i + 1); ++m) {
        const uint32_t low = w[m * K + k].bits, high = k + 1 < K ? w[m * K + k + 1].bits : 0;
        *to++ = low | high << 16;
      }
}

template <class T>
ffi::Tensor prepare_typed(ffi::TensorView w_cand, ffi::TensorView w_user) {
  const int64_t M = w_cand.size(0), Kc = w_cand.size(1), Ku = w_user.size(1);
  const int64_t words = M * (steps_of<T>(Kc) + steps_of<T>(Ku)) + 16;
  ffi::Tensor packed = ffi::Tensor::FromNDAlloc(Allocator(), {1, words}, DLDataType{kDLFloat, 32, 1}, w_cand.device());
  uint32_t* to = static_cast<uint32_t*>(packed.data_ptr());
  std::memset(to, 0, words * 4);
  pack(static_cast<const T*>(w_cand.data_ptr()), to, M, Kc);
  pack(static_cast<const T*>(w_user.data_ptr()), to + M * steps_of<T>(Kc), M, Ku);
  return packed;
}

ffi::Tensor prepare(ffi::TensorView w_cand, ffi::TensorView w_user) {
  return w_cand.dtype().bits == 16 ? prepare_typed<bf16>(w_cand, w_user) : prepare_typed<float>(w_cand, w_user);
}

// block = w e for a user (out null), out = block + w e for a candidate.
template <class T>
struct Part {
  const uint32_t* w;
  const T* e;
  float* block;  // [M, stride]
  T* out;
  uint32_t* inter;  // interleaved row pairs of 32 columns (bfloat16)
  int64_t M, K, N, stride;
  const char* next;  // what to ask for meanwhile
  int64_t next_step;
  mutable const char* own;  // output that will be written next
  int64_t own_step;
  bool back;  // row blocks from the last to the first
};


// ---- float32
template <int R, int V, bool WHOLE, bool FIRST>
__attribute__((noinline)) void tile(const Part<float>& p, int64_t row, int64_t col, const char* pf) {
  const int64_t rest = p.N - col, N = p.N, K = p.K, stride = p.stride, pfs = p.next_step;
  const __mmask16 last = rest - 16 * (V - 1) >= 16 ? 0xffff : static_cast<__mmask16>((1u << (rest - 16 * (V - 1))) - 1);
  float* block = p.block + row * stride + col;
  __m512 s[R][V];
  if (p.out) {
    UNROLLED for (int r = 0; r < R; ++r)
      UNROLLED for (int v = 0; v < V; ++v) s[r][v] = _mm512_load_ps(block + r * stride + 16 * v);
  } else {
    UNROLLED for (int r = 0; r < R; ++r)
      UNROLLED for (int v = 0; v < V; ++v) s[r][v] = _mm512_setzero_ps();
  }
  const float* w = reinterpret_cast<const float*>(p.w) + row * K;
  const float* e = p.e + col;
  auto step = [&](const float* ek, const float* wk) __attribute__((always_inline)) {
    __m512 x[V];
    UNROLLED for (int v = 0; v < V; ++v)
      x[v] = WHOLE || v + 1 < V ? _mm512_loadu_ps(ek + 16 * v) : _mm512_maskz_loadu_ps(last, ek + 16 * v);
    UNROLLED for (int r = 0; r < R; ++r) {
      const __m512 a = _mm512_set1_ps(wk[r]);
      UNROLLED for (int v = 0; v < V; ++v) s[r][v] = _mm512_fmadd_ps(a, x[v], s[r][v]);
    }
  };
  int64_t k = 0;
  const char* own = p.own;
  const int64_t own_step = p.own_step;
  for (; k + 1 < K; k += 2) {
    if (OWN) __builtin_prefetch(own, 1, 3);
    own += own_step;
    __builtin_prefetch(pf, 0, HINT);
    pf += pfs;
    step(e, w);
    step(e + N, w + R);
    e += 2 * N;
    w += 2 * R;
  }
  if (k < K) step(e, w);

  if (!p.out) {
    UNROLLED for (int r = 0; r < R; ++r)
      UNROLLED for (int v = 0; v < V; ++v) _mm512_store_ps(block + r * stride + 16 * v, s[r][v]);
    return;
  }
  float* out = p.out + row * N + col;
  {
    UNROLLED for (int r = 0; r < R; ++r)
      UNROLLED for (int v = 0; v < V; ++v) {
        if (WHOLE || v + 1 < V) _mm512_storeu_ps(out + r * N + 16 * v, s[r][v]);
        else _mm512_mask_storeu_ps(out + r * N + 16 * v, last, s[r][v]);
      }
  }
}

// ---- bfloat16: two rows of k a step, interleaved column by column.
template <int R, int V, bool WHOLE, bool FIRST>
__attribute__((noinline)) void tile(const Part<bf16>& p, int64_t row, int64_t col, const char* pf) {
  const int64_t rest = p.N - col, N = p.N, K = p.K, S = (K + 1) / 2, stride = p.stride, pfs = p.next_step;
  const __mmask32 mask = rest >= 32 ? 0xffffffffu : static_cast<__mmask32>((1u << rest) - 1);
  float* block = p.block + row * stride + col;
  __m512 s[R][V];
  if (p.out) {
    UNROLLED for (int r = 0; r < R; ++r)
      UNROLLED for (int v = 0; v < V; ++v) s[r][v] = _mm512_load_ps(block + r * stride + 16 * v);
  } else {
    UNROLLED for (int r = 0; r < R; ++r)
      UNROLLED for (int v = 0; v < V; ++v) s[r][v] = _mm512_setzero_ps();
  }
  const uint32_t* w = p.w + row * S;
  const bf16* e = p.e + col;
  uint32_t* inter = p.inter;
  auto step = [&](bool both) __attribute__((always_inline)) {
    __m512i x[2];
    if constexpr (FIRST) {
      if constexpr (V == 2) {
        const __m512i a = WHOLE ? _mm512_loadu_si512(e) : _mm512_maskz_loadu_epi16(mask, e);
        const __m512i b = !both ? _mm512_setzero_si512()
                          : WHOLE ? _mm512_loadu_si512(e + N) : _mm512_maskz_loadu_epi16(mask, e + N);
        x[0] = _mm512_unpacklo_epi16(a, b);
        x[1] = _mm512_unpackhi_epi16(a, b);
      } else {
        const __mmask16 m = static_cast<__mmask16>(mask);
        const __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, e));
        const __m512i b = !both ? _mm512_setzero_si512() : _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, e + N));
        x[0] = _mm512_or_si512(a, _mm512_slli_epi32(b, 16));
      }
      if constexpr (STAGE) { UNROLLED for (int v = 0; v < V; ++v) _mm512_store_si512(inter + 16 * v, x[v]); }
      e += 2 * N;
    } else {
      UNROLLED for (int v = 0; v < V; ++v) x[v] = _mm512_load_si512(inter + 16 * v);
    }
    inter += 16 * V;
    UNROLLED for (int r = 0; r < R; ++r) {
      const __m512i a = _mm512_set1_epi32(static_cast<int>(w[r]));
      UNROLLED for (int v = 0; v < V; ++v) s[r][v] = _mm512_dpbf16_ps(s[r][v], (__m512bh)x[v], (__m512bh)a);
    }
    w += R;
  };
  const int64_t full = K / 2;  // steps that have both rows
  int64_t k = 0;
  const char* own = p.own;
  const int64_t own_step = p.own_step;
  for (; k + 1 < full; k += 2) {
    if (OWN) __builtin_prefetch(own, 1, 3);
    own += own_step;
    __builtin_prefetch(pf, 0, HINT);
    pf += pfs;
    step(true);
    step(true);
  }
  if (k < full) step(true);
  if (K & 1) step(false);

  if (!p.out) {
    UNROLLED for (int r = 0; r < R; ++r)
      UNROLLED for (int v = 0; v < V; ++v) _mm512_store_ps(block + r * stride + 16 * v, s[r][v]);
    return;
  }
  bf16* out = p.out + row * N + col;
  if constexpr (V == 2) {
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    UNROLLED for (int r = 0; r < R; ++r) {
      const __m512i y = _mm512_permutexvar_epi64(order, (__m512i)_mm512_cvtne2ps_pbh(s[r][V - 1], s[r][0]));
      if (!WHOLE) _mm512_mask_storeu_epi16(out + r * N, mask, y);
      else _mm512_storeu_si512(out + r * N, y);
    }
  } else {
    UNROLLED for (int r = 0; r < R; ++r)
      _mm256_mask_storeu_epi16(out + r * N, static_cast<__mmask16>(mask), (__m256i)_mm512_cvtneps_pbh(s[r][0]));
  }
}

template <int R, int V, bool WHOLE, bool FIRST, class T>
inline void height(const Part<T>& p, int64_t row, int64_t rows, int64_t col, const char* pf) {
  if constexpr (R > 1) {
    if (rows < R) return height<R - 1, V, WHOLE, FIRST>(p, row, rows, col, pf);
  }
  tile<R, V, WHOLE, FIRST>(p, row, col, pf);
}

template <int V, bool WHOLE, class T>
inline void columns(const Part<T>& p, int64_t col, const char*& pf) {
  const int64_t blocks = block_count(p.M), advance = p.next_step * (steps_of<T>(p.K) / 2);
  for (int64_t i = 0; i < blocks; ++i, pf += advance) {
    const int64_t at = ZIGZAG && p.back ? blocks - 1 - i : i;
    const int64_t row = block_row(p.M, at), rows = block_row(p.M, at + 1) - row;
    if (sizeof(T) == 4 || (STAGE && i)) height<ROWS, V, WHOLE, false>(p, row, rows, col, pf);
    else height<ROWS, V, WHOLE, true>(p, row, rows, col, pf);
    p.own += p.own_step * (steps_of<T>(p.K) / 2);
  }
}

template <class T>
void product(const Part<T>& p) {
  const char* pf = p.next;
  int64_t col = 0;
  for (; col + 32 <= p.N; col += 32) columns<2, true>(p, col, pf);
  if (p.N - col > 16) columns<2, false>(p, col, pf);
  else if (p.N > col) columns<1, false>(p, col, pf);
}

// Memory of a thread, 64-byte aligned, kept between calls; its content is not.
struct Scratch {
  char* p = nullptr;
  int64_t size = 0;
  char* need(int64_t bytes) {
    if (bytes > size) {
      std::free(p);
      size = (bytes / 64 + 1) * 64;
      p = static_cast<char*>(std::aligned_alloc(64, size));
    }
    return p;
  }
  ~Scratch() { std::free(p); }
};

// The candidates, those of the first user first: a counting sort, only where they don't come sorted.
inline const int64_t* ordered(const int64_t* owner, int64_t C, int64_t U, Scratch& scratch) {
  int64_t* place = reinterpret_cast<int64_t*>(scratch.need((U + 1 + C) * 8));
  int64_t* order = place + U + 1;
  std::memset(place, 0, (U + 1) * 8);
  for (int64_t c = 0; c < C; ++c) ++place[owner[c] + 1];
  for (int64_t u = 0; u < U; ++u) place[u + 1] += place[u];
  for (int64_t c = 0; c < C; ++c) order[place[owner[c]]++] = c;
  return order;
}

template <class T>
void run_typed(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of, ffi::TensorView packed,
               ffi::TensorView out) {
  const int64_t C = e_cand.size(0), Kc = e_cand.size(1), N = e_cand.size(2);
  const int64_t U = e_user.size(0), Ku = e_user.size(1), M = out.size(1);
  if (C == 0 || M == 0 || N == 0) return;
  const T* candidates = static_cast<const T*>(e_cand.data_ptr());
  const T* users = static_cast<const T*>(e_user.data_ptr());
  const int64_t* owner = static_cast<const int64_t*>(user_of.data_ptr());
  T* result = static_cast<T*>(out.data_ptr());
  const uint32_t* wc = static_cast<const uint32_t*>(packed.data_ptr());
  const uint32_t* wu = wc + M * steps_of<T>(Kc);

  const int64_t stride = (N + 31) / 32 * 32, block_size = M * stride;
  const int64_t next_step = std::max<int64_t>(1, 256 / block_count(M));
  const int64_t turns = stride / 32 * block_count(M) * std::max<int64_t>(1, steps_of<T>(Kc) / 2);
  const int64_t own_step = std::max<int64_t>(1, (M * N * int64_t(sizeof(T)) + turns - 1) / turns);
  const int64_t inter_bytes = (std::max(Kc, Ku) + 1) / 2 * 128 + 128;

  static thread_local Scratch sorting;
  const int64_t* order = nullptr;
  int64_t fresh = 1;  // users met, if sorted
  for (int64_t c = 1; c < C; ++c) {
    if (owner[c] < owner[c - 1]) {
      order = ordered(owner, C, U, sorting);
      break;
    }
    fresh += owner[c] != owner[c - 1];
  }
  int threads = omp_get_max_threads();
  if (C * M * N * (Kc + 1) < kSmall || C < 2) threads = 1;

#pragma omp parallel num_threads(threads)
  {
    static thread_local Scratch scratch;
    char* memory = scratch.need(inter_bytes + block_size * 4);
    uint32_t* inter = reinterpret_cast<uint32_t*>(memory);
    float* block = reinterpret_cast<float*>(memory + inter_bytes);

    // Equal work: a new user costs Ku, a candidate Kc. Where the order isn't sorted, equal counts.
    const int64_t shares = omp_get_num_threads(), share = omp_get_thread_num();
    int64_t first = C * share / shares, last = C * (share + 1) / shares;
    if (!order && shares > 1) {
      const int64_t each = Kc + 1, user = Ku + 1, total = C * each + fresh * user;
      auto cut = [&](int64_t s) {
        if (s >= shares) return C;
        const int64_t goal = total * s / shares;
        int64_t sum = 0, c = 0;
        for (; c < C && sum < goal; ++c) sum += each + (c == 0 || owner[c] != owner[c - 1] ? user : 0);
        return c;
      };
      first = cut(share);
      last = cut(share + 1);
    }
    auto place = [&](int64_t j) {
      const int64_t i = std::min(j, last - 1);
      return order ? order[i] : i;
    };
    int64_t user = -1;
    for (int64_t j = first; j < last; ++j) {
      const int64_t c = place(j);
      const T* e = candidates + c * Kc * N;
      if (owner[c] != user) {
        user = owner[c];
        product(Part<T>{wu, users + user * Ku * N, block, nullptr, inter, M, Ku, N, stride,
                        reinterpret_cast<const char*>(e), next_step,
                        reinterpret_cast<const char*>(result + c * M * N), own_step, false});
      }
      product(Part<T>{wc, e, block, result + c * M * N, inter, M, Kc, N, stride,
                      reinterpret_cast<const char*>(candidates + place(j + DIST) * Kc * N), next_step,
                      reinterpret_cast<const char*>(result + place(j + 1) * M * N), own_step, (j & 1) != 0});
    }
  }
}

void run(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of, ffi::TensorView, ffi::TensorView,
         ffi::TensorView packed, ffi::TensorView out) {
  const DLDataType type = out.dtype();
  TVM_FFI_CHECK(type.code == kDLBfloat || type.bits == 32, TypeError) << "takes float32 and bfloat16";
  if (type.bits == 16) run_typed<bf16>(e_cand, e_user, user_of, packed, out);
  else run_typed<float>(e_cand, e_user, user_of, packed, out);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare, prepare);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
