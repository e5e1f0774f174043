"""The mask painter in a real JupyterLab, with a real kernel behind it."""

import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import numpy as np
import pytest

from mogle.labels import LABELS, decode_mask

ROOT = Path(__file__).parents[2]
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


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab in `tmp_path`, with settings of its own."""
    own = {name: str(tmp_path / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    runtime = tmp_path / "runtime"
    environment = {**os.environ, **own, "JUPYTER_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT)}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--IdentityProvider.token=t"]
    options += ["--LabApp.extension_manager=readonly", "--ServerApp.terminals_enabled=False"]
    quiet = tmp_path / "jupyter_config_dir/lab/user-settings/@jupyterlab/apputils-extension"
    quiet.mkdir(parents=True)  # nothing from the network, and no question about it
    nothing = {"fetchNews": "false", "checkForUpdates": False}
    (quiet / "notification.jupyterlab-settings").write_text(json.dumps(nothing))
    with open(tmp_path / "lab.log", "w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={tmp_path}"]
        server = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        yield waited(lambda: address(runtime), f"JupyterLab did not start, see {tmp_path}/lab.log")
    finally:
        server.terminate()
        server.wait(timeout=30)


def address(runtime: Path) -> str | None:
    found = list(runtime.glob("jpserver-*.json"))
    return json.loads(found[0].read_text())["url"] if found else None


def waited(look, otherwise: str, seconds: float = 90):
    """What `look` finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(otherwise)


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
