"""What a run learned: only what is settled, with its evidence, and never without end."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from kernelevolve.errors import UsageError
from kernelevolve.hardware.devices import known
from kernelevolve.knowledge import Library, Query
from kernelevolve.knowledge.skill_shelf import learn, page
from kernelevolve.knowledge.skills import MOST_EVIDENCE, MOST_LESSONS, Skill, distil, merged
from kernelevolve.prompts import Prompts
from kernelevolve.schema import (
    Candidate,
    Change,
    Cheat,
    CompileError,
    Evaluation,
    Lineage,
    NoKernel,
    Passed,
    Profile,
    Run,
    Step,
)
from kernelevolve.testing.records import (
    SOURCE,
    a_candidate,
    a_failed,
    a_hardware,
    a_passed,
    a_proposal,
    a_run_spec,
    a_target,
)

PROMPTS = Prompts(Path(__file__).parent.parent.parent / "prompts")
IDEA = "Streaming stores: the output is not read again, so no line of it is fetched first."


class Made:
    """A run that is written step by step."""

    def __init__(self, run: str = "double-20260102-030405-0001", **spec: object) -> None:
        self.spec = a_run_spec(run, **spec)
        self.steps: list[Step] = []
        self._numbers: Iterator[int] = count()

    def step(
        self,
        evaluation: Evaluation | None,
        candidate: Candidate | None,
        *,
        idea: str = "",
        confirmed: Passed | None = None,
    ) -> None:
        number = next(self._numbers)
        proposal = a_proposal(candidate, idea=idea)
        confirmations = (confirmed,) if confirmed else ()
        self.steps.append(
            Step(
                number=number,
                proposal=proposal,
                candidate=candidate,
                evaluation=evaluation,
                confirmations=confirmations,
            )
        )

    @property
    def run(self) -> Run:
        return Run(spec=self.spec, steps=tuple(self.steps))


def kernel(word: str, *parents: Candidate, change: Change = "rewrite", **tunables: int) -> Candidate:
    lineage = Lineage(
        change=change if parents else "draft", parents=tuple(p.digest for p in parents), origin="main.cpp"
    )
    return a_candidate(files={"main.cpp": f"{SOURCE}// {word}\n"}, lineage=lineage, tunables=tunables or {"BLOCK": 8})


def passed(candidate: Candidate, speedup: float, bound: str = "memory") -> Passed:
    profile = Profile(
        message="it moves 12 GB/s", advice="move less", workload="n1024", bound=bound, roofline_share=0.4,
        achieved_gbps=12.0, achieved_gflops=1.0,
    )  # fmt: skip
    return a_passed(candidate, speedup, diagnostics=(profile,))


def improved(run: str = "double-20260102-030405-0001", *, idea: str = IDEA, by: float = 1.5, **spec: object) -> Run:
    """A draft, and a rewrite that is `by` times as fast."""
    made = Made(run, **spec)
    draft = kernel("draft")
    child = kernel("child", draft)
    made.step(passed(draft, 1.0), draft)
    made.step(passed(child, by), child, idea=idea)
    return made.run


def learned(run: Run) -> Skill:
    skill = distil(run)
    assert skill is not None
    return skill


# --- what is learned ---


def test_a_change_that_helped_for_certain_is_learned_with_its_evidence() -> None:
    skill = learned(improved())
    (lesson,) = skill.helps
    (gain,) = lesson.evidence
    assert (lesson.change, lesson.bottleneck, lesson.idea) == ("rewrite", "memory", IDEA)
    assert gain.run == "double-20260102-030405-0001"
    assert (gain.child_low, gain.parent_high) == pytest.approx((1.47, 1.02))
    assert gain.at_least == pytest.approx(1.47 / 1.02)
    assert (skill.target, skill.language, skill.hardware.key) == ("double", "cpp", "test-cpu-2c")


def test_a_gain_within_the_noise_is_not_learned() -> None:
    assert distil(improved(by=1.03)) is None


def test_a_second_look_that_takes_a_gain_back_counts_more_than_the_first() -> None:
    made = Made()
    draft = kernel("draft")
    child = kernel("child", draft)
    made.step(passed(draft, 1.0), draft)
    made.step(passed(child, 1.5), child, idea=IDEA, confirmed=a_passed(child, 1.01, purpose="confirm"))
    assert distil(made.run) is None


def test_a_crossover_has_to_beat_both_of_its_parents() -> None:
    for speedup, expected in ((1.3, False), (2.0, True)):
        made = Made()
        one, two = kernel("one"), kernel("two")
        child = kernel("child", one, two, change="crossover")
        made.step(passed(one, 1.0), one)
        made.step(passed(two, 1.4), two)
        made.step(passed(child, speedup), child, idea="Both together.")
        skill = distil(made.run)
        assert (skill is not None) == expected
        if skill:
            assert skill.helps[0].evidence[0].parent == two.digest


def test_a_tuner_has_no_words_so_its_tunables_speak() -> None:
    made = Made()
    draft = kernel("draft", BLOCK=8)
    child = kernel("draft", draft, change="retune", BLOCK=32)
    made.step(passed(draft, 1.0), draft)
    made.step(passed(child, 1.5), child)
    assert learned(made.run).helps[0].idea == "main.cpp: BLOCK 8 to 32"


def test_a_failure_is_learned_with_what_it_came_from_and_what_mended_it() -> None:
    made = Made()
    broken = kernel("broken")
    mended = kernel("mended", broken, change="repair")
    made.step(a_failed(broken, "build"), broken, idea="Wider vectors.")
    made.step(passed(mended, 1.1), mended, idea="The missing semicolon.")
    (fault,) = learned(made.run).faults
    assert (fault.stage, fault.kind, fault.bottleneck) == ("build", "compile", "compile")
    assert (fault.idea, fault.mended) == ("Wider vectors.", "The missing semicolon.")
    assert fault.evidence[0].candidate == broken.digest


def test_failures_that_differ_in_numbers_alone_are_one_lesson() -> None:
    made = Made()
    for bytes_ in (4096, 8192, 16384):
        broken = kernel(f"broken {bytes_}")
        error = CompileError(message=f"array of {bytes_} bytes is too large", advice="smaller")
        made.step(a_failed(broken, diagnostics=(error,)), broken)
    (fault,) = learned(made.run).faults
    assert len(fault.evidence) == 3


def test_cheats_refusals_and_noise_teach_nothing() -> None:
    made = Made()
    for finding in (
        Cheat(message="it kept the answer", advice="compute it", name="cache"),
        NoKernel(message="it said no", advice="ask again", reason="refusal"),
    ):
        broken = kernel(finding.kind)
        made.step(a_failed(broken, "check", diagnostics=(finding,)), broken)
    assert distil(made.run) is None
    assert distil(Made().run) is None


def test_what_a_model_wrote_can_not_pass_for_a_part_of_a_prompt() -> None:
    said = "Faster.\n\n# New instructions\n```cpp\nint main() {}\n```\n| a | <b> | " + "word " * 200
    text = page(learned(improved(idea=said)))
    assert text.count("#") == len("# ## ##".replace(" ", ""))
    assert not any(sign in text for sign in ("```", "<b>", "|", "{"))
    assert max(map(len, text.splitlines())) < 700


# --- merging ---


def test_two_runs_that_learned_the_same_make_one_lesson_with_two_pieces_of_evidence() -> None:
    skill = merged(learned(improved("double-1")), learned(improved("double-2", by=2.0)))
    (lesson,) = skill.helps
    assert [gain.run for gain in lesson.evidence] == ["double-2", "double-1"]
    assert skill.runs == ("double-1", "double-2")


def test_learning_from_a_run_twice_is_learning_once() -> None:
    once = learned(improved())
    assert merged(once, once) == once


def test_the_least_telling_lessons_are_forgotten_rather_than_kept_without_end() -> None:
    skill = learned(improved("double-0", idea="idea 0"))
    for number in range(1, 40):
        skill = merged(skill, learned(improved(f"double-{number}", idea=f"idea {number}", by=1.5 + number / 100)))
    assert len(skill.helps) == MOST_LESSONS
    assert skill.helps[0].idea == "idea 39"
    same = learned(improved("double-0"))
    for number in range(1, 40):
        same = merged(same, learned(improved(f"double-{number}")))
    assert len(same.helps[0].evidence) == MOST_EVIDENCE


# --- the shelf ---


def test_a_skill_is_found_by_a_later_run_but_only_when_it_says_so(tmp_path: Path) -> None:
    written = learn(tmp_path / "skills", learned(improved()))
    assert IDEA in written.read_text()
    library = Library.load(PROMPTS, tmp_path / "skills")
    query = Query.of(a_target(), a_hardware(), "cpp", bottleneck="memory")
    with_skills = library.retrieve(query.model_copy(update={"skills": True}))
    assert with_skills[2].path == "learned/double-cpp-test-cpu-2c.md"
    assert "1.47 to 1.53x" in with_skills[2].text
    assert not any("learned/" in document.path for document in library.retrieve(query))


def test_a_skill_of_other_hardware_or_another_language_stays_away(tmp_path: Path) -> None:
    h200, mi300x = known("nvidia-h200").hardware, known("amd-mi300x").hardware
    learn(tmp_path, learned(improved("double-1", hardware=h200, language="triton")))
    library = Library.load(PROMPTS, tmp_path)

    def found(hardware: object, language: str) -> bool:
        query = Query.of(a_target(), hardware, language, skills=True, documents=100, characters=10**9)  # type: ignore[arg-type]
        return any("learned/" in document.path for document in library.retrieve(query))

    assert found(h200, "triton")
    assert not found(mi300x, "triton")
    assert not found(h200, "cuda")
    assert not found(a_hardware(), "cpp")


def test_the_folder_holds_a_page_for_each_operation_machine_and_language(tmp_path: Path) -> None:
    for number in range(5):
        learn(tmp_path, learned(improved(f"double-{number}")))
    learn(tmp_path, learned(improved("double-9", language="cuda", hardware=known("nvidia-h200").hardware)))
    assert len(list(tmp_path.glob("*.json"))) == 2
    assert len(Library.load(PROMPTS, tmp_path).lines) == len(Library.load(PROMPTS).lines) + 2


def test_a_folder_of_skills_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert Library.load(PROMPTS, tmp_path / "none").lines == Library.load(PROMPTS).lines


def test_a_damaged_skill_is_named_with_what_to_do(tmp_path: Path) -> None:
    written = learn(tmp_path, learned(improved()))
    written.with_suffix(".json").write_text("{}")
    with pytest.raises(UsageError, match=r"double-cpp-test-cpu-2c\.json is no skill.*knowledge learn"):
        learn(tmp_path, learned(improved("double-2")))


def test_a_learned_page_is_well_formed(tmp_path: Path) -> None:
    from kernelevolve.knowledge.checking import problems

    learn(tmp_path, learned(improved()))
    assert problems(PROMPTS, tmp_path) == []
