"""Records: closed, frozen, the same after a trip through JSON, and named by everything they hold."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kernelevolve import schema
from kernelevolve.errors import TargetError
from kernelevolve.schema import (
    Ask,
    Attempt,
    Bandwidth,
    Bottleneck,
    Box,
    Brief,
    Budgets,
    CalibrationJob,
    CallFailed,
    Ceilings,
    Cheat,
    CompiledKernel,
    CompileError,
    Counters,
    Crash,
    DeviceFault,
    DeviceState,
    Document,
    Duplicate,
    Estimate,
    Exchange,
    Exploit,
    ExploitOutcome,
    Failed,
    GraphVariant,
    Instructions,
    Job,
    Lever,
    LimitExceeded,
    Lineage,
    Measurement,
    ModelInfo,
    ModelRequest,
    NoEstimate,
    NoKernel,
    NothingWins,
    NumericDifference,
    Parent,
    ParseError,
    Passed,
    Profile,
    Queue,
    QueueEntry,
    Raised,
    Record,
    RedTeamReport,
    Refused,
    Reply,
    Resources,
    Reused,
    Run,
    Seed,
    Step,
    StopRules,
    TensorUse,
    Triage,
    Trouble,
    Uncaptured,
    Unsettled,
    Usage,
    digest_of,
    evaluate,
    evaluation_adapter,
)
from kernelevolve.testing.records import (
    a_calibration,
    a_candidate,
    a_failed,
    a_hardware,
    a_measurement,
    a_passed,
    a_proposal,
    a_run_spec,
    a_target,
    a_triaged,
    an_estimate,
    an_event,
)
from kernelevolve.testing.registry_records import an_entry

SAID = {"message": "what", "advice": "do this"}
CEILINGS = Ceilings(
    bandwidths=(Bandwidth(footprint_bytes=1 << 15, gbps=200.0), Bandwidth(footprint_bytes=1 << 25, gbps=20.0)),
    peak_gflops={"float32": 100.0},
    threads=2,
    measured_at="2026-01-02T03:04:05+00:00",
)
DIAGNOSTICS = (
    ParseError(**SAID),
    NoKernel(**SAID, reason="refusal"),
    Duplicate(**SAID, of="d", by="source"),
    Reused(**SAID, of="d"),
    CompileError(**SAID, file="a.cpp", line=3),
    NumericDifference(
        **SAID, workload="w", output="y", wrong=1, total=9, pattern="tail", first_index=(1, 2), expected="1",
        actual="nan",
    ),
    LimitExceeded(**SAID, resource="time", limit=10.0),
    Crash(**SAID, signal="SIGSEGV"),
    Raised(**SAID),
    Profile(**SAID, workload="w", bound="memory", roofline_share=0.5, achieved_gbps=1.0, achieved_gflops=2.0),
    Cheat(**SAID, name="forged answer"),
    Unsettled(**SAID, workload="w"),
    Uncaptured(**SAID),
    DeviceFault(**SAID, name="CUDA_ERROR_ILLEGAL_ADDRESS"),
    DeviceState(**SAID, sm_clock_mhz=(1200.0, 1980.0), memory_clock_mhz=(3201.0, 3201.0), temperature_c=61.0),
    Counters(**SAID, source="ncu", kernel="k", launches=1, bound="memory", metrics={"dram_pct": 91.0}),
    GraphVariant(**SAID, workload="w", baseline="eager", candidate_us=5.0, baseline_us=None),
)  # fmt: skip
COMPILED = CompiledKernel(
    workload="w", launch=0, kernel="k", grid=(1, 2, 3), configuration={"BLOCK": "64"},
    resources=Resources(
        registers=32, spill_bytes=0, shared_bytes=1024, num_warps=4, num_stages=3,
        instructions=Instructions(total=100, tensor_core=8, vector_loads=4, async_copies=2, local_memory=0),
    ),
    blocks_per_multiprocessor=2, occupancy=0.5, waves=None, tensors=(TensorUse(storage=0, bytes=4096),), code="d",
)  # fmt: skip
QUESTION = ModelRequest(step=1, model="m", system="s", prompt="p", max_output_tokens=100)
PARENT = Parent(candidate=a_candidate(), evaluation=a_passed(diagnostics=DIAGNOSTICS))
RECORDS: tuple[Record, ...] = (
    *DIAGNOSTICS,
    a_target(),
    *a_target().workloads,
    a_hardware(ceilings=CEILINGS),
    a_candidate(),
    a_candidate(tunables={"KIND": "heap", "BLOCK": -1}, lineage=Lineage(change="crossover", parents=("a", "b"))),
    a_proposal(usage=Usage(cost_usd=None), answer="ünïcode \N{SNOWMAN}\x00"),
    a_measurement(prepare_us=3.5, roofline_share=0.1),
    a_passed(),
    a_failed(),
    a_failed(a_candidate(), "check", environment=None),
    a_triaged(),
    a_triaged(estimated_us=None, code=None, diagnostics=(Uncaptured(**SAID),)),
    NoEstimate(workload="w", reason="nothing is known"),
    Queue(
        target="double", target_digest="t", hardware_key="nvidia-h200", created_at="2026-01-02",
        kernelevolve="0.1.0", entries=(QueueEntry(candidate=a_candidate(), estimates=(an_estimate(),), triage="d"),),
    ),
    a_calibration(),
    an_event(),
    a_run_spec(minutes=1.5),
    an_entry(),
    PARENT,
    Refused(candidate="d", reason="no_win", message="slower", evaluation=a_passed()),
    Job(target=a_target(), candidate=a_candidate(), hardware=a_hardware(), baselines={"w": ("eager",)}, cache_dir="/c"),
    CalibrationJob(target=a_target(), hardware=a_hardware(), cache_dir="/c"),
    Brief(
        step=1, target=a_target(), hardware=a_hardware(), language="cpp", change="repair", parents=(PARENT,),
        seeds=(Seed(name="s", language="cpp", files={"a.cpp": ""}),), documents=(Document(path="p", text="t"),),
        bottleneck=Bottleneck(name="memory", message="98 % of the bandwidth"),
        history=(Attempt(candidate="d", change="diff", label="l", outcome="passed", speedup=1.5),),
    ),
    NothingWins(
        evaluated=9, passed=1, best_speedup=0.9, low=0.8, high=1.0, roofline_share=0.8, baseline_roofline_share=0.9,
        levers=(Lever(origin="plain", change="draft", tried=9, passed=1, best_speedup=0.9),),
    ),
    ModelInfo(name="m", protocol="anthropic", input_usd_per_mtok=3.0, output_usd_per_mtok=15.0),
    a_proposal(trouble=Trouble(reason="prose", detail="no code block"), dropped=("history",)),
    a_run_spec(budgets=Budgets(usd=1.5), stop=StopRules(roofline=0.9)),
    Ask(
        number=1,
        brief=Brief(step=1, target=a_target(), hardware=a_hardware(), language="cpp", change="draft"),
        exchanges=(
            Exchange(request=QUESTION, answer=CallFailed(reason="rate_limit", message="slow down")),
            Exchange(request=QUESTION, answer=Reply(text="hello", stop="end", usage=Usage(input_tokens=3))),
        ),
    ),
    Step(number=0, proposal=a_proposal(), evaluation=a_passed(), confirmations=(a_failed(purpose="confirm"),)),
    Run(spec=a_run_spec(), calibration=a_calibration(), steps=(Step(number=0, proposal=a_proposal()),)),
    Box(dtypes={"T": "float32"}, axes={"N": (1, 9)}),
    Triage(
        candidate="c", target="t", hardware_key="nvidia-h200", architecture="sm_90", versions={"triton": "3.6"},
        sandbox=("rlimits",), kernels=(COMPILED,), diagnostics=DIAGNOSTICS, seconds={"compile": 0.5},
    ),
)  # fmt: skip

OUTCOME = ExploitOutcome(
    name="timing/memo", expected="caught", row="replay by identity", defence="inputs change", caught=True,
    as_expected=True, stage="time", kind="numeric", message="wrong", speedup=None, seconds=1.5,
)  # fmt: skip
RECORDS += (
    Exploit(target="double", expected="clean"),
    RedTeamReport(
        recall=1.0, false_alarms=None, exploits=1, caught=1, clean=0, flagged=0, mistaken=0, outcomes=(OUTCOME,)
    ),
)

every_record = pytest.mark.parametrize("record", RECORDS, ids=[type(r).__name__ for r in RECORDS])


def test_every_kind_of_record_is_tried_here() -> None:
    """Alone or within another one."""
    tried: set[type] = set()

    def visit(value: object) -> None:
        if isinstance(value, Record):
            tried.add(type(value))
            for name in type(value).model_fields:
                visit(getattr(value, name))
        elif isinstance(value, list | tuple):
            for item in value:
                visit(item)
        elif isinstance(value, dict):
            for item in value.values():
                visit(item)

    for record in RECORDS:
        visit(record)
    kinds = [getattr(schema, name) for name in schema.__all__]
    rules = {schema.ExactRule, schema.IndexRule}  # of outputs; the targets' tests read them
    known = {kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Record)}
    assert known - tried - rules == {Record}


def test_an_estimate_has_no_field_that_a_measurement_has() -> None:
    """Nobody can take the one for the other: beside the workload they share no name."""
    assert set(Estimate.model_fields) & set(Measurement.model_fields) == {"workload"}
    assert not hasattr(a_triaged(), "fitness")
    assert not hasattr(a_triaged(), "speedup")


@every_record
def test_json_brings_a_record_back_unchanged(record: Record) -> None:
    text = record.model_dump_json()
    back = type(record).model_validate_json(text)
    assert back == record
    assert back.digest == record.digest
    assert json.loads(text) == record.model_dump(mode="json")


@every_record
def test_an_unknown_key_is_an_error(record: Record) -> None:
    fields = {**record.model_dump(), "surprise": 1}
    with pytest.raises(ValidationError, match="surprise"):
        type(record).model_validate(fields)


@every_record
def test_a_record_cannot_be_changed(record: Record) -> None:
    name = next(iter(type(record).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(record, name, getattr(record, name))


@every_record
def test_the_digest_does_not_depend_on_the_order_of_keys(record: Record) -> None:
    def reversed_keys(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reversed_keys(value[key]) for key in reversed(value)}
        return [reversed_keys(v) for v in value] if isinstance(value, list) else value

    back = type(record).model_validate(reversed_keys(record.model_dump(mode="json")))
    assert back.digest == record.digest


@every_record
def test_every_field_has_a_part_in_the_digest(record: Record) -> None:
    """Also one that is added later: nobody has to remember to list it."""
    for name in type(record).model_fields:
        fields = record.model_dump(mode="json")
        before = fields[name]
        fields[name] = {**before, "x": 1} if isinstance(before, dict) else "changed" if before != "changed" else "x"
        assert digest_of(type(record).__name__, fields) != record.digest, name


def test_a_changed_copy_has_a_digest_of_its_own_and_is_checked() -> None:
    first = a_candidate()
    digest, family, code = first.digest, first.family, first.code
    other = first.model_copy(update={"tunables": {"BLOCK": 16}})
    assert other.digest != digest
    assert other.digest == a_candidate(tunables={"BLOCK": 16}).digest
    assert other.family == family
    assert other.code != code
    with pytest.raises(ValidationError):
        first.model_copy(update={"tunables": {"BLOCK": [1]}})
    with pytest.raises(ValidationError):
        first.model_copy(update={"surprise": 1})


def test_kinds_with_equal_fields_have_different_digests() -> None:
    assert Raised(**SAID).digest != Unsettled(**SAID).digest


def test_a_digest_is_the_same_in_another_process() -> None:
    program = "from kernelevolve.testing.records import a_run_spec as spec; print(spec().digest, end='')"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        )
        assert done.stdout == a_run_spec().digest


def test_a_digest_refuses_what_json_cannot_say() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest_of(math.nan)
    assert a_measurement(speedup=1.5).digest != a_measurement(speedup=1.5000001).digest


def test_candidates_with_the_same_code_are_one_kernel_whatever_their_lineage() -> None:
    one, two = a_candidate(), a_candidate(lineage=Lineage(change="retune", parents=("p",)))
    assert one.digest != two.digest
    assert one.code == two.code
    assert one.code != a_candidate(entry="other").code
    assert one.family != a_candidate(files={"main.cpp": "x"}).family


def test_a_candidates_label_names_its_origin_and_tunables() -> None:
    assert a_candidate().label == "main.cpp BLOCK=8"
    bare = a_candidate(lineage=Lineage(), tunables={})
    assert bare.label == bare.digest[:12]


# --- fitness ---


def test_fitness_is_the_lower_end_of_the_geometric_mean() -> None:
    passed = a_passed(measurements=(a_measurement(2.0), a_measurement(8.0)))
    assert passed.speedup == pytest.approx(4.0)
    below = math.sqrt(2) * math.log(1 / 0.98) / 2
    above = math.sqrt(2) * math.log(1.02) / 2
    assert passed.interval == (pytest.approx(4 * math.exp(-below)), pytest.approx(4 * math.exp(above)))
    assert passed.fitness == passed.interval[0]


def test_one_workload_keeps_its_own_interval() -> None:
    measured = a_measurement(1.5)
    assert a_passed().interval == (pytest.approx(measured.low), pytest.approx(measured.high))


@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.5, 1), st.floats(1, 2)), min_size=1, max_size=8))
def test_the_interval_encloses_the_mean_and_is_never_wider_than_the_widest(
    drawn: list[tuple[float, float, float]],
) -> None:
    measured = tuple(a_measurement(s, low=s * below, high=s * above) for s, below, above in drawn)
    passed = a_passed(measurements=measured)
    low, high = passed.interval
    assert low <= passed.speedup * (1 + 1e-9)
    assert high >= passed.speedup * (1 - 1e-9)
    assert low >= passed.speedup * min(below for _, below, _ in drawn) * (1 - 1e-9)
    assert high <= passed.speedup * max(above for _, _, above in drawn) * (1 + 1e-9)


def test_an_evaluation_is_read_back_as_what_it_was() -> None:
    for evaluation in (a_passed(), a_failed()):
        assert evaluation_adapter.validate_json(evaluation.model_dump_json()) == evaluation
    assert isinstance(evaluation_adapter.validate_json(a_failed().model_dump_json()), Failed)
    assert isinstance(evaluation_adapter.validate_json(a_passed().model_dump_json()), Passed)
    with pytest.raises(ValidationError):
        evaluation_adapter.validate_python({**a_failed().model_dump(), "outcome": "passed"})


def test_the_fastest_baseline_that_is_right_is_the_one_to_beat() -> None:
    times = [("slow", 9.0, None), ("wrong", 1.0, "differs"), ("failed", None, "raised"), ("fast", 5.0, None)]
    calibration = a_calibration(
        times={"w": tuple({"baseline": b, "median_us": us, "problem": why} for b, us, why in times)}
    )
    assert calibration.fastest("w") == "fast"


# --- what records compute ---


@pytest.mark.parametrize(
    ("expression", "value"),
    [(7, 7), ("N", 10), ("N * M // 4", 7), ("ceil(N / M)", 4), ("max(N, M) - min(N, M)", 7), ("N ** 2", 100)],
)
def test_sizes_are_arithmetic_over_axes(expression: str | int, value: int) -> None:
    assert evaluate(expression, {"N": 10, "M": 3}) == value


@pytest.mark.parametrize(
    "expression", ["K", "N / 0", "N +", "__import__('os')", "1e308 * 10 * N", "[1][0]", "'a' + 'b'"]
)
def test_anything_else_is_refused(expression: str) -> None:
    with pytest.raises(TargetError) as caught:
        evaluate(expression, {"N": 10})
    assert "N" in caught.value.remedy


def test_a_target_knows_its_sizes_and_costs() -> None:
    target, workload = a_target(), a_target().workload("n1024")
    assert target.shape(target.inputs[0], workload) == (1024,)
    assert target.tensor_bytes(target.outputs[0], workload) == 4096
    assert target.compulsory_bytes(workload) == 8192
    assert target.operations(workload) == 1024
    cost = {"operations": "2 * N", "compulsory_bytes": "N * bytes_T + 1"}
    assert a_target(cost=cost).compulsory_bytes(workload) == 4097
    assert [w.name for w in target.select("cpu", "search", "check")] == ["n1024", "n7"]
    assert target.select("gpu", "search") == ()
    with pytest.raises(TargetError, match="n99"):
        target.workload("n99")


def test_the_roofline_is_the_slower_of_memory_and_arithmetic() -> None:
    assert CEILINGS.roofline_us(0, 200_000, 1 << 15, "float32") == pytest.approx(1.0)
    assert CEILINGS.roofline_us(0, 20_000, 1 << 30, "float32") == pytest.approx(1.0)
    assert CEILINGS.roofline_us(1_000_000, 1, 1, "float32") == pytest.approx(10.0)
    assert CEILINGS.roofline_us(1_000_000, 0, 1, "int8") == 0.0
    assert CEILINGS.bandwidth_gbps(1) == CEILINGS.bandwidth_gbps((1 << 25) - 1) == 200.0


def test_a_box_holds_its_bounds_and_nothing_beyond() -> None:
    box = Box(dtypes={"T": "float32"}, axes={"N": (8, 16), "M": (1, 1)})
    assert box.contains({"N": 8, "M": 1}, {"T": "float32"})
    assert box.contains({"N": 16, "M": 1}, {"T": "float32"})
    for axes, dtype in (({"N": 7, "M": 1}, "float32"), ({"N": 17, "M": 1}, "float32"), ({"N": 8, "M": 2}, "float32"),
                        ({"N": 8, "M": 1}, "bfloat16")):  # fmt: skip
        assert not box.contains(axes, {"T": dtype})
