#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#include <omp.h>

namespace ffi = tvm::ffi;

// tunable ROWS: 12 8 10 6
// tunable CHUNK: 48 24 96 192
// tunable ALONE: 131072 1048576
// tunable SPIN: 20000 2000 100000
// tunable UNROLL: 2 1 4

constexpr int kUnroll = UNROLL;
constexpr int64_t kChunk = CHUNK;
constexpr int L = 16, V4 = 2;  // V4 vectors are a panel
static_assert(ROWS * V4 <= 24, "accumulators don't fit the registers");
typedef float Vec __attribute__((vector_size(64), aligned(4), may_alias));
#define UNROLLED _Pragma("GCC unroll 16")

struct bf16 {
  uint16_t bits;
};
typedef _Float16 half_t;

#if defined(__AVX512F__) && defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAVE_DOT 1
#else
#define HAVE_DOT 0
#endif

inline float widen(float x) { return x; }
inline float widen(half_t x) { return float(x); }
inline float widen(bf16 x) {
  const uint32_t word = uint32_t(x.bits) << 16;
  float y;
  std::memcpy(&y, &word, 4);
  return y;
}
inline void narrow(float x, float* to) { *to = x; }
inline void narrow(float x, half_t* to) { *to = half_t(x); }
inline void narrow(float x, bf16* to) {
  uint32_t word;
  std::memcpy(&word, &x, 4);
  to->bits = x == x ? (word + 0x7fff + (word >> 16 & 1)) >> 16 : word >> 16 | 0x40;
}

template <class T>
inline void store(Vec x, T* to, int64_t width) {
#if HAVE_DOT
  const __mmask16 mask = width >= L ? 0xffff : __mmask16((1u << width) - 1);
  if constexpr (std::is_same_v<T, float>) {
    _mm512_mask_storeu_ps(to, mask, (__m512)x);
  } else if constexpr (std::is_same_v<T, bf16>) {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh((__m512)x));
  } else {
    _mm256_mask_storeu_epi16(to, mask, _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#else
  for (int64_t i = 0; i < std::min<int64_t>(L, width); ++i) narrow(x[i], to + i);
#endif
}

// One row of a tile; masks only where it is not whole, since masked stores are slow.
template <int V, class T>
inline __attribute__((always_inline)) void store_row(const Vec* x, T* to, int64_t width) {
#if HAVE_DOT
  if (__builtin_expect(width == V * L, 1)) {
    if constexpr (std::is_same_v<T, bf16>) {
      int v = 0;
      UNROLLED for (; v + 1 < V; v += 2)
        _mm512_storeu_si512(to + v * L, (__m512i)_mm512_cvtne2ps_pbh((__m512)x[v + 1], (__m512)x[v]));
      if constexpr (V & 1)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + (V - 1) * L), (__m256i)_mm512_cvtneps_pbh((__m512)x[V - 1]));
    } else if constexpr (std::is_same_v<T, float>) {
      UNROLLED for (int v = 0; v < V; ++v) _mm512_storeu_ps(to + v * L, (__m512)x[v]);
    } else {
      UNROLLED for (int v = 0; v < V; ++v)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + v * L),
                            _mm512_cvtps_ph((__m512)x[v], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    return;
  }
#endif
  UNROLLED for (int v = 0; v < V; ++v) store<T>(x[v], to + v * L, width - v * L);
}

