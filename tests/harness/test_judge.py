"""A candidate before the judge, end to end: right ones pass with their evidence, each kind of wrong one is named."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kernels import BODY, PREPARED, a_kernel
from leftovers import gone

from kernelevolve.errors import JudgeError, TargetError
from kernelevolve.harness.device import Device
from kernelevolve.harness.judge import Judge
from kernelevolve.harness.sandbox import Sandbox
from kernelevolve.schema import (
    Bandwidth,
    CalibrationJob,
    Candidate,
    Ceilings,
    Cheat,
    Crash,
    Diagnostic,
    Duplicate,
    Failed,
    Job,
    LimitExceeded,
    Limits,
    NumericDifference,
    Passed,
    Profile,
    Raised,
    Target,
    TimingPlan,
)
from kernelevolve.testing.records import a_hardware

QUICK = TimingPlan(confidence=0.9, min_pairs=4, max_pairs=40, half_width=1.0, turn_us=2000.0, seconds=20.0)
SEARCH = ["cpu-64x512", "cpu-16x512"]

Evaluate = Callable[..., Passed | Failed]


@pytest.fixture
def evaluate(judge: Judge, tiny: Target, cache_dir: Path) -> Evaluate:
    def run(candidate: Candidate, **changes: Any) -> Passed | Failed:
        fields: dict[str, Any] = {
            "target": tiny,
            "candidate": candidate,
            "hardware": a_hardware(),
            "timing": QUICK,
            "cache_dir": str(cache_dir),
        }
        return judge.evaluate(Job(**{**fields, **changes}))

    return run


def failed(evaluation: Passed | Failed, stage: str) -> Diagnostic:
    """Its first finding, once it has failed at that stage."""
    assert isinstance(evaluation, Failed), evaluation
    assert evaluation.stage == stage, evaluation.diagnostics
    assert all(d.message and d.advice for d in evaluation.diagnostics)
    return evaluation.diagnostics[0]


# --- right ---


def test_a_right_kernel_passes_with_measurements_environment_and_costs(evaluate: Evaluate, tiny: Target) -> None:
    candidate = a_kernel()
    passed = evaluate(candidate)
    assert isinstance(passed, Passed), passed
    assert (passed.candidate, passed.target, passed.purpose) == (candidate.digest, tiny.digest, "search")
    assert [m.workload for m in passed.measurements] == SEARCH
    for measured in passed.measurements:
        assert measured.axes == tiny.workload(measured.workload).axes
        assert measured.baseline == "eager"
        assert measured.candidate_us > 0
        assert measured.low <= measured.speedup <= measured.high
        assert (measured.prepare_us, measured.roofline_share) == (None, None)
    assert passed.diagnostics == ()
    assert passed.environment.hardware_key == a_hardware().key
    assert {"torch", "g++", "tvm-ffi"} <= set(passed.environment.versions)
    assert "own-process" in passed.environment.sandbox
    costs = passed.costs
    assert 0 < costs.kernel_s < costs.time_s < costs.total_s
    assert costs.build_s + costs.check_s + costs.time_s <= costs.total_s


def test_only_the_workloads_that_a_job_names_are_timed(evaluate: Evaluate) -> None:
    passed = evaluate(a_kernel(), workloads=("cpu-16x300",), purpose="certify")
    assert isinstance(passed, Passed), passed
    assert [m.workload for m in passed.measurements] == ["cpu-16x300"]
    assert passed.purpose == "certify"


def test_a_kernel_that_is_wrong_on_some_draws_is_not_certified(evaluate: Evaluate) -> None:
    """On one number in three of a check workload that holds one number: two draws may miss it, and 32 don't."""
    now_and_then = a_kernel(f"{BODY}\nif (rows * n == 1 && x[0] > 0.4f) out[0] += 1.0f;")
    finding = failed(evaluate(now_and_then, purpose="certify"), "check")
    assert isinstance(finding, NumericDifference)
    assert finding.workload == "cpu-check-one"


