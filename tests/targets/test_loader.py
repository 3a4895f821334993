import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kernelevolve import targets
from kernelevolve.errors import TargetError

SHIPPED = Path(__file__).parents[2] / "targets"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one freshly created target, `scale`, to break in one place."""
    targets.create("scale", tmp_path)
    return tmp_path


def edit(folder: Path, old: str, new: str, file: str = "target.toml") -> None:
    path = folder / "scale" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def failure(folder: Path, name: str = "scale") -> TargetError:
    with pytest.raises(TargetError) as caught:
        targets.load(name, folder)
    assert caught.value.remedy
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize("name", targets.names(SHIPPED))
def test_every_shipped_target_loads(name: str) -> None:
    target = targets.load(name, SHIPPED)
    assert target.name == name
    assert target.digest == targets.load(name, SHIPPED).digest


def test_the_three_first_targets_are_shipped() -> None:
    assert {"topk", "request_broadcast", "grouped_gemm"} <= set(targets.names(SHIPPED))


def test_a_folder_without_target_toml_is_no_target(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "target.toml").write_text("")
    assert targets.names(folder) == ("scale",)
    assert "target.toml is missing" in failure(folder, "notes").message


def test_an_unknown_target_is_refused_with_close_names() -> None:
    error = failure(SHIPPED, "topq")
    assert "topq" in error.message
    assert "topk" in error.remedy


def test_a_name_that_resembles_nothing_lists_what_there_is(folder: Path) -> None:
    assert "scale" in failure(folder, "zzzzzz").remedy


def test_a_path_is_not_a_name(folder: Path) -> None:
    assert "no target is called" in failure(folder / "scale", "../scale").message


BROKEN: dict[str, tuple[str, str, str, str]] = {
    # what is wrong: (text, its replacement, what the message must name, what the remedy must name)
    "TOML syntax": ('name = "scale"', "name = ", r"target\.toml: .*line 3", "syntax"),
    "an unknown key": ('summary = "Each', 'sumary = "Each', "sumary is not a known key", "summary"),
    "an unknown key of a workload": (
        'role = "search"',
        'rolle = "search"',
        r"workloads\[0\]\.rolle is not a known key",
        "role",
    ),
    "an unknown key with nothing missing": (
        "constant = true",
        "constnt = true",
        r"inputs\[1\]\.constnt is not a known key",
        "did you mean constant",
    ),
    "the key files": ("cost.operations", 'files.x = ""\ncost.operations', "files is not a known key", "remove"),
    "a missing key": ('source = "Say', '# source = "Say', "source is missing", "where the operation"),
    "a number that is text": ("rows = 3,", 'rows = "3",', r"workloads\[4\]\.axes\.rows is '3'", ""),
    "a role that doesn't exist": ('"held_out"', '"heldout"', r"workloads\[2\]\.role is 'heldout'", ""),
    "a rule that doesn't exist": ('rule = { kind = "error" }', 'rule = { kind = "near" }', r"outputs\[0\]\.rule", ""),
    "an unknown key of a rule": (
        'rule = { kind = "error" }',
        'rule = { kind = "error", slak = 1.0 }',
        r"outputs\[0\]\.rule\.slak is not a known key",
        "remove",
    ),
    "a number that is not finite": (
        'rule = { kind = "error" }',
        'rule = { kind = "error", slack = inf }',
        "nan or inf",
        "finite",
    ),
    "a name unlike the folder's": ('name = "scale"', 'name = "stretch"', "name is 'stretch'", "the same"),
    "two workloads of one name": ('"cpu-64x2048"', '"cpu-512x2048"', "'cpu-512x2048' 2 times", "its own name"),
    "an input called like an output": ('name = "factor"', 'name = "out"', "'out' 2 times", "its own name"),
    "two baselines of one name": ('name = "compiled"', 'name = "eager"', "baselines .*'eager' 2 times", ""),
    "a shape over an unknown axis": ('shape = ["n"]', 'shape = ["m + 1"]', r"inputs\[1\]\.shape .*'m'", "rows, n"),
    "a shape that is no arithmetic": ('shape = ["n"]', 'shape = ["n +"]', r"inputs\[1\]\.shape is 'n \+'", "arithm"),
    "a shape below zero": ('shape = ["n"]', 'shape = ["n - 2"]', r"workloads\[5\]\.axes .*size -1", "shape"),
    "an input without a shape": ('name = "x", shape = ["rows", "n"]', 'name = "x"', r"inputs\[0\] \(x\)", "one of"),
    "a scalar of an unknown axis": (
        'name = "x", shape = ["rows", "n"]',
        'name = "x", axis = "k"',
        r"inputs\[0\]\.axis is the unknown 'k'",
        "rows, n",
    ),
    "an unknown element type of a tensor": (
        'shape = ["n"], dtype = "T"',
        'shape = ["n"], dtype = "U"',
        r"inputs\[1\]\.dtype .*'U'",
        "T, float64",
    ),
    "an unknown element type": ('["float32"]', '["float33"]', r"dtypes\.T .*'float33'", "float32"),
    "a cost over an unknown axis": ('"rows * n"', '"rows * k"', r"cost\.operations .*'k'", "rows, n"),
    "a cost in bytes over an unknown name": (
        'cost.operations = "rows * n"',
        'cost.operations = "rows * n"\ncost.compulsory_bytes = "rows * bytes_U"',
        r"cost\.compulsory_bytes .*'bytes_U'",
        "bytes_T",
    ),
    "a cost of an unknown precision": (
        'cost.operations = "rows * n"',
        'cost.operations = "rows * n"\ncost.precision = "half"',
        r"cost\.precision is the unknown 'half'",
        "float16",
    ),
    "a cost that can't be computed": ('"rows * n"', '"rows // (n - 1)"', r"workloads\[5\] \(cpu-check-one\)", "arithm"),
    "a workload without an axis": ("{ rows = 3, n = 17 }", "{ rows = 3 }", r"workloads\[4\]\.axes\.n is missing", ""),
    "a workload with an unknown axis": (
        "n = 17 }",
        "n = 17, k = 1 }",
        r"workloads\[4\]\.axes\.k is not declared",
        "rows",
    ),
    "a workload with a negative axis": ("n = 17 }", "n = -17 }", r"workloads\[4\]\.axes\.n is -17", "0 or more"),
    "a workload without its type": (
        'dtypes = { T = "float32" }',
        "dtypes = {}",
        r"workloads\[0\]\.dtypes\.T is missing",
        "",
    ),
    "a workload with an unknown type parameter": (
        'dtypes = { T = "float32" }',
        'dtypes = { T = "float32", U = "int8" }',
        r"workloads\[0\]\.dtypes\.U is not declared",
        "T",
    ),
    "a workload in a type that isn't declared": (
        'dtypes = { T = "float32" }',
        'dtypes = { T = "bfloat16" }',
        r"workloads\[0\]\.dtypes\.T is 'bfloat16'",
        "float32",
    ),
    "an index rule over an unknown input": (
        'rule = { kind = "error" }',
        'rule = { kind = "index", source = "y", values = "out" }',
        r"outputs\[0\]\.rule\.source is the unknown 'y'",
        "x, factor",
    ),
    "an index rule over an unknown output": (
        'rule = { kind = "error" }',
        'rule = { kind = "index", source = "x", values = "y" }',
        r"outputs\[0\]\.rule\.values is the unknown 'y'",
        "out",
    ),
    "a held-out workload that was shown": (
        "{ rows = 512, n = 500 }",
        "{ rows = 512, n = 2048 }",
        "hold out cpu-512x500",
        "change",
    ),
    "a baseline without a function": (
        'name = "eager"',
        'name = "lazy"',
        r"baselines\.py: lazy is not defined",
        "define",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_target_is_refused_with_file_key_and_remedy(folder: Path, case: str) -> None:
    old, new, message, remedy = BROKEN[case]
    edit(folder, old, new)
    error = failure(folder)
    assert str(folder / "scale") in error.message
    assert re.search(message, error.message), error.message
    assert remedy in error.remedy


def drop(pattern: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, "", text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(r'    \{ name = .*role = "search".*\n'), "workloads have no search one for the cpu"),
        (drop(r'    \{ name = .*role = "held_out".*\n'), "workloads have no held_out one for the cpu"),
        (drop(r'    \{ name = .*role = "(held_out|search)".*\n'), "workloads have no search one"),
        (drop(r"    \{ name = .*summary = .*\n"), "baselines is empty"),
        (drop(r"outputs = .*\n"), "outputs is missing"),
        (lambda text: text.replace("summary = \"torch.mul", 'devices = ["gpu"], summary = "torch.mul').replace(
            "compiled = true", 'devices = ["gpu"]'), "baselines has none for the cpu"),
    ],
)  # fmt: skip
def test_a_target_that_lacks_a_part_is_refused(folder: Path, change: Callable[[str], str], message: str) -> None:
    path = folder / "scale" / "target.toml"
    path.write_text(change(path.read_text()))
    error = failure(folder)
    assert message in error.message
    assert str(path) in error.message


@pytest.mark.parametrize("file", ["reference.py", "baselines.py"])
def test_a_missing_source_is_refused(folder: Path, file: str) -> None:
    (folder / "scale" / file).unlink()
    assert f"{file} is missing" in failure(folder).message


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("reference.py", "def reference(", "def referenz(", r"reference\.py: reference is not defined"),
        ("reference.py", "return x * factor", "return x *", r"reference\.py: line \d+ is no Python"),
        ("reference.py", "x: torch.Tensor, ", "", r"reference\.py: reference takes 1 arguments, not 2"),
        ("baselines.py", "def eager(x: torch.Tensor, ", "def eager(", r"baselines\.py: eager takes 2 arguments, not 3"),
        ("inputs.py", "def make(", "def build(", r"inputs\.py: make is not defined"),
    ],
)
def test_sources_are_read_for_their_functions(folder: Path, file: str, old: str, new: str, message: str) -> None:
    edit(folder, old, new, file)
    assert re.search(message, failure(folder).message)


def test_sources_are_not_run_when_a_target_is_loaded(folder: Path) -> None:
    edit(folder, "import torch", "import torch\nraise RuntimeError", "reference.py")
    assert targets.load("scale", folder).name == "scale"


def test_a_case_of_inputs_needs_an_inputs_file(folder: Path) -> None:
    (folder / "scale" / "inputs.py").unlink()
    error = failure(folder)
    assert "workloads[0].inputs is 'normal'" in error.message
    assert "inputs.py" in error.remedy


def test_a_file_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / "scale" / "target.toml").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in failure(folder).message


def test_a_changed_source_changes_the_digest(folder: Path) -> None:
    before = targets.load("scale", folder).digest
    edit(folder, "x * factor", "factor * x", "reference.py")
    assert targets.load("scale", folder).digest != before


def test_a_new_target_loads_and_has_a_seed(folder: Path) -> None:
    target = targets.load("scale", folder)
    assert target.select("cpu", "search")
    assert target.select("cpu", "held_out")
    assert [(seed.name, seed.language, list(seed.files)) for seed in targets.seeds("scale", folder)] == [
        ("plain", "cpp", ["plain.cpp"])
    ]


def test_a_new_target_keeps_what_is_there(folder: Path) -> None:
    with pytest.raises(TargetError, match="exists already"):
        targets.create("scale", folder)


@pytest.mark.parametrize("name", ["", "Scale", "../scale", "2d", "a-b"])
def test_a_new_target_needs_a_plain_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(TargetError, match="can't name a target"):
        targets.create(name, tmp_path)


def test_seeds_are_files_and_folders_by_language(folder: Path) -> None:
    seeds = folder / "scale" / "seeds"
    (seeds / "cpp" / "split" / "detail").mkdir(parents=True)
    (seeds / "cpp" / "split" / "main.cpp").write_text("main")
    (seeds / "cpp" / "split" / "detail" / "rows.h").write_text("rows")
    (seeds / "cpp" / "split" / ".swap").write_text("")
    (seeds / "cpp" / ".plain.cpp.swp").write_text("")
    (seeds / "triton").mkdir()
    (seeds / "triton" / "tiled.py").write_text("tiled")
    found = {(seed.language, seed.name): seed.files for seed in targets.seeds("scale", folder)}
    assert set(found) == {("cpp", "plain"), ("cpp", "split"), ("triton", "tiled")}
    assert found["cpp", "split"] == {"main.cpp": "main", "detail/rows.h": "rows"}


def test_two_seeds_of_one_name_are_refused(folder: Path) -> None:
    (folder / "scale" / "seeds" / "cpp" / "plain.cc").write_text("")
    with pytest.raises(TargetError, match="two seeds are called 'plain'"):
        targets.seeds("scale", folder)


def test_a_target_may_have_no_seeds(folder: Path) -> None:
    shutil.rmtree(folder / "scale" / "seeds")
    assert targets.seeds("scale", folder) == ()
