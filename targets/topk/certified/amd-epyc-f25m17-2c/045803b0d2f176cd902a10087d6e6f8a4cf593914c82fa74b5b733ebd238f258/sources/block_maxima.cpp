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

// tunable BLOCK: 64 16 32 128
// tunable BLOCKS_PER_K: 2 3 4
// tunable RANK_TILE: 32 16 64

namespace ffi = tvm::ffi;

namespace {

static_assert(BLOCK >= 16 && (BLOCK & (BLOCK - 1)) == 0, "BLOCK must be a power of two, at least 16");
constexpr int64_t kRankLimit = 1024;  // beyond it, comparing all pairs costs more than sorting

struct Scratch {
  std::vector<int32_t> maxima, keys, order, taken;  // keys[i] belongs to the element at places[i]
  std::vector<int64_t> places;
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

// A bound that at least k keys reach, and an eighth more at most (unless they tie). Bisection by counting has
// no branch that depends on a single key, so it vectorises where a selection would mispredict.
int32_t bound_of(const int32_t* keys, int64_t count, int64_t k) {
  int32_t least = keys[0], most = keys[0];
  for (int64_t i = 0; i < count; ++i) least = std::min(least, keys[i]), most = std::max(most, keys[i]);
  int64_t low = least, high = int64_t{most} + 1;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    int32_t reached = 0;
    for (int64_t i = 0; i < count; ++i) reached += keys[i] >= static_cast<int32_t>(middle);
    (reached < k ? high : low) = middle;
    if (reached >= k && reached <= k + k / 8) break;
  }
  return static_cast<int32_t>(low);
}

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
  s.maxima.resize(blocks + 64), s.keys.resize(n + RANK_TILE), s.places.resize(n);
  for (int64_t b = 0; b < blocks; ++b) {
    const Int* block = row + b * kBlock;
    Int most = std::numeric_limits<Int>::min();
    // Said outright, or gcc unrolls this loop and vectorises across blocks, transposing all it loads.
#pragma omp simd reduction(max : most)
    for (int64_t i = 0; i < kBlock; ++i) most = std::max(most, key(block[i]));
    s.maxima[b] = most;
  }
  std::fill_n(s.maxima.begin() + blocks, 64, std::numeric_limits<int32_t>::min());  // read 64 at a time below

  const int32_t bound = bound_of(s.maxima.data(), blocks, k);
  int64_t found = 0;
  const auto append = [&](int64_t i) { s.keys[found] = key(row[i]), s.places[found++] = i; };
  for (int64_t b0 = 0; b0 < blocks; b0 += 64) {
    for (uint64_t hits = above<64>(&s.maxima[b0], bound); hits; hits &= hits - 1) {
      const int64_t begin = (b0 + __builtin_ctzll(hits)) * kBlock;
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
  for (int64_t b = 0; found < k; ++b) {  // ties; the bound promises that there are enough
    if (b < blocks && s.maxima[b] < bound) continue;
    for (int64_t i = b * kBlock; i < std::min(n, (b + 1) * kBlock) && found < k; ++i)
      if (key(row[i]) == bound) append(i);
  }
  return found;
}

template <typename Int, int kMantissaBits>
void select_row(const Int* row, int64_t n, int64_t k, Int* values, int64_t* indices) {
  thread_local Scratch s;
  const int64_t found = gather<Int, kMantissaBits, BLOCK>(row, n, k, s);
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

template <typename Int, int kMantissaBits>
void select(ffi::TensorView x, int64_t k, ffi::TensorView out_values, ffi::TensorView out_indices) {
  const int64_t batch = x.size(0), n = x.size(1);
  const auto* rows = static_cast<const Int*>(x.data_ptr());
  auto* values = static_cast<Int*>(out_values.data_ptr());
  auto* indices = static_cast<int64_t*>(out_indices.data_ptr());
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < batch; ++b)
    select_row<Int, kMantissaBits>(rows + b * n, n, k, values + b * k, indices + b * k);
}

}  // namespace

void run(ffi::TensorView x, int64_t k, ffi::TensorView values, ffi::TensorView indices) {
  if (x.dtype().bits == 32) return select<int32_t, 23>(x, k, values, indices);
  if (x.dtype().code == kDLBfloat) return select<int16_t, 7>(x, k, values, indices);
  return select<int16_t, 10>(x, k, values, indices);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
