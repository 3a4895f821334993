"""What every proposer has to keep to: derive a test class, and say how yours is made.

::

    class TestMyProposer(ProposerContract):
        def make(self, *, seed=0):
            return MyProposer(MyProposer.Config(), seed=seed)
"""

from typing import ClassVar, get_args

from kernelevolve.catalog import LANGUAGES
from kernelevolve.llm.base import Client
from kernelevolve.proposers.base import Proposer, Remembers
from kernelevolve.schema import Brief, Change, Parent, Proposal, Seed, Stage
from kernelevolve.testing.answering import answered
from kernelevolve.testing.landscape import a_brief, a_seed, admitted
from kernelevolve.testing.records import a_failed, a_passed, a_triaged

_ENOUGH = 12
"""proposals that a test asks for"""


class ProposerContract:
    """The suite. `make` has to be overridden; `seeds` may be."""

    replays: ClassVar[bool] = True
    """whether a proposer that is told what an earlier one was told goes on as that one would have"""

    seeds: ClassVar[tuple[Seed, ...]] = (
        a_seed("plain"),
        a_seed("tiled", {"TILE": (8, 16, 32, 64), "ORDER": ("row", "column")}),
        a_seed("unrolled", {"UNROLL": (4, 1, 2, 8), "TILE": (8, 16, 32)}),
    )

    def make(self, *, seed: int = 0) -> Proposer:
        """A proposer that has at least a dozen answers, and has been asked and told nothing."""
        raise NotImplementedError

    def client(self) -> Client | None:
        """Who answers the proposer's questions; None where it has none."""
        return None

    def propose(self, proposer: Proposer, brief: Brief) -> Proposal | None:
        """A proposal, its questions answered on the way."""
        return answered(proposer, brief, self.client())

    def brief(self, step: int, parent: Parent | None = None, change: Change | None = None) -> Brief:
        """A draft, or the first kind of change that the proposer can make to the parent."""
        if parent is None:
            return a_brief(step, seeds=self.seeds)
        return a_brief(step, change or self.make().changes[0], (parent,), self.seeds)

    def outcome(self, step: int, proposal: Proposal) -> Parent:
        """What becomes of a proposal: every third fails."""
        candidate = admitted(proposal)
        passed = a_passed(candidate, 1.0 + step / 10)
        return Parent(candidate=candidate, evaluation=a_failed(candidate, "check") if step % 3 == 2 else passed)

    def play(self, proposer: Proposer, count: int = _ENOUGH) -> list[Parent]:
        """Drafts and changes by turns, each told before the next is asked for."""
        told: list[Parent] = []
        for step in range(count):
            passed = [o for o in told if o.evaluation.outcome == "passed"]
            parent = passed[-1] if passed and step % 2 and proposer.changes else None
            proposal = self.propose(proposer, self.brief(step, parent))
            assert proposal is not None
            told.append(self.outcome(step, proposal))
            proposer.tell(told[-1])
        return told

    def drafts(self, proposer: Proposer, count: int = _ENOUGH) -> list[Proposal]:
        """Drafts asked for in a row, none of them told."""
        proposals = [self.propose(proposer, self.brief(step)) for step in range(count)]
        return [proposal for proposal in proposals if proposal is not None]

    def test_a_proposal_names_its_author_and_its_brief(self) -> None:
        """The store links the three."""
        proposer, brief = self.make(), self.brief(0)
        proposal = self.propose(proposer, brief)
        assert proposal is not None
        assert (proposal.proposer, proposal.brief) == (proposer.name, brief.digest)
        assert proposal.language == brief.language

    def test_tunables_have_values_that_the_source_declares(self) -> None:
        """Anything else would be built as something other than what was proposed."""
        for outcome in self.play(self.make()):
            language = LANGUAGES.load(outcome.candidate.language)()
            assert not language.admit(outcome.candidate.files)
            declared = language.tunables(outcome.candidate.files)
            for name, value in outcome.candidate.tunables.items():
                assert value in declared[name]

    def test_many_briefs_can_be_answered_before_anything_is_told(self) -> None:
        """Evaluations overlap."""
        assert len(self.drafts(self.make())) == _ENOUGH

    def test_no_kernel_is_proposed_twice(self) -> None:
        """Neither while one is under way nor after it was told."""
        proposer = self.make()
        codes = [admitted(p).code for p in self.drafts(proposer, _ENOUGH // 2)]
        codes += [o.candidate.code for o in self.play(proposer, _ENOUGH // 2)]
        assert len(set(codes)) == len(codes) == _ENOUGH

    def test_a_change_names_its_parent_and_a_draft_has_none(self) -> None:
        """For every kind of change that the proposer says it can make; it may walk the parent's constants instead."""
        proposer = self.make()
        for step, change in enumerate(proposer.changes):
            draft = self.propose(proposer, self.brief(2 * step))
            assert draft is not None
            assert draft.lineage.parents == ()
            parent = Parent(candidate=admitted(draft), evaluation=a_passed(admitted(draft)))
            proposer.tell(parent)
            changed = self.propose(proposer, self.brief(2 * step + 1, parent, change))
            assert changed is not None
            assert changed.lineage.change in (change, "retune", "draft")
            assert changed.lineage.parents == (() if changed.lineage.change == "draft" else (parent.candidate.digest,))

    def test_it_goes_on_after_failures(self) -> None:
        """A failure at any stage is news, not an error."""
        proposer = self.make()
        for step, stage in enumerate(get_args(Stage)):
            proposal = self.propose(proposer, self.brief(step))
            assert proposal is not None
            candidate = admitted(proposal)
            proposer.tell(Parent(candidate=candidate, evaluation=a_failed(candidate, stage)))

    def test_it_goes_on_where_nothing_is_measured(self) -> None:
        """A triaged candidate is news as well, with an estimate or without one; no kernel comes twice."""
        proposer = self.make()
        codes = []
        for step in range(_ENOUGH):
            proposal = self.propose(proposer, self.brief(step))
            assert proposal is not None
            candidate = admitted(proposal)
            codes.append(candidate.code)
            told = a_triaged(candidate, None if step % 3 == 1 else 100.0 - step)
            proposer.tell(Parent(candidate=candidate, evaluation=told))
        assert len(set(codes)) == _ENOUGH

    def test_equal_seeds_and_calls_give_equal_proposals(self) -> None:
        """Nothing else goes into an answer."""
        assert self.play(self.make(seed=5)) == self.play(self.make(seed=5))

    def test_a_resumed_run_goes_on_where_it_stopped(self) -> None:
        """Telling the finished steps again, without proposing them, brings none of them back."""
        first, resumed = self.make(seed=5), self.make(seed=5)
        told = self.play(first, _ENOUGH // 2)
        for outcome in told:
            resumed.tell(outcome)
        expected, got = (self.drafts(p, _ENOUGH // 2) for p in (first, resumed))
        assert not {admitted(p).code for p in got} & {o.candidate.code for o in told}
        if self.replays:
            assert got == expected

    def test_what_is_recalled_is_as_good_as_proposed(self) -> None:
        """A resumed run need not think again about what was answered without a question."""
        first, resumed = self.make(seed=5), self.make(seed=5)
        if not isinstance(resumed, Remembers):
            return
        for step in range(_ENOUGH // 2):
            brief = self.brief(step)
            proposal = first.propose(brief)
            if isinstance(proposal, Proposal):
                resumed.recall(brief, proposal)
            else:
                assert resumed.propose(brief) == proposal
        assert [first.propose(self.brief(s)) for s in (20, 21)] == [resumed.propose(self.brief(s)) for s in (20, 21)]
