"""Triton: the contract of a language, and what is its own."""

from pathlib import Path

import pytest

from kernelevolve.errors import UsageError
from kernelevolve.languages.triton import Triton, main_file
from kernelevolve.testing.language_contract import LanguageContract
from kernelevolve.testing.records import a_candidate
from kernelevolve.testing.sources import TRITON as SOURCE

TRITON = Triton()


def a_triton_candidate(source: str = SOURCE, **tunables: int | str):
    return a_candidate(language="triton", files={"main.py": source}, tunables=tunables)


class TestTriton(LanguageContract):
    language = TRITON
    good = a_triton_candidate()
    broken = a_triton_candidate(SOURCE.replace("B: tl.constexpr):", "B: tl.constexpr:"))
    broken_at = ("main.py", 8)
    without_entry = {"main.py": SOURCE.replace("def run(", "def go(")}
    ill_formed_tunable = {"main.py": SOURCE.replace("[512, 1024]", "range(3)")}


def test_a_table_over_several_lines_keeps_every_line_where_it_was() -> None:
    table = 'TUNABLES = {\n    "A": [1, 2],  # first\n    "B": ("x", "y"),\n}  # all'
    source = SOURCE.replace('TUNABLES = {"BLOCK": [512, 1024]}', table)
    changed = TRITON.sources(a_triton_candidate(source, A=2))["main.py"]
    assert changed.count("\n") == source.count("\n")
    values: dict[str, object] = {}
    exec("".join(line for line in changed.splitlines(True) if line.startswith(("A =", "B ="))), values)
    assert (values["A"], values["B"]) == (2, "x")
    before, after = source.splitlines(), changed.splitlines()
    assert before[:3] == after[:3]
    assert before[7:] == after[7:]


def test_what_stands_beside_a_table_on_its_lines_stays() -> None:
    changed = TRITON.sources(a_triton_candidate('a = 1; TUNABLES = {"N":\n [3, 4]}; b = 2\n'))["main.py"]
    values: dict[str, object] = {}
    exec(changed, values)
    assert (values["a"], values["N"], values["b"]) == (1, 3, 2)


@pytest.mark.parametrize("table", ["{}", "[1]", '{"N": []}', '{"N": [1, 1]}', '{"N": [1.5]}', '{"9": [1]}', "f()"])
def test_a_table_that_is_no_literal_of_different_values_is_refused_with_its_line(table: str) -> None:
    with pytest.raises(UsageError, match=r"main\.py:2"):
        TRITON.tunables({"main.py": f"\nTUNABLES = {table}\n"})


def test_a_module_without_a_kernel_is_no_candidate() -> None:
    assert TRITON.admit({"main.py": "def run(x, y):\n    y.copy_(x)\n"})


def test_a_syntax_error_is_refused_with_its_line_before_anything_runs() -> None:
    (finding,) = TRITON.admit({"main.py": "x = 1\ndef run(:\n"})
    assert "main.py:2" in finding.message


def test_a_second_compiler_is_a_hint_and_no_reason_to_refuse() -> None:
    source = SOURCE + "\n\nhelper = torch.compile(run)\n"
    assert TRITON.admit({"main.py": source}) == ()
    assert "torch.compile" in TRITON.hints({"main.py": source})[0]
    assert TRITON.hints({"main.py": SOURCE}) == ()


def test_a_kernel_of_several_files_imports_them_and_leaves_nothing_behind(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "part.py").write_text(f"VALUE = {number}\n")
        (folder / "main.py").write_text("from part import VALUE\n\ndef run():\n    return VALUE\n")
        assert TRITON.load(folder / "main.py").run() == number
    assert main_file({"part.py": "VALUE = 1\n", "kernel.py": SOURCE}) == "kernel.py"
