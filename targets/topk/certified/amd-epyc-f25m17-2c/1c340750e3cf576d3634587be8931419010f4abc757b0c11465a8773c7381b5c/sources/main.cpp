#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <limits>
#include <type_traits>
#include <vector>
#if defined(__AVX512F__) && defined(__AVX512BW__)
#include <immintrin.h>
#define HAVE_512 1
#endif

namespace ffi = tvm::ffi;

// tunable MARGIN: 3 2 4
// tunable RANK_TILE: 4 2 8
// tunable THREAD_BYTES: 131072 524288 4194304

namespace {

constexpr int64_t kRankLimit = 512, kBlocksPerK = 2;

template <typename S, int kMant>
struct Type {
  using Signed = S;
  static constexpr int kBits = 8 * sizeof(S);
  static constexpr S kMax = std::numeric_limits<S>::max();
  static constexpr S kMin = std::numeric_limits<S>::min();
  static constexpr int32_t kNan = (1 << kMant) - 1;
  // Signed integers in torch.topk's order: -inf is the smallest, every NaN above +inf.
  static inline S key(S x) {
    using U = typename std::make_unsigned<S>::type;
    const U flip = static_cast<U>(static_cast<U>(x >> (kBits - 1)) & static_cast<U>(kMax));
    return static_cast<S>(static_cast<U>((static_cast<U>(x) ^ flip) - static_cast<U>(kNan)));
  }
};

struct Scratch {
  std::vector<uint64_t> entries, winners, masks;
  std::vector<int32_t> place, keys, rank, used, order, groups;
  std::vector<char> maxima;
  int64_t guess = -1;  // of this call, see guessed_row
  int misses = 0, pause = 0;
};

// Radix select over s.entries: digits of eight bits from the top, the entries above the digit of the k-th are
// winners, its equals are looked at again. Of equal keys any will do. Then the winners are sorted.
template <class T>
void emit_sorted(const typename T::Signed* row, int64_t count, int64_t k, Scratch& s, typename T::Signed* values,
                 int64_t* indices) {
  if (static_cast<int64_t>(s.winners.size()) < k) s.winners.resize(k);
  uint64_t* open = s.entries.data();
  uint64_t* won = s.winners.data();
  int64_t wins = 0, wanted = k;
  for (int shift = 56; wanted < count && shift >= 32; shift -= 8) {
    uint32_t counts[256] = {};
    for (int64_t i = 0; i < count; ++i) ++counts[open[i] >> shift & 255];
    int digit = 255;
    for (; wanted > static_cast<int64_t>(counts[digit]); --digit) wanted -= counts[digit];
    int64_t kept = 0;
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t e = open[i];
      const int d = static_cast<int>(e >> shift & 255);
      if (d > digit) won[wins++] = e;
      open[kept] = e;
      kept += d == digit;
    }
    count = kept;
  }
  for (int64_t i = 0; i < wanted; ++i) won[wins++] = open[i];
  std::sort(won, won + k, std::greater<uint64_t>());
  for (int64_t i = 0; i < k; ++i) {
    const int64_t at = static_cast<int64_t>(~static_cast<uint32_t>(won[i]) & 0xffffffffu);
    indices[i] = at;
    values[i] = row[at];
  }
}

inline uint64_t entry_of(int32_t key, int64_t at) {
  return static_cast<uint64_t>(static_cast<uint32_t>(key) ^ 0x80000000u) << 32 | static_cast<uint32_t>(~static_cast<uint32_t>(at));
}

template <class T>
inline int32_t lift(typename T::Signed x) {  // the key, in the upper bits: leading digits that tell apart
  return static_cast<int32_t>(static_cast<uint32_t>(static_cast<int32_t>(T::key(x))) << (32 - T::kBits));
}

template <class T>
void general_row(const typename T::Signed* row, int64_t n, int64_t k, Scratch& s, typename T::Signed* values,
                 int64_t* indices) {
  if (static_cast<int64_t>(s.entries.size()) < n) s.entries.resize(n);
  for (int64_t i = 0; i < n; ++i) s.entries[i] = entry_of(lift<T>(row[i]), i);
  emit_sorted<T>(row, n, k, s, values, indices);
}

