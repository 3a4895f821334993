// Top-K by a guided filter: each row is compared once with a bound that the rows before taught, leaving a bit
// an element; from k to a few k survivors and the row is done, else block maxima give a bound that is sure.
#include <tvm/ffi/tvm_ffi.h>

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && defined(__BMI__)
#include <immintrin.h>
#define WIDE 1
#else
#define WIDE 0
#endif

// tunable NEAR_F32: 0 4096
// tunable NEAR_BF16: 4096 2048 6144
// tunable LINES: 3 6
// tunable SKIP: 4096 0
// tunable MARGIN: 3 2 4
// tunable SERIAL: 32768 8192 131072

namespace ffi = tvm::ffi;

constexpr int BLOCKS_PER_K = 4;

namespace {

template <class Int>
constexpr int kMantissa = sizeof(Int) == 4 ? 23 : 7;
template <class Int>
constexpr Int kLeast = std::numeric_limits<Int>::min();
template <class Int>
constexpr Int kMost = std::numeric_limits<Int>::max();

// The order of torch.topk as signed integers: -inf is the least, NaNs of either sign are on top.
template <class Int>
inline Int key_of(Int bits) {
  using U = std::make_unsigned_t<Int>;
  const Int ascending = static_cast<Int>(bits ^ ((bits >> (8 * sizeof(Int) - 1)) & kMost<Int>));
  return static_cast<Int>(static_cast<U>(static_cast<U>(ascending) - static_cast<U>((1u << kMantissa<Int>)-1)));
}
template <class Int>
inline Int bits_of(Int key) {
  using U = std::make_unsigned_t<Int>;
  const Int ascending =
      static_cast<Int>(static_cast<U>(static_cast<U>(key) + static_cast<U>((1u << kMantissa<Int>)-1)));
  return static_cast<Int>(ascending ^ ((ascending >> (8 * sizeof(Int) - 1)) & kMost<Int>));
}

template <class Int>
struct Scratch {
  std::vector<uint64_t> words, packed;  // packed: a key in the high half, the complement of its place in the low
  std::vector<int32_t> places;
  std::vector<Int> keys, ranks, maxima;
};

template <class T>
inline void grow(std::vector<T>& v, int64_t size) {
  if (static_cast<int64_t>(v.size()) < size) v.resize(size);
}

// Walks over the lines of the row to come; stays where it is when stride is 0.
struct Prefetch {
  const char* at;
  int64_t stride;
  inline void step() {
    __builtin_prefetch(at);
    at += stride;
  }
};

#if WIDE
template <class Int>
struct V;

template <>
struct V<int32_t> {
  static constexpr int L = 16;
  using Mask = __mmask16;
  static inline __m512i set1(int32_t x) { return _mm512_set1_epi32(x); }
  static inline Mask gt(__m512i a, __m512i b) { return _mm512_cmpgt_epi32_mask(a, b); }
  static inline Mask ge(__m512i a, __m512i b) { return _mm512_cmpge_epi32_mask(a, b); }
  static inline Mask eq_in(Mask m, __m512i a, __m512i b) { return _mm512_mask_cmpeq_epi32_mask(m, a, b); }
  static inline __m512i max(__m512i a, __m512i b) { return _mm512_max_epi32(a, b); }
  static inline __m512i min(__m512i a, __m512i b) { return _mm512_min_epi32(a, b); }
  static inline __m512i part(Mask m, const int32_t* p) { return _mm512_maskz_loadu_epi32(m, p); }
  static inline __m512i key(__m512i x) {
    const __m512i sign = _mm512_srai_epi32(x, 31);
    const __m512i ascending = _mm512_ternarylogic_epi32(x, sign, _mm512_set1_epi32(0x7fffffff), 0x78);
    return _mm512_sub_epi32(ascending, _mm512_set1_epi32((1 << 23) - 1));
  }
  static inline __m512i count(__m512i r, Mask m) { return _mm512_mask_sub_epi32(r, m, r, _mm512_set1_epi32(-1)); }
};

template <>
struct V<int16_t> {
  static constexpr int L = 32;
  using Mask = __mmask32;
  static inline __m512i set1(int16_t x) { return _mm512_set1_epi16(x); }
  static inline Mask gt(__m512i a, __m512i b) { return _mm512_cmpgt_epi16_mask(a, b); }
  static inline Mask ge(__m512i a, __m512i b) { return _mm512_cmpge_epi16_mask(a, b); }
  static inline Mask eq_in(Mask m, __m512i a, __m512i b) { return _mm512_mask_cmpeq_epi16_mask(m, a, b); }
  static inline __m512i max(__m512i a, __m512i b) { return _mm512_max_epi16(a, b); }
  static inline __m512i min(__m512i a, __m512i b) { return _mm512_min_epi16(a, b); }
  static inline __m512i part(Mask m, const int16_t* p) { return _mm512_maskz_loadu_epi16(m, p); }
  static inline __m512i key(__m512i x) {
    const __m512i sign = _mm512_srai_epi16(x, 15);
    const __m512i ascending = _mm512_ternarylogic_epi32(x, sign, _mm512_set1_epi16(0x7fff), 0x78);
    return _mm512_sub_epi16(ascending, _mm512_set1_epi16((1 << 7) - 1));
  }
  static inline __m512i count(__m512i r, Mask m) { return _mm512_mask_sub_epi16(r, m, r, _mm512_set1_epi16(-1)); }
};

constexpr int kPaged = -1;
template <class Int>
constexpr int kNear = sizeof(Int) == 4 ? NEAR_F32 : NEAR_BF16;

template <int kAhead, class Int>
inline void prefetch_ahead(const Int* p) {  // 64 elements
  if constexpr (kAhead == kPaged) {  // once a page: the beginning of the next, which the hardware can't foresee
    const auto address = reinterpret_cast<uintptr_t>(p);
    if ((address & 4095) < 64 * sizeof(Int)) {
      const char* line = reinterpret_cast<const char*>((address & ~uintptr_t{4095}) + 4096);
      for (int i = 0; i < LINES; ++i) __builtin_prefetch(line + i * 64);
    }
  } else if constexpr (kAhead > 0) {
    const char* line = reinterpret_cast<const char*>(p) + kAhead;
    __builtin_prefetch(line);
    __builtin_prefetch(line + 64);
    if constexpr (sizeof(Int) == 4) {
      __builtin_prefetch(line + 128);
      __builtin_prefetch(line + 192);
    }
  }
}

#define INLINED __attribute__((always_inline))

// Bit i % 64 of words[i / 64] becomes test(vector that holds row[i]) at its lane.
template <int kAhead, class Int, class Test>
INLINED inline void mark_with(const Int* row, int64_t n, uint64_t* words, const Test& test) {
  using O = V<Int>;
  constexpr int L = O::L;
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    prefetch_ahead<kAhead>(row + i);
    if constexpr (L == 16) {
      const __mmask16 a = test(_mm512_loadu_si512(row + i)), b = test(_mm512_loadu_si512(row + i + 16));
      const __mmask16 c = test(_mm512_loadu_si512(row + i + 32)), d = test(_mm512_loadu_si512(row + i + 48));
      words[i / 64] = _mm512_kunpackd(_mm512_kunpackw(d, c), _mm512_kunpackw(b, a));
    } else {
      const __mmask32 a = test(_mm512_loadu_si512(row + i)), b = test(_mm512_loadu_si512(row + i + 32));
      words[i / 64] = _mm512_kunpackd(b, a);
    }
  }
  if (i < n) {
    uint64_t word = 0;
    for (int64_t j = 0; i + j < n; j += L) {
      const int64_t lanes = std::min<int64_t>(L, n - i - j);
      const auto mask = static_cast<typename O::Mask>((uint64_t{1} << lanes) - 1);
      const uint64_t hit = static_cast<uint64_t>(test(O::part(mask, row + i + j))) & static_cast<uint64_t>(mask);
      word |= hit << j;
    }
    words[i / 64] = word;
  }
}

