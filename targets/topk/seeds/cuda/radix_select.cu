// Top-K by radix select over the whole device: count digits, fix the one in which the k-th best lies, go on below it.
//
// A row is dealt to several blocks in chunks, so that a few long rows fill the device too. A block holds its chunk in
// registers. The last block of a row to have counted looks for the digit, so a digit costs one launch and one reading
// of the row. Then the winners are written in any order, and a block for each row sorts them. Good for large k and for
// values that repeat: the work depends on neither.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <cstdint>

// tunable RADIX_BITS: 11 8 10
// tunable THREADS: 512 256 1024
// tunable VECTORS: 4 8 2
// tunable SORT_THREADS: 512 1024 256

namespace ffi = tvm::ffi;

namespace {

constexpr int kDigits = 1 << RADIX_BITS;
constexpr int64_t kMostWinners = 16384;  // of a row: what shared memory can sort

// 16 bytes of a row, and its elements as they lie in memory: nothing is rounded, flushed or quieted on the way.
template <typename Bits>
union Vector {
  uint4 whole;
  Bits parts[16 / sizeof(Bits)];
};

template <typename Bits>
constexpr int kChunk = THREADS * VECTORS * (16 / sizeof(Bits));  // elements that a block holds

// The shape of a row's scratch: counts of every digit, then what was found out, then cursors.
template <typename Bits>
struct Row {
  static constexpr int kBits = 8 * sizeof(Bits), kPasses = (kBits + RADIX_BITS - 1) / RADIX_BITS;
  uint32_t counts[kPasses][kDigits];
  uint32_t prefix, wanted;       // the k-th best rank as far as it is known, and its number among the bearers
  uint32_t arrived[kPasses];     // blocks that have counted
  uint32_t better, equal;        // winners written so far

  // The last digit overlaps the one before it where the bits don't divide.
  __host__ __device__ static constexpr int shift(int pass) {
    return kBits > (pass + 1) * RADIX_BITS ? kBits - (pass + 1) * RADIX_BITS : 0;
  }
};

// An unsigned integer that rises as the value falls, 0 for NaN. Negative numbers are in that order as they stand; the
// others need all but their sign inverted. `infinity` is its pattern: what lies above it is NaN.
template <typename Bits>
__device__ uint32_t rank_of(Bits bits, uint32_t infinity) {
  constexpr uint32_t kRest = (uint32_t{1} << (8 * sizeof(Bits) - 1)) - 1;
  const uint32_t rank = bits > kRest ? bits : bits ^ kRest;
  return (bits & kRest) > infinity ? 0 : rank;
}

// This thread's part of the block's chunk. Rows that aren't multiples of 16 bytes are read element by element.
template <typename Bits>
__device__ void load(Vector<Bits> (&held)[VECTORS], const Bits* row, int64_t n) {
  constexpr int kParts = 16 / sizeof(Bits);
  const bool aligned = n % kParts == 0;
#pragma unroll
  for (int v = 0; v < VECTORS; ++v) {
    const int64_t at = blockIdx.x * int64_t{kChunk<Bits>} + (v * THREADS + threadIdx.x) * kParts;
    if (aligned && at < n) held[v].whole = *reinterpret_cast<const uint4*>(row + at);
    if (aligned) continue;
#pragma unroll
    for (int i = 0; i < kParts; ++i) held[v].parts[i] = at + i < n ? row[at + i] : Bits{0};
  }
}

// Calls `each(rank, place)` for what this thread holds.
template <typename Bits, typename Each>
__device__ void visit(const Vector<Bits> (&held)[VECTORS], int64_t n, uint32_t infinity, Each each) {
  constexpr int kParts = 16 / sizeof(Bits);
#pragma unroll
  for (int v = 0; v < VECTORS; ++v) {
    const int64_t at = blockIdx.x * int64_t{kChunk<Bits>} + (v * THREADS + threadIdx.x) * kParts;
#pragma unroll
    for (int i = 0; i < kParts; ++i)
      if (at + i < n) each(rank_of<Bits>(held[v].parts[i], infinity), at + i);
  }
}

// The sum of the values of all threads before this one. Every thread of the block has to come; `total` gets all.
__device__ uint32_t sum_before(uint32_t value, uint32_t& total) {
  __shared__ uint32_t sums[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t upto = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t other = __shfl_up_sync(~0u, upto, step);
    if (lane >= step) upto += other;
  }
  __syncthreads();  // a call before this one may still be reading
  if (lane == 31) sums[warp] = upto;
  __syncthreads();
  uint32_t before = 0;
  total = 0;
  for (int w = 0; w < THREADS / 32; ++w) {
    if (w < warp) before += sums[w];
    total += sums[w];
  }
  return before + upto - value;
}

// Extends the row's prefix by the digit in which number `wanted` falls.
template <typename Bits>
__device__ void find_digit(Row<Bits>& row, int pass, uint32_t prefix, uint32_t wanted) {
  constexpr int kEach = (kDigits + THREADS - 1) / THREADS;
  uint32_t counts[kEach], sum = 0, total;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int digit = threadIdx.x * kEach + i;
    counts[i] = digit < kDigits ? __ldcg(&row.counts[pass][digit]) : 0;
    sum += counts[i];
  }
  uint32_t before = sum_before(sum, total);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (before < wanted && wanted <= before + counts[i]) {  // true for one thread and digit of the block
      row.prefix = prefix | static_cast<uint32_t>(threadIdx.x * kEach + i) << Row<Bits>::shift(pass);
      row.wanted = wanted - before;
    }
    before += counts[i];
  }
}

