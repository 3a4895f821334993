"""Which documents a brief gets in a situation."""

from functools import cache
from pathlib import Path

import pytest

from kernelevolve import targets
from kernelevolve.catalog import LANGUAGES
from kernelevolve.errors import UsageError
from kernelevolve.hardware.devices import known
from kernelevolve.knowledge import Library, Query
from kernelevolve.knowledge.checking import problems
from kernelevolve.prompts import Prompts
from kernelevolve.schema import Hardware
from kernelevolve.testing.records import a_hardware

ROOT = Path(__file__).parent.parent.parent
PROMPTS = Prompts(ROOT / "prompts")

HASWELL = a_hardware(vendor="intel", architecture="x86-64-v3", features=("avx2", "fma"))
GENOA = a_hardware(vendor="amd", architecture="x86-64-v4", features=("avx2", "avx512f", "avx512_bf16", "fma"))
RAPIDS = a_hardware(vendor="intel", architecture="x86-64-v4", features=("amx_bf16", "amx_tile", "avx2", "avx512f"))
H200 = known("nvidia-h200").hardware
A100 = a_hardware(device="gpu", vendor="nvidia", architecture="sm_80")
B200 = a_hardware(device="gpu", vendor="nvidia", architecture="sm_100")
MI300X = a_hardware(device="gpu", vendor="amd", architecture="gfx942:sramecc+:xnack-")
MI355X = a_hardware(device="gpu", vendor="amd", architecture="gfx950")


@cache
def library() -> Library:
    return Library.load(PROMPTS)


def carried(target: str, hardware: Hardware, language: str, bottleneck: str = "unknown", **more: object) -> list[str]:
    query = Query.of(targets.load(target, ROOT / "targets"), hardware, language, bottleneck=bottleneck, **more)
    return [document.path for document in library().retrieve(query)]


def fitting(hardware: Hardware, language: str) -> list[str]:
    query = Query(summary="fast kernels", hardware=hardware, language=language, documents=100, characters=10**9)
    return [document.path for document in library().retrieve(query)]


@pytest.mark.parametrize(
    ("target", "hardware", "language", "bottleneck", "expected"),
    [
        ("topk", HASWELL, "cpp", "memory", {"guidance/selection_cpu.md", "guidance/memory.md", "hardware/x86/avx2.md"}),
        ("topk", GENOA, "cpp", "memory", {"guidance/selection_cpu.md", "guidance/memory.md", "hardware/x86/zen.md"}),
        ("topk", H200, "triton", "compile", {"languages/triton.md", "guidance/repair.md"}),
        ("topk", H200, "cuda", "latency", {"guidance/selection_gpu.md", "guidance/latency.md"}),
        ("topk", A100, "cuda", "memory", {"guidance/selection_gpu.md", "hardware/nvidia/ampere.md"}),
        ("grouped_gemm", H200, "cuda", "compute", {"guidance/grouped_gemm.md", "hardware/nvidia/hopper.md"}),
        ("grouped_gemm", H200, "triton", "occupancy", {"guidance/grouped_gemm.md", "guidance/persistent_kernels.md"}),
        ("grouped_gemm", B200, "cuda", "compute", {"languages/cuda_tensor_cores.md", "hardware/nvidia/blackwell.md"}),
        ("grouped_gemm", GENOA, "cpp", "latency", {"guidance/grouped_gemm.md", "guidance/latency.md"}),
        ("request_broadcast", RAPIDS, "cpp", "compute", {"guidance/request_broadcast.md", "hardware/x86/amx.md"}),
        ("request_broadcast", MI300X, "triton", "memory", {"guidance/request_broadcast.md", "hardware/amd/memory.md"}),
        ("request_broadcast", MI355X, "triton", "compute", {"hardware/amd/cdna4.md"}),
        ("topk", GENOA, "cpp", "correctness", {"constraints/numerics.md"}),
    ],
)
def test_a_situation_gets_the_documents_for_it(
    target: str, hardware: Hardware, language: str, bottleneck: str, expected: set[str]
) -> None:
    assert expected <= set(carried(target, hardware, language, bottleneck))


