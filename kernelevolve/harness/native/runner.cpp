// Holds one candidate and calls it when told to; started by the judge as
//
//   runner CANDIDATE.so ENTRY COMMANDS ANSWERS INPUTS OUTPUTS
//
// where the last four are descriptors: commands to read, answers to write, and two blocks of shared memory, inputs
// (which can only be mapped read-only) and outputs. Everything is little-endian and fixed in size. First comes the
// layout:
//
//   u32 workloads, u64 bytes of inputs, u64 bytes of outputs, then for each workload
//     u32 slots, u32 arguments, then for each argument
//       u8 kind (0 scalar, 1 input, 2 constant, 3 output), u8 DLPack type code, u8 bits, u8 dimensions,
//       i64 value (scalar), u64 offset of slot 0, u64 stride between slots, i64 sizes[dimensions]
//
// Then commands: u8 operation ('c' call, 'p' prepare), u8 function (0 here), u8 workload, u8 unused, u16 count,
// count x u8 slot numbers. The answer to each is one byte: '.' returned, '!' raised (then u16 length and that many
// bytes of message); to the layout it is '.', 'p' (there is a `prepare`) or '!'. An answer says that the calls came
// back, and nothing else: right or wrong, fast or slow is the judge's to see.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <string>
#include <sys/mman.h>
#include <tvm/ffi/c_api.h>
#include <unistd.h>
#include <vector>

namespace {

int commands, answers;

enum Kind : uint8_t { kScalar, kInput, kConstant, kOutput };

struct Argument {
  Kind kind;
  DLDataType type;
  int64_t value;
  uint64_t offset, stride;
  std::vector<int64_t> shape, strides;
};

void read_exactly(void* to, size_t bytes) {
  char* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t n = read(commands, at, bytes);
    if (n <= 0) _exit(0);  // the judge has closed the pipe: done
    at += n;
    bytes -= n;
  }
}

template <typename T>
T take() {
  T value;
  read_exactly(&value, sizeof value);
  return value;
}

void answer(const void* data, size_t bytes) {
  if (write(answers, data, bytes) != static_cast<ssize_t>(bytes)) _exit(0);
}

void raised(const std::string& message) {
  const uint16_t size = message.size() < 4000 ? message.size() : 4000;
  std::string text = "!";
  text.append(reinterpret_cast<const char*>(&size), sizeof size).append(message, 0, size);
  answer(text.data(), text.size());
}

std::string last_error() {
  TVMFFIObjectHandle error = nullptr;
  TVMFFIErrorMoveFromRaised(&error);
  if (error == nullptr) return "the call failed without a message";
  const auto* cell = reinterpret_cast<const TVMFFIErrorCell*>(static_cast<char*>(error) + sizeof(TVMFFIObject));
  std::string text(cell->kind.data, cell->kind.size);
  text.append(": ").append(cell->message.data, cell->message.size);
  TVMFFIObjectDecRef(error);
  return text;
}

struct Workload {
  uint32_t slots = 0;
  std::vector<Argument> arguments;
  std::vector<DLTensor> tensors;              // slots x arguments
  std::vector<std::vector<TVMFFIAny>> calls;  // one argument list a slot

  void receive() {
    slots = take<uint32_t>();
    arguments.resize(take<uint32_t>());
    for (auto& a : arguments) {
      a.kind = static_cast<Kind>(take<uint8_t>());
      a.type.code = take<uint8_t>();
      a.type.bits = take<uint8_t>();
      a.type.lanes = 1;
      a.shape.resize(take<uint8_t>());
      a.value = take<int64_t>();
      a.offset = take<uint64_t>();
      a.stride = take<uint64_t>();
      read_exactly(a.shape.data(), a.shape.size() * sizeof(int64_t));
      a.strides.assign(a.shape.size(), 1);
      for (size_t d = a.shape.size(); d-- > 1;) a.strides[d - 1] = a.strides[d] * a.shape[d];
    }
  }

