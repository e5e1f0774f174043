"""Results as JSON, as a Markdown table, and as a gallery."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measured(row: Mapping[str, Any], name: str, value: float | None, digits: int = 3, factor: float = 1) -> str:
    """A number of a row with its interval: 0.886 [0.871, 0.899]."""
    if value is None:
        return "–"
    ends = row.get("intervals", {}).get(name)
    shown = number(factor * value, digits)
    return shown if ends is None else f"{shown} [{', '.join(number(factor * end, digits) for end in ends)}]"


def markdown(results: Mapping[str, Any]) -> str:
    """The tables: every row's numbers, attributes one by one, classes one by one; and what they lean on."""
    rows: Mapping[str, Mapping[str, Any]] = results["rows"]
    main = [
        [
            row["title"],
            str(row["n"]),
            measured(row, "pixel_accuracy", row["mask"]["pixel_accuracy"]),
            measured(row, "mean_iou", row["mask"]["mean_iou"]),
            measured(row, "attributes_hidden", row["attributes_hidden"]),
            measured(row, "attributes_shown", row["attributes_shown"]),
            measured(row, "kid", row.get("kid"), 1, 1000),
            measured(row, "detection", row.get("detection")),
            number(row.get("psnr"), 1),
        ]
        for row in rows.values()
    ]
    head = [
        "", "n", "pixel accuracy", "mIoU", "attributes hidden in the mask", "attributes shown by the mask",
        "KID x 1000", "real or generated", "PSNR, dB",
    ]  # fmt: skip
    names = {name for row in rows.values() for name in row["attributes"]}
    ordered = [name for name in results["attributes"] if name in names]
    each = [
        [f"{name}{' *' if name in results['hidden'] else ''}"]
        + [
            f"{number(cell['balanced'])} ({cell['n']})" if (cell := row["attributes"].get(name)) else "–"
            for row in rows.values()
        ]
        for name in ordered
    ]
    classes = [
        [label] + [number(row["mask"]["class_iou"][label]) for row in rows.values()] for label in results["labels"]
    ]
    titles = [row["title"] for row in rows.values()]
    notes = "\n".join(f"- {note}" for note in results["notes"])
    return "\n\n".join(
        [
            f"## {results['title']}",
            _table(head, main),
            "### Balanced accuracy by attribute (number judged; * hidden in the mask)",
            _table(["", *titles], each),
            "### IoU by class",
            _table(["", *titles], classes),
            "### Conditions",
            notes,
            "",
        ]
    )


def write_report(folder: Path, results: Mapping[str, Any]) -> None:
    """results.json and table.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    (folder / "table.md").write_text(markdown(results))


def gallery(columns: Mapping[str, np.ndarray], scale: int = 1) -> Any:
    """{title: uint8 pictures (N,H,W,3)} -> one PIL image, a column for each title and a line for each sample."""
    from PIL import Image, ImageDraw

    stacks = [np.repeat(np.repeat(pictures, scale, 1), scale, 2) for pictures in columns.values()]
    lines = np.concatenate([np.concatenate(list(stack), 0) for stack in stacks], 1)
    top = 18
    sheet = Image.new("RGB", (lines.shape[1], lines.shape[0] + top), "white")
    sheet.paste(Image.fromarray(lines), (0, top))
    draw, x = ImageDraw.Draw(sheet), 0
    for title, stack in zip(columns, stacks, strict=True):
        draw.text((x + 4, 3), title, fill="black")
        x += stack.shape[2]
    return sheet
