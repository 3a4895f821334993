#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <type_traits>

// tunable CONSUMERS: 2 1
// tunable DEEP: 4 3

// The general path, for float32 and for rows that TMA can't address.
#define BLOCK_M 64
#define BLOCK_N 128
#define BLOCK_BYTES 64
#define STAGES 4

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

// ---- The fast path: one persistent, warp-specialised kernel on wgmma and TMA. ----
//
// Transposed: out[item]^T [n, m] = e[item]^T [n, k] W^T [k, m]. A warpgroup owns 64 columns n ("a strip") and WIDE = 224
// features m, so that 433 is 2 x 224. The strips of all items lie in one row, CONSUMERS of them a tile.
constexpr int kWide = 224, kDeep = 64, kStrip = 64, kRegs = kWide / 2;
constexpr int kABytes = kStrip * kDeep * 2, kBBytes = kWide * kDeep * 2;
constexpr int kStageBytes = CONSUMERS * kABytes + kBBytes;
constexpr int kOutBytes = 32 * kStrip * 2, kBuffers = CONSUMERS == 2 ? 2 : 1;
constexpr int kFastThreads = CONSUMERS * 128 + 32;  // a single warp produces
constexpr int kFastBytes = 1024 + DEEP * kStageBytes + CONSUMERS * kBuffers * kOutBytes + 256;
static_assert(kFastBytes <= 232448, "too many stages");

struct Shape {
  int m, k_cand, k_user, user_column, strips_per_item, tiles_m, user_strips, cand_strips, user_tiles, tiles;
};

