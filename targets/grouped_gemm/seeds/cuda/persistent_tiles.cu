// A fixed number of blocks walk the tiles of all groups: no tile is launched in vain, and uneven groups even out.
//
// How many tiles a group has is known on the device only: every block sums them up in shared memory, and the group of a
// tile is then a binary search. Tiles go through tensor cores (mma) fed by asynchronous copies, STAGES of them under
// way; float32 is computed in float32, by ordinary multiply-adds.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <cstdint>

// tunable BLOCK_M: 64 128 32
// tunable BLOCK_N: 128 64 256
// tunable BLOCK_BYTES: 64 128
// tunable STAGES: 4 3 2
// tunable BLOCKS_EACH: 2 1 3 4

namespace ffi = tvm::ffi;

namespace {

constexpr int kThreads = 256, kWarps = 8;
constexpr int kWarpsM = BLOCK_M >= 64 || BLOCK_N < 128 ? 2 : 1, kWarpsN = kWarps / kWarpsM;  // how the warps share a tile
constexpr int kWarpM = BLOCK_M / kWarpsM, kWarpN = BLOCK_N / kWarpsN;
static_assert(kWarpM % 16 == 0 && kWarpN % 16 == 0, "a warp computes whole 16 x 16 parts");
constexpr int kMostGroups = 4096;

// A tile's part of both factors in shared memory. Rows are padded by 16 bytes, so that no two rows of a fragment fall
// into the same banks.
template <typename T>
struct Stage {
  static constexpr int kDepth = BLOCK_BYTES / sizeof(T), kPart = 16 / sizeof(T);
  T a[BLOCK_M][kDepth + kPart];
  T b[kDepth][BLOCK_N + kPart];
};

struct Problem {
  const int64_t* offsets;
  int groups, k, n, width;  // the packed weights' rows are `width` long, a multiple of 16 bytes
};

__device__ uint32_t shared_address(const void* at) { return static_cast<uint32_t>(__cvta_generic_to_shared(at)); }

// 16 bytes from global to shared memory, of which only the first `valid` are read: the others become zero.
__device__ void copy_async(void* to, const void* from, int valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], %2, %3;"
               :
               : "r"(shared_address(to)), "l"(from), "n"(16), "r"(valid));
}

__device__ void load_matrices(uint32_t (&to)[4], const void* from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(from)));
}

__device__ void load_transposed(uint32_t (&to)[4], const void* from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(from)));
}

// d += a b for a [16, 16] and b [16, 8], spread over a warp.
__device__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __nv_bfloat16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1),
                 "f"(d[0]), "f"(d[1]), "f"(d[2]), "f"(d[3]));
}

__device__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, __half) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
               : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1),
                 "f"(d[0]), "f"(d[1]), "f"(d[2]), "f"(d[3]));
}

__device__ void store(float* to, float value) { *to = value; }
__device__ void store(__half* to, float value) { *to = __float2half_rn(value); }
__device__ void store(__nv_bfloat16* to, float value) { *to = __float2bfloat16_rn(value); }

// The tile's accumulators of one thread, for tensor cores: 16 x 8 parts of its warp's share.
template <typename T>
struct Accumulator {
  static constexpr int kM = kWarpM / 16, kN = kWarpN / 8;
  float parts[kM][kN][4] = {};

  __device__ void add(const Stage<T>& stage) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = warp % kWarpsM * kWarpM + lane % 16, column = warp / kWarpsM * kWarpN + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < Stage<T>::kDepth; k += 16) {
      uint32_t a[kM][4];
#pragma unroll
      for (int i = 0; i < kM; ++i) load_matrices(a[i], &stage.a[row + 16 * i][k + lane / 16 * 8]);
#pragma unroll
      for (int j = 0; j < kN; j += 2) {
        uint32_t b[4];  // two neighbours of 16 x 8
        load_transposed(b, &stage.b[k + lane % 16][column + 8 * j]);
#pragma unroll
        for (int i = 0; i < kM; ++i) {
          multiply_add(parts[i][j], a[i], b[0], b[1], T{});
          multiply_add(parts[i][j + 1], a[i], b[2], b[3], T{});
        }
      }
    }
  }

  // Calls `each(row, column, value)` for what this thread holds.
  template <typename Each>
  __device__ void visit(Each each) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = warp % kWarpsM * kWarpM + lane / 4, column = warp / kWarpsM * kWarpN + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kN; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) each(row + 16 * i + e / 2 * 8, column + 8 * j + e % 2, parts[i][j][e]);
  }
};

// The same in float32: 16 x 16 threads, each with every 16th row, and runs of four columns.
template <>
struct Accumulator<float> {
  static constexpr int kM = BLOCK_M / 16, kN = BLOCK_N / 16;
  float parts[kM][kN] = {};

