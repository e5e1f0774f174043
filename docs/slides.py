"""A deck to teach from: the notebooks' headings, first sentences and figures, one section a slide.

python docs/slides.py [--out build/slides] [NUMBER ...]     # make slides; `... 00 02 07` for half a day

One page for any browser: arrow keys turn it, it prints to PDF, nothing is loaded from elsewhere.
"""

from __future__ import annotations

import argparse
import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import mistune
import nbformat
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
_SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z`*\"“$])")
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)


@dataclass
class Slide:
    """A heading, HTML below it, and at most one figure: (file name, text for who cannot see it)."""

    level: int
    heading: str
    text: str = ""
    figure: tuple[str, str] | None = None


def as_html(text: str) -> str:
    """Markdown with formulas -> HTML with MathML."""
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        block = match[1] is not None
        kept.append(convert((match[1] or match[2]).strip(), display="block" if block else "inline"))
        return f"@@{len(kept) - 1}@@"

    html = str(mistune.html(_FORMULA.sub(keep, text)))
    html = re.sub(r"<a [^>]*>(.*?)</a>", r"\1", html)  # links of a notebook lead nowhere from here
    return re.sub(r"@@(\d+)@@", lambda match: kept[int(match[1])], html)


def first_sentences(text: str, most: int = 2) -> str:
    """The first sentences of the first paragraph that is neither table nor list nor quotation."""
    for paragraph in text.split("\n\n"):
        paragraph = " ".join(paragraph.split())
        if paragraph and paragraph[0] not in "|-*#>!<" and not paragraph[0].isdigit():
            return " ".join(_SENTENCE.split(paragraph)[:most])
    return ""


def slides(path: Path, out: Path) -> Iterator[Slide]:
    """One slide for the notebook's title and for each section and exercise, figures written beside the page."""
    notebook, current = nbformat.read(path, as_version=4), None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts = re.split(r"^(#{1,3}) (.+)$", cell.source, flags=re.MULTILINE)
            if current is not None and not current.text:
                current.text = as_html(first_sentences(parts[0]))
            for marks, heading, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
                if current is not None:
                    yield current
                heading = as_html(re.sub(r"^(\d+)\. ", r"\1 · ", heading))  # "1. " would begin a list
                current = Slide(len(marks), heading.strip()[3:-4], as_html(first_sentences(body)))
        elif current is not None and current.figure is None and (figure := figure_of(cell, out)):
            if current.heading.startswith("Exercise"):  # its figure tells the answer: a slide of its own
                yield current
                current = Slide(3, f"After it: {current.heading.removeprefix('Exercise ')}")
            current.figure = figure
    if current is not None:
        yield current


def figure_of(cell: Any, out: Path) -> tuple[str, str] | None:
    """The first picture of a cell's output, written as a file."""
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            name = f"{cell.id}.png"
            (out / name).write_bytes(base64.b64decode(output.data["image/png"]))
            return name, output.metadata.get("image/png", {}).get("alt", "")
    return None


def main() -> None:
    """Writes the deck."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", help="notebooks, as 00 02 07 [all]")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "slides")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    files = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    chosen = [file for file in files if not given.numbers or file.name[:2] in given.numbers]
    if not chosen:
        known = " ".join(file.name[:2] for file in files)
        parser.error(f"found no notebook {' '.join(given.numbers)}; there are {known}")
    every = [slide for file in chosen for slide in slides(file, given.out)]
    deck = [slide for slide in every if (slide.text or slide.figure) and "Where next" not in slide.heading]
    template = jinja2.Environment(autoescape=False).from_string((ROOT / "docs" / "slides.html.j2").read_text())
    (given.out / "index.html").write_text(template.render(slides=deck))
    print(f"{given.out / 'index.html'}: {len(deck)} slides of {len(chosen)} notebooks")


if __name__ == "__main__":
    main()