// c [R, width] = a [R, K] b [K, V * 16], all sums in registers.
template <int R, int V, class T>
void tile_float(const void* a_, int64_t lda, const void* b_, int64_t K, T* c, int64_t ldc, int64_t width) {
  const float* a = static_cast<const float*>(a_);
  const float* b = static_cast<const float*>(b_);
  Vec sum[R][V] = {};
#pragma GCC unroll kUnroll
  for (int64_t k = 0; k < K; ++k) {
    Vec x[V];
    UNROLLED for (int v = 0; v < V; ++v) x[v] = *(const Vec*)(b + k * (V * L) + v * L);
    UNROLLED for (int r = 0; r < R; ++r) {
      const float y = a[r * lda + k];
      UNROLLED for (int v = 0; v < V; ++v) sum[r][v] += y * x[v];
    }
  }
  UNROLLED for (int r = 0; r < R; ++r) {
    Vec row[V];
    UNROLLED for (int v = 0; v < V; ++v) row[v] = sum[r][v];
    store_row<V, T>(row, c + r * ldc, width);
  }
}

#if HAVE_DOT
// The same with pairs of k: b is [(K + 1) / 2, V * 16, 2] in bf16.
template <int R, int V>
void tile_dot(const void* a_, int64_t lda, const void* b_, int64_t K, bf16* c, int64_t ldc, int64_t width) {
  const uint16_t* a = static_cast<const uint16_t*>(a_);
  const uint32_t* b = static_cast<const uint32_t*>(b_);
  __m512 sum[R][V];
  UNROLLED for (int r = 0; r < R; ++r)
    UNROLLED for (int v = 0; v < V; ++v) sum[r][v] = _mm512_setzero_ps();
  const int64_t pairs = K / 2;
#pragma GCC unroll kUnroll
  for (int64_t k = 0; k < pairs; ++k) {
    __m512i x[V];
    UNROLLED for (int v = 0; v < V; ++v) x[v] = _mm512_loadu_si512(b + k * (V * L) + v * L);
    UNROLLED for (int r = 0; r < R; ++r) {
      int32_t two;
      std::memcpy(&two, a + r * lda + 2 * k, 4);
      const __m512i y = _mm512_set1_epi32(two);
      UNROLLED for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)y, (__m512bh)x[v]);
    }
  }
  if (K & 1) {
    __m512i x[V];
    UNROLLED for (int v = 0; v < V; ++v) x[v] = _mm512_loadu_si512(b + pairs * (V * L) + v * L);
    UNROLLED for (int r = 0; r < R; ++r) {
      const __m512i y = _mm512_set1_epi32(int32_t(uint32_t(a[r * lda + K - 1])));
      UNROLLED for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)y, (__m512bh)x[v]);
    }
  }
  UNROLLED for (int r = 0; r < R; ++r) {
    Vec row[V];
    UNROLLED for (int v = 0; v < V; ++v) row[v] = (Vec)sum[r][v];
    store_row<V, bf16>(row, c + r * ldc, width);
  }
}
#endif

template <bool DOT, int R, int V, class T>
inline void tile_rv(const void* a, int64_t lda, const void* b, int64_t K, T* c, int64_t ldc, int64_t width) {
#if HAVE_DOT
  if constexpr (DOT) return tile_dot<R, V>(a, lda, b, K, c, ldc, width);
#endif
  if constexpr (!DOT) tile_float<R, V, T>(a, lda, b, K, c, ldc, width);
}

template <bool DOT, int R, class T>
void tiles(int64_t height, int64_t vectors, const void* a, int64_t lda, const void* b, int64_t K, T* c, int64_t ldc,
           int64_t width) {
  if constexpr (R > 1) {
    if (height < R) return tiles<DOT, R - 1, T>(height, vectors, a, lda, b, K, c, ldc, width);
  }
  switch (vectors) {
    case 1: return tile_rv<DOT, R, 1, T>(a, lda, b, K, c, ldc, width);
    default: return tile_rv<DOT, R, 2, T>(a, lda, b, K, c, ldc, width);
  }
}