  __device__ void add(const Stage<float>& stage) {
    const int y = threadIdx.x / 16, x = threadIdx.x % 16;
#pragma unroll 4
    for (int k = 0; k < Stage<float>::kDepth; ++k) {
      float b[kN];
#pragma unroll
      for (int j = 0; j < kN; j += 4) {
        const float4 four = *reinterpret_cast<const float4*>(&stage.b[k][4 * x + 16 * j]);
        b[j] = four.x, b[j + 1] = four.y, b[j + 2] = four.z, b[j + 3] = four.w;
      }
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        const float a = stage.a[y + 16 * i][k];
#pragma unroll
        for (int j = 0; j < kN; ++j) parts[i][j] = __fmaf_rn(a, b[j], parts[i][j]);
      }
    }
  }

  template <typename Each>
  __device__ void visit(Each each) const {
    const int y = threadIdx.x / 16, x = threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < kM; ++i)
#pragma unroll
      for (int j = 0; j < kN; ++j) each(y + 16 * i, 4 * x + j / 4 * 64 + j % 4, parts[i][j]);
  }
};

// Fetches the part of both factors from column (of a) and row (of b) `at` on. Past the end of k, of the group's rows
// and of the weights' columns there are zeros: zero times what lies there could be NaN.
template <typename T, bool kAligned>
__device__ void fetch(Stage<T>& to, const T* a, const T* b, int at, int rows, int columns, const Problem& p) {
  constexpr int kPart = Stage<T>::kPart, kAcross = Stage<T>::kDepth / kPart, kWide = BLOCK_N / kPart;
#pragma unroll
  for (int i = threadIdx.x; i < BLOCK_M * kAcross; i += kThreads) {
    const int row = i / kAcross, column = i % kAcross * kPart, k = at + column;
    const T* from = a + static_cast<int64_t>(row) * p.k + k;
    if constexpr (kAligned) {
      const bool inside = row < rows && k < p.k;
      copy_async(&to.a[row][column], inside ? from : a, inside ? 16 : 0);
    } else {  // odd rows allow no wide loads
#pragma unroll
      for (int e = 0; e < kPart; ++e) to.a[row][column + e] = row < rows && k + e < p.k ? from[e] : T{};
    }
  }
#pragma unroll
  for (int i = threadIdx.x; i < Stage<T>::kDepth * kWide; i += kThreads) {
    const int row = i / kWide, column = i % kWide * kPart;
    const bool inside = at + row < p.k && column < columns;
    copy_async(&to.b[row][column], inside ? b + static_cast<int64_t>(at + row) * p.width + column : b, inside ? 16 : 0);
  }
}

// Row tiles of all groups up to each group, itself included, into shared memory.
__device__ void sum_tiles(int* upto, const Problem& p) {
  for (int group = threadIdx.x; group < p.groups; group += kThreads)
    upto[group] = static_cast<int>((p.offsets[group + 1] - p.offsets[group] + BLOCK_M - 1) / BLOCK_M);
  __syncthreads();
  if (threadIdx.x < 32) {  // one warp, 32 groups at a time
    int before = 0;
    for (int first = 0; first < p.groups; first += 32) {
      const int group = first + threadIdx.x;
      int sum = group < p.groups ? upto[group] : 0;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(~0u, sum, step);
        if (static_cast<int>(threadIdx.x) >= step) sum += other;
      }
      if (group < p.groups) upto[group] = before + sum;
      before += __shfl_sync(~0u, sum, 31);
    }
  }
  __syncthreads();
}