// Adds this chunk's elements that share the prefix to the counts of a digit.
template <typename Bits, int kPass>
__global__ void __launch_bounds__(THREADS)
    count(const Bits* x, Row<Bits>* rows, int64_t n, uint32_t k, uint32_t infinity) {
  __shared__ uint32_t counts[kDigits];
  __shared__ bool last;
  Row<Bits>& row = rows[blockIdx.y];
  Vector<Bits> held[VECTORS];
  load<Bits>(held, x + blockIdx.y * n, n);
  for (int i = threadIdx.x; i < kDigits; i += THREADS) counts[i] = 0;
  const uint32_t prefix = kPass == 0 ? 0 : row.prefix, wanted = kPass == 0 ? k : row.wanted;
  __syncthreads();
  visit<Bits>(held, n, infinity, [&](uint32_t rank, int64_t) {
    constexpr int kShift = Row<Bits>::shift(kPass), kKnown = kPass == 0 ? 0 : Row<Bits>::shift(kPass - 1);
    if (kPass == 0 || rank >> kKnown == prefix >> kKnown) atomicAdd(&counts[rank >> kShift & (kDigits - 1)], 1u);
  });
  __syncthreads();
  for (int i = threadIdx.x; i < kDigits; i += THREADS)
    if (counts[i] > 0) atomicAdd(&row.counts[kPass][i], counts[i]);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&row.arrived[kPass], 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  find_digit<Bits>(row, kPass, prefix, wanted);
}

// Writes this chunk's winners, in any order: all that beat the k-th best, and its equals while there is room.
template <typename Bits>
__global__ void __launch_bounds__(THREADS)
    gather(const Bits* x, Row<Bits>* rows, uint64_t* winners, int64_t n, uint32_t k, uint32_t infinity) {
  __shared__ uint32_t reserved[2];
  Row<Bits>& row = rows[blockIdx.y];
  Vector<Bits> held[VECTORS];
  load<Bits>(held, x + blockIdx.y * n, n);
  const uint32_t last = row.prefix, ties = row.wanted;
  uint32_t better = 0, equal = 0, all_better, all_equal;
  visit<Bits>(held, n, infinity, [&](uint32_t rank, int64_t) { better += rank < last, equal += rank == last; });
  // One reservation for the whole chunk; running sums deal the places within it.
  uint32_t slot = sum_before(better, all_better), tie = sum_before(equal, all_equal);
  if (threadIdx.x == 0 && all_better > 0) reserved[0] = atomicAdd(&row.better, all_better);
  if (threadIdx.x == 0 && all_equal > 0) reserved[1] = atomicAdd(&row.equal, all_equal);
  __syncthreads();
  slot += reserved[0], tie += reserved[1];
  uint64_t* to = winners + static_cast<int64_t>(blockIdx.y) * k;
  visit<Bits>(held, n, infinity, [&](uint32_t rank, int64_t place) {
    const uint64_t packed = uint64_t{rank} << 32 | static_cast<uint32_t>(place);
    if (rank < last) to[slot++] = packed;
    if (rank == last && tie++ < ties) to[k - ties + tie - 1] = packed;
  });
}

