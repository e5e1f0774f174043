"""A deck to teach from, made of the notebooks: their questions, figures, formulas, exercises and printed tables.

    python docs/slides.py                     # the whole course, into build/slides/index.html
    python docs/slides.py 00 02               # these notebooks
    python docs/slides.py --plan half-day     # a plan of docs/plans.toml: its sections, exercises, minutes and quiz

One page for any browser; nothing is loaded from elsewhere. Its keys:

    right, down, space, Page Down    next slide
    left, up, Page Up                the one before
    Home, End                        first and last slide
    f                                full screen, and back
    Ctrl+P                           print, or save as PDF: one slide on each page
"""

from __future__ import annotations

import argparse
import base64
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import mistune
from latex2mathml.converter import convert
from notebook_pieces import NOTEBOOKS, Figure, Piece, files, read

from mogle.errors import MogleError

ROOT = Path(__file__).resolve().parents[1]
PLANS = ROOT / "docs" / "plans.toml"
COURSE = "Face-MoGLE on a laptop"
_SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z`*\"“$])|(?<=[.?!]\*\*)\s+(?=[A-Z`*\"“$])")
_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
_QUESTION = re.compile(
    r"^## Question (\d+) (★+)\n\n(.+?)\n\n<details><summary>Answer</summary>\n\n(.+?)\n\nSection", re.M | re.S
)
# What a slide has no use for: a notebook's help for somebody at the keyboard.
_HELP = re.compile(r"If you get stuck|You can go on without|`hint\(|`reveal\(")
# A question that its own paragraph answers at once is none for the class.
_ANSWER = re.compile(r"(That|This|So|No|Yes|Not|The paper|Nothing)\b")


@dataclass
class Slide:
    """One slide; `kind` is its class in the template: title, opening, question, figure, formula, task, and so on."""

    kind: str
    heading: str  # HTML, as all texts
    below: str = ""
    text: str = ""
    asked: str = ""  # large
    figure: Figure | None = None
    printed: str = ""
    source: str = ""  # at the foot: where it is from

    @property
    def tall(self) -> bool:
        """Its figure stands beside the text, not below it."""
        return bool(self.figure and self.figure.size[1] > 0.58 * self.figure.size[0] and (self.text or self.printed))

    @property
    def prose(self) -> bool:
        """Its printed lines are sentences and no table, so that they may be set like the text."""
        return self.tall and "  " not in self.printed

    @property
    def type(self) -> float:
        """The size of the printed letters, in hundredths of the screen's height: as large as lines and screen allow."""
        lines = self.printed.splitlines()
        longest = max(map(len, lines), default=1)
        return 2.4 if self.tall else round(min(2.5 if self.figure else 3.2, 255 / longest, 60 / len(lines or " ")), 2)


@dataclass
class Block:
    """A part of a plan: a notebook's sections and exercises, a quiz, or a title alone."""

    title: str = ""
    minutes: int = 0
    notebook: str = ""
    how: str = ""
    sections: list[int] = field(default_factory=list)  # empty: all
    exercises: list[str] | None = None  # None: all
    figures: dict[str, list[int]] = field(default_factory=dict)  # section -> these only; 1 is its first, -1 its last
    quiz: list[str] = field(default_factory=list)


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


def inline(text: str) -> str:
    """A line of Markdown -> HTML without a paragraph around it, with words that may begin with "1. "."""
    return as_html(f"\u200b{text}").strip().removeprefix("<p>\u200b").removesuffix("</p>")


def sentences(text: str) -> list[str]:
    """A paragraph's sentences."""
    return _SENTENCE.split(" ".join(text.split()))


# Slides of a notebook's pieces


