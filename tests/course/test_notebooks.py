"""Notebook tools, the notebooks that are committed, and the pages beside them. What cells print, nbval compares."""

import copy
import importlib
import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from typer.testing import CliRunner

import mogle
from mogle.cli import app
from mogle.errors import MogleError
from workbook import authoring
from workbook.authoring import badge, clear, execute, fresh, report, solved, stable, student, with_badge
from workbook.exercises import EXERCISES

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted((ROOT / "notebooks").glob("*.md"))
PICTURE = {"image/png": "aGVsbG8=", "text/plain": "A face."}


def good():
    """A small notebook as it should be, run."""
    notebook = fresh("A title")
    notebook.cells.insert(2, new_code_cell("from mogle.labels import LABELS\nlen(LABELS)"))
    notebook.cells.insert(4, new_code_cell("from mogle import MoGLE"))
    shown = new_output("display_data", PICTURE, metadata={"image/png": {"alt": "A face."}})
    notebook.cells[2].outputs = [shown, new_output("stream", name="stdout", text="19\n")]
    return notebook


def test_a_fresh_and_a_good_notebook_have_nothing_to_mend():
    assert report(fresh("A title")) == [] and report(good()) == []


def code(notebook, source, **output):
    notebook.cells.insert(2, new_code_cell(source))
    if output:
        notebook.cells[2].outputs = [new_output(**output)]


def card(notebook):
    notebook.cells[0].source = "# Title only"


BROKEN = {
    "beginning with '# '": lambda n: n.cells.insert(0, new_markdown_cell("Welcome")),
    "does not say: you build, you need, time, memory": card,
    "expected the set-up": lambda n: n.cells[1].update(source="import mogle"),
    "the last cell does not say: what you built": lambda n: n.cells.append(new_markdown_cell("Bye")),
    "no cell is tagged 'packaged'": lambda n: n.cells[3].metadata.pop("tags"),
    "metadata.widgets": lambda n: n.metadata.update(widgets={}),
    "median of 9 lines": lambda n: [code(n, "a = 1\n" * 9) for _ in range(3)],
    "1 of 3 code cells have more than 20 lines: cells 3": lambda n: code(n, "a = 1\n" * 21),
    "cell 3: mogle.tiny.vae.train_vae is used before": lambda n: code(
        n, "from mogle.tiny.portraits import paint_many\nfrom mogle.tiny.vae import train_vae"
    ),
    "cell 3: mogle.experts.Expert is used before": lambda n: code(n, "%time\nfrom mogle.experts import Expert"),
    "cell 3: mogle.MoGLE is used before": lambda n: code(n, "from mogle import MoGLE"),
    "cell 3: a picture without alt text": lambda n: code(n, "1", output_type="display_data", data=PICTURE),
    "cell 1: a picture without alt text": lambda n: n.cells[0].update(source=n.cells[0].source + "\n![](a.png)"),
    "a widget in the output": lambda n: code(
        n, "1", output_type="display_data", data={"application/vnd.jupyter.widget-view+json": {}}
    ),
    "it ended in an error": lambda n: code(n, "1", output_type="error", ename="E", evalue="e", traceback=[]),
    "text on stderr": lambda n: code(n, "1", output_type="stream", name="stderr", text="warning"),
    "a path of this machine": lambda n: code(
        n, "1", output_type="execute_result", data={"text/plain": "PosixPath('/home/ann/x')"}
    ),
    "told to look away": lambda n: code(n, "# NBVAL_IGNORE_OUTPUT\n1"),
    "not a valid notebook": lambda n: n.cells[1].pop("source"),
}


@pytest.mark.parametrize("words", BROKEN)
def test_each_broken_rule_is_reported(words):
    notebook = good()
    BROKEN[words](notebook)
    assert any(words in line for line in report(notebook)), report(notebook)


def test_a_large_file_is_reported():
    assert report(good(), 2_000_001) == ["the file has 2.0 MB, expected less than 2"]


def test_two_runs_are_committed_alike():
    notebook = good()
    notebook.cells[2].outputs[0].data["application/vnd.jupyter.widget-view+json"] = {"model_id": "random"}
    notebook.cells[2].outputs.append(new_output("stream", name="stdout", text="more\n"))
    notebook.cells[2].execution_count = 41
    notebook.cells[2].metadata.update(execution={"iopub.execute_input": "2026-01-01"}, tags=["exercise"])
    notebook.metadata.update(widgets={"state": {}}, language_info={"name": "python", "version": "3.11.9"})
    notebook.cells[1].source = "an older set-up"
    once = stable(notebook)
    cell = once.cells[2]
    assert set(cell.outputs[0].data) == set(PICTURE) and cell.outputs[1].text == "19\nmore\n" and len(cell.outputs) == 2
    assert cell.execution_count == 2 and cell.metadata == {"tags": ["exercise"]}
    assert set(once.metadata) == {"kernelspec", "language_info"} and "version" not in once.metadata.language_info
    assert [c.id for c in once.cells] == [c.id for c in notebook.cells], "ids stay"
    assert report(once) == [] and stable(once) == once