#ifdef HAVE_512
template <class T, bool kWide = sizeof(typename T::Signed) == 4>
struct Ops;

template <class T>
struct Ops<T, true> {
  static constexpr int L = 16;
  static inline __m512i load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static inline __m512i load_some(const int32_t* p, uint64_t m) { return _mm512_maskz_loadu_epi32(static_cast<__mmask16>(m), p); }
  static inline __m512i fill(__m512i v, uint64_t m) { return _mm512_mask_mov_epi32(_mm512_set1_epi32(T::kMin), static_cast<__mmask16>(m), v); }
  static inline __m512i set1(int32_t v) { return _mm512_set1_epi32(v); }
  static inline __m512i max(__m512i a, __m512i b) { return _mm512_max_epi32(a, b); }
  static inline __m512i maxu(__m512i a, __m512i b) { return _mm512_max_epu32(a, b); }
  static inline uint64_t ge(__m512i a, __m512i b) { return _mm512_cmpge_epi32_mask(a, b); }
  static inline uint64_t gtu(__m512i a, __m512i b) { return _mm512_cmpgt_epu32_mask(a, b); }
  static inline __m512i low(__m512i a, __m512i b) { return _mm512_unpacklo_epi32(a, b); }
  static inline __m512i high(__m512i a, __m512i b) { return _mm512_unpackhi_epi32(a, b); }
  static inline __m512i key(__m512i x) {
    const __m512i flip = _mm512_srli_epi32(_mm512_srai_epi32(x, 31), 1);
    return _mm512_sub_epi32(_mm512_xor_si512(x, flip), _mm512_set1_epi32(T::kNan));
  }
};
template <class T>
struct Ops<T, false> {
  static constexpr int L = 32;
  static inline __m512i load(const int16_t* p) { return _mm512_loadu_si512(p); }
  static inline __m512i load_some(const int16_t* p, uint64_t m) { return _mm512_maskz_loadu_epi16(static_cast<__mmask32>(m), p); }
  static inline __m512i fill(__m512i v, uint64_t m) { return _mm512_mask_mov_epi16(_mm512_set1_epi16(T::kMin), static_cast<__mmask32>(m), v); }
  static inline __m512i set1(int16_t v) { return _mm512_set1_epi16(v); }
  static inline __m512i max(__m512i a, __m512i b) { return _mm512_max_epi16(a, b); }
  static inline __m512i maxu(__m512i a, __m512i b) { return _mm512_max_epu16(a, b); }
  static inline uint64_t ge(__m512i a, __m512i b) { return _mm512_cmpge_epi16_mask(a, b); }
  static inline uint64_t gtu(__m512i a, __m512i b) { return _mm512_cmpgt_epu16_mask(a, b); }
  static inline __m512i low(__m512i a, __m512i b) { return _mm512_unpacklo_epi16(a, b); }
  static inline __m512i high(__m512i a, __m512i b) { return _mm512_unpackhi_epi16(a, b); }
  static inline __m512i key(__m512i x) {
    const __m512i flip = _mm512_srli_epi16(_mm512_srai_epi16(x, 15), 1);
    return _mm512_sub_epi16(_mm512_xor_si512(x, flip), _mm512_set1_epi16(static_cast<int16_t>(T::kNan)));
  }
};

// Fetches 0 more lines of what will be read next.
inline void pump(const char*& next) {
  for (int i = 0; i < 0; ++i, next += 64) _mm_prefetch(next, _MM_HINT_T1);
}

