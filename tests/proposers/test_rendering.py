"""Questions as a model gets them: what is in them, what never is, and what goes first when there is little room."""

import re
import shutil
from pathlib import Path

import pytest
from answers import MODEL, fenced, kernel

from kernelevolve import targets
from kernelevolve.catalog import LANGUAGES
from kernelevolve.errors import UsageError
from kernelevolve.llm.abridging import abridged
from kernelevolve.llm.tokens import estimate_tokens
from kernelevolve.proposers.model import Model
from kernelevolve.resources import prompts_dir, targets_dir
from kernelevolve.schema import (
    Attempt,
    Bandwidth,
    Bottleneck,
    Brief,
    Candidate,
    Ceilings,
    CompileError,
    Document,
    Lineage,
    NumericDifference,
    Parent,
    Profile,
    Reply,
    Usage,
)
from kernelevolve.testing.landscape import a_brief, a_seed
from kernelevolve.testing.records import (
    a_candidate,
    a_failed,
    a_hardware,
    a_measurement,
    a_passed,
    a_triaged,
    an_estimate,
)

CEILINGS = Ceilings(
    bandwidths=(Bandwidth(footprint_bytes=32 << 10, gbps=210.0), Bandwidth(footprint_bytes=64 << 20, gbps=21.0)),
    peak_gflops={"float32": 80.0, "bfloat16": 40.0}, threads=2, fork_join_us=1.25,
    measured_at="2026-01-02T03:04:05+00:00",
)  # fmt: skip
PROFILE = Profile(
    message="n1024: 10.0 us, 40% of the roofline (memory bound)", advice="move fewer bytes", workload="n1024",
    bound="memory", roofline_share=0.4, achieved_gbps=8.0, achieved_gflops=1.0,
)  # fmt: skip
PASSED = Parent(
    candidate=a_candidate(files={"main.cpp": kernel(1)}, tunables={"BLOCK": 16}, lineage=Lineage(origin="heap")),
    evaluation=a_passed(
        a_candidate(), measurements=(a_measurement(1.5, roofline_share=0.4, prepare_us=7.5),), diagnostics=(PROFILE,)
    ),
)
UNDECLARED = CompileError(message="'foo' was not declared", advice="declare it", file="main.cpp", line=3)
FAILED = Parent(
    candidate=a_candidate(files={"main.cpp": kernel(2)}, lineage=Lineage(origin="m#3")),
    evaluation=a_failed(a_candidate(), diagnostics=(UNDECLARED,)),
)
HISTORY = tuple(
    Attempt(
        candidate=f"c{n}", change="rewrite", label=f"m#{n}", idea=f"idea number {n}", outcome="failed",
        finding=f"build: error {n}",
    )
    for n in range(8)
)  # fmt: skip
DOCUMENTS = tuple(
    Document(path=f"guidance/{n}.md", title=f"D{n}", text=f"# D{n}\n\nAdvice {n}.\n\n## Sources\n\nBook {n}")
    for n in range(5)
)
FULL = {
    "memory": "combine",
    "bottleneck": Bottleneck(name="memory", message="it moves each row twice"),
    "history": HISTORY,
    "documents": DOCUMENTS,
    "hardware": a_hardware(ceilings=CEILINGS),
    "baseline_us": {"n1024": 15.0},
}


def brief(change="draft", parents=(), seeds=(), **changes):
    return a_brief(5, change, parents, seeds).model_copy(update=changes)


def ask(brief, model=MODEL, **config):
    """The question for a brief whose parents are known."""
    settings = {"seeds_first": False, "tuning": 0.0, "examples": 1.0, **config}
    proposer = Model(Model.Config(**settings), seed=0, models=(model,))
    for parent in brief.parents:
        proposer.tell(parent)
    return proposer.propose(brief)


def sections(prompt):
    return re.findall(r"^# (.+)$", prompt, re.MULTILINE)