__device__ __forceinline__ void barrier_init(uint32_t bar, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint32_t bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t bar) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t bar, int parity) {
  asm volatile(
      "{\n.reg .pred p;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra DONE;\nbra AGAIN;\n"
      "DONE:\n}\n" ::"r"(bar), "r"(parity) : "memory");
}
__device__ __forceinline__ void tma_load(uint32_t to, const CUtensorMap* map, uint32_t bar, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(
          to), "l"(map), "r"(bar), "r"(x), "r"(y), "r"(z) : "memory");
}
__device__ __forceinline__ void tma_store(uint32_t from, const CUtensorMap* map, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(map), "r"(from),
               "r"(x), "r"(y), "r"(z) : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
__device__ __forceinline__ void sync_group(int group) {
  asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory");
}

// 128-byte swizzle; groups of eight 128-byte rows follow each other.
__device__ __forceinline__ uint64_t matrix(uint32_t at) {
  return static_cast<uint64_t>((at & 0x3FFFF) >> 4) | (static_cast<uint64_t>(1024 >> 4) << 16) |
         (static_cast<uint64_t>(1024 >> 4) << 32) | (static_cast<uint64_t>(1) << 62);
}

// d (+)= a^T b: a [16 of k][64 of n] and b [224 of m][16 of k] in shared memory.
__device__ __forceinline__ void warpgroup_multiply(float (&d)[kRegs], uint64_t a, uint64_t b, int add, __half) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %114, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n224k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111}, %112, %113, p, 1, 1, 1, 0;\n}\n"
               : "+f"(d[0]),"+f"(d[1]),"+f"(d[2]),"+f"(d[3]),"+f"(d[4]),"+f"(d[5]),"+f"(d[6]),"+f"(d[7]),"+f"(d[8]),"+f"(d[9]),"+f"(d[10]),"+f"(d[11]),"+f"(d[12]),"+f"(d[13]),"+f"(d[14]),"+f"(d[15]),"+f"(d[16]),"+f"(d[17]),"+f"(d[18]),"+f"(d[19]),"+f"(d[20]),"+f"(d[21]),"+f"(d[22]),"+f"(d[23]),"+f"(d[24]),"+f"(d[25]),"+f"(d[26]),"+f"(d[27]),"+f"(d[28]),"+f"(d[29]),"+f"(d[30]),"+f"(d[31]),"+f"(d[32]),"+f"(d[33]),"+f"(d[34]),"+f"(d[35]),"+f"(d[36]),"+f"(d[37]),"+f"(d[38]),"+f"(d[39]),"+f"(d[40]),"+f"(d[41]),"+f"(d[42]),"+f"(d[43]),"+f"(d[44]),"+f"(d[45]),"+f"(d[46]),"+f"(d[47]),"+f"(d[48]),"+f"(d[49]),"+f"(d[50]),"+f"(d[51]),"+f"(d[52]),"+f"(d[53]),"+f"(d[54]),"+f"(d[55]),"+f"(d[56]),"+f"(d[57]),"+f"(d[58]),"+f"(d[59]),"+f"(d[60]),"+f"(d[61]),"+f"(d[62]),"+f"(d[63]),"+f"(d[64]),"+f"(d[65]),"+f"(d[66]),"+f"(d[67]),"+f"(d[68]),"+f"(d[69]),"+f"(d[70]),"+f"(d[71]),"+f"(d[72]),"+f"(d[73]),"+f"(d[74]),"+f"(d[75]),"+f"(d[76]),"+f"(d[77]),"+f"(d[78]),"+f"(d[79]),"+f"(d[80]),"+f"(d[81]),"+f"(d[82]),"+f"(d[83]),"+f"(d[84]),"+f"(d[85]),"+f"(d[86]),"+f"(d[87]),"+f"(d[88]),"+f"(d[89]),"+f"(d[90]),"+f"(d[91]),"+f"(d[92]),"+f"(d[93]),"+f"(d[94]),"+f"(d[95]),"+f"(d[96]),"+f"(d[97]),"+f"(d[98]),"+f"(d[99]),"+f"(d[100]),"+f"(d[101]),"+f"(d[102]),"+f"(d[103]),"+f"(d[104]),"+f"(d[105]),"+f"(d[106]),"+f"(d[107]),"+f"(d[108]),"+f"(d[109]),"+f"(d[110]),"+f"(d[111])
               : "l"(a), "l"(b), "r"(add));
}
__device__ __forceinline__ void warpgroup_multiply(float (&d)[kRegs], uint64_t a, uint64_t b, int add, __nv_bfloat16) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %114, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n224k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111}, %112, %113, p, 1, 1, 1, 0;\n}\n"
               : "+f"(d[0]),"+f"(d[1]),"+f"(d[2]),"+f"(d[3]),"+f"(d[4]),"+f"(d[5]),"+f"(d[6]),"+f"(d[7]),"+f"(d[8]),"+f"(d[9]),"+f"(d[10]),"+f"(d[11]),"+f"(d[12]),"+f"(d[13]),"+f"(d[14]),"+f"(d[15]),"+f"(d[16]),"+f"(d[17]),"+f"(d[18]),"+f"(d[19]),"+f"(d[20]),"+f"(d[21]),"+f"(d[22]),"+f"(d[23]),"+f"(d[24]),"+f"(d[25]),"+f"(d[26]),"+f"(d[27]),"+f"(d[28]),"+f"(d[29]),"+f"(d[30]),"+f"(d[31]),"+f"(d[32]),"+f"(d[33]),"+f"(d[34]),"+f"(d[35]),"+f"(d[36]),"+f"(d[37]),"+f"(d[38]),"+f"(d[39]),"+f"(d[40]),"+f"(d[41]),"+f"(d[42]),"+f"(d[43]),"+f"(d[44]),"+f"(d[45]),"+f"(d[46]),"+f"(d[47]),"+f"(d[48]),"+f"(d[49]),"+f"(d[50]),"+f"(d[51]),"+f"(d[52]),"+f"(d[53]),"+f"(d[54]),"+f"(d[55]),"+f"(d[56]),"+f"(d[57]),"+f"(d[58]),"+f"(d[59]),"+f"(d[60]),"+f"(d[61]),"+f"(d[62]),"+f"(d[63]),"+f"(d[64]),"+f"(d[65]),"+f"(d[66]),"+f"(d[67]),"+f"(d[68]),"+f"(d[69]),"+f"(d[70]),"+f"(d[71]),"+f"(d[72]),"+f"(d[73]),"+f"(d[74]),"+f"(d[75]),"+f"(d[76]),"+f"(d[77]),"+f"(d[78]),"+f"(d[79]),"+f"(d[80]),"+f"(d[81]),"+f"(d[82]),"+f"(d[83]),"+f"(d[84]),"+f"(d[85]),"+f"(d[86]),"+f"(d[87]),"+f"(d[88]),"+f"(d[89]),"+f"(d[90]),"+f"(d[91]),"+f"(d[92]),"+f"(d[93]),"+f"(d[94]),"+f"(d[95]),"+f"(d[96]),"+f"(d[97]),"+f"(d[98]),"+f"(d[99]),"+f"(d[100]),"+f"(d[101]),"+f"(d[102]),"+f"(d[103]),"+f"(d[104]),"+f"(d[105]),"+f"(d[106]),"+f"(d[107]),"+f"(d[108]),"+f"(d[109]),"+f"(d[110]),"+f"(d[111])
               : "l"(a), "l"(b), "r"(add));
}

