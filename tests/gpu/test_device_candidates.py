"""Candidates on a real device: right ones pass, each kind of wrong one is named, and the next finds the device fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device_kernels import PREPARED, a_module, on_gpu

from kernelevolve.harness.judge import Judge
from kernelevolve.schema import Candidate, Diagnostic, Failed, Hardware, Job, Limits, Passed, Target, TimingPlan

pytestmark = pytest.mark.gpu

SCALE = 256
"""Rows: 4096 x 512 and 16384 x 512 numbers, 8 and 32 MB in and as much out."""

Evaluate = Callable[..., Passed | Failed]

SLOW = "for _ in range(20):\n    launch(x, factor, out)"
"""Twenty times the work: whoever hides it looks twenty times too fast."""


@pytest.fixture(scope="session")
def evaluate(judge: Judge, tiny: Target, gpu: Hardware, cache_dir: Path) -> Evaluate:
    def run(candidate: Candidate, scale: int = SCALE, **changes: Any) -> Passed | Failed:
        fields: dict[str, Any] = {
            "target": on_gpu(tiny, scale), "candidate": candidate, "hardware": gpu, "timing": TimingPlan(),
            "threads": 2, "cache_dir": str(cache_dir),
        }  # fmt: skip
        return judge.evaluate(Job(**{**fields, **changes}))

    return run


@pytest.fixture(scope="session")
def honest_us(evaluate: Evaluate) -> list[float]:
    """What the plain kernel takes on each workload."""
    passed = evaluate(a_module())
    assert isinstance(passed, Passed), passed
    return [m.candidate_us for m in passed.measurements]


def failed(evaluation: Passed | Failed, *stages: str) -> Diagnostic:
    """Its first finding, once it has failed at one of these stages."""
    assert isinstance(evaluation, Failed), evaluation
    assert evaluation.stage in stages, evaluation.diagnostics
    assert all(d.message and d.advice for d in evaluation.diagnostics)
    return evaluation.diagnostics[0]


# --- right ---


def test_a_right_kernel_passes_in_the_judges_memory_with_the_devices_state(evaluate: Evaluate, gpu: Hardware) -> None:
    passed = evaluate(a_module())
    assert isinstance(passed, Passed), passed
    assert all(m.roofline_share is not None and 0.05 < m.roofline_share < 1.2 for m in passed.measurements)
    expected = "mapped" if gpu.vendor == "nvidia" else "copied"
    assert f"{expected}-device-memory" in passed.environment.sandbox
    assert {"device", "profile"} <= {d.kind for d in passed.diagnostics}


def test_the_same_kernel_as_baseline_and_candidate_is_about_as_fast(evaluate: Evaluate) -> None:
    """Where memory bounds both: on smaller inputs the cost of a launch decides, and Triton's is higher than torch's."""
    passed = evaluate(a_module(), scale=16 * SCALE, timing=TimingPlan(max_pairs=40, seconds=10.0))
    assert isinstance(passed, Passed), passed
    assert all(0.5 < m.speedup < 2.0 for m in passed.measurements)


def test_constants_are_repacked_once(evaluate: Evaluate) -> None:
    passed = evaluate(a_module(source=PREPARED))
    assert isinstance(passed, Passed), passed
    assert all(m.prepare_us is not None and m.prepare_us > 0 for m in passed.measurements)


def test_short_calls_are_replayed_from_a_graph_too(evaluate: Evaluate) -> None:
    passed = evaluate(a_module(), scale=1)
    assert isinstance(passed, Passed), passed
    graphs = [d for d in passed.diagnostics if d.kind == "graph"]
    assert len(graphs) == len(passed.measurements)
    for graph, measured in zip(graphs, passed.measurements, strict=True):
        assert graph.candidate_us < measured.candidate_us


def test_a_profiler_names_the_bound_where_there_is_one(evaluate: Evaluate) -> None:
    passed = evaluate(a_module(), counters=True)
    assert isinstance(passed, Passed), passed
    found = [d for d in passed.diagnostics if d.kind == "counters"]
    assert found
    assert "scale" in {d.kernel.split("(")[0] for d in found} or found[0].kernel


# --- faults ---

FAR = """
@triton.jit
def far(out, BLOCK: tl.constexpr):
    tl.store(out + (1 << 40) + tl.arange(0, BLOCK), 1.0)
"""
ENDLESS = """
@triton.jit
def endless(out):
    while tl.load(out, volatile=True) != 12345.0:
        pass
