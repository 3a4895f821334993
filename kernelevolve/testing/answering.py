"""Plays the search's part between a proposer and whoever answers its questions."""

from kernelevolve.llm.base import Client
from kernelevolve.proposers.base import Asks, Proposer
from kernelevolve.schema import Brief, ModelRequest, Proposal


def answered(proposer: Proposer, brief: Brief, client: Client | None = None) -> Proposal | None:
    """What the proposer makes of a brief once its questions were answered by `client`."""
    result = proposer.propose(brief)
    while isinstance(result, ModelRequest):
        assert client is not None, "the proposer has a question, and there is nobody to answer it"
        assert isinstance(proposer, Asks), "the proposer has a question, and can't read the answer"
        result = proposer.read(brief, result, client.complete(result))
    return result