def test_a_draft_says_what_to_compute_on_what_and_how_it_is_judged():
    request = ask(brief(hardware=a_hardware(ceilings=CEILINGS), baseline_us={"n1024": 15.0}))
    assert sections(request.prompt) == ["The task: double", "The machine", "What is wanted: draft"]
    for said in (
        "def reference(x):", "- `x`: input, [N] of T", "- `y`: output, [N] of T; compared with a float64 reference",
        "- axis N: elements", "- type T: float32", "- n1024: N = 1024; T = float32; 1.024 thousand operations",
        "best baseline 15 us", "Test CPU: CPU, x86-64-v3, 2 cores", "avx2, fma", "32 KiB at 210 GB/s",
        "float32 80 GFLOP/s", "an OpenMP parallel region that does nothing 1.2 us",
    ):  # fmt: skip
        assert said in request.prompt, said


def test_the_system_prompt_has_the_contract_with_this_targets_signature_and_the_form_of_an_answer():
    system = ask(brief()).system
    for said in (
        "void run(ffi::TensorView x, ffi::TensorView y)", "TVM_FFI_DLL_EXPORT_TYPED_FUNC(run, run)", "// tunable ROWS",
        "<<<<<<< SEARCH", "file=main.cpp", "Idea: ",
    ):  # fmt: skip
        assert said in system, said
    assert "prepare(" not in system


@pytest.mark.parametrize(
    ("language", "signature"),
    [("triton", "def run(x, y):"), ("cuda", "void run(ffi::TensorView x, ffi::TensorView y)")],
)
def test_every_language_has_its_contract(language, signature):
    request = ask(brief(language=language))
    assert signature in request.system
    assert f"# The language: {language}" in request.system


def test_a_change_comes_with_its_bottleneck_first_and_what_is_wanted_last():
    found = sections(ask(brief("rewrite", (PASSED,), **FULL)).prompt)
    assert found[0] == "What holds the parent back: memory"
    assert found[-1] == "What is wanted: rewrite"
    assert found[1:5] == [
        "The task: double",
        "The machine",
        "The parent: heap BLOCK=16",
        "What was tried already, the most telling first",
    ]


def test_a_parent_is_shown_with_source_values_measurements_and_findings():
    prompt = ask(brief("rewrite", (PASSED,))).prompt
    for said in (
        f"```cpp file=main.cpp\n{kernel(1)}```", "this was measured with BLOCK = 16",
        "- n1024: 10 us against 15 us of eager, 1.500 times as fast (1.470 to 1.530, faster), 40 % of the roofline",
        "prepare once 7.5 us", "40% of the roofline (memory bound). Move fewer bytes.",
    ):  # fmt: skip
        assert said in prompt, said


def test_a_parent_that_was_not_timed_is_shown_with_each_workloads_limits_and_what_was_compiled():
    candidate = a_candidate()
    triaged = a_triaged(candidate, estimates=(an_estimate(30.0, floor_us=10.0),), estimated_us=30.0)
    prompt = ask(brief("rewrite", (Parent(candidate=candidate, evaluation=triaged),))).prompt
    for said in (
        "- n1024: about 30 us, where its bytes and operations need 10 us; alone, memory takes 27 us",
        "compiled, `scale` (small): 64 registers and 0 bytes of stack a thread", "8 blocks a multiprocessor (50 % of",
    ):  # fmt: skip
        assert said in prompt, said


def test_a_repair_shows_what_failed_and_where():
    prompt = ask(brief("repair", (FAILED,))).prompt
    assert "It fails at the stage `build`." in prompt
    assert "- main.cpp:3: 'foo' was not declared. Declare it." in prompt
    assert ">    3 | void run() {}" in prompt
    assert "The parent fails, as the findings say" in prompt


def test_a_crossover_shows_both_parents():
    other = Parent(candidate=FAILED.candidate, evaluation=a_passed(FAILED.candidate, 1.2))
    prompt = ask(brief("crossover", (PASSED, other))).prompt
    assert {"Parent 1: heap BLOCK=16", "Parent 2: m#3 BLOCK=8"} <= set(sections(prompt))
    assert kernel(1) in prompt
    assert kernel(2) in prompt
    assert "joins what is best in the parents" in prompt


