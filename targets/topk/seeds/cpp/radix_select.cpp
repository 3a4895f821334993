// Top-K by radix select: count the elements by the leading digit of an order-preserving key, find the digit
// in which the k-th largest falls, keep what lies above it, and go on among its equals with the next digit.
//
// Counting doesn't vectorise, so few elements are counted: the k-th largest of a part of the row can't lie
// above the k-th largest of the whole. Once FIRST elements are counted, only those that reach the digit found
// so far (the floor) matter, and whole blocks are passed over at the speed of memory.
#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

// tunable RADIX_BITS: 11 8 10 12
// tunable FIRST: 512 1024 2048
// tunable BLOCK: 32 16 64

namespace ffi = tvm::ffi;

namespace {

// The order of torch.topk as unsigned integers: positive numbers get a leading one, negative ones are
// inverted. Shifting everything down by the number of NaN patterns then makes -inf zero, and the NaNs that
// carry a sign wrap round to the top, where the other NaNs are.
template <typename UInt, int kMantissaBits>
inline UInt key_of(UInt bits) {
  constexpr int kSign = 8 * sizeof(UInt) - 1;
  const UInt negative = static_cast<UInt>(-(bits >> kSign));
  const UInt ascending = bits ^ (negative | UInt(UInt{1} << kSign));
  return static_cast<UInt>(ascending - ((1u << kMantissaBits) - 1));
}

struct Scratch {
  std::vector<uint32_t> counts = std::vector<uint32_t>(1 << RADIX_BITS);
  std::vector<uint64_t> open, winners;  // key over place (below 2^32) in the row; open ones may still win
  std::vector<int64_t> promising;       // where the blocks begin that reach the floor
};

// The digit of the element that has rank `wanted` from the top; `wanted` becomes its rank within that digit.
inline uint32_t digit_of_rank(const std::vector<uint32_t>& counts, int64_t& wanted) {
  for (uint32_t digit = (1 << RADIX_BITS) - 1;; --digit) {
    if (wanted <= counts[digit]) return digit;
    wanted -= counts[digit];
  }
}

// Bit i is flags[i], which is 0 or 1. The product brings the lowest bits of eight bytes together in the top
// one.
inline uint64_t bits_of(const uint8_t (&flags)[BLOCK]) {
  uint64_t bits = 0;
  for (int i = 0; i < BLOCK; i += 8) {
    uint64_t eight;
    std::memcpy(&eight, flags + i, 8);
    bits |= (eight * 0x0102040810204080) >> 56 << i;
  }
  return bits;
}

// Collects into `s.open` all elements but those that k others exceed for sure, and counts them by leading
// digit. Returns how many they are.
template <typename UInt, int kMantissaBits>
int64_t count_and_collect(const UInt* row, int64_t n, int64_t k, Scratch& s) {
  constexpr auto key = key_of<UInt, kMantissaBits>;
  constexpr int kShift = 8 * sizeof(UInt) - RADIX_BITS;
  if (static_cast<int64_t>(s.open.size()) <= n) s.open.resize(n + 1), s.promising.resize(n / BLOCK + 1);
  std::fill(s.counts.begin(), s.counts.end(), 0);
  uint64_t* open = s.open.data();
  int64_t* promising = s.promising.data();
  int64_t found = 0, counted = 0;
  UInt floor = 0;
  const auto take = [&](int64_t i) {
    open[found++] = uint64_t{key(row[i])} << 32 | static_cast<uint64_t>(i);
  };
  // The floor rises after each stretch, and stretches double. Which blocks reach the floor can't be
  // predicted, so they are first listed without a branch and then looked into.
  for (int64_t begin = 0, end = std::max<int64_t>(FIRST, 2 * k); begin < n; begin = end, end = 2 * end) {
    end = std::min(end, n);
    const int64_t whole = begin + (end - begin) / BLOCK * BLOCK;
    int64_t blocks = 0;
    for (int64_t i = begin; i < whole; i += BLOCK) {
      UInt most = 0;
#pragma omp simd reduction(max : most)
      for (int64_t j = 0; j < BLOCK; ++j) most = std::max(most, key(row[i + j]));
      promising[blocks] = i;
      blocks += most >= floor;
    }
    for (int64_t b = 0; b < blocks; ++b) {
      uint8_t reaches[BLOCK];
      for (int64_t j = 0; j < BLOCK; ++j) reaches[j] = key(row[promising[b] + j]) >= floor;
      for (uint64_t hits = bits_of(reaches); hits; hits &= hits - 1)
        take(promising[b] + __builtin_ctzll(hits));
    }
    for (int64_t i = whole; i < end; ++i)
      if (key(row[i]) >= floor) take(i);
    for (; counted < found; ++counted) ++s.counts[open[counted] >> (32 + kShift)];
    int64_t rank = k;
    floor = static_cast<UInt>(digit_of_rank(s.counts, rank) << kShift);
  }
  return found;
}

template <typename UInt, int kMantissaBits>
void select_row(const UInt* row, int64_t n, int64_t k, UInt* values, int64_t* indices) {
  thread_local Scratch s;
  int64_t open = count_and_collect<UInt, kMantissaBits>(row, n, k, s), wanted = k;
  s.winners.clear();
  for (int shift = 8 * sizeof(UInt) - RADIX_BITS, bits = RADIX_BITS;;) {
    const auto digit = [&](uint64_t entry) { return entry >> (32 + shift) & ((uint64_t{1} << bits) - 1); };
    const uint64_t split = digit_of_rank(s.counts, wanted);
    int64_t kept = 0;
    for (int64_t i = 0; i < open; ++i) {
      const uint64_t entry = s.open[i];
      if (digit(entry) > split) s.winners.push_back(entry);
      s.open[kept] = entry;
      kept += digit(entry) == split;
    }
    open = kept;
    if (open == wanted || shift == 0) break;
    bits = std::min(shift, RADIX_BITS), shift -= bits;
    std::fill(s.counts.begin(), s.counts.end(), 0);
    for (int64_t i = 0; i < open; ++i) ++s.counts[digit(s.open[i])];
  }
  s.winners.insert(s.winners.end(), s.open.begin(), s.open.begin() + wanted);  // of equals, any will do

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
#pragma omp parallel for schedule(static)
  for (int64_t b = 0; b < batch; ++b)
    select_row<UInt, kMantissaBits>(rows + b * n, n, k, values + b * k, indices + b * k);
}

}  // namespace

void run(ffi::TensorView x, int64_t k, ffi::TensorView values, ffi::TensorView indices) {
  if (x.dtype().bits == 32) return select<uint32_t, 23>(x, k, values, indices);
  if (x.dtype().code == kDLBfloat) return select<uint16_t, 7>(x, k, values, indices);
  return select<uint16_t, 10>(x, k, values, indices);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
