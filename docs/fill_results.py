"""Puts the tables and galleries of an evaluation into docs/results.md, between its two marks.

    mogle evaluate --out runs/eval && python docs/fill_results.py runs/eval

The prose around them is written by hand. A test holds tables and verdicts to docs/results/results.json; other numbers
in the prose have to be read again after each evaluation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orderings import ordering_table

from mogle.errors import MogleError

START, END = "<!-- tables -->", "<!-- end of tables -->"
#: Rows that the tables by attribute and by class show: a column each.
DETAILED = ("real", "reconstruction", "text+mask", "text", "mask", "swapped")


def rounded(value: Any) -> Any:
    """The same with floats of six digits after the point."""
    if isinstance(value, Mapping):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    return round(value, 6) if isinstance(value, float) else value


def tables(results: Mapping[str, Any]) -> str:
    """What stands between the marks: every table of the report that has lines, warnings first, conditions last."""
    from mogle.metrics.report import TABLES, attribute_table, class_table, difference_table, table_of

    shown: list[tuple[str, Any]] = []
    for title, table in TABLES:
        shown.append((title or "All rows", table))
        if table is difference_table:
            shown.append(("The paper's orderings", ordering_table))
    some = {**results, "rows": {name: results["rows"][name] for name in DETAILED if name in results["rows"]}}
    parts = [f"**Warning:** {warning}" for warning in results["warnings"]]
    for title, table in shown:
        head, lines = table(some if table in (attribute_table, class_table) else results)
        if lines:
            parts += [f"### {title}", table_of(head, lines)]
    return "\n\n".join([*parts, "### Conditions", "\n".join(f"- {note}" for note in results["notes"])])


def publish(evaluation: str | Path, page: str | Path) -> None:
    """Writes tables into the page, and results.json and galleries (WebP) into a folder of its name beside it.

    Raises:
        MogleError: no evaluation there, or a page without the marks.
    """
    from PIL import Image

    evaluation, page = Path(evaluation), Path(page)
    if not (evaluation / "results.json").is_file():
        raise MogleError(f"{evaluation}: found no results.json, expected the --out of a `mogle evaluate`")
    text = page.read_text() if page.is_file() else ""
    if START not in text or END not in text:
        raise MogleError(f"{page}: expected a page with the lines {START} and {END}")
    results = rounded(json.loads((evaluation / "results.json").read_text()))
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=None) + "\n")
    before, after = text.split(START)[0], text.split(END)[1]
    page.write_text(f"{before}{START}\n\n{tables(results)}\n\n{END}{after}")
    for gallery in sorted(evaluation.glob("*.png")):
        Image.open(gallery).save((folder / gallery.name).with_suffix(".webp"), quality=82, method=6)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of `publish`."""
    parser = argparse.ArgumentParser(prog="python docs/fill_results.py", description=__doc__.split("\n")[0])
    parser.add_argument("evaluation", type=Path, help="the --out of a `mogle evaluate`")
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    options = parser.parse_args(arguments)
    publish(options.evaluation, options.page)


if __name__ == "__main__":
    main()