def test_a_diff_is_asked_for_in_blocks():
    assert "Answer with search/replace blocks against the parent's files" in ask(brief("diff", (PASSED,))).prompt


def test_a_tuner_is_promised_where_there_is_one():
    rewrite = brief("rewrite", (PASSED,))
    with_one, without = ask(rewrite, tuning=1e-9), ask(rewrite)
    assert "A tuner walks them after you" in with_one.system
    assert "walked by the tuner" in with_one.prompt
    assert "No tuner walks them in this run" in without.system
    assert "tuner" not in without.prompt


def test_a_retune_that_the_tuner_can_not_make_asks_for_tunables():
    candidate = a_candidate(files={"main.cpp": kernel(4, "")}, tunables={})
    parent = Parent(candidate=candidate, evaluation=a_passed(candidate))
    assert "turn two to five of them into tunables" in ask(brief("retune", (parent,))).prompt


def test_history_and_documents_are_told_without_what_a_model_has_no_use_for():
    prompt = ask(brief("rewrite", (PASSED,), **FULL)).prompt
    assert "- rewrite m#3: failed (build: error 3). idea number 3" in prompt
    assert '<document path="guidance/4.md">\n# D4\n\nAdvice 4.\n</document>' in prompt
    assert "Book 4" not in prompt


def test_what_was_tried_is_told_with_its_speed_on_every_workload():
    tried = Attempt(
        candidate="0" * 64, change="rewrite", label="heap", outcome="passed", speedup=1.2, low=1.1, high=1.3,
        by_workload_us={"n1024": 10.0, "n64": 0.96}, idea="fewer passes",
    )  # fmt: skip
    estimated = tried.model_copy(update={"outcome": "triaged", "speedup": None, "by_workload_us": {"n1024": 12.5}})
    noisy = tried.model_copy(update={"low": 0.3, "high": 2.9})
    prompt = ask(brief("rewrite", (PASSED,), history=(tried, noisy, estimated))).prompt
    assert "(0.300 to 2.900), more noise than measurement; n1024" in prompt
    assert "(1.100 to 1.300); n1024 10 us, n64 0.96 us. fewer passes" in prompt
    assert "triaged; n1024 12.5 us. fewer passes" in prompt


def test_a_seed_serves_as_an_example_for_a_draft_only():
    seeds = (a_seed("plain"),)
    assert "A kernel of this task, `plain`" in ask(brief(seeds=seeds)).prompt
    assert "plain" not in ask(brief(seeds=seeds), examples=0.0).prompt
    assert "A kernel of this task" not in ask(brief("rewrite", (PASSED,), seeds)).prompt


# --- what is never told ---


def real_brief(name, device, change="rewrite"):
    target = targets.load(name, targets_dir())
    language = "cpp" if device == "cpu" else "triton"
    seeds = targets.seeds(name, targets_dir())
    seed = next(s for s in seeds if s.language == language)
    candidate = Candidate(language=language, files=seed.files, lineage=Lineage(origin=seed.name))
    findings = (
        CompileError(
            message="/usr/lib/gcc/x86_64-linux-gnu/12/include/avx.h:3: no", file="/tmp/build-1/main.cpp", line=1,
            advice="see /root/.cache/kernelevolve/x.log",
        ),
        NumericDifference(
            message="out differs", advice="look", workload="check", output="out", wrong=1, total=2, pattern="tail",
            first_index=(0,), expected="1", actual="2", allowed_error=0.0123456,
        ),
    )  # fmt: skip
    parent = Parent(candidate=candidate, evaluation=a_failed(candidate, "check", diagnostics=findings))
    history = (HISTORY[0].model_copy(update={"finding": f"load: {Path.cwd()}/runs/kernel.so: undefined symbol"}),)
    return Brief(
        step=0, target=target, hardware=a_hardware(device=device), language=language, change=change, parents=(parent,),
        seeds=seeds, history=history, bottleneck=Bottleneck(name="compile", message="/tmp/build-1/main.cpp:1: no"),
    )  # fmt: skip


