"""What C++ and CUDA C++ have in common: files, tunables, the export through apache-tvm-ffi, and what gcc says."""

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from kernelevolve.errors import ToolchainError, UsageError
from kernelevolve.languages.base import Loaded
from kernelevolve.schema import Candidate, CompileError, Diagnostic, ParseError, Value

HEADER = "tvm/ffi/tvm_ffi.h"
MOST_ERRORS = 20
"""Of one build: what comes after is mostly a consequence."""

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


def ffi_version(folder: Path) -> int:
    """When the library was installed (nanoseconds): another release must not reuse what was built with the old one."""
    return (folder / "include" / HEADER).stat().st_mtime_ns


@lru_cache(maxsize=64)
def without_comments(text: str) -> str:
    """The source with every comment blanked out; lines stay where they are."""
    return _COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


@lru_cache(maxsize=256)
def _tunables(files: tuple[tuple[str, str], ...]) -> Mapping[str, tuple[Value, ...]]:
    """Kept for a while: a step asks for the same source several times."""
    found: dict[str, tuple[Value, ...]] = {}
    for path, text in files:
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


class Cxx:
    """The part of a `Language` that doesn't depend on the compiler. Derived classes have suffixes and a kind."""

    suffixes: ClassVar[tuple[str, ...]]
    kind: ClassVar[str]
    """what its files are called in a sentence"""

    def admit(self, files: Mapping[str, str], entry: str = "run") -> tuple[Diagnostic, ...]:
        """Paths, suffixes, the exported entry point and the tunables."""
        folders = {str(folder) for path in files for folder in Path(path).parents}
        findings = [_parse_error(f"{path!r} is no plain file name", "use short relative names of letters and digits")
                    for path in files if path in folders or not _PATH.fullmatch(path)]  # fmt: skip
        findings += [_parse_error(f"{path!r} is not a {self.kind} file", f"name files {' or '.join(self.suffixes)}")
                     for path in files if Path(path).suffix not in self.suffixes]  # fmt: skip
        code = "\n".join(without_comments(text) for text in files.values())
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
        return dict(_tunables(tuple(files.items())))

    def chosen(self, candidate: Candidate) -> dict[str, Value]:
        """The value of each declared tunable."""
        defaults = {name: values[0] for name, values in self.tunables(candidate.files).items()}
        return {**defaults, **candidate.tunables}

    def sources(self, candidate: Candidate) -> dict[str, str]:
        """Every tunable line becomes a `#define` on that line."""
        chosen = self.chosen(candidate)

        def define(match: re.Match[str]) -> str:
            body = _TUNABLE_BODY.match(match[1])
            assert body is not None
            return f"#define {body[1]} {chosen[body[1]]}"

        return {path: _TUNABLE.sub(define, text) for path, text in candidate.files.items()}

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


def gcc_errors(output: str) -> list[CompileError]:
    """Errors of gcc with file, line and message."""
    return [
        CompileError(
            message=m["message"], advice=gcc_advice(m["message"]), file=m["file"], line=int(m["line"]),
            column=int(m["column"]) if m["column"] else None,
        )
        for m in _ERROR.finditer(output)
    ]  # fmt: skip


def link_error(output: str) -> str | None:
    """The first complaint of the linker."""
    found = _LINK_ERROR.search(output)
    return found[0].strip() if found else None


def gcc_advice(message: str) -> str:
    """What to do about an error of gcc's, by its words."""
    if "static assertion" in message:
        return "this combination of tunables can't be built: choose others"
    if "was not declared" in message or "has not been declared" in message:
        return "declare it, or include the header that does"
    if "No such file" in message:
        return "only the standard library, OpenMP, the compiler's intrinsics and tvm/ffi headers can be included"
    if "target specific option mismatch" in message:
        return "this machine lacks that instruction set: guard the intrinsic with its __AVX..__ macro"
    return "mend the line that is named"


def _parse_error(message: str, advice: str) -> ParseError:
    return ParseError(message=message, advice=advice)
