// The user's part once for each user, then the candidate's part with the user's added as the tile is written.
//
// Both phases are one batched product, weights [m, k] times embeddings [k, n], launched twice. The user's part stays in
// float32 between them, so that it is rounded once, with the sum. Tiles go through tensor cores (mma) fed by
// asynchronous copies, STAGES of them under way; float32 is computed in float32, by ordinary multiply-adds.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <cstdint>

// tunable BLOCK_M: 64 128
// tunable BLOCK_N: 128 64 256
// tunable BLOCK_BYTES: 64 128
// tunable STAGES: 4 3 2

namespace ffi = tvm::ffi;

namespace {

constexpr int kThreads = 256, kWarps = 8;
constexpr int kWarpsM = 2, kWarpsN = kWarps / kWarpsM;  // how the warps share a tile
constexpr int kWarpM = BLOCK_M / kWarpsM, kWarpN = BLOCK_N / kWarpsN;
static_assert(kWarpM % 16 == 0 && kWarpN % 16 == 0, "a warp computes whole 16 x 16 parts");
constexpr int kPad = 128;  // the packed weights' rows are padded to multiples of as many bytes

// A tile's part of both factors in shared memory. Rows are padded by 16 bytes, so that no two rows of a fragment fall
// into the same banks.
template <typename T>
struct Stage {
  static constexpr int kDepth = BLOCK_BYTES / sizeof(T), kPart = 16 / sizeof(T);
  T a[BLOCK_M][kDepth + kPart];
  T b[kDepth][BLOCK_N + kPart];
};

// One phase: embeddings [items, k, n], and the columns of the packed weights that belong to them.
struct Phase {
  int m, k, n, stride;
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

// Fetches the part of both factors from feature `at` on. The packed weights are zero past the last feature; past it the
// embeddings count as zero, since zero times what lies there could be NaN.
template <typename T, bool kAligned>
__device__ void fetch(Stage<T>& to, const T* weights, const T* embedding, int at, int rows, int columns,
                      const Phase& p) {
  constexpr int kPart = Stage<T>::kPart, kAcross = Stage<T>::kDepth / kPart, kWide = BLOCK_N / kPart;
#pragma unroll
  for (int i = threadIdx.x; i < BLOCK_M * kAcross; i += kThreads) {
    const int row = i / kAcross, column = i % kAcross * kPart;
    const bool inside = row < rows;
    copy_async(&to.a[row][column], inside ? weights + static_cast<int64_t>(row) * p.stride + at + column : weights,
               inside ? 16 : 0);
  }
#pragma unroll
  for (int i = threadIdx.x; i < Stage<T>::kDepth * kWide; i += kThreads) {
    const int row = i / kWide, column = i % kWide * kPart;
    const T* from = embedding + static_cast<int64_t>(at + row) * p.n + column;
    if constexpr (kAligned) {
      const bool inside = at + row < p.k && column < columns;
      copy_async(&to.b[row][column], inside ? from : embedding, inside ? 16 : 0);
    } else {  // odd rows allow no wide loads
#pragma unroll
      for (int e = 0; e < kPart; ++e) to.b[row][column + e] = at + row < p.k && column + e < columns ? from[e] : T{};
    }
  }
}

// One tile of weights @ embeddings[item]; with `user_of`, plus that of the item's user.
template <typename T, typename Out, bool kAligned>
__global__ void __launch_bounds__(kThreads) product(const T* weights, const T* embeddings, const float* users_part,
                                                    const int64_t* user_of, Out* out, Phase p) {
  extern __shared__ __align__(128) unsigned char memory[];
  auto* stages = reinterpret_cast<Stage<T>*>(memory);
  // The tiles of an item are neighbours: its embedding comes from memory once, the weights stay in the L2 cache.
  const int tiles_m = (p.m + BLOCK_M - 1) / BLOCK_M, tiles_n = (p.n + BLOCK_N - 1) / BLOCK_N;
  const int tile = blockIdx.x % (tiles_m * tiles_n);
  const int64_t item = blockIdx.x / (tiles_m * tiles_n);
  const int row = tile % tiles_m * BLOCK_M, column = tile / tiles_m * BLOCK_N;
  const int steps = (p.k + Stage<T>::kDepth - 1) / Stage<T>::kDepth;
  const T* a = weights + static_cast<int64_t>(row) * p.stride;
  const T* b = embeddings + item * p.k * p.n + column;
  const auto fetch_step = [&](int step) {
    if (step < steps)
      fetch<T, kAligned>(stages[step % STAGES], a, b, step * Stage<T>::kDepth, p.m - row, p.n - column, p);
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

  const int64_t size = static_cast<int64_t>(p.m) * p.n, place = static_cast<int64_t>(row) * p.n + column;
  const float* add = user_of == nullptr ? nullptr : users_part + user_of[item] * size + place;
  Out* to = out + item * size + place;
  sum.visit([&](int i, int j, float value) {
    if (row + i >= p.m || column + j >= p.n) return;
    const int64_t at = static_cast<int64_t>(i) * p.n + j;
    store(to + at, add == nullptr ? value : value + add[at]);
  });
}

// Both weights beside each other, padded with zeros.
template <typename T>
__global__ void join(const T* w_cand, const T* w_user, T* packed, int m, int k_cand, int k_user, int user_column,
                     int stride) {
  const int64_t at = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (at >= static_cast<int64_t>(m) * stride) return;
  const int row = static_cast<int>(at / stride), column = static_cast<int>(at % stride), of_user = column - user_column;
  T value{};
  if (column < k_cand) value = w_cand[static_cast<int64_t>(row) * k_cand + column];
  if (of_user >= 0 && of_user < k_user) value = w_user[static_cast<int64_t>(row) * k_user + of_user];
  packed[at] = value;
}

void check(cudaError_t error) {
  if (error != cudaSuccess) TVM_FFI_THROW(RuntimeError) << cudaGetErrorString(error);
}

cudaStream_t stream_of(DLDevice device) {
  return static_cast<cudaStream_t>(TVMFFIEnvGetStream(device.device_type, device.device_id));
}

template <typename T>
constexpr int64_t padded(int64_t k) {
  constexpr int64_t kUnit = kPad / sizeof(T);
  return (k + kUnit - 1) / kUnit * kUnit;
}

template <typename T>
ffi::Tensor pack(ffi::TensorView w_cand, ffi::TensorView w_user) {
  const int64_t m = w_cand.size(0), k_cand = w_cand.size(1), k_user = w_user.size(1);
  const int64_t user_column = padded<T>(k_cand), stride = user_column + padded<T>(k_user);
  auto packed = ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {m, stride}, w_cand.dtype(), w_cand.device());
  join<T><<<(m * stride + kThreads - 1) / kThreads, kThreads, 0, stream_of(w_cand.device())>>>(
      static_cast<const T*>(w_cand.data_ptr()), static_cast<const T*>(w_user.data_ptr()),
      static_cast<T*>(packed.data_ptr()), m, k_cand, k_user, user_column, stride);
  check(cudaGetLastError());
  return packed;
}

template <typename T, typename Out, bool kAligned>
void launch(const void* weights, ffi::TensorView embeddings, const float* users_part, const int64_t* user_of, void* out,
            int64_t m, int64_t stride) {
  const Phase p{static_cast<int>(m), static_cast<int>(embeddings.size(1)), static_cast<int>(embeddings.size(2)),
                static_cast<int>(stride)};
  const int64_t tiles = ((p.m + BLOCK_M - 1) / BLOCK_M) * ((p.n + BLOCK_N - 1) / BLOCK_N);
  const int bytes = STAGES * sizeof(Stage<T>);
  check(cudaFuncSetAttribute(product<T, Out, kAligned>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  product<T, Out, kAligned><<<embeddings.size(0) * tiles, kThreads, bytes, stream_of(embeddings.device())>>>(
      static_cast<const T*>(weights), static_cast<const T*>(embeddings.data_ptr()), users_part, user_of,
      static_cast<Out*>(out), p);
  check(cudaGetLastError());
}

template <typename T, bool kAligned>
void rank(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of, ffi::TensorView packed,
          ffi::TensorView out) {
  const int64_t users = e_user.size(0), m = out.size(1), n = out.size(2), stride = packed.size(1);
  const DLDataType wide{kDLFloat, 32, 1};
  auto scratch = ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {users, m, n}, wide, out.device());
  auto* users_part = static_cast<float*>(scratch.data_ptr());
  const T* weights = static_cast<const T*>(packed.data_ptr());
  launch<T, float, kAligned>(weights + padded<T>(e_cand.size(1)), e_user, nullptr, nullptr, users_part, m, stride);
  launch<T, T, kAligned>(weights, e_cand, users_part, static_cast<const int64_t*>(user_of.data_ptr()), out.data_ptr(),
                         m, stride);
}

template <typename T>
void rank_any(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of, ffi::TensorView packed,
              ffi::TensorView out) {
  const bool aligned = out.size(2) * sizeof(T) % 16 == 0;
  (aligned ? rank<T, true> : rank<T, false>)(e_cand, e_user, user_of, packed, out);
}

}  // namespace

ffi::Tensor prepare(ffi::TensorView w_cand, ffi::TensorView w_user) {
  return w_cand.dtype().bits == 32 ? pack<float>(w_cand, w_user) : pack<__half>(w_cand, w_user);
}

void run(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of, ffi::TensorView, ffi::TensorView,
         ffi::TensorView packed, ffi::TensorView out) {
  if (out.dtype().bits == 32) return rank_any<float>(e_cand, e_user, user_of, packed, out);
  if (out.dtype().code == kDLBfloat) return rank_any<__nv_bfloat16>(e_cand, e_user, user_of, packed, out);
  rank_any<__half>(e_cand, e_user, user_of, packed, out);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare, prepare)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
