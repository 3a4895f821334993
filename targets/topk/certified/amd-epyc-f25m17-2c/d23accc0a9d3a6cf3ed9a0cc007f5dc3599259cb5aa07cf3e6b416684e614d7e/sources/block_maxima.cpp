// Top-K by block maxima: stream the row once, keeping only the largest key of each block, then look again at
// the few blocks that can hold a winner.
//
// k blocks whose maximum reaches a bound hold k elements that reach it, so the k-th largest block maximum
// can't lie above the k-th largest element: a bound that needs no luck, whatever the order of the row. With
// several times k blocks it is nearly tight too: of 16384 random scores some 75 pass it for k = 64.
#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

// tunable WORD_BLOCK: 32 64
// tunable HALF_BLOCK: 64 32
// tunable RANK_TILE: 32 64
// tunable LONG_PER_K: 6 12
// tunable OUT_AHEAD: 1 2
// tunable NEXT_LINES: 0 1 2

constexpr int64_t BLOCKS_PER_K = 2;

namespace ffi = tvm::ffi;

namespace {

static_assert(WORD_BLOCK >= 32 && HALF_BLOCK >= 32, "blocks of two vectors at least");
constexpr int64_t kRankLimit = 1024;  // beyond it, comparing all pairs costs more than sorting

struct Scratch {
  std::vector<int32_t> maxima, keys, order, taken;  // keys[i] belongs to the element at places[i]
  std::vector<int64_t> places;
  bool hinted = false;  // whether `hint` is the bound of an earlier row of this call
  int32_t hint = 0;
  const char* next = nullptr;  // the next row, if it is to be prefetched
};

// The order of torch.topk as signed integers. Flipping the magnitude of negative numbers makes their bits
// ascend; shifting everything down by the number of NaN patterns then makes -inf the least integer, and the
// NaNs that carry a sign wrap round to the top, where the other NaNs are.
template <typename Int, int kMantissaBits>
inline Int key_of(Int bits) {
  const Int ascending = bits ^ ((bits >> (8 * sizeof(Int) - 1)) & std::numeric_limits<Int>::max());
  return static_cast<Int>(static_cast<std::make_unsigned_t<Int>>(ascending) - ((1u << kMantissaBits) - 1));
}

// Bit i tells whether keys[i] > bound.
template <int kCount, typename Int>
inline uint64_t above(const Int* keys, Int bound) {
  uint64_t mask = 0;
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
  for (int i = 0; i < kCount; i += 16) {
    if constexpr (sizeof(Int) == 4) {
      mask |= uint64_t{_mm512_cmpgt_epi32_mask(_mm512_loadu_si512(keys + i), _mm512_set1_epi32(bound))} << i;
    } else {
      const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + i));
      mask |= uint64_t{_mm256_cmpgt_epi16_mask(sixteen, _mm256_set1_epi16(bound))} << i;
    }
  }
#elif defined(__AVX2__)
  for (int i = 0; i < kCount; i += 32 / sizeof(Int)) {
    const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + i));
    if constexpr (sizeof(Int) == 4) {
      const __m256 hit = _mm256_castsi256_ps(_mm256_cmpgt_epi32(lanes, _mm256_set1_epi32(bound)));
      mask |= static_cast<uint64_t>(_mm256_movemask_ps(hit)) << i;
    } else {
      const __m256i hit = _mm256_cmpgt_epi16(lanes, _mm256_set1_epi16(bound));
      const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(hit), _mm256_extracti128_si256(hit, 1));
      mask |= static_cast<uint64_t>(_mm_movemask_epi8(bytes)) << i;
    }
  }
#else
  for (int i = 0; i < kCount; ++i) mask |= uint64_t{keys[i] > bound} << i;
#endif
  return mask;
}

template <typename Int, int kMantissaBits>
[[gnu::noinline]] int32_t plain_maximum(const Int* block, int64_t count) {
  Int most = std::numeric_limits<Int>::min();
  for (int64_t i = 0; i < count; ++i) most = std::max(most, key_of<Int, kMantissaBits>(block[i]));
  return most;
}

