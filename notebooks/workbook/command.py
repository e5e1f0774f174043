"""`mogle doctor`, and `mogle notebooks`: write, run, clear and check notebooks, and make copies for students."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mogle.errors import MogleError
from mogle.files import atomic_write

if TYPE_CHECKING:
    from nbformat import NotebookNode

group = typer.Typer(no_args_is_help=True, help="Write, run and check the course's notebooks.")
Files = Annotated[list[Path] | None, typer.Argument(help="Notebooks; by default all in notebooks/.")]


def register(app: typer.Typer) -> None:
    """Adds the group and `mogle doctor` to the command line."""
    app.command(epilog="Example: mogle doctor --tier t4")(doctor)
    app.add_typer(group, name="notebooks")


def doctor(
    tier: Annotated[str | None, typer.Option(help="tiny, t4, l4, a100 or h100 [the largest that fits].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Say what this machine has and lacks; exit code 1 where the tier needs something that is missing."""
    from workbook.doctor import as_text, examine

    chosen, rows = examine(tier)
    ok = all(row.state != "missing" for row in rows)
    told = {"ok": ok, "tier": chosen.name, "cost": chosen.cost(), "rows": [row._asdict() for row in rows]}
    typer.echo(json.dumps(told, indent=2) if as_json else as_text(chosen, rows))
    raise typer.Exit(0 if ok else 1)


@group.command(epilog="Example: mogle notebooks new notebooks/13_sketches.ipynb --title 'From sketch to mask'")
def new(
    file: Annotated[Path, typer.Argument(help="The notebook to write.")],
    title: Annotated[str | None, typer.Option(help="Its title [from the file's name].")] = None,
) -> None:
    """Write a fresh notebook with card, set-up cell and ending."""
    from workbook.authoring import fresh

    if file.suffix != ".ipynb":
        raise MogleError(f"{file}: expected a name that ends in .ipynb")
    if file.exists():
        raise MogleError(f"{file}: found a file there already")
    _write(file, fresh(title or file.stem.lstrip("0123456789_").replace("_", " ").capitalize() or file.stem))
    typer.echo(file)


@group.command(epilog="Example: mogle notebooks run notebooks/00_quickstart.ipynb")
def run(files: Files = None) -> None:
    """Run notebooks and keep their outputs, in a form that does not differ from run to run."""
    from workbook.authoring import execute

    _change(files, lambda notebook, file: execute(notebook, file.parent))


@group.command(epilog="Example: mogle notebooks clear notebooks/00_quickstart.ipynb")
def clear(files: Files = None) -> None:
    """Remove all outputs."""
    from workbook import authoring

    _change(files, lambda notebook, _: authoring.clear(notebook))


@group.command(epilog="Example: mogle notebooks check notebooks/00_quickstart.ipynb")
def check(files: Files = None) -> None:
    """Report what breaks the style rules; exit code 1 if anything does."""
    from workbook.authoring import report

    count = 0
    for file in _files(files):
        found = report(_read(file), file.stat().st_size)
        count += len(found)
        typer.echo(f"{file}: " + ("as it should be" if not found else f"{len(found)} to mend"))
        for line in found:
            typer.echo(f"  {line}")
    raise typer.Exit(1 if count else 0)


@group.command(epilog="Example: mogle notebooks student --out runs/student")
def student(
    files: Files = None,
    out: Annotated[Path, typer.Option(help="Folder for the copies.")] = Path("runs/student"),
    again: Annotated[
        bool, typer.Option("--again", help="Replace copies that are there, and what was done in them.")
    ] = False,
) -> None:
    """Copy notebooks without outputs and worked cells; the stubs of exercises stay, and so do copies made before."""
    from workbook import authoring

    _copy(files, out, authoring.student, again)


@group.command(epilog="Example: mogle notebooks solutions --out runs/solutions")
def solutions(
    files: Files = None,
    out: Annotated[Path, typer.Option(help="Folder for the copies.")] = Path("runs/solutions"),
    again: Annotated[bool, typer.Option("--again", help="Replace copies that are there.")] = False,
) -> None:
    """Copy notebooks with every exercise solved by the course's own answer, whose source stands below: for teachers."""
    from workbook import authoring

    _copy(files, out, authoring.solved, again)


def _copy(files: list[Path] | None, out: Path, change: Callable[[Any], Any], again: bool) -> None:
    """Changed copies of notebooks in a folder, with the pages that go with them; links that would be dead are text."""
    from workbook import authoring

    notebooks = {file: _read(file) for file in _files(files)}
    pages = {
        page: file.parent for file, notebook in notebooks.items() for page in authoring.pages(notebook, file.parent)
    }
    copied = {*pages, *(file.name for file in notebooks)}

    def relinked(text: str, page: str, folder: Path) -> str:
        def stays(target: str) -> bool:
            original, copy = folder / target, out / target
            if not original.exists():  # no link: the course has no dead ones
                return True
            if target.startswith(".."):
                return copy.resolve() == original.resolve()
            return target in copied or copy.exists()

        return authoring.relink(text, page, stays)

    written = False
    for file, notebook in notebooks.items():
        copy = out / file.name
        if copy.resolve() == file.resolve():
            raise MogleError(f"--out {out}: expected another folder than the notebook's own")
        if copy.exists() and not again:
            typer.echo(f"{copy}: kept, you may have worked in it; --again replaces it")
            continue
        changed = change(notebook)
        for cell in changed.cells:
            if cell.cell_type == "markdown":
                cell.source = relinked(cell.source, file.name, file.parent)
        _write(copy, changed)
        written = True
        typer.echo(copy)
    for page, folder in pages.items():
        if written or not (out / page).exists():
            with atomic_write(out / page) as part:
                part.write_text(relinked((folder / page).read_text("utf-8"), page, folder), "utf-8")


def _files(files: list[Path] | None) -> list[Path]:
    found = files or sorted(Path("notebooks").glob("*.ipynb"))
    if not found:
        raise MogleError("notebooks/: found no notebook there; name one, or work from the project's folder")
    for file in found:
        if not file.is_file():
            raise MogleError(f"{file}: no such file; expected a notebook")
    return found


def _read(file: Path) -> NotebookNode:
    import nbformat

    try:
        return nbformat.read(file, as_version=4)
    except Exception as error:  # nbformat raises many kinds of errors for what is not a notebook
        raise MogleError(f"{file}: not a notebook ({' '.join(str(error).split())[:80]})") from error


def _write(file: Path, notebook: Any) -> None:
    import nbformat

    from workbook.authoring import with_badge

    with atomic_write(file) as part:
        nbformat.write(with_badge(notebook, file.name), part)


def _change(files: list[Path] | None, change: Callable[[Any, Path], Any]) -> None:
    for file in _files(files):
        try:
            _write(file, change(_read(file), file))
        except MogleError as error:
            raise MogleError(f"{file}: {error}") from error
        typer.echo(file)
