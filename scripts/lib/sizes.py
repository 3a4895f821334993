"""Size limits: a file past 400 lines or a function past 50 is two things."""

import ast
import sys
from pathlib import Path

FILE_LINES, FUNCTION_LINES = 400, 50


def main() -> int:
    root = Path(__file__).resolve().parents[2]
    found = []
    for file in sorted((root / "kernelevolve").rglob("*.py")):
        text = file.read_text()
        name = file.relative_to(root)
        if (lines := text.count("\n")) > FILE_LINES:
            found.append(f"{name}: {lines} lines, at most {FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    found.append(f"{name}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}")
    print("\n".join(found) or "sizes: every file and function is within its limit")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
