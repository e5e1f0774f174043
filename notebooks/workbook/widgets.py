"""Widgets: a function renders a picture, controls choose its arguments; without a kernel the first picture is seen."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from matplotlib.figure import Figure
from PIL import Image


def explorer(render: Callable[..., Image.Image | Figure], **choices: Any) -> Any:
    """A widget of one control for each argument of `render`, and the picture that it gives.

    Args:
        render: arguments by name -> picture or figure.
        **choices: a sequence of options (a menu of them), a mapping name -> option, or a range (a slider).

    Returns:
        The widget; `.children` are the controls, in order, and the picture.
    """
    import ipywidgets

    controls: dict[str, Any] = {}
    for name, values in choices.items():
        if isinstance(values, range):
            limits = {"min": values.start, "max": values[-1], "step": values.step, "value": values.start}
            controls[name] = ipywidgets.IntSlider(description=name, continuous_update=False, **limits)
        else:
            options = list(values.items()) if hasattr(values, "items") else list(values)
            layout = ipywidgets.Layout(width="95%")
            controls[name] = ipywidgets.Dropdown(description=name, options=options, layout=layout)
    picture = ipywidgets.Image(format="png")

    def update(*_: Any) -> None:
        made = render(**{name: control.value for name, control in controls.items()})
        picture.value, width = _png(made)
        picture.layout.width = f"{width}px"

    for control in controls.values():
        control.observe(update, names="value")
    update()
    return ipywidgets.VBox([*controls.values(), picture])


def explore(render: Callable[..., Image.Image | Figure], *, alt: str, **choices: Any) -> None:
    """Display an `explorer`; where no kernel runs, its first picture and the alt text are what is seen.

    Without ipywidgets that picture is all there is, and a line says so.
    """
    from IPython.display import display

    from workbook.figures import bundle

    if find_spec("ipywidgets") is None:
        options = {name: list(v.values()) if hasattr(v, "items") else v for name, v in choices.items()}
        first = {name: some[0] for name, some in options.items()}
        data, metadata = bundle(_png(render(**first))[0], alt)
        display(data, metadata=metadata, raw=True)
        print("ipywidgets is not installed, so there are no controls: %pip install ipywidgets, then restart the kernel")
        return
    widget = explorer(render, **choices)
    picture = widget.children[-1]
    with Image.open(io.BytesIO(picture.value)) as opened:
        retina = opened.width // int(picture.layout.width.removesuffix("px"))
    data, metadata = bundle(picture.value, alt, retina)
    # Written out, because Colab's ipywidgets 7.7 has no method that gives it.
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    data["application/vnd.jupyter.widget-view+json"] = view
    display(data, metadata=metadata, raw=True)


def _png(picture: Image.Image | Figure) -> tuple[bytes, int]:
    """The picture, enlarged to about 384 px, or the figure as PNG; and the width at which it is shown."""
    if isinstance(picture, Figure):
        from workbook import figures

        return figures.png(picture), int(figures.WIDTH * figures.DPI)
    file = io.BytesIO()
    width, height = (max(1, 384 // picture.height) * length for length in picture.size)
    picture.resize((width, height), Image.Resampling.BICUBIC).save(file, format="PNG")
    return file.getvalue(), width
