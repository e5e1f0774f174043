"""A notebook taken apart for the slides: texts, tables, formulas, figures, printed lines and tasks, in order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_HEADING = re.compile(r"^(#{1,3}) (.+)$", re.MULTILINE)
_EXERCISE = re.compile(r"Exercise `(\w+)` \((.+)\)")
# What nobody needs to see of what a notebook prints: checks of exercises that are not solved, and shapes.
_IDLE = re.compile(
    r"not attempted; going on|exercises? (is|are) yours|^(\w+ed )?by the package's \w+$|\(\d+(, \d+)*,?\)$"
)


@dataclass
class Figure:
    """A picture, its file beside the page, the text for those who cannot see it, and its size as shown."""

    name: str
    data: str  # base64, as in the notebook
    alt: str
    size: tuple[int, int]


@dataclass
class Piece:
    """What a notebook has in one place: a text, table, formula, figure, printed lines, or an exercise's task."""

    kind: str
    section: int  # 0 is the opening
    heading: str  # of the section, without its number
    below: str = ""  # the heading of its part, if it has parts
    exercise: str = ""
    solved: bool = False  # it comes after the exercise's cell
    first: bool = False  # the first text of its section
    text: str = ""
    figure: Figure | None = None


def files() -> dict[str, Path]:
    """The notebooks by number."""
    return {file.name[:2]: file for file in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))}


@cache
def read(number: str) -> tuple[list[Any], list[Piece]]:
    """A notebook's cells and pieces."""
    cells = nbformat.read(files()[number], as_version=4).cells
    return cells, list(pieces(cells, number))


def pieces(cells: list[Any], number: str) -> Iterator[Piece]:
    """A notebook in its order, without card and unnumbered sections; `number` begins the names of its figures."""
    at = Piece("text", 0, "The question of this notebook")
    for place, cell in enumerate(cells[1:], 1):
        if cell.cell_type == "markdown":
            for part, body in parts(cell.source, at):
                at = part
                if at.section >= 0:
                    yield from texts(body, at)
                at = replace(at, kind="text", first=False)
            continue
        at = replace(at, solved=at.solved or (at.exercise != "" and "exercise" in cell.metadata.get("tags", [])))
        shown = sorted(cell.outputs, key=lambda output: output.output_type == "stream")  # figures before their summary
        for index, output in enumerate(shown if at.section >= 0 else ()):
            if figure := figure_of(output, f"{number}-{place}-{index}"):
                yield replace(at, kind="figure", figure=figure)
            elif output.output_type == "stream" and output.name == "stdout":
                lines = [line for line in output.text.rstrip().splitlines() if not _IDLE.search(line)]
                if lines:
                    yield replace(at, kind="printed", text="\n".join(lines))


def parts(source: str, at: Piece) -> Iterator[tuple[Piece, str]]:
    """A Markdown cell cut at its headings: where each part is, and its text without the heading."""
    first, *cut = _HEADING.split(source)
    yield at, first
    for marks, heading, body in zip(cut[::3], cut[1::3], cut[2::3], strict=True):
        if len(marks) == 2:
            numbered = re.match(r"(\d+)\. (.+)", heading)
            at = Piece("text", int(numbered[1]) if numbered else -1, numbered[2] if numbered else heading, first=True)
        else:
            exercise = _EXERCISE.match(heading)
            kind, name = ("task", exercise[1]) if exercise else ("text", "")
            at = replace(at, kind=kind, below=heading, exercise=name, solved=False)
        yield at, body


def texts(body: str, at: Piece) -> Iterator[Piece]:
    """The paragraphs of a part; a task is one piece with all that belongs to it."""
    if at.kind == "task":
        yield replace(at, text=body.strip())
        return
    for index, paragraph in enumerate(filter(None, (each.strip() for each in body.split("\n\n")))):
        kind = "formula" if "$$" in paragraph else "table" if paragraph[0] == "|" else "text"
        yield replace(at, kind=kind, text=paragraph, first=at.first and index == 0)


def figure_of(output: Any, stem: str) -> Figure | None:
    """The picture of an output."""
    for kind, suffix in SUFFIXES.items():
        if kind in output.get("data", {}):
            said = output.metadata.get(kind, {})
            size = said.get("width", 900), said.get("height", 450)
            return Figure(f"{stem}.{suffix}", output.data[kind], said.get("alt", ""), size)
    return None
