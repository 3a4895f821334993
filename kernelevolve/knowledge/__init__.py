"""Retrieval over the documents of `prompts/knowledge` and over what past runs learned."""
