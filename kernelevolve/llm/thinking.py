"""Thinking that a local server leaves in the text of a reply."""

import re

_TAGS = r"(think|thinking|reasoning)"
_BLOCK = re.compile(rf"\A\s*<{_TAGS}>.*?</\1>", re.DOTALL)
_OPEN = re.compile(rf"\A\s*<{_TAGS}>.*\Z", re.DOTALL)
_TAIL = re.compile(rf"\A(?:(?!<{_TAGS}>|```).)*?</{_TAGS}>", re.DOTALL)


def without_thinking(text: str) -> str:
    """The reply after its thinking.

    Thinking stands at the beginning, between `<think>` and `</think>`; some chat templates open the block
    themselves, so that only its end is in the reply; a reply that was cut off may never close it, and then says
    nothing at all. What stands further down is the reply's own.
    """
    while (block := _BLOCK.match(text)) is not None:
        text = text[block.end() :]
    if _OPEN.match(text):
        return ""
    if (tail := _TAIL.match(text)) is not None:
        text = text[tail.end() :]
    return text.strip()
