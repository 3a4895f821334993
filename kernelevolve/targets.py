"""The folders of targets: the only module that knows their layout.

::

    targets/<op>/target.toml       signature, workloads, cost model: the fields of `schema.Target`
                 reference.py      reference(*inputs): plain PyTorch, any floating type
                 baselines.py      one function a baseline: name(*inputs, *outputs)
                 inputs.py         make(case, axes, dtypes, generator), where standard normal values won't do
                 seeds/<language>/ a file is a kernel, a subfolder is a kernel of several files

Nothing of a target is run here: its Python is read, not imported.
"""

import ast
import difflib
import json
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from kernelevolve import syntax
from kernelevolve.errors import TargetError
from kernelevolve.schema import (
    DTYPE_BYTES,
    Baseline,
    CostModel,
    IndexRule,
    Input,
    Output,
    Record,
    Seed,
    Target,
    Workload,
)

_SOURCES = ("reference.py", "baselines.py", "inputs.py")
_SECTIONS: Mapping[str, type[Record]] = {
    "inputs": Input,
    "outputs": Output,
    "baselines": Baseline,
    "cost": CostModel,
    "workloads": Workload,
}
_FUNCTIONS = {"min", "max", "ceil"}
_TEMPLATE = Path(__file__).parent / "bundled" / "new_target"


def names(folder: Path) -> tuple[str, ...]:
    """Targets in a folder, sorted."""
    return tuple(sorted(path.parent.name for path in folder.glob("[!.]*/target.toml")))


def load(name: str, folder: Path) -> Target:
    """Read and check a target. Raises `TargetError` that names file and key."""
    root = _root(name, folder)
    file = root / "target.toml"
    raw = _toml(file)
    sources = {source: _text(root / source) for source in _SOURCES if (root / source).is_file()}
    if "files" in raw:
        raise _wrong(file, "files", "is not a known key", "remove it: the files beside it are found by name")
    target = _typed(file, {**raw, "files": sources})
    if target.name != name:
        raise _wrong(file, "name", f"is {target.name!r}, the folder is {name!r}", "make them the same")
    _check_names(file, target)
    _check_signature(file, target)
    for index, workload in enumerate(target.workloads):
        _check_workload(file, f"workloads[{index}]", target, workload)
    _check_roles(file, target)
    _check_functions(root, target)
    return target


def seeds(name: str, folder: Path) -> tuple[Seed, ...]:
    """Kernels that a target ships as starting points, by language and name. Raises `TargetError`."""
    found = []
    for language in _entries(_root(name, folder) / "seeds"):
        for path in _entries(language):
            single = path.is_file()
            base = language if single else path
            parts = [path] if single else [p for p in sorted(path.rglob("*")) if _is_source(p, path)]
            files = {part.relative_to(base).as_posix(): _text(part) for part in parts}
            found.append(Seed(name=path.stem if single else path.name, language=language.name, files=files))
    for (kind, seed), count in Counter((s.language, s.name) for s in found).items():
        if count > 1:
            raise TargetError(
                f"{folder / name / 'seeds' / kind}: two seeds are called {seed!r}",
                remedy="rename one, or put the files of one kernel into a subfolder",
            )
    return tuple(found)


