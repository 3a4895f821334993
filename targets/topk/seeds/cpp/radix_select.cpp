// Top-K by radix select: count the elements by the leading digit of an order-preserving key, find the digit in
// which the k-th largest falls, keep what lies above it, and go on among its equals with the next digit.
//
// The work doesn't depend on k, on the order of the row or on luck: two passes over the row for the first digit,
// and then a few elements, fewer by the size of the radix with every digit.
#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

// tunable RADIX_BITS: 11 8 10 12
// tunable HISTOGRAMS: 4 2 1
// tunable BLOCK: 32 16 64
// tunable SCHEDULE: static dynamic guided

namespace ffi = tvm::ffi;

constexpr int kBuckets = 1 << RADIX_BITS;

// The order of torch.topk as unsigned integers: the bits of positive numbers get a leading one, those of negative
// numbers are inverted. Shifting everything down by the number of NaN patterns then makes -inf zero, and the NaNs
// that carry a sign wrap round to the top, where the other NaNs are.
template <typename UInt, int kMantissaBits>
inline UInt key_of(UInt bits) {
  constexpr int kSign = 8 * sizeof(UInt) - 1;
  const UInt negative = static_cast<UInt>(-(bits >> kSign));
  const UInt ascending = bits ^ (negative | UInt(UInt{1} << kSign));
  return static_cast<UInt>(ascending - ((1u << kMantissaBits) - 1));
}

struct Scratch {
  std::vector<uint32_t> counts = std::vector<uint32_t>(HISTOGRAMS * kBuckets);
  std::vector<uint64_t> winners, open, next;  // key above place: open ones may still win

  void clear() {
    std::fill(counts.begin(), counts.end(), 0);
    winners.clear(), open.clear(), next.clear();
  }
};

// The digit in which the element of rank `wanted` from the top falls; `wanted` becomes its rank within that digit.
inline uint32_t digit_of_rank(const std::vector<uint32_t>& counts, int64_t& wanted) {
  for (uint32_t digit = kBuckets - 1;; --digit) {
    int64_t here = 0;
    for (int h = 0; h < HISTOGRAMS; ++h) here += counts[h * kBuckets + digit];
    if (wanted <= here) return digit;
    wanted -= here;
  }
}

template <typename UInt, int kMantissaBits>
void select_row(const UInt* row, int64_t n, int64_t k, UInt* values, int64_t* indices) {
  constexpr auto key = key_of<UInt, kMantissaBits>;
  constexpr int kBits = 8 * sizeof(UInt), kFirstShift = kBits - RADIX_BITS;
  thread_local Scratch s;
  s.clear();

  // Neighbours often share a digit, and a counter can't be raised twice in a row without waiting for its own
  // store: neighbours count in histograms of their own.
  for (int64_t i = 0; i < n; ++i) ++s.counts[i % HISTOGRAMS * kBuckets + (key(row[i]) >> kFirstShift)];
  int64_t wanted = k;
  const UInt least = static_cast<UInt>(digit_of_rank(s.counts, wanted) << kFirstShift);
  const auto file = [&](int64_t i) {
    const UInt own = key(row[i]);
    if (own < least) return;
    const bool above = (own >> kFirstShift) > (least >> kFirstShift);
    (above ? s.winners : s.open).push_back(uint64_t{own} << 32 | static_cast<uint64_t>(i));
  };
  int64_t i = 0;
  for (; i + BLOCK <= n; i += BLOCK) {
    UInt most = 0;
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < BLOCK; ++j) most = std::max(most, key(row[i + j]));
    for (int64_t j = 0; most >= least && j < BLOCK; ++j) file(i + j);
  }
  for (; i < n; ++i) file(i);

  for (int shift = kFirstShift; shift > 0 && wanted < static_cast<int64_t>(s.open.size());) {
    const int bits = std::min(shift, RADIX_BITS);
    shift -= bits;
    const auto digit = [&](uint64_t entry) { return static_cast<uint32_t>(entry >> (32 + shift)) & ((1u << bits) - 1); };
    std::fill(s.counts.begin(), s.counts.end(), 0);
    for (uint64_t entry : s.open) ++s.counts[digit(entry)];
    const uint32_t split = digit_of_rank(s.counts, wanted);
    s.next.clear();
    for (uint64_t entry : s.open) {
      if (digit(entry) >= split) (digit(entry) > split ? s.winners : s.next).push_back(entry);
    }
    s.open.swap(s.next);
  }
  s.winners.insert(s.winners.end(), s.open.begin(), s.open.begin() + wanted);  // any of equals will do

  std::sort(s.winners.begin(), s.winners.end(), std::greater<uint64_t>());
  for (int64_t slot = 0; slot < k; ++slot) {
    indices[slot] = static_cast<int64_t>(s.winners[slot] & 0xffffffff);
    values[slot] = row[indices[slot]];
  }
}

template <typename UInt, int kMantissaBits>
void select(ffi::TensorView x, int64_t k, ffi::TensorView out_values, ffi::TensorView out_indices) {
  const int64_t batch = x.size(0), n = x.size(1);
  const auto* rows = static_cast<const UInt*>(x.data_ptr());
  auto* values = static_cast<UInt*>(out_values.data_ptr());
  auto* indices = static_cast<int64_t*>(out_indices.data_ptr());
#pragma omp parallel for schedule(SCHEDULE)
  for (int64_t b = 0; b < batch; ++b)
    select_row<UInt, kMantissaBits>(rows + b * n, n, k, values + b * k, indices + b * k);
}

void run(ffi::TensorView x, int64_t k, ffi::TensorView values, ffi::TensorView indices) {
  if (x.dtype().bits == 32) return select<uint32_t, 23>(x, k, values, indices);
  if (x.dtype().code == kDLBfloat) return select<uint16_t, 7>(x, k, values, indices);
  return select<uint16_t, 10>(x, k, values, indices);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