template <class Int>
void mark_keys(const Int* row, int64_t n, Int bound, uint64_t* words) {
  using O = V<Int>;
  const __m512i limit = O::set1(bound);
  mark_with<0>(row, n, words, [&](__m512i x) INLINED { return O::gt(O::key(x), limit); });
}

// Marks the elements whose key is above `bound`, without making keys where that can be helped.
inline void mark(const int32_t* row, int64_t n, int32_t bound, uint64_t* words, bool far) {
  const int32_t bits = bits_of(bound);
  const int32_t magnitude = bits & 0x7fffffff;
  if (magnitude == 0 || magnitude > 0x7f800000) return mark_keys(row, n, bound, words);
  float value;
  std::memcpy(&value, &bits, 4);
  const __m512 limit = _mm512_set1_ps(value);
  // Not less or equal: greater, or NaN.
  const auto test = [&](__m512i x) INLINED {
    return _mm512_cmp_ps_mask(_mm512_castsi512_ps(x), limit, _CMP_NLE_UQ);
  };
  far ? mark_with<kPaged>(row, n, words, test) : mark_with<kNear<int32_t>>(row, n, words, test);
}
inline void mark(const int16_t* row, int64_t n, int16_t bound, uint64_t* words, bool far) {
  const int16_t bits = bits_of(bound);
  if (bits < 0) return mark_keys(row, n, bound, words);
  const __m512i limit = _mm512_set1_epi16(bits);
  __m512i largest = _mm512_setzero_si512();  // unsigned: only NaNs with a sign are above 0xff80
  const auto test = [&](__m512i x) INLINED {
    largest = _mm512_max_epu16(largest, x);
    return _mm512_cmpgt_epi16_mask(x, limit);
  };
  far ? mark_with<kPaged>(row, n, words, test) : mark_with<kNear<int16_t>>(row, n, words, test);
  if (_mm512_cmpgt_epu16_mask(largest, _mm512_set1_epi16(static_cast<int16_t>(0xff80))))
    mark_keys(row, n, bound, words);
}

