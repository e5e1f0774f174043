"""The notebook with the playground in a real JupyterLab; and the gate viewer in a page of its own."""

import base64
import json
import re

import nbformat
import numpy as np
import pytest
from jupyter_lab import ROOT, waited
from PIL import Image

from mogle.labels import LABELS, decode_mask
from mogle.provenance import Recipe
from workbook import gates

HAIR = LABELS.index("hair")
#: Behind the notebook's own cells: what arrives in Python is written into files; a picture long enough to be stopped.
CELL = """
import os
import numpy as np

seen = []

def keep(change):
    np.save("next.npy", change.new)
    os.replace("next.npy", f"seen{len(seen)}.npy")
    seen.append(change.new)

play.painter.observe(keep, "label_map")
play.steps.value = 30

from dataclasses import replace
from workbook.gates import GateViewer, watch_gate

viewer = GateViewer(pipe, watch_gate(pipe, replace(play.recipe(), steps=2)))
viewer.display(alt="Twenty maps and who leads.")
open("ready", "w").close()
"""


#: Lab asks for a kernel in a dialog where cells are to be run before theirs has started.
RUN_ALL = """async () => {
    const { commands, shell } = window.jupyterapp;
    const { context, sessionContext } = shell.currentWidget;
    await context.ready;
    await sessionContext.ready;
    while (sessionContext.kernelDisplayStatus !== "idle") await new Promise((go) => setTimeout(go, 100));
    await commands.execute("notebook:run-all-cells");
}"""


def playground_alone(steps: int) -> nbformat.NotebookNode:
    """The committed notebook up to the cell that shows the playground, with few steps for its first picture."""
    notebook = nbformat.read(ROOT / "notebooks/12_playground.ipynb", as_version=4)
    last = next(i for i, cell in enumerate(notebook.cells) if "play.display(" in cell.source)
    notebook.cells = [*notebook.cells[: last + 1], nbformat.v4.new_code_cell(CELL)]
    for cell in notebook.cells:
        cell.outputs = [] if cell.cell_type == "code" else None
    cell = notebook.cells[last]
    assert "steps=20" in cell.source
    cell.source = cell.source.replace("steps=20", f"steps={steps}")
    notebook.cells = [cell for cell in notebook.cells if "schematic" not in cell.source]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.pop("outputs", None)
    return notebook


def at_rest(page, locator) -> dict[str, float]:
    """Where something on the page is, once nothing moves it any more."""
    before = None
    for _ in range(100):
        locator.scroll_into_view_if_needed()
        if (box := locator.bounding_box()) == before:
            break
        before = box
        page.wait_for_timeout(400)
    return box


@pytest.fixture
def run():
    """A run of three steps on 3 x 4 places, made up."""
    chance = np.random.default_rng(0)
    weights = chance.dirichlet(np.ones(20), (3, 12)).astype(np.float32)
    mask = np.zeros((48, 64), np.uint8)
    mask[8:40, 8:56] = HAIR
    previews = [Image.new("RGB", (64, 48), (80 * step, 100, 100)) for step in range(3)]
    return gates.Watched(previews[-1], Recipe("A face.", mask, 0, 3, 3.5, 1.0, 48, 64), weights, previews)


PAGE = """<!doctype html><html lang="en"><style>%s body { margin: 8px; } @media (prefers-color-scheme: dark) {
body { background: #111; --jp-ui-font-color1: #eee; } }</style><body><div id="here"></div><script type="module">
%s
const state = %s;
const bytes = Uint8Array.from(atob(state.weights), (character) => character.charCodeAt(0));
state.weights = new DataView(bytes.buffer);
const told = [];
window.model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = value; told.forEach((tell) => tell()); },
  save_changes: () => {}, on: (name, tell) => told.push(tell), off: () => {},
};
render({ model: window.model, el: document.querySelector("#here") });
</script></body></html>"""


def test_the_gate_viewer_shows_each_place_s_weights_at_each_step(page, run, screenshots):
    pytest.importorskip("anywidget")
    widget = gates.gate_maps_widget(run)
    names = ("step", "steps", "rows", "columns", "names", "colors", "scale", "pictures", "mask")
    state = {name: getattr(widget, name) for name in names} | {"weights": base64.b64encode(widget.weights).decode()}
    folder = ROOT / "notebooks/workbook"
    script = re.sub(r"^export (default .*)?", "", (folder / "gates.js").read_text(), flags=re.M)
    page.set_content(PAGE % ((folder / "gates.css").read_text(), script, json.dumps(state)))
    page.get_by_text("Point at a place").wait_for()
    assert page.locator(".mg-maps canvas").count() == 20

    box = page.locator(".mg-maps .mg-frame").nth(3).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 2.5 / 4, box["y"] + box["height"] * 1.5 / 3)
    for step in (1, 3):
        page.evaluate(f"window.model.set('step', {step})")
        weights = run.weights[step - 1, 4 + 2]
        best = np.argsort(-weights, kind="stable")[:6]
        lines = page.locator(".mg-readout li").all_text_contents()
        assert lines == [f"{gates.EXPERTS[expert]} {weights[expert]:.3f}" for expert in best], step
        assert page.locator(".mg-readout").inner_text().startswith("Row 2, column 3:")
        assert page.locator(".mg-steps output").inner_text() == f"step {step} of 3"
        pixel = (
            "() => [...document.querySelectorAll('.mg-top canvas')[0].getContext('2d').getImageData(2, 1, 1, 1).data]"
        )
        assert page.evaluate(pixel)[:3] == gates.COLORS[best[0]].tolist()
        assert page.locator(".mg-top img").nth(1).get_attribute("src") == widget.pictures[step - 1]
    page.locator(".mg-steps input").fill("2")
    assert page.evaluate("window.model.get('step')") == 2
    page.get_by_role("button", name="Play").click()
    page.get_by_text("step 3 of 3").wait_for()

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            page.locator("body").screenshot(path=screenshots / f"gates-{width}-{scheme}.png")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 900})