  void place(char* inputs, char* outputs) {
    tensors.resize(slots * arguments.size());
    calls.resize(slots);
    for (uint32_t slot = 0; slot < slots; ++slot)
      for (size_t i = 0; i < arguments.size(); ++i) {
        Argument& a = arguments[i];
        TVMFFIAny any{};
        if (a.kind == kScalar) {
          any.type_index = kTVMFFIInt;
          any.v_int64 = a.value;
        } else {
          DLTensor& tensor = tensors[slot * arguments.size() + i];
          tensor = {};
          tensor.data = (a.kind == kOutput ? outputs : inputs) + a.offset + slot * a.stride;
          tensor.device = {kDLCPU, 0};
          tensor.ndim = static_cast<int32_t>(a.shape.size());
          tensor.dtype = a.type;
          tensor.shape = a.shape.data();
          tensor.strides = a.strides.data();
          any.type_index = kTVMFFIDLTensorPtr;
          any.v_ptr = &tensor;
        }
        calls[slot].push_back(any);
      }
  }

  std::vector<TVMFFIAny> constants() const {
    std::vector<TVMFFIAny> found;
    for (size_t i = 0; i < arguments.size(); ++i)
      if (arguments[i].kind == kConstant) found.push_back(calls[0][i]);
    return found;
  }

  // `run` takes the packed constants between the inputs and the outputs.
  void insert(const TVMFFIAny& packed) {
    size_t at = 0;
    while (at < arguments.size() && arguments[at].kind != kOutput) ++at;
    const bool again = calls[0].size() > arguments.size();
    for (auto& call : calls) {
      if (again) call[at] = packed;
      else call.insert(call.begin() + at, packed);
    }
  }
};

char* map(int fd, size_t bytes, int protection) {
  if (bytes == 0) return nullptr;
  void* at = mmap(nullptr, bytes, protection, MAP_SHARED | MAP_POPULATE, fd, 0);
  if (at == MAP_FAILED) { std::perror("runner: mmap"); _exit(124); }
  close(fd);
  return static_cast<char*>(at);
}

std::vector<Workload> receive_all(int input_fd, int output_fd) {
  std::vector<Workload> workloads(take<uint32_t>());
  const auto input_bytes = take<uint64_t>(), output_bytes = take<uint64_t>();
  for (auto& workload : workloads) workload.receive();
  char* inputs = map(input_fd, input_bytes, PROT_READ);
  char* outputs = map(output_fd, output_bytes, PROT_READ | PROT_WRITE);
  for (auto& workload : workloads) workload.place(inputs, outputs);
  return workloads;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  commands = std::atoi(argv[3]);
  answers = std::atoi(argv[4]);
  auto workloads = receive_all(std::atoi(argv[5]), std::atoi(argv[6]));
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) { raised(dlerror()); return 0; }
  const auto symbol = [&](const char* name) {
    return reinterpret_cast<TVMFFISafeCallType>(dlsym(library, (std::string("__tvm_ffi_") + name).c_str()));
  };
  const TVMFFISafeCallType run = symbol(argv[2]), prepare = symbol("prepare");
  if (run == nullptr) { raised(std::string("the library exports no ") + argv[2]); return 0; }
  answer(prepare ? "p" : ".", 1);
  for (;;) {
    const auto operation = take<uint8_t>();
    take<uint8_t>();
    Workload& workload = workloads.at(take<uint8_t>());
    take<uint8_t>();
    uint8_t order[65536];
    const auto count = take<uint16_t>();
    read_exactly(order, count);
    int failed = 0;
    if (operation == 'p') {
      const auto constants = workload.constants();
      TVMFFIAny packed{};
      failed = prepare(nullptr, constants.data(), static_cast<int32_t>(constants.size()), &packed);
      if (!failed) workload.insert(packed);
    } else {
      for (uint16_t i = 0; i < count && !failed; ++i) {
        const auto& call = workload.calls[order[i] % workload.slots];
        TVMFFIAny result{};
        failed = run(nullptr, call.data(), static_cast<int32_t>(call.size()), &result);
      }
    }
    if (failed) raised(last_error());
    else answer(".", 1);
  }
}
