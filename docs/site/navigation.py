"""The schematic of the method as the site's map: a part leads to the notebook that is about it."""

from __future__ import annotations

from html import escape
from pathlib import Path

import nbformat

from workbook.figures import png
from workbook.schematic import ALT, BOARD, COURSE, PARTS, place, schematic

ROOT = Path(__file__).resolve().parents[2]
#: Part of the schematic -> notebook, by number.
ABOUT = {**COURSE, "sentence": "01"}


def titles() -> dict[str, tuple[str, str]]:
    """Number of each notebook that there is -> (file name without ending, title)."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        heading = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0]
        found[path.name[:2]] = path.stem, heading.lstrip("# ")
    return found


def navigation(folder: Path) -> None:
    """Writes schematic.png and schematic.html, its areas as links, into a folder."""
    folder.mkdir(exist_ok=True)
    sample, known = ROOT / "data" / "portraits", titles()
    drawn = schematic(*PARTS, mask=sample / "mask" / "22.png", face=sample / "face" / "22.jpg")
    (folder / "schematic.png").write_bytes(png(drawn))
    links = []
    for part in sorted(PARTS, key=lambda part: place(part)[2] * place(part)[3], reverse=True):  # small ones on top
        if ABOUT[part] in known:
            left, bottom, width, height = place(part)
            name, title = known[ABOUT[part]]
            x, y = 100 * left / BOARD[0], 100 * (BOARD[1] - bottom - height) / BOARD[1]
            style = (
                f"left:{x:.2f}%;top:{y:.2f}%;width:{100 * width / BOARD[0]:.2f}%;height:{100 * height / BOARD[1]:.2f}%"
            )
            label = escape(f"{part}: notebook {title}", quote=True)
            links.append(
                f'<a href="../../notebooks/{name}.html" style="{style}" title="{label}" aria-label="{label}"></a>'
            )
    picture = f'<img src="../../_static/schematic.png" alt="{escape(ALT, quote=True)}">'
    (folder / "schematic.html").write_text(f'<nav class="schematic">{picture}{"".join(links)}</nav>\n')
