"""Tools for notebooks: a fresh one, outputs in a stable form, the style rules as a report, a copy for students.

Functions on nbformat nodes; `workbook.command` reads and writes the files. Tags say what a cell is: "setup",
"exercise" (stub and check), "worked" (an answer written out, not for students), "packaged" ('now packaged' begins).
"""

from __future__ import annotations

import ast
import copy
import inspect
import posixpath
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat

import mogle
from mogle.errors import MogleError

#: Address of the git repository that a notebook clones where the course is not installed (Colab). This is the one place
#: to set it; `mogle notebooks run` writes it into the notebooks. Empty: the notebook asks for MOGLE_REPOSITORY.
REPOSITORY = ""
MAX_BYTES = 2_000_000
MEDIAN_LINES, LONG_LINES, LONG_SHARE = 6, 20, 0.1
#: What a notebook may use of `mogle` before its 'now packaged' cell: data and figures.
FREE = {"course", "labels", "words", "tiny.portraits", "datasets", "decode_mask", "FaceDataset", "MogleError"}
ENDING = ("what you built", "what surprised", "where next")
CARD = ("you build", "you need", "time", "memory")
#: Pages that go with copies of notebooks, as patterns in the notebooks' folder, besides those that a notebook links to.
PAGES = ("glossary.md", "paper-map.md", "troubleshooting.md", "quiz/*.md")
#: What stands below the card of a teacher's copy.
TEACHERS_NOTE = (
    "*For teachers, with solutions.* Each exercise is answered by an import of the course's own solution: its source "
    "may need other names of its module, so pasted alone it would not always run. The source stands below each check."
)
_CARD = """| | |
|---|---|
| You build | ... |
| You need | ... |
| Time | tiny: ... minutes |
| Memory | ... GB |"""
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_WIDGETS = re.compile(r"application/vnd\.jupyter\.widget")
_LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")
_PATHS = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|content|mnt|opt|usr|var)/\w|\b[A-Z]:\\\w")
Node = nbformat.NotebookNode


def _tags(cell: Node) -> list[str]:
    return cell.metadata.get("tags", [])


def _cells(notebook: Node, kind: str) -> list[tuple[int, Node]]:
    """The "code" or "markdown" cells with their places; cells count from 1, as a reader counts them."""
    return [(i, cell) for i, cell in enumerate(notebook.cells, 1) if cell.cell_type == kind]


def setup_source() -> str:
    """The code of a notebook's set-up cell: it installs the course where it is missing and calls `setup`.

    Proxies are those of the environment, which git and pip ask. torch and numpy stay what they are: a kernel that has
    loaded them would need a restart, and the platform's torch fits its GPU.
    """
    return f'''# Installs the course where it is missing (Colab, Kaggle); elsewhere, or again, it changes nothing.
import importlib.metadata, importlib.util, os, subprocess, sys

if importlib.util.find_spec("mogle") is None:
    folder = ".." if os.path.isfile("../pyproject.toml") else "face-mogle"
    if not os.path.isfile(folder + "/pyproject.toml"):
        address = os.environ.get("MOGLE_REPOSITORY", "{REPOSITORY}")
        assert address, "no address to install from: run %env MOGLE_REPOSITORY=<git address of the course> first"
        clone = ["git", "clone", "-q", "--depth", "1", address, folder]
        if subprocess.run([*clone, "--branch", "v{mogle.__version__}"]).returncode:
            print("no version {mogle.__version__} there, for which this notebook was written: taking the newest")
            subprocess.run(clone, check=True)
    found = importlib.metadata.distributions()
    kept = sorted({{f"{{one.name}}=={{one.version}}" for one in found if one.name in ("torch", "numpy")}})
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", folder + "[notebook]", *kept], check=True)
    sys.path.insert(0, os.path.abspath(folder))
    importlib.invalidate_caches()

from mogle.course import setup

course = setup()'''


