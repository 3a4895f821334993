// Top-K by a threshold: guess the k-th largest element from a sample, and let through what lies above it.
//
// The guess is low on purpose: some more than k elements pass, and the row is read once. They go to a buffer;
// when it is full it is cut back to its k best, whose least is the threshold from then on. No misfortune
// makes it wrong: a row in ascending order is cut often, and where the guess was too high (fewer than k
// passed) the row is filtered again from the threshold that its first elements give.
#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

// tunable SAMPLE: 1024 512 2048
// tunable MARGIN: 3 2 4
// tunable BUFFER: 1024 512 2048

namespace ffi = tvm::ffi;

namespace {

constexpr int64_t kRun = 16;  // neighbours taken together into the sample: a cache line of float32

// The order of torch.topk as signed integers. Flipping the magnitude of negative numbers makes their bits
// ascend; shifting everything down by the number of NaN patterns then makes -inf the least integer, and the
// NaNs that carry a sign wrap round to the top, where the other NaNs are.
template <typename Int, int kMantissaBits>
inline Int key_of(Int bits) {
  const Int ascending = bits ^ ((bits >> (8 * sizeof(Int) - 1)) & std::numeric_limits<Int>::max());
  return static_cast<Int>(static_cast<std::make_unsigned_t<Int>>(ascending) - ((1u << kMantissaBits) - 1));
}

// Bit i tells whether keys[i] > bound, for 64 keys.
template <typename Int>
inline uint64_t above(const Int* keys, Int bound) {
  uint64_t mask = 0;
#if defined(__AVX512F__) && defined(__AVX512BW__)
  for (int i = 0; i < 64; i += 64 / sizeof(Int)) {
    const __m512i lanes = _mm512_loadu_si512(keys + i);
    if constexpr (sizeof(Int) == 4) {
      mask |= uint64_t{_mm512_cmpgt_epi32_mask(lanes, _mm512_set1_epi32(bound))} << i;
    } else {
      mask |= uint64_t{_mm512_cmpgt_epi16_mask(lanes, _mm512_set1_epi16(bound))} << i;
    }
  }
#elif defined(__AVX2__)
  const auto load = [&](int i) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys + i)); };
  if constexpr (sizeof(Int) == 4) {
    for (int i = 0; i < 64; i += 8) {
      const __m256i hit = _mm256_cmpgt_epi32(load(i), _mm256_set1_epi32(bound));
      mask |= static_cast<uint64_t>(_mm256_movemask_ps(_mm256_castsi256_ps(hit))) << i;
    }
  } else {
    for (int i = 0; i < 64; i += 32) {  // packing works by halves: the permutation puts the quarters in order
      const __m256i low = _mm256_cmpgt_epi16(load(i), _mm256_set1_epi16(bound));
      const __m256i high = _mm256_cmpgt_epi16(load(i + 16), _mm256_set1_epi16(bound));
      const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(low, high), 0b11011000);
      mask |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(bytes))} << i;
    }
  }
#else
  for (int i = 0; i < 64; ++i) mask |= uint64_t{keys[i] > bound} << i;
#endif
  return mask;
}

// A bound that `rank` keys of the sample reach, or an eighth more. Bisection by counting has no branch that
// depends on a single key, so it vectorises where a selection would mispredict.
inline int32_t reached_by(const int32_t (&sample)[SAMPLE], int32_t rank) {
  int64_t low = std::numeric_limits<int32_t>::min(), high = int64_t{std::numeric_limits<int32_t>::max()} + 1;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    int32_t reached = 0;
    for (int i = 0; i < SAMPLE; ++i) reached += sample[i] >= static_cast<int32_t>(middle);
    (reached < rank ? high : low) = middle;
    if (reached >= rank && reached <= rank + rank / 8) break;
  }
  return static_cast<int32_t>(low);
}

// One integer that orders by key and remembers the place in the row (of less than 2^32 elements).
inline int64_t entry_of(int32_t key, int64_t place) { return int64_t{key} * (int64_t{1} << 32) + place; }
inline int32_t key_in(int64_t entry) { return static_cast<int32_t>(entry >> 32); }
inline int64_t place_in(int64_t entry) { return entry & 0xffffffff; }

template <typename Int, int kMantissaBits>
class Filter {
 public:
  Filter(const Int* row, int64_t n, int64_t k) : row_(row), n_(n), k_(k) {
    thread_local std::vector<int64_t> buffer;
    buffer.resize(std::max<int64_t>(BUFFER, 2 * k) + 64);  // a block of 64 always fits on top
    kept_ = buffer.data(), room_ = static_cast<int64_t>(buffer.size()) - 64;
  }

  // The k best, in descending order.
  const int64_t* best() {
    if (n_ >= 2 * SAMPLE && n_ >= 8 * k_) filter(0, guess());
    if (found_ < k_) {
      found_ = 0;
      const int64_t start = std::min(n_, room_);
      for (int64_t i = 0; i < start; ++i) keep(i);
      if (start < n_) filter(start, cut());
    }
    cut();
    std::sort(kept_, kept_ + k_, std::greater<int64_t>());
    return kept_;
  }

 private:
  static Int key(Int bits) { return key_of<Int, kMantissaBits>(bits); }
  void keep(int64_t i) { kept_[found_++] = entry_of(key(row_[i]), i); }

  // Leaves the k best in the buffer; the least of them is the bound that others have to beat.
  Int cut() {
    std::nth_element(kept_, kept_ + (k_ - 1), kept_ + found_, std::greater<int64_t>());
    found_ = k_;
    return static_cast<Int>(key_in(kept_[k_ - 1]));
  }

  // The sample holds r of the k largest, give or take sqrt(r): its element of rank r + MARGIN * sqrt(r) is
  // most likely no larger than the k-th largest of the row. One less lets its equals through, should they be
  // many.
  Int guess() const {
    const int64_t runs = SAMPLE / kRun, stride = n_ / runs;
    int32_t sample[SAMPLE];
    for (int64_t r = 0; r < runs; ++r)
      for (int64_t j = 0; j < kRun; ++j) sample[r * kRun + j] = key(row_[r * stride + j]);
    const double expected = static_cast<double>(k_) * SAMPLE / n_;
    const auto rank = static_cast<int32_t>(expected + MARGIN * std::sqrt(expected) + 1);
    return static_cast<Int>(std::max<int64_t>(reached_by(sample, rank) - int64_t{1}, kLeast));
  }

  // Keeps what lies above the bound, from `begin` on.
  void filter(int64_t begin, Int bound) {
    int64_t i = begin;
    for (; i + 64 <= n_; i += 64) {
      Int keys[64];
      for (int64_t j = 0; j < 64; ++j) keys[j] = key(row_[i + j]);
      for (uint64_t hits = above(keys, bound); hits; hits &= hits - 1) keep(i + __builtin_ctzll(hits));
      if (found_ > room_) bound = cut();
    }
    for (; i < n_; ++i)
      if (key(row_[i]) > bound) keep(i);
  }

  static constexpr Int kLeast = std::numeric_limits<Int>::min();
  const Int* row_;
  int64_t n_, k_;
  int64_t* kept_;
  int64_t room_, found_ = 0;
};

template <typename Int, int kMantissaBits>
void select_row(const Int* row, int64_t n, int64_t k, Int* values, int64_t* indices) {
  const int64_t* best = Filter<Int, kMantissaBits>(row, n, k).best();
  for (int64_t slot = 0; slot < k; ++slot) {
    indices[slot] = place_in(best[slot]);
    values[slot] = row[indices[slot]];
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
