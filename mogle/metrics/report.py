"""An evaluation as JSON, as Markdown tables, as one HTML page, and as galleries. This is the third pass.

The prose of a report stands in `templates/`, the columns of its tables in `tables.toml`.
"""

from __future__ import annotations

import base64
import functools
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mogle.errors import MogleError
from mogle.labels import colorize
from mogle.metrics.distances import extrapolated_fid
from mogle.metrics.masks import pixel_accuracy
from mogle.metrics.measure import Measured, against, load_measured
from mogle.metrics.rows import Made
from mogle.metrics.samples import Samples
from mogle.metrics.stack import Pictures, Stack, taken

GALLERY = 12  # the first samples, unselected
SELECTED = 6  # the best, and the worst
NONE = "–"
COLUMNS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("tables.toml").read_text(encoding="utf-8"))

Results = Mapping[str, Any]  # what results.json holds
Table = tuple[list[str], list[list[str]]]  # head and lines


def cell(numbers: Sequence[float | None], form: str = ".3f", factor: float = 1) -> str:
    """A number, and the ends of its interval if they are there, for a table: 0.886 [0.871, 0.899]; a dash for none."""
    shown, *interval = [format(factor * part, form) for part in numbers if part is not None] or [NONE]
    return f"{shown} [{', '.join(interval)}]" if interval else shown


def measured(row: Mapping[str, Any], key: str, digits: int = 3, factor: float = 1) -> str:
    """A number of a row with its interval."""
    value, ends = row.get(key, row["mask"].get(key)), row["intervals"].get(key)
    return cell([value, *(ends or ())], f".{digits}f", factor)


