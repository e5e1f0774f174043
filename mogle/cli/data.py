"""`mogle data`: data sets in the layout of MM-CelebA-HQ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mogle.cli.weights import add_assets

group = typer.Typer(no_args_is_help=True, help="Make or fetch the data sets that the course needs.")


def register(app: typer.Typer) -> None:
    """Adds the group to the command line."""
    add_assets(group, "data", "mmcelebahq")
    app.add_typer(group, name="data")


@group.command(epilog="Example: mogle data check data/portraits")
def check(
    root: Annotated[Path, typer.Argument(help="Folder with face/, mask/, and text/ or text.json.")],
    fix: Annotated[bool, typer.Option("--fix", help="Mend endings, palettes, marks and white space.")] = False,
) -> None:
    """Read every file of a data set and count what is wrong by kind; exit code 1 where samples cannot be used."""
    from mogle.datasets.check import check, mend, table

    good, found = check(root)
    if fix:
        mended, failed = mend(found)
        typer.echo("\n".join(["mended:", table(mended), *(f"left as it is: {why}" for why in failed)]))
        good, found = check(root)
    bad, notes = ([finding for finding in found if finding.note == note] for note in (False, True))
    typer.echo("\n".join(f"{title}\n{table(some)}" for title, some in (("problems:", bad), ("notes:", notes)) if some))
    mendable = sum(finding.mend is not None for finding in found)
    typer.echo(f"{good} samples can be used; {len(bad)} problems, {len(notes)} notes, of which --fix mends {mendable}")
    raise typer.Exit(1 if bad else 0)


@group.command(epilog="Example: mogle data merge-parts CelebAMask-HQ/CelebAMask-HQ-mask-anno DATA/mask")
def merge_parts(
    source: Annotated[Path, typer.Argument(help="Folder with 00000_hair.png, ..., or folders of them.")],
    out: Annotated[Path, typer.Argument(help="Folder for the label maps: 0.png, ...; what is there is kept.")],
) -> None:
    """Merge CelebAMask-HQ's raw masks of single parts into label maps; exit code 1 where faces are left out."""
    from mogle.datasets.check import merge_parts
    from mogle.datasets.files import in_lines

    written, problems = merge_parts(source, out)
    typer.echo(f"{written} label maps written to {out}, {len(problems)} faces left out{in_lines(problems)}")
    raise typer.Exit(1 if problems else 0)
