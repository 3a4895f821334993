"""The built-in proposers keep to the contract of their seam."""

from answers import MODEL, a_client

from kernelevolve.catalog import PROPOSERS
from kernelevolve.llm.base import Client
from kernelevolve.proposers.agent import Agent
from kernelevolve.proposers.base import Proposer
from kernelevolve.proposers.model import Model
from kernelevolve.proposers.tuner import Tuner
from kernelevolve.schema import Candidate, Lineage, Parent
from kernelevolve.testing.landscape import a_brief, a_seed
from kernelevolve.testing.proposer_contract import ProposerContract
from kernelevolve.testing.records import a_candidate, a_passed, a_proposal
from kernelevolve.testing.scripted import ScriptedProposer


class TestTuner(ProposerContract):
    def make(self, *, seed: int = 0) -> Proposer:
        return Tuner(Tuner.Config(), seed=seed)


class TestModel(ProposerContract):
    def make(self, *, seed: int = 0) -> Proposer:
        return Model(Model.Config(), seed=seed, models=(MODEL,))

    def client(self) -> Client:
        return a_client()


class TestModelWithoutTheTuner(TestModel):
    def make(self, *, seed: int = 0) -> Proposer:
        return Model(Model.Config(seeds_first=False, tuning=0.0), seed=seed, models=(MODEL,))


class TestAgent(TestModel):
    def make(self, *, seed: int = 0) -> Proposer:
        return Agent(Agent.Config(), seed=seed)


def test_every_proposer_of_the_catalog_is_under_contract():
    assert set(PROPOSERS.names()) == {suite().make().name for suite in (TestTuner, TestModel, TestAgent)}


def kernel(number: int) -> Candidate:
    seed = a_seed(f"kernel {number}")
    return a_candidate(files=seed.files, tunables={}, lineage=Lineage(origin=seed.name))


def test_a_scripted_proposer_gives_its_script_and_then_nothing():
    proposer = ScriptedProposer([a_proposal(kernel(0)), None, a_proposal(kernel(1))])
    briefs = [a_brief(step) for step in range(4)]
    answers = [proposer.propose(brief) for brief in briefs]
    assert [a and a.lineage.origin for a in answers] == ["kernel 0", None, "kernel 1", None]
    assert answers[0] is not None
    assert (answers[0].proposer, answers[0].brief) == ("scripted", briefs[0].digest)
    assert proposer.briefs == briefs


def test_a_scripted_proposer_remembers_what_it_was_told():
    proposer = ScriptedProposer([])
    outcome = Parent(candidate=kernel(0), evaluation=a_passed(kernel(0)))
    proposer.tell(outcome)
    assert proposer.told == [outcome]
