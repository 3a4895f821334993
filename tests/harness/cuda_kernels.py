"""CUDA candidates of the doubling target, good and bad."""

from kernelevolve.testing.sources import CUDA

DOUBLE = CUDA
GRID = "twice<<<(n + BLOCK - 1) / BLOCK, BLOCK, 0, stream>>>("
BODY = "  if (i < n) y[i] = 2 * x[i];\n"


def launched(instead: str) -> str:
    """The good kernel, launched another way."""
    assert GRID in CUDA
    return CUDA.replace(GRID, f"{instead}(")


def with_body(instead: str) -> str:
    """The same launch of a kernel that does something else."""
    assert BODY in CUDA
    return CUDA.replace(BODY, instead)


def before_the_launch(statement: str) -> str:
    """The good kernel, with something else done on the host first."""
    place = "  twice<<<"
    assert place in CUDA
    return CUDA.replace(place, f"  {statement}\n{place}")


TOO_MANY_THREADS = launched("twice<<<n / 2048, 2048, 0, stream>>>")
TOO_MUCH_SHARED = launched("twice<<<1, BLOCK, 300000, stream>>>")
SHARED_UNASKED = launched("twice<<<1, BLOCK, 100000, stream>>>")
SHARED_ASKED = before_the_launch(
    "cudaFuncSetAttribute(twice, cudaFuncAttributeMaxDynamicSharedMemorySize, 100000);"
).replace("BLOCK, 0, stream", "BLOCK, 100000, stream")
BEYOND_ITS_BOUNDS = CUDA.replace("__global__ void twice", "__global__ void __launch_bounds__(64) twice")
LONG_SIDE = launched("twice<<<dim3(1, 70000), BLOCK, 0, stream>>>")
NOTHING_TO_DO = launched("twice<<<0, BLOCK, 0, stream>>>")
DEFAULT_STREAM = launched("twice<<<1, BLOCK>>>")
READS_VALUES = before_the_launch("float first; cudaMemcpy(&first, x.data_ptr(), 4, cudaMemcpyDeviceToHost);")
TOUCHES = before_the_launch("*static_cast<volatile float*>(y.data_ptr()) = 0;")
UNKNOWN_CALL = before_the_launch("cudaProfilerStart();").replace(
    "namespace ffi", 'extern "C" cudaError_t cudaProfilerStart();\nnamespace ffi'
)
THROWS = before_the_launch('TVM_FFI_THROW(ValueError) << "not that shape";')
EXITS = before_the_launch("_exit(0);").replace("namespace ffi", "#include <unistd.h>\nnamespace ffi")
LOOPS = before_the_launch("for (volatile int i = 0;; i = i) {}")
SPILLS = with_body(
    "  float kept[300];\n  for (int j = 0; j < 300; ++j) kept[j] = x[(i + j) % n];\n"
    "  for (int j = 0; j < 300; ++j) kept[(j * 7) % 300] += kept[int(x[j]) % 300];\n"
    "  y[i % n] = kept[int(x[i % n]) % 300];\n"
)
WARNED = with_body("  int never;\n" + BODY)
FORGED = before_the_launch(
    'FILE* f = fopen("report.jsonl", "w"); fputs("{\\"launch\\": 1}\\nnothing\\n", f); fclose(f); _exit(0);'
).replace("namespace ffi", "#include <cstdio>\n#include <unistd.h>\nnamespace ffi")
