"""What Triton's front end, its passes and ptxas complain about, as findings with file and line."""

import re
import traceback
from collections.abc import Mapping
from pathlib import Path

import triton
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from kernelevolve.schema import CompileError, Diagnostic, LimitExceeded, Raised, Uncaptured

_PASS = re.compile(r'(?:loc\(")?(?P<file>[^\s":(]+\.py)"?:(?P<line>\d+):(?P<column>\d+)\)?: error: (?P<message>.*)')
_PTXAS = re.compile(r"^ptxas\S*\s.*?(?:error|fatal)\s*:\s*(?P<message>.*)$", re.MULTILINE)
_WRAPPED = re.compile(r"(?P<kind>\w+)\((?P<quote>['\"])(?P<message>.*)(?P=quote)\)$", re.DOTALL)
_READS_VALUES = frozenset(
    {"NoValuesError", "DataDependentOutputException", "DynamicOutputShapeException", "GuardOnDataDependentSymNode"}
)
_NO_VALUES = re.compile(r"numpy\(\) is not supported|Cannot access data pointer|tolist|meta tensors")
_HINTS = (
    ("Cannot access global variable", "pass it as a tl.constexpr argument, or make it tl.constexpr(...)"),
    ("arange's range must be a power of 2", "round the block up to a power of two and mask the rest"),
    ("Shape element", "block sizes are powers of two"),
    ("constexpr", "sizes of blocks are tl.constexpr parameters of the kernel"),
    ("is not defined", "define it, or import it at the top of the module"),
    ("Input shapes should have", "tl.dot has a least size for each axis: pad the block"),
    ("Block pointers have been removed", "use tl.make_tensor_descriptor, or pointers with masks"),
    ("out of resource", "smaller blocks, or fewer num_stages"),
)
_ABSENT = re.compile(
    r"(?:has no attribute|unexpected keyword argument|cannot import name|No module named) "
    r"'(?:triton\.)?(?P<name>[\w.]+)'"
)
_PRESENT = {
    "make_block_ptr": "tl.make_tensor_descriptor, or pointers with masks",
    "advance": "tl.make_tensor_descriptor and offsets, or pointers with masks",
    "_experimental_make_tensor_descriptor": "tl.make_tensor_descriptor",
    "_experimental_descriptor_load": "descriptor.load of tl.make_tensor_descriptor",
    "_experimental_descriptor_store": "descriptor.store of tl.make_tensor_descriptor",
    "allow_tf32": 'input_precision="tf32" or "ieee"',
    "libdevice": "from triton.language.extra import libdevice",
    "language.libdevice": "from triton.language.extra import libdevice",
    "ops": "a kernel of your own: triton.ops is a package apart (triton-kernels)",
}
"""What went, and what stands in its place today."""


def of_compiler(error: BaseException, printed: str, sources: Mapping[str, str]) -> Diagnostic:
    """A finding for what a compilation raised; `printed` is what it printed meanwhile."""
    if isinstance(error, OutOfResources):
        resource = "registers" if "reg" in error.name else "shared_memory"
        return LimitExceeded(
            message=f"out of {error.name}: {error.required} needed, the device has {error.limit}",
            advice="smaller blocks, or fewer num_stages", resource=resource, limit=float(error.limit),
        )  # fmt: skip
    if isinstance(error, CompilationError):
        return _of_front_end(error, sources)
    if isinstance(error, PTXASError):
        text = error.error_message or ""
        found = [m["message"].strip() for m in _PTXAS.finditer(text)]
        message = "; ".join(dict.fromkeys(found[:3])) or text.strip()[:400]
        advice = "look at inline assembly and at instructions that this architecture lacks"
        return CompileError(message=f"ptxas: {message}", advice=advice)
    if (found_pass := _PASS.search(printed)) or "PassManager" in str(error):
        place = found_pass.groupdict() if found_pass else {}
        message = place.get("message") or f"a pass of the compiler failed: {error}"
        return CompileError(
            message=message, advice=hint(message, "the compiler can't lower this line: write it another way"),
            file=Path(place["file"]).name if place else None, line=int(place["line"]) if place else None,
            column=int(place["column"]) if place else None,
        )  # fmt: skip
    if isinstance(error, AttributeError) and not _place(error, sources):  # Triton 3.4, before it compiles
        file, line = _first_use(str(error), sources)
        message = f"AttributeError: {error}"
        return CompileError(message=message, advice=hint(message, "mend the line"), file=file, line=line)
    return of_launcher(error, None, sources)


def _first_use(message: str, sources: Mapping[str, str]) -> tuple[str | None, int | None]:
    """Where an attribute that isn't there is first asked for."""
    if found := _ABSENT.search(message):
        wanted = re.compile(rf"\.{re.escape(found['name'])}\b")
        for path, text in sources.items():
            for number, line in enumerate(text.splitlines(), 1):
                if wanted.search(line):
                    return path, number
    return None, None


def of_launcher(error: BaseException, workload: str | None, sources: Mapping[str, str]) -> Diagnostic:
    """A finding for what `run` raised before or between its launches."""
    where = _place(error, sources)
    if type(error).__name__ in _READS_VALUES or _NO_VALUES.search(str(error)):
        return Uncaptured(
            message=f"{where}run reads the values of a tensor, so what it launches isn't known without them",
            advice="size grids by shapes alone and let kernels read values; as it is, only a device can try it",
            workload=workload,
        )  # fmt: skip
    if "not linked with support for" in str(error):
        return Uncaptured(
            message=f"{where}run does what torch can't follow without the device: {str(error)[:200]}",
            advice="prepare arguments by shapes and views; as it is, only a device can try it", workload=workload,
        )  # fmt: skip
    return Raised(
        message=f"{where}{type(error).__name__}: {str(error)[:600]}",
        advice=hint(str(error), "mend the line that is named"), workload=workload,
    )  # fmt: skip


def _of_front_end(error: CompilationError, sources: Mapping[str, str]) -> CompileError:
    """The innermost error of the chain names the line that is wrong; the outer ones are its callers."""
    message = ""
    place: tuple[str, int, int] | None = None
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, CompilationError):
            message = link.error_message or message
            place = _in_source(link, sources) or place
        elif not message or link.__cause__ is None:
            message = str(link) or message
        link = link.__cause__
    if wrapped := _WRAPPED.match(message):
        message = f"{wrapped['kind']}: {wrapped['message']}"
    file, line, column = place or (None, None, None)
    return CompileError(
        message=message.strip() or str(error)[-400:], advice=hint(message, "mend the line that is named"),
        file=file, line=line, column=column,
    )  # fmt: skip


def _in_source(error: CompilationError, sources: Mapping[str, str]) -> tuple[str, int, int] | None:
    """File, line and column in the candidate, out of a place within one kernel's text."""
    line = getattr(error.node, "lineno", None)
    if error.src is None or line is None:
        return None
    for path, text in sources.items():
        start = text.find(error.src.rstrip())
        if start >= 0:
            return path, text.count("\n", 0, start) + line, error.node.col_offset + 1
    return None


def _place(error: BaseException, sources: Mapping[str, str]) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name in sources]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""


def hint(message: str, otherwise: str) -> str:
    """What to do about an error that is known; `otherwise` for others."""
    if (found := _ABSENT.search(message)) and ("No module" not in message or "'triton" in message):
        present = _PRESENT.get(found["name"])
        what = f"use {present}" if present else "look for its present name"
        return f"Triton {triton.__version__} doesn't have {found['name']}: {what}"
    return next((hint for sign, hint in _HINTS if sign in message), otherwise)
