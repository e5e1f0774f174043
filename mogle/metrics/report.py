"""Results as JSON, as Markdown tables, and as galleries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mogle.metrics.fid import extrapolated_fid
from mogle.metrics.orderings import ordering_table
from mogle.metrics.paper import paper_table


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


#: What two rows of one test set are told apart by: title, key, digits after the point, factor.
DIFFERENCES = (
    ("pixel accuracy, mean over pictures", "pixel_accuracy", 3, 1),
    ("mIoU", "mean_iou", 3, 1),
    ("structure x 1000", "structure", 2, 1000),
    ("text", "text", 1, 1),
    ("KID x 1000", "kid", 1, 1000),
)


def differences(found: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Titles of what is in any of these differences, and the cells of each: -0.044 [-0.052, -0.036]."""
    numbers = [entry for entry in DIFFERENCES if any(entry[1] in one for one in found)]
    lines = []
    for one in found:
        cells = []
        for _, key, digits, factor in numbers:
            shown = [f"{factor * part:+.{digits}f}" for part in one.get(key, ()) if part is not None]
            value, interval = shown[0] if shown else "–", ", ".join(shown[1:])
            cells.append(f"{value} [{interval}]" if interval else value)
        lines.append(cells)
    return [title for title, *_ in numbers], lines


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column stands left, the others right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measured(row: Mapping[str, Any], name: str, value: float | None, digits: int = 3, factor: float = 1) -> str:
    """A number of a row with its interval: 0.886 [0.871, 0.899]."""
    if value is None:
        return "–"
    ends = row.get("intervals", {}).get(name)
    shown = number(factor * value, digits)
    return shown if ends is None else f"{shown} [{', '.join(number(factor * end, digits) for end in ends)}]"


def main_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and lines of the table of all rows."""
    head = [
        "", "n", "pixel accuracy", "mIoU", "attributes hidden in the mask", "attributes shown by the mask",
        "text", "KID x 1000", "real or generated", "diversity", "PSNR, dB",
    ]  # fmt: skip
    lines = [
        [
            row["title"],
            str(row["n"]),
            measured(row, "pixel_accuracy", row["mask"]["pixel_accuracy"]),
            measured(row, "mean_iou", row["mask"]["mean_iou"]),
            measured(row, "attributes_hidden", row["attributes_hidden"]),
            measured(row, "attributes_shown", row["attributes_shown"]),
            measured(row, "text", row.get("text"), 1),
            measured(row, "kid", row.get("kid"), 1, 1000),
            measured(row, "detection", row.get("detection")),
            measured(row, "diversity", row.get("diversity")),
            number(row.get("psnr"), 1),
        ]
        for row in results["rows"].values()
    ]
    return head, lines


def distance_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: the paper's metrics on the tiny track's networks."""
    head = ["", "n", "FID", "FID of endless sets", "CMMD", "structure x 1000", "structure, summed by 64"]
    rows: Mapping[str, Mapping[str, Any]] = results["rows"]
    return head, [
        [
            row["title"],
            str(row["n"]),
            number(row.get("fid"), 1),
            measured(row, "fid_endless", row.get("fid_endless"), 1),
            measured(row, "cmmd", row.get("cmmd"), 2),
            measured(row, "structure", row.get("structure"), 2, 1000),
            number(row.get("structure_as_reported"), 3),
        ]
        for row in rows.values()
        if "structure" in row
    ]


