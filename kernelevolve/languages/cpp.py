"""C++ with OpenMP and the machine's vector instructions, built by g++ and exported through apache-tvm-ffi."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

from kernelevolve.errors import ToolchainError, UsageError
from kernelevolve.languages.base import PRELUDE, BuildPlan, Loaded, Prelude
from kernelevolve.schema import Candidate, CompileError, Device, Diagnostic, Hardware, ParseError, Value, digest_of

FLAGS = (
    "-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-fno-math-errno", "-ffp-contract=fast",
    "-fvisibility=hidden", "-fno-gnu-unique",
)  # fmt: skip
"""No -ffast-math: it would change the rules for NaN and Inf. The last two keep the statics of two kernels that are
loaded into one serving process apart."""

_HEADER = "tvm/ffi/tvm_ffi.h"
_PRELUDE = "prelude.h"
_PATH = re.compile(r"(?:\w[\w.-]{0,63}/){0,4}\w[\w.-]{0,63}", re.ASCII)
_TUNABLE = re.compile(r"^[ \t]*//[ \t]*tunable\b(.*)$", re.MULTILINE)
_TUNABLE_BODY = re.compile(r"^\s+([A-Za-z_]\w*)\s*:\s*(\S.*?)\s*$")
_EXPORT = r"TVM_FFI_DLL_EXPORT_TYPED_FUNC\s*\(\s*{}\s*,"
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_ERROR = re.compile(
    r"^(?P<file>[^\s:][^:\n]*):(?P<line>\d+):(?:(?P<column>\d+):)? (?:fatal )?error: (?P<message>.*)$", re.M
)
_LINK_ERROR = re.compile(r"^.*(?:undefined reference to|multiple definition of|cannot find -l).*$", re.MULTILINE)


@cache
def ffi_folder() -> Path:
    """Folder of the apache-tvm-ffi package, found without importing it (the import pulls in torch)."""
    spec = find_spec("tvm_ffi")
    if spec is None or not spec.submodule_search_locations:
        raise ToolchainError("apache-tvm-ffi is not installed", remedy="pip install apache-tvm-ffi")
    return Path(spec.submodule_search_locations[0])


@cache
def compiler() -> tuple[str, str]:
    """Path and version of g++. Raises `ToolchainError` where there is none."""
    path = shutil.which("g++")
    if path is None:
        raise ToolchainError("g++ is not on the PATH", remedy="install a C++ compiler, for instance: apt install g++")
    version = subprocess.run([path, "-dumpfullversion"], capture_output=True, text=True, check=True)
    return path, version.stdout.strip()


class Cpp:
    """The language `cpp`: one or several C++17 files."""

    name: ClassVar[str] = "cpp"
    suffixes: ClassVar[tuple[str, ...]] = (".cpp", ".cc", ".h", ".hpp")
    devices: ClassVar[tuple[Device, ...]] = ("cpu",)
    runner: ClassVar[Literal["native", "python"]] = "native"

    @property
    def libraries(self) -> tuple[Path, ...]:
        """Where libtvm_ffi lies."""
        return (ffi_folder() / "lib",)

    def admit(self, files: Mapping[str, str], entry: str = "run") -> tuple[Diagnostic, ...]:
        """Paths, suffixes, the exported entry point and the tunables."""
        folders = {str(folder) for path in files for folder in Path(path).parents}
        findings = [_parse_error(f"{path!r} is no plain file name", "use short relative names of letters and digits")
                    for path in files if path in folders or not _PATH.fullmatch(path)]  # fmt: skip
        findings += [_parse_error(f"{path!r} is not a C++ file", f"name files {' or '.join(self.suffixes)}")
                     for path in files if Path(path).suffix not in self.suffixes]  # fmt: skip
        code = "\n".join(_COMMENT.sub("", text) for text in files.values())
        if not re.search(_EXPORT.format(re.escape(entry)), code):
            advice = f"end the file with TVM_FFI_DLL_EXPORT_TYPED_FUNC({entry}, {entry})"
            findings.append(_parse_error(f"no file exports {entry!r}", advice))
        try:
            self.tunables(files)
        except UsageError as error:
            findings.append(_parse_error(error.message, error.remedy))
        return tuple(findings)

    def tunables(self, files: Mapping[str, str]) -> dict[str, tuple[Value, ...]]:
        """Lines `// tunable NAME: v1 v2 v3`, the default first."""
        found: dict[str, tuple[Value, ...]] = {}
        for path, text in files.items():
            for match in _TUNABLE.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                body = _TUNABLE_BODY.match(match[1])
                values = tuple(int(v) if re.fullmatch(r"-?\d+", v) else v for v in body[2].split()) if body else ()
                if body is None or len(set(values)) != len(values) or found.get(body[1], values) != values:
                    raise UsageError(
                        f"{path}:{line}: ill-formed tunable {match[0].strip()!r}",
                        remedy="write // tunable NAME: v1 v2 v3, with different values, the same wherever it recurs",
                    )
                found[body[1]] = values
        return found

    def sources(self, candidate: Candidate) -> dict[str, str]:
        """Every tunable line becomes a `#define` on that line."""
        defaults = {name: values[0] for name, values in self.tunables(candidate.files).items()}
        chosen = {**defaults, **candidate.tunables}

        def define(match: re.Match[str]) -> str:
            body = _TUNABLE_BODY.match(match[1])
            assert body is not None
            return f"#define {body[1]} {chosen[body[1]]}"

        return {path: _TUNABLE.sub(define, text) for path, text in candidate.files.items()}

    def build_plan(self, candidate: Candidate, hardware: Hardware) -> BuildPlan:
        """One g++ call, behind a precompiled tvm-ffi header that saves most of the build's time."""
        gxx, version = compiler()
        ffi = ffi_folder()
        include = f"-I{ffi / 'include'}"
        units = sorted(path for path in candidate.files if Path(path).suffix in (".cpp", ".cc"))
        link = ("-shared", "-Wl,-z,defs", *units, "-o", "kernel.so", f"-L{ffi / 'lib'}", "-ltvm_ffi")
        return BuildPlan(
            argv=(gxx, *FLAGS, include, "-include", f"{PRELUDE}/{_PRELUDE}", "-fmax-errors=20", *link),
            artifact="kernel.so",
            fingerprint=digest_of(
                version, FLAGS, hardware.architecture, hardware.features, str(ffi), _ffi_version(ffi)
            ),
            readable=(ffi,),
            prelude=Prelude(
                files={_PRELUDE: f"#include <{_HEADER}>\n"},
                argv=(gxx, *FLAGS, include, "-x", "c++-header", _PRELUDE, "-o", f"{_PRELUDE}.gch"),
                artifact=f"{_PRELUDE}.gch",
            ),
        )

    def diagnose(self, output: str) -> tuple[Diagnostic, ...]:
        """Errors with file, line and message; the linker's, or the tail of the output, where there are none."""
        found = [
            CompileError(
                message=m["message"],
                advice=_advice(m["message"]),
                file=m["file"],
                line=int(m["line"]),
                column=int(m["column"]) if m["column"] else None,
            )
            for m in _ERROR.finditer(output)
        ]
        if found:
            return tuple(found[:20])
        linked = _LINK_ERROR.search(output)
        message = linked[0].strip() if linked else output.strip()[-800:] or "the compiler failed without a message"
        advice = "define every function that is used; only libtvm_ffi, OpenMP and the standard library are linked"
        return (CompileError(message=message, advice=advice),)

    def load(self, artifact: Path, entry: str = "run") -> Loaded:
        """Load a shared object through tvm-ffi."""
        import tvm_ffi  # imports torch: only a process that serves pays for it

        try:
            module = tvm_ffi.load_module(str(artifact))
            prepare = module.get_function("prepare") if module.implements_function("prepare") else None
            return Loaded(run=module.get_function(entry), prepare=prepare)
        except (RuntimeError, AttributeError, OSError, ValueError) as error:
            raise ToolchainError(
                f"can't load {artifact}: {error}", remedy="delete it from the cache and build it again"
            ) from error


def _ffi_version(folder: Path) -> int:
    """When the library was installed (nanoseconds): another release must not reuse the old precompiled header."""
    return (folder / "include" / _HEADER).stat().st_mtime_ns


def _parse_error(message: str, advice: str) -> ParseError:
    return ParseError(message=message, advice=advice)


def _advice(message: str) -> str:
    if "static assertion" in message:
        return "this combination of tunables can't be built: choose others"
    if "was not declared" in message or "has not been declared" in message:
        return "declare it, or include the header that does"
    if "No such file" in message:
        return "only the standard library, OpenMP, the compiler's intrinsics and tvm/ffi headers can be included"
    if "target specific option mismatch" in message:
        return "this machine lacks that instruction set: guard the intrinsic with its __AVX..__ macro"
    return "mend the line that is named"