// Keys and positions of the elements marked; stops soon after `cap` of them. `count` is a multiple of 64.
template <class Int>
int64_t extract(const Int* __restrict row, const uint64_t* __restrict words, int64_t count, Int* __restrict raw,
                int32_t* __restrict places, int64_t cap, Prefetch& prefetch) {
  Prefetch next = prefetch;
  int64_t found = 0;
  for (int64_t w0 = 0; w0 < count; w0 += 64) {
    uint64_t some = 0;
    for (int j = 0; j < 64; j += 8) {
      const __m512i eight = _mm512_loadu_si512(words + w0 + j);
      some |= static_cast<uint64_t>(_mm512_test_epi64_mask(eight, eight)) << j;
    }
    for (; some; some &= some - 1) {
      const int64_t base = (w0 + static_cast<int64_t>(_tzcnt_u64(some))) * 64;
      const uint64_t first = words[base / 64];
      next.step();
      if (found > cap) {
        prefetch = next;
        return found;
      }
      const uint64_t second = first & (first - 1);  // two at a time: more are rare
      const int64_t one = base + static_cast<int64_t>(_tzcnt_u64(first));
      const int64_t two = second ? base + static_cast<int64_t>(_tzcnt_u64(second)) : one;
      places[found] = static_cast<int32_t>(one), raw[found] = row[one];
      places[found + 1] = static_cast<int32_t>(two), raw[found + 1] = row[two];
      found += 1 + (second != 0);
      for (uint64_t rest = second & (second - 1); rest; rest &= rest - 1) {
        const int64_t more = base + static_cast<int64_t>(_tzcnt_u64(rest));
        places[found] = static_cast<int32_t>(more), raw[found++] = row[more];
      }
    }
  }
  prefetch = next;
  return found;
}

