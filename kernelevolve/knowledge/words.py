"""Words of a text, as the search compares them."""

import re

_WORD = re.compile(r"[a-z0-9][a-z0-9_]*")
_EMPTY = frozenset(
    ("a", "an", "and", "any", "are", "as", "at", "be", "by", "each", "for", "from", "has", "have", "how", "in", "into",
     "is", "it", "its", "more", "no", "not", "of", "on", "one", "or", "other", "than", "that", "the", "their", "them",
     "then", "there", "to", "what", "when", "where", "which", "with", "without")
)  # fmt: skip


def words(text: str) -> tuple[str, ...]:
    """Lower-case words without those that say nothing; a plural counts as its singular, a_b also as a and b."""
    found = []
    for word in _WORD.findall(text.lower().replace("-", " ")):
        parts = [part for part in word.split("_") if part]
        found += [word, *parts] if len(parts) > 1 else parts
    return tuple(_singular(word) for word in found if word not in _EMPTY)


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
