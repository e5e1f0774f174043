"""An evaluation as JSON, as Markdown tables, as one HTML page, and as galleries. This is the third pass.

The prose of a report stands in `templates/`.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mogle.errors import MogleError
from mogle.labels import colorize
from mogle.metrics.distances import extrapolated_fid
from mogle.metrics.masks import pixel_accuracy
from mogle.metrics.measure import Measured, against, load_measured
from mogle.metrics.paper import paper_table
from mogle.metrics.rows import Made
from mogle.metrics.samples import Samples, SampleSet

GALLERY = 12  # the first samples, unselected
SELECTED = 6  # the best, and the worst
NONE = "–"
Table = tuple[list[str], list[list[str]]]  # head and lines

#: Columns of the tables by row: title, key of the row's number, digits after the point, factor.
MAIN = (
    ("pixel accuracy", "pixel_accuracy", 3, 1),
    ("mIoU", "mean_iou", 3, 1),
    ("attributes hidden in the mask", "attributes_hidden", 3, 1),
    ("attributes shown by the mask", "attributes_shown", 3, 1),
    ("text", "text", 1, 1),
    ("KID x 1000", "kid", 1, 1000),
    ("real or generated", "detection", 3, 1),
    ("diversity", "diversity", 3, 1),
    ("PSNR, dB", "psnr", 1, 1),
)
DISTANCES = (
    ("FID", "fid", 1, 1),
    ("FID of endless sets", "fid_endless", 1, 1),
    ("CMMD", "cmmd", 2, 1),
    ("structure x 1000", "structure", 2, 1000),
    ("structure, summed by 64", "structure_as_reported", 3, 1),
)
#: What two rows of one test set are told apart by.
DIFFERENCES = (
    ("pixel accuracy, mean over pictures", "pixel_accuracy", 3, 1),
    ("mIoU", "mean_iou", 3, 1),
    ("structure x 1000", "structure", 2, 1000),
    ("text", "text", 1, 1),
    ("KID x 1000", "kid", 1, 1000),
)


def cell(
    value: float | None, ends: Sequence[float] | None = None, digits: int = 3, factor: float = 1, sign: str = ""
) -> str:
    """A number for a table with its interval, 0.886 [0.871, 0.899]; a dash where there is none."""
    if value is None:
        return NONE
    shown, *interval = (f"{factor * part:{sign}.{digits}f}" for part in (value, *(ends or ())))
    return f"{shown} [{', '.join(interval)}]" if interval else shown


def measured(row: Mapping[str, Any], key: str, digits: int = 3, factor: float = 1) -> str:
    """A number of a row with its interval."""
    return cell(_value(row, key), row["intervals"].get(key), digits, factor)


def _value(row: Mapping[str, Any], key: str) -> float | None:
    return row.get(key, row["mask"].get(key))


def differences(found: Sequence[Mapping[str, Any]]) -> Table:
    """Titles of what is in any of these differences, and the cells of each: -0.044 [-0.052, -0.036]."""
    numbers = [entry for entry in DIFFERENCES if any(entry[1] in one for one in found)]

    def shown(one: Mapping[str, Any], key: str, digits: int, factor: float) -> str:
        value, *ends = one.get(key, (None,))
        return cell(value, None if None in ends else ends, digits, factor, "+")

    return [title for title, *_ in numbers], [[shown(one, *entry[1:]) for entry in numbers] for one in found]


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column stands left, the others right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def row_table(results: Mapping[str, Any], columns: Sequence[tuple[str, str, int, float]]) -> Table:
    """Numbers of all rows, of those that have any of these."""
    rows = [
        row for row in results["rows"].values() if any(row.get(key, row["mask"].get(key)) for _, key, *_ in columns)
    ]
    lines = [[row["title"], str(row["n"]), *(measured(row, *column[1:]) for column in columns)] for row in rows]
    return ["", "n", *(title for title, *_ in columns)], lines


def size_table(results: Mapping[str, Any]) -> Table:
    """FID of ever larger parts of the rows with most pictures, and the line through 1 / n at 0."""
    rows = [row for row in results["rows"].values() if row.get("fid_by_size")]
    most = max((row["fid_by_size"][-1][0] for row in rows), default=0)
    shown = [row for row in rows if row["fid_by_size"][-1][0] == most]
    if not shown:
        return [], []
    sizes = [str(size) for size, _ in shown[0]["fid_by_size"]]
    lines = []
    for row in shown:
        found = np.array(row["fid_by_size"])
        distances = [*found[:, 1], extrapolated_fid(found[:, 0], found[:, 1])]
        lines.append([row["title"], *(cell(distance, digits=1) for distance in distances)])
    return ["FID by number of pictures", *sizes, "extrapolated"], lines


def difference_table(results: Mapping[str, Any]) -> Table:
    """What each row loses or gains against another one on the same samples."""
    found: Mapping[str, Mapping[str, Any]] = results["against"]
    titles = {name: row["title"] for name, row in results["rows"].items()}
    head, lines = differences([*found.values()])
    return ["row", "less", "n", *head], [
        [titles[name], titles[one["base"]], str(one["n"]), *cells]
        for (name, one), cells in zip(found.items(), lines, strict=True)
    ]


def attribute_table(results: Mapping[str, Any]) -> Table:
    """Balanced accuracy of each attribute, with the number of pictures judged."""

    def shown(found: Mapping[str, Any] | None) -> str:
        if found is None:
            return NONE
        return f"{cell(found['balanced'], (found['low'], found['high']))} ({found['n']})"

    rows = results["rows"].values()
    names = [name for name in results["attributes"] if any(name in row["attributes"] for row in rows)]
    return ["", *(row["title"] for row in rows)], [
        [name + " *" * (name in results["hidden"]), *(shown(row["attributes"].get(name)) for row in rows)]
        for name in names
    ]


def class_table(results: Mapping[str, Any]) -> Table:
    """IoU of each class."""
    rows = results["rows"].values()
    lines = [[label, *(cell(row["mask"]["class_iou"][label]) for row in rows)] for label in results["labels"]]
    return ["", *(row["title"] for row in rows)], lines


TABLES: tuple[tuple[str, Callable[[Mapping[str, Any]], Table]], ...] = (
    ("", functools.partial(row_table, columns=MAIN)),
    ("The paper's metrics on small networks", functools.partial(row_table, columns=DISTANCES)),
    ("How much of FID is the size of the set", size_table),
    ("By the paper's networks", paper_table),
    ("What each part is worth", difference_table),
    ("Balanced accuracy by attribute (number judged; * hidden in the mask)", attribute_table),
    ("IoU by class", class_table),
)


def render(template: str, **facts: Any) -> str:
    """A template of this folder, filled."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("mogle.metrics")
    environment = Environment(
        loader=loader, autoescape=".html" in template, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(facts)


def write_report(folder: Path, results: Mapping[str, Any]) -> None:
    """results.json, table.md and index.html, which shows the galleries that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = [(title, *table(results)) for title, table in TABLES]
    tables = [(title, head, lines) for title, head, lines in tables if lines]
    (folder / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    in_markdown = [(title, table_of(head, lines)) for title, head, lines in tables]
    (folder / "table.md").write_text(render("report.md.j2", results=results, tables=in_markdown))
    pictures = {path.name: base64.b64encode(path.read_bytes()).decode() for path in folder.glob("*.png")}
    html = render("report.html.j2", results=results, tables=tables, pictures=pictures)
    (folder / "index.html").write_text(html, encoding="utf-8")


def write_galleries(
    folder: Path, made: Mapping[str, Made], measures: Mapping[str, Measured], sets: Mapping[str, SampleSet],
    parse: Callable[[np.ndarray], np.ndarray],
) -> None:  # fmt: skip
    """The first pictures of all rows on their sheets, and of detailed rows seeds, gate maps, the best and the worst."""
    sheets: dict[str, dict[str, np.ndarray]] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in made.items():
        columns = sheets.setdefault(one.row.gallery, _given(sets[one.row.style].samples, range(GALLERY)))
        columns[one.row.column or name.removeprefix("ablation-")] = one.pictures[:GALLERY]
        if not one.row.detailed:
            continue
        columns["parsed back"] = colorize(parse(one.pictures[:GALLERY]))
        order = np.argsort([-pixel_accuracy(matrix) for matrix in measures[name].matrices], kind="stable")
        for sheet, rows in (("best", order[:SELECTED]), ("worst", order[::-1][:SELECTED])):
            pictures, given = one.pictures[rows], _given(one.samples, rows)
            shown = {"given mask": given.pop("given mask"), "made": pictures, "parsed back": colorize(parse(pictures))}
            sheets[sheet] = {**shown, **given}
        if one.seeds:
            sheets["seeds"] = {f"seed {k}": pictures[:GALLERY] for k, pictures in enumerate(one.seeds)}
        if one.gates:
            sheets["gates"] = {title: maps.repeat(8, axis=1).repeat(8, axis=2) for title, maps in one.gates.items()}
    for sheet, columns in sheets.items():
        gallery(columns).save(folder / f"{sheet}.png")


def _given(samples: Samples, rows: Any) -> dict[str, np.ndarray]:
    rows = [row for row in rows if row < len(samples)]
    return {"given mask": colorize(samples.masks[rows]), "real portrait": samples.images[rows]}


def gallery(columns: Mapping[str, Any]) -> Any:
    """{title: uint8 pictures (H,W,3)} -> one PIL image, a column for each title and a line for each sample."""
    from PIL import Image, ImageDraw

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


def compare(first: str | Path, *others: str | Path) -> str:
    """Evaluations' folders -> a Markdown table for each other one: it minus the first, for every row that both have.

    Raises:
        MogleError: one is no evaluation, or has no row in common with the first.
    """
    folders = [Path(first), *map(Path, others)]
    results = []
    for folder in folders:
        if not (folder / "results.json").is_file():
            raise MogleError(f"{folder}: found no results.json, expected the --out of a `mogle evaluate`")
        results.append(json.loads((folder / "results.json").read_text())["rows"])
    tables = []
    for folder, rows in zip(folders[1:], results[1:], strict=True):
        names = [name for name in results[0] if name in rows]
        if not names:
            raise MogleError(f"{folders[0]} and {folder} have no row in common; expected at least one")
        found = [against(load_measured(folders[0], name), load_measured(folder, name)) for name in names]
        head, cells = differences(found)
        lines = []
        for name, one, signed in zip(names, found, cells, strict=True):
            kids = [measured(run[name], "kid", 1, 1000) for run in (results[0], rows)]
            lines.append([results[0][name]["title"], str(one["n"]), *signed, *kids])
        title = f"{folder.name} less {folders[0].name}"
        tables.append(table_of([title, "n in both", *head, "KID x 1000, first", "second"], lines))
    return "\n\n".join(tables) + "\n"
