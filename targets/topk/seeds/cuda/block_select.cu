// Top-K in one launch: a block selects from its row, in shared memory as soon as what may still win fits there.
//
// The first reading of the row counts its elements by the leading digit of their rank. The second takes those that win
// for sure, and moves those that share the digit of the k-th best (few, as a rule) to shared memory, where the other
// digits are settled and the winners sorted. For many rows, or short ones, where launches are what costs.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <cstdint>

// tunable RADIX_BITS: 11 8 10
// tunable THREADS: 1024 512 256
// tunable ROOM: 4096 2048 8192
// tunable UNROLL: 4 8 2
// tunable RESIDENT: 2 1

namespace ffi = tvm::ffi;

namespace {

constexpr int kDigits = 1 << RADIX_BITS, kUnroll = UNROLL;
constexpr int64_t kMostWinners = 8192;  // of a row: what shared memory can sort beside the undecided ones

// What the threads of a block agree on.
struct Shared {
  uint32_t counts[kDigits];
  uint32_t sums[32];
  uint32_t prefix, wanted, bearers;  // the k-th best rank as far as it is known; its number among those that bear it
  uint32_t better, ties, undecided;  // elements written so far
};

template <typename Bits>
__host__ __device__ constexpr int shift(int pass) {
  return int(8 * sizeof(Bits)) > (pass + 1) * RADIX_BITS ? 8 * sizeof(Bits) - (pass + 1) * RADIX_BITS : 0;
}

// An unsigned integer that rises as the value falls, 0 for NaN. Negative numbers are in that order as they stand; the
// others need all but their sign inverted. `infinity` is its pattern: what lies above it is NaN.
template <typename Bits>
__device__ uint32_t rank_of(Bits bits, uint32_t infinity) {
  constexpr uint32_t kRest = (uint32_t{1} << (8 * sizeof(Bits) - 1)) - 1;
  const uint32_t rank = bits > kRest ? bits : bits ^ kRest;
  return (bits & kRest) > infinity ? 0 : rank;
}

// Calls `each(rank, place)` for this thread's share of the row.
template <typename Bits, typename Each>
__device__ void visit_row(const Bits* row, int n, uint32_t infinity, Each each) {
  constexpr int kParts = 16 / sizeof(Bits);
  if (n % kParts != 0) {  // then most rows aren't aligned for vectors
#pragma unroll kUnroll
    for (int i = threadIdx.x; i < n; i += THREADS) each(rank_of<Bits>(row[i], infinity), i);
    return;
  }
  const auto* vectors = reinterpret_cast<const uint4*>(row);
#pragma unroll kUnroll
  for (int v = threadIdx.x; v < n / kParts; v += THREADS) {
    union {
      uint4 whole;
      Bits parts[kParts];
    } held;
    held.whole = vectors[v];
#pragma unroll
    for (int i = 0; i < kParts; ++i) each(rank_of<Bits>(held.parts[i], infinity), v * kParts + i);
  }
}

// Extends the prefix by the digit in which number `wanted` falls. Comes and goes with the whole block.
template <typename Bits>
__device__ void find_digit(Shared& s, int pass) {
  constexpr int kEach = (kDigits + THREADS - 1) / THREADS;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const uint32_t wanted = s.wanted;
  uint32_t counts[kEach], sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int digit = threadIdx.x * kEach + i;
    counts[i] = digit < kDigits ? s.counts[digit] : 0;
    sum += counts[i];
  }
  uint32_t upto = sum;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const uint32_t other = __shfl_up_sync(~0u, upto, step);
    if (lane >= step) upto += other;
  }
  if (lane == 31) s.sums[warp] = upto;
  __syncthreads();
  uint32_t before = upto - sum;
  for (int w = 0; w < warp; ++w) before += s.sums[w];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (before < wanted && wanted <= before + counts[i]) {  // true for one thread and digit of the block
      s.prefix |= static_cast<uint32_t>(threadIdx.x * kEach + i) << shift<Bits>(pass);
      s.wanted = wanted - before;
      s.bearers = counts[i];
    }
    before += counts[i];
  }
  for (int i = threadIdx.x; i < kDigits; i += THREADS) s.counts[i] = 0;
  __syncthreads();
}