// A bound that at least k elements reach: the largest of each of several k blocks (a lane of some vectors in
// turn), and of those about the k-th largest. Needs n > 256 and k <= n / 8.
template <class Int>
Int bound_of_blocks(const Int* row, int64_t n, int64_t k, std::vector<Int>& maxima) {
  using O = V<Int>;
  constexpr int L = O::L;
  const int64_t vectors = n / L;
  int64_t deep = std::min<int64_t>(std::max<int64_t>(n / (BLOCKS_PER_K * k), 1), 64);
  deep = std::max<int64_t>(1, std::min(deep, vectors / 8));
  while (deep > 1 && vectors / deep * L < 2 * k) deep /= 2;
  const int64_t groups = vectors / deep;
  grow(maxima, groups * L);
  __m512i low_lanes = O::set1(kMost<Int>), high_lanes = O::set1(kLeast<Int>);
  for (int64_t q = 0; q < groups; ++q) {
    const Int* from = row + q * deep * L;
    __m512i most = O::key(_mm512_loadu_si512(from));
    for (int64_t v = 1; v < deep; ++v) most = O::max(most, O::key(_mm512_loadu_si512(from + v * L)));
    _mm512_storeu_si512(maxima.data() + q * L, most);
    low_lanes = O::min(low_lanes, most), high_lanes = O::max(high_lanes, most);
  }
  alignas(64) Int lows[L];
  alignas(64) Int highs[L];
  _mm512_store_si512(lows, low_lanes);
  _mm512_store_si512(highs, high_lanes);
  int64_t low = lows[0], high = highs[0];
  for (int i = 1; i < L; ++i) low = std::min<int64_t>(low, lows[i]), high = std::max<int64_t>(high, highs[i]);
  ++high;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    const __m512i limit = O::set1(static_cast<Int>(middle));
    int64_t reached = 0;
    for (int64_t q = 0; q < groups; ++q)
      reached += __builtin_popcount(O::ge(_mm512_loadu_si512(maxima.data() + q * L), limit));
    if (reached < k) {
      high = middle;
    } else {
      low = middle;
      if (reached <= k + k / 8 + 4) break;
    }
  }
  return static_cast<Int>(low);
}

// ranks[i] = how many keys go before keys[i]: the larger ones, and equal ones that stand before it. For T
// vectors from `base`; what pads the last one is the least key and stands last, so it goes before nothing.
template <class Int, int T>
void rank_group(const Int* keys, int64_t count, int64_t base, Int* ranks, Prefetch& prefetch) {
  using O = V<Int>;
  using Mask = typename O::Mask;
  constexpr int L = O::L;
  Prefetch next = prefetch;
  __m512i mine[T], rank[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    mine[t] = _mm512_loadu_si512(keys + base + t * L);
    rank[t] = _mm512_setzero_si512();
  }
  for (int64_t j = 0; j < base; ++j) {
    const __m512i other = O::set1(keys[j]);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) rank[t] = O::count(rank[t], O::ge(other, mine[t]));
  }
#pragma GCC unroll 8
  for (int u = 0; u < T; ++u) {
    for (int lane = 0; lane < L; ++lane) {
      const __m512i other = O::set1(keys[base + u * L + lane]);
      const Mask later = static_cast<Mask>(~uint64_t{1} << lane);
      next.step();
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        Mask before;
        if (t > u)
          before = O::ge(other, mine[t]);
        else if (t < u)
          before = O::gt(other, mine[t]);
        else
          before = static_cast<Mask>(O::gt(other, mine[t]) | O::eq_in(later, other, mine[t]));
        rank[t] = O::count(rank[t], before);
      }
    }
  }
  for (int64_t j = base + T * L; j < count; ++j) {
    const __m512i other = O::set1(keys[j]);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) rank[t] = O::count(rank[t], O::gt(other, mine[t]));
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) _mm512_storeu_si512(ranks + base + t * L, rank[t]);
  prefetch = next;
}

