"""The mask painter in a real JupyterLab, with a real kernel behind it."""

import re
from contextlib import suppress

import nbformat
import numpy as np
from jupyter_lab import ROOT, waited

from mogle.labels import LABELS, decode_mask

HAIR = LABELS.index("hair")
CELL = """
import numpy as np
from mogle.painter.widget import MaskPainter

def keep(change):
    np.save("next.npy", change.new)
    os.replace("next.npy", f"seen{len(seen)}.npy")
    seen.append(change.new)

import os
seen = []
painter = MaskPainter(np.load("mask.npy"), brush=8)
painter.observe(keep, "label_map")
painter
"""


def test_a_stroke_arrives_in_the_kernel_and_undo_takes_it_back(page, lab, screenshots, tmp_path):
    from playwright.sync_api import TimeoutError

    face = decode_mask(ROOT / "data/portraits/mask/3.png")
    np.save(tmp_path / "mask.npy", face)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "paint.ipynb")

    def seen(number: int) -> np.ndarray:
        file = tmp_path / f"seen{number}.npy"
        return waited(lambda: np.load(file) if file.exists() else None, f"the kernel has not seen change {number}")

    page.goto(f"{lab}lab/tree/paint.ipynb?token=t")
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=90_000)
    asked = page.locator(".jp-CodeCell .jp-InputPrompt", has_text=re.compile(r"\d|\*"))  # "[*]:", no longer "[ ]:"
    for _ in range(20):  # keys are lost while Lab still busies itself with the page
        page.locator(".jp-CodeCell .cm-content").click()
        page.keyboard.press("Control+Enter")
        with suppress(TimeoutError):
            asked.wait_for(timeout=3000)
            break
    canvas = page.locator(".mp-mask")
    canvas.wait_for(timeout=90_000)
    canvas.scroll_into_view_if_needed()
    page.locator(f".mp-palette [value='{HAIR}']").check(force=True)
    box = canvas.bounding_box()
    scale = box["width"] / 128

    for number, (x, y) in enumerate([(20, 64), (100, 64)]):
        page.mouse.move(box["x"] + (x + 0.5) * scale, box["y"] + (y + 0.5) * scale)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    # a disc of 8 along a row is this band; its round ends are other tests' business
    made = seen(0)
    assert (made[60:68, 20:100] == HAIR).all() and made.dtype == np.uint8
    outside = np.ones_like(face, dtype=bool)
    outside[60:68, 16:104] = False
    assert (made == face)[outside].all()
    shown = page.evaluate("""() => {
        const canvas = document.querySelector(".mp-mask");
        return Array.from(canvas.getContext("2d").getImageData(0, 64, 128, 1).data);
    }""")
    assert shown[4 * 50 : 4 * 50 + 3] == [0, 0, 204]

    page.screenshot(path=screenshots / "painter-jupyterlab.png")
    page.keyboard.press("x")  # the painter's eraser, and not JupyterLab's "cut the cell"
    page.keyboard.press("Control+z")
    assert (seen(1) == face).all()
    assert page.locator(".jp-CodeCell", has_text="MaskPainter").count() == 1
    assert page.locator(".mp-tools [value=erase]").is_checked()
    page.wrong[:] = [text for text in page.wrong if re.search("painter|mogle|anywidget", text)]  # Lab's own are its own