template <typename Bits>
__global__ void __launch_bounds__(THREADS, RESIDENT)
    select_row(const Bits* x, Bits* values, int64_t* indices, int n, int k, int length, uint32_t infinity) {
  constexpr int kPasses = (8 * sizeof(Bits) + RADIX_BITS - 1) / RADIX_BITS;
  __shared__ Shared s;
  extern __shared__ uint64_t memory[];
  uint64_t* winners = memory;             // `length` of them, the power of two from k on
  uint64_t* undecided = memory + length;  // ROOM of them
  const Bits* row = x + static_cast<int64_t>(blockIdx.x) * n;
  for (int i = threadIdx.x; i < kDigits; i += THREADS) s.counts[i] = 0;
  if (threadIdx.x == 0) s.prefix = 0, s.wanted = k, s.better = s.ties = s.undecided = 0;
  __syncthreads();

  visit_row<Bits>(row, n, infinity, [&](uint32_t rank, int) { atomicAdd(&s.counts[rank >> shift<Bits>(0)], 1u); });
  __syncthreads();
  find_digit<Bits>(s, 0);
  bool moved = false, finished = false;
  for (int pass = 1; !finished; ++pass) {
    const int known = shift<Bits>(pass - 1), earlier = pass > 1 ? shift<Bits>(pass - 2) : 8 * sizeof(Bits);
    const uint32_t prefix = s.prefix, wanted = s.wanted, bearers = s.bearers;
    finished = pass == kPasses || bearers == wanted;
    const bool moving = !moved && !finished && bearers <= ROOM;
    // Every element that shares the digits known before this one: it wins, loses or stays undecided.
    const auto settle = [&](uint32_t rank, int place) {
      const uint64_t packed = uint64_t{rank} << 32 | static_cast<uint32_t>(place);
      if (pass > 1 && rank >> earlier != prefix >> earlier) return;
      if (rank >> known < prefix >> known) winners[atomicAdd(&s.better, 1u)] = packed;
      if (rank >> known != prefix >> known) return;
      if (finished) {
        const uint32_t tie = atomicAdd(&s.ties, 1u);
        if (tie < wanted) winners[k - wanted + tie] = packed;
        return;
      }
      atomicAdd(&s.counts[rank >> shift<Bits>(pass) & (kDigits - 1)], 1u);
      if (moving) undecided[atomicAdd(&s.undecided, 1u)] = packed;
    };
    if (moved) {
      for (uint32_t i = threadIdx.x; i < s.undecided; i += THREADS)
        settle(undecided[i] >> 32, static_cast<uint32_t>(undecided[i]));
    } else {
      visit_row<Bits>(row, n, infinity, settle);
    }
    moved = moved || moving;
    __syncthreads();
    if (!finished) find_digit<Bits>(s, pass);
  }

  // Bitonic sort by rank, then place. The padding is worse than any element.
  for (int i = k + threadIdx.x; i < length; i += THREADS) winners[i] = ~uint64_t{0};
  __syncthreads();
  for (int run = 2; run <= length; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int i = threadIdx.x; i < length / 2; i += THREADS) {
        const int low = i / step * 2 * step + i % step, high = low + step;
        const uint64_t a = winners[low], b = winners[high];
        const bool rising = (low & run) == 0;
        if ((a > b) == rising) winners[low] = b, winners[high] = a;
      }
      __syncthreads();
    }
  }
  constexpr uint32_t kRest = (uint32_t{1} << (8 * sizeof(Bits) - 1)) - 1;
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * k;
  for (int i = threadIdx.x; i < k; i += THREADS) {
    const uint32_t rank = winners[i] >> 32;
    values[begin + i] = static_cast<Bits>(rank > kRest ? rank : rank ^ kRest);
    indices[begin + i] = static_cast<uint32_t>(winners[i]);
  }
}

void check(cudaError_t error) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << cudaGetErrorString(error);
}

template <typename Bits>
void select(ffi::TensorView x, int64_t k, ffi::TensorView values, ffi::TensorView indices, uint32_t infinity) {
  const DLDevice device = x.device();
  const auto stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(device.device_type, device.device_id));
  int length = 2;
  while (length < k) length *= 2;
  const int bytes = (length + ROOM) * sizeof(uint64_t);
  check(cudaFuncSetAttribute(select_row<Bits>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  select_row<Bits><<<x.size(0), THREADS, bytes, stream>>>(
      static_cast<const Bits*>(x.data_ptr()), static_cast<Bits*>(values.data_ptr()),
      static_cast<int64_t*>(indices.data_ptr()), x.size(1), k, length, infinity);
  check(cudaGetLastError());
}

}  // namespace

void run(ffi::TensorView x, int64_t k, ffi::TensorView values, ffi::TensorView indices) {
  if (k > kMostWinners) TVM_FFI_THROW(ValueError) << "k is " << k << ", at most " << kMostWinners;
  if (x.dtype().bits == 32) return select<uint32_t>(x, k, values, indices, 0x7f800000);
  select<uint16_t>(x, k, values, indices, x.dtype().code == kDLBfloat ? 0x7f80 : 0x7c00);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
