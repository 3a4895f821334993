// CUDA C++ on a CPU, for tests: one block after the other, every thread of a block a fiber that runs until it waits.
//
// What it is strict about: threads of a block run in an order that can be chosen (a race shows as another answer),
// asynchronous copies happen as early or as late as they may, dynamic shared memory begins as NaN, misaligned vector
// accesses and launches that a device refuses are errors. What it can't do: blocks that wait for each other, threads
// that spin, tensor memory and warp-group instructions. Arithmetic is the host's: float is IEEE, without flushing.
#pragma once
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __CUDACC__ 1
#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 { unsigned x, y, z; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
  cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81
};

namespace emulated {

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulated device: %s, in block %u %u %u\n", what, blockIdx.x, blockIdx.y, blockIdx.z);
  std::abort();
}

inline constexpr size_t kStack = 128 << 10, kShared = 227 << 10, kDeclared = 48 << 10;
inline constexpr int kMultiprocessors = 3;  // few, so that a persistent kernel has several turns
alignas(1024) inline unsigned char dynamic_memory[kShared];
inline size_t dynamic_bytes = 0;
inline cudaError_t last_error = cudaSuccess;
inline std::map<const void*, size_t> allowed;
inline std::mt19937 random_order(EMULATED_ORDER);
inline constexpr int order = EMULATED_ORDER;  // 0 rising, copies at once; 1 falling, copies late; else random

inline void* dynamic_shared() { return dynamic_memory; }

enum class State { kReady, kWarp, kBlock, kDone };

struct Copy { void* to; const void* from; size_t bytes, valid; };

struct Fiber {
  jmp_buf at;
  ucontext_t first;
  std::unique_ptr<char[]> stack;
  bool started = false;
  State state = State::kDone;
  unsigned mask = 0;
  uint3 index{};
  std::vector<Copy> open;
  std::vector<std::vector<Copy>> groups;
};

struct Warp {
  uint64_t slots[2][32];  // what lanes say to each other; two, so that one can be read while the other is filled
  int turn[32];
};

inline std::vector<Fiber> fibers;
inline std::vector<Warp> warps;
inline jmp_buf scheduler;
inline unsigned self = 0;
inline const std::function<void()>* body = nullptr;

inline unsigned lane() { return self % 32; }
inline Warp& warp() { return warps[self / 32]; }

inline void leave() {
  if (_setjmp(fibers[self].at) == 0) _longjmp(scheduler, 1);
}

inline void fiber_main() {
  for (;;) {
    (*body)();
    if (!fibers[self].open.empty()) fail("a thread ends with asynchronous copies that were never committed");
    for (const auto& group : fibers[self].groups)
      if (!group.empty()) fail("a thread ends before its asynchronous copies were waited for");
    fibers[self].groups.clear();
    fibers[self].state = State::kDone;
    leave();
  }
}

inline void resume(unsigned number) {
  self = number;
  Fiber& fiber = fibers[number];
  threadIdx = fiber.index;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  fiber.stack.reset(new char[kStack]);
  getcontext(&fiber.first);
  fiber.first.uc_stack.ss_sp = fiber.stack.get();
  fiber.first.uc_stack.ss_size = kStack;
  fiber.first.uc_link = nullptr;
  makecontext(&fiber.first, fiber_main, 0);
  setcontext(&fiber.first);
}

inline std::vector<unsigned> permuted(unsigned begin, unsigned end) {
  std::vector<unsigned> found;
  for (unsigned i = begin; i < end; ++i) found.push_back(i);
  if (order == 1) std::reverse(found.begin(), found.end());
  if (order > 1) std::shuffle(found.begin(), found.end(), random_order);
  return found;
}

// Lanes go on once all that they wait for wait for them; a lane that has ended is not waited for.
inline bool release_lanes(unsigned begin, unsigned end) {
  bool released = false;
  for (unsigned i = begin; i < end; ++i) {
    if (fibers[i].state != State::kWarp) continue;
    bool all = true;
    for (unsigned j = begin; j < end; ++j)
      if (fibers[i].mask >> (j - begin) & 1 && fibers[j].state != State::kDone)
        all = all && fibers[j].state == State::kWarp && fibers[j].mask == fibers[i].mask;
    if (!all) continue;
    const unsigned mask = fibers[i].mask;
    for (unsigned j = begin; j < end; ++j)
      if (mask >> (j - begin) & 1 && fibers[j].state == State::kWarp) fibers[j].state = State::kReady;
    released = true;
  }
  return released;
}