def badge(name: str) -> str:
    """The line that opens a notebook in Colab at this version; empty where no address on GitHub is configured."""
    if not (found := re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?", REPOSITORY)):
        return ""
    page = f"https://colab.research.google.com/github/{found[1]}/blob/v{mogle.__version__}/notebooks/{name}"
    return f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({page})"


def with_badge(notebook: Node, name: str) -> Node:
    """The notebook of that file name with its badge below the title, or without any."""
    notebook = copy.deepcopy(notebook)
    if notebook.cells and notebook.cells[0].cell_type == "markdown":
        title, *rest = re.sub(r"\n*\[!\[Open in Colab\].*", "", notebook.cells[0].source).split("\n")
        notebook.cells[0].source = "\n".join([title, *(["", badge(name)] if badge(name) else []), *rest])
    return notebook


def fresh(title: str) -> Node:
    """A new notebook: card, set-up cell, the mark from which on the package may be used, ending."""
    ending = "## What you built\n\n...\n\n## What surprised\n\n...\n\n## Where next\n\n..."
    text, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    packaged = text("## Now packaged", metadata={"tags": ["packaged"]})
    cells = [text(f"# {title}\n\n{_CARD}"), code(setup_source(), metadata={"tags": ["setup"]}), packaged, text(ending)]
    for i, cell in enumerate(cells, 1):
        cell.id = f"cell-{i:02d}"
    return stable(nbformat.v4.new_notebook(cells=cells))


def stable(notebook: Node) -> Node:
    """The form that is committed: nothing in it differs between two runs that show the same.

    Metadata is the kernel and the tags; widgets leave their static picture; cells are numbered in order and keep their
    ids; streams are in one piece; the set-up cell is the course's current one.
    """
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict({"kernelspec": _KERNEL, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for i, cell in enumerate(notebook.cells, 1):
        cell.setdefault("id", f"cell-{i:02d}")
        cell.metadata = nbformat.from_dict({"tags": _tags(cell)} if _tags(cell) else {})
        if "setup" in _tags(cell):
            cell.source = setup_source()
    for number, (_, cell) in enumerate(_cells(notebook, "code"), 1):
        cell.execution_count = number if cell.outputs or cell.execution_count else None
        cell.outputs = _stable_outputs(cell.outputs, cell.execution_count)
    return notebook


def _stable_outputs(outputs: list[Node], count: int | None) -> list[Node]:
    kept: list[Node] = []
    for output in outputs:
        if "execution_count" in output:
            output.execution_count = count
        if "data" in output:
            output.data = nbformat.from_dict({k: v for k, v in output.data.items() if not _WIDGETS.match(k)})
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        elif output.get("data", True):
            kept.append(output)
    return kept


def clear(notebook: Node) -> Node:
    """Without outputs."""
    notebook = stable(notebook)
    for _, cell in _cells(notebook, "code"):
        cell.outputs, cell.execution_count = [], None
    return notebook


def student(notebook: Node) -> Node:
    """Without outputs and without worked cells; the stubs of exercises stay."""
    notebook = copy.deepcopy(notebook)
    notebook.cells = [cell for cell in notebook.cells if "worked" not in _tags(cell)]
    return clear(notebook)


def solved(notebook: Node) -> Node:
    """Without outputs, each exercise answered by the course's own solution, whose source stands below: for teachers."""
    from workbook.checking import exercises

    notebook, cells = clear(notebook), []
    for cell in notebook.cells:
        cells.append(cell)
        for name, answers in re.findall(r"= check\.(\w+)\((.*)\)$", cell.source, re.MULTILINE):
            own = exercises()[name].solutions
            pairs = zip(answers.split(", "), own, strict=True)
            lines = [f"from {one.__module__} import {one.__name__} as {answer}" for answer, one in pairs]
            *stub, judged = cell.source.splitlines()
            cell.source = "\n".join([*stub, *lines, judged])
            source = "\n\n".join(inspect.getsource(one).rstrip() for one in own)
            cells.append(nbformat.v4.new_markdown_cell(f"Solution of `{name}`:\n\n```python\n{source}\n```"))
    cells.insert(1, nbformat.v4.new_markdown_cell(TEACHERS_NOTE))
    notebook.cells = cells
    return notebook


def pages(notebook: Node, folder: Path) -> list[str]:
    """The pages that go with a copy of a notebook of that folder: `PAGES`, and those beside it that its text links to.

    Paths relative to the folder, with forward slashes.
    """
    text = "\n".join(cell.source for _, cell in _cells(notebook, "markdown"))
    linked = re.findall(r"\]\(([\w.-]+\.md)(?:#[^)]*)?\)", text)
    found = [path.relative_to(folder).as_posix() for pattern in PAGES for path in folder.glob(pattern)]
    return sorted({*found, *(page for page in linked if (folder / page).is_file())})


def relink(text: str, page: str, stays: Callable[[str], bool]) -> str:
    """Markdown of a page in which links that do not stay are plain text.

    Args:
        page: where the text stands, relative to the folder of the notebooks: "quiz/06.md".
        stays: takes the file that a link leads to, relative to the same folder: "glossary.md", "../README.md".
    """

    def told(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), link[2]))
        return link[0] if stays(target) else link[1]

    return _LINK.sub(told, text)


def execute(notebook: Node, folder: Path, timeout: int = 600) -> Node:
    """Run all cells with `folder` as the working directory; in stable form.

    Raises:
        MogleError: a cell failed; which one, and its error.
    """
    import nbclient
    from nbclient.exceptions import CellExecutionError

    notebook = clear(notebook)
    quiet = ["--IPKernelApp.log_level=ERROR"]  # no warnings about transport on the user's stderr
    client = nbclient.NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False)
    client.extra_arguments, client.resources = quiet, {"metadata": {"path": str(folder)}}
    try:
        client.execute()
    except CellExecutionError as error:
        code = _cells(notebook, "code")
        failed = next(i for i, cell in code if any(output.output_type == "error" for output in cell.outputs))
        raise MogleError(f"cell {failed} failed: {error.ename}: {error.evalue}") from error
    return stable(notebook)