template <class T>
void rank_and_emit(const char* next, const typename T::Signed* row, int64_t count, int64_t k, bool unique, Scratch& s,
                   typename T::Signed* values, int64_t* indices) {
  const int32_t* keys = s.keys.data();
  int32_t* rank = s.rank.data();
  for (int64_t i = 0; i < count; i += 16 * RANK_TILE) {
    __m512i mine[RANK_TILE], above[RANK_TILE];
#pragma GCC unroll 8
    for (int q = 0; q < RANK_TILE; ++q) {
      mine[q] = _mm512_loadu_si512(keys + i + 16 * q);
      above[q] = _mm512_setzero_si512();
    }
    const __m512i one = _mm512_set1_epi32(1);
    for (int64_t j = 0; j < count; ++j) {
      const __m512i other = _mm512_set1_epi32(keys[j]);
      pump(next);
#pragma GCC unroll 8
      for (int q = 0; q < RANK_TILE; ++q)
        above[q] = _mm512_mask_add_epi32(above[q], _mm512_cmpgt_epi32_mask(other, mine[q]), above[q], one);
    }
#pragma GCC unroll 8
    for (int q = 0; q < RANK_TILE; ++q) _mm512_storeu_si512(rank + i + 16 * q, above[q]);
  }
  // Every survivor gets a slot of its own, those beyond k too: no branch.
  int32_t* order = s.order.data();
  const int32_t* place = s.place.data();
  if (unique) {
    for (int64_t i = 0; i < count; ++i) order[rank[i]] = place[i];
  } else {
    int32_t* used = s.used.data();
    std::memset(used, 0, sizeof(int32_t) * count);
    for (int64_t i = 0; i < count; ++i) order[rank[i] + used[rank[i]]++] = place[i];
  }
  for (int64_t slot = 0; slot < k; ++slot) {
    indices[slot] = order[slot];
    values[slot] = row[order[slot]];
  }
}

// How many should pass: k and MARGIN deviations more.
inline int64_t aim_of(int64_t k) { return k + static_cast<int64_t>(MARGIN * std::sqrt(static_cast<double>(k))) + 1; }

// The bound to try on the next row, from the `count` ordered survivors of this one.
template <class T>
void guess_from(const typename T::Signed* row, int64_t count, int64_t k, Scratch& s) {
  const int64_t aim = aim_of(k);
  if (count >= aim) {
    s.guess = row[s.order[aim - 1]];
    return;
  }
  const int64_t last = row[s.order[count - 1]], step = int64_t{row[s.order[k - 1]]} - last;
  s.guess = std::max<int64_t>(0, last - step * (aim - count) / (count - k + 1) - (T::kBits == 32 ? 4096 : 1));
}

// Maxima of contiguous groups of V vectors, L groups at a time: instead of L horizontal reductions one tree that
// reduces and transposes, three instructions a group, whose lane i is the maximum of group i.
template <class T, bool kRaw, int V>
class Groups {
  using S = typename T::Signed;
  using O = Ops<T>;
  static constexpr int L = O::L;
  static constexpr int64_t kSize = int64_t{V} * L;

 public:
  Groups(const S* row, int64_t n) : row_(row), n_(n), guard_(_mm512_setzero_si512()) {}

  // Of the groups from g on.
  inline __m512i maxima(int64_t g) {
    return (g + L) * kSize <= n_ ? all<true>(g) : all<false>(g);
  }
  __m512i guard() const { return guard_; }

 private:
  static inline __attribute__((always_inline)) __m512i merge(__m512i a, __m512i b) { return O::max(O::low(a, b), O::high(a, b)); }

  template <bool kWhole>
  inline __attribute__((always_inline)) __m512i one(int64_t g) {
    const S* p = row_ + g * kSize;
    __m512i most = O::set1(T::kMin);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      uint64_t m = 0;
      __m512i x;
      if (kWhole) {
        x = O::load(p + v * L);
      } else {
        const int64_t left = n_ - g * kSize - v * L;
        m = left >= L ? (uint64_t{1} << L) - 1 : left > 0 ? (uint64_t{1} << left) - 1 : 0;
        x = O::load_some(p + v * L, m);
      }
      if (kRaw) guard_ = O::maxu(guard_, x);
      else x = O::key(x);
      if (!kWhole) x = O::fill(x, m);
      most = v == 0 ? x : O::max(most, x);
    }
    return most;
  }

  // Each 128 bits hold parts of the maxima of the same few groups, in order (they go in bit-reversed).
  template <bool kWhole>
  inline __attribute__((always_inline)) __m512i few(int64_t g) {
    if constexpr (L == 16) {
      const __m512i a = merge(one<kWhole>(g), one<kWhole>(g + 2));
      return merge(a, merge(one<kWhole>(g + 1), one<kWhole>(g + 3)));
    } else {
      const __m512i a = merge(one<kWhole>(g), one<kWhole>(g + 4));
      const __m512i b = merge(a, merge(one<kWhole>(g + 2), one<kWhole>(g + 6)));
      const __m512i c = merge(one<kWhole>(g + 1), one<kWhole>(g + 5));
      return merge(b, merge(c, merge(one<kWhole>(g + 3), one<kWhole>(g + 7))));
    }
  }

  template <bool kWhole>
  inline __m512i all(int64_t g) {
    constexpr int kFew = L / 4;
    const __m512i a = few<kWhole>(g), b = few<kWhole>(g + kFew);
    const __m512i ab = O::max(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee));
    const __m512i c = few<kWhole>(g + 2 * kFew), d = few<kWhole>(g + 3 * kFew);
    const __m512i cd = O::max(_mm512_shuffle_i64x2(c, d, 0x44), _mm512_shuffle_i64x2(c, d, 0xee));
    return O::max(_mm512_shuffle_i64x2(ab, cd, 0x88), _mm512_shuffle_i64x2(ab, cd, 0xdd));
  }

  const S* row_;
  int64_t n_;
  __m512i guard_;
};

