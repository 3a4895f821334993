"""CUDA C++ for NVIDIA GPUs, built by nvcc and exported through apache-tvm-ffi."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

from kernelevolve.errors import ToolchainError, UsageError
from kernelevolve.languages.base import BuildPlan
from kernelevolve.languages.cpp import compiler
from kernelevolve.languages.cxx import (
    MOST_ERRORS,
    Cxx,
    ffi_folder,
    ffi_version,
    gcc_errors,
    link_error,
    without_comments,
)
from kernelevolve.schema import Candidate, CompileError, Device, Diagnostic, Hardware, LimitExceeded, digest_of

FLAGS = (
    "-std=c++17", "-O2", "--expt-relaxed-constexpr",
    "-Xcompiler=-fPIC,-fvisibility=hidden,-fno-gnu-unique", f"-Xcudafe=--error_limit={MOST_ERRORS}",
)  # fmt: skip
"""-O2 is for the host's code; kernels are always optimised. No --use_fast_math: it flushes subnormals and rounds
division. As in C++, the last two of the host's keep the statics of two loaded kernels apart."""
LINK = ("-shared", "-cudart=static", "-Xlinker=-z,defs")
"""The static runtime opens the driver at its first call: the library loads where there is none."""

_USUAL = Path("/usr/local/cuda/bin/nvcc")
_MACHINE_CODE = re.compile(r"sm_(\d+)[af]?")
_ERROR = re.compile(
    r"^(?P<file>[^\s(][^(\n]*)\((?P<line>\d+)\): (?:catastrophic )?error(?: #[\w-]+)?: (?P<message>.*)$", re.M
)
_WARNING = re.compile(
    r"^(?P<file>[^\s(:][^(:\n]*)[(:](?P<line>\d+)(?:\)|:(?:\d+:)?)?:? warning(?: #[\w-]+)?: (?P<message>.*)$", re.M
)
_DETECTED = re.compile(r"^\s+detected during[\s\S]*?at line (?P<line>\d+)", re.M)
_TOOL = re.compile(
    r"^(?P<tool>ptxas|nvlink|nvcc|cicc|fatbinary)\b[^\n;]*?;?\s*(?:error|fatal)\s*:\s*(?P<message>.*)$", re.M
)
_TOO_MUCH_SHARED = re.compile(r"uses too much shared data \((?P<used>\w+) bytes, (?P<most>\w+) max\)")
_ADVICE = (
    ("static assertion", "this combination of tunables can't be built: choose others"),
    ("is undefined", "declare it, or include the header that does (cuda_bf16.h, cuda_fp16.h, mma.h, ...)"),
    ("No such file", "only CUDA's own headers, the standard library and tvm/ffi headers can be included"),
    ("cannot open source file", "only CUDA's own headers, the standard library and tvm/ffi headers can be included"),
    ("not supported on .target", "this architecture lacks that instruction: guard it with __CUDA_ARCH__"),
    ("known instruction", "mend the inline assembly: the PTX ISA has the instruction's exact name and types"),
    ("Unresolved extern", "define device functions in the file, or a header of the file, that uses them"),
    ("Undefined reference", "define device functions in the file, or a header of the file, that uses them"),
    ("undefined reference", "define it; cudart, libtvm_ffi and the standard library are linked, libcuda is not"),
    ("calling a __host__ function", "mark the function __device__, or use CUDA's own counterpart"),
    ("must have a constant value", "make it constexpr, a template parameter or a tunable"),
    ("died due to signal", "smaller unrolled loops and fewer template instantiations: the compiler itself failed"),
)  # fmt: skip
_LINTS = (
    (r"^\s*#\s*include\s*[<\"](cublas|cudnn|cusparse|cutlass|cute|cub/|thrust|nvrtc)",
     "leans on a library: kernels of one's own are what is searched for"),
    (r"\bcudaMalloc(?:Managed|Host)?\s*\(",
     "waits for the device: take scratch from ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, ...)"),
    (r"\bcuda(?:Device|Stream|Event)Synchronize\s*\(", "makes the host wait: the harness synchronises"),
    (r"\bcudaMemcpy\s*\(", "waits for the device, on the default stream: cudaMemcpyAsync on the current one"),
    (r"\bcudaGetDeviceProperties\s*\(", "takes milliseconds: cudaDeviceGetAttribute"),
)  # fmt: skip


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit that is installed here."""

    nvcc: Path
    root: Path
    """its own folder, whatever links or wrappers lead to nvcc"""
    version: str
    architectures: frozenset[int]
    """compute capabilities that it compiles for, 90 for 9.0"""


@cache
def toolkit() -> Toolkit:
    """The toolkit on the PATH, in its usual place or in a Python package. Raises `ToolchainError`."""
    nvcc = next(_places(), None)
    if nvcc is None:
        raise ToolchainError(
            f"nvcc is neither on the PATH nor at {_USUAL}",
            remedy="install the CUDA toolkit (no driver is needed to compile), or put its bin folder on the PATH",
        )
    version = re.search(r"release [\d.]+, V([\d.]+)", _said(nvcc, "--version"))
    # A dry run names the toolkit's folder, also where nvcc is a wrapper.
    root = re.search(r"^#\$ TOP=(.+)$", _said(nvcc, "--dryrun", "-x", "cu", "/dev/null"), re.MULTILINE)
    known = re.findall(r"compute_(\d+)", _said(nvcc, "--list-gpu-arch"))
    if version is None or root is None or not known:
        raise ToolchainError(f"{nvcc} answers in an unknown form", remedy="install a CUDA toolkit of 11.8 or later")
    return Toolkit(nvcc, Path(root[1].strip()).resolve(), version[1], frozenset(map(int, known)))


def machine_code(architecture: str) -> str:
    """What nvcc generates for a device: sm_90a for sm_90. Raises `UsageError` and `ToolchainError`.

    From 9.0 on the instructions of the tensor cores' newest form (wgmma, tcgen05) exist only in the architecture's
    own variant. Its code runs on no other capability, and needn't: a kernel is built on, and certified for, one device.
    """
    found = _MACHINE_CODE.fullmatch(architecture)
    if found is None:
        raise UsageError(
            f"CUDA C++ doesn't compile for {architecture}",
            remedy="choose an NVIDIA device, or write the kernel in Triton, which compiles for AMD's too",
        )
    tools, capability = toolkit(), int(found[1])
    if capability not in tools.architectures:
        known = ", ".join(f"sm_{c}" for c in sorted(tools.architectures))
        raise ToolchainError(
            f"nvcc {tools.version} doesn't compile for {architecture}",
            remedy=f"install a CUDA toolkit that does; this one knows {known}",
        )
    own = capability >= 90 and int(tools.version.split(".")[0]) >= 12
    return f"{capability}{'a' if own else ''}"


class Cuda(Cxx):
    """The language `cuda`: one or several files of CUDA C++17, NVIDIA only."""

    name: ClassVar[str] = "cuda"
    kind: ClassVar[str] = "CUDA C++"
    suffixes: ClassVar[tuple[str, ...]] = (".cu", ".cuh", ".cpp", ".h", ".hpp")
    devices: ClassVar[tuple[Device, ...]] = ("gpu",)
    runner: ClassVar[Literal["native", "python"]] = "python"

    @property
    def libraries(self) -> tuple[Path, ...]:
        """libtvm_ffi, and this Python, whose torch provides memory and streams."""
        python = (Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())
        return tuple(dict.fromkeys((*python, ffi_folder())))

    def hints(self, files: Mapping[str, str]) -> tuple[str, ...]:
        """What a reader should look at; no reason to refuse the candidate."""
        found = []
        for path, text in files.items():
            code = without_comments(text)
            for pattern, why in _LINTS:
                for match in re.finditer(pattern, code, re.MULTILINE):
                    line = code.count("\n", 0, match.start() + len(match[0]) - len(match[0].lstrip())) + 1
                    found.append(f"{path}:{line}: {match[0].strip().rstrip('(').strip()} {why}")
        everything = "\n".join(map(without_comments, files.values()))
        if "TVMFFIEnvGetStream" not in everything:
            found.append("launches go to the default stream: take the current one from TVMFFIEnvGetStream")
        if not re.search(r"\bcuda(?:GetLastError|PeekAtLastError|LaunchKernelExC?)\b", everything):
            found.append("no launch is checked: throw where cudaGetLastError() after it isn't cudaSuccess")
        return tuple(found)

    def build_plan(self, candidate: Candidate, hardware: Hardware) -> BuildPlan:
        """One nvcc call. Raises `UsageError` for other vendors' devices, `ToolchainError` without a fitting nvcc."""
        return self.plan(candidate, hardware, (*LINK, "-o", "kernel.so"), "kernel.so")

    def plan(self, candidate: Candidate, hardware: Hardware, link: tuple[str, ...], artifact: str) -> BuildPlan:
        """The same for another way to link."""
        code = machine_code(hardware.architecture)
        tools, ffi = toolkit(), ffi_folder()
        gxx, gxx_version = compiler()
        units = sorted(path for path in candidate.files if Path(path).suffix in (".cu", ".cpp"))
        return BuildPlan(
            argv=(
                str(tools.nvcc), "-ccbin", gxx, *FLAGS, "-gencode", f"arch=compute_{code},code=sm_{code}",
                f"-I{ffi / 'include'}", *units, *link, f"-L{ffi / 'lib'}", "-ltvm_ffi",
            ),
            artifact=artifact,
            fingerprint=digest_of(tools.version, gxx_version, FLAGS, code, str(ffi), ffi_version(ffi)),
            readable=(ffi, tools.nvcc.parent, tools.root),
        )  # fmt: skip

    def diagnose(self, output: str) -> tuple[Diagnostic, ...]:
        """Errors of nvcc's front end, of gcc, ptxas and the linkers, or the tail of the output where there are none."""
        found: list[Diagnostic] = [*_front_end(output), *gcc_errors(output)]
        if not found:
            found += _tools(output)
        if not found:
            message = link_error(output) or output.strip()[-800:] or "nvcc failed without a message"
            found.append(CompileError(message=message, advice=_advice(message)))
        return tuple(dict.fromkeys(found))[:MOST_ERRORS]