def create(name: str, folder: Path) -> Path:
    """Write a small, complete target to start from, and return its folder. Raises `TargetError`."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise TargetError(f"{name!r} can't name a target", remedy="use lower-case letters, digits and _")
    root = folder / name
    if root.exists():
        raise TargetError(f"{root} exists already", remedy="choose another name, or remove the folder first")
    shutil.copytree(_TEMPLATE, root, ignore=shutil.ignore_patterns("__pycache__"))
    file = root / "target.toml"
    file.write_text(_text(file).replace("@NAME@", name), encoding="utf-8")
    return root


def _root(name: str, folder: Path) -> Path:
    known = names(folder)
    if name in known:
        return folder / name
    if (folder / name).is_dir() and Path(name).name == name:
        raise TargetError(f"{folder / name / 'target.toml'} is missing", remedy="`kernelevolve targets new` writes one")
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    remedy = f"did you mean {' or '.join(close)}?" if close else f"there are: {', '.join(known) or 'none'}"
    raise TargetError(f"no target is called {name!r} in {folder}", remedy=remedy)


def _entries(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name != "__pycache__")


def _is_source(path: Path, base: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(base).parts)
    return path.is_file() and not hidden


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TargetError(f"{file} is not UTF-8 text: {error.reason}", remedy="save it as UTF-8") from error


def _toml(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"{file}: {error}", remedy="mend the TOML syntax there") from error


def _wrong(file: Path, key: str, problem: str, remedy: str) -> TargetError:
    return TargetError(f"{file}: {key} {problem}", remedy=remedy)


def _one_of(words: Iterable[str]) -> str:
    return f"choose one of: {', '.join(words)}"


# --- types: pydantic checks them, this says where in the file ---


def _typed(file: Path, raw: Mapping[str, object]) -> Target:
    try:
        # Strict JSON mode takes lists for tuples, as TOML has them, but no text for a number.
        return Target.model_validate_json(json.dumps(raw, allow_nan=False, default=str), strict=True)
    except ValidationError as error:
        found = error.errors()
        # A misspelt key is also a missing one: the spelling is what helps.
        first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
        key = _path(raw, first["loc"])
        kind = str(first["type"])
        if kind == "missing":
            raise _wrong(file, key, "is missing", _describe(first["loc"])) from error
        if kind == "extra_forbidden":
            raise _wrong(file, key, "is not a known key", _known(first["loc"])) from error
        text = first["msg"].replace("Input should", "should")
        raise _wrong(file, key, f"is {_shown(first['input'])}: {text}", "correct its value") from error
    except ValueError as error:
        raise TargetError(f"{file}: a number is nan or inf", remedy="write a finite one") from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _path(raw: object, loc: Sequence[int | str]) -> str:
    """The key as the file's author wrote it: pydantic's location without the names of union members."""
    written = ""
    for position, part in enumerate(loc):
        inside = isinstance(raw, dict) and part in raw
        if isinstance(raw, list) and isinstance(part, int) and part < len(raw):
            written, raw = f"{written}[{part}]", raw[part]
        elif inside or (position == len(loc) - 1 and isinstance(raw, dict)):
            written, raw = f"{written}.{part}", raw.get(part) if isinstance(raw, dict) else None
    return written.lstrip(".")


def _fields(loc: Sequence[int | str]) -> type[Record] | None:
    """The record that the last key of a location belongs to; None within a rule, where the kind decides."""
    nested = len(loc) > 1
    if nested and "rule" in loc[:-1]:
        return None
    return _SECTIONS.get(str(loc[0])) if nested else Target


def _describe(loc: Sequence[int | str]) -> str:
    record = _fields(loc)
    field = record.model_fields.get(str(loc[-1])) if record else None
    return f"add it: {field.description}" if field and field.description else "add it"


def _known(loc: Sequence[int | str]) -> str:
    record = _fields(loc)
    if record is None:
        return "remove it"
    known = [name for name in record.model_fields if record is not Target or name != "files"]
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"did you mean {close[0]}?" if close else _one_of(known)


# --- what the types can't say ---


def _check_names(file: Path, target: Target) -> None:
    groups = {
        "workloads": [w.name for w in target.workloads],
        "baselines": [b.name for b in target.baselines],
        "inputs and outputs": [*(i.name for i in target.inputs), *(o.name for o in target.outputs)],
    }
    for section, found in groups.items():
        for name, count in Counter(found).items():
            if count > 1:
                raise _wrong(file, section, f"have the name {name!r} {count} times", "give each its own name")
    for section in ("inputs", "outputs", "baselines"):
        if not getattr(target, section):
            raise _wrong(file, section, "is empty", f"describe at least one of the {section}")
    for parameter, types in target.dtypes.items():
        for dtype in types:
            if dtype not in DTYPE_BYTES:
                raise _wrong(file, f"dtypes.{parameter}", f"has the unknown {dtype!r}", _one_of(DTYPE_BYTES))


def _check_signature(file: Path, target: Target) -> None:
    types = (*target.dtypes, *DTYPE_BYTES)
    tensors: dict[str, Input | Output] = {f"inputs[{i}]": tensor for i, tensor in enumerate(target.inputs)}
    tensors |= {f"outputs[{i}]": tensor for i, tensor in enumerate(target.outputs)}
    for key, tensor in tensors.items():
        if tensor.dtype not in types:
            raise _wrong(file, f"{key}.dtype", f"is the unknown {tensor.dtype!r}", _one_of(types))
        for size in tensor.shape or ():
            _check_expression(file, f"{key}.shape", size, target.axes)
        if isinstance(tensor, Input):
            _check_input(file, key, tensor, target)
        elif isinstance(tensor.rule, IndexRule):
            _check_index_rule(file, f"{key}.rule", tensor.rule, target)
    cost = target.cost
    sizes = [f"bytes_{parameter}" for parameter in target.dtypes]
    _check_expression(file, "cost.operations", cost.operations, target.axes)
    _check_expression(file, "cost.compulsory_bytes", cost.compulsory_bytes or 0, (*target.axes, *sizes))
    if cost.precision not in types:
        raise _wrong(file, "cost.precision", f"is the unknown {cost.precision!r}", _one_of(types))


def _check_input(file: Path, key: str, given: Input, target: Target) -> None:
    if (given.shape is None) == (given.axis is None):
        raise _wrong(file, key, f"({given.name}) needs a shape or an axis, and not both", "keep one of them")
    if given.axis is not None and given.axis not in target.axes:
        raise _wrong(file, f"{key}.axis", f"is the unknown {given.axis!r}", _one_of(target.axes))


def _check_index_rule(file: Path, key: str, rule: IndexRule, target: Target) -> None:
    sources = [i.name for i in target.inputs if i.shape is not None]
    values = [o.name for o in target.outputs]
    for field, named, known in (("source", rule.source, sources), ("values", rule.values, values)):
        if named not in known:
            raise _wrong(file, f"{key}.{field}", f"is the unknown {named!r}", _one_of(known))


def _check_expression(file: Path, key: str, expression: str | int, known: Iterable[str]) -> None:
    try:
        tree = syntax.expression(str(expression))
    except SyntaxError as error:
        raise _wrong(file, key, f"is {expression!r}: {error.msg}", "write arithmetic over axes") from error
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for name in sorted(used - _FUNCTIONS - set(known)):
        raise _wrong(file, key, f"is {expression!r}, and {name!r} is unknown", _one_of(known))


def _check_workload(file: Path, key: str, target: Target, workload: Workload) -> None:
    _check_keys(file, f"{key}.axes", workload, workload.axes, target.axes)
    _check_keys(file, f"{key}.dtypes", workload, workload.dtypes, target.dtypes)
    for axis, size in workload.axes.items():
        if size < 0:
            raise _wrong(file, f"{key}.axes.{axis}", f"is {size}", "make it 0 or more")
    for parameter, dtype in workload.dtypes.items():
        if dtype not in target.dtypes[parameter]:
            raise _wrong(file, f"{key}.dtypes.{parameter}", f"is {dtype!r}", _one_of(target.dtypes[parameter]))
    if workload.inputs != "default" and "inputs.py" not in target.files:
        raise _wrong(file, f"{key}.inputs", f"is {workload.inputs!r}", "add an inputs.py that makes it")
    tensors: tuple[Input | Output, ...] = (*target.inputs, *target.outputs)
    try:
        smallest = min(size for tensor in tensors for size in (*target.shape(tensor, workload), 0))
        target.operations(workload)
        target.compulsory_bytes(workload)
    except TargetError as error:
        raise TargetError(f"{file}: {key} ({workload.name}): {error.message}", remedy=error.remedy) from error
    if smallest < 0:
        raise _wrong(file, f"{key}.axes", f"make a tensor of size {smallest}", "correct them, or the shape")


def _check_keys(
    file: Path, key: str, workload: Workload, given: Mapping[str, object], declared: Mapping[str, object]
) -> None:
    for name in declared:
        if name not in given:
            raise _wrong(file, f"{key}.{name}", f"is missing ({workload.name})", "every workload needs one")
    for name in given:
        if name not in declared:
            raise _wrong(file, f"{key}.{name}", f"is not declared ({workload.name})", _one_of(declared))


def _check_roles(file: Path, target: Target) -> None:
    """Each device that is timed needs something to search on, something to certify on, and a baseline."""
    timed = [w for w in target.workloads if w.role != "check"]
    if not timed:
        raise _wrong(file, "workloads", "have no search one", 'add one with role = "search"')
    for device in sorted({w.device for w in timed}):
        search, held_out = target.select(device, "search"), target.select(device, "held_out")
        for role, found in (("search", search), ("held_out", held_out)):
            if not found:
                remedy = f'add one with role = "{role}"'
                raise _wrong(file, "workloads", f"have no {role} one for the {device}", remedy)
        shown = [(w.axes, w.dtypes) for w in search]
        for workload in held_out:
            if (workload.axes, workload.dtypes) in shown:
                problem = f"hold out {workload.name}, which has the axes and types of a search one"
                raise _wrong(file, "workloads", problem, "change one of the two")
        if not any(device in baseline.devices for baseline in target.baselines):
            raise _wrong(file, "baselines", f"has none for the {device}", "add one")


# --- Python sources, read and not run ---


def _check_functions(root: Path, target: Target) -> None:
    inputs, every = len(target.inputs), len(target.inputs) + len(target.outputs)
    wanted = {"reference.py": {"reference": inputs}}
    wanted["baselines.py"] = {baseline.name: every for baseline in target.baselines}
    if "inputs.py" in target.files:
        wanted["inputs.py"] = {"make": 4}
    for name, functions in wanted.items():
        file = root / name
        if name not in target.files:
            raise TargetError(f"{file} is missing", remedy=f"add it, with: {', '.join(functions)}")
        try:
            body = syntax.module(target.files[name]).body
        except SyntaxError as error:
            raise _wrong(file, f"line {error.lineno}", f"is no Python: {error.msg}", "correct it") from error
        defined = {node.name: node.args for node in body if isinstance(node, ast.FunctionDef)}
        for function, count in functions.items():
            if function not in defined:
                raise _wrong(file, function, "is not defined", f"define it with {count} arguments")
            arguments = defined[function]
            taken = len(arguments.posonlyargs) + len(arguments.args)
            if taken != count and arguments.vararg is None:
                problem = f"takes {taken} arguments, not {count}"
                raise _wrong(file, function, problem, "take the inputs, then the outputs, in order")