// False: the raw order of bits isn't enough (negatives among the winners, NaNs with a sign).
template <class T, bool kRaw, int V>
bool groups_row(const char* next, const typename T::Signed* row, int64_t n, int64_t k, Scratch& s,
                typename T::Signed* values, int64_t* indices) {
  using S = typename T::Signed;
  using O = Ops<T>;
  constexpr int L = O::L;
  constexpr int64_t kSize = int64_t{V} * L;
  const int64_t groups = (n + kSize - 1) / kSize, vectors = (groups + L - 1) / L;
  char* base = s.maxima.data();
  base += (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
  __m512i* maxima = reinterpret_cast<__m512i*>(base);
  Groups<T, kRaw, V> pass(row, n);
  __m512i top = O::set1(T::kMin);
  for (int64_t b = 0; b < vectors; ++b) {
    const __m512i most = pass.maxima(b * L);
    _mm512_store_si512(maxima + b, most);
    top = O::max(top, most);
  }
  constexpr S kMinusInf = static_cast<S>(T::kBits == 32 ? int64_t{0xff800000} : int64_t{0xffff} << (T::kNan == 0x7f ? 7 : 10));
  if (kRaw && O::gtu(pass.guard(), O::set1(kMinusInf))) return false;
  const auto reaches = [&](int64_t key) {
    const __m512i at = O::set1(static_cast<S>(key));
    int64_t reach = 0;
    for (int64_t b = 0; b < vectors; ++b) reach += __builtin_popcountll(O::ge(maxima[b], at));
    return reach;
  };
  int64_t lo = kRaw ? 0 : int64_t{T::kMin};
  if (kRaw && reaches(0) < k) return false;
  const int64_t least = kRaw && reaches(0) >= aim_of(k) && groups >= 2 * aim_of(k) ? aim_of(k) : k;
  alignas(64) S lanes[L];
  _mm512_store_si512(lanes, top);
  int64_t hi = *std::max_element(lanes, lanes + L) + int64_t{1};
  while (hi - lo > 1) {
    const int64_t middle = lo + (hi - lo) / 2, reach = reaches(middle);
    (reach < least ? hi : lo) = middle;
    if (reach >= least && reach <= least + (least >> 3)) break;
  }
  const __m512i bound = O::set1(static_cast<S>(lo));
  int32_t* list = s.groups.data();
  int64_t listed = 0;
  const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t b = 0; b < vectors; ++b) {
    const uint64_t hit = O::ge(maxima[b], bound);
    for (int h = 0; h < L; h += 16) {
      const __mmask16 some = static_cast<__mmask16>(hit >> h);
      const __m512i ids = _mm512_add_epi32(iota, _mm512_set1_epi32(static_cast<int32_t>(b * L + h)));
      _mm512_storeu_si512(list + listed, _mm512_maskz_compress_epi32(some, ids));
      listed += __builtin_popcount(some);
    }
  }
  int32_t* place = s.place.data();
  int64_t count = 0;
  for (int64_t h = 0; h < listed; ++h) {
    const int64_t at = int64_t{list[h]} * kSize;
    pump(next);
    uint64_t hits = 0;
    if (at + kSize <= n) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        __m512i x = O::load(row + at + v * L);
        if (!kRaw) x = O::key(x);
        hits |= O::ge(x, bound) << (v * L);
      }
    } else {
      for (int64_t i = at; i < n; ++i) hits |= uint64_t{(kRaw ? row[i] : T::key(row[i])) >= lo} << (i - at);
      if (!hits) continue;
    }
    place[count++] = static_cast<int32_t>(at + __builtin_ctzll(hits));  // a listed group has one
    for (hits &= hits - 1; hits; hits &= hits - 1) place[count++] = static_cast<int32_t>(at + __builtin_ctzll(hits));
  }
  if (count <= kRankLimit) {
    int32_t* keys = s.keys.data();
    const bool packed = T::kBits == 16 && n <= 65536;
    if (packed)
      for (int64_t i = 0; i < count; ++i)
        keys[i] = static_cast<int32_t>(static_cast<uint32_t>(lift<T>(row[place[i]])) | (65535u - static_cast<uint32_t>(place[i])));
    else
      for (int64_t i = 0; i < count; ++i) keys[i] = lift<T>(row[place[i]]);
    rank_and_emit<T>(next, row, count, k, packed, s, values, indices);
    if (kRaw) guess_from<T>(row, count, k, s);
  } else {
    if (static_cast<int64_t>(s.entries.size()) < count) s.entries.resize(count);
    for (int64_t i = 0; i < count; ++i) s.entries[i] = entry_of(lift<T>(row[place[i]]), place[i]);
    emit_sorted<T>(row, count, k, s, values, indices);
  }
  return true;
}

