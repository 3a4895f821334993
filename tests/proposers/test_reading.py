"""Replies as models give them, and what becomes of each."""

import pytest

from kernelevolve.languages.cpp import Cpp
from kernelevolve.languages.triton import Triton
from kernelevolve.proposers.reading import Kernel, idea_of, kernel_in, written
from kernelevolve.schema import CallFailed, Reply, Trouble, Usage
from kernelevolve.testing.records import SOURCE
from kernelevolve.testing.sources import TRITON

BASE = {"main.cpp": SOURCE}


def said(text, stop="end"):
    return Reply(text=text, stop=stop, usage=Usage(input_tokens=10, output_tokens=7))


def read(text, base=None, language=None):
    return kernel_in(said(text), language or Cpp(), base)


def fence(text, info="cpp"):
    return f"```{info}\n{text}```\n"


def block(search, replace):
    return f"<<<<<<< SEARCH\n{search}\n=======\n{replace}\n>>>>>>> REPLACE\n"


SHELL = fence("g++ main.cpp\n", "bash")
LOOP = fence("for (;;) {}\n")


def files(found):
    assert isinstance(found, Kernel), found
    return found.files


def trouble(found, reason="malformed_edit"):
    assert isinstance(found, Trouble), found
    assert found.reason == reason
    return found.detail


@pytest.mark.parametrize(
    "reply",
    [
        fence(SOURCE),
        fence(SOURCE, ""),
        fence(SOURCE, "c++"),
        fence(SOURCE, "cpp file=main.cpp"),
        fence(SOURCE, "cpp main.cpp"),
        fence(SOURCE, "cpp:main.cpp"),
        fence(SOURCE, 'cpp title="main.cpp"'),
        fence(SOURCE, "main.cpp"),
        fence(f"// file: main.cpp\n{SOURCE}"),
        f"**main.cpp**\n\n{fence(SOURCE)}",
        f"### `main.cpp`:\n{fence(SOURCE)}",
        f"~~~cpp\n{SOURCE}~~~\n",
        fence(SOURCE).replace("\n", "\r\n"),
        f"Idea: faster.\n\n{fence(SOURCE)}\nIt is faster since `run` does less.\n",
        f"Compile it like this:\n{SHELL}\nThe code:\n{fence(SOURCE)}",
        f"The old loop:\n{LOOP}\nThe kernel:\n{fence(SOURCE)}",
        "1. Here it is:\n\n" + "".join(f"   {line}\n" for line in fence(SOURCE).splitlines()).replace("   \n", "\n"),
    ],
)
def test_a_whole_kernel_is_found_in_every_usual_form(reply):
    assert files(read(reply)) == BASE


def test_several_files_are_one_kernel():
    header = "#pragma once\nconstexpr int kWidth = 8;\n"
    reply = fence(f'#include "width.h"\n{SOURCE}', "cpp file=main.cpp") + fence(header, "cpp file=lib/width.h")
    assert set(files(read(reply))) == {"main.cpp", "lib/width.h"}


def test_a_file_without_a_name_takes_that_of_the_parent_or_of_the_language():
    assert set(files(read(fence(SOURCE), {"heap.cpp": SOURCE}))) == {"heap.cpp"}
    assert set(files(read(fence(TRITON, "python"), language=Triton()))) == {"main.py"}


def test_a_test_beside_the_kernel_is_not_part_of_it():
    reply = fence(SOURCE, "cpp file=main.cpp") + fence("assert True\n", "python file=test_it.py")
    assert set(files(read(reply))) == {"main.cpp"}


def test_what_is_written_as_files_reads_back_the_same():
    found = {"main.cpp": f"// ```\n{SOURCE}", "b.h": "int x;\n"}
    answer = read(written(found, "two files"))
    assert (files(answer), answer.idea) == (found, "two files")


@pytest.mark.parametrize("text", ["I would use AVX2 here.", "TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);", SOURCE])
def test_prose_is_never_a_kernel_and_neither_is_code_outside_of_a_fence(text):
    assert "fenced block" in trouble(read(text), "prose")


def test_a_shell_command_alone_is_prose():
    trouble(read(fence("g++ -O3 main.cpp", "bash")), "prose")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (said("I can't help with that.", "refusal"), "refusal"),
        (said("", "refusal"), "refusal"),
        (said("  \n"), "empty"),
        (said(fence(SOURCE), "length"), "truncated"),
        (CallFailed(reason="empty", message="no text"), "empty"),
        (CallFailed(reason="timeout", message="after 600 s"), "no_reply"),
        (CallFailed(reason="skipped", message="by hand"), "no_reply"),
    ],
)
def test_what_is_no_answer_says_why(answer, reason):
    assert trouble(kernel_in(answer, Cpp()), reason)


