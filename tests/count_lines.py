"""Counts code lines: `python tests/count_lines.py [FOLDER]` prints them for each room of the package, and their sum.

A code line is one that a token of code stands on: docstrings, comments and blank lines do not count.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

_SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def count(path: Path) -> tuple[int, list[tuple[str, int]]]:
    """The code lines of a file, and (name, code lines) of each function's body."""
    source = path.read_text(encoding="utf-8")
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    functions, documented = [], (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        if isinstance(node, documented[2:]):
            functions.append(node)
    bodies = [(node.name, sum(node.body[0].lineno <= line <= node.end_lineno for line in lines)) for node in functions]
    return len(lines), bodies


def by_room(package: Path) -> Counter[str]:
    """Code lines of each room: a module or a folder of the package."""
    rooms: Counter[str] = Counter()
    for path in sorted(package.rglob("*.py")):
        rooms[path.relative_to(package).parts[0].removesuffix(".py")] += count(path)[0]
    return rooms


if __name__ == "__main__":
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "mogle"
    found = by_room(package)
    for room, lines in found.most_common():
        print(f"{lines:6,} {room}")
    print(f"{found.total():6,} in all, {found.total() - found['tiny']:,} without tiny")
