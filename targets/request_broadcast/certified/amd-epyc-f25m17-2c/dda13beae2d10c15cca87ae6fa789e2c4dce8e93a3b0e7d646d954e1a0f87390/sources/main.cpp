#include <tvm/ffi/tvm_ffi.h>

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>

namespace ffi = tvm::ffi;

// tunable ROWS: 11 9 13 8
// tunable PREFETCH: 1 0
// tunable PIECE: 16 8 32
// tunable SERIAL: 2 10 1000
// tunable OWN: 1 0

static_assert(ROWS * 2 + 3 <= 32, "accumulators don't fit the registers");
#define UNROLLED _Pragma("GCC unroll 32")

struct bf16 {
  uint16_t bits;
};
typedef _Float16 f16;

struct Allocator {
  void AllocData(DLTensor* t) { t->data = std::aligned_alloc(64, (ffi::GetDataSize(*t) / 64 + 2) * 64); }
  void FreeData(DLTensor* t) { std::free(t->data); }
};

inline int64_t blocks_of(int64_t m) { return (m + ROWS - 1) / ROWS; }
inline int64_t steps_of(int64_t k, bool pairs) { return pairs ? (k + 1) / 2 : k; }

static void pack(ffi::TensorView w, uint32_t* to) {  // [block][step][ROWS]
  const int64_t m = w.size(0), K = w.size(1), blocks = blocks_of(m);
  const bool pairs = w.dtype().code == kDLBfloat, half = !pairs && w.dtype().bits == 16;
  const int64_t steps = steps_of(K, pairs);
  std::memset(to, 0, size_t(blocks * steps * ROWS) * 4);
  int64_t first = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t count = m / blocks + (b < m % blocks);
    for (int64_t r = 0; r < count; ++r)
      for (int64_t s = 0; s < steps; ++s) {
        uint32_t word = 0;
        const int64_t row = (first + r) * K;
        if (pairs) {
          const uint16_t* p = static_cast<const uint16_t*>(w.data_ptr()) + row;
          word = p[2 * s] | (2 * s + 1 < K ? uint32_t(p[2 * s + 1]) << 16 : 0u);
        } else {
          const float value = half ? float(static_cast<const f16*>(w.data_ptr())[row + s]) : static_cast<const float*>(w.data_ptr())[row + s];
          std::memcpy(&word, &value, 4);
        }
        to[(b * steps + s) * ROWS + r] = word;
      }
    first += count;
  }
}

ffi::Tensor prepare(ffi::TensorView w_cand, ffi::TensorView w_user) {
  const bool pairs = w_cand.dtype().code == kDLBfloat;
  const int64_t blocks = blocks_of(w_cand.size(0));
  const int64_t a = blocks * steps_of(w_cand.size(1), pairs) * ROWS, b = blocks * steps_of(w_user.size(1), pairs) * ROWS;
  ffi::Tensor packed = ffi::Tensor::FromNDAlloc(Allocator(), {1, a + b + 16}, DLDataType{kDLFloat, 32, 1}, w_cand.device());
  uint32_t* to = static_cast<uint32_t*>(packed.data_ptr());
  pack(w_cand, to);
  pack(w_user, to + a);
  return packed;
}

struct Scratch {
  float* data = nullptr;
  size_t size = 0;
  float* get(size_t count) {
    if (count > size) {
      std::free(data);
      size = count;
      data = static_cast<float*>(std::aligned_alloc(64, (count * 4 + 63) / 64 * 64));
    }
    return data;
  }
  ~Scratch() { std::free(data); }
};

