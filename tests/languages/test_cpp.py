"""C++: the contract of a language, and what is its own."""

import pytest

from kernelevolve.errors import UsageError
from kernelevolve.languages.cpp import Cpp
from kernelevolve.testing.language_contract import ComputingContract, LanguageContract
from kernelevolve.testing.records import SOURCE, a_candidate


class TestCpp(LanguageContract, ComputingContract):
    language = Cpp()
    good = a_candidate(tunables={})
    broken = a_candidate(files={"main.cpp": SOURCE.replace("from[i];", "from[i]")})
    broken_at = ("main.cpp", 11)
    without_entry = {"main.cpp": SOURCE.replace("TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);", "")}
    ill_formed_tunable = {"main.cpp": SOURCE.replace("BLOCK: 8 16 32", "BLOCK 8")}


CPP = Cpp()


def test_an_export_in_a_comment_exports_nothing() -> None:
    export = "TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);"
    for comment in (f"// {export}", f"/* {export} */", f"/*\n{export}\n*/"):
        assert CPP.admit({"main.cpp": SOURCE.replace(export, comment)})
    assert not CPP.admit({"main.cpp": SOURCE.replace(export, "TVM_FFI_DLL_EXPORT_TYPED_FUNC ( run ,\n run );")})


@pytest.mark.parametrize(
    "line", ["// tunable", "// tunable B:", "// tunable B: 1 1", "// tunable 9B: 1", "// tunable: 1"]
)
def test_a_tunable_needs_a_name_and_different_values(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        CPP.tunables({"main.cpp": f"\n{line}\n"})
    assert "main.cpp:2" in caught.value.message


def test_a_tunable_may_be_negative_a_word_and_declared_in_several_files() -> None:
    files = {"main.cpp": "  // tunable KIND: heap radix -1\n", "part.h": "\t//tunable KIND: heap radix -1\n"}
    assert CPP.tunables(files) == {"KIND": ("heap", "radix", -1)}
    sources = CPP.sources(a_candidate(files=files, tunables={"KIND": "radix"}))
    assert [text.strip() for text in sources.values()] == ["#define KIND radix"] * 2


def test_the_same_tunable_with_other_values_elsewhere_is_refused() -> None:
    with pytest.raises(UsageError, match=r"part\.h:1"):
        CPP.tunables({"main.cpp": "// tunable B: 1 2\n", "part.h": "// tunable B: 2 1\n"})


def test_a_comment_that_only_mentions_tunables_is_none() -> None:
    assert (
        CPP.tunables({"main.cpp": "// tunables are declared below\n// it is tunable by hand\nint a; // tunable x\n"})
        == {}
    )


def test_an_unresolved_symbol_is_named() -> None:
    output = "/usr/bin/ld: /tmp/ccX.o: in function `run':\nmain.cpp:(.text+0x5): undefined reference to `missing()'\n"
    (finding,) = CPP.diagnose(output)
    assert finding.kind == "compile"
    assert "undefined reference to `missing()'" in finding.message
    assert "define" in finding.advice


def test_every_error_is_reported_with_advice_that_fits() -> None:
    output = (
        "main.cpp: In function 'void run()':\n"
        "main.cpp:3:5: error: 'foo' was not declared in this scope\n"
        "part.h:7: error: static assertion failed: BLOCK too large\n"
        "main.cpp:1:10: fatal error: immintrinx.h: No such file or directory\n"
        "compilation terminated.\n"
    )
    findings = CPP.diagnose(output)
    assert [(f.file, f.line, f.column) for f in findings if f.kind == "compile"] == [
        ("main.cpp", 3, 5), ("part.h", 7, None), ("main.cpp", 1, 10),
    ]  # fmt: skip
    assert ["declare" in findings[0].advice, "tunables" in findings[1].advice, "included" in findings[2].advice] == [
        True
    ] * 3