template <class Int>
void rank_all(const Int* keys, int64_t count, Int* ranks, Prefetch& prefetch) {
  constexpr int L = V<Int>::L;
  for (int64_t base = 0; base < count; base += 8 * L) {
    switch ((count - base + L - 1) / L) {
      case 1: rank_group<Int, 1>(keys, count, base, ranks, prefetch); break;
      case 2: rank_group<Int, 2>(keys, count, base, ranks, prefetch); break;
      case 3: rank_group<Int, 3>(keys, count, base, ranks, prefetch); break;
      case 4: rank_group<Int, 4>(keys, count, base, ranks, prefetch); break;
      case 5: rank_group<Int, 5>(keys, count, base, ranks, prefetch); break;
      case 6: rank_group<Int, 6>(keys, count, base, ranks, prefetch); break;
      case 7: rank_group<Int, 7>(keys, count, base, ranks, prefetch); break;
      default: rank_group<Int, 8>(keys, count, base, ranks, prefetch); break;
    }
  }
}
#endif  // WIDE

inline uint64_t pack(int32_t key, int32_t place) {
  return uint64_t{static_cast<uint32_t>(key) ^ 0x80000000u} << 32 | static_cast<uint32_t>(~place);
}
inline int32_t key_in(uint64_t packed) { return static_cast<int32_t>(static_cast<uint32_t>(packed >> 32) ^ 0x80000000u); }