class Deck:
    """The slides of one notebook, made in the order of its pieces."""

    def __init__(self, source: str, exercises: Iterable[str]) -> None:
        self.slides: list[Slide] = []
        self.source, self.exercises = source, set(exercises)
        self.section = 0
        self.opening = ""  # the section's first paragraph, until a slide has shown it
        self.last = ""  # the kind of the last piece
        self.told: list[str] = []  # paragraphs that no slide has shown yet
        self.held: list[str] = []  # printed lines that no slide has shown yet

    def take(self, piece: Piece) -> None:
        """The next piece; what a section has said without having something to show stays away."""
        if piece.section == 0:
            return
        if piece.kind not in ("printed", "figure"):
            self.print_held()
        if piece.section != self.section:
            self.section, self.opening, self.last, self.told = piece.section, "", "", []
        self.at = piece
        getattr(self, f"take_{piece.kind}")(piece)
        self.last = piece.kind

    def add(self, kind: str, text: str = "", **more: Any) -> None:
        """A slide about the piece at hand; the paragraphs before it are used up."""
        at = self.at
        below = at.below.split(" (★")[0]
        if at.solved:  # a plan without the exercise does not speak of it
            below = f"After `{at.exercise}`" if at.exercise in self.exercises else ""
        heading = inline(f"{at.section} · {at.heading}" if at.section else at.heading)
        self.slides.append(Slide(kind, heading, inline(below), as_html(text), source=self.source, **more))
        self.told, self.opening = [], ""

    def take_text(self, piece: Piece) -> None:
        if self.last == "formula" and piece.text[0].islower():  # "where X is ..." belongs to the formula above it
            self.slides[-1].text += as_html(sentences(piece.text)[0])
        elif not re.match(r"[-*>] |\d+\. |```", piece.text):
            self.told.append(piece.text)
            self.opening = piece.text if piece.first else self.opening

    def take_table(self, piece: Piece) -> None:
        self.add("table", f"{self.lead()}\n\n{piece.text}")

    def take_formula(self, piece: Piece) -> None:
        self.add("formula", f"{self.lead()}\n\n{piece.text}")

    def take_task(self, piece: Piece) -> None:
        marks = piece.below.partition("(")[2].rstrip(")")
        paragraphs = piece.text.split("\n\n")
        told = [" ".join(one for one in _SENTENCE.split(each) if not _HELP.search(one)) for each in paragraphs]
        self.add("task", "\n\n".join(told), asked=inline(marks))

    def take_printed(self, piece: Piece) -> None:
        if self.last == "figure":  # it sums up what the figure shows
            above = self.slides[-1]
            above.printed = f"{above.printed}\n{piece.text}".strip()
            piece.kind = "figure"
        else:
            self.held.append(piece.text)

    def print_held(self) -> None:
        """A slide of printed lines where they are a table, or answer the question before them."""
        held, self.held = self.held, []
        answer = bool(self.told) and self.told[-1].rstrip("*").endswith("?")
        table = any(3 <= len(one.splitlines()) <= 24 for one in held) and (self.told or self.at.solved)
        if held and (answer or table):
            self.add("printed", self.lead(500 if answer else 300), printed="\n".join(held))

    def take_figure(self, piece: Piece) -> None:
        """The figure; before it what the notebook asks, on a slide of its own, so that a teacher can ask it first."""
        assert piece.figure
        lead = self.lead() if self.last == "text" else ""
        about = list(dict.fromkeys(filter(None, [self.opening, *self.told[-1:]])))
        asked = [question for paragraph in about for question in questions(paragraph)]
        few = sum(len(one.splitlines()) for one in self.held) < 5 and bool(self.told)
        if asked:
            rest = [one for paragraph in about for one in sentences(paragraph) if one not in asked]
            lead = rest.pop() if rest and rest[-1].endswith(":") else ""
            self.add("question", " ".join(rest[:5]), asked=inline(" ".join(asked[:3])))
        elif self.opening and self.opening != self.told[-1]:
            lead = f"{' '.join(sentences(self.opening)[:2])} {lead}"
        elif few and any(len(one.splitlines()) > 2 for one in self.held):
            lead = self.lead()
        elif not lead and self.opening:
            lead = " ".join(sentences(self.opening)[:2])
        if not asked and not few:
            self.print_held()
        printed = "\n".join(one for one in self.held if asked or len(one.splitlines()) > 2)
        self.held = []
        self.add("figure", lead if lead or asked else piece.figure.alt, figure=piece.figure, printed=printed)

    def lead(self, most: int = 300) -> str:
        """What stands right above: as many of its last sentences as fit into so many letters, and at least one."""
        kept = sentences(self.told[-1]) if self.told else []
        while len(" ".join(kept)) > most and len(kept) > 1:
            kept = kept[1:]
        return " ".join(kept)


def until_asked(paragraph: str) -> str:
    """A paragraph up to its last question; all of it if it asks none."""
    told = sentences(paragraph)
    last = max((k for k, one in enumerate(told) if one.strip("*").endswith("?")), default=len(told) - 1)
    return " ".join(told[: last + 1])


