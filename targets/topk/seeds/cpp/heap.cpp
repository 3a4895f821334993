// Top-K by a running heap: the k best elements so far stand in a heap whose root is the worst of them; an
// element that beats the root takes its place. The plain one, and hard to beat where k is very small.
//
// In a random row the m-th element enters with probability k/m, so before long nearly all are turned away:
// whole blocks are compared with the root at once, and looked into only where one element beats it.
#include <tvm/ffi/tvm_ffi.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

// tunable BLOCK: 32 16 64 128 1
// tunable ARITY: 4 2 8
// tunable SCHEDULE: static dynamic

namespace ffi = tvm::ffi;

namespace {

// The order of torch.topk as signed integers. Flipping the magnitude of negative numbers makes their bits
// ascend; shifting everything down by the number of NaN patterns then makes -inf the least integer, and the
// NaNs that carry a sign wrap round to the top, where the other NaNs are.
template <typename Int, int kMantissaBits>
inline Int key_of(Int bits) {
  const Int ascending = bits ^ ((bits >> (8 * sizeof(Int) - 1)) & std::numeric_limits<Int>::max());
  return static_cast<Int>(static_cast<std::make_unsigned_t<Int>>(ascending) - ((1u << kMantissaBits) - 1));
}

// A heap node: one integer that orders by key and holds the place in the row (of fewer than 2^32 elements).
inline int64_t entry_of(int32_t key, int64_t place) { return int64_t{key} * (int64_t{1} << 32) + place; }
inline int32_t key_in(int64_t entry) { return static_cast<int32_t>(entry >> 32); }
inline int64_t place_in(int64_t entry) { return entry & 0xffffffff; }

// Puts `entry` in the place of the root and lets it sink to where every child is larger. A wide heap is
// shallow, and the least of several children is found without a branch.
inline void replace_root(int64_t* heap, int64_t k, int64_t entry) {
  int64_t node = 0;
  for (int64_t child = 1; child < k; child = node * ARITY + 1) {
    int64_t least = child;
    const int64_t end = std::min<int64_t>(child + ARITY, k);
    for (int64_t c = child + 1; c < end; ++c) least = heap[c] < heap[least] ? c : least;
    if (entry <= heap[least]) break;
    heap[node] = heap[least];
    node = least;
  }
  heap[node] = entry;
}

template <typename Int, int kMantissaBits>
void select_row(const Int* row, int64_t n, int64_t k, Int* values, int64_t* indices) {
  constexpr auto key = key_of<Int, kMantissaBits>;
  thread_local std::vector<int64_t> heap;
  heap.resize(k);
  for (int64_t i = 0; i < k; ++i) heap[i] = entry_of(key(row[i]), i);
  std::sort(heap.begin(), heap.end());  // ascending is a heap of any arity

  const auto offer = [&](int64_t i) {
    if (key(row[i]) > key_in(heap[0])) replace_root(heap.data(), k, entry_of(key(row[i]), i));
  };
  int64_t i = k;
  for (; i + BLOCK <= n; i += BLOCK) {
    Int most = std::numeric_limits<Int>::min();
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < BLOCK; ++j) most = std::max(most, key(row[i + j]));
    if (most <= key_in(heap[0])) continue;
    for (int64_t j = 0; j < BLOCK; ++j) offer(i + j);
  }
  for (; i < n; ++i) offer(i);

  std::sort(heap.begin(), heap.end(), std::greater<int64_t>());
  for (int64_t slot = 0; slot < k; ++slot) {
    indices[slot] = place_in(heap[slot]);
    values[slot] = row[indices[slot]];
  }
}

template <typename Int, int kMantissaBits>
void select(ffi::TensorView x, int64_t k, ffi::TensorView out_values, ffi::TensorView out_indices) {
  const int64_t batch = x.size(0), n = x.size(1);
  const auto* rows = static_cast<const Int*>(x.data_ptr());
  auto* values = static_cast<Int*>(out_values.data_ptr());
  auto* indices = static_cast<int64_t*>(out_indices.data_ptr());
#pragma omp parallel for schedule(SCHEDULE)
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