#if defined(__AVX2__)
// The largest key of each block, from the largest pattern. False where the row has a NaN with a sign: the
// maxima are of no use then.
template <typename Int, int kMantissaBits, int64_t kBlock>
bool fast_maxima(const Int* row, int64_t blocks, int32_t* maxima) {
  constexpr bool kWord = sizeof(Int) == 4;
  constexpr int64_t kCount = 32 / sizeof(Int);
  static_assert(kBlock >= 2 * kCount, "two vectors at least");
  const auto load = [](const Int* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); };
  const auto larger = [](__m256i a, __m256i b) {
    if constexpr (kWord) return _mm256_max_epi32(a, b);
    else return _mm256_max_epi16(a, b);
  };
  const auto higher = [](__m256i a, __m256i b) {
    if constexpr (kWord) return _mm256_max_epu32(a, b);
    else return _mm256_max_epu16(a, b);
  };
  __m256i high0 = _mm256_setzero_si256(), high1 = high0;
  for (int64_t b = 0; b < blocks; ++b) {
    const Int* block = row + b * kBlock;
    __m256i most0 = load(block), most1 = load(block + kCount);
    high0 = higher(high0, most0), high1 = higher(high1, most1);
#pragma GCC unroll 8
    for (int64_t i = 2 * kCount; i < kBlock; i += 2 * kCount) {
      const __m256i x0 = load(block + i), x1 = load(block + i + kCount);
      most0 = larger(most0, x0), most1 = larger(most1, x1);
      high0 = higher(high0, x0), high1 = higher(high1, x1);
    }
    const __m256i both = larger(most0, most1);
    const __m128i low = _mm256_castsi256_si128(both), up = _mm256_extracti128_si256(both, 1);
    int32_t most;
    if constexpr (kWord) {
      __m128i m = _mm_max_epi32(low, up);
      m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
      m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
      most = _mm_cvtsi128_si32(m);
    } else {  // the least of the complements, as unsigned
      const __m128i m = _mm_minpos_epu16(_mm_xor_si128(_mm_max_epi16(low, up), _mm_set1_epi16(0x7fff)));
      most = static_cast<int16_t>(_mm_cvtsi128_si32(m) ^ 0x7fff);
    }
    maxima[b] = most - ((1 << kMantissaBits) - 1);
    if (__builtin_expect(most < 0, 0)) maxima[b] = plain_maximum<Int, kMantissaBits>(block, kBlock);
  }
  using Pattern = std::make_unsigned_t<Int>;
  alignas(32) Pattern highest[kCount];
  _mm256_store_si256(reinterpret_cast<__m256i*>(highest), higher(high0, high1));
  constexpr Pattern kMinusInfinity = static_cast<Pattern>(~uint32_t{0} << kMantissaBits);
  bool fine = true;
  for (int64_t i = 0; i < kCount; ++i) fine &= highest[i] <= kMinusInfinity;
  return fine;
}
#endif

// How many keys reach the bound, which isn't the least integer: up to 64 of those follow the keys.
inline int64_t reaching(const int32_t* keys, int64_t count, int32_t bound) {
  int64_t reached = 0;
#if defined(__AVX512F__) && defined(__POPCNT__)
  const __m512i limit = _mm512_set1_epi32(bound);
  for (int64_t i = 0; i < count; i += 32) {
    const uint32_t a = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(keys + i), limit);
    const uint32_t b = _mm512_cmpge_epi32_mask(_mm512_loadu_si512(keys + i + 16), limit);
    reached += _mm_popcnt_u32(a | b << 16);
  }
#else
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += keys[i] >= bound;
  reached = sum;
#endif
  return reached;
}

// The same bound as below, looked for from a hint on. kStep is a small difference of keys.
template <int64_t kStep>
int32_t bound_near(const int32_t* keys, int64_t count, int64_t k, int32_t hint) {
  constexpr int64_t kLeast = std::numeric_limits<int32_t>::min(), kMost = std::numeric_limits<int32_t>::max();
  const int64_t enough = k + k / 8;
  int64_t low = kLeast, high = kMost + 1;
  if (hint > kLeast) {
    int64_t at = hint, step = kStep;
    int64_t reached = reaching(keys, count, static_cast<int32_t>(at));
    if (reached >= k) {
      if (reached <= enough) return static_cast<int32_t>(at);
      low = at, at += 1;  // ties end it here
      while (at < high) {
        reached = reaching(keys, count, static_cast<int32_t>(at));
        if (reached < k) {
          high = at;
        } else {
          if (reached <= enough) return static_cast<int32_t>(at);
          low = at, at += step, step *= 4;
        }
      }
    } else {
      high = at;
      while (high - step > kLeast) {
        at = high - step, step *= 4;
        reached = reaching(keys, count, static_cast<int32_t>(at));
        if (reached >= k) {
          if (reached <= enough) return static_cast<int32_t>(at);
          low = at;
          break;
        }
        high = at;
      }
    }
  }
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    const int64_t reached = reaching(keys, count, static_cast<int32_t>(middle));
    if (reached < k) {
      high = middle;
    } else {
      low = middle;
      if (reached <= enough) break;
    }
  }
  return static_cast<int32_t>(low);
}