// Rows [begin, end) of one thread.
template <class Int>
void select_rows(const Int* x, int64_t n, int64_t k, Int* values, int64_t* indices, int64_t begin, int64_t end,
                 [[maybe_unused]] bool far) {
  if (begin >= end) return;
  thread_local Scratch<Int> s;
  grow(s.places, n + 128), grow(s.keys, n + 128), grow(s.ranks, n + 320), grow(s.packed, n + 128);
  int32_t* places = s.places.data();
  Int* keys = s.keys.data();
  uint64_t* packed = s.packed.data();
#if WIDE
  constexpr int64_t L = V<Int>::L;
  const bool filter = n > 256 && k <= n / 8;
  const int64_t rank_limit = 40 * L;
  const int64_t used = (n + 63) / 64, word_count = (used + 63) / 64 * 64;
  grow(s.words, word_count);
  uint64_t* words = s.words.data();
  std::fill(words + used, words + word_count, uint64_t{0});
  const double root = std::sqrt(static_cast<double>(k));
  const double target = k + MARGIN * root + 1, drop = std::log(target / k);
  const double few = k + (MARGIN - 1) * root, many = std::max(2.0 * k, target + 2 * root + 4);
  const int64_t cap = 3 * k + 64;
  bool known = false;
  double guess = 0, scale = 0;  // in keys; scale is what multiplies the survivors by e
#else
  const bool filter = false;
  const int64_t rank_limit = 0;
#endif
  for (int64_t b = begin; b < end; ++b) {
    const Int* row = x + b * n;
    int64_t found = n;
    if (!filter) {
      for (int64_t i = 0; i < n; ++i) places[i] = static_cast<int32_t>(i), keys[i] = row[i];
    }
#if WIDE
    Prefetch prefetch;
    prefetch.stride = b + 1 < end ? 64 : 0;
    prefetch.at = reinterpret_cast<const char*>(b + 1 < end ? row + n : row);
    if (b + 1 < end) prefetch.at += far ? SKIP : kNear<Int>;
    bool missed = true;
    if (filter) {
      if (known) {
        double limit = std::floor(guess);
        limit = std::min(std::max(limit, static_cast<double>(kLeast<Int>)), static_cast<double>(kMost<Int>) - 1);
        mark(row, n, static_cast<Int>(limit), words, far);
        found = extract(row, words, word_count, keys, places, cap, prefetch);
        missed = found < k || found > cap;
      } else if (n >= 4096 && k <= n / 32) {  // a quarter of the first row tells enough, as a rule
        const int64_t some = std::max<int64_t>(2, static_cast<int64_t>((k + 4 * root) / 4));
        const Int bound = bound_of_blocks(row, n / 4, some, s.maxima);
        if (bound > kLeast<Int>) {
          mark(row, n, static_cast<Int>(bound - 1), words, far);
          found = extract(row, words, word_count, keys, places, cap, prefetch);
          missed = found < k || found > cap;
        }
      }
      if (missed) {
        const Int bound = bound_of_blocks(row, n, k, s.maxima);
        bool done = false;
        if (bound > kLeast<Int>) {
          mark(row, n, static_cast<Int>(bound - 1), words, far);
          found = extract(row, words, word_count, keys, places, cap, prefetch);
          done = found >= k && found <= cap;
        }
        if (!done) {  // so many ties on the bound: take only as many as it takes
          mark(row, n, bound, words, far);
          found = extract(row, words, word_count, keys, places, n, prefetch);
          for (int64_t i = 0; found < k && i < n; ++i)
            if (key_of(row[i]) == bound) places[found] = static_cast<int32_t>(i), keys[found++] = row[i];
        }
      }
      if (known && !missed && (found < few || found > many)) guess += scale * 2.0 * (found - target) / (found + target);
    }
    const bool learns = filter && (missed || !known || (b & 3) == 0);
#endif
    int64_t ordered = found;
    if (found <= rank_limit) {
#if WIDE
      for (int64_t i = 0; i < found; i += L)
        _mm512_storeu_si512(keys + i, V<Int>::key(_mm512_loadu_si512(keys + i)));
      _mm512_storeu_si512(keys + found, V<Int>::set1(kLeast<Int>));
      const Int* ranks = s.ranks.data();
      rank_all<Int>(keys, found, s.ranks.data(), prefetch);
      for (int64_t i = 0; i < found; ++i) packed[ranks[i]] = pack(keys[i], places[i]);
#endif
    } else {
      for (int64_t i = 0; i < found; ++i) packed[i] = pack(key_of(keys[i]), places[i]);
      if (k < found) std::nth_element(packed, packed + (k - 1), packed + found, std::greater<uint64_t>());
      std::sort(packed, packed + k, std::greater<uint64_t>());
      ordered = k;
    }
    Int* __restrict out_values = values + b * k;
    int64_t* __restrict out_indices = indices + b * k;
    for (int64_t i = 0; i < k; ++i) out_values[i] = bits_of(static_cast<Int>(key_in(packed[i])));
    for (int64_t i = 0; i < k; ++i) out_indices[i] = static_cast<int64_t>(static_cast<uint32_t>(~packed[i]));
#if WIDE
    if (learns) {  // how dense the keys are around the k-th
      const int64_t half = (k + 1) / 2;
      double slope = 0;
      if (ordered > half)
        slope = (static_cast<double>(key_in(packed[half - 1])) - static_cast<double>(key_in(packed[ordered - 1]))) *
                static_cast<double>(ordered + half) / (2.0 * static_cast<double>(ordered - half));
      scale = known ? 0.75 * scale + 0.25 * slope : slope;
      if (missed || !known) guess = static_cast<double>(key_in(packed[k - 1])) - scale * drop;
      known = true;
    }
#endif
  }
}

template <class Int>
void select(ffi::TensorView x, int64_t k, ffi::TensorView out_values, ffi::TensorView out_indices) {
  const int64_t batch = x.size(0), n = x.size(1);
  if (batch <= 0 || n <= 0 || k <= 0) return;
  const auto* rows = static_cast<const Int*>(x.data_ptr());
  auto* values = static_cast<Int*>(out_values.data_ptr());
  auto* indices = static_cast<int64_t*>(out_indices.data_ptr());
  const bool far = batch * n * static_cast<int64_t>(sizeof(Int)) > (int64_t{2} << 20);  // from memory, not L3
#pragma omp parallel if (batch > 1 && batch * n > SERIAL)
  {
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    select_rows<Int>(rows, n, k, values, indices, batch * thread / threads, batch * (thread + 1) / threads, far);
  }
}

}  // namespace

void run(ffi::TensorView x, int64_t k, ffi::TensorView values, ffi::TensorView indices) {
  if (x.dtype().bits == 32) return select<int32_t>(x, k, values, indices);
  return select<int16_t>(x, k, values, indices);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
