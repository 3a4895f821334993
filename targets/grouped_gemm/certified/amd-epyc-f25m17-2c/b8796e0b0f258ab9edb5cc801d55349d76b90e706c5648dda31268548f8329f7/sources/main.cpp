#include <tvm/ffi/tvm_ffi.h>
#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace ffi = tvm::ffi;

// tunable ROWS: 6 4 5 12
// tunable VECS: 4 2
// tunable PREFETCH: 1 0 2
// tunable STREAM: 0 1
// tunable GROUPCOST: 8 0 20

static_assert(ROWS * VECS + VECS <= 30, "accumulators don't fit the registers");
constexpr int kRows = ROWS, kVecs = VECS, kCols = VECS * 16;
#define UNROLLED _Pragma("GCC unroll 16")

struct Allocator {
  void AllocData(DLTensor* t) { t->data = std::aligned_alloc(64, (ffi::GetDataSize(*t) / 64 + 1) * 64); }
  void FreeData(DLTensor* t) { std::free(t->data); }
};

struct bf16 {
  uint16_t bits;
};

// Packed: [groups][panels of kCols columns (the last one narrower, in whole vectors)][steps][columns] words of 32 bits;
// a word is a float32 or two bfloat16 of k = 2 s and 2 s + 1.
ffi::Tensor prepare(ffi::TensorView b) {
  const int64_t G = b.size(0), K = b.size(1), N = b.size(2);
  const int64_t W = (N + 15) / 16 * 16;
  const bool half = b.dtype().bits == 16;
  const int64_t S = half ? (K + 1) / 2 : K;
  ffi::Tensor packed = ffi::Tensor::FromNDAlloc(Allocator(), {G, S * W * (half ? 2 : 1)}, b.dtype(), b.device());
  uint32_t* to = static_cast<uint32_t*>(packed.data_ptr());
  const uint32_t* words = static_cast<const uint32_t*>(b.data_ptr());
  const uint16_t* halves = static_cast<const uint16_t*>(b.data_ptr());
  for (int64_t g = 0; g < G; ++g)
    for (int64_t c = 0; c < W; c += kCols) {
      const int64_t width = std::min<int64_t>(kCols, W - c);
      for (int64_t s = 0; s < S; ++s)
        for (int64_t j = 0; j < width; ++j) {
          const int64_t n = c + j;
          uint32_t word = 0;
          if (n < N) {
            if (half) {
              word = halves[(g * K + 2 * s) * N + n];
              if (2 * s + 1 < K) word |= uint32_t(halves[(g * K + 2 * s + 1) * N + n]) << 16;
            } else {
              word = words[(g * K + s) * N + n];
            }
          }
          *to++ = word;
        }
    }
  return packed;
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512BF16__)

inline __m512i broadcast_word(const char* p) {
  int32_t w;
  std::memcpy(&w, p, 4);
  return _mm512_set1_epi32(w);
}

