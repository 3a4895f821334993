"""Triton: Python modules whose `run` launches kernels marked with `@triton.jit`."""

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar, Literal

from kernelevolve import syntax
from kernelevolve.errors import ToolchainError, UsageError
from kernelevolve.languages.base import BuildPlan, Loaded
from kernelevolve.schema import Candidate, CompileError, Device, Diagnostic, Hardware, ParseError, Value, digest_of

_DISTRIBUTIONS = ("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm")
_PATH = re.compile(r"(?:\w[\w.-]{0,63}/){0,4}\w[\w.-]{0,63}", re.ASCII)
_TABLE = "TUNABLES"
_REMEDY = f'write {_TABLE} = {{"NAME": [1, 2]}} once a module: a literal, with different integers or words'
_PLACE = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
_RAISED = re.compile(r"^(?P<kind>\w*Error): (?P<message>.*)$", re.MULTILINE)
_SUSPECT = {
    "exec": "runs text as code", "eval": "runs text as code", "__import__": "imports by a computed name",
    "torch.compile": "leaves the kernel to another compiler",
}  # fmt: skip


def triton_version() -> str:
    """Version of Triton, found without importing it. Raises `ToolchainError`."""
    for name in _DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    raise ToolchainError("triton is not installed", remedy="pip install triton")


def python() -> str:
    """This interpreter, by a path that holds inside the walls too."""
    return str(Path(sys.prefix).resolve() / "bin" / Path(sys.executable).name)


def main_file(files: Mapping[str, str], entry: str = "run") -> str | None:
    """The module that defines the entry point; None where none does, or where it can't be parsed."""
    for path in sorted(files, key=lambda p: (p != "main.py", p)):
        try:
            tree = syntax.module(files[path])
        except (SyntaxError, ValueError):
            continue
        if any(isinstance(node, ast.FunctionDef) and node.name == entry for node in tree.body):
            return path
    return None


