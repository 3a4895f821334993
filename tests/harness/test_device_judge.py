"""A candidate for a GPU before the judge, in Triton's interpreter on copies: all but the device is the real thing.

What needs the device itself is in tests/gpu.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from device_kernels import PREPARED, a_module, on_gpu

from kernelevolve.hardware.devices import known
from kernelevolve.harness.access import INTERPRETED
from kernelevolve.harness.judge import Judge
from kernelevolve.schema import Candidate, Diagnostic, Failed, Job, Limits, Passed, Target, TimingPlan

QUICK = TimingPlan(confidence=0.9, min_pairs=4, max_pairs=40, half_width=1.0, turn_us=2000.0, seconds=20.0)

Evaluate = Callable[..., Passed | Failed]


@pytest.fixture(scope="module")
def judge(cache_dir: Path) -> Iterator[Judge]:
    before = torch.get_num_threads()
    judge = Judge(cache_dir, INTERPRETED)
    yield judge
    judge.close()
    torch.set_num_threads(before)


@pytest.fixture
def evaluate(judge: Judge, tiny: Target, cache_dir: Path) -> Evaluate:
    def run(candidate: Candidate, **changes: Any) -> Passed | Failed:
        fields: dict[str, Any] = {
            "target": on_gpu(tiny), "candidate": candidate, "hardware": known("nvidia-h200").hardware,
            "timing": QUICK, "cache_dir": str(cache_dir),
        }  # fmt: skip
        return judge.evaluate(Job(**{**fields, **changes}))

    return run


def failed(evaluation: Passed | Failed, stage: str) -> Diagnostic:
    """Its first finding, once it has failed at that stage."""
    assert isinstance(evaluation, Failed), evaluation
    assert evaluation.stage == stage, evaluation.diagnostics
    assert all(d.message and d.advice for d in evaluation.diagnostics)
    return evaluation.diagnostics[0]


def test_a_right_kernel_passes_and_the_record_says_whose_memory_it_worked_on(evaluate: Evaluate) -> None:
    passed = evaluate(a_module())
    assert isinstance(passed, Passed), passed
    assert [m.baseline for m in passed.measurements] == ["eager", "eager"]
    assert all(m.candidate_us > 0 and m.low <= m.speedup <= m.high for m in passed.measurements)
    assert "copied-device-memory" in passed.environment.sandbox
    assert passed.environment.hardware_key == "nvidia-h200"
    assert {"torch", "triton"} <= set(passed.environment.versions)


def test_constants_are_repacked_once_and_that_time_is_kept_apart(evaluate: Evaluate) -> None:
    passed = evaluate(a_module(source=PREPARED))
    assert isinstance(passed, Passed), passed
    assert all(m.prepare_us is not None and m.prepare_us > 0 for m in passed.measurements)


def test_poison_reaches_the_device_and_what_was_not_written_is_found(evaluate: Evaluate) -> None:
    finding = failed(
        evaluate(a_module("launch(x[:-1], factor, out) if len(x) > 1 else launch(x, factor, out)")), "check"
    )
    assert finding.kind == "numeric"
    assert finding.pattern == "poison"


def test_an_answer_kept_from_another_call_is_wrong(evaluate: Evaluate) -> None:
    body = (
        "kept = KEPT.setdefault(x.shape, out)\nif kept is out:\n    launch(x, factor, out)\nelse:\n    out.copy_(kept)"
    )
    finding = failed(evaluate(a_module(body, global_code="KEPT = {}")), "check")
    assert finding.kind == "numeric"


def test_what_run_raises_comes_with_its_line(evaluate: Evaluate) -> None:
    finding = failed(evaluate(a_module("launch(x, factor, no_such_name)")), "check")
    assert finding.kind == "raised"
    assert "main.py:20: NameError" in finding.message


def test_a_module_that_cannot_be_imported_fails_to_load(evaluate: Evaluate) -> None:
    finding = failed(evaluate(a_module(global_code="import no_such_module")), "load")
    assert finding.kind == "raised"
    assert "no_such_module" in finding.message


def test_a_process_that_exits_is_no_success(evaluate: Evaluate) -> None:
    finding = failed(evaluate(a_module("import os; os._exit(0)")), "check")
    assert finding.kind == "crash"
    assert finding.exit_code == 0


@pytest.mark.slow
def test_a_call_without_end_is_ended(evaluate: Evaluate) -> None:
    limits = Limits(call_s=1.0, build_s=3.0, memory_bytes=32 << 30)
    finding = failed(evaluate(a_module("while True: pass"), limits=limits), "check")
    assert finding.kind == "limit"
    assert finding.resource == "time"


WRAPPERS = {
    "a kernel that nobody needs": "launch(x, factor, out)\ntorch.mul(x, factor, out=out)",
    "no kernel at all": "torch.mul(x, factor, out=out)",
    "the library does the work": "launch(x, torch.mm(factor[None, :], torch.eye(len(factor)))[0], out)",
}


@pytest.mark.parametrize("body", WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_around_the_library_is_no_kernel(evaluate: Evaluate, body: str) -> None:
    finding = failed(evaluate(a_module(body)), "check")
    assert finding.kind == "cheat"
    assert finding.name == "wrapper"


def test_neither_references_nor_other_processes_nor_secrets_are_within_reach(evaluate: Evaluate) -> None:
    body = f"""\
import glob, kernelevolve, os
package = os.path.dirname(kernelevolve.__file__)
seen = glob.glob(f"{{package}}/bundled/*") + glob.glob("/tmp/*/reference.py") + glob.glob("/proc/[0-9]*")
seen += [path for path in ("{Path(__file__)}", "/etc/shadow", "/etc/passwd") if os.path.exists(path)]
assert not seen and not [name for name in os.environ if "KEY" in name or "KERNELEVOLVE" in name], seen
launch(x, factor, out)"""
    evaluation = evaluate(a_module(body))
    assert evaluation.outcome == "passed", evaluation.diagnostics