// Runs a warp until all its lanes wait for the block, or have ended.
inline void run_warp(unsigned begin, unsigned end) {
  for (;;) {
    bool moved = false;
    for (unsigned i : permuted(begin, end))
      if (fibers[i].state == State::kReady) resume(i), moved = true;
    moved = release_lanes(begin, end) || moved;
    if (moved) continue;
    for (unsigned i = begin; i < end; ++i)
      if (fibers[i].state == State::kWarp) fail("lanes of a warp wait for lanes that wait elsewhere");
    return;
  }
}

inline void run_block(unsigned threads) {
  std::memset(dynamic_memory, 0xff, sizeof dynamic_memory);
  for (unsigned i = 0; i < threads; ++i) fibers[i].state = State::kReady;
  for (auto& w : warps) std::fill(std::begin(w.turn), std::end(w.turn), 0);
  for (;;) {
    for (unsigned w : permuted(0, (threads + 31) / 32)) run_warp(32 * w, std::min(threads, 32 * w + 32));
    bool waiting = false;
    for (unsigned i = 0; i < threads; ++i)
      if (fibers[i].state == State::kBlock) fibers[i].state = State::kReady, waiting = true;
    if (!waiting) return;
  }
}

template <typename Body>
void launch(const void* kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t, Body&& call) {
  const unsigned threads = block.x * block.y * block.z;
  const size_t most = allowed.count(kernel) ? allowed[kernel] : kDeclared;
  if (!threads || threads > 1024 || !grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535) {
    last_error = cudaErrorInvalidConfiguration;
    return;
  }
  if (shared > most) { last_error = cudaErrorInvalidValue; return; }
  const std::function<void()> work = call;
  body = &work;
  dynamic_bytes = shared;
  gridDim = grid, blockDim = block;
  if (fibers.size() < threads) fibers = std::vector<Fiber>(1024);
  warps.resize(32);
  for (unsigned i = 0; i < threads; ++i)
    fibers[i].index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
  for (unsigned b : permuted(0, grid.x * grid.y * grid.z)) {
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)};
    run_block(threads);
  }
}

// What follows `kernel<<<...>>>` in a source: grid, block, and optionally shared memory and stream.
template <typename Body>
void launch(const void* kernel, dim3 grid, dim3 block, size_t shared, Body&& call) {
  launch(kernel, grid, block, shared, nullptr, std::forward<Body>(call));
}
template <typename Body>
void launch(const void* kernel, dim3 grid, dim3 block, Body&& call) {
  launch(kernel, grid, block, 0, nullptr, std::forward<Body>(call));
}

inline void wait_block() {
  fibers[self].state = State::kBlock;
  leave();
}

inline void wait_warp(unsigned mask) {
  if (!(mask >> lane() & 1)) fail("a lane isn't in the mask that it names");
  fibers[self].state = State::kWarp;
  fibers[self].mask = mask;
  leave();
}

// Says a value to the other lanes; afterwards `heard` has what each of them said.
template <typename T>
const uint64_t* exchange(unsigned mask, T value) {
  static_assert(sizeof(T) <= 8, "lanes exchange at most 8 bytes");
  Warp& w = warp();
  uint64_t* heard = w.slots[w.turn[lane()] ^= 1];
  std::memcpy(&heard[lane()], &value, sizeof value);
  wait_warp(mask);
  return heard;
}

template <typename T>
T said(const uint64_t* heard, unsigned lane) {
  T value;
  std::memcpy(&value, &heard[lane], sizeof value);
  return value;
}