__device__ __forceinline__ uint32_t both(float low, float high, __half) {
  const __half2 two = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&two);
}
__device__ __forceinline__ uint32_t both(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&two);
}

// Tiles of users come first. A candidate's strip waits for its user's only when its own product is done. All blocks are
// resident (one a multiprocessor), and a block does its tiles in order, so that nobody waits in a circle.
template <typename T>
__global__ void __launch_bounds__(kFastThreads, 1)
    fused(const __grid_constant__ CUtensorMap weights, const __grid_constant__ CUtensorMap of_cand,
          const __grid_constant__ CUtensorMap of_user, const __grid_constant__ CUtensorMap to_out, const int64_t* user_of,
          float4* table, int* flags, const Shape s) {
  extern __shared__ unsigned char fast_memory[];
  const uint32_t memory = (shared_address(fast_memory) + 1023) & ~1023u;
  const uint32_t staging = memory + DEEP * kStageBytes;
  const uint32_t bars = staging + CONSUMERS * kBuffers * kOutBytes;  // full, then empty
  if (threadIdx.x == 0) {
    for (int i = 0; i < DEEP; ++i) {
      barrier_init(bars + 8 * i, 1);
      barrier_init(bars + 8 * (DEEP + i), CONSUMERS);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async;" ::: "memory");
  }
  __syncthreads();
  const int group = threadIdx.x / 128;
  int stage = 0, parity = 0;

  if (group == CONSUMERS) {  // the producer
    if (threadIdx.x == CONSUMERS * 128) {
      for (int tile = blockIdx.x; tile < s.tiles; tile += gridDim.x) {
        const bool user = tile < s.user_tiles;
        const int local = user ? tile : tile - s.user_tiles;
        const int first = local / s.tiles_m * CONSUMERS, row = local % s.tiles_m * kWide;
        const int k = user ? s.k_user : s.k_cand, column = user ? s.user_column : 0;
        const CUtensorMap* of = user ? &of_user : &of_cand;
        for (int at = 0; at < k; at += kDeep) {
          const uint32_t here = memory + stage * kStageBytes, full = bars + 8 * stage;
          barrier_wait(bars + 8 * (DEEP + stage), parity ^ 1);
          barrier_expect(full, kStageBytes);
          tma_load(here + CONSUMERS * kABytes, &weights, full, column + at, row, 0);
#pragma unroll
          for (int c = 0; c < CONSUMERS; ++c) {
            const int strip = first + c, item = strip / s.strips_per_item;  // past the last item: zeros
            tma_load(here + c * kABytes, of, full, (strip - item * s.strips_per_item) * kStrip, at, item);
          }
          if (++stage == DEEP) stage = 0, parity ^= 1;
        }
      }
    }
    return;
  }

  const int thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
  const uint32_t mine = staging + group * kBuffers * kOutBytes;
  int buffer = 0;
  float d[kRegs] = {};
  for (int tile = blockIdx.x; tile < s.tiles; tile += gridDim.x) {
    const bool user = tile < s.user_tiles;
    const int local = user ? tile : tile - s.user_tiles;
    const int strip = local / s.tiles_m * CONSUMERS + group, part = local % s.tiles_m;
    const int steps = ((user ? s.k_user : s.k_cand) + kDeep - 1) / kDeep;
    int before = 0;
    for (int step = 0; step < steps; ++step) {
      const uint32_t here = memory + stage * kStageBytes;
      barrier_wait(bars + 8 * stage, parity);
      const uint64_t a = matrix(here + group * kABytes), b = matrix(here + CONSUMERS * kABytes);
      asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
      for (int k = 0; k < kDeep / 16; ++k)
        warpgroup_multiply(d, a + k * (16 * 128 >> 4), b + k * (32 >> 4), step + k > 0, T{});
      asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
      asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
      if (step > 0 && thread == 0) barrier_arrive(bars + 8 * (DEEP + before));
      before = stage;
      if (++stage == DEEP) stage = 0, parity ^= 1;
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    if (thread == 0) barrier_arrive(bars + 8 * (DEEP + before));
#pragma unroll
    for (int i = 0; i < kRegs; ++i) asm volatile("" : "+f"(d[i])::"memory");  // nothing reads them before the wait

    if (user) {  // kept in the order in which threads hold it: the reader is the same thread of another group
      if (strip < s.user_strips) {
        const int64_t place = static_cast<int64_t>(strip) * s.tiles_m + part;
        float4* to = table + place * (kRegs / 4 * 128) + thread;
#pragma unroll
        for (int q = 0; q < kRegs / 4; ++q) __stcg(to + q * 128, make_float4(d[4 * q], d[4 * q + 1], d[4 * q + 2], d[4 * q + 3]));
        __threadfence();
        sync_group(group);
        if (thread == 0) asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(flags + place), "r"(1) : "memory");
      }
      continue;
    }
    if (strip >= s.cand_strips) continue;
    const int item = strip / s.strips_per_item, inner = strip - item * s.strips_per_item;
    const int64_t place = (user_of[item] * s.strips_per_item + inner) * s.tiles_m + part;
    int ready = 0;
    while (!ready) asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(ready) : "l"(flags + place) : "memory");
    const float4* from = table + place * (kRegs / 4 * 128) + thread;
#pragma unroll
    for (int chunk = 0; chunk < kWide / 32; ++chunk) {
      float4 add[4];
#pragma unroll
      for (int q = 0; q < 4; ++q) add[q] = __ldcg(from + (4 * chunk + q) * 128);
      // The buffer is free once the store before (the one before that, with two buffers) has read it.
      if (thread == 0) {
        if constexpr (kBuffers == 2)
          asm volatile("cp.async.bulk.wait_group.read 1;" ::: "memory");
        else
          asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
      }
      sync_group(group);
      const uint32_t to = mine + buffer * kOutBytes;
#pragma unroll
      for (int q = 0; q < 4; q += 2) {
        const int i = 16 * chunk + 4 * q;
        const uint32_t r0 = both(d[i] + add[q].x, d[i + 1] + add[q].y, T{});
        const uint32_t r1 = both(d[i + 2] + add[q].z, d[i + 3] + add[q].w, T{});
        const uint32_t r2 = both(d[i + 4] + add[q + 1].x, d[i + 5] + add[q + 1].y, T{});
        const uint32_t r3 = both(d[i + 6] + add[q + 1].z, d[i + 7] + add[q + 1].w, T{});
        const int row = 8 * (q + lane / 16) + lane % 8, piece = warp * 2 + lane / 8 % 2;
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                         to + row * 128 + ((piece ^ (row % 8)) << 4)), "r"(r0), "r"(r1), "r"(r2), "r"(r3) : "memory");
      }
      asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
      sync_group(group);
      if (thread == 0) tma_store(to, &to_out, inner * kStrip, part * kWide + 32 * chunk, item);
      if constexpr (kBuffers == 2) buffer ^= 1;
    }
  }
  if (thread == 0) asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

