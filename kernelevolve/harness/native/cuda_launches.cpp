// Finds out what a CUDA candidate launches, without a device: calls it with tensors that have shapes and no memory, and
// stands in for the CUDA runtime, which notes launches down and makes none. Started inside the walls as
//
//   cuda_launches CANDIDATE.so ENTRY JOB REPORT
//
// JOB is text, a line for each fact:
//   gpu NAME VALUE                        as `attribute` below reads them
//   kernel SYMBOL REGISTERS SHARED SIZES... of every kernel in the library: registers a thread, static bytes a block,
//                                         bytes of each parameter
//   workload NUMBER                       what follows are its arguments, in order
//   scalar VALUE
//   tensor KIND CODE BITS SIZES...        KIND: input, constant, output; CODE and BITS as DLPack has them
// REPORT becomes one JSON object a line: {"launch": {...}}, {"stopped": {...}} or, in the end,
// {"finished": true}.
//
// The library is linked without a runtime (nvcc -cudart=none), so that its calls find the functions of this program.
// One that isn't here ends the process with the linker's own message, which names it.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime_api.h>
#include <cxxabi.h>
#include <dlfcn.h>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr uintptr_t kMemory = 0x200000000000, kMemoryEnd = 0x2f0000000000;  // where no process has anything mapped
void* const kStream = reinterpret_cast<void*>(0x5747);  // the current stream

struct Kernel {
  std::string symbol;
  int registers = 32, shared = 0;
  int allowed = 0;  // dynamic shared memory
  std::vector<int> parameters;
};

struct Call { dim3 grid, block; size_t shared; cudaStream_t stream; };

struct Stop { std::string kind, message; };  // thrown through the candidate, past its own handlers

std::map<std::string, int> device;
std::map<std::string, Kernel> known;    // by symbol, as the job says
std::map<const void*, Kernel> kernels;  // by the address of the host's stub
std::map<uintptr_t, size_t> memories;   // where each begins, and its bytes
std::map<uintptr_t, int> used;          // number of a memory, by its first use in the workload
std::vector<Call> configured;
int workload = 0;
int number = 0;
bool preparing = false;  // what `prepare` launches is no part of a call
uintptr_t free_memory = kMemory;
FILE* report = nullptr;

std::string quoted(const std::string& text) {
  std::string made = "\"";
  for (const unsigned char sign : text) {
    char escaped[8];
    std::snprintf(escaped, sizeof escaped, "\\u%04x", sign);
    if (sign == '"' || sign == '\\') (made += '\\') += static_cast<char>(sign);
    else if (sign < 0x20 || sign > 0x7e) made += escaped;
    else made += static_cast<char>(sign);
  }
  return made + '"';
}

void stopped(const std::string& kind, const std::string& message) {
  std::fprintf(report, "{\"stopped\": {\"workload\": %d, \"kind\": %s, \"message\": %s}}\n", workload,
               quoted(kind).c_str(), quoted(message.substr(0, 2000)).c_str());
  std::fflush(report);
}

void* take_memory(size_t bytes) {
  void* at = reinterpret_cast<void*>(free_memory);
  memories[free_memory] = bytes;
  free_memory += (bytes + 511) / 512 * 512 + 512;
  return at;
}

bool is_device(const void* at) {
  const auto place = reinterpret_cast<uintptr_t>(at);
  return kMemory <= place && place < kMemoryEnd;
}

std::string demangled(const std::string& symbol) {
  int status = 0;
  char* text = abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status);
  std::string made = status == 0 ? text : symbol;
  std::free(text);
  return made;
}

Kernel& kernel_of(const void* stub) {
  const auto found = kernels.find(stub);
  if (found == kernels.end()) throw Stop{"raised", "a launch of something that is no kernel of this library"};
  return found->second;
}

