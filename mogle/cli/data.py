"""`mogle data`: data sets in the layout of MM-CelebA-HQ."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mogle.cli.weights import add_assets
from mogle.errors import MogleError

group = typer.Typer(no_args_is_help=True, help="Make or fetch the data sets that the course needs.")


def register(app: typer.Typer) -> None:
    """Adds the group to the command line."""
    add_assets(group, "data", "mmcelebahq")
    app.add_typer(group, name="data")


@group.command(epilog="Example: mogle data paint --set female --out runs/data/female --ids 0-31,64")
def paint(
    out: Annotated[Path, typer.Option(help="Folder to write: face/, mask/, text/, text.json, attributes.json.")],
    which: Annotated[str, typer.Option("--set", help="portraits, female or balanced.")] = "portraits",
    count: Annotated[int, typer.Option(help="How many.")] = 32,
    first: Annotated[int, typer.Option(help="The first id; an id is its portrait's seed.")] = 0,
    ids: Annotated[str | None, typer.Option(help="Instead of count and first: ids such as 0-31,64.")] = None,
    size: Annotated[int, typer.Option(help="Side in pixels.")] = 128,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one for each core.")] = None,
) -> None:
    """Paint portraits with masks, captions and attributes, each from its seed; what is there already is kept."""
    from mogle.tiny.portraits import write_dataset

    for name, value in (("count", count), ("workers", workers)):
        if value is not None and value < 1:
            raise MogleError(f"--{name} {value}: expected at least 1")
    seeds = list(range(first, first + count)) if ids is None else parse_ids(ids)
    write_dataset(out, seeds, size=size, style=which, workers=workers, progress=sys.stderr.isatty())
    typer.echo(f"{len(seeds)} {which} of {size} px in {out}")


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


def parse_ids(text: str) -> list[int]:
    """`0-31,64` -> the ids 0 to 31 and 64, in that order, each once."""
    ids: dict[int, None] = {}
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()) or (dash and int(high) < int(low)):
            raise MogleError(f"--ids {text}: found {part.strip()!r}, expected ids such as 0-31,64")
        ids |= dict.fromkeys(range(int(low), int(high or low) + 1))
    return list(ids)
