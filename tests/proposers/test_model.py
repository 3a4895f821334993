"""The proposer `model`: what it asks, when it needs not ask, and what becomes of answers."""

import pytest
from answers import MODEL, block, fenced, kernel, sensible, wanted

from kernelevolve.errors import UsageError
from kernelevolve.proposers.agent import Agent
from kernelevolve.proposers.model import Model
from kernelevolve.schema import CallFailed, Candidate, Lineage, ModelInfo, ModelRequest, Parent, Proposal, Reply, Usage
from kernelevolve.testing.answering import answered
from kernelevolve.testing.landscape import a_brief, a_seed, admitted
from kernelevolve.testing.records import a_candidate, a_failed, a_passed
from kernelevolve.testing.scripted_client import ScriptedClient

SEEDS = (a_seed("plain"), a_seed("tiled", {"TILE": (8, 16, 32)}))
USED = Usage(input_tokens=100, output_tokens=10, cost_usd=0.5)


def a_model(models=(MODEL,), **config):
    return Model(Model.Config(**{"seeds_first": False, "tuning": 0.0, **config}), seed=0, models=models)


def a_parent(text=None, speedup=1.5, tunables=None, **changes):
    candidate = Candidate(
        language="cpp", files={"main.cpp": text or kernel(0)}, tunables=tunables or {}, lineage=Lineage(origin="heap")
    )
    said = a_passed(candidate, speedup, **changes) if speedup else a_failed(candidate, "build")
    return Parent(candidate=candidate, evaluation=said)


def replied(text, stop="end"):
    return Reply(text=text, stop=stop, usage=USED)


def ask(proposer, *answers, change="draft", parents=(), step=0):
    """What comes of a brief that gets these answers, one after the other."""
    said = iter(answers)
    brief = a_brief(step, change, parents)
    return answered(proposer, brief, ScriptedClient(lambda request: next(said)))


def test_a_proposer_without_a_model_says_so_before_anything_starts():
    with pytest.raises(UsageError, match="--model"):
        Model(Model.Config(), seed=0)


def test_the_agent_needs_none():
    request = Agent(Agent.Config(seeds_first=False, tuning=0.0), seed=0).propose(a_brief())
    assert isinstance(request, ModelRequest)
    assert request.model == "agent"


def test_a_draft_becomes_a_kernel_with_its_author_idea_and_cost():
    proposal = ask(a_model(), replied(fenced(kernel(7), "seven")), step=4)
    assert (proposal.files, proposal.tunables) == ({"main.cpp": kernel(7)}, {"BLOCK": 8})
    assert (proposal.lineage, proposal.idea, proposal.model) == (Lineage(origin="m#4"), "seven", "m")
    assert (proposal.usage, proposal.trouble) == (USED, None)
    assert proposal.answer == fenced(kernel(7), "seven")


@pytest.mark.parametrize("change", ["rewrite", "repair", "crossover", "retune"])
def test_a_change_names_its_parents(change):
    parents = (a_parent(kernel(1, "")), a_parent(kernel(2, "")))
    proposer = a_model()
    for parent in parents:
        proposer.tell(parent)
    proposal = ask(proposer, replied(fenced(kernel(3))), change=change, parents=parents)
    assert proposal.lineage.change == change
    assert proposal.lineage.parents == tuple(p.candidate.digest for p in parents)


def test_a_diff_is_applied_to_the_parent_and_keeps_the_values_of_its_tunables():
    parent = a_parent(tunables={"BLOCK": 32})
    answer = replied(block("constexpr int kNumber = 0;", "constexpr int kNumber = 9;"))
    proposal = ask(a_model(), answer, change="diff", parents=(parent,))
    assert (proposal.files, proposal.tunables) == ({"main.cpp": kernel(9)}, {"BLOCK": 32})
    assert proposal.lineage.change == "diff"


def test_a_tunable_that_was_declared_anew_starts_at_its_new_default():
    parent = a_parent(tunables={"BLOCK": 32})
    answer = replied(fenced(kernel(9, "// tunable BLOCK: 64 32\n// tunable AHEAD: 1 2\n")))
    assert ask(a_model(), answer, change="rewrite", parents=(parent,)).tunables == {"BLOCK": 64, "AHEAD": 1}


