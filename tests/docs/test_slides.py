"""The deck: what a notebook has becomes slides, a plan names only what there is, figures come with their texts."""

import base64
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import nbformat.v4 as nb
import pytest

from mogle.errors import MogleError

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))  # as when the script is run
spec = importlib.util.spec_from_file_location("slides", ROOT / "docs" / "slides.py")
slides = importlib.util.module_from_spec(spec)
sys.modules["slides"] = slides  # dataclasses look their module up
spec.loader.exec_module(slides)
pieces = sys.modules["notebook_pieces"].pieces
PIXEL = base64.b64encode(b"a picture").decode()


def shown(kind, alt):
    return nb.new_output("display_data", {kind: PIXEL}, metadata={kind: {"alt": alt, "width": 900, "height": 300}})


def printed(*lines):
    return nb.new_output("stream", name="stdout", text="\n".join(lines) + "\n")


def code(*outputs, tags=()):
    return nb.new_code_cell("...", outputs=list(outputs), metadata={"tags": list(tags)})


CELLS = [
    nb.new_markdown_cell("# 42 Tiny\n\n| | |\n|---|---|\n| You build | a thing |\n| Time | a minute |"),
    nb.new_markdown_cell("Once upon a time. **Who did it?** This is said later.\n\nOn the map:"),
    code(shown("image/png", "the map of all")),
    nb.new_markdown_cell(
        "## 1. Looking\n\nHere are two. Which is larger?\n\nLook closely. Is one of them blue? Then see:"
    ),
    code(printed("(3, 4)")),
    code(printed("7 is the number"), shown("image/jpeg", "two fields of colour")),
    code(shown("image/webp", "a third field, by itself")),
    nb.new_markdown_cell("## 2. A sentence\n\nNothing to see here."),
    nb.new_markdown_cell("## 3. Sums\n\nAdd them up:\n\n$$a + b$$\n\nwhere $a$ is one. And more."),
    nb.new_markdown_cell("### Exercise `add` (★★ · 5 min)\n\nAdd. If you get stuck, ask.\n\n$$c = 1$$"),
    code(printed("add: not attempted; going on with the package's own."), tags=["exercise"]),
    nb.new_markdown_cell("And measured:"),
    code(printed("one 1", "two 2", "three 3")),
    code(shown("image/png", "the sum as a bar")),
    nb.new_markdown_cell("## What surprised\n\nNothing did."),
]


def deck(**block):
    block = slides.Block(notebook="42", **block)
    every = list(pieces(CELLS, "42"))
    made = slides.Deck("42 Tiny", {"add"} if block.exercises is None else block.exercises)
    for piece in slides.chosen(every, block):
        made.take(piece)
    made.print_held()
    return [slides.opening(CELLS, every, block), *made.slides]


def test_every_kind_of_figure_comes_with_its_text_and_its_question_before_it():
    made = deck()
    figures = [slide.figure for slide in made if slide.figure]
    assert [figure.name.rpartition(".")[2] for figure in figures] == ["png", "jpg", "webp", "png"]
    assert [figure.alt for figure in figures][1:3] == ["two fields of colour", "a third field, by itself"]
    opening, question, first, second = made[:4]
    assert "Who did it?" in opening.asked and "later" not in opening.asked and "a thing" in opening.text
    assert question.kind == "question" and question.asked == "Which is larger? Is one of them blue?"
    assert first.figure and "Then see:" in first.text and first.printed == "7 is the number"
    assert second.heading == first.heading == "1 · Looking" and "a third field" in second.text


def test_a_section_has_a_slide_only_if_it_has_something_to_show():
    made = deck()
    assert [slide.kind for slide in made] == ["opening", "question", *["figure"] * 2, "formula", "task", "figure"]
    formula, task, after = made[-3:]
    assert "<math" in formula.text and "is one." in formula.text and "more" not in formula.text
    assert task.asked == "★★ · 5 min" and "<math" in task.text and "stuck" not in task.text
    assert after.below == "After <code>add</code>" and after.printed.splitlines() == ["one 1", "two 2", "three 3"]
    assert not any("Nothing" in slide.text for slide in made)