inline __m512 mul_add(float*, __m512 sum, __m512i a, __m512i b) {
  return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
}
inline __m512 mul_add(bf16*, __m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

template <class T, int R, int V>
void tile(const char* a, int64_t lda, const uint32_t* b, T* c, int64_t ldc, int64_t K, __mmask16 last, const char* ahead,
          int64_t step, bool stream) {
  constexpr bool half = sizeof(T) == 2;
  const int64_t S = half ? K / 2 : K;
  __m512 sum[R][V];
  UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int v = 0; v < V; ++v) sum[r][v] = _mm512_setzero_ps();
#pragma GCC unroll 2
  for (int64_t s = 0; s < S; ++s) {
    __m512i x[V];
    UNROLLED for (int v = 0; v < V; ++v) x[v] = _mm512_load_si512(b + v * 16);
    b += V * 16;
    if (PREFETCH == 1) _mm_prefetch(ahead, _MM_HINT_T1);
    if (PREFETCH == 2) _mm_prefetch(ahead, _MM_HINT_T0);
    ahead += step;
    UNROLLED for (int r = 0; r < R; ++r) {
      const __m512i y = broadcast_word(a + r * lda);
      UNROLLED for (int v = 0; v < V; ++v) sum[r][v] = mul_add((T*)nullptr, sum[r][v], y, x[v]);
    }
    a += 4;
  }
  if constexpr (half) {
    if (K & 1) {
      UNROLLED for (int r = 0; r < R; ++r) {
        uint16_t w;
        std::memcpy(&w, a + r * lda, 2);
        const __m512i y = _mm512_set1_epi32(w);
        UNROLLED for (int v = 0; v < V; ++v)
          sum[r][v] = mul_add((T*)nullptr, sum[r][v], y, _mm512_load_si512(b + v * 16));
      }
    }
  }
  if constexpr (half) {
    if (last == 0xffff && V % 2 == 0) {
      UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int v = 0; v + 1 < V; v += 2) {
        const __m512i y = (__m512i)_mm512_cvtne2ps_pbh(sum[r][v + 1 < V ? v + 1 : v], sum[r][v]);
        if (STREAM && stream)
          _mm512_stream_si512((__m512i*)(c + r * ldc + v * 16), y);
        else
          _mm512_storeu_si512(c + r * ldc + v * 16, y);
      }
    } else {
      UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int v = 0; v < V; ++v)
        _mm256_mask_storeu_epi16(c + r * ldc + v * 16, v == V - 1 ? last : (__mmask16)0xffff,
                                 (__m256i)_mm512_cvtneps_pbh(sum[r][v]));
    }
  } else {
    if (last == 0xffff) {
      UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int v = 0; v < V; ++v) {
        if (STREAM && stream)
          _mm512_stream_ps((float*)(c + r * ldc + v * 16), sum[r][v]);
        else
          _mm512_storeu_ps((float*)(c + r * ldc + v * 16), sum[r][v]);
      }
    } else {
      UNROLLED for (int r = 0; r < R; ++r) UNROLLED for (int v = 0; v < V; ++v)
        _mm512_mask_storeu_ps((float*)(c + r * ldc + v * 16), v == V - 1 ? last : (__mmask16)0xffff, sum[r][v]);
    }
  }
}

#else

inline void accumulate(float* sum, uint32_t a, uint32_t b, float*) {
  float x, y;
  std::memcpy(&x, &a, 4);
  std::memcpy(&y, &b, 4);
  *sum += x * y;
}
inline void accumulate(float* sum, uint32_t a, uint32_t b, bf16*) {
  accumulate(sum, a << 16, b << 16, (float*)nullptr);
  accumulate(sum, a & 0xffff0000u, b & 0xffff0000u, (float*)nullptr);
}
inline void narrow(float x, float* to) { *to = x; }
inline void narrow(float x, bf16* to) {
  uint32_t word;
  std::memcpy(&word, &x, 4);
  to->bits = x == x ? (word + 0x7fff + (word >> 16 & 1)) >> 16 : word >> 16 | 0x40;
}

template <class T, int R, int V>
void tile(const char* a, int64_t lda, const uint32_t* b, T* c, int64_t ldc, int64_t K, uint16_t last, const char*,
          int64_t, bool) {
  constexpr int64_t per = 4 / sizeof(T);
  const int64_t S = (K + per - 1) / per;
  const int width = (V - 1) * 16 + __builtin_popcount(last);
  for (int r = 0; r < R; ++r) {
    float sum[V * 16] = {};
    for (int64_t s = 0; s < S; ++s) {
      uint32_t w = 0;
      std::memcpy(&w, a + r * lda + 4 * s, std::min<int64_t>(4, K * int64_t(sizeof(T)) - 4 * s));
      for (int n = 0; n < V * 16; ++n) accumulate(sum + n, w, b[s * V * 16 + n], (T*)nullptr);
    }
    for (int n = 0; n < width; ++n) narrow(sum[n], c + r * ldc + n);
  }
}
typedef uint16_t __mmask16;

#endif

template <class T>
using Tile = void (*)(const char*, int64_t, const uint32_t*, T*, int64_t, int64_t, __mmask16, const char*, int64_t, bool);

template <class T, int V, int R = kRows>
inline Tile<T> pick_rows(int rows) {
  if constexpr (R > 1) {
    if (rows < R) return pick_rows<T, V, R - 1>(rows);
  }
  return tile<T, R, V>;
}

template <class T, int V = kVecs>
inline Tile<T> pick(int rows, int vecs) {
  if constexpr (V > 1) {
    if (vecs < V) return pick<T, V - 1>(rows, vecs);
  }
  return pick_rows<T, V>(rows);
}