// A bound that at least k keys reach, and an eighth more at most (unless they tie). Bisection by counting has
// no branch that depends on a single key, so it vectorises where a selection would mispredict.
int32_t bound_of(const int32_t* keys, int64_t count, int64_t k) {
  int32_t least = keys[0], most = keys[0];
  for (int64_t i = 0; i < count; ++i) least = std::min(least, keys[i]), most = std::max(most, keys[i]);
  int64_t low = least, high = int64_t{most} + 1;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    const int64_t reached = reaching(keys, count, static_cast<int32_t>(middle));
    (reached < k ? high : low) = middle;
    if (reached >= k && reached <= k + k / 8) break;
  }
  return static_cast<int32_t>(low);
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__POPCNT__)
#define TOPK_PATTERNS 1
// Bits of the kCount elements at p whose patterns are above (on) the limit's, as signed integers.
template <typename Int, int64_t kCount, bool kEqual>
inline uint64_t patterns_of(const Int* p, __m512i limit) {
  constexpr int64_t kLanes = 64 / sizeof(Int);
  uint64_t m = 0;
#pragma GCC unroll 4
  for (int64_t v = 0; v < kCount; v += kLanes) {
    const __m512i bits = _mm512_loadu_si512(p + v);
    if constexpr (sizeof(Int) == 4)
      m |= uint64_t{kEqual ? _mm512_cmpeq_epi32_mask(bits, limit) : _mm512_cmpgt_epi32_mask(bits, limit)} << v;
    else
      m |= uint64_t{kEqual ? _mm512_cmpeq_epi16_mask(bits, limit) : _mm512_cmpgt_epi16_mask(bits, limit)} << v;
  }
  return m;
}

// Collects like gather does, where the row has no NaN with a sign and the bound is a positive number's key: then
// patterns compare as they are.
template <typename Int, int kMantissaBits, int64_t kBlock>
int64_t collect(const Int* row, int64_t n, int64_t k, int64_t blocks, int32_t bound, Scratch& s) {
  constexpr auto key = key_of<Int, kMantissaBits>;
  constexpr int64_t kStep = std::min<int64_t>(kBlock, 64);
  const int32_t* maxima = s.maxima.data();
  int32_t* keys = s.keys.data();
  int64_t* places = s.places.data();
  const int32_t pattern = bound + ((1 << kMantissaBits) - 1);
  const __m512i limit = sizeof(Int) == 4 ? _mm512_set1_epi32(pattern) : _mm512_set1_epi16(static_cast<int16_t>(pattern));
  const char* next = s.next;
  int64_t found = 0;
  const auto append = [&](int64_t i) { keys[found] = key(row[i]), places[found++] = i; };
  for (int64_t b0 = 0; b0 < blocks; b0 += 64) {
    for (uint64_t hits = above<64>(maxima + b0, bound); hits; hits &= hits - 1) {
      const int64_t begin = (b0 + __builtin_ctzll(hits)) * kBlock;
      if (NEXT_LINES > 0 && next) {
        for (int line = 0; line < NEXT_LINES; ++line) __builtin_prefetch(next, 0, 2), next += 64;
      }
      for (int64_t i = begin; i < begin + kBlock; i += kStep) {
        uint64_t m = patterns_of<Int, kStep, false>(row + i, limit);
        for (; m; m &= m - 1) append(i + __builtin_ctzll(m));
      }
    }
  }
  for (int64_t i = blocks * kBlock; i < n; ++i)  // what is left over by whole blocks
    if (key(row[i]) > bound) append(i);
  if (found >= k) return found;
  for (int64_t b0 = 0; b0 < blocks && found < k; b0 += 64) {  // ties
    for (uint64_t hits = above<64>(maxima + b0, bound - 1); hits && found < k; hits &= hits - 1) {
      const int64_t begin = (b0 + __builtin_ctzll(hits)) * kBlock;
      for (int64_t i = begin; i < begin + kBlock; i += kStep)
        for (uint64_t m = patterns_of<Int, kStep, true>(row + i, limit); m; m &= m - 1) {
          keys[found] = bound, places[found++] = i + __builtin_ctzll(m);
        }
    }
  }
  for (int64_t i = blocks * kBlock; i < n && found < k; ++i)
    if (key(row[i]) == bound) append(i);
  return std::min(found, k);
}
#endif

