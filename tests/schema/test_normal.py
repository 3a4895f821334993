"""Two sources count as one kernel when a compiler can't tell them apart, and never else."""

import pytest

from kernelevolve.schema.normal import normalised
from kernelevolve.testing.records import a_candidate

CXX = """\
#include <cstdint>
// doubles
void run(float* x, int n) {
  for (int i = 0; i < n; ++i) x[i] *= 2.0f;  /* in place */
}
"""
PYTHON = """\
import triton

# doubles
def run(x, y):
    y.copy_(x * 2)  # out of place
"""


def same(old, new, suffix="cpp"):
    return normalised({f"main.{suffix}": old}) == normalised({f"main.{suffix}": new})


@pytest.mark.parametrize(
    "change",
    [
        ("// doubles\n", ""),
        ("// doubles", "// twice\n\n/* and\nmore */"),
        ("  for (int i = 0; i < n; ++i) x", "for(int i=0;i<n;++i)\n\t\tx"),
        (" /* in place */", ""),
        ("{\n", "\n{\n"),
        ("#include <cstdint>", "#include  <cstdint>  // integers"),
        ("\n", "\r\n"),
    ],
)
def test_comments_and_layout_make_no_other_kernel(change):
    assert CXX.replace(*change) != CXX
    assert same(CXX, CXX.replace(*change))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a = b - -c;", "a = b --c;"),
        ("a + ++b;", "a++ + b;"),
        ('s = "// no comment";', 's = "";'),
        ('s = "a  b";', 's = "a b";'),
        ('s = R"x(\n // kept)x";', 's = R"x(\n )x";'),
        ("#define A(x) x\n", "#define A (x) x\n"),
        ("#define A 1\nB", "#define A 1 B"),
        ("// tunable BLOCK: 8 16\nf();", "// tunable BLOCK: 16 8\nf();"),
        ("// tunable BLOCK: 8 16\nf();", "f();"),
        ("return x;", "returnx;"),
        ("a = 1.0f;", "a = 1.0;"),
        ("c = ' ';", "c = '  ';"),
    ],
)
def test_what_a_compiler_tells_apart_stays_apart(old, new):
    assert not same(old, new)


def test_a_number_with_separators_is_no_open_quote():
    assert same("n = 1'000'000; // many\nf();", "n = 1'000'000;\nf();")
    assert not same("n = 1'000; f('a');", "n = 1'000; f('b');")


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (("# doubles\n", ""), True),
        (("  # out of place", ""), True),
        (("(x * 2)", "(\n        x*2\n    )"), True),
        (("    y.copy_(x * 2)", "\ty.copy_(x * 2)"), True),
        (("x * 2", "x * 3"), False),
        (("    y.copy_", "    pass\ny.copy_"), False),
    ],
)
def test_python_is_read_as_python(change, kept):
    assert same(PYTHON, PYTHON.replace(*change), "py") is kept


def test_python_that_can_not_be_read_is_compared_as_it_is():
    assert same("def (\n'''", "def (\n'''\n", "py")
    assert not same("def (\n'''", "def  (\n'''", "py")


def test_the_name_of_an_only_file_does_not_matter_and_that_of_several_does():
    assert normalised({"a.cpp": CXX}) == normalised({"b.cpp": CXX})
    two = {"a.cpp": CXX, "b.h": "int f();"}
    assert normalised(two) == normalised(dict(reversed(two.items())))
    assert normalised(two) != normalised({"a.cpp": "int f();", "b.h": CXX})


def test_candidates_are_told_apart_by_their_tunables_and_their_language_too():
    one = a_candidate()
    assert one.normal == a_candidate(files={"x.cpp": f"// mine\n{one.files['main.cpp']}"}).normal
    assert one.normal != a_candidate(tunables={"BLOCK": 16}).normal
    assert one.normal != a_candidate(language="cuda").normal
