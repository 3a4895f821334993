"""C++ with OpenMP and the machine's vector instructions, built by g++ and exported through apache-tvm-ffi."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

from kernelevolve.errors import ToolchainError
from kernelevolve.languages.base import PRELUDE, BuildPlan, Prelude
from kernelevolve.languages.cxx import HEADER, MOST_ERRORS, Cxx, ffi_folder, ffi_version, gcc_errors, link_error
from kernelevolve.schema import Candidate, CompileError, Device, Diagnostic, Hardware, digest_of

FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno", "-ffp-contract=fast",
    "-fvisibility=hidden", "-fno-gnu-unique",
)  # fmt: skip
"""No -ffast-math: it would change the rules for NaN and Inf. The last two keep the statics of two kernels that are
loaded into one serving process apart."""

_PRELUDE = "prelude.h"


@cache
def compiler() -> tuple[str, str]:
    """Path and version of g++. Raises `ToolchainError` where there is none."""
    path = shutil.which("g++")
    if path is None:
        raise ToolchainError("g++ is not on the PATH", remedy="install a C++ compiler, for instance: apt install g++")
    version = subprocess.run([path, "-dumpfullversion"], capture_output=True, text=True, check=True)
    return path, version.stdout.strip()


class Cpp(Cxx):
    """The language `cpp`: one or several C++17 files."""

    name: ClassVar[str] = "cpp"
    kind: ClassVar[str] = "C++"
    suffixes: ClassVar[tuple[str, ...]] = (".cpp", ".cc", ".h", ".hpp")
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    runner: ClassVar[Literal["native", "python"]] = "native"

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Where libtvm_ffi lies."""
        return (ffi_folder() / "lib",)

    def build_plan(self, candidate: Candidate, hardware: Hardware) -> BuildPlan:
        """One g++ call, behind a precompiled tvm-ffi header that saves most of the build's time."""
        gxx, version = compiler()
        ffi = ffi_folder()
        include = f"-I{ffi / 'include'}"
        units = sorted(path for path in candidate.files if Path(path).suffix in (".cpp", ".cc"))
        link = ("-shared", "-Wl,-z,defs", *units, "-o", "kernel.so", f"-L{ffi / 'lib'}", "-ltvm_ffi")
        return BuildPlan(
            argv=(gxx, *FLAGS, include, "-include", f"{PRELUDE}/{_PRELUDE}", f"-fmax-errors={MOST_ERRORS}", *link),
            artifact="kernel.so",
            fingerprint=digest_of(version, FLAGS, hardware.architecture, hardware.features, str(ffi), ffi_version(ffi)),
            readable=(ffi,),
            prelude=Prelude(
                files={_PRELUDE: f"#include <{HEADER}>\n"},
                argv=(gxx, *FLAGS, include, "-x", "c++-header", _PRELUDE, "-o", f"{_PRELUDE}.gch"),
                artifact=f"{_PRELUDE}.gch",
            ),
        )

    def diagnose(self, output: str) -> tuple[Diagnostic, ...]:
        """Errors with file, line and message; the linker's, or the tail of the output, where there are none."""
        found = gcc_errors(output)
        if found:
            return tuple(found[:MOST_ERRORS])
        message = link_error(output) or output.strip()[-800:] or "the compiler failed without a message"
        advice = "define every function that is used; only libtvm_ffi, OpenMP and the standard library are linked"
        return (CompileError(message=message, advice=advice),)