class Triton:
    """The language `triton`: one or several Python modules, one of them with `run(*inputs, *outputs)`."""

    name: ClassVar[str] = "triton"
    suffixes: ClassVar[tuple[str, ...]] = (".py",)
    devices: ClassVar[tuple[Device, ...]] = ("gpu",)
    runner: ClassVar[Literal["native", "python"]] = "python"

    @property
    def libraries(self) -> tuple[Path, ...]:
        """This Python with its packages."""
        return tuple(dict.fromkeys((Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())))

    def admit(self, files: Mapping[str, str], entry: str = "run") -> tuple[Diagnostic, ...]:
        """Paths, suffixes, syntax, the entry point, a kernel and the tunables. Nothing is executed."""
        folders = {str(folder) for path in files for folder in Path(path).parents}
        findings = [_parse_error(f"{path!r} is no plain file name", "use short relative names of letters and digits")
                    for path in files if path in folders or not _PATH.fullmatch(path)]  # fmt: skip
        findings += [_parse_error(f"{path!r} is not a Python file", "name files .py")
                     for path in files if Path(path).suffix not in self.suffixes]  # fmt: skip
        wrong = [finding for path, text in files.items() if (finding := _syntax(path, text))]
        if wrong:
            return (*findings, *wrong)
        if main_file(files, entry) is None:
            advice = f"define {entry}(*inputs, *outputs) at the top level of a module"
            findings.append(_parse_error(f"no file defines {entry!r}", advice))
        if not any(_has_kernel(syntax.module(text)) for text in files.values()):
            findings.append(_parse_error("there is no kernel", "mark at least one function with @triton.jit"))
        try:
            self.tunables(files)
        except UsageError as error:
            findings.append(_parse_error(error.message, error.remedy))
        return tuple(findings)

    def hints(self, files: Mapping[str, str]) -> tuple[str, ...]:
        """What a reader should look at; no reason to refuse the candidate."""
        found = []
        for path, text in files.items():
            for node in ast.walk(syntax.module(text)):
                if isinstance(node, ast.Call) and (why := _SUSPECT.get(name := ast.unparse(node.func))):
                    found.append(f"{path}:{node.lineno}: {name} {why}")
        return tuple(found)

    def tunables(self, files: Mapping[str, str]) -> dict[str, tuple[Value, ...]]:
        """The tables `TUNABLES` of all modules, the default first."""
        found: dict[str, tuple[Value, ...]] = {}
        for path, text in files.items():
            node = _table(path, text)
            if node is None:
                continue
            for name, values in _read(path, node).items():
                if found.get(name, values) != values:
                    raise UsageError(f"{path}:{node.lineno}: {name} has other values elsewhere", remedy=_REMEDY)
                found[name] = values
        return found

    def sources(self, candidate: Candidate) -> dict[str, str]:
        """Every table becomes assignments of the chosen values, on the last line of the table."""
        return {path: _substituted(path, text, candidate.tunables) for path, text in candidate.files.items()}

    def build_plan(self, candidate: Candidate, hardware: Hardware) -> BuildPlan:
        """Byte-compiling: kernels are compiled when they are launched, so only the syntax is looked at here.

        The artifact is the module with the entry point; the other files lie beside it.
        """
        main = main_file(candidate.files, candidate.entry) or min(candidate.files)
        return BuildPlan(
            argv=(python(), "-I", "-m", "py_compile", *sorted(candidate.files)),
            artifact=main,
            fingerprint=digest_of(sys.version, triton_version(), hardware.architecture),
            readable=self.libraries,
        )

    def diagnose(self, output: str) -> tuple[Diagnostic, ...]:
        """The syntax error with its place, or the tail of what was printed."""
        place, raised = _PLACE.search(output), _RAISED.search(output)
        message = raised[0] if raised else output.strip()[-800:] or "Python can't compile it, and says nothing"
        return (
            CompileError(
                message=message, advice="mend the line that is named",
                file=place["file"] if place else None, line=int(place["line"]) if place else None,
            ),
        )  # fmt: skip

    def load(self, artifact: Path, entry: str = "run") -> Loaded:
        """Import the module, with its folder as a place to import its other files from."""
        label = f"kernelevolve_triton_{digest_of(str(artifact))[:16]}"
        spec = importlib.util.spec_from_file_location(label, artifact)
        if spec is None or spec.loader is None or not artifact.is_file():
            raise ToolchainError(f"can't load {artifact}: not there", remedy="delete the cache and build it again")
        module = importlib.util.module_from_spec(spec)
        try:
            with _importing_from(artifact.parent):
                sys.modules[label] = module
                spec.loader.exec_module(module)
            return Loaded(run=getattr(module, entry), prepare=getattr(module, "prepare", None))
        except (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError, RuntimeError) as error:
            sys.modules.pop(label, None)
            raise ToolchainError(
                f"can't load {artifact}: {type(error).__name__}: {error}",
                remedy="check that its imports are installed, or build it again",
            ) from error


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """The folder's modules are importable, and forgotten afterwards: another kernel may have others by these names."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == folder and not name.startswith("kernelevolve_triton_"):
                del sys.modules[name]


def _syntax(path: str, text: str) -> ParseError | None:
    try:
        syntax.module(text)
    except SyntaxError as error:
        return _parse_error(f"{path}:{error.lineno}: {error.msg}", "mend the line that is named")
    except ValueError as error:  # a null byte
        return _parse_error(f"{path}: {error}", "write plain Python source")
    return None


def _has_kernel(tree: ast.Module) -> bool:
    return any(
        ast.unparse(d.func if isinstance(d, ast.Call) else d) in ("triton.jit", "jit")
        for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for d in node.decorator_list
    )  # fmt: skip


def _table(path: str, text: str) -> ast.Assign | ast.AnnAssign | None:
    """The assignment to TUNABLES at the top level. Raises `UsageError` where there are several."""
    try:
        body = syntax.module(text).body
    except (SyntaxError, ValueError):
        return None
    found: list[ast.Assign | ast.AnnAssign] = []
    for node in body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if any(isinstance(t, ast.Name) and t.id == _TABLE for t in targets):
            found.append(node)
    if len(found) > 1:
        raise UsageError(f"{path}:{found[1].lineno}: a second {_TABLE}", remedy=_REMEDY)
    return found[0] if found else None


def _read(path: str, node: ast.Assign | ast.AnnAssign) -> dict[str, tuple[Value, ...]]:
    wrong = UsageError(f"{path}:{node.lineno}: ill-formed {_TABLE}", remedy=_REMEDY)
    try:
        table = ast.literal_eval(node.value) if node.value is not None else None
    except (ValueError, TypeError) as error:
        raise wrong from error
    if not isinstance(table, dict) or not table:
        raise wrong
    for name, values in table.items():
        plain = isinstance(values, list | tuple) and all(type(v) in (int, str) for v in values)
        if not isinstance(name, str) or not name.isidentifier() or not plain or len({*values}) != len(values) or (
            not values
        ):  # fmt: skip
            raise wrong
    return {name: tuple(values) for name, values in table.items()}


def _substituted(path: str, text: str, chosen: Mapping[str, Value]) -> str:
    node = _table(path, text)
    if node is None:
        return text
    values = {name: chosen.get(name, declared[0]) for name, declared in _read(path, node).items()}
    lines = text.encode().splitlines(keepends=True)
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    head, tail = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
    # The newlines come first, so that what follows the table on its last line (a comment, a statement) stays there.
    table = "\n" * (last - first) + "; ".join(f"{name} = {value!r}" for name, value in values.items())
    return b"".join([*lines[:first], head, table.encode(), tail, *lines[last + 1 :]]).decode()


def _parse_error(message: str, advice: str) -> ParseError:
    return ParseError(message=message, advice=advice)