@pytest.mark.parametrize("language", ["cpp", "cuda", "triton"])
def test_the_languages_page_and_the_contract_come_first_whatever_is_asked(language: str) -> None:
    hardware = GENOA if language == "cpp" else H200
    for bottleneck in ("memory", "compile", "never heard of"):
        found = carried("topk", hardware, language, bottleneck, documents=1)
        assert found[:2] == [f"languages/{language}.md", "constraints/contract.md"]
        assert len(found) == 3


@pytest.mark.parametrize("hardware", [HASWELL, GENOA, RAPIDS, A100, H200, B200, MI300X, MI355X])
def test_other_hardware_is_never_talked_about(hardware: Hardware) -> None:
    own = {"cpu": "hardware/x86", "gpu": f"hardware/{hardware.vendor}"}[hardware.device]
    found = fitting(hardware, "cpp" if hardware.device == "cpu" else "triton")
    pages = [path for path in found if path.startswith("hardware/")]
    assert pages
    assert all(path.startswith(own) for path in pages)


def test_a_cpu_of_amds_gets_no_page_about_amds_gpus_and_a_page_about_zen() -> None:
    found = fitting(GENOA, "cpp")
    assert "hardware/x86/zen.md" in found
    assert not any("hardware/amd" in path for path in found)
    assert "hardware/x86/zen.md" not in fitting(RAPIDS, "cpp")


def test_an_instruction_set_that_the_machine_lacks_is_not_explained() -> None:
    assert not {"hardware/x86/avx512.md", "hardware/x86/amx.md"} & set(fitting(HASWELL, "cpp"))
    assert "hardware/x86/amx.md" not in fitting(GENOA, "cpp")


def test_another_language_is_not_explained() -> None:
    assert not {"languages/cuda.md", "languages/cpp.md"} & set(fitting(H200, "triton"))


def test_limits_of_documents_and_characters_hold() -> None:
    everything = {document.path: len(document.text) for document in library().documents.values()}
    always = everything["languages/cpp.md"] + everything["constraints/contract.md"]
    assert len(carried("topk", GENOA, "cpp", "memory", documents=2)) == 4
    found = carried("topk", GENOA, "cpp", "memory", documents=100, characters=20_000)
    assert always < sum(everything[path] for path in found) <= 20_000
    assert carried("topk", GENOA, "cpp", "memory", characters=0) == ["languages/cpp.md", "constraints/contract.md"]


def test_the_same_question_gets_the_same_answer() -> None:
    again = Library.load(PROMPTS)
    query = Query.of(targets.load("topk", ROOT / "targets"), GENOA, "cpp", bottleneck="compute")
    assert again.retrieve(query) == library().retrieve(query)
    assert again.find(query) == library().find(query)


@pytest.mark.parametrize("path", sorted(Library.load(PROMPTS).documents))
def test_every_document_can_be_found_by_what_it_is_about(path: str) -> None:
    line = next(line for line in library().lines if line.path == path)
    best = library().find(Query(summary=line.title, bottleneck=line.bottlenecks[0], skills=True))[:8]
    assert path in [match.line.path for match in best]


def test_words_alone_find_documents() -> None:
    def first(words: str) -> str:
        return library().find(Query(summary=words))[0].line.path

    assert first("bucketize sorted table search") == "guidance/lookup.md"
    assert first("embedding bag pooling") == "guidance/ragged.md"
    assert first("tcgen05 tensor memory") == "hardware/nvidia/blackwell.md"
    assert library().find(Query(summary="zzz", target="zzz", bottleneck="zzz"))[0].score == 0


def test_every_language_that_can_be_searched_in_has_its_page() -> None:
    assert {f"languages/{name}.md" for name in LANGUAGES.names()} <= set(library().documents)


def test_a_language_without_a_page_is_an_error_that_says_what_to_write() -> None:
    with pytest.raises(UsageError, match=r"language mojo.*languages/mojo\.md"):
        library().retrieve(Query(language="mojo"))


def test_a_document_that_is_not_there_is_an_error_with_a_close_name() -> None:
    with pytest.raises(UsageError, match=r"did you mean guidance/tiling\.md"):
        library().document("guidance/tilling.md")


def test_nothing_is_wrong_with_what_ships() -> None:
    assert problems(PROMPTS) == []