// 32 columns of an embedding as a panel [steps][32], padded with zeros, natural order.
static void panel_of(const float* p, __mmask32 mask, int64_t n, int64_t K, float* to) {
  for (int64_t k = 0; k < K; ++k, to += 32) {
    _mm512_store_ps(to, _mm512_maskz_loadu_ps(__mmask16(mask), p + k * n));
    _mm512_store_ps(to + 16, _mm512_maskz_loadu_ps(__mmask16(mask >> 16), p + k * n + 16));
  }
}
static void panel_of(const f16* p, __mmask32 mask, int64_t n, int64_t K, float* to) {
  for (int64_t k = 0; k < K; ++k, to += 32) {
    const __m512i a = _mm512_maskz_loadu_epi16(mask, p + k * n);
    _mm512_store_ps(to, _mm512_cvtph_ps(_mm512_castsi512_si256(a)));
    _mm512_store_ps(to + 16, _mm512_cvtph_ps(_mm512_extracti64x4_epi64(a, 1)));
  }
}
alignas(64) static const uint16_t interleaved[2][32] = {
    {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
    {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
static void panel_of(const bf16* p, __mmask32 mask, int64_t n, int64_t K, float* to) {
  const __m512i first = _mm512_load_si512(interleaved[0]), second = _mm512_load_si512(interleaved[1]);
  for (int64_t k = 0; k < K; k += 2, to += 32) {
    const __m512i a = _mm512_maskz_loadu_epi16(mask, p + k * n), b = _mm512_maskz_loadu_epi16(k + 1 < K ? mask : 0, p + k * n + n);
    _mm512_store_si512(to, _mm512_permutex2var_epi16(a, first, b));
    _mm512_store_si512(to + 16, _mm512_permutex2var_epi16(a, second, b));
  }
}

inline void store(float* p, __mmask32 mask, __m512 a, __m512 b) {
  _mm512_mask_storeu_ps(p, __mmask16(mask), a);
  _mm512_mask_storeu_ps(p + 16, __mmask16(mask >> 16), b);
}
inline void store(f16* p, __mmask32 mask, __m512 a, __m512 b) {
  _mm256_mask_storeu_epi16(p, __mmask16(mask), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  _mm256_mask_storeu_epi16(p + 16, __mmask16(mask >> 16), _mm512_cvtps_ph(b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void store(bf16* p, __mmask32 mask, __m512 a, __m512 b) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
  _mm512_mask_storeu_epi16(p, mask, both);
}

// The panel of the next item, made a pair of rows at a time between the products of the present one.
template <class T>
struct Maker {
  void pair() {}
  void finish() {}
};
template <>
struct Maker<bf16> {
  const bf16* p = nullptr;
  float* to = nullptr;
  int64_t n = 0, left = 0;  // left: rows
  __mmask32 mask = 0;
  __m512i first, second;
  inline __attribute__((always_inline)) void pair() {
    const __m512i a = _mm512_maskz_loadu_epi16(left > 0 ? mask : 0, p), b = _mm512_maskz_loadu_epi16(left > 1 ? mask : 0, p + n);
    if (left > 0) {
      _mm512_store_si512(to, _mm512_permutex2var_epi16(a, first, b));
      _mm512_store_si512(to + 16, _mm512_permutex2var_epi16(a, second, b));
      p += 2 * n;
      to += 32;
      left -= 2;
    }
  }
  void finish() {
    while (left > 0) pair();
  }
};

// R rows, 32 columns. A candidate's sum is one chain from zero, to which its user's block is added at the end; a
// user's float32 sum is four chains. Every four steps `each` pairs of the next panel are made.
template <int R, class T, bool USER>
static void tile(const float* __restrict x, int64_t stride, int64_t steps, const uint32_t* __restrict w, float* __restrict table, T* out, int64_t n, __mmask32 mask, const char* ahead, int64_t ahead_step, Maker<T>& maker, int64_t each) {
  constexpr int PARTS = USER && !std::is_same_v<T, bf16> ? 4 : 1;
  const char* own = reinterpret_cast<const char*>(out);
  const int64_t own_step = USER ? 0 : R * n * int64_t(sizeof(T)) / std::max<int64_t>(1, steps) + 1;
  Maker<T> make = maker;
  for (int part = 0; part < PARTS; ++part) {
    __m512 sum[R][2];
    UNROLLED for (int r = 0; r < R; ++r) {
      sum[r][0] = _mm512_setzero_ps();
      sum[r][1] = _mm512_setzero_ps();
    }
    const auto step = [&]() __attribute__((always_inline)) {
      if constexpr (PREFETCH && !USER) {
        _mm_prefetch(ahead, _MM_HINT_T0);
        ahead += ahead_step;
      }
      if constexpr (OWN && !USER) {
        __builtin_prefetch(own, 1, 3);
        own += own_step;
      }
      const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
      x += stride;
      UNROLLED for (int r = 0; r < R; ++r) {
        const __m512i c = _mm512_set1_epi32(int(w[r]));
        if constexpr (std::is_same_v<T, bf16>) {
          sum[r][0] = _mm512_dpbf16_ps(sum[r][0], (__m512bh)a, (__m512bh)c);
          sum[r][1] = _mm512_dpbf16_ps(sum[r][1], (__m512bh)b, (__m512bh)c);
        } else {
          sum[r][0] = _mm512_fmadd_ps(a, _mm512_castsi512_ps(c), sum[r][0]);
          sum[r][1] = _mm512_fmadd_ps(b, _mm512_castsi512_ps(c), sum[r][1]);
        }
      }
      w += ROWS;
    };
    const int64_t begin = steps * part / PARTS, end = steps * (part + 1) / PARTS;
    int64_t k = begin;
    if constexpr (!USER && std::is_same_v<T, bf16>) {
      for (; k + 4 <= end; k += 4) {
        for (int64_t i = 0; i < each; ++i) make.pair();
        step();
        step();
        step();
        step();
      }
    }
    for (; k < end; ++k) step();
    if (!USER || part > 0) {
      UNROLLED for (int r = 0; r < R; ++r) {
        sum[r][0] = _mm512_add_ps(sum[r][0], _mm512_load_ps(table + r * 32));
        sum[r][1] = _mm512_add_ps(sum[r][1], _mm512_load_ps(table + r * 32 + 16));
      }
    }
    UNROLLED for (int r = 0; r < R; ++r) {
      if constexpr (USER) {
        _mm512_store_ps(table + r * 32, sum[r][0]);
        _mm512_store_ps(table + r * 32 + 16, sum[r][1]);
      } else {
        store(out + r * n, mask, sum[r][0], sum[r][1]);
      }
    }
  }
  maker = make;
}

template <int R, class T, bool USER>
inline void rows(int64_t count, const float* x, int64_t stride, int64_t steps, const uint32_t* w, float* table, T* out, int64_t n, __mmask32 mask, const char* ahead, int64_t ahead_step, Maker<T>& maker, int64_t each) {
  if constexpr (R > 1) {
    if (count < R) return rows<R - 1, T, USER>(count, x, stride, steps, w, table, out, n, mask, ahead, ahead_step, maker, each);
  }
  tile<R, T, USER>(x, stride, steps, w, table, out, n, mask, ahead, ahead_step, maker, each);
}

inline __mmask32 mask_of(int64_t q, int64_t n) { return n - q * 32 >= 32 ? 0xffffffffu : (1u << (n - q * 32)) - 1; }

// All of w @ e for `things` neighbouring candidates or for one user. An item is 32 columns of one of them.
template <class T, bool USER, class TableOf>
static void product(const T* e, int64_t things, int64_t K, int64_t n, int64_t m, const uint32_t* w, TableOf table_of, T* out, float* panels, int64_t panel_size) {
  constexpr bool pairs = std::is_same_v<T, bf16>;
  const int64_t blocks = blocks_of(m), low = m / blocks, more = m % blocks, steps = steps_of(K, pairs), per = (n + 31) / 32, items = things * per;
  const int64_t ahead_step = K * n * int64_t(sizeof(T)) / std::max<int64_t>(1, steps * blocks * per) + 1;
  const int64_t calls = std::max<int64_t>(1, blocks * (steps / 4)), each = (steps + calls - 1) / calls;
  // bf16: rows are read one item ahead, so they are asked for two candidates ahead; else one.
  const char* ahead = reinterpret_cast<const char*>(e + (pairs ? 2 : 1) * K * n);
  for (int64_t item = 0; item < items; ++item) {
    const int64_t thing = item / per, q = item - thing * per;
    const __mmask32 mask = mask_of(q, n);
    const float* x = panels + (item & 1) * panel_size;
    int64_t stride = 32;
    Maker<T> maker;
    if constexpr (pairs) {
      if (item == 0) panel_of(e, mask, n, K, panels);
      if (!USER && item + 1 < items) {
        const int64_t after = (item + 1) / per, column = (item + 1 - after * per) * 32;
        maker.p = e + after * K * n + column;
        maker.to = panels + (~item & 1) * panel_size;
        maker.n = n;
        maker.left = K;
        maker.mask = mask_of(column / 32, n);
      } else if (USER && item > 0) {
        panel_of(e + q * 32, mask, n, K, panels + (item & 1) * panel_size);
      }
      maker.first = _mm512_load_si512(interleaved[0]);
      maker.second = _mm512_load_si512(interleaved[1]);
    } else if (std::is_same_v<T, float> && mask == 0xffffffffu) {
      x = reinterpret_cast<const float*>(e + thing * K * n + q * 32);
      stride = n;
    } else {
      panel_of(e + thing * K * n + q * 32, mask, n, K, panels + (item & 1) * panel_size);
    }
    int64_t first = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t count = low + (b < more);
      rows<ROWS, T, USER>(count, x, stride, steps, w + b * steps * ROWS, table_of(thing) + (q * m + first) * 32, USER ? out : out + thing * m * n + first * n + q * 32, n, mask, ahead, ahead_step, maker, each);
      ahead += steps * ahead_step;
      first += count;
    }
    maker.finish();
  }
}

template <class T>
static void typed(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of, ffi::TensorView packed, ffi::TensorView out) {
  const int64_t candidates = e_cand.size(0), Kc = e_cand.size(1), n = e_cand.size(2);
  const int64_t users = e_user.size(0), Ku = e_user.size(1), m = out.size(1);
  if (candidates == 0 || m == 0 || n == 0) return;
  const int64_t area = (n + 31) / 32 * m * 32;
  const uint32_t* wc = static_cast<const uint32_t*>(packed.data_ptr());
  const uint32_t* wu = wc + blocks_of(m) * steps_of(Kc, std::is_same_v<T, bf16>) * ROWS;
  const T* ec = static_cast<const T*>(e_cand.data_ptr());
  const T* eu = static_cast<const T*>(e_user.data_ptr());
  const int64_t* of = static_cast<const int64_t*>(user_of.data_ptr());
  T* o = static_cast<T*>(out.data_ptr());

  // Pieces of at most PIECE neighbours, handed out as threads become free.
  const bool parallel = candidates > 1 && candidates * Kc * m * n / (std::is_same_v<T, bf16> ? 2 : 1) > int64_t(SERIAL) * 1000000;
  const int wanted = parallel ? omp_get_max_threads() : 1;
  const int64_t size = wanted == 1 ? candidates : std::min<int64_t>(PIECE, (candidates + 2 * wanted - 1) / (2 * wanted));
  const int64_t count = (candidates + size - 1) / size;
#pragma omp parallel num_threads(wanted)
  {
    thread_local Scratch table_memory, panel_memory;
    thread_local std::vector<uint8_t> done;
    float* tables = table_memory.get(size_t(users * area) + 16);
    const int64_t panel_size = (std::max(Kc, Ku) + 2) * 32;
    float* panel = panel_memory.get(size_t(2 * panel_size));
    done.assign(size_t(users), 0);
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = i * size, end = std::min(candidates, begin + size);
      if constexpr (PREFETCH) {
        const char* cold = reinterpret_cast<const char*>(ec + begin * Kc * n);
        for (int64_t at = 0; at < Kc * n * int64_t(sizeof(T)); at += 64) _mm_prefetch(cold + at, _MM_HINT_T0);
      }
      for (int64_t c = begin; c < end; ++c) {
        const int64_t u = of[c];
        if (done[u]) continue;
        done[u] = 1;
        product<T, true>(eu + u * Ku * n, 1, Ku, n, m, wu, [=](int64_t) { return tables + u * area; }, static_cast<T*>(nullptr), panel, panel_size);
      }
      product<T, false>(ec + begin * Kc * n, end - begin, Kc, n, m, wc, [=](int64_t at) { return tables + of[begin + at] * area; }, o + begin * m * n, panel, panel_size);
    }
  }
}

void run(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of, ffi::TensorView, ffi::TensorView, ffi::TensorView packed, ffi::TensorView out) {
  if (out.dtype().bits == 32) return typed<float>(e_cand, e_user, user_of, packed, out);
  if (out.dtype().code == kDLBfloat) return typed<bf16>(e_cand, e_user, user_of, packed, out);
  return typed<f16>(e_cand, e_user, user_of, packed, out);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare, prepare);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