@pytest.mark.parametrize(
    ("reply", "said_so"),
    [
        (f"```cpp\n{SOURCE[: len(SOURCE) // 3]}", "never closed"),
        (fence(SOURCE) + fence(SOURCE.replace("2.0f", "3.0f")), "2 code blocks without a file name"),
        (fence("int a;\n") + fence("int b;\n"), "none of them could be the kernel"),
        (fence(SOURCE, "cpp file=main.cpp") + fence("int b;\n", "cpp file=main.cpp"), "two blocks say"),
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_is_refused(reply, said_so):
    assert said_so in trouble(read(reply))


def test_a_last_block_that_is_never_closed_is_read_where_the_kernel_is_whole():
    assert read(f"Idea: none\n```cpp\n{SOURCE}").files == {"main.cpp": SOURCE}


def test_a_block_replaces_lines_of_the_parent():
    found = read(
        fence(block("    for (int64_t i = start; i < end; ++i) to[i] = 2.0f * from[i];", "    // nothing")), BASE
    )
    assert files(found) == {
        "main.cpp": SOURCE.replace("for (int64_t i = start; i < end; ++i) to[i] = 2.0f * from[i];", "// nothing")
    }
    assert found.edited


def test_blocks_need_no_fence_and_are_applied_in_turn():
    reply = block("#include <algorithm>", "#include <cstdint>\n#include <algorithm>") + block(
        "#include <cstdint>", "#include <cmath>"
    )
    assert "#include <cmath>\n#include <algorithm>" in files(read(reply, BASE))["main.cpp"]


def test_blank_space_may_differ_where_the_place_is_clear_and_indentation_follows_it():
    base = {"main.py": "def run(x):\n    for i in x:\n        y = i\n        z = y\n"}
    found = read(block("y  =  i", "y = i + 1\nif y:\n    y = 2"), base, Triton())
    assert (
        files(found)["main.py"]
        == "def run(x):\n    for i in x:\n        y = i + 1\n        if y:\n            y = 2\n        z = y\n"
    )


def test_a_block_names_its_file_where_there_are_several():
    base = {"a.h": "int x;\nint y;\n", "b.h": "int x;\n"}
    found = read(fence(block("int x;", "long x;"), "cpp file=b.h"), base)
    assert files(found) == {"a.h": "int x;\nint y;\n", "b.h": "long x;\n"}


def test_an_empty_search_makes_a_new_file_where_it_is_named():
    found = read(fence(block("", "int z;"), "cpp file=z.h"), BASE)
    assert files(found) == {**BASE, "z.h": "int z;\n"}


@pytest.mark.parametrize(
    ("reply", "base", "said_so"),
    [
        (block("int x;", "int y;"), {"a.h": "int x;\nint x;\n"}, "occur 2 times (a.h:1, a.h:2)"),
        (block("int x;", "int y;"), {"a.h": "int x;\n", "b.h": "int x;\n"}, "occur 2 times (a.h:1, b.h:1)"),
        (block("int  x;", "int y;"), {"a.h": "int x;\n  int x;\n"}, "occur 2 times"),
        (block("float middle = 3;", "x"), {"a.h": "int a;\nfloat middle = 4;\n"}, "a.h:2, 'float middle = 4;'"),
        (block("int a;\nint b;", "x"), {"a.h": "int a;\nint c;\n"}, "a.h:1 has its first line"),
        (block("nothing like it whatsoever", "x"), {"a.h": "int a;\n"}, "no line is like"),
        (block("int a;", "int a;"), {"a.h": "int a;\n"}, "change nothing"),
        (block("", "int b;"), {"a.h": "int a;\n"}, "nothing in SEARCH"),
        ("<<<<<<< SEARCH\nint a;\n=======\nint b;\n", {"a.h": "int a;\n"}, "not complete"),
        ("<<<<<<< SEARCH\nint a;\n>>>>>>> REPLACE\n", {"a.h": "int a;\n"}, "not complete"),
        ("<<<<<<< SEARCH\nint a;\n" + block("int a;", "int b;"), {"a.h": "int a;\n"}, "not complete"),
        (fence(block("int a;", "int b;"), "cpp file=c.h"), {"a.h": "int a;\n", "b.h": "int a;\n"}, "names c.h"),
        (block("int a;", "int b;"), None, "exactly one parent"),
    ],
)
def test_a_block_that_fits_nowhere_or_twice_is_refused_in_words_that_help(reply, base, said_so):
    assert said_so in trouble(read(reply, base))


def test_a_first_block_that_fits_does_not_make_up_for_a_second_that_does_not():
    assert "block 2" in trouble(read(block("int a;", "int b;") + block("int c;", "int d;"), {"a.h": "int a;\n"}))


@pytest.mark.parametrize(
    ("reply", "idea"),
    [
        ("Idea: sort less.\n\n```cpp\n```", "sort less."),
        ("**Idea:** sort less,\nand merge more.\n\nMore of it.\n", "sort less, and merge more."),
        ("I sort less.\n\nBecause.\n```cpp\n", "I sort less."),
        ("```cpp\n// Idea: no\n```", ""),
        ("Sure!\n\nIdea - sort less\n```", "sort less"),
        (f"Idea: {'long ' * 200}", ("long " * 200)[:597].rstrip() + "..."),
    ],
)
def test_the_idea_is_what_comes_before_the_code(reply, idea):
    assert idea_of(reply) == idea