def test_student_copy_keeps_stubs_and_drops_worked_cells():
    notebook = good()
    notebook.cells.insert(3, new_code_cell("def expert(): ...", metadata={"tags": ["exercise"]}))
    notebook.cells.insert(4, new_code_cell("def expert(): return 1", metadata={"tags": ["worked"]}))
    before = copy.deepcopy(notebook)
    found = student(notebook)
    assert [c.source for c in found.cells] == [c.source for c in notebook.cells if "return 1" not in c.source]
    assert not any(c.get("outputs") for c in found.cells) and notebook == before
    assert not any(c.get("outputs") or c.get("execution_count") for c in clear(notebook).cells)


def test_a_badge_stands_below_the_title_where_an_address_is_configured(monkeypatch):
    notebook = good()
    assert badge("07.ipynb") == "" and with_badge(notebook, "07.ipynb") == notebook
    monkeypatch.setattr(authoring, "REPOSITORY", "https://github.com/owner/course.git")
    shown = with_badge(notebook, "07.ipynb")
    page = f"colab.research.google.com/github/owner/course/blob/v{mogle.__version__}/notebooks/07.ipynb"
    title, _, line, *_ = shown.cells[0].source.splitlines()
    assert title == "# A title" and line.startswith("[![Open in Colab](") and line.endswith(f"({'https://' + page})")
    assert with_badge(shown, "07.ipynb") == shown and report(stable(shown)) == []
    monkeypatch.setattr(authoring, "REPOSITORY", "https://example.org/course.git")  # Colab opens GitHub's alone
    assert with_badge(shown, "07.ipynb") == notebook


def test_execution_is_repeatable_and_says_which_cell_failed(tmp_path):
    widget = "{'application/vnd.jupyter.widget-view+json': {'model_id': 'x'}, 'text/plain': 'a slider'}"
    cells = [
        "import os\nprint(os.path.basename(os.getcwd()))",
        f"from IPython.display import display\ndisplay({widget}, raw=True)",
    ]
    notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
    first = execute(notebook, tmp_path)
    assert first.cells[0].outputs[0].text == f"{tmp_path.name}\n" and first.cells[0].execution_count == 1
    assert set(first.cells[1].outputs[0].data) == {"text/plain"}
    notebook.cells[1].source = "1 / 0"
    with pytest.raises(MogleError, match="cell 2 failed: ZeroDivisionError: division by zero"):
        execute(notebook, tmp_path)


def test_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(app, ["notebooks", *arguments])

    assert run("check").exit_code == 2, "no notebooks here"
    assert run("new", "notebooks/13_from_sketches.ipynb").exit_code == 0
    assert run("new", "notebooks/13_from_sketches.ipynb").exit_code == 2, "there is one already"
    assert run("check").exit_code == 0
    file = tmp_path / "notebooks" / "13_from_sketches.ipynb"
    assert nbformat.read(file, as_version=4).cells[0].source.startswith("# From sketches")
    file.write_text(file.read_text().replace("You build", "You see"))
    checked = run("check", str(file))
    assert checked.exit_code == 1 and "1 to mend\n  cell 1: the card does not say: you build" in checked.output
    assert run("student").exit_code == 0 and (tmp_path / "runs" / "student" / file.name).is_file()
    assert run("student", "--out", "notebooks").exit_code == 2, "a copy never takes its original's place"
    copy = tmp_path / "runs" / "student" / file.name
    copy.write_text("my work")
    assert "kept" in run("student").output and copy.read_text() == "my work"
    (tmp_path / "notebooks" / "glossary.md").write_text("words")
    linked = nbformat.read(file, as_version=4)
    linked.cells[-1].source += "\nSee the [glossary](glossary.md#gate) and [more](https://example.org/a.md)."
    nbformat.write(linked, file)
    assert run("student", "--again").exit_code == 0 and copy.read_text() != "my work"
    assert (copy.parent / "glossary.md").read_text() == "words", "links of the copy lead somewhere"
    (copy.parent / "glossary.md").write_text("my words")
    assert run("student").exit_code == 0 and (copy.parent / "glossary.md").read_text() == "my words"
    assert run("clear").exit_code == 0 and not list(tmp_path.rglob("*.part"))
    file.write_text("{}")
    assert run("clear").exit_code == 2 and file.read_text() == "{}"