"""


def test_an_illegal_address_costs_that_candidate_only(evaluate: Evaluate) -> None:
    finding = failed(evaluate(a_module("far[(1,)](out, BLOCK=128)", global_code=FAR)), "check")
    assert finding.kind == "fault"
    assert finding.name == "CUDA_ERROR_ILLEGAL_ADDRESS"
    assert isinstance(evaluate(a_module()), Passed)


def test_a_hang_costs_that_candidate_only(evaluate: Evaluate) -> None:
    limits = Limits(call_s=3.0, build_s=20.0)
    finding = failed(evaluate(a_module("endless[(1,)](out)", global_code=ENDLESS), limits=limits), "check")
    assert finding.kind == "limit"
    assert finding.resource == "time"
    assert isinstance(evaluate(a_module()), Passed)


def test_memory_without_end_is_refused(evaluate: Evaluate) -> None:
    finding = failed(evaluate(a_module("torch.empty(1 << 42, dtype=torch.uint8, device='cuda')")), "check")
    assert finding.kind == "limit"
    assert finding.resource == "memory"


def test_inputs_are_not_for_writing(evaluate: Evaluate) -> None:
    """A fault where the driver maps read-only, a changed input otherwise; and the next candidate has its own."""
    failed(evaluate(a_module("x.zero_(); launch(x, factor, out)")), "check", "time")
    assert isinstance(evaluate(a_module()), Passed)


# --- the device's rows of the catalogue of exploits ---


def slower_than_honest(evaluation: Passed | Failed, honest_us: list[float]) -> bool:
    """Whether hidden work was found out: refused, or timed in full."""
    if isinstance(evaluation, Failed):
        return True
    return all(m.candidate_us > 8 * us for m, us in zip(evaluation.measurements, honest_us, strict=True))


SIDE = "side = torch.cuda.Stream()\nside.wait_stream(torch.cuda.current_stream())\nwith torch.cuda.stream(side):\n"
BLIND = "torch.cuda.synchronize = lambda *_: None\ntorch._C._cuda_synchronize = lambda *_: None"
HIDDEN = {
    "side stream": (SIDE + "    for _ in range(20):\n        launch(x, factor, out)", ""),
    "side stream, and nobody waits": (SIDE + "    for _ in range(20):\n        launch(x, factor, out)", BLIND),
    "nobody waits": (SLOW, BLIND),
    "background thread": (
        "threading.Thread(target=lambda: [launch(x, factor, out) for _ in range(20)]).start()", "import threading"),
    "late background thread": (
        "threading.Timer(0.002, lambda: launch(x, factor, out)).start()", "import threading"),
    "patched clocks": (
        SLOW, "import time\ntorch.cuda.Event.elapsed_time = lambda *_: 1e-6\ntime.perf_counter = lambda: 0.0\n"
        "time.perf_counter_ns = lambda: 0\ntime.monotonic = lambda: 0.0"),
}  # fmt: skip


@pytest.mark.parametrize(("body", "global_code"), HIDDEN.values(), ids=HIDDEN)
def test_hidden_work_is_found_or_timed(evaluate: Evaluate, honest_us: list[float], body: str, global_code: str) -> None:
    assert slower_than_honest(evaluate(a_module(body, global_code=global_code)), honest_us)


KEPT = {
    "by address": "x.data_ptr()",
    "by tensor": "id(x)",
    "by shape": "x.shape",
    "by address and version": "(x.data_ptr(), x._version)",
    "by address and a glance at the content": "(x.data_ptr(), x[0, :4].sum().item())",
}


@pytest.mark.parametrize("key", KEPT.values(), ids=KEPT)
def test_an_answer_that_was_kept_is_wrong_once_the_input_changes_where_it_lies(evaluate: Evaluate, key: str) -> None:
    body = (
        f"key = {key}\n"
        "if key not in KEPT:\n"
        "    launch(x, factor, out)\n"
        "    KEPT[key] = out.clone()\n"
        "out.copy_(KEPT[key])"
    )
    finding = failed(evaluate(a_module(body, global_code="KEPT = {}")), "check", "time")
    assert finding.kind in ("numeric", "cheat")


def test_a_stale_graph_writes_to_where_it_was_captured(evaluate: Evaluate) -> None:
    body = (
        "if x.shape not in GRAPHS:\n"
        "    launch(x, factor, out)\n"
        "    torch.cuda.synchronize()\n"
        "    GRAPHS[x.shape] = graph = torch.cuda.CUDAGraph()\n"
        "    with torch.cuda.graph(graph):\n"
        "        launch(x, factor, out)\n"
        "GRAPHS[x.shape].replay()"
    )
    assert failed(evaluate(a_module(body, global_code="GRAPHS = {}")), "check").kind == "numeric"


def test_a_graph_for_every_call_is_legitimate(evaluate: Evaluate) -> None:
    """Replaying by address is right where the graph reads what lies there now: no false alarm."""
    body = (
        "key = (x.data_ptr(), out.data_ptr())\n"
        "if key not in GRAPHS:\n"
        "    launch(x, factor, out)\n"
        "    torch.cuda.synchronize()\n"
        "    GRAPHS[key] = graph = torch.cuda.CUDAGraph()\n"
        "    with torch.cuda.graph(graph):\n"
        "        launch(x, factor, out)\n"
        "GRAPHS[key].replay()"
    )
    evaluation = evaluate(a_module(body, global_code="GRAPHS = {}"))
    assert evaluation.outcome == "passed", evaluation.diagnostics


SPIN = """
@triton.jit
def spin(out, n):
    total = 0.0
    for i in range(n):
        total += tl.load(out + i % 7, volatile=True)
    if total == 12345.0:
        tl.store(out, total)
"""


def test_work_that_is_left_to_slow_the_baseline_wins_nothing(evaluate: Evaluate) -> None:
    body = (
        "launch(x, factor, out)\n"
        "side = torch.cuda.Stream()\n"
        "with torch.cuda.stream(side):\n"
        "    spin[(264,)](torch.zeros(8, device='cuda'), 200000)"
    )
    evaluation = evaluate(a_module(body, global_code=f"{BLIND}\n{SPIN}"))
    assert isinstance(evaluation, Failed) or all(m.verdict != "faster" for m in evaluation.measurements)