def size_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: FID of ever larger parts of the rows with most pictures, and the line through 1 / n at 0."""
    rows = [row for row in results["rows"].values() if row.get("fid_by_size")]
    most = max((row["fid_by_size"][-1][0] for row in rows), default=0)
    shown = [row for row in rows if row["fid_by_size"][-1][0] == most]
    if not shown:
        return [], []
    sizes = [str(size) for size, _ in shown[0]["fid_by_size"]]
    lines = []
    for row in shown:
        found = np.array(row["fid_by_size"])
        ending = extrapolated_fid(found[:, 0], found[:, 1])
        lines.append([row["title"], *(number(d, 1) for d in found[:, 1]), number(ending, 1)])
    return ["FID by number of pictures", *sizes, "extrapolated"], lines


def difference_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: what each row loses or gains against another one on the same samples."""
    found: Mapping[str, Mapping[str, Any]] = results["against"]
    titles = {name: row["title"] for name, row in results["rows"].items()}
    head, lines = differences([*found.values()])
    return ["row", "less", "n", *head], [
        [titles[name], titles[one["base"]], str(one["n"]), *cells]
        for (name, one), cells in zip(found.items(), lines, strict=True)
    ]


def attribute_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: balanced accuracy of each attribute, with the number of pictures judged."""
    rows: Mapping[str, Mapping[str, Any]] = results["rows"]
    names = {name for row in rows.values() for name in row["attributes"]}
    lines = [
        [f"{name}{' *' if name in results['hidden'] else ''}"]
        + [
            f"{number(cell['balanced'])} [{number(cell['low'])}, {number(cell['high'])}] ({cell['n']})"
            if (cell := row["attributes"].get(name))
            else "–"
            for row in rows.values()
        ]
        for name in results["attributes"]
        if name in names
    ]
    return ["", *(row["title"] for row in rows.values())], lines


def class_table(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: IoU of each class."""
    rows: Mapping[str, Mapping[str, Any]] = results["rows"]
    lines = [
        [label] + [number(row["mask"]["class_iou"][label]) for row in rows.values()] for label in results["labels"]
    ]
    return ["", *(row["title"] for row in rows.values())], lines


TABLES = (
    ("", main_table),
    ("The paper's metrics on small networks", distance_table),
    ("How much of FID is the size of the set", size_table),
    ("By the paper's networks", paper_table),
    ("What each part is worth", difference_table),
    ("The paper's orderings", ordering_table),
    ("Balanced accuracy by attribute (number judged; * hidden in the mask)", attribute_table),
    ("IoU by class", class_table),
)


def markdown(results: Mapping[str, Any]) -> str:
    """All tables, warnings first, conditions last."""
    parts = [f"## {results['title']}"]
    parts += [f"**Warning:** {warning}" for warning in results.get("warnings", ())]
    for title, table in TABLES:
        head, lines = table(results)
        if lines:
            parts += [f"### {title}"] * bool(title) + [table_of(head, lines)]
    notes = "\n".join(f"- {note}" for note in results["notes"])
    return "\n\n".join([*parts, "### Conditions", notes, ""])


def write_report(folder: Path, results: Mapping[str, Any]) -> None:
    """results.json, table.md and index.html, which shows the galleries that are there."""
    from mogle.metrics.page import page

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    (folder / "table.md").write_text(markdown(results))
    (folder / "index.html").write_text(page(folder, results), encoding="utf-8")


def gallery(columns: Mapping[str, np.ndarray], scale: int = 1) -> Any:
    """{title: uint8 pictures (N,H,W,3)} -> one PIL image, a column for each title and a line for each sample.

    A column with fewer pictures ends in white.
    """
    from PIL import Image, ImageDraw

    most = max(len(pictures) for pictures in columns.values())
    stacks = []
    for pictures in columns.values():
        large = np.repeat(np.repeat(pictures, scale, 1), scale, 2)
        stacks.append(np.pad(large, ((0, most - len(large)), (0, 0), (0, 0), (0, 0)), constant_values=255))
    lines = np.concatenate([np.concatenate(list(stack), 0) for stack in stacks], 1)
    top = 18
    sheet = Image.new("RGB", (lines.shape[1], lines.shape[0] + top), "white")
    sheet.paste(Image.fromarray(lines), (0, top))
    draw, x = ImageDraw.Draw(sheet), 0
    for title, stack in zip(columns, stacks, strict=True):
        draw.text((x + 4, 3), title, fill="black")
        x += stack.shape[2]
    return sheet
