// Measures what this CPU can do at most: read bandwidth by footprint, multiply-add rate by element type, and how soon
// several threads have begun and ended.
//
// Usage: ceilings THREADS MAX_BYTES. Prints JSON: {"read_gbps": {"<bytes>": rate}, "peak_gflops": {"<type>": rate},
// "fork_join_us": time}, the time for several threads alone.
// Every figure is the best of many short repeats, since noise only ever slows a repeat down.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <omp.h>
#if defined(__AVX512BF16__) || defined(__AMX_BF16__)
#include <immintrin.h>
#endif
#ifdef __AMX_BF16__
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kChains = 16;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kChains = 10;
#else
constexpr int kVectorBytes = 16, kChains = 12;
#endif

#if defined(__aarch64__)
#define VECTOR_REGISTER "+w"
#else
#define VECTOR_REGISTER "+x"
#endif

template <typename T>
struct Vec {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};

static double seconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

// Best time (seconds) of `body`, run by every thread at once, over `budget_s` of repeats.
// Time is that of the slowest thread on its own processor clock, which stands still while other processes have the
// core: on a busy machine, where the threads hardly ever run side by side, the wall would show nothing but waiting.
template <typename Body>
static double best_time(int threads, double budget_s, Body body) {
  double best = 1e30, slowest = 0;
  const double deadline = seconds(CLOCK_MONOTONIC) + budget_s;
  for (int repeat = 0; repeat < 5 || seconds(CLOCK_MONOTONIC) < deadline; ++repeat) {
    slowest = 0;
#pragma omp parallel num_threads(threads) reduction(max : slowest)
    {
#pragma omp barrier
      const double start = seconds(CLOCK_THREAD_CPUTIME_ID);
      body(omp_get_thread_num());
      slowest = seconds(CLOCK_THREAD_CPUTIME_ID) - start;
    }
    if (slowest < best) best = slowest;
  }
  return best;
}

// Time (microseconds) of a parallel region in which nothing is done, of many in a row.
static double fork_join_us(int threads) {
  constexpr int kRegions = 100;
  double best = 1e30;
  const double deadline = seconds(CLOCK_MONOTONIC) + 0.1;
  for (int repeat = 0; repeat < 5 || seconds(CLOCK_MONOTONIC) < deadline; ++repeat) {
    const double start = seconds(CLOCK_MONOTONIC);
    for (int region = 0; region < kRegions; ++region) {
#pragma omp parallel num_threads(threads)
      asm volatile("" ::: "memory");
    }
    const double time = (seconds(CLOCK_MONOTONIC) - start) / kRegions;
    if (time < best) best = time;
  }
  return 1e6 * best;
}

static volatile float g_sink;  // keeps results alive

static float sum(const float* data, int64_t count) {
  using V = Vec<float>::type;
  constexpr int64_t kLanes = kVectorBytes / sizeof(float), kStep = 8 * kLanes;
  const V* vectors = reinterpret_cast<const V*>(data);
  V acc[8] = {};
  for (int64_t i = 0; i < count / kStep; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) acc[j] += vectors[8 * i + j];
  V all = {};
  for (int j = 0; j < 8; ++j) all += acc[j];
  return all[0] + all[kLanes - 1];
}

static double read_gbps(float* buffer, int64_t bytes, int threads) {
  const int64_t chunk = bytes / sizeof(float) / threads / 256 * 256;  // whole cache lines for every thread
  const int64_t passes = bytes < (16 << 20) ? (16 << 20) / bytes : 1;
  const double time = best_time(threads, bytes > (256 << 20) ? 0.3 : 0.15, [&](int thread) {
    const float* mine = buffer + thread * chunk;
    for (int64_t pass = 0; pass < passes; ++pass) {
      g_sink = sum(mine, chunk);
      asm volatile("" ::: "memory");
    }
  });
  return passes * chunk * threads * sizeof(float) / time / 1e9;
}

constexpr int64_t kRounds = 20000;