def test_a_stroke_arrives_undo_takes_it_back_and_generate_shows_a_picture(page, lab, screenshots, tmp_path):
    nbformat.write(playground_alone(steps=2), tmp_path / "play.ipynb")
    face = decode_mask(ROOT / "data/portraits/mask/19.png")

    def seen(number: int) -> np.ndarray:
        file = tmp_path / f"seen{number}.npy"
        return waited(lambda: np.load(file) if file.exists() else None, f"the kernel has not seen change {number}")

    page.goto(f"{lab}lab/tree/play.ipynb?token=t")
    page.locator(".jp-CodeCell").first.wait_for(timeout=90_000)
    page.evaluate(RUN_ALL)
    waited(lambda: (tmp_path / "ready").exists() or None, "the cells did not run", 120)
    page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    canvas = page.locator(".mp-mask")
    canvas.wait_for(timeout=90_000)
    canvas.scroll_into_view_if_needed()

    page.locator(f".mp-palette [value='{HAIR}']").evaluate("(input) => input.click()")
    assert page.locator(f".mp-palette [value='{HAIR}']").is_checked()
    size = page.locator(".mp-size input")
    size.evaluate("(input) => { input.value = 8; input.dispatchEvent(new Event('input', {bubbles: true})); }")
    box = at_rest(page, canvas)
    scale = box["width"] / 128
    for number, x in enumerate((50, 70)):
        page.mouse.move(box["x"] + (x + 0.5) * scale, box["y"] + (64 + 0.5) * scale)
        if number == 0:
            page.mouse.down()
    page.mouse.up()
    made = seen(0)
    outside = np.ones_like(face, dtype=bool)
    outside[60:68, 46:74] = False
    assert (made[60:68, 50:70] == HAIR).all() and (made == face)[outside].all()
    page.keyboard.press("Control+z")
    assert (seen(1) == face).all()

    cards = page.locator(".mogle-card")
    before = cards.count()
    page.get_by_role("button", name="Generate").click()
    page.wait_for_function("(n) => document.querySelectorAll('.mogle-card').length === n", arg=before + 1)
    picture = page.locator(".mogle-side .mogle-picture img").first
    assert picture.evaluate("(img) => [img.complete, img.naturalWidth]") == [True, 128]
    assert picture.get_attribute("alt").startswith("a face, drawn with seed 1, 30 steps")
    assert page.locator("a[download]").get_attribute("href").startswith("data:image/png")

    page.get_by_role("button", name="Keep as A").click()
    page.locator("textarea").first.fill("She has turquoise hair.")
    page.locator(".mogle-note", has_text="turquoise").wait_for()
    page.get_by_role("button", name="Generate").click()
    page.get_by_text(re.compile(r"^step \d+ of 30$")).wait_for()
    page.get_by_role("button", name="Stop").first.click()
    page.get_by_text("Stopped.").wait_for()
    assert cards.count() == before + 1

    gate = page.locator(".mogle-play", has=page.locator(".mogle-gates"))
    gate.get_by_label("hair", exact=True).uncheck()
    gate.get_by_role("button", name="Draw without them").click()
    gate.get_by_text("without hair; renormalised").wait_for(timeout=60_000)

    page.locator(".mogle-play .jupyter-widget-Collapse-header, .mogle-play .p-Collapse-header").first.click()
    for theme in ("Light", "Dark"):
        page.evaluate(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
        for width, height in ((1280, 1700), (390, 4200)):
            page.set_viewport_size({"width": width, "height": height})
            for name, shown in (("playground", page.locator(".mogle-play").first), ("gate-viewer", gate)):
                shown.scroll_into_view_if_needed()
                page.wait_for_timeout(500)
                shown.screenshot(path=screenshots / f"{name}-{width}-{theme.lower()}.png")
                wide = shown.evaluate("(element) => [element.scrollWidth, element.clientWidth]")
                assert wide[0] <= wide[1] + 1, f"{name}: at {width} px something sticks out"
    page.wrong[:] = [
        text for text in page.wrong if re.search("mogle|anywidget|ipywidgets", text)
    ]  # Lab's own are its own