// The memories that a kernel's arguments point into, structures included: number and bytes of each.
std::string memories_of(const Kernel& kernel, void** arguments) {
  std::string made;
  std::set<int> seen;
  for (size_t i = 0; arguments != nullptr && i < kernel.parameters.size(); ++i)
    for (int at = 0; at + 8 <= kernel.parameters[i]; at += 8) {
      uintptr_t pointer;
      std::memcpy(&pointer, static_cast<const char*>(arguments[i]) + at, sizeof pointer);
      const auto next = memories.upper_bound(pointer);
      if (next == memories.begin() || !is_device(reinterpret_cast<const void*>(pointer))) continue;
      const auto& [begin, bytes] = *std::prev(next);
      const int storage = used.emplace(begin, static_cast<int>(used.size())).first->second;
      if (!seen.insert(storage).second) continue;
      made += (made.empty() ? "" : ", ") + ("{\"storage\": " + std::to_string(storage)) + ", \"bytes\": " +
              std::to_string(bytes) + "}";
    }
  return made;
}

cudaError_t launch(const void* stub, const Call& call, void** arguments, bool cluster = false) {
  const Kernel& kernel = kernel_of(stub);
  if (preparing) return cudaSuccess;
  std::fprintf(report,
               "{\"launch\": {\"workload\": %d, \"number\": %d, \"symbol\": %s, \"name\": %s, \"grid\": [%u, %u, %u], "
               "\"block\": [%u, %u, %u], \"dynamic_shared\": %zu, \"allowed_shared\": %d, \"current_stream\": %s, "
               "\"cluster\": %s, \"tensors\": [%s]}}\n",
               workload, number++, quoted(kernel.symbol).c_str(),
               quoted(demangled(kernel.symbol)).c_str(), call.grid.x, call.grid.y, call.grid.z, call.block.x,
               call.block.y, call.block.z, call.shared, kernel.allowed, call.stream == kStream ? "true" : "false",
               cluster ? "true" : "false", memories_of(kernel, arguments).c_str());
  std::fflush(report);
  return cudaSuccess;
}

int attribute(cudaDeviceAttr which) {
  switch (which) {
    case cudaDevAttrMaxThreadsPerBlock: return device["threads_per_block"];
    case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: return 1024;
    case cudaDevAttrMaxBlockDimZ: return 64;
    case cudaDevAttrMaxGridDimX: return 0x7fffffff;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock: return 48 << 10;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return device["shared_per_block"];
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return device["shared_per_multiprocessor"];
    case cudaDevAttrReservedSharedMemoryPerBlock: return device["shared_reserved"];
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMultiProcessorCount: return device["multiprocessors"];
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 32 * device["warps_per_multiprocessor"];
    case cudaDevAttrMaxBlocksPerMultiprocessor: return device["blocks_per_multiprocessor"];
    case cudaDevAttrMaxRegistersPerBlock: case cudaDevAttrMaxRegistersPerMultiprocessor:
      return device["registers_per_multiprocessor"];
    case cudaDevAttrComputeCapabilityMajor: return device["major"];
    case cudaDevAttrComputeCapabilityMinor: return device["minor"];
    case cudaDevAttrL2CacheSize: return device["l2_bytes"];
    case cudaDevAttrConcurrentKernels: case cudaDevAttrUnifiedAddressing: case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrMemoryPoolsSupported: return 1;
    case cudaDevAttrClusterLaunch: return device["major"] >= 9;
    default: throw Stop{"uncaptured", "run asks for device attribute " + std::to_string(which)};
  }
}

int resident(const Kernel& kernel, int threads, size_t dynamic) {
  const int warps = (threads + 31) / 32, registers = (kernel.registers + 7) / 8 * 8 * 32;
  const size_t shared = kernel.shared + dynamic + device["shared_reserved"];
  if (warps == 0 || threads > device["threads_per_block"]) return 0;
  int blocks = device["warps_per_multiprocessor"] / warps;
  blocks = std::min<int>(blocks, device["blocks_per_multiprocessor"]);
  blocks = std::min<int>(blocks, device["registers_per_multiprocessor"] / registers / 4 * 4 / warps);
  return std::min<int>(blocks, device["shared_per_multiprocessor"] / shared);
}

[[noreturn]] void reads_values(const char* call) {
  throw Stop{"uncaptured", std::string("run reads values of a tensor (") + call + "), so what it launches isn't known "
                           "without them"};
}

cudaError_t copy(void* to, const void* from, cudaMemcpyKind kind, const char* call) {
  if (kind == cudaMemcpyDeviceToHost || (is_device(from) && !is_device(to))) reads_values(call);
  return cudaSuccess;
}

cudaError_t make_handle(void* at) {
  *static_cast<void**>(at) = take_memory(8);
  return cudaSuccess;
}

}  // namespace

