"""Python source as syntax trees, made one at a time.

Python 3.11 counts the depth of a tree that it builds in a place that all threads share, and fails where two build at
once (`SystemError: AST constructor recursion depth mismatch`, cpython's issue 106905).
"""

import ast
from threading import RLock

LOCK = RLock()
"""To be held by whoever lets a library parse."""


def module(source: str) -> ast.Module:
    """Of a whole module. Raises `SyntaxError`, and `ValueError` for a null byte."""
    with LOCK:
        return ast.parse(source)


def expression(source: str) -> ast.expr:
    """Of one expression. Raises the same."""
    with LOCK:
        return ast.parse(source.strip(), mode="eval").body