// Row at which cost `x` is reached in a group of `n` rows whose cost begins at `from`.
inline int64_t cut(int64_t x, int64_t from, int64_t n) {
  if (x <= from) return 0;
  const int64_t cost = n + GROUPCOST;
  if (x >= from + cost) return n;
  return (x - from) * n / cost / kRows * kRows;
}

template <class T>
void typed(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView packed, ffi::TensorView out, int64_t G) {
  const int64_t K = a.size(1), N = out.size(1), M = out.size(0);
  if (M == 0 || N == 0) return;
  const T* A = static_cast<const T*>(a.data_ptr());
  const int64_t* __restrict offset = static_cast<const int64_t*>(offsets.data_ptr());
  const uint32_t* B = static_cast<const uint32_t*>(packed.data_ptr());
  T* C = static_cast<T*>(out.data_ptr());
  const int64_t per = 4 / int64_t(sizeof(T)), S = (K + per - 1) / per, W = (N + 15) / 16 * 16;
  const __mmask16 tail = N % 16 ? __mmask16((1u << (N % 16)) - 1) : __mmask16(0xffff);
  const bool stream = N * int64_t(sizeof(T)) % 64 == 0;

  int64_t total = 0;
  for (int64_t g = 0; g < G; ++g) {
    const int64_t n = offset[g + 1] - offset[g];
    total += n > 0 ? n + GROUPCOST : 0;
  }
  const bool parallel = M * (K + 8) * N > 150000;

#pragma omp parallel if (parallel)
  {
    const int64_t t = omp_get_thread_num(), threads = omp_get_num_threads();
    const int64_t low = total * t / threads, high = total * (t + 1) / threads;
    int64_t from = 0;
    for (int64_t g = 0; g < G && from < high; ++g) {
      const int64_t n = offset[g + 1] - offset[g];
      if (n <= 0) continue;
      const int64_t begin = cut(low, from, n), end = cut(high, from, n);
      from += n + GROUPCOST;
      if (begin >= end) continue;
      int64_t next = g + 1;
      while (next < G && offset[next + 1] <= offset[next]) ++next;
      const bool more = next < G && from < high;
      const int64_t count = end - begin, tiles = (count + kRows - 1) / kRows;
      const int64_t base = count / tiles, extra = count % tiles;
      for (int64_t c = 0; c < W; c += kCols) {
        const int64_t width = std::min<int64_t>(kCols, W - c);
        const uint32_t* panel = B + g * S * W + c * S;
        const bool final_panel = c + kCols >= W;
        const __mmask16 last = final_panel ? tail : __mmask16(0xffff);
        const char* ahead = reinterpret_cast<const char*>(final_panel ? B + next * S * W : panel + width * S);
        int64_t lines = final_panel && !more ? 0 : std::min<int64_t>(kCols, W) * S / 16;
        if (!lines) ahead = reinterpret_cast<const char*>(panel);
        const Tile<T> high_tile = pick<T>(int(base + (extra > 0)), int(width / 16));
        const Tile<T> low_tile = pick<T>(int(base), int(width / 16));
        int64_t row = offset[g] + begin;
        for (int64_t i = 0; i < tiles; ++i) {
          const int64_t h = base + (i < extra);
          const int64_t step = lines > 0 ? 64 : 0;
          (i < extra ? high_tile : low_tile)(reinterpret_cast<const char*>(A + row * K), K * int64_t(sizeof(T)), panel,
                                             C + row * N + c, N, K, last, ahead, step, stream);
          if (lines > 0) {
            ahead += S * 64;
            lines -= S;
          }
          row += h;
        }
      }
    }
#if defined(__AVX512F__)
    if (STREAM) _mm_sfence();
#endif
  }
}

void run(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView b, ffi::TensorView packed, ffi::TensorView out) {
  const DLDataType type = out.dtype();
  if (type.bits == 32) return typed<float>(a, offsets, packed, out, b.size(0));
  if (type.code == kDLBfloat) return typed<bf16>(a, offsets, packed, out, b.size(0));
  TVM_FFI_THROW(TypeError) << "takes float32 and bfloat16";
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare, prepare);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