template <typename T>
CUtensorMap map_of(Encode encode, const void* at, int64_t x, int64_t y, int64_t z, int box_x, int box_y) {
  CUtensorMap map;
  const auto type = std::is_same<T, __half>::value ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const cuuint64_t dims[3] = {static_cast<cuuint64_t>(x), static_cast<cuuint64_t>(y), static_cast<cuuint64_t>(z)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(x * 2), static_cast<cuuint64_t>(x * y * 2)};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(box_x), static_cast<cuuint32_t>(box_y), 1}, steps[3] = {1, 1, 1};
  if (encode(&map, type, 3, const_cast<void*>(at), dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
    TVM_FFI_THROW(RuntimeError) << "no tensor map";
  return map;
}

Encode encoder() {
  static const Encode found = [] {
    void* at = nullptr;
    cudaDriverEntryPointQueryResult result;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &at, 12000, cudaEnableDefault, &result) !=
            cudaSuccess ||
        result != cudaDriverEntryPointSuccess)
      at = nullptr;
    return reinterpret_cast<Encode>(at);
  }();
  return found;
}

// False where TMA can't address the tensors.
template <typename T>
bool rank_fast(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of, ffi::TensorView packed,
               ffi::TensorView out) {
  const int64_t candidates = e_cand.size(0), users = e_user.size(0), m = out.size(1), n = out.size(2);
  const int64_t k_cand = e_cand.size(1), k_user = e_user.size(1), stride = packed.size(1);
  const auto addresses = reinterpret_cast<uintptr_t>(e_cand.data_ptr()) | reinterpret_cast<uintptr_t>(e_user.data_ptr()) |
                         reinterpret_cast<uintptr_t>(out.data_ptr()) | reinterpret_cast<uintptr_t>(packed.data_ptr());
  const Encode encode = encoder();
  if (n % 8 != 0 || addresses % 16 != 0 || encode == nullptr || k_cand < 1 || k_user < 1 || m < 1 || users < 1)
    return false;
  const int64_t per_item = (n + kStrip - 1) / kStrip, tiles_m = (m + kWide - 1) / kWide;
  const int64_t user_tiles = (users * per_item + CONSUMERS - 1) / CONSUMERS * tiles_m;
  const int64_t tiles = user_tiles + (candidates * per_item + CONSUMERS - 1) / CONSUMERS * tiles_m;
  if (tiles > 1000000000 || candidates * per_item > 1000000000) return false;
  const Shape s{static_cast<int>(m),          static_cast<int>(k_cand),  static_cast<int>(k_user),
                static_cast<int>(padded<T>(k_cand)), static_cast<int>(per_item), static_cast<int>(tiles_m),
                static_cast<int>(users * per_item), static_cast<int>(candidates * per_item),
                static_cast<int>(user_tiles), static_cast<int>(tiles)};
  const DLDevice device = out.device();
  const cudaStream_t stream = stream_of(device);
  const int64_t blocks = users * per_item * tiles_m;
  const int64_t flag_bytes = (blocks * 4 + 255) / 256 * 256;
  auto scratch = ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {flag_bytes + blocks * kRegs * 128 * 4},
                                           DLDataType{kDLUInt, 8, 1}, device);
  auto* bytes = static_cast<unsigned char*>(scratch.data_ptr());
  check(cudaMemsetAsync(bytes, 0, flag_bytes, stream));
  int processors = 0;
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device.device_id));
  const auto weights = map_of<T>(encode, packed.data_ptr(), stride, m, 1, kDeep, kWide);
  const auto of_cand = map_of<T>(encode, e_cand.data_ptr(), n, k_cand, candidates, kStrip, kDeep);
  const auto of_user = map_of<T>(encode, e_user.data_ptr(), n, k_user, users, kStrip, kDeep);
  const auto to_out = map_of<T>(encode, out.data_ptr(), n, m, candidates, kStrip, 32);
  check(cudaFuncSetAttribute(fused<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, kFastBytes));
  fused<T><<<static_cast<unsigned>(tiles < processors ? tiles : processors), kFastThreads, kFastBytes, stream>>>(
      weights, of_cand, of_user, to_out, static_cast<const int64_t*>(user_of.data_ptr()),
      reinterpret_cast<float4*>(bytes + flag_bytes), reinterpret_cast<int*>(bytes), s);
  check(cudaGetLastError());
  return true;
}

}  // namespace

ffi::Tensor prepare(ffi::TensorView w_cand, ffi::TensorView w_user) {
  return w_cand.dtype().bits == 32 ? pack<float>(w_cand, w_user) : pack<__half>(w_cand, w_user);
}

void run(ffi::TensorView e_cand, ffi::TensorView e_user, ffi::TensorView user_of, ffi::TensorView, ffi::TensorView,
         ffi::TensorView packed, ffi::TensorView out) {
  if (out.size(0) == 0 || out.size(1) == 0 || out.size(2) == 0) return;
  if (out.dtype().bits == 32) return rank_any<float>(e_cand, e_user, user_of, packed, out);
  const bool brain = out.dtype().code == kDLBfloat;
  if (brain ? rank_fast<__nv_bfloat16>(e_cand, e_user, user_of, packed, out)
            : rank_fast<__half>(e_cand, e_user, user_of, packed, out))
    return;
  if (brain) return rank_any<__nv_bfloat16>(e_cand, e_user, user_of, packed, out);
  rank_any<__half>(e_cand, e_user, user_of, packed, out);
}

TVM_FFI_DLL_EXPORT_TYPED_FUNC(prepare, prepare)
TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)