// Rows begin .. end, which may belong to several groups.
template <class T>
void part(int64_t begin, int64_t end, const T* A, const int64_t* offset, int64_t G, const char* packed, T* C, int64_t K,
          int64_t N) {
  constexpr bool DOT = HAVE_DOT && std::is_same_v<T, bf16>;
  constexpr bool COPY = !DOT && !std::is_same_v<T, float>;
  const int64_t wide = (N + L - 1) / L * L;
  const int64_t steps = DOT ? (K + 1) / 2 : K;  // each step of a lane is 4 bytes
  thread_local std::vector<float> scratch;
  if (COPY && int64_t(scratch.size()) < ROWS * K) scratch.resize(ROWS * K);
  int64_t g = std::upper_bound(offset, offset + G + 1, begin) - offset - 1;
  for (int64_t m = begin; m < end;) {
    while (offset[g + 1] <= m) ++g;
    const int64_t last = std::min(end, offset[g + 1]);
    const char* weights = packed + g * steps * wide * 4;
    int64_t left = (last - m + ROWS - 1) / ROWS;
    for (; m < last; --left) {
      const int64_t height = (last - m + left - 1) / left;  // even heights, no tail of one
      const void* a = A + m * K;
      if constexpr (COPY) {
        for (int64_t i = 0; i < height * K; ++i) scratch[i] = widen(A[m * K + i]);
        a = scratch.data();
      }
      for (int64_t n = 0; n < N; n += V4 * L)
        tiles<DOT, ROWS, T>(height, std::min<int64_t>(V4, (wide - n) / L), a, K, weights + n * steps * 4, K, C + m * N + n,
                            N, std::min<int64_t>(V4 * L, N - n));
      m += height;
    }
  }
}