// One pass with the bound that the previous row of this call suggests; counting confirms or refutes it. The pass only
// compares and keeps the masks of hits (2 KiB for 16384 elements), so no element is looked at again but the hits.
// False if the guess won't do, whatever the reason: the caller has an exact way.
template <class T>
bool guessed_row(const typename T::Signed* row, int64_t n, int64_t k, Scratch& s, typename T::Signed* values,
                 int64_t* indices) {
  using S = typename T::Signed;
  using O = Ops<T>;
  constexpr int L = O::L, kVectors = 64 / L;
  const int64_t lo = s.guess;
  const __m512i bound = O::set1(static_cast<S>(lo));
  __m512i guard = _mm512_setzero_si512();
  const int64_t whole = n / 64, groups = (n + 63) / 64;
  uint64_t* masks = s.masks.data();
  for (int64_t g = 0; g < whole; ++g) {
    uint64_t hits = 0;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const __m512i x = O::load(row + g * 64 + v * L);
      guard = O::maxu(guard, x);
      hits |= O::ge(x, bound) << (v * L);
    }
    masks[g] = hits;
  }
  for (int64_t g = whole; g < (groups + 7) / 8 * 8; ++g) {
    masks[g] = 0;
    for (int64_t i = g * 64; i < std::min(n, g * 64 + 64); ++i) {
      masks[g] |= uint64_t{row[i] >= lo} << (i - g * 64);
      if (row[i] < 0) guard = O::maxu(guard, O::set1(row[i]));
    }
  }
  constexpr S kMinusInf = static_cast<S>(T::kBits == 32 ? int64_t{0xff800000} : int64_t{0xffff} << (T::kNan == 0x7f ? 7 : 10));
  if (O::gtu(guard, O::set1(kMinusInf))) return false;

  int32_t* list = s.groups.data();
  int64_t listed = 0;
  const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int64_t g = 0; g < groups; g += 8) {
    const __m512i eight = _mm512_loadu_si512(masks + g);
    const __mmask8 some = _mm512_test_epi64_mask(eight, eight);
    const __m512i ids = _mm512_add_epi32(iota, _mm512_set1_epi32(static_cast<int32_t>(g)));
    _mm512_storeu_si512(list + listed, _mm512_maskz_compress_epi32(some, ids));
    listed += __builtin_popcount(some);
  }
  int64_t count = 0;
  for (int64_t h = 0; h < listed; ++h) count += __builtin_popcountll(masks[list[h]]);
  if (count < k || count > kRankLimit) return false;
  int32_t* place = s.place.data();
  count = 0;
  for (int64_t h = 0; h < listed; ++h) {
    uint64_t hits = masks[list[h]];
    const int32_t at = list[h] * 64;
    place[count++] = at + static_cast<int32_t>(__builtin_ctzll(hits));
    for (hits &= hits - 1; hits; hits &= hits - 1) place[count++] = at + static_cast<int32_t>(__builtin_ctzll(hits));
  }
  int32_t* keys = s.keys.data();
  for (int64_t i = 0; i < count; ++i) keys[i] = lift<T>(row[place[i]]);
  const bool packed = T::kBits == 16 && n <= 65536;
  if (packed)
    for (int64_t i = 0; i < count; ++i) keys[i] |= 65535 - place[i];
  rank_and_emit<T>(reinterpret_cast<const char*>(row + n), row, count, k, packed, s, values, indices);
  guess_from<T>(row, count, k, s);
  return true;
}