def test_whole_files_in_answer_to_a_diff_are_the_rewrite_that_they_are():
    parent = a_parent()
    assert ask(a_model(), replied(fenced(kernel(5))), change="diff", parents=(parent,)).lineage.change == "rewrite"
    edit = replied(block("constexpr int kNumber = 0;", "constexpr int kNumber = 9;"))
    assert ask(a_model(), edit, change="rewrite", parents=(parent,)).lineage.change == "diff"
    assert ask(a_model(), edit, change="repair", parents=(parent,)).lineage.change == "repair"


@pytest.mark.parametrize(
    "bad",
    [
        "I would vectorise it.",
        block("no such line", "x"),
        fenced("void run() {}\n"),
        fenced("// tunable BLOCK: 8 8\n" + kernel(1, "")),
        fenced(kernel(0)),
    ],
    ids=["prose", "an edit that fits nowhere", "no export", "an ill-formed tunable", "the parent again"],
)
def test_an_answer_that_is_no_new_kernel_is_followed_by_one_question_that_says_why(bad):
    parent, proposer = a_parent(tunables={"BLOCK": 8}), a_model()
    proposer.tell(parent)
    asked = []

    def answer(request):
        asked.append(request)
        return replied(bad if request.attempt == 0 else fenced(kernel(8)))

    proposal = answered(proposer, a_brief(1, "diff", (parent,)), ScriptedClient(answer))
    assert [r.attempt for r in asked] == [0, 1]
    assert "Your last answer can't be used" in asked[1].prompt
    assert bad.strip() in asked[1].prompt
    assert (proposal.trouble, proposal.files) == (None, {"main.cpp": kernel(8)})
    assert proposal.usage == Usage(input_tokens=200, output_tokens=20, cost_usd=1.0)
    assert proposal.prompt_digest == asked[1].digest


def test_the_second_answer_is_the_last_one():
    bad = replied(fenced("void run() {}\n"))
    proposal = ask(a_model(), bad, bad)
    assert (proposal.trouble, proposal.files) == (None, {"main.cpp": "void run() {}\n"})
    prose = replied("Sorry, I mean that one should vectorise it.")
    assert ask(a_model(), bad, prose).trouble.reason == "prose"


def test_it_can_be_told_to_ask_only_once():
    assert ask(a_model(follow_ups=0), replied("Vectorise it.")).trouble.reason == "prose"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (replied("No.", "refusal"), "refusal"),
        (replied(fenced(kernel(1)), "length"), "truncated"),
        (replied(""), "empty"),
        (CallFailed(reason="server", message="503", usage=USED), "no_reply"),
    ],
)
def test_what_another_question_would_not_mend_is_trouble_at_once_and_its_cost_counts(answer, reason):
    proposal = ask(a_model(), answer)
    assert (proposal.trouble.reason, proposal.files, proposal.usage) == (reason, {}, USED)


def test_an_unknown_price_stays_unknown():
    free = Reply(text="Vectorise it.", stop="end", usage=Usage(input_tokens=1, output_tokens=1, cost_usd=None))
    assert ask(a_model(), free, replied(fenced(kernel(1)))).usage.cost_usd is None


def test_seeds_come_first_and_then_the_model():
    proposer = a_model(seeds_first=True)
    found = [proposer.propose(a_brief(step, seeds=SEEDS)) for step in range(3)]
    assert [p.lineage.origin for p in found[:2]] == ["plain", "tiled"]
    assert [(p.proposer, p.model) for p in found[:2]] == [("model", None)] * 2
    assert isinstance(found[2], ModelRequest)


def test_a_retune_is_the_tuners_until_nothing_is_left_to_walk():
    proposer, parent = a_model(tuning=0.01), a_parent()
    proposer.tell(parent)
    found = [proposer.propose(a_brief(step, "retune", (parent,))) for step in range(3)]
    assert sorted(p.tunables["BLOCK"] for p in found[:2]) == [16, 32]
    lineage = Lineage(change="retune", parents=(parent.candidate.digest,), origin="heap")
    assert [p.lineage for p in found[:2]] == [lineage] * 2
    assert isinstance(found[2], ModelRequest)
    assert wanted(found[2]) == "retune"


def test_a_share_of_the_changes_walks_the_constants_of_a_family_that_a_model_found():
    text = kernel(3, f"// tunable N: {' '.join(map(str, range(90)))}\n")
    proposer = a_model(tuning=0.3)
    written = ask(proposer, replied(fenced(text)))
    parent = Parent(candidate=admitted(written), evaluation=a_passed(admitted(written)))
    proposer.tell(parent)
    found = [proposer.propose(a_brief(step, "rewrite", (parent,))) for step in range(1, 81)]
    tuned = [p for p in found if isinstance(p, Proposal)]
    assert 12 < len(tuned) < 36
    assert {p.files["main.cpp"] for p in tuned} == {text}
    assert len({p.tunables["N"] for p in tuned}) == len(tuned)
    assert {p.usage for p in tuned} == {Usage()}