def table_of(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column stands left, the others right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def row_table(results: Results, columns: str) -> Table:
    """Numbers of all rows, of those that have any of these columns of `tables.toml`."""
    chosen, lines = COLUMNS[columns], []
    for row in results["rows"].values():
        cells = [measured(row, *column) for _, *column in chosen]
        if set(cells) != {NONE}:
            lines.append([row["title"], str(row["n"]), *cells])
    return ["", "n", *(title for title, *_ in chosen)], lines


def size_table(results: Results) -> Table:
    """FID of ever larger parts of the rows with most pictures, and the line through 1 / n at 0."""
    found = {row["title"]: row["fid_by_size"] for row in results["rows"].values() if "fid_by_size" in row}
    most = max((parts[-1][0] for parts in found.values()), default=0)
    head, lines = [""], []
    for title, parts in found.items():
        if parts[-1][0] == most:
            head = ["FID by number of pictures", *(str(size) for size, _ in parts), "extrapolated"]
            values = [*(value for _, value in parts), extrapolated_fid(parts)]
            lines.append([title, *(cell([value], ".1f") for value in values)])
    return head, lines


def paper_table(results: Results) -> Table:
    """Our rows by the paper's networks, then the published ones."""
    columns = COLUMNS["paper"]

    def shown(found: Mapping[str, Any] | None) -> str:
        if found is None:
            return "not measured"
        text = cell([found["value"], *(found["interval"] or ())], ".4g")
        return text + (f" ({found['as_reported']:.3g} as reported)" if "as_reported" in found else "")

    ours = [
        [row["title"], str(row["n"]), *(shown(row["paper"].get(column)) for column in columns)]
        for row in results["rows"].values()
        if "paper" in row
    ]
    theirs = [
        [f"published: {title}", "", *(cell([row.get(column)], "g") for column in columns)]
        for title, row in COLUMNS["published"].items()
    ]
    return ["", "n", *columns], [*ours, *theirs] if ours else []


def differences(found: Sequence[Mapping[str, Any]]) -> Table:
    """Titles of what is in any of these differences, and the cells of each: -0.044 [-0.052, -0.036]."""
    columns = [column for column in COLUMNS["differences"] if any(column[1] in one for one in found)]
    cells = [[cell(one.get(key, ()), f"+.{digits}f", factor) for _, key, digits, factor in columns] for one in found]
    return [title for title, *_ in columns], cells


def difference_table(results: Results) -> Table:
    """What each row loses or gains against another one on the same samples."""
    found, rows = results["against"], results["rows"]
    titles, cells = differences([*found.values()])
    named = [[rows[name]["title"], rows[one["base"]]["title"], str(one["n"])] for name, one in found.items()]
    return ["row", "less", "n", *titles], [head + line for head, line in zip(named, cells, strict=True)]


def attribute_table(results: Results) -> Table:
    """Balanced accuracy of each attribute, with the number of pictures judged."""

    def shown(found: Mapping[str, Any] | None) -> str:
        return f"{cell([found['balanced'], found['low'], found['high']])} ({found['n']})" if found else NONE

    rows = results["rows"].values()
    names = [name for name in results["attributes"] if any(name in row["attributes"] for row in rows)]
    lines = [
        [name + " *" * (name in results["hidden"]), *(shown(row["attributes"].get(name)) for row in rows)]
        for name in names
    ]
    return ["", *(row["title"] for row in rows)], lines


def class_table(results: Results) -> Table:
    """IoU of each class."""
    rows = results["rows"].values()
    lines = [[label, *(cell([row["mask"]["class_iou"][label]]) for row in rows)] for label in results["labels"]]
    return ["", *(row["title"] for row in rows)], lines


TABLES: tuple[tuple[str, Callable[[Results], Table]], ...] = (
    ("", functools.partial(row_table, columns="main")),
    ("The paper's metrics on small networks", functools.partial(row_table, columns="distances")),
    ("How much of FID is the size of the set", size_table),
    ("By the paper's networks", paper_table),
    ("What each part is worth", difference_table),
    ("Balanced accuracy by attribute (number judged; * hidden in the mask)", attribute_table),
    ("IoU by class", class_table),
)


def render(template: str, **facts: Any) -> str:
    """A template of this folder, filled."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mogle.metrics"), autoescape=".html" in template, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template).render(facts)


def write_report(folder: Path, results: Results) -> None:
    """results.json, table.md and index.html, which shows the galleries that are there."""
    tables = [(title, *table(results)) for title, table in TABLES]
    pictures = {path.name: base64.b64encode(path.read_bytes()).decode() for path in folder.glob("*.png")}
    facts = {"results": results, "tables": [one for one in tables if one[2]], "table_of": table_of}
    (folder / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    (folder / "table.md").write_text(render("report.md.j2", **facts))
    (folder / "index.html").write_text(render("report.html.j2", pictures=pictures, **facts), encoding="utf-8")


def write_galleries(
    folder: Path, made: Mapping[str, Made], measures: Mapping[str, Measured], sets: Mapping[str, Samples],
    parse: Callable[[Pictures], np.ndarray],
) -> None:  # fmt: skip
    """The first pictures of all rows on their sheets, and of detailed rows seeds, gate maps, the best and the worst."""
    sheets: dict[str, dict[str, Pictures]] = {}
    for name, (row, samples, pictures, seeds, gates) in made.items():
        given = sets[row.style]
        columns = sheets.setdefault(row.gallery, _given(given, range(min(GALLERY, len(given)))))
        columns[row.column or name.removeprefix("ablation-")] = _first(pictures)
        if row.detailed:
            columns["parsed back"] = colorize(parse(_first(pictures)))
            accuracies = [-pixel_accuracy(matrix) for matrix in measures[name]["matrices"]]
            order = np.argsort(accuracies, kind="stable").tolist()
            for sheet, rows in (("best", order[:SELECTED]), ("worst", order[::-1][:SELECTED])):
                some, beside = taken(pictures, rows), _given(samples, rows)
                sheets[sheet] = {"given mask": beside.pop("given mask"), "made": some}
                sheets[sheet] |= {"parsed back": colorize(parse(some)), **beside}
        if seeds:
            sheets["seeds"] = {f"seed {k}": _first(pictures) for k, pictures in enumerate(seeds)}
        if gates:
            sheets["gates"] = {title: maps.repeat(8, axis=1).repeat(8, axis=2) for title, maps in gates.items()}
    for sheet, columns in sheets.items():
        gallery(columns).save(folder / f"{sheet}.png")


def _first(pictures: Pictures) -> Stack:
    return taken(pictures, range(min(GALLERY, len(pictures))))


def _given(samples: Samples, rows: Sequence[int]) -> dict[str, Pictures]:
    masks = [colorize(samples.masks[row]) for row in rows]
    return {"given mask": masks, "real portrait": taken(samples.images, rows)}


def gallery(columns: Mapping[str, Pictures]) -> Image.Image:
    """{title: uint8 pictures (H,W,3)} -> one picture, a column for each title and a line for each sample."""
    shapes = np.array([picture.shape[:2] for pictures in columns.values() for picture in pictures])
    (height, width), top = shapes.max(axis=0).tolist(), 18
    most = max(map(len, columns.values()))
    sheet = Image.new("RGB", (len(columns) * width, top + most * height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (title, pictures) in enumerate(columns.items()):
        draw.text((column * width + 4, 3), title, fill="black")
        for line, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (column * width, top + line * height))
    return sheet


def compare(first: Path, *others: Path) -> str:
    """Evaluations' folders -> a Markdown table for each other one: it minus the first, for every row that both have.

    Raises:
        MogleError: one is no evaluation, or has no row in common with the first.
    """
    runs = []
    for folder in (first, *others):
        if not (folder / "results.json").is_file():
            raise MogleError(f"{folder}: found no results.json, expected the --out of a `mogle evaluate`")
        runs.append(json.loads((folder / "results.json").read_text())["rows"])
    tables = []
    for folder, rows in zip(others, runs[1:], strict=True):
        names = [name for name in runs[0] if name in rows]
        if not names:
            raise MogleError(f"{first} and {folder} have no row in common; expected at least one")
        found = [against(load_measured(first, name), load_measured(folder, name)) for name in names]
        head, cells = differences(found)
        lines = []
        for name, one, signed in zip(names, found, cells, strict=True):
            kids = [measured(run[name], "kid", 1, 1000) for run in (runs[0], rows)]
            lines.append([runs[0][name]["title"], str(one["n"]), *signed, *kids])
        title = f"{folder.name} less {first.name}"
        tables.append(table_of([title, "n in both", *head, "KID x 1000, first", "second"], lines))
    return "\n\n".join(tables) + "\n"