template <class T, int V>
void groups_rows(const typename T::Signed* row, int64_t n, int64_t k, Scratch& s, typename T::Signed* values,
                 int64_t* indices) {
  if (V * Ops<T>::L == 64 && s.guess >= 0) {
    if (s.pause > 0) {
      --s.pause;  // rows that differ too much: the exact way costs one pass, a refuted guess two
    } else if (guessed_row<T>(row, n, k, s, values, indices)) {
      s.misses = 0;
      return;
    } else if (++s.misses >= 2) {
      s.pause = 16;
    }
  }
  s.guess = -1;
  const char* next = reinterpret_cast<const char*>(row + n);
  if (!groups_row<T, true, V>(next, row, n, k, s, values, indices))
    groups_row<T, false, V>(next, row, n, k, s, values, indices);
}
#endif

template <class T>
void select(ffi::TensorView x, int64_t k, ffi::TensorView out_values, ffi::TensorView out_indices) {
  using S = typename T::Signed;
  const int64_t batch = x.size(0), n = x.size(1);
  if (k <= 0 || batch <= 0) return;
  const auto* rows = static_cast<const S*>(x.data_ptr());
  auto* values = static_cast<S*>(out_values.data_ptr());
  auto* indices = static_cast<int64_t*>(out_indices.data_ptr());
#pragma omp parallel if (batch > 1 && batch * n * int64_t{sizeof(S)} >= THREAD_BYTES)
  {
    thread_local Scratch s;
    s.guess = -1, s.misses = s.pause = 0;
#ifdef HAVE_512
    constexpr int L = Ops<T>::L;
    int64_t V = 64 / L;  // vectors of a group: fewer where the row has too few groups for k
    while (V > 1 && n < V * L * k * kBlocksPerK) V /= 2;
    const bool grouped = n >= 256 && n >= V * L * k * kBlocksPerK;
    if (grouped) {
      if (static_cast<int64_t>(s.place.size()) < n + 64) s.place.resize(n + 64), s.groups.resize(n / L + 128), s.masks.resize(n / 64 + 16);
      if (s.maxima.size() < static_cast<size_t>(n / L + 256) * sizeof(S)) s.maxima.resize(static_cast<size_t>(n / L + 256) * sizeof(S));
      if (s.keys.empty())
        for (auto* each : {&s.keys, &s.rank, &s.used, &s.order}) each->resize(kRankLimit + 16 * RANK_TILE);
    }
#endif
#pragma omp for schedule(static)
    for (int64_t b = 0; b < batch; ++b) {
      const S* row = rows + b * n;
      S* v = values + b * k;
      int64_t* at = indices + b * k;
#ifdef HAVE_512
      if (grouped) {
        if (V == 1) groups_rows<T, 1>(row, n, k, s, v, at);
        else if (V == 2) groups_rows<T, 2>(row, n, k, s, v, at);
        else if constexpr (L == 16) groups_rows<T, 4>(row, n, k, s, v, at);
        continue;
      }
#endif
      general_row<T>(row, n, k, s, v, at);
    }
  }
}

}  // namespace

void run(ffi::TensorView x, int64_t k, ffi::TensorView values, ffi::TensorView indices) {
  if (x.dtype().bits == 32) return select<Type<int32_t, 23>>(x, k, values, indices);
  if (x.dtype().code == kDLBfloat) return select<Type<int16_t, 7>>(x, k, values, indices);
  return select<Type<int16_t, 10>>(x, k, values, indices);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);