def test_a_job_may_name_the_baselines_to_beat(evaluate: Evaluate) -> None:
    passed = evaluate(a_kernel(), baselines={"cpu-16x512": ("eager", "eager")})
    assert isinstance(passed, Passed), passed
    assert [m.workload for m in passed.measurements] == ["cpu-64x512", "cpu-16x512", "cpu-16x512"]
    assert {m.baseline for m in passed.measurements} == {"eager"}
    with pytest.raises(TargetError, match="no baseline 'fastest'"):
        evaluate(a_kernel(), baselines={"cpu-64x512": ("fastest",)})


@pytest.mark.parametrize("shared", [False, True], ids=["held-still", "shared-device"])
def test_a_baseline_that_takes_much_longer_than_at_rest_is_marked_or_where_the_candidate_may_be_why_void(
    evaluate: Evaluate, judge: Judge, tiny: Target, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, *, shared: bool
) -> None:
    """It is looked at again before, and what it takes at rest is measured anew afterwards."""
    monkeypatch.setattr(Device, "shared", shared)
    job = Job(
        target=tiny, candidate=a_kernel(), hardware=a_hardware(), cache_dir=str(cache_dir), workloads=("cpu-16x512",)
    )
    quiet = judge.bench(job, tuple(judge.timed(job))).quiet
    quiet.saw("cpu-16x512", "eager", 0.001)
    found = evaluate(a_kernel(), baselines={"cpu-16x512": ("eager",)}, workloads=("cpu-16x512",))
    if shared:
        unsettled = failed(found, "time")
        assert unsettled.kind == "unsettled"
        assert "0.0 us at rest" in unsettled.message
    else:
        assert isinstance(found, Passed), found
        (measured,) = (m for m in found.measurements if m.workload == "cpu-16x512")
        assert measured.disturbed
        assert measured.baseline_rest_us == 0.001
        assert measured.low <= measured.speedup < 0.01 < measured.high
        assert measured.verdict != "faster"
    assert quiet.rest_us("cpu-16x512", "eager") is None


def test_code_that_was_judged_before_is_not_judged_again(evaluate: Evaluate) -> None:
    """Another name for a variable is another source, and the same kernel."""
    first = evaluate(a_kernel())
    renamed = a_kernel(BODY.replace("[c]", "[column]").replace("+ c]", "+ column]").replace("int64_t c = 0; c < n; ++c",
                                    "int64_t column = 0; column < n; ++column"))  # fmt: skip
    assert first.code
    found = failed(evaluate(renamed, known={first.code: first.candidate}), "build")
    assert isinstance(found, Duplicate)
    assert (found.of, found.by) == (first.candidate, "code")
    doubled = a_kernel(BODY.replace("x[r * n + c] *", "2 * x[r * n + c] *"))
    other = evaluate(doubled, known={first.code: first.candidate})
    assert failed(other, "check").kind == "numeric"