// Puts into `s` every element above a bound that at least k elements reach, and of those on the bound as many
// as it takes to make k. Returns how many. Takes smaller blocks where the row is too short for kBlock.
template <typename Int, int kMantissaBits, int64_t kBlock>
int64_t gather(const Int* row, int64_t n, int64_t k, Scratch& s) {
  constexpr auto key = key_of<Int, kMantissaBits>;
  if constexpr (kBlock > 1) {
    constexpr int64_t kSmaller = kBlock > 16 ? kBlock / 2 : 1;
    if (n < kBlock * k * BLOCKS_PER_K) return gather<Int, kMantissaBits, kSmaller>(row, n, k, s);
  }
  const int64_t blocks = n / kBlock;
  s.maxima.resize(blocks + 64), s.keys.resize(n + RANK_TILE + 64), s.places.resize(n + 64);
  bool known = false;
#if defined(__AVX2__)
  if constexpr (kBlock >= 32) known = fast_maxima<Int, kMantissaBits, kBlock>(row, blocks, s.maxima.data());
#endif
  for (int64_t b = 0; b < blocks && !known; ++b) {
    const Int* block = row + b * kBlock;
    Int most = std::numeric_limits<Int>::min();
    // Said outright, or gcc unrolls this loop and vectorises across blocks, transposing all it loads.
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < kBlock; ++i) most = std::max(most, key(block[i]));
    s.maxima[b] = most;
  }
  std::fill_n(s.maxima.begin() + blocks, 64, std::numeric_limits<int32_t>::min());  // read 64 at a time below

  constexpr int64_t kNear = sizeof(Int) == 4 ? 16384 : 1;
  const int32_t bound = s.hinted ? bound_near<kNear>(s.maxima.data(), blocks, k, s.hint)
                                 : bound_of(s.maxima.data(), blocks, k);
  s.hint = bound, s.hinted = true;
#if defined(TOPK_PATTERNS)
  if constexpr (kBlock >= 32) {
    constexpr int32_t kHighest = std::numeric_limits<Int>::max() - (1 << kMantissaBits);
    if (known && bound > 0 && bound < kHighest)
      return collect<Int, kMantissaBits, kBlock>(row, n, k, blocks, bound, s);
  }
#endif
  const char* next = s.next;
  int64_t found = 0;
  const auto append = [&](int64_t i) { s.keys[found] = key(row[i]), s.places[found++] = i; };
  for (int64_t b0 = 0; b0 < blocks; b0 += 64) {
    for (uint64_t hits = above<64>(&s.maxima[b0], bound); hits; hits &= hits - 1) {
      const int64_t begin = (b0 + __builtin_ctzll(hits)) * kBlock;
      if (NEXT_LINES > 0 && next) {
        for (int line = 0; line < NEXT_LINES; ++line) __builtin_prefetch(next, 0, 2), next += 64;
      }
      if constexpr (kBlock == 1) {
        append(begin);
      } else {
        constexpr int64_t kStep = std::min<int64_t>(kBlock, 64);
        for (int64_t i = begin; i < begin + kBlock; i += kStep) {
          Int keys[kStep];
          for (int64_t j = 0; j < kStep; ++j) keys[j] = key(row[i + j]);
          for (uint64_t m = above<kStep>(keys, Int(bound)); m; m &= m - 1) append(i + __builtin_ctzll(m));
        }
      }
    }
  }
  for (int64_t i = blocks * kBlock; i < n; ++i)  // what is left over by whole blocks
    if (key(row[i]) > bound) append(i);
  if constexpr (kBlock > 1) {  // ties; the bound promises that there are enough
    if (found < k && bound > std::numeric_limits<Int>::min()) {
      for (int64_t b0 = 0; b0 < blocks && found < k; b0 += 64) {
        for (uint64_t hits = above<64>(&s.maxima[b0], bound - 1); hits && found < k; hits &= hits - 1) {
          const int64_t begin = (b0 + __builtin_ctzll(hits)) * kBlock;
          constexpr int64_t kStep = std::min<int64_t>(kBlock, 64);
          for (int64_t i = begin; i < begin + kBlock; i += kStep) {
            Int keys[kStep];
            for (int64_t j = 0; j < kStep; ++j) keys[j] = key(row[i + j]);
            uint64_t m = above<kStep>(keys, Int(bound - 1)) & ~above<kStep>(keys, Int(bound));
            for (; m; m &= m - 1) append(i + __builtin_ctzll(m));
          }
        }
      }
      for (int64_t i = blocks * kBlock; i < n && found < k; ++i)
        if (key(row[i]) == bound) append(i);
      return std::min(found, std::max<int64_t>(k, 0));
    }
  }
  for (int64_t b = 0; found < k; ++b) {  // ties; the bound promises that there are enough
    if (b < blocks && s.maxima[b] < bound) continue;
    for (int64_t i = b * kBlock; i < std::min(n, (b + 1) * kBlock) && found < k; ++i)
      if (key(row[i]) == bound) append(i);
  }
  return found;
}