# --- the style rules ---------------------------------------------------------------------------------------------


def report(notebook: Node, size: int = 0) -> list[str]:
    """What breaks the style rules, one line each; nothing if the notebook is as it should be. `size`: of the file."""
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [f"not a valid notebook: {str(error).splitlines()[0]}"]
    found = [*_frame(notebook), *_lengths(notebook), *_package(notebook), *_outputs(notebook)]
    if size >= MAX_BYTES:
        found.append(f"the file has {size / 1e6:.1f} MB, expected less than {MAX_BYTES / 1e6:.0f}")
    return found


def _frame(notebook: Node) -> Iterator[str]:
    """Card, set-up cell, ending, metadata."""
    ends = [notebook.cells[0], notebook.cells[-1]] if notebook.cells else []
    first, last = [cell.source if cell.cell_type == "markdown" else "" for cell in ends] or ["", ""]
    if not first.startswith("# "):
        yield "cell 1: expected the card, beginning with '# ' and the title"
    elif missing := [word for word in CARD if word not in first.lower()]:
        yield f"cell 1: the card does not say: {', '.join(missing)}"
    place, code = next(iter(_cells(notebook, "code")), (0, None))
    if code is None or "setup" not in _tags(code) or code.source != setup_source():
        yield f"cell {place}: expected the set-up, tagged 'setup', as first code cell (`run` brings it up to date)"
    if missing := [words for words in ENDING if words not in last.lower()]:
        yield f"the last cell does not say: {', '.join(missing)}"
    if not any("packaged" in _tags(cell) for cell in notebook.cells):
        yield "no cell is tagged 'packaged'"
    if "widgets" in notebook.metadata:
        yield "metadata.widgets is there; GitHub does not render such notebooks"


def _lengths(notebook: Node) -> Iterator[str]:
    cells = [(i, cell.source.splitlines()) for i, cell in _cells(notebook, "code") if "setup" not in _tags(cell)]
    counts = {i: sum(bool(line.strip()) for line in lines) for i, lines in cells}
    if counts and (median := statistics.median(counts.values())) > MEDIAN_LINES:
        yield f"code cells have a median of {median:g} lines, expected at most {MEDIAN_LINES}"
    long = [str(i) for i, count in counts.items() if count > LONG_LINES]
    if len(long) > LONG_SHARE * len(counts):
        yield f"{len(long)} of {len(counts)} code cells have more than {LONG_LINES} lines: cells {', '.join(long)}"


def _package(notebook: Node) -> Iterator[str]:
    """Imports from `mogle`, other than data and figures, before the cell tagged 'packaged'."""
    packaged = [i for i, cell in enumerate(notebook.cells, 1) if "packaged" in _tags(cell)]
    for i, cell in _cells(notebook, "code"):
        if packaged and i > packaged[0]:
            return
        source = re.sub(r"^\s*[%!].*", "pass", cell.source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in (".".join([*module, alias.name]) for alias in node.names):
                    package, *rooms = name.split(".")
                    if package == "mogle" and FREE.isdisjoint((".".join(rooms[:1]), ".".join(rooms[:2]))):
                        yield f"cell {i}: {name} is used before the 'now packaged' cell"


def _outputs(notebook: Node) -> Iterator[str]:
    for i, cell in _cells(notebook, "markdown"):
        if re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")", cell.source):
            yield f"cell {i}: a picture without alt text"
    for i, cell in _cells(notebook, "code"):
        if "NBVAL_" in cell.source or any(tag.startswith("nbval") for tag in _tags(cell)):
            yield f"cell {i}: tests are told to look away; assert or round what it shows"
        for output in cell.outputs:
            yield from (f"cell {i}: {what}" for what in _output(output))


def _output(output: Node) -> Iterator[str]:
    data = output.get("data", {})
    if any(kind.startswith("image/") and not output.metadata.get(kind, {}).get("alt") for kind in data):
        yield "a picture without alt text; display it with workbook.figures.show"
    if any(map(_WIDGETS.match, data)):
        yield "a widget in the output; `run` keeps its static picture"
    if output.output_type == "error":
        yield f"it ended in an error, {output.ename}"
    if output.get("name") == "stderr":
        yield f"text on stderr, which differs between machines: {output.text.strip()[:60]!r}"
    for text in (output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")):
        if match := _PATHS.search(text):
            yield f"a path of this machine in the output: {text[match.start() :][:30]!r}"