@pytest.mark.parametrize("name", targets.names(targets_dir()))
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_nothing_that_is_held_out_is_ever_told(name, device):
    brief = real_brief(name, device)
    request = ask(brief)
    text = request.system + request.prompt
    shown = brief.target.select(device, "search")
    assert all(workload.name in text for workload in shown)
    assert not [w.name for w in brief.target.workloads if w not in shown and f"{w.name}:" in text]
    told = {f"{axis} = {size}" for w in shown for axis, size in w.axes.items()}
    for workload in brief.target.workloads:
        sizes = {f"{axis} = {size}" for axis, size in workload.axes.items()}
        assert not [size for size in sizes - told if re.search(rf"{size}\b", text)], workload.name
    for word in ("held_out", "held out", "slack", "floor_ulps", "0.0123", "seed"):
        assert word not in text.lower().replace("seed's", ""), word


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_no_path_of_the_machine_is_ever_told(device):
    request = ask(real_brief("topk", device))
    text = request.system + request.prompt
    for path in (str(Path.cwd()), str(Path.home()), "/tmp/", "/usr/", "/root/", ".cache"):
        assert path not in text, path
    assert "avx.h:3: no. See x.log." in text
    assert "kernel.so: undefined symbol" in text


# --- too little room ---


def needed(request):
    return estimate_tokens(request.system) + estimate_tokens(request.prompt)


def within(room, brief):
    """The question to a model with so much room, and what it leaves out."""
    proposer = Model(
        Model.Config(seeds_first=False, tuning=0.0, examples=1.0, follow_ups=0), seed=0,
        models=(MODEL.model_copy(update={"context_tokens": room + 1000, "output_tokens": 1000}),),
    )  # fmt: skip
    request = proposer.propose(brief)
    assert needed(request) <= room
    answer = Reply(text=fenced(kernel(99)), stop="end", usage=Usage())
    return request, proposer.read(brief, request, answer).dropped


def test_with_room_nothing_is_left_out():
    assert within(20_000, brief("rewrite", (PASSED,), **FULL))[1] == ()


def test_the_least_useful_goes_first_and_is_written_down():
    everything = brief("rewrite", (PASSED,), **FULL)
    whole = needed(ask(everything))
    _, few = within(whole - 1, everything)
    assert few == ("document guidance/4.md",)
    with pytest.raises(UsageError) as error:
        within(300, everything)
    least, dropped = within(int(re.search(r"needs about (\d+)", error.value.message)[1]), everything)
    order = [f"document guidance/{n}.md" for n in (4, 3, 2)] + [f"attempt {n}" for n in range(8, 0, -1)]
    order += ["machine", "measurements", "document guidance/1.md", "document guidance/0.md", "findings"]
    assert list(dropped) == order
    assert sections(least.prompt)[0] == "What holds the parent back: memory"
    assert kernel(1) in least.prompt


def test_an_example_goes_before_the_last_attempts():
    everything = brief("draft", (), (a_seed("plain"),), **{**FULL, "bottleneck": None})
    bare = needed(ask(brief("draft", hardware=FULL["hardware"], baseline_us=FULL["baseline_us"])))
    dropped = within(bare, everything)[1]
    assert dropped.index("attempt 5") < dropped.index("example plain") < dropped.index("attempt 4")


def test_task_contract_parent_and_change_are_never_left_out():
    with pytest.raises(UsageError, match=r"model m has room for a prompt of 300 tokens.*larger context"):
        within(300, brief("rewrite", (PASSED,), **FULL))


def test_a_question_that_is_too_long_for_one_model_goes_to_the_one_with_most_room():
    small = MODEL.model_copy(update={"name": "small", "context_tokens": 1300, "output_tokens": 1000})
    proposer = Model(Model.Config(seeds_first=False, tuning=0.0), seed=0, models=(small, MODEL))
    assert {proposer.propose(a_brief(step)).model for step in range(12)} == {"m"}