// Orders the winners of a row by rank, then place (bitonic sort, in shared memory), and takes the two apart again.
template <typename Bits>
__global__ void __launch_bounds__(SORT_THREADS)
    sort(const uint64_t* winners, Bits* values, int64_t* indices, int k, int length) {
  extern __shared__ uint64_t list[];
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * k;
  // The padding is worse than any element.
  for (int i = threadIdx.x; i < length; i += SORT_THREADS) list[i] = i < k ? winners[begin + i] : ~uint64_t{0};
  __syncthreads();
  for (int run = 2; run <= length; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int i = threadIdx.x; i < length / 2; i += SORT_THREADS) {
        const int low = i / step * 2 * step + i % step, high = low + step;
        const uint64_t a = list[low], b = list[high];
        const bool rising = (low & run) == 0;
        if ((a > b) == rising) list[low] = b, list[high] = a;
      }
      __syncthreads();
    }
  }
  constexpr uint32_t kRest = (uint32_t{1} << (8 * sizeof(Bits) - 1)) - 1;
  for (int i = threadIdx.x; i < k; i += SORT_THREADS) {
    const uint32_t rank = list[i] >> 32;
    values[begin + i] = static_cast<Bits>(rank > kRest ? rank : rank ^ kRest);
    indices[begin + i] = static_cast<uint32_t>(list[i]);
  }
}

void check(cudaError_t error) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << cudaGetErrorString(error);
}

template <typename Bits>
void select(ffi::TensorView x, int64_t k, ffi::TensorView out_values, ffi::TensorView out_indices, uint32_t infinity) {
  const int64_t batch = x.size(0), n = x.size(1);
  const DLDevice device = x.device();
  const auto stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(device.device_type, device.device_id));
  constexpr int kPasses = Row<Bits>::kPasses;
  const int64_t row_bytes = sizeof(Row<Bits>);
  auto scratch = ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {batch, row_bytes}, DLDataType{kDLUInt, 8, 1}, device);
  auto found = ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {batch, k}, DLDataType{kDLInt, 64, 1}, device);
  auto* rows = static_cast<Row<Bits>*>(scratch.data_ptr());
  auto* winners = static_cast<uint64_t*>(found.data_ptr());
  const auto* from = static_cast<const Bits*>(x.data_ptr());
  const dim3 grid((n + kChunk<Bits> - 1) / kChunk<Bits>, batch);

  check(cudaMemsetAsync(rows, 0, batch * row_bytes, stream));
  count<Bits, 0><<<grid, THREADS, 0, stream>>>(from, rows, n, k, infinity);
  if constexpr (kPasses > 1) count<Bits, 1><<<grid, THREADS, 0, stream>>>(from, rows, n, k, infinity);
  if constexpr (kPasses > 2) count<Bits, 2><<<grid, THREADS, 0, stream>>>(from, rows, n, k, infinity);
  if constexpr (kPasses > 3) count<Bits, 3><<<grid, THREADS, 0, stream>>>(from, rows, n, k, infinity);
  static_assert(kPasses <= 4, "a digit has at least 8 bits");
  gather<Bits><<<grid, THREADS, 0, stream>>>(from, rows, winners, n, k, infinity);

  int length = 2;
  while (length < k) length *= 2;
  const int bytes = length * sizeof(uint64_t);
  check(cudaFuncSetAttribute(sort<Bits>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  sort<Bits><<<batch, SORT_THREADS, bytes, stream>>>(winners, static_cast<Bits*>(out_values.data_ptr()),
                                                    static_cast<int64_t*>(out_indices.data_ptr()), k, length);
  check(cudaGetLastError());
}

}  // namespace

void run(ffi::TensorView x, int64_t k, ffi::TensorView values, ffi::TensorView indices) {
  if (k > kMostWinners) TVM_FFI_THROW(ValueError) << "k is " << k << ", at most " << kMostWinners;
  if (x.dtype().bits == 32) return select<uint32_t>(x, k, values, indices, 0x7f800000);
  select<uint16_t>(x, k, values, indices, x.dtype().code == kDLBfloat ? 0x7f80 : 0x7c00);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
