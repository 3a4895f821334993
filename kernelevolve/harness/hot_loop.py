"""Finds the loop in disassembled code that a kernel with tensor-core instructions spends its time in."""

import re

_LABEL = re.compile(r"^\s*(?P<name>\.L\w+):")
_BRANCH = re.compile(r"\b(?:BRA|s_c?branch\w*)\b[^\n;]*?(?P<name>\.L\w+)")
_TENSOR_CORE = re.compile(r"\b(?:[HIQDBO]G?MMA|UTC\w*MMA|v_s?mfma\w*)\b")


def hot_loop(code: str) -> str:
    """Lines of the innermost loop (a jump back to a label) with the most tensor-core instructions; "" for none.

    Reads what nvdisasm prints, and amdgcn text.
    """
    lines = code.splitlines()
    labels: dict[str, int] = {}
    loops: list[tuple[int, int]] = []
    for number, line in enumerate(lines):
        if label := _LABEL.match(line):
            labels[label["name"]] = number
        elif (branch := _BRANCH.search(line)) and branch["name"] in labels:
            loops.append((labels[branch["name"]], number))
    busy = {loop: sum(bool(_TENSOR_CORE.search(line)) for line in lines[loop[0] : loop[1]]) for loop in loops}
    innermost = [a for a in loops if busy[a] and not any(a != b and _within(b, a) and busy[b] for b in loops)]
    if not innermost:
        return ""
    first, last = max(innermost, key=lambda loop: busy[loop])
    return "\n".join(lines[first : last + 1])


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]