def test_advice_is_not_repeated():
    other = PROFILE.model_copy(update={"message": "n2: 50% of the roofline"})
    parent = Parent(candidate=PASSED.candidate, evaluation=a_passed(a_candidate(), diagnostics=(PROFILE, other)))
    assert ask(brief("rewrite", (parent,))).prompt.count("Move fewer bytes.") == 1


def test_a_follow_up_without_room_is_not_asked():
    small, long = brief("diff", (PASSED,)), "word " * 2000
    room = needed(ask(small)) + 200
    tight = MODEL.model_copy(update={"context_tokens": room + 1000, "output_tokens": 1000})
    proposer = Model(Model.Config(seeds_first=False, tuning=0.0), seed=0, models=(tight,))
    request = proposer.propose(small)
    assert proposer.read(small, request, Reply(text=long, stop="end", usage=Usage())).trouble.reason == "prose"


# --- templates ---


@pytest.fixture
def prompts(tmp_path):
    """A copy of the templates, to change."""
    for file in prompts_dir().glob("*.j2"):
        shutil.copy(file, tmp_path)
    return tmp_path


def change(file, text):
    file.write_text(f"{file.read_text()}\n{text}")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("brief.j2", "{% if parents %}{{ parent.label }}{% endif %}", r"brief\.j2: unknown variable 'parent'.*parents"),
        ("change-diff.j2", "{{ held_out }}", r"change-diff\.j2: unknown variable 'held_out'"),
        ("followup.j2", "{{ task }}", r"followup\.j2: unknown variable 'task'"),
        ("system.j2", "{% if %}", r"system\.j2:\d+: "),
    ],
)
def test_a_template_that_can_not_work_is_named_before_anything_is_asked(prompts, name, text, message):
    change(prompts / name, text)
    with pytest.raises(UsageError, match=message):
        ask(brief(), prompts=prompts)


def test_an_unknown_attribute_is_named_with_its_file_and_line(prompts):
    change(prompts / "change-draft.j2", "{{ task.tolerance }}")
    with pytest.raises(UsageError, match=r"change-draft\.j2:\d+: .*'tolerance'"):
        ask(brief(), prompts=prompts)


@pytest.mark.parametrize("name", ["brief.j2", "contract-cpp.j2", "change-draft.j2"])
def test_a_missing_template_is_named(prompts, name):
    (prompts / name).unlink()
    with pytest.raises(UsageError, match=rf"there is no template .*{name}"):
        ask(brief(), prompts=prompts)


def test_a_template_of_ones_own_is_used(prompts):
    (prompts / "change-draft.j2").write_text("Write it in verse.")
    assert ask(brief(), prompts=prompts).prompt.endswith("# What is wanted: draft\n\nWrite it in verse.\n")


def test_every_registered_language_has_a_contract_template():
    assert {f"contract-{name}.j2" for name in LANGUAGES.names()} <= {path.name for path in prompts_dir().glob("*.j2")}


def test_who_remembers_a_brief_is_not_shown_its_task_machine_documents_and_sources_again():
    """The words by which these are found are those of the templates."""
    parent = a_candidate()
    known = brief("diff", (Parent(candidate=parent, evaluation=a_passed(parent, 1.5)),), **FULL)
    again = brief("rewrite", (Parent(candidate=parent, evaluation=a_passed(parent, 1.4)),), **FULL)
    first, second = ask(known), ask(again)
    left = abridged(second, [("5.0", first)])
    assert left.system == "The rules are those of brief 5.0."
    assert sections(left.prompt) == [s for s in sections(second.prompt) if s not in {d.title for d in DOCUMENTS}]
    assert left.prompt.count("brief 5.0") == 2 + len(DOCUMENTS) + len(parent.files)
    for gone in ("def reference(x):", "32 KiB at 210 GB/s", *parent.files.values(), "Advice 3."):
        assert gone.strip() in second.prompt
        assert gone.strip() not in left.prompt
    for new in ("1.400 times as fast", "# What is wanted: rewrite"):
        assert new in left.prompt