inline void rest() {
#if defined(__SSE2__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Threads that outlive a call. A helper first counts itself in, then looks whether a job is open; the caller first
// closes the job, then waits until nobody is inside: a helper that comes late finds it closed and touches nothing.
struct Team {
  typedef void (*Work)(const void*, int);
  alignas(64) std::atomic<int> inside{0};
  alignas(64) std::atomic<bool> open{false};
  std::atomic<uint64_t> number{0};
  alignas(64) std::atomic<int> asleep{0};
  Work work = nullptr;
  const void* self = nullptr;
  int helpers = 0;
  std::mutex calls, sleep;
  std::condition_variable wake;

  static Team& get() {
    static Team* team = new Team(omp_get_max_threads() - 1);  // never destroyed: helpers may still look at it
    return *team;
  }
  explicit Team(int count) : helpers(std::max(0, std::min(count, 62))) {
    for (int i = 0; i < helpers; ++i) std::thread([this, i] { help(i + 1); }).detach();
  }
  void help(int me) {
    uint64_t seen = 0;
    for (;;) {
      int turns = 0;
      while (number.load() == seen && ++turns < SPIN) rest();
      if (number.load() == seen) {
        std::unique_lock<std::mutex> lock(sleep);
        asleep.fetch_add(1);
        wake.wait(lock, [&] { return number.load() != seen; });
        asleep.fetch_sub(1);
      }
      seen = number.load();
      inside.fetch_add(1);
      if (open.load()) work(self, me);
      inside.fetch_sub(1);
    }
  }
  // Every thread that comes in time calls w(s, its number); w returns when there is nothing left to claim.
  void share(Work w, const void* s) {
    std::lock_guard<std::mutex> one(calls);
    work = w;
    self = s;
    open.store(true);
    number.fetch_add(1);
    if (asleep.load()) {
      { std::lock_guard<std::mutex> lock(sleep); }
      wake.notify_all();
    }
    w(s, 0);
    open.store(false);
    while (inside.load()) rest();
  }
};

constexpr int64_t kMost = 64;
struct alignas(64) Share {
  std::atomic<int64_t> next;
  int64_t end;
};

template <class T>
void typed(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView b, ffi::TensorView packed, ffi::TensorView out) {
  const int64_t M = a.size(0), K = a.size(1), G = b.size(0), N = b.size(2);
  const T* A = static_cast<const T*>(a.data_ptr());
  const int64_t* offset = static_cast<const int64_t*>(offsets.data_ptr());
  const char* weights = static_cast<const char*>(packed.data_ptr());
  T* C = static_cast<T*>(out.data_ptr());
  if (M <= 0 || N <= 0) return;
  if (M < 2 || M * K * N < ALONE || omp_get_max_threads() < 2) return part<T>(0, M, A, offset, G, weights, C, K, N);
  struct Job {
    const T* A;
    const int64_t* offset;
    const char* weights;
    T* C;
    int64_t M, K, G, N, count;
    Share* share;
    static void work(const void* self, int me) {
      const Job& j = *static_cast<const Job*>(self);
      for (int64_t i = 0; i < j.count; ++i) {
        Share& from = j.share[(me + i) % j.count];
        while (from.next.load(std::memory_order_relaxed) < from.end) {
          const int64_t begin = from.next.fetch_add(kChunk, std::memory_order_relaxed);
          if (begin >= from.end) break;
          part<T>(begin, std::min(from.end, begin + kChunk), j.A, j.offset, j.G, j.weights, j.C, j.K, j.N);
        }
      }
    }
  };
  Share share[kMost];
  Team& team = Team::get();
  const int64_t count = team.helpers + 1;
  for (int64_t t = 0; t < count; ++t) {
    share[t].next.store(M * t / count, std::memory_order_relaxed);
    share[t].end = M * (t + 1) / count;
  }
  const Job job{A, offset, weights, C, M, K, G, N, count, share};
  team.share(Job::work, &job);
}

struct Allocator {
  void AllocData(DLTensor* t) { t->data = std::aligned_alloc(64, (ffi::GetDataSize(*t) / 64 + 1) * 64); }
  void FreeData(DLTensor* t) { std::free(t->data); }
};

// b [groups, K, N] to [groups, panels of 32 columns, K, 32]; the last panel is a multiple of 16 wide.
ffi::Tensor prepare(ffi::TensorView b) {
  const int64_t G = b.size(0), K = b.size(1), N = b.size(2), wide = (N + L - 1) / L * L;
  const bool dot = HAVE_DOT && b.dtype().code == kDLBfloat;
  const int64_t steps = dot ? (K + 1) / 2 : K;
  ffi::Tensor packed = ffi::Tensor::FromNDAlloc(Allocator(), {G, steps, wide}, DLDataType{kDLFloat, 32, 1}, b.device());
  char* to = static_cast<char*>(packed.data_ptr());
  std::memset(to, 0, size_t(G) * steps * wide * 4);
  for (int64_t g = 0; g < G; ++g)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t n = 0; n < N; ++n) {
        const int64_t panel = n / (V4 * L) * (V4 * L), columns = std::min<int64_t>(V4 * L, wide - panel), from = (g * K + k) * N + n;
        const int64_t base = g * steps * wide + panel * steps;
        if (dot) {
          reinterpret_cast<uint16_t*>(to)[(base + k / 2 * columns + n - panel) * 2 + (k & 1)] =
              static_cast<const uint16_t*>(b.data_ptr())[from];
        } else {
          float x;
          if (b.dtype().bits == 32) x = static_cast<const float*>(b.data_ptr())[from];
          else if (b.dtype().code == kDLBfloat) x = widen(static_cast<const bf16*>(b.data_ptr())[from]);
          else x = widen(static_cast<const half_t*>(b.data_ptr())[from]);
          reinterpret_cast<float*>(to)[base + k * columns + n - panel] = x;
        }
      }
  return packed;
}

void run(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView b, ffi::TensorView packed, ffi::TensorView out) {
  if (out.dtype().bits == 32) return typed<float>(a, offsets, b, packed, out);
  if (out.dtype().code == kDLBfloat) return typed<bf16>(a, offsets, b, packed, out);
  if (out.dtype().bits == 16) return typed<half_t>(a, offsets, b, packed, out);
  TVM_FFI_THROW(TypeError) << "takes float32, bfloat16 and float16";
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare, prepare);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