def test_a_machine_with_known_ceilings_gives_a_profile_of_every_workload(evaluate: Evaluate) -> None:
    ceilings = Ceilings(
        bandwidths=(Bandwidth(footprint_bytes=1 << 15, gbps=50.0),), peak_gflops={"float32": 50.0}, threads=1,
        measured_at="2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    passed = evaluate(a_kernel(), hardware=a_hardware(ceilings=ceilings))
    assert isinstance(passed, Passed), passed
    profiles = [d for d in passed.diagnostics if isinstance(d, Profile)]
    assert [p.workload for p in profiles] == SEARCH
    assert all(m.roofline_share is not None and m.roofline_share > 0 for m in passed.measurements)


def test_constants_may_be_repacked_once_and_that_is_timed_apart(evaluate: Evaluate) -> None:
    passed = evaluate(Candidate(language="cpp", files={"main.cpp": PREPARED}))
    assert isinstance(passed, Passed), passed
    assert all(m.prepare_us is not None and m.prepare_us > 0 for m in passed.measurements)


@pytest.mark.slow
def test_many_threads_are_no_reason_to_fail(evaluate: Evaluate) -> None:
    body = f"  #pragma omp parallel for num_threads(4)\n{BODY}"
    assert evaluate(a_kernel(body, includes="omp.h"), threads=2).outcome == "passed"


def test_the_baselines_are_timed_against_each_other(judge: Judge, tiny: Target, cache_dir: Path) -> None:
    job = CalibrationJob(target=tiny, hardware=a_hardware(), timing=QUICK, cache_dir=str(cache_dir))
    calibration = judge.calibrate(job)
    assert list(calibration.times) == SEARCH
    assert [calibration.fastest(name) for name in SEARCH] == ["eager", "eager"]


@pytest.mark.slow
def test_a_baseline_that_is_wrong_or_raises_is_named_and_left_out(judge: Judge, tiny: Target, cache_dir: Path) -> None:
    extra = (
        "\ndef wrong(x, factor, out):\n    out.copy_(x)\n\ndef raising(x, factor, out):\n    raise ValueError('no')\n"
    )
    files = {**tiny.files, "baselines.py": tiny.files["baselines.py"] + extra}
    names = [{"name": name, "summary": ""} for name in ("raising", "wrong", "eager")]
    target = tiny.model_copy(update={"files": files, "baselines": names})
    job = CalibrationJob(
        target=target, hardware=a_hardware(), workloads=("cpu-16x512",), timing=QUICK, cache_dir=str(cache_dir)
    )
    raising, wrong, eager = judge.calibrate(job).times["cpu-16x512"]
    assert (raising.median_us, wrong.median_us, eager.problem) == (None, None, None)
    assert "ValueError: no" in str(raising.problem)
    assert "differs" in str(wrong.problem)
    assert eager.median_us is not None
    alone = target.model_copy(update={"baselines": names[:2]})
    with pytest.raises(TargetError, match="no baseline"):
        judge.calibrate(job.model_copy(update={"target": alone}))


# --- refused before it runs ---


def test_a_compile_error_has_file_line_and_message(evaluate: Evaluate) -> None:
    error = failed(evaluate(a_kernel("  return undeclared;")), "build")
    assert error.kind == "compile"
    assert (error.file, error.line) == ("main.cpp", 11)
    assert "undeclared" in error.message


def test_a_library_without_the_entry_point_is_refused_when_it_is_loaded(evaluate: Evaluate) -> None:
    candidate = a_kernel().model_copy(update={"entry": "walk"})
    raised = failed(evaluate(candidate), "load")
    assert isinstance(raised, Raised)
    assert "walk" in raised.message


def test_a_library_that_dies_while_it_is_loaded_is_refused(evaluate: Evaluate) -> None:
    code = "static int early = (std::abort(), 0);"
    crash = failed(evaluate(a_kernel(includes="cstdlib", global_code=code)), "load")
    assert isinstance(crash, Crash)
    assert crash.signal == "SIGABRT"


# --- fails while it runs ---

FORGERY = """\
  for (int fd = 0; fd < 1024; ++fd) if (fcntl(fd, F_GETFL) >= 0) (void)!write(fd, ".", 1);"""


def quick_first(cases: Mapping[str, Any], quick: int) -> list[Any]:
    """The first ones for every run of the tests, the rest (a build each) for the slow one."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), id=name, marks=[pytest.mark.slow] * (n >= quick))
        for n, (name, case) in enumerate(cases.items())
    ]


CRASHES: dict[str, tuple[Candidate, str | None, int | None]] = {
    "a write to an input": (a_kernel("  const_cast<float*>(x)[0] = 1;\n" + BODY), "SIGSEGV", None),
    "a write to a constant": (a_kernel("  const_cast<float*>(factor)[0] = 1;\n" + BODY), "SIGSEGV", None),
    "an abort": (a_kernel("  std::abort();", includes="cstdlib"), "SIGABRT", None),
    "a signal without a name": (a_kernel("  raise(40);", includes="csignal"), "signal 40", None),
    "an early exit": (a_kernel("  std::exit(0);", includes="cstdlib"), None, 0),
    "a pretended failure of the walls": (
        a_kernel('  fprintf(stderr, "walls: unshare: no\\n"); _exit(125);', includes="cstdio unistd.h"), None, 125),
    "a read of address 0": (a_kernel("  out[0] = *(volatile float*)nullptr;"), "SIGSEGV", None),
    "a write far outside": (a_kernel("  out[1l << 40] = 1;"), "SIGSEGV", None),
    "an instruction that isn't there": (a_kernel("  __builtin_trap();"), "SIGILL", None),
    "a division by zero": (a_kernel("  volatile int zero = 0; out[0] = 7 / zero;"), "SIGFPE", None),
    "a quick exit": (a_kernel("  _exit(0);", includes="unistd.h"), None, 0),
}  # fmt: skip


@pytest.mark.parametrize(("candidate", "signal", "code"), quick_first(CRASHES, 6))
def test_a_process_that_ends_is_a_crash(
    evaluate: Evaluate, candidate: Candidate, signal: str | None, code: int | None
) -> None:
    crash = failed(evaluate(candidate), "check")
    assert isinstance(crash, Crash), crash
    assert (crash.signal, crash.exit_code) == (signal, code)
    assert crash.workload == "cpu-check-odd"


def test_what_it_printed_before_it_crashed_is_told(evaluate: Evaluate) -> None:
    crash = failed(
        evaluate(a_kernel('  puts("row 7 is empty"); fflush(stdout); std::abort();', includes="cstdio cstdlib")),
        "check",
    )
    assert "row 7 is empty" in crash.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('  throw std::runtime_error("too many rows");', "too many rows"),
        ('  TVM_FFI_THROW(ValueError) << "n is " << n;', "ValueError: n is 17"),
    ],
)
def test_an_exception_is_passed_on_with_its_message(evaluate: Evaluate, body: str, said: str) -> None:
    raised = failed(evaluate(a_kernel(body, includes="stdexcept")), "check")
    assert isinstance(raised, Raised)
    assert said in raised.message
    assert raised.workload == "cpu-check-odd"


def test_a_wrong_number_of_arguments_is_said(evaluate: Evaluate) -> None:
    text = "#include <tvm/ffi/tvm_ffi.h>\nvoid run(tvm::ffi::TensorView) {}\nTVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run);\n"
    raised = failed(evaluate(Candidate(language="cpp", files={"main.cpp": text})), "check")
    assert isinstance(raised, Raised)
    assert "1" in raised.message
    assert "3" in raised.message


ENDLESS = {
    "spins": "  for (volatile int i = 0;; i = 1) {}",
    "half an answer": '  for (int fd = 3; fd < 1024; ++fd) (void)!write(fd, "!", 1);\n  for (;;) pause();',
    "sleeps": "  for (;;) pause();",
    "stops itself": "  raise(SIGSTOP);",
}


@pytest.mark.parametrize("body", quick_first(ENDLESS, 2))
def test_a_call_without_end_is_ended(evaluate: Evaluate, body: str) -> None:
    evaluation = evaluate(a_kernel(body, includes="unistd.h csignal"), limits=Limits(call_s=0.3))
    finding = failed(evaluation, "check")
    if isinstance(finding, LimitExceeded):
        assert (finding.resource, finding.limit, finding.workload) == ("time", 0.3, "cpu-check-odd")
    else:
        assert isinstance(finding, Raised)
        assert '"!"' in body


ALLOCATIONS = {
    "a vector": "  std::vector<float> all; for (;;) all.resize(all.size() + (1 << 22));",
    "malloc": "  for (;;) { auto* p = (char*)malloc(1 << 24); if (!p) abort(); memset(p, 1, 1 << 24); }",
    "new": "  for (;;) { volatile float* p = new float[1 << 22]; p[7] = 1; }",
}


@pytest.mark.parametrize("body", quick_first(ALLOCATIONS, 1))
def test_memory_without_end_is_refused(evaluate: Evaluate, body: str) -> None:
    evaluation = evaluate(a_kernel(body, includes="cstdlib cstring vector"), limits=Limits(memory_bytes=300 << 20))
    finding = failed(evaluation, "check")
    if "abort" in body:
        assert isinstance(finding, Crash)
    else:
        assert isinstance(finding, LimitExceeded), finding
        assert (finding.resource, finding.limit) == ("memory", 300 << 20)


def test_a_flood_of_output_is_refused(evaluate: Evaluate) -> None:
    body = f'  for (int i = 0; i < 100000; ++i) puts("all work and no play");\n{BODY}'
    finding = failed(evaluate(a_kernel(body, includes="cstdio"), limits=Limits(output_bytes=1 << 16)), "check")
    assert isinstance(finding, LimitExceeded)
    assert finding.resource == "output"


def test_a_few_words_are_no_flood(evaluate: Evaluate) -> None:
    assert evaluate(a_kernel(f'  fputs("", stdout); puts("hi");\n{BODY}', includes="cstdio")).outcome == "passed"


def test_threads_without_end_are_refused(evaluate: Evaluate) -> None:
    body = "  for (int i = 0; i < 1000; ++i) std::thread([] { pause(); }).detach();\n" + BODY
    finding = failed(evaluate(a_kernel(body, includes="thread unistd.h")), "check")
    assert isinstance(finding, Raised | Crash), finding


def test_a_process_that_is_left_behind_ends_with_its_candidate(evaluate: Evaluate, judge: Judge) -> None:
    if not judge.sandbox.namespaces:
        pytest.skip("no namespaces on this machine")
    body = (
        "  static bool left = false;\n"
        "  if (!left && fork() == 0) {\n    setsid();\n"
        '    if (fork() == 0) execl("/bin/sleep", "sleep", "54321.125", nullptr);\n    _exit(0);\n  }\n'
        f"  left = true;\n{BODY}"
    )
    assert evaluate(a_kernel(body, includes="unistd.h")).outcome == "passed"
    assert gone("54321.125")


# --- wrong answers ---

WRONG: dict[str, tuple[str, str, str]] = {
    "nothing is written": ("", "cpu-64x512", "poison"),
    "the last partial vector isn't written": (
        "  for (int64_t r = 0; r < rows; ++r)\n"
        "    for (int64_t c = 0; c + 8 <= n; ++c) out[r * n + c] = x[r * n + c] * factor[c];",
        "cpu-check-odd", "poison"),
    "the last column is wrong": (
        BODY + "  for (int64_t r = 0; r < rows; ++r) out[r * n + n - 1] += 1;", "cpu-64x512", "tail"),
    "the factor is twice what it should be": (BODY.replace("x[r", "2 * x[r"), "cpu-64x512", "scale"),
    "it computes in bfloat16": (BODY.replace("x[r * n + c]", "round16(x[r * n + c])"), "cpu-64x512", "scattered"),
    "0/0": (BODY + "  for (int64_t c = 0; c < n; ++c) out[c] = 0.0f / (out[c] - out[c]);", "cpu-64x512", "nan"),
    "it reads the factors by row": (BODY.replace("factor[c]", "factor[r % n]"), "cpu-64x512", "everything"),
}  # fmt: skip
ROUND16 = """\
static float round16(float v) {
  uint32_t bits;
  memcpy(&bits, &v, 4);
  bits &= 0xffff0000u;
  memcpy(&v, &bits, 4);
  return v;
}"""


@pytest.mark.parametrize(("body", "workload", "pattern"), quick_first(WRONG, 5))
def test_a_wrong_answer_says_where_and_how(evaluate: Evaluate, body: str, workload: str, pattern: str) -> None:
    evaluation = evaluate(a_kernel(body, includes="cstring cstdint", global_code=ROUND16))
    failed(evaluation, "check")
    patterns = {}
    for difference in evaluation.diagnostics:
        assert isinstance(difference, NumericDifference)
        assert 0 < difference.wrong <= difference.total
        patterns[difference.workload] = difference.pattern
    assert patterns[workload] == pattern


def test_a_kernel_that_is_wrong_on_one_shape_is_told_which(evaluate: Evaluate) -> None:
    evaluation = evaluate(a_kernel(BODY + "  if (rows == 16) out[5 * n + 7] = 42;"))
    difference = failed(evaluation, "check")
    assert isinstance(difference, NumericDifference)
    assert (difference.workload, difference.first_index, difference.actual) == ("cpu-16x512", (5, 7), "42")
    assert difference.pattern == "one_row"
    assert isinstance(evaluation, Failed)
    assert len(evaluation.diagnostics) == 1


def test_a_kernel_that_is_right_once_is_found_out_while_it_is_timed(evaluate: Evaluate) -> None:
    body = f"  static int calls = 0;\n  if (++calls > 20) return;\n{BODY}"
    difference = failed(evaluate(a_kernel(body)), "time")
    assert isinstance(difference, NumericDifference)
    assert difference.pattern == "poison"


def test_an_answer_to_an_earlier_input_is_wrong_now(evaluate: Evaluate) -> None:
    """Inputs differ from slot to slot, so that what was computed for one is no answer for the next."""
    body = (
        "  static std::map<int64_t, std::vector<float>> known;\n"
        "  auto& answer = known[rows * 10000 + n];\n"
        f"  if (answer.empty()) {{\n{BODY}    answer.assign(out, out + rows * n);\n  }}\n"
        "  memcpy(out, answer.data(), rows * n * sizeof(float));"
    )
    difference = failed(evaluate(a_kernel(body, includes="map vector cstring")), "check")
    assert isinstance(difference, NumericDifference)


KEPT = {
    "by address": "(size_t)x",
    "by address and a glance at the content": "(size_t)x ^ (size_t)(1e9f * x[0]) ^ (size_t)(1e9f * x[rows * n - 1])",
}


@pytest.mark.parametrize("key", KEPT.values(), ids=KEPT)
def test_an_answer_that_was_kept_is_wrong_once_the_input_changes_where_it_lies(evaluate: Evaluate, key: str) -> None:
    """Right in every single call as long as inputs stay as they are; a copy is all that is timed."""
    body = f"""
  auto& kept = answers[{key}];
  if (kept.empty()) {{
{BODY}
    kept.assign(out, out + rows * n);
  }}
  std::copy(kept.begin(), kept.end(), out);
"""
    globals_ = "static std::unordered_map<size_t, std::vector<float>> answers;"
    evaluation = evaluate(a_kernel(body, includes="unordered_map vector algorithm", global_code=globals_))
    assert failed(evaluation, "time").kind == "numeric"


def test_work_that_is_done_in_advance_for_the_calls_to_come_is_found(evaluate: Evaluate) -> None:
    """The first call of a batch computes what others will be asked for: differences of batches don't see it."""
    globals_ = """
struct Call { const float *x, *factor; float* out; int64_t rows, n; };
static std::vector<Call> known;
static double last;
static double now() { timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e6 + t.tv_nsec / 1e3; }
static void work(const Call& c) {
  for (int again = 0; again < 40; ++again)
    for (int64_t i = 0; i < c.rows * c.n; ++i) {
      c.out[i] = c.x[i] * c.factor[i % c.n];
      __asm__ volatile("" ::: "memory");
    }
}
"""
    body = """
  const Call mine{x, factor, out, rows, n};
  bool seen = false;
  for (auto& c : known) seen |= c.out == out;
  if (!seen) known.push_back(mine);
  if (now() - last > 30) {
    work(mine);
    int done = 0;
    for (auto& c : known) if (c.out != out && c.rows == rows && done++ < 6) work(c);
  } else if (out[0] != out[0] || out[0] > 1e16f) {  // poison
    work(mine);
  }
  last = now();
"""
    finding = failed(evaluate(a_kernel(body, includes="vector ctime", global_code=globals_)), "time")
    assert finding.kind in ("cheat", "unsettled"), finding


def test_constants_that_were_repacked_for_another_shape_are_no_help(evaluate: Evaluate) -> None:
    """Every workload has its own constants, and `prepare` is called for each."""
    text = PREPARED.replace("return twice;", "static Tensor first = twice;\n  return first;")
    evaluation = evaluate(Candidate(language="cpp", files={"main.cpp": text}))
    assert isinstance(evaluation, Failed)


# --- cheats ---


def test_a_library_that_does_the_work_makes_a_wrapper(evaluate: Evaluate) -> None:
    """Whichever library this machine has: that it is loaded is what is seen."""
    body = (
        f'  static void* other = dlopen("libz.so.1", RTLD_NOW);\n  if (!other) throw std::runtime_error("no");\n{BODY}'
    )
    finding = failed(evaluate(a_kernel(body, includes="dlfcn.h")), "check")
    assert isinstance(finding, Cheat)
    assert finding.name == "wrapper"
    assert "libz" in finding.message


FORGERS = {
    "before the work": f"{FORGERY}\n{BODY}",
    "after the work": f"{BODY}{FORGERY}",
    "instead of returning": f"{BODY}{FORGERY}\n  for (;;) pause();",
    "instead of the work": FORGERY,
}


@pytest.mark.parametrize("body", quick_first(FORGERS, 3))
def test_forged_answers_are_no_way_to_pass(evaluate: Evaluate, body: str) -> None:
    evaluation = evaluate(a_kernel(body, includes="unistd.h fcntl.h"), limits=Limits(call_s=0.5))
    assert isinstance(evaluation, Failed)
    assert evaluation.diagnostics[0].kind in ("cheat", "numeric", "limit")


def test_the_judges_memory_stays_as_it_was(evaluate: Evaluate) -> None:
    """A kernel that makes its inputs writable by any means would change what it is compared with."""
    body = (
        "  const size_t page = 4096; char* at = (char*)((size_t)x & ~(page - 1));\n"
        "  if (mprotect(at, page, PROT_READ | PROT_WRITE) == 0) const_cast<float*>(x)[0] = 0;\n" + BODY
    )
    assert evaluate(a_kernel(body, includes="sys/mman.h")).outcome == "passed"


# --- and then ---


NUISANCES = {
    "hang": "  for (;;) pause();",
    "forged": f"{FORGERY}\n{BODY}",
    "exit": "  _exit(0);",
    "crash": "  __builtin_trap();",
    "throw": "  throw 1;",
    "wrong": "",
}


@pytest.mark.parametrize("body", quick_first(NUISANCES, 2))
def test_the_next_candidate_finds_the_judge_as_it_was(evaluate: Evaluate, body: str) -> None:
    assert evaluate(a_kernel(body, includes="unistd.h fcntl.h"), limits=Limits(call_s=0.3)).outcome == "failed"
    assert evaluate(a_kernel()).outcome == "passed"


def test_where_all_walls_are_required_a_missing_one_is_named(
    evaluate: Evaluate, judge: Judge, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Sandbox.open(cache_dir)
    for change, named in (({"namespaces": False}, "namespaces"), ({"filters": {}}, "seccomp")):
        monkeypatch.setattr(judge, "sandbox", replace(full, **change))
        with pytest.raises(JudgeError, match=named) as caught:
            evaluate(a_kernel(), sandbox="full")
        assert "--require-sandbox" in caught.value.remedy


def test_without_namespaces_the_limits_still_hold(
    evaluate: Evaluate, judge: Judge, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = replace(Sandbox.open(cache_dir), namespaces=False, own_user=False)
    monkeypatch.setattr(Sandbox, "open", lambda _: bare)
    monkeypatch.setattr(judge, "sandbox", bare)
    passed = evaluate(a_kernel(global_code=f"// {uuid4()}"))
    assert isinstance(passed, Passed), passed
    always = {"own-process", "rlimits", "no-new-privileges", "clean-environment"}
    assert set(passed.environment.sandbox) - {"seccomp"} == always
    small = Limits(call_s=0.3, memory_bytes=300 << 20)
    for case, kind in (
        (ENDLESS["spins"], "limit"),
        (ALLOCATIONS["a vector"], "limit"),
        ("  __builtin_trap();", "crash"),
    ):
        finding = failed(evaluate(a_kernel(case, includes="unistd.h csignal vector"), limits=small), "check")
        assert finding.kind == kind


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("reference.py", "def reference(x, factor)\n", "reference.py"),
        ("reference.py", "reference = no_such_name\n", "no_such_name"),
        ("inputs.py", "import torch\n\ndef make(*_):\n    return {'x': torch.zeros(1)}\n", "declared"),
        ("baselines.py", "import no_such_module\n", "baselines"),
    ],
)
def test_a_target_whose_own_code_is_wrong_is_named(
    evaluate: Evaluate, tiny: Target, file: str, text: str, said: str
) -> None:
    target = tiny.model_copy(update={"files": {**tiny.files, file: text}})
    with pytest.raises(TargetError, match=said) as caught:
        evaluate(a_kernel(), target=target, workloads=("cpu-16x512",))
    assert "mend" in caught.value.remedy or "make" in caught.value.remedy