inline Scratch& scratch() {
  thread_local Scratch s;
  return s;
}

template <typename Int, int kMantissaBits>
void select_row(Scratch& s, const Int* row, int64_t n, int64_t k, Int* values, int64_t* indices) {
  const int64_t found = n >= 128 * LONG_PER_K * k ? gather<Int, kMantissaBits, 128>(row, n, k, s)
                                                  : gather<Int, kMantissaBits, sizeof(Int) == 4 ? WORD_BLOCK : HALF_BLOCK>(row, n, k, s);
  const auto place = [&](int64_t slot, int64_t i) {
    values[slot] = row[s.places[i]], indices[slot] = s.places[i];
  };
  if (found > kRankLimit) {
    s.order.resize(found);
    for (int64_t i = 0; i < found; ++i) s.order[i] = static_cast<int32_t>(i);
    const auto before = [&](int32_t a, int32_t b) { return s.keys[a] > s.keys[b]; };
    std::nth_element(s.order.begin(), s.order.begin() + (k - 1), s.order.end(), before);
    std::sort(s.order.begin(), s.order.begin() + k, before);
    for (int64_t slot = 0; slot < k; ++slot) place(slot, s.order[slot]);
    return;
  }
  // An element's slot is the number of keys above its own: all pairs are compared, many at a time and without
  // a branch. Equal keys get the same rank and take the slots from there on in turn.
  s.taken.assign(found, 0);
  const int32_t* keys = s.keys.data();
  for (int64_t i = 0; i < found; i += RANK_TILE) {
    int32_t rank[RANK_TILE] = {};
    for (int64_t j = 0; j < found; ++j)
      for (int64_t lane = 0; lane < RANK_TILE; ++lane) rank[lane] += keys[j] > keys[i + lane];
    for (int64_t lane = 0; lane < RANK_TILE && i + lane < found; ++lane) {
      const int64_t slot = rank[lane] + s.taken[rank[lane]]++;
      if (slot < k) place(slot, i + lane);
    }
  }
}

// Fetches the lines from `begin` on for writing.
inline void prefetch_to_write(const void* begin, int64_t bytes) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(begin) & ~uintptr_t{63};
  const uintptr_t last = reinterpret_cast<uintptr_t>(begin) + std::min<int64_t>(bytes, 4096);
  for (uintptr_t line = first; line < last; line += 64) __builtin_prefetch(reinterpret_cast<const void*>(line), 1);
}

template <typename Int, int kMantissaBits>
void select(ffi::TensorView x, int64_t k, ffi::TensorView out_values, ffi::TensorView out_indices) {
  const int64_t batch = x.size(0), n = x.size(1);
  const auto* rows = static_cast<const Int*>(x.data_ptr());
  auto* values = static_cast<Int*>(out_values.data_ptr());
  auto* indices = static_cast<int64_t*>(out_indices.data_ptr());
  const bool large = batch * n * static_cast<int64_t>(sizeof(Int)) > (int64_t{2} << 20);  // comes from memory
#pragma omp parallel
  {
    Scratch& s = scratch();
    s.hinted = false;  // nothing is kept from call to call
#pragma omp for schedule(static)
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t out = b + OUT_AHEAD - 1;
      if (OUT_AHEAD > 0 && out < batch) {
        prefetch_to_write(values + out * k, k * static_cast<int64_t>(sizeof(Int)));
        prefetch_to_write(indices + out * k, k * 8);
      }
      s.next = large && b + 1 < batch ? reinterpret_cast<const char*>(rows + (b + 1) * n) : nullptr;
      select_row<Int, kMantissaBits>(s, rows + b * n, n, k, values + b * k, indices + b * k);
    }
  }
}

}  // namespace

void run(ffi::TensorView x, int64_t k, ffi::TensorView values, ffi::TensorView indices) {
  if (x.dtype().bits == 32) return select<int32_t, 23>(x, k, values, indices);
  if (x.dtype().code == kDLBfloat) return select<int16_t, 7>(x, k, values, indices);
  return select<int16_t, 10>(x, k, values, indices);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