def test_a_plan_chooses_sections_exercises_and_figures():
    assert [slide.figure.alt for slide in deck(sections=[1], figures={"1": [-1]})[1:]] == ["a third field, by itself"]
    assert [slide.kind for slide in deck(sections=[1], exercises=["add"])][-2:] == ["task", "figure"]
    without = deck(sections=[3], exercises=[])
    assert [slide.kind for slide in without] == ["opening", "formula", "figure"] and without[-1].below == ""
    minutes = deck(minutes=40, how="worked", exercises=["add"])[0].below
    assert "40 minutes, worked" in minutes and "add" in minutes


@pytest.mark.parametrize("name", ["half-day", "one-day", "two-days"])
def test_the_plans_name_what_the_course_has_and_teachers_md_says_the_same(name):
    title, blocks = slides.read_plan(name)
    text = (ROOT / "docs" / "teachers.md").read_text()
    part = text.partition(f"### {title}\n")[2].partition("\n### ")[0]
    assert part, f"teachers.md has no plan of this title: {title}"
    for block in blocks:
        if block.notebook:
            assert re.search(rf"[| \[]{block.notebook}[ ,/]", part), block.notebook


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ('notebook = "00"\nsections = [1, 99]', "block 1: found no section 99 in notebook 00; it has 1 to 9"),
        (
            'notebook = "00"\nexercises = ["who_decide"]',
            "no exercise 'who_decide' in notebook 00; it has my_sentence, who",
        ),
        ('notebook = "00"\nfigures = { 7 = [8] }', "found no figure 8 in section 7 of notebook 00; it has 3"),
        ('notebook = "77"', "found no notebook '77'; there are 00 01"),
        ('quiz = ["02/11"]', "found no quiz question '02/11'; there are 02/1 02/2"),
        ("minutes = 5", "needs a notebook, a title or a quiz"),
        ('notebook = "00"\nsection = [1]', "has no use for section"),
    ],
)
def test_a_typo_in_a_plan_is_named(tmp_path, block, message):
    file = tmp_path / "plans.toml"
    file.write_text(f'[short]\ntitle = "A short one"\n[[short.block]]\n{block}\n')
    with pytest.raises(MogleError, match=re.escape(message)):
        slides.read_plan("short", file)
    with pytest.raises(MogleError, match="found no plan 'long' in plans.toml; there are short"):
        slides.read_plan("long", file)


def test_the_half_days_deck(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["slides.py", "--plan", "half-day", "--out", str(tmp_path)])
    slides.main()
    page = (tmp_path / "index.html").read_text()
    assert 45 <= page.count("<section") <= 80
    pictures = re.findall(r'<img src="([^"]+)" alt="([^"]+)">', page)
    assert len(pictures) > 25 and all((tmp_path / name).is_file() and len(alt.split()) > 2 for name, alt in pictures)
    assert {Path(name).suffix for name, _ in pictures} >= {".png", ".jpg"}
    assert "full screen: f" in page and "40 minutes, worked" in page and page.count("the answer<") == 5
    assert "<math" in page and "http" not in re.sub(r"xmlns=\S+", "", page)
    assert not re.search(r"<h\d>[^<]*[<>]?\s*(start=|<li)", page)


def test_a_mistake_on_the_command_line_is_one_line(monkeypatch, capsys):
    for arguments, message in (
        (["99"], "found no notebook '99'; there are 00"),
        (["--plan", "half"], "found no plan 'half' in plans.toml; there are half-day"),
        (["00", "--plan", "half-day"], "found a plan and notebooks"),
    ):
        monkeypatch.setattr(sys, "argv", ["slides.py", *arguments])
        with pytest.raises(SystemExit):
            slides.main()
        assert message in capsys.readouterr().err


def test_the_script_runs_by_itself_and_says_the_keys():
    ran = subprocess.run(
        [sys.executable, "docs/slides.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "full screen" in ran.stdout and "Home, End" in ran.stdout