template <typename T>
static double peak_gflops(int threads) {
  using V = typename Vec<T>::type;
  const double time = best_time(threads, 0.1, [](int) {
    V acc[kChains], scale = V{} + T(0.5), shift = V{} + T(0.25);
    for (int j = 0; j < kChains; ++j) acc[j] = V{} + T(j);
    for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kChains; ++j) acc[j] = acc[j] * scale + shift;
      asm volatile("" : VECTOR_REGISTER(scale));  // the factor may have changed: no round can be folded into another
    }
    V all = V{};
    for (int j = 0; j < kChains; ++j) all += acc[j];
    g_sink = float(all[0]);
  });
  return 2.0 * (kVectorBytes / sizeof(T)) * kChains * kRounds * threads / time / 1e9;
}

#ifdef __AVX512BF16__
static double peak_bf16_dot(int threads) {
  const double time = best_time(threads, 0.1, [](int) {
    __m512 acc[kChains];
    // Chains that begin alike would be one chain to the compiler.
    for (int j = 0; j < kChains; ++j) acc[j] = _mm512_set1_ps(static_cast<float>(j));
    __m512bh a = {}, b = {};
    for (int64_t i = 0; i < kRounds; ++i) {
#pragma GCC unroll 16
      for (int j = 0; j < kChains; ++j) acc[j] = _mm512_dpbf16_ps(acc[j], a, b);
      asm volatile("" : "+v"(a));
    }
    __m512 all = acc[0];
    for (int j = 1; j < kChains; ++j) all = all + acc[j];
    g_sink = all[0];
  });
  return 2.0 * 32 * kChains * kRounds * threads / time / 1e9;
}
#endif

#ifdef __AMX_BF16__
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

static bool ask_for_tiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

static double peak_bf16_tiles(int threads) {
  constexpr int64_t kTileRounds = 4000;
  const double time = best_time(threads, 0.1, [](int) {
    const TileConfig config;
    _tile_loadconfig(&config);
    for (int64_t i = 0; i < kTileRounds; ++i) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
  });
  return 2.0 * 16 * 16 * 32 * 4 * kTileRounds * threads / time / 1e9;
}
#endif

static float* allocate(int64_t bytes, int threads) {
  float* buffer = static_cast<float*>(std::aligned_alloc(4096, bytes));
  if (buffer == nullptr) {
    std::fprintf(stderr, "can't allocate %lld bytes\n", static_cast<long long>(bytes));
    std::exit(1);
  }
  const int64_t chunk = bytes / threads;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) std::memset(reinterpret_cast<char*>(buffer) + t * chunk, 0, chunk);
  return buffer;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int threads = std::atoi(argv[1]);
  const int64_t largest = std::atoll(argv[2]);
  const int64_t sizes[] = {int64_t(16384) * threads, 256 << 10, 4 << 20, 8 << 20, 16 << 20, 32 << 20, 48 << 20,
                           64 << 20, 512 << 20};
  float* buffer = allocate(largest, threads);
  std::printf("{\"read_gbps\": {");
  const char* comma = "";
  for (int64_t size : sizes) {
    if (size > largest || (size == sizes[0] && size >= sizes[1])) continue;
    std::printf("%s\"%lld\": %.3f", comma, static_cast<long long>(size), read_gbps(buffer, size, threads));
    comma = ", ";
  }
  const double float32 = peak_gflops<float>(threads);
  double bfloat16 = float32, float16 = float32;
#if defined(__AVX512FP16__) || (defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC) && __GNUC__ >= 13)
  float16 = peak_gflops<_Float16>(threads);
#endif
#ifdef __AVX512BF16__
  bfloat16 = peak_bf16_dot(threads);
#endif
#ifdef __AMX_BF16__
  if (ask_for_tiles()) bfloat16 = peak_bf16_tiles(threads);
#endif
  std::printf("}, \"peak_gflops\": {\"float64\": %.3f, \"float32\": %.3f, \"float16\": %.3f, \"bfloat16\": %.3f}",
              peak_gflops<double>(threads), float32, float16, bfloat16);
  if (threads > 1) std::printf(", \"fork_join_us\": %.3f", fork_join_us(threads));
  std::printf("}\n");
}
