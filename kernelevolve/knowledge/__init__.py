"""Retrieval over the documents of `prompts/knowledge` and over what past runs learned."""

from kernelevolve.knowledge.library import Library, Match
from kernelevolve.knowledge.query import Query

__all__ = ["Library", "Match", "Query"]
