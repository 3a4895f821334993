"""Tokens of a text that no tokenizer has seen."""

import math

BYTES_PER_TOKEN = 2.5
"""Of UTF-8. OpenAI's rule of thumb is 4 characters of English a token (https://help.openai.com, "What are tokens and
how to count them?"); program text has fewer, and tokenizers differ. The margin is ours: a budget and a context limit
must rather count too many tokens than too few."""


def estimate_tokens(text: str) -> int:
    """At least as many tokens as any current tokenizer makes of prose or source code, most of the time.

    Text that is unlike both (long numbers, base64) may have more: at most one a byte.
    """
    return math.ceil(len(text.encode(errors="replace")) / BYTES_PER_TOKEN)
