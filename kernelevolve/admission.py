"""What becomes of a proposal before anything is built: a candidate, or a failure at the stage `parse`."""

from kernelevolve.languages import Language
from kernelevolve.schema import Candidate, Diagnostic, Duplicate, Failed, NoKernel, ParseError, Proposal, Trouble

_ADVICE = {
    "no_reply": "ask again, or another model",
    "refusal": "ask in other words, or another model",
    "truncated": "answer more briefly, with the kernel before everything else",
    "empty": "answer with the whole source of a kernel",
    "prose": "answer with the whole source of a kernel in a fenced block",
    "malformed_edit": "copy what is to be replaced letter by letter from the parent",
}


class Admission:
    """Lets through what parses as a kernel of the run's language and wasn't there before in the run."""

    def __init__(self, language: Language, target_digest: str) -> None:
        self._language = language
        self._target = target_digest
        self._known: dict[str, str] = {}
        """normalised source, tunables included, to the candidate that had it first"""

    def admit(self, proposal: Proposal) -> Candidate | Failed:
        """A candidate with a value for each tunable, which from then on was there before; or why there is none."""
        findings = self.findings(proposal)
        if findings:
            return self._failed(findings)
        defaults = {name: values[0] for name, values in self._language.tunables(proposal.files).items()}
        candidate = Candidate(
            language=proposal.language,
            files=proposal.files,
            tunables={**defaults, **proposal.tunables},
            lineage=proposal.lineage,
        )
        if candidate.normal in self._known:
            return self._failed((_duplicate(self._known[candidate.normal]),))
        self.remember(candidate)
        return candidate

    def remember(self, candidate: Candidate) -> None:
        """Note a candidate that was let through in an earlier sitting."""
        self._known.setdefault(candidate.normal, candidate.digest)

    def refused(self, proposal: Proposal) -> Failed:
        """The failure of a proposal that was not let through in an earlier sitting, which ended before it said why."""
        admitted = self.admit(proposal)
        if isinstance(admitted, Failed):
            return admitted
        message, advice = "the proposal was refused in an earlier sitting of the run", "propose it again"
        return self._failed((ParseError(message=message, advice=advice),))

    def findings(self, proposal: Proposal) -> tuple[Diagnostic, ...]:
        """What keeps a proposal from being a kernel of the run's language; empty means nothing does."""
        if proposal.trouble is not None:
            return (_no_kernel(proposal.trouble),)
        found = self._language.admit(proposal.files)
        return found or self._undeclared(proposal)

    def _undeclared(self, proposal: Proposal) -> tuple[Diagnostic, ...]:
        declared = self._language.tunables(proposal.files)
        return tuple(
            ParseError(
                message=f"the source declares no tunable {name} with the value {value!r}",
                advice=f"choose among the declared ones: {declared}",
            )
            for name, value in proposal.tunables.items()
            if value not in declared.get(name, ())
        )

    def _failed(self, diagnostics: tuple[Diagnostic, ...]) -> Failed:
        return Failed(candidate=None, target=self._target, stage="parse", diagnostics=diagnostics)


def _no_kernel(trouble: Trouble) -> NoKernel:
    return NoKernel(message=trouble.detail, advice=_ADVICE[trouble.reason], reason=trouble.reason)


def _duplicate(first: str) -> Duplicate:
    return Duplicate(
        message=f"the same kernel as candidate {first[:12]}, comments and layout apart",
        advice="change what the kernel does; how that one ended is known",
        of=first,
        by="source",
    )