def warnings(output: str) -> tuple[str, ...]:
    """What the compilers warned of in a build that went well, each once."""
    found = [f"{m['file']}:{m['line']}: {m['message'].strip()}" for m in _WARNING.finditer(output)]
    return tuple(dict.fromkeys(found))[:MOST_ERRORS]


def _places() -> Iterator[Path]:
    """Where there is an nvcc, the most likely first."""
    if path := shutil.which("nvcc"):
        yield Path(path)
    if _USUAL.is_file():
        yield _USUAL
    spec = find_spec("nvidia")  # the namespace that NVIDIA's wheels share: cu13/bin/nvcc, cuda_nvcc/bin/nvcc
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(Path(folder).glob("*/bin/nvcc"), reverse=True)


def _said(nvcc: Path, *arguments: str) -> str:
    try:
        done = subprocess.run([str(nvcc), *arguments], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{nvcc} can't be run: {error}", remedy="install the CUDA toolkit anew") from error
    return done.stdout + done.stderr


def _front_end(output: str) -> Iterator[CompileError]:
    """Errors of cudafe++ and cicc; what stands in a template names the line that asked for it too."""
    matches = list(_ERROR.finditer(output))
    ends = [*(m.start() for m in matches[1:]), len(output)]
    for match, end in zip(matches, ends, strict=False):
        rest = output[match.end() : end]
        asked = _DETECTED.search(rest)
        where = f" (asked for at line {asked['line']})" if asked else ""
        message = match["message"].strip()
        yield CompileError(
            message=message + where, advice=_advice(message), file=match["file"], line=int(match["line"]), column=None
        )


def _tools(output: str) -> Iterator[Diagnostic]:
    """What ptxas, nvlink and their like say: their lines are those of generated code, so none is named."""
    said = dict.fromkeys((m["tool"], m["message"].strip()) for m in _TOOL.finditer(output))
    for tool, message in said:
        if shared := _TOO_MUCH_SHARED.search(message):
            yield LimitExceeded(
                message=f"{message.split(' uses')[0]} needs {int(shared['used'], 16)} bytes of static shared memory: "
                f"{int(shared['most'], 16)} can be declared",
                advice="declare it extern __shared__, give its size at the launch, and allow it with "
                "cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)",
                resource="shared_memory", limit=int(shared["most"], 16),
            )  # fmt: skip
        elif "aborted due to errors" not in message or len(said) == 1:
            yield CompileError(message=f"{tool}: {message}", advice=_advice(message))


def _advice(message: str) -> str:
    return next((advice for sign, advice in _ADVICE if sign in message), "mend the line that is named")
