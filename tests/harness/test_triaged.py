"""What triage finds, as an evaluation: at which stage a candidate failed, or which code it came to."""

from pathlib import Path
from typing import Any

import pytest
import triton_kernels as kernels

from kernelevolve.hardware.devices import known
from kernelevolve.harness.triaged import triaged, verdict
from kernelevolve.schema import (
    Candidate,
    CompiledKernel,
    CompileError,
    Crash,
    Diagnostic,
    Evaluation,
    Failed,
    Instructions,
    Job,
    LimitExceeded,
    ParseError,
    Raised,
    Resources,
    TensorUse,
    Triage,
    Triaged,
    Uncaptured,
)
from kernelevolve.testing.records import a_candidate, a_target, a_workload

H200 = known("nvidia-h200")
TARGET = a_target(
    workloads=(a_workload("big", n=1 << 20, device="gpu"), a_workload("small", n=1000, role="check", device="gpu"))
)
SAID = {"message": "what", "advice": "do this"}


def a_job(source: str = kernels.DOUBLE, **changes: Any) -> Job:
    candidate = Candidate(language="triton", files={"main.py": source}, **changes)
    return Job(target=TARGET, candidate=candidate, hardware=H200.hardware, threads=4, cache_dir="")


def a_kernel(**changes: Any) -> CompiledKernel:
    counts = Instructions(total=60, tensor_core=0, vector_loads=1, async_copies=0, local_memory=0)
    needs = Resources(registers=32, spill_bytes=0, shared_bytes=0, num_warps=4, num_stages=1, instructions=counts)
    fields: dict[str, Any] = {
        "workload": "big", "launch": 0, "kernel": "double", "grid": (2048, 1, 1), "configuration": {"B": "512"},
        "resources": needs, "blocks_per_multiprocessor": 16, "occupancy": 1.0, "waves": 1.0,
        "tensors": (TensorUse(storage=0, bytes=4 << 20), TensorUse(storage=1, bytes=4 << 20)), "code": "code",
    }  # fmt: skip
    return CompiledKernel(**{**fields, **changes})


def judged(*diagnostics: Diagnostic, kernels: tuple[CompiledKernel, ...] = (a_kernel(),), seconds: float = 1.0) -> Any:
    found = Triage(
        candidate=a_candidate().digest, target=TARGET.digest, hardware_key=H200.key, architecture="sm_90",
        versions={"triton": "3.6"}, sandbox=("rlimits",), kernels=kernels, diagnostics=diagnostics,
        seconds={"compile": seconds, "interpret": 2 * seconds, "total": 3 * seconds},
    )  # fmt: skip
    return verdict(found, a_job(), H200)


@pytest.mark.parametrize(
    ("finding", "compiled", "stage"),
    [
        (ParseError(**SAID), False, "parse"),
        (CompileError(**SAID), True, "build"),
        (LimitExceeded(**SAID, resource="shared_memory", limit=1.0), True, "build"),
        (LimitExceeded(**SAID, resource="time", limit=180.0), False, "build"),
        (Crash(**SAID), False, "build"),
        (LimitExceeded(**SAID, resource="time", limit=60.0), True, "check"),
        (Crash(**SAID), True, "check"),
        (Raised(**SAID), True, "check"),
    ],
)
def test_a_failure_has_the_stage_at_which_a_judge_would_have_met_it(finding, compiled, stage) -> None:
    found = judged(Uncaptured(**SAID), finding, kernels=(a_kernel(),) if compiled else ())
    assert isinstance(found, Failed)
    assert (found.stage, found.diagnostics[1]) == (stage, finding)
    assert found.environment.hardware_key == "nvidia-h200"


def test_what_passed_says_what_it_rests_on_and_what_it_cost() -> None:
    found = judged()
    assert isinstance(found, Triaged)
    assert [e.workload for e in found.estimates] == ["big"]
    assert found.estimated_us == pytest.approx(found.estimates[0].estimated_us)
    assert found.estimated_rate == pytest.approx(1e6 / found.estimated_us)
    assert (found.costs.build_s, found.costs.check_s, found.costs.total_s) == (1.0, 2.0, 3.0)
    assert (found.environment.versions, found.environment.sandbox) == ({"triton": "3.6"}, ("rlimits",))


def test_the_digest_is_of_the_findings_and_not_of_the_time_they_took() -> None:
    assert judged(seconds=9.0).triage == judged().triage
    assert judged(kernels=(a_kernel(code="other"),)).triage != judged().triage


def test_a_launcher_that_can_not_be_captured_passes_without_a_number() -> None:
    found = judged(Uncaptured(**SAID, workload="big"))
    assert (found.outcome, found.estimated_us, found.estimated_rate, found.code) == ("triaged", None, None, None)


def test_the_code_is_what_would_run_whatever_it_is_called() -> None:
    same = a_kernel(kernel="twice", configuration={"SIZE": "512"})
    assert judged(kernels=(same,)).code == judged().code
    for other in (a_kernel(code="other"), a_kernel(grid=(1024, 1, 1)), a_kernel(launch=1)):
        assert judged(kernels=(other,)).code != judged().code
    assert judged(kernels=(a_kernel(code=""),)).code is None
    limit = LimitExceeded(**SAID, resource="shared_memory", limit=1.0)
    unusable = a_kernel(code="too large", diagnostics=(limit,))
    assert judged(kernels=(a_kernel(), unusable)).code == judged().code


def looked_at(source: str, cache_dir: Path, **changes: Any) -> Evaluation:
    return triaged(a_job(source, **changes).model_copy(update={"cache_dir": str(cache_dir)}))


def test_equal_code_is_recognised_in_different_sources(cache_dir: Path) -> None:
    first = looked_at(kernels.DOUBLE, cache_dir)
    assert isinstance(first, Triaged), first
    commented = kernels.DOUBLE.replace("@triton.jit\n", "# a comment that moves every line\n\n\n@triton.jit\n")
    second = looked_at(commented, cache_dir)
    assert isinstance(second, Triaged), second
    assert second.candidate != first.candidate
    assert second.code == first.code
    larger = looked_at(kernels.DOUBLE.replace("512", "1024"), cache_dir)
    assert isinstance(larger, Triaged), larger
    assert larger.code != first.code
    (estimate,) = first.estimates
    assert estimate.moved_bytes == 2 * (4 << 20)