def questions(paragraph: str) -> list[str]:
    """The questions of a paragraph, but for those that it answers itself."""
    told = sentences(paragraph)
    pairs = zip(told, [*told[1:], ""], strict=True)
    return [one for one, following in pairs if one.strip("*").endswith("?") and not _ANSWER.match(following)]


# Plans


def read_plan(name: str, path: Path = PLANS) -> tuple[str, list[Block]]:
    """A plan's title and blocks.

    Raises:
        MogleError: there is no such plan, or it names something that the course has not.
    """
    plans = tomllib.loads(path.read_text())
    if name not in plans:
        raise MogleError(f"found no plan {name!r} in {path.name}; there are {', '.join(plans)}")
    blocks = []
    for number, entry in enumerate(plans[name]["block"], 1):
        if unknown := set(entry) - set(Block.__dataclass_fields__):
            problem: str | None = f"has no use for {', '.join(sorted(unknown))}"
        else:
            blocks.append(Block(**entry))
            problem = problem_of(blocks[-1])
        if problem:
            raise MogleError(f"{path.name}, {name}, block {number}: {problem}")
    return plans[name]["title"], blocks


def problem_of(block: Block) -> str | None:
    """What a block names that the course has not."""
    for one in block.quiz:
        if one not in (known := quiz(one[:2])):
            return f"found no quiz question {one!r}; there are {' '.join(known) or 'none of this notebook'}"
    if not block.notebook:
        return None if block.title or block.quiz else "needs a notebook, a title or a quiz"
    if block.notebook not in files():
        return f"found no notebook {block.notebook!r}; there are {' '.join(files())}"
    _, every = read(block.notebook)
    last = max(piece.section for piece in every)
    exercises = {piece.exercise: None for piece in every if piece.exercise}
    for section in map(int, [*block.sections, *block.figures]):
        if not 1 <= section <= last:
            return f"found no section {section} in notebook {block.notebook}; it has 1 to {last}"
    for exercise in block.exercises or ():
        if exercise not in exercises:
            return f"found no exercise {exercise!r} in notebook {block.notebook}; it has {', '.join(exercises)}"
    for section, figures in block.figures.items():
        count = sum(piece.kind == "figure" and piece.section == int(section) for piece in every)
        if wrong := [one for one in figures if not 1 <= abs(one) <= count]:
            return f"found no figure {wrong[0]} in section {section} of notebook {block.notebook}; it has {count}"
    return None


def quiz(number: str) -> dict[str, tuple[str, str, str]]:
    """ "00/5" and the like -> stars, question and answer in Markdown, of one notebook's quiz."""
    file = NOTEBOOKS / "quiz" / f"{number}.md"
    found = _QUESTION.findall(file.read_text()) if file.is_file() else []
    return {f"{number}/{name}": (stars, asked, answer) for name, stars, asked, answer in found}


def chosen(every: list[Piece], block: Block) -> Iterator[Piece]:
    """Those pieces of a notebook that a block shows.

    A figure after an exercise's cell stays without the exercise; what was printed there, and its task, do not.
    """
    for section, group in groupby(every, key=lambda piece: piece.section):
        given, kept = list(group), []
        listed = not block.sections or section in block.sections
        for piece in only(given, block.figures.get(str(section))):
            left_out = block.exercises is not None and piece.exercise and piece.exercise not in block.exercises
            named = piece.exercise in (block.exercises or ())
            if named or (listed and (not left_out or (piece.solved and piece.kind in ("text", "figure")))):
                kept.append(piece)
        yield from kept


def only(section: list[Piece], figures: list[int] | None) -> list[Piece]:
    """A section with these of its figures, what leads to each and sums it up, and its tasks; None: all of it."""
    if figures is None:
        return section
    count = sum(piece.kind == "figure" for piece in section)
    wanted = {(one - 1) % count if one > 0 else count + one for one in figures}
    kept, at = [], 0
    for index, piece in enumerate(section):
        above = index and section[index - 1].kind in ("figure", "printed") and piece.kind == "printed"
        if piece.kind == "task" or (at - 1 if above else at) in wanted:
            kept.append(piece)
        at += piece.kind == "figure"
    return kept


# The deck