# --- what is committed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebooks_keep_the_rules(path):
    notebook = nbformat.read(path, as_version=4)
    assert report(notebook, path.stat().st_size) == []
    assert with_badge(stable(notebook), path.name) == notebook, "not in stable form: run `mogle notebooks run`"
    assert all(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code"), "not run"
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    expected = {name for name, exercise in EXERCISES.items() if exercise.notebook == path.stem}
    assert set(re.findall(r"\bcheck\.(\w+)\(", source)) == expected
    for exercise in (EXERCISES[name] for name in expected):
        near = f"{'★' * exercise.difficulty} · {exercise.minutes} min"
        assert any(near in cell.source for cell in notebook.cells if cell.cell_type == "markdown"), near


def test_a_teacher_s_copy_shows_every_solution():
    notebook = nbformat.read(ROOT / "notebooks" / "06_global_and_local_experts.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in solved(notebook).cells)
    own = [name for name, exercise in EXERCISES.items() if exercise.notebook == "06_global_and_local_experts"]
    assert own and all(f"Solution of `{name}`" in text for name in own)
    assert "class Expert(nn.Module):" in text.split("Solution of `expert`")[1]
    assert "by an import of the course's own solution" in solved(notebook).cells[1].source, "the first lines say so"


def dead_links(folder):
    """Links of all pages and notebooks in a folder that lead to no file or leave it."""
    for path in [*folder.rglob("*.md"), *folder.rglob("*.ipynb")]:
        text = path.read_text() if path.suffix == ".md" else prose(path)
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            found = (path.parent / target).resolve()
            if not found.exists() or not found.is_relative_to(folder.resolve()):
                yield path.name, target


@pytest.mark.parametrize("out", ["runs/copies", "../outside"])
@pytest.mark.parametrize("kind", ["student", "solutions"])
def test_copies_have_no_dead_links(kind, out, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    clone.mkdir()
    monkeypatch.chdir(clone)
    for name in ("notebooks", "docs", "README.md"):
        (clone / name).symlink_to(ROOT / name)

    def copied(*files):
        assert CliRunner().invoke(app, ["notebooks", kind, *files, "--out", out, "--again"]).exit_code == 0
        return clone / out

    first = "notebooks/10_evaluation.ipynb"
    assert not list(dead_links(copied(first))), "one notebook alone"
    alone = prose(copied(first) / "10_evaluation.ipynb")
    assert "](../docs/results.md)" in prose(ROOT / first) and "docs/results.md is the whole evaluation" in alone
    folder = copied()
    assert not list(dead_links(folder))
    for page in ("glossary.md", "troubleshooting.md", "quiz/README.md", *(f"quiz/{i:02}.md" for i in range(13))):
        assert (folder / page).read_text() == (ROOT / "notebooks" / page).read_text(), "among all, no link is lost"
    assert "](quiz/11.md)" in prose(folder / "11_ablations_and_zero_shot.ipynb")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_run_all_works_with_every_exercise_solved(path):
    done = execute(solved(nbformat.read(path, as_version=4)), path.parent)
    said = "".join(output.get("text", "") for cell in done.cells for output in cell.get("outputs", []))
    expected = {name for name, exercise in EXERCISES.items() if exercise.notebook == path.stem}
    assert all(f"{name}: passed." in said for name in expected)


def prose(path):
    """The markdown of a notebook's file."""
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def pages():
    yield from ((path, path.read_text()) for path in PAGES)
    yield from ((path, prose(path)) for path in NOTEBOOKS)


def slugs(text):
    return {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)", text, re.M)}


def resolve(symbol):
    """`mogle.a.b.c`: the longest part that is a module, then attributes."""
    parts = symbol.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(symbol)


@pytest.mark.parametrize(("path", "text"), [pytest.param(*page, id=page[0].name) for page in pages()])
def test_links_symbols_and_tests_that_are_named_exist(path, text):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        assert not file or (path.parent / file).exists(), target
        if anchor:
            there = (path.parent / file).read_text() if file else text
            assert anchor in slugs(there), target
    for symbol in re.findall(r"`(mogle(?:\.\w+)+)`", text):
        resolve(symbol)
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        assert f"def {name}(" in (ROOT / file).read_text(), name
