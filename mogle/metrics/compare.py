"""Evaluations held against each other, picture by picture."""

from __future__ import annotations

import json
from pathlib import Path

from mogle.errors import MogleError
from mogle.metrics.measure import against, load_measured
from mogle.metrics.report import differences, measured, table_of


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