def opening(cells: list[Any], every: list[Piece], block: Block) -> Slide:
    """A notebook's first slide: its title, the minutes of the plan or the card, its question, and the map."""
    card = dict(re.findall(r"^\| ([\w ]+) \| (.+) \|$", cells[0].source, re.M))
    told = [piece.text for piece in every if piece.section == 0 and piece.kind == "text"]
    at = next((k for k, one in enumerate(told) if "?**" in one), 0)
    short = at > 0 and len(told[at]) < 150  # the question alone: take what leads to it as well
    asked = "\n\n".join(until_asked(one) for one in told[at - short : at + 1])
    built = f"**You build** {card.get('You build', '')}"
    figure = next((piece.figure for piece in every if piece.section == 0 and piece.figure), None)
    below = inline(announced(block) or card.get("Time", ""))
    return Slide("opening", title_of(cells), below, as_html(built), asked=as_html(asked), figure=figure)


def title_of(cells: list[Any]) -> str:
    """A notebook's title as HTML."""
    return inline(cells[0].source.splitlines()[0].removeprefix("# "))


def announced(block: Block) -> str:
    """A block's minutes and exercises in a line; empty without a plan."""
    parts = [f"{block.minutes} minutes"] if block.minutes else []
    parts += [block.how] if block.how else []
    if block.exercises:
        parts.append("exercise " + ", ".join(f"`{name}`" for name in block.exercises))
    return ", ".join(parts)


def notebook_slides(block: Block, again: bool) -> list[Slide]:
    """A notebook's opening, or where its second block begins a title; and what the block shows of it."""
    cells, every = read(block.notebook)
    deck = Deck(title_of(cells), {piece.exercise for piece in every} if block.exercises is None else block.exercises)
    for piece in chosen(every, block):
        deck.take(piece)
    deck.print_held()
    if again:
        first = Slide("title", title_of(cells), "continued", as_html(announced(block)))
    else:
        first = opening(cells, every, block)
    return [first, *deck.slides]


def quiz_slides(block: Block) -> Iterator[Slide]:
    """Each question by itself, and after it with its answer."""
    for number, one in enumerate(block.quiz, 1):
        stars, asked, answer = quiz(one[:2])[one]
        heading, source = inline(block.title or "Quiz"), f"quiz {one}"
        where = f"{number} of {len(block.quiz)} {stars}"
        minutes = f", {block.minutes} minutes" if block.minutes and number == 1 else ""
        yield Slide("quiz", heading, where + minutes, as_html(asked), source=source)
        yield Slide("quiz", heading, f"{where}, the answer", as_html(asked), asked=as_html(answer), source=source)


def agenda(blocks: list[Block]) -> Slide:
    """A plan as a table."""
    rows = ["| minutes | | |", "|---:|---|---|"]
    for block in blocks:
        what = files()[block.notebook].stem.replace("_", " ") if block.notebook else block.title
        rows.append(f"| {block.minutes or ''} | {what} | {block.how} |")
    return Slide("table", "The plan", f"{sum(block.minutes for block in blocks)} minutes", as_html("\n".join(rows)))


def make(blocks: list[Block]) -> list[Slide]:
    """All slides but the first."""
    deck = [agenda(blocks)] if any(block.minutes for block in blocks) else []
    seen: set[str] = set()
    for block in blocks:
        if block.notebook:
            deck += notebook_slides(block, again=block.notebook in seen)
            seen.add(block.notebook)
        elif block.quiz:
            deck += quiz_slides(block)
        else:
            deck.append(Slide("title", inline(block.title), "", as_html(announced(block))))
    return deck


def main() -> None:
    """Writes the deck."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="*", metavar="NOTEBOOK", help="as 00 02 07 [all]")
    parser.add_argument("--plan", help="half-day, one-day or two-days, from docs/plans.toml, in place of notebooks")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "slides", help="[build/slides]")
    given = parser.parse_args()
    try:
        if given.plan and given.numbers:
            raise MogleError("found a plan and notebooks; give one of the two")
        if given.plan:
            title, blocks = read_plan(given.plan)
        else:
            title, blocks = "", [Block(notebook=number) for number in given.numbers or files()]
            for problem in filter(None, map(problem_of, blocks)):
                raise MogleError(problem)
    except MogleError as error:
        parser.error(str(error))
    given.out.mkdir(parents=True, exist_ok=True)
    slides = make(blocks)
    for figure in (slide.figure for slide in slides if slide.figure):
        (given.out / figure.name).write_bytes(base64.b64decode(figure.data))
    template = jinja2.Environment(autoescape=False).from_string((ROOT / "docs" / "slides.html.j2").read_text())
    (given.out / "index.html").write_text(template.render(course=COURSE, title=title, slides=slides))
    print(f"{given.out / 'index.html'}: {len(slides) + 1} slides")


if __name__ == "__main__":
    main()