template <typename T, bool kAligned>
__global__ void __launch_bounds__(kThreads) all_tiles(const T* a, const T* b, T* out, Problem p) {
  extern __shared__ __align__(128) unsigned char memory[];
  auto* stages = reinterpret_cast<Stage<T>*>(memory);
  int* upto = reinterpret_cast<int*>(memory + STAGES * sizeof(Stage<T>));
  sum_tiles(upto, p);
  const int tiles_n = (p.n + BLOCK_N - 1) / BLOCK_N, steps = (p.k + Stage<T>::kDepth - 1) / Stage<T>::kDepth;
  const int64_t total = static_cast<int64_t>(upto[p.groups - 1]) * tiles_n;

  for (int64_t tile = blockIdx.x; tile < total; tile += gridDim.x) {
    int low = 0, high = p.groups - 1;  // the first group that ends behind the tile
    while (low < high) {
      const int middle = (low + high) / 2;
      if (static_cast<int64_t>(upto[middle]) * tiles_n > tile) high = middle;
      else low = middle + 1;
    }
    const int first = low > 0 ? upto[low - 1] : 0, tiles_m = upto[low] - first;
    const int64_t local = tile - static_cast<int64_t>(first) * tiles_n;
    // Down the rows first: blocks at work side by side read the same weights.
    const int row = static_cast<int>(local % tiles_m) * BLOCK_M, column = static_cast<int>(local / tiles_m) * BLOCK_N;
    const int64_t begin = p.offsets[low] + row;
    const int rows = static_cast<int>(min(p.offsets[low + 1] - begin, int64_t{BLOCK_M}));
    const T* a_part = a + begin * p.k;
    const T* b_part = b + static_cast<int64_t>(low) * p.k * p.width + column;
    const auto fetch_step = [&](int step) {
      if (step < steps)
        fetch<T, kAligned>(stages[step % STAGES], a_part, b_part, step * Stage<T>::kDepth, rows, p.width - column, p);
      asm volatile("cp.async.commit_group;" ::);
    };

    Accumulator<T> sum;
    for (int step = 0; step < STAGES - 1; ++step) fetch_step(step);
    for (int step = 0; step < steps; ++step) {
      asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
      __syncthreads();  // everyone's part is there, and nobody reads the stage before it any more
      fetch_step(step + STAGES - 1);
      sum.add(stages[step % STAGES]);
    }
    asm volatile("cp.async.wait_group %0;" ::"n"(0));
    __syncthreads();

    T* to = out + begin * p.n + column;
    sum.visit([&](int i, int j, float value) {
      if (i < rows && column + j < p.n) store(to + static_cast<int64_t>(i) * p.n + j, value);
    });
  }
}

template <typename T>
__global__ void widen(const T* from, T* to, int64_t rows, int n, int width) {
  const int64_t at = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (at < rows * width) to[at] = at % width < n ? from[at / width * n + at % width] : T{};
}

void check(cudaError_t error) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << cudaGetErrorString(error);
}

cudaStream_t stream_of(DLDevice device) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(device.device_type, device.device_id));
}

template <typename T>
ffi::Tensor pack(ffi::TensorView b) {
  const int64_t groups = b.size(0), k = b.size(1), n = b.size(2), width = (n + 7) / 8 * 8;
  auto packed = ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {groups, k, width}, b.dtype(), b.device());
  const int64_t blocks = (groups * k * width + kThreads - 1) / kThreads;
  widen<T><<<blocks, kThreads, 0, stream_of(b.device())>>>(static_cast<const T*>(b.data_ptr()),
                                                           static_cast<T*>(packed.data_ptr()), groups * k, n, width);
  check(cudaGetLastError());
  return packed;
}

template <typename T, bool kAligned>
void multiply(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView packed, ffi::TensorView out) {
  const int64_t rows = a.size(0), n = out.size(1);
  const Problem p{static_cast<const int64_t*>(offsets.data_ptr()), static_cast<int>(packed.size(0)),
                  static_cast<int>(a.size(1)), static_cast<int>(n), static_cast<int>(packed.size(2))};
  if (p.groups > kMostGroups) TVM_FFI_THROW(ValueError) << p.groups << " groups, at most " << kMostGroups;
  int multiprocessors = 0;
  check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, a.device().device_id));
  // A group has at most one tile of rows that isn't full.
  const int64_t bound = (rows / BLOCK_M + (p.groups < rows ? p.groups : rows)) * ((n + BLOCK_N - 1) / BLOCK_N);
  const int64_t blocks = multiprocessors * BLOCKS_EACH < bound ? multiprocessors * BLOCKS_EACH : bound;
  const int bytes = STAGES * sizeof(Stage<T>) + p.groups * sizeof(int);
  check(cudaFuncSetAttribute(all_tiles<T, kAligned>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  all_tiles<T, kAligned><<<blocks, kThreads, bytes, stream_of(a.device())>>>(
      static_cast<const T*>(a.data_ptr()), static_cast<const T*>(packed.data_ptr()),
      static_cast<T*>(out.data_ptr()), p);
  check(cudaGetLastError());
}

template <typename T>
void multiply_any(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView packed, ffi::TensorView out) {
  const bool aligned = a.size(1) * sizeof(T) % 16 == 0;
  (aligned ? multiply<T, true> : multiply<T, false>)(a, offsets, packed, out);
}

}  // namespace

// The weights with rows of a multiple of 8 elements: wide, aligned copies for any n.
ffi::Tensor prepare(ffi::TensorView b) { return b.dtype().bits == 32 ? pack<float>(b) : pack<__half>(b); }

void run(ffi::TensorView a, ffi::TensorView offsets, ffi::TensorView, ffi::TensorView packed, ffi::TensorView out) {
  if (a.dtype().bits == 32) return multiply_any<float>(a, offsets, packed, out);
  if (a.dtype().code == kDLBfloat) return multiply_any<__nv_bfloat16>(a, offsets, packed, out);
  multiply_any<__half>(a, offsets, packed, out);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare, prepare)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