// Scratch and packed weights: poisoned.
struct Poisoned {
  void AllocData(DLTensor* tensor) {
    const size_t bytes = tvm::ffi::GetDataSize(*tensor);
    tensor->data = std::aligned_alloc(256, (bytes + 511) / 256 * 256);
    std::memset(tensor->data, 0xff, bytes);
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

inline int allocate(DLTensor* wanted, TVMFFIObjectHandle* made) {
  const tvm::ffi::ShapeView shape(wanted->shape, wanted->ndim);
  auto tensor = tvm::ffi::Tensor::FromNDAlloc(Poisoned(), shape, wanted->dtype, wanted->device);
  *made = tvm::ffi::details::ObjectUnsafe::MoveObjectRefToTVMFFIObjectPtr(std::move(tensor));
  return 0;
}

}  // namespace emulated

inline cudaError_t cudaGetLastError() { return std::exchange(emulated::last_error, cudaSuccess); }
inline cudaError_t cudaPeekAtLastError() { return emulated::last_error; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorInvalidConfiguration ? "invalid configuration argument" : "invalid argument";
}
template <typename F>
cudaError_t cudaFuncSetAttribute(F* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value > static_cast<int>(emulated::kShared)) return emulated::last_error = cudaErrorInvalidValue;
  emulated::allowed[reinterpret_cast<const void*>(kernel)] = value;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const bool count = attribute == cudaDevAttrMultiProcessorCount;
  *value = count ? emulated::kMultiprocessors : static_cast<int>(emulated::kShared);
  return cudaSuccess;
}
template <typename F>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, F*, int, size_t) {
  *blocks = 2;
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  std::memset(at, value, bytes);
  return cudaSuccess;
}

inline void __syncthreads() { emulated::wait_block(); }
inline void __syncwarp(unsigned mask = ~0u) { emulated::wait_warp(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const auto* heard = emulated::exchange(mask, value);
  return emulated::said<T>(heard, emulated::lane() / width * width + from % width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const auto* heard = emulated::exchange(mask, value);
  return emulated::said<T>(heard, emulated::lane() ^ bits);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const auto* heard = emulated::exchange(mask, value);
  return emulated::lane() % width < by ? value : emulated::said<T>(heard, emulated::lane() - by);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  const auto* heard = emulated::exchange(mask, value);
  const bool last = emulated::lane() % width + by >= static_cast<unsigned>(width);
  return last ? value : emulated::said<T>(heard, emulated::lane() + by);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const auto* heard = emulated::exchange<int>(mask, predicate != 0);
  unsigned found = 0;
  for (unsigned i = 0; i < 32; ++i)
    if (mask >> i & 1 && emulated::said<int>(heard, i)) found |= 1u << i;
  return found;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
inline int __syncthreads_or(int predicate) {
  static int seen;
  __syncthreads();
  if (emulated::self == 0) seen = 0;
  __syncthreads();
  seen |= predicate != 0;
  __syncthreads();
  return seen;
}

template <typename T, typename V>
T atomicAdd(T* at, V value) { return std::exchange(*at, static_cast<T>(*at + value)); }
template <typename T, typename V>
T atomicMax(T* at, V value) { return std::exchange(*at, std::max<T>(*at, value)); }
template <typename T, typename V>
T atomicMin(T* at, V value) { return std::exchange(*at, std::min<T>(*at, value)); }
template <typename T, typename V>
T atomicExch(T* at, V value) { return std::exchange(*at, static_cast<T>(value)); }
template <typename T, typename V>
T atomicOr(T* at, V value) { return std::exchange(*at, static_cast<T>(*at | value)); }
template <typename T>
T atomicCAS(T* at, T expected, T value) { return *at == expected ? std::exchange(*at, value) : *at; }

template <typename T>
T __ldg(const T* at) { return *at; }
template <typename T>
T __ldcg(const T* at) { return *at; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(bits) : 32; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __float_as_uint(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }
inline float __uint_as_float(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline int min(int a, int b) { return a < b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

struct __nv_bfloat16 { uint16_t bits; };
struct __half { uint16_t bits; };
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(unsigned{x.bits} << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const unsigned bits = __float_as_uint(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline float __half2float(__half x) { _Float16 h; std::memcpy(&h, &x.bits, 2); return static_cast<float>(h); }
inline __half __float2half_rn(float x) {
  const auto h = static_cast<_Float16>(x);
  __half made;
  std::memcpy(&made.bits, &h, 2);
  return made;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }

inline uint32_t __cvta_generic_to_shared(const void* at) {
  return static_cast<uint32_t>(static_cast<const unsigned char*>(at) - emulated::dynamic_memory);
}

#include "ptx.h"
#define TVMFFIEnvTensorAlloc emulated::allocate