def test_a_parent_that_fails_is_not_walked():
    proposer, parent = a_model(tuning=1.0), a_parent(speedup=None)
    proposer.tell(parent)
    assert isinstance(proposer.propose(a_brief(1, "repair", (parent,))), ModelRequest)


def test_without_a_tuner_a_retune_is_asked_of_the_model():
    parent = a_parent(tunables={"BLOCK": 8})
    for tuning, outcome in ((0.2, Proposal), (0.0, ModelRequest)):
        proposer = a_model(tuning=tuning)
        proposer.tell(parent)
        assert isinstance(proposer.propose(a_brief(1, "retune", (parent,))), outcome)


def test_what_a_tuner_would_propose_is_known_from_a_models_answer():
    proposer, parent = a_model(tuning=0.01), a_parent(tunables={"BLOCK": 8})
    proposer.tell(parent)
    ask(proposer, replied(fenced(kernel(1).replace("8 16 32", "8 16"))), step=1)
    other = Candidate(language="cpp", files={"main.cpp": kernel(1).replace("8 16 32", "8 16")})
    found = proposer.propose(a_brief(2, "retune", (Parent(candidate=other, evaluation=a_passed(other)),)))
    assert found.tunables == {"BLOCK": 16}


def test_some_drafts_show_a_seed_as_an_example_and_most_of_them_another_one():
    proposer = a_model(examples=0.5)
    prompts = [proposer.propose(a_brief(step, seeds=SEEDS)).prompt for step in range(40)]
    shown = [[name for name in ("plain", "tiled") if f"of this task, `{name}`" in prompt] for prompt in prompts]
    assert all(len(names) <= 1 for names in shown)
    assert {name for names in shown for name in names} == {"plain", "tiled"}
    assert 8 < sum(map(bool, shown)) < 32


CHEAP = ModelInfo(name="cheap", protocol="openai-chat", input_usd_per_mtok=0.1, output_usd_per_mtok=0.1)
DEAR = ModelInfo(name="dear", protocol="anthropic", input_usd_per_mtok=0.1, output_usd_per_mtok=0.1)


def outcomes(proposer, steps, good="dear"):
    """Who was asked at each step, where only one model writes kernels that are right."""
    asked = []
    for step in range(steps):
        request = proposer.propose(a_brief(step))
        asked.append(request.model)
        text = sensible(request)
        proposal = proposer.read(a_brief(step), request, Reply(text=text, stop="end", usage=Usage(cost_usd=0.01)))
        candidate = admitted(proposal)
        said = a_passed(candidate, 1.0 + step / 10) if request.model == good else a_failed(candidate, "check")
        proposer.tell(Parent(candidate=candidate, evaluation=said))
    return asked


def test_the_model_whose_kernels_get_better_is_asked_more():
    asked = outcomes(a_model((CHEAP, DEAR)), 60)
    assert asked[30:].count("dear") > 24
    assert "cheap" in asked


def test_a_model_whose_answers_hold_no_kernel_is_asked_less():
    proposer, asked = a_model((CHEAP, DEAR), follow_ups=0), []
    for step in range(60):
        request = proposer.propose(a_brief(step))
        asked.append(request.model)
        text = "Vectorise it." if request.model == "cheap" else sensible(request)
        proposal = proposer.read(a_brief(step), request, replied(text))
        if proposal.trouble is None:
            proposer.tell(Parent(candidate=admitted(proposal), evaluation=a_passed(admitted(proposal))))
    assert asked[30:].count("dear") > 20


def test_several_models_are_chosen_the_same_way_again():
    assert outcomes(a_model((CHEAP, DEAR)), 20) == outcomes(a_model((CHEAP, DEAR)), 20)


def test_a_certified_outcome_teaches_nothing():
    proposer = a_model()
    candidate = a_candidate(files={"main.cpp": kernel(1)}, tunables={"BLOCK": 8})
    proposer.tell(Parent(candidate=candidate, evaluation=a_passed(candidate, purpose="certify")))
    assert ask(proposer, replied(fenced(kernel(1)))).files == {"main.cpp": kernel(1)}
