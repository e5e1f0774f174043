"""The quiz: ten questions for each notebook, each with an answer that names its place in the notebook. Text only."""

import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
QUIZ = NOTEBOOKS / "quiz"
WRITTEN = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
QUESTION = re.compile(
    r"^## Question (?P<number>\d+) (?P<level>★+)\n\n(?P<asked>.+?)\n\n"
    r"<details><summary>Answer</summary>\n\n(?P<answer>.+?)\n\nSection: \*(?P<section>.+?)\*\.?\n\n</details>\n",
    re.M | re.S,
)
OPTION = re.compile(r"^- \((\w)\) (.+)$", re.M)
CHOSEN = re.compile(r"\*\*\((\w)\)\*\* ")


def questions(notebook: Path) -> tuple[str, list[dict[str, str]]]:
    """A notebook -> what stands above the first question of its quiz, and the questions."""
    head, *rest = re.split(r"(?=^## )", (QUIZ / f"{notebook.name[:2]}.md").read_text(), flags=re.M)
    found = [QUESTION.fullmatch(part.strip() + "\n") for part in rest]
    assert all(found), [part[:200] for part, match in zip(rest, found, strict=True) if not match]
    return head, [match.groupdict() for match in found if match]


def letters(notebook: Path) -> list[str]:
    """The right options' letters."""
    chosen = [CHOSEN.match(question["answer"]) for question in questions(notebook)[1]]
    return [match[1] for match in chosen if match]


def texts(notebook: Path) -> list[list[str]]:
    """The texts of the four options, for each question that has some."""
    found = [OPTION.findall(question["asked"]) for question in questions(notebook)[1]]
    return [[text for _, text in options] for options in found if options]


@pytest.mark.parametrize("notebook", WRITTEN, ids=lambda path: path.stem)
def test_each_notebook_has_ten_questions_with_answers(notebook):
    head, asked = questions(notebook)
    cells = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "markdown"]
    title = cells[0].splitlines()[0].removeprefix("# ")
    assert head.startswith(f"# Quiz: {title}\n") and f"(../{notebook.name})" in head
    assert [int(question["number"]) for question in asked] == list(range(1, 11))
    assert [len(question["level"]) for question in asked] == [1] * 3 + [2] * 4 + [3] * 3
    headings = re.findall(r"^##+ (?:\d+\. )?(.+?)(?: \(★.*)?$", "\n\n".join(cells), re.M)
    assert {question["section"] for question in asked} <= {*headings, "the opening"}


@pytest.mark.parametrize("notebook", WRITTEN, ids=lambda path: path.stem)
def test_half_of_the_questions_have_four_options_and_the_answer_names_one(notebook):
    for question in questions(notebook)[1]:
        options = [letter for letter, _ in OPTION.findall(question["asked"])]
        chosen = CHOSEN.match(question["answer"])
        assert bool(options) == bool(chosen), question["number"]
        assert options in ([], list("abcd")), question["number"]
        assert not chosen or chosen[1] in options, question["number"]
    assert len(letters(notebook)) == 5


def test_the_right_option_cannot_be_guessed_from_its_letter_or_length():
    each = {notebook.stem: letters(notebook) for notebook in WRITTEN}
    assert all(len({*some}) > 2 for some in each.values()), each
    count = Counter(letter for some in each.values() for letter in some)
    assert {*count} == {*"abcd"} and max(count.values()) <= 0.4 * count.total(), count
    longest = [
        max(options, key=len) == options["abcd".index(letter)]
        for notebook in WRITTEN
        for letter, options in zip(letters(notebook), texts(notebook), strict=True)
    ]
    assert sum(longest) <= 0.4 * len(longest)


def test_the_overview_leads_to_every_notebook_and_quiz():
    text = (QUIZ / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert all((QUIZ / link).is_file() for link in links), links
    assert {f"../{notebook.name}" for notebook in WRITTEN} | {f"{path.name[:2]}.md" for path in WRITTEN} <= {*links}
    assert {path.stem for path in QUIZ.glob("[0-9]*.md")} == {path.name[:2] for path in WRITTEN}, "a quiz of nothing"