// The runtime: what registers kernels, and what candidates call.
extern "C" {
void** __cudaRegisterFatBinary(void*) { static void* handle; return &handle; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterManagedVar(void**, void**, char*, const char*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**, const char* stub, char*, const char* symbol, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  Kernel kernel = known[symbol];
  kernel.symbol = symbol;
  kernel.allowed = std::max(0, (48 << 10) - kernel.shared);
  kernels[stub] = kernel;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  configured.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (configured.empty()) return cudaErrorMissingConfiguration;
  const Call call = configured.back();
  configured.pop_back();
  *grid = call.grid, *block = call.block, *shared = call.shared;
  std::memcpy(stream, &call.stream, sizeof call.stream);
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(stub));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
  return launch(kernel, {grid, block, shared, stream}, arguments);
}
cudaError_t cudaLaunchKernel(const void* stub, dim3 grid, dim3 block, void** arguments, size_t shared,
                             cudaStream_t stream) {
  return launch(stub, {grid, block, shared, stream}, arguments);
}
cudaError_t cudaLaunchCooperativeKernel(const void* stub, dim3 grid, dim3 block, void** arguments, size_t shared,
                                        cudaStream_t stream) {
  return launch(stub, {grid, block, shared, stream}, arguments);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* stub, void** arguments) {
  bool cluster = false;
  for (unsigned i = 0; i < config->numAttrs; ++i) cluster |= config->attrs[i].id == cudaLaunchAttributeClusterDimension;
  return launch(stub, {config->gridDim, config->blockDim, config->dynamicSmemBytes, config->stream}, arguments,
                cluster);
}

cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
const char* cudaGetErrorString(cudaError_t) { return "an error of the capture's runtime"; }
const char* cudaGetErrorName(cudaError_t) { return "cudaErrorUnknown"; }
cudaError_t cudaGetDevice(int* number) { *number = 0; return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { *count = 1; return cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  *value = attribute(which);
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* made, int) {
  std::memset(made, 0, sizeof *made);
  std::strcpy(made->name, "captured");
  made->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount);
  made->major = attribute(cudaDevAttrComputeCapabilityMajor);
  made->minor = attribute(cudaDevAttrComputeCapabilityMinor);
  made->warpSize = 32;
  made->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
  made->maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  made->maxBlocksPerMultiProcessor = attribute(cudaDevAttrMaxBlocksPerMultiprocessor);
  made->sharedMemPerBlock = attribute(cudaDevAttrMaxSharedMemoryPerBlock);
  made->sharedMemPerBlockOptin = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  made->sharedMemPerMultiprocessor = attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  made->reservedSharedMemPerBlock = attribute(cudaDevAttrReservedSharedMemoryPerBlock);
  made->regsPerBlock = made->regsPerMultiprocessor = attribute(cudaDevAttrMaxRegistersPerMultiprocessor);
  made->l2CacheSize = attribute(cudaDevAttrL2CacheSize);
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaDeviceSetLimit(cudaLimit, size_t) { return cudaSuccess; }

cudaError_t cudaFuncSetAttribute(const void* stub, cudaFuncAttribute which, int value) {
  Kernel& kernel = kernel_of(stub);
  if (which == cudaFuncAttributeMaxDynamicSharedMemorySize) kernel.allowed = std::max(value, kernel.allowed);
  return cudaSuccess;
}
cudaError_t cudaFuncSetCacheConfig(const void*, cudaFuncCache) { return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* made, const void* stub) {
  const Kernel& kernel = kernel_of(stub);
  std::memset(made, 0, sizeof *made);
  made->numRegs = kernel.registers;
  made->sharedSizeBytes = kernel.shared;
  made->maxDynamicSharedSizeBytes = kernel.allowed;
  made->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
  made->binaryVersion = made->ptxVersion = 10 * device["major"] + device["minor"];
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* stub, int threads, size_t shared) {
  *blocks = resident(kernel_of(stub), threads, shared);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* stub, int threads,
                                                                   size_t shared, unsigned) {
  *blocks = resident(kernel_of(stub), threads, shared);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** at, size_t bytes) { *at = take_memory(bytes); return cudaSuccess; }
cudaError_t cudaMallocAsync(void** at, size_t bytes, cudaStream_t) { *at = take_memory(bytes); return cudaSuccess; }
cudaError_t cudaMallocHost(void** at, size_t bytes) { *at = std::calloc(1, bytes); return cudaSuccess; }
cudaError_t cudaHostAlloc(void** at, size_t bytes, unsigned) { *at = std::calloc(1, bytes); return cudaSuccess; }
cudaError_t cudaFree(void*) { return cudaSuccess; }
cudaError_t cudaFreeAsync(void*, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaFreeHost(void* at) { std::free(at); return cudaSuccess; }
cudaError_t cudaMemset(void*, int, size_t) { return cudaSuccess; }
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaMemset2DAsync(void*, size_t, int, size_t, size_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaMemcpy(void* to, const void* from, size_t, cudaMemcpyKind kind) {
  return copy(to, from, kind, "cudaMemcpy");
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t, cudaMemcpyKind kind, cudaStream_t) {
  return copy(to, from, kind, "cudaMemcpyAsync");
}
cudaError_t cudaMemcpyToSymbol(const void*, const void*, size_t, size_t, cudaMemcpyKind) { return cudaSuccess; }
cudaError_t cudaMemcpyToSymbolAsync(const void*, const void*, size_t, size_t, cudaMemcpyKind, cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaMemcpyFromSymbol(void*, const void*, size_t, size_t, cudaMemcpyKind) {
  reads_values("cudaMemcpyFromSymbol");
}
cudaError_t cudaGetSymbolAddress(void** at, const void*) { *at = take_memory(1 << 20); return cudaSuccess; }

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return make_handle(stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return make_handle(stream); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) { return make_handle(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return make_handle(event); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return make_handle(event); }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
}

namespace {

// A tensor map (for TMA) is all that candidates ask the driver for.
int encode_tensor_map(void* map) { std::memset(map, 0, 128); return 0; }

cudaError_t entry_point(const char* symbol, void** function, cudaDriverEntryPointQueryResult* result) {
  const bool known = std::strncmp(symbol, "cuTensorMapEncode", 17) == 0;
  *function = known ? reinterpret_cast<void*>(&encode_tensor_map) : nullptr;
  if (result != nullptr) *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

}  // namespace

extern "C" {
#if CUDART_VERSION >= 12050
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  return entry_point(symbol, function, result);
}
#endif
#if CUDART_VERSION >= 12000 && CUDART_VERSION < 13000
cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** function, unsigned long long,
                                    cudaDriverEntryPointQueryResult* result) {
  return entry_point(symbol, function, result);
}
#endif
}

namespace {

struct Argument {
  std::string kind;
  int64_t value = 0;
  DLTensor tensor{};
  std::vector<int64_t> shape, strides;

  TVMFFIAny any() {
    TVMFFIAny made{};
    if (kind == "scalar") {
      made.type_index = kTVMFFIInt;
      made.v_int64 = value;
    } else {
      tensor.shape = shape.data();
      tensor.strides = strides.data();
      made.type_index = kTVMFFIDLTensorPtr;
      made.v_ptr = &tensor;
    }
    return made;
  }
};

struct Job {
  std::vector<std::vector<Argument>> workloads;

  explicit Job(const char* path) {
    std::ifstream file(path);
    for (std::string line, word; std::getline(file, line);) {
      std::istringstream words(line);
      words >> word;
      if (word == "gpu") words >> word, words >> device[word];
      else if (word == "kernel") {
        words >> word;
        Kernel& kernel = known[word];
        words >> kernel.registers >> kernel.shared;
        for (int size; words >> size;) kernel.parameters.push_back(size);
      }
      else if (word == "workload") workloads.emplace_back();
      else workloads.back().push_back(argument(word, words));
    }
  }

  static Argument argument(const std::string& word, std::istringstream& words) {
    Argument made;
    made.kind = word;
    if (word == "scalar") { words >> made.value; return made; }
    int code = 0, bits = 0;
    words >> made.kind >> code >> bits;
    size_t bytes = bits / 8;
    for (int64_t size; words >> size; bytes *= size) made.shape.push_back(size);
    made.strides.assign(made.shape.size(), 1);
    for (size_t d = made.shape.size(); d-- > 1;) made.strides[d - 1] = made.strides[d] * made.shape[d];
    made.tensor.data = take_memory(bytes);
    made.tensor.device = {kDLCUDA, 0};
    made.tensor.ndim = static_cast<int32_t>(made.shape.size());
    made.tensor.dtype = {static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1};
    return made;
  }
};

struct Managed {
  DLManagedTensorVersioned tensor{};
  std::vector<int64_t> shape, strides;
};

// Where `FromEnvAlloc` gets scratch and packed constants from.
int allocate(DLTensor* wanted, DLManagedTensorVersioned** made, void*, void (*)(void*, const char*, const char*)) {
  auto* held = new Managed;
  held->shape.assign(wanted->shape, wanted->shape + wanted->ndim);
  held->strides.assign(held->shape.size(), 1);
  for (size_t d = held->shape.size(); d-- > 1;) held->strides[d - 1] = held->strides[d] * held->shape[d];
  size_t bytes = (wanted->dtype.bits * wanted->dtype.lanes + 7) / 8;
  for (const int64_t size : held->shape) bytes *= size;
  held->tensor.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
  held->tensor.dl_tensor = *wanted;
  held->tensor.dl_tensor.data = take_memory(bytes);
  held->tensor.dl_tensor.shape = held->shape.data();
  held->tensor.dl_tensor.strides = held->strides.data();
  held->tensor.dl_tensor.byte_offset = 0;
  held->tensor.manager_ctx = held;
  held->tensor.deleter = [](DLManagedTensorVersioned* self) { delete static_cast<Managed*>(self->manager_ctx); };
  *made = &held->tensor;
  return 0;
}

std::string last_error() {
  TVMFFIObjectHandle error = nullptr;
  TVMFFIErrorMoveFromRaised(&error);
  if (error == nullptr) return "the call failed without a message";
  const auto* cell = reinterpret_cast<const TVMFFIErrorCell*>(static_cast<char*>(error) + sizeof(TVMFFIObject));
  return std::string(cell->kind.data, cell->kind.size) + ": " + std::string(cell->message.data, cell->message.size);
}

void touched(int, siginfo_t* info, void*) {
  if (is_device(info->si_addr)) stopped("raised", "run touches a tensor's memory from the host");
  else stopped("crash", "run accesses memory that isn't there");
  _exit(0);
}

void call(TVMFFISafeCallType run, TVMFFISafeCallType prepare, std::vector<Argument>& arguments) {
  std::vector<TVMFFIAny> constants, given;
  for (auto& a : arguments)
    if (a.kind == "constant") constants.push_back(a.any());
  TVMFFIAny packed{};
  preparing = true;
  if (prepare && prepare(nullptr, constants.data(), static_cast<int32_t>(constants.size()), &packed))
    return stopped("raised", last_error());
  preparing = false;
  number = 0;
  used.clear();
  bool inserted = !prepare;
  for (auto& a : arguments) {
    if (a.kind == "output" && !inserted) given.push_back(packed), inserted = true;
    given.push_back(a.any());
  }
  TVMFFIAny result{};
  if (run(nullptr, given.data(), static_cast<int32_t>(given.size()), &result)) stopped("raised", last_error());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  Job job(argv[3]);
  report = std::fopen(argv[4], "w");
  if (report == nullptr) return 2;
  struct sigaction action{};
  action.sa_sigaction = touched;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
  void* library = dlopen(argv[1], RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) { stopped("raised", dlerror()); return 0; }
  const auto symbol = [&](const char* name) {
    return reinterpret_cast<TVMFFISafeCallType>(dlsym(library, (std::string("__tvm_ffi_") + name).c_str()));
  };
  const TVMFFISafeCallType run = symbol(argv[2]), prepare = symbol("prepare");
  if (run == nullptr) { stopped("raised", std::string("the library exports no ") + argv[2]); return 0; }
  TVMFFIEnvSetStream(kDLCUDA, 0, kStream, nullptr);
  TVMFFIEnvSetDLPackManagedTensorAllocator(allocate, 1, nullptr);
  for (; workload < static_cast<int>(job.workloads.size()); ++workload) {
    try {
      call(run, prepare, job.workloads[workload]);
    } catch (const Stop& stop) {
      stopped(stop.kind, stop.message);
    }
  }
  std::fputs("{\"finished\": true}\n", report);
  std::fclose(report);
  _exit(0);  // not through the candidate's own destructors
}
