"""`MaskPainter`: the mask painter in a notebook (JupyterLab, Notebook, VS Code, Colab)."""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Callable
from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image

from mogle.datasets import FaceDataset
from mogle.errors import MogleError
from mogle.labels import colorize, decode_mask
from mogle.painter import SCRIPT, STYLE, checked, classes, read_mask, unpack
from mogle.pictures import Size, sides

#: The longer side, in screen pixels, of the picture that stands in where no kernel runs.
_SHOWN = 384


class _LabelMap(traitlets.TraitType):
    """A trait for a label map, which travels as its bytes with width and height beside them, in one piece."""

    def __init__(self) -> None:
        super().__init__()
        self.tag(sync=True, to_json=self._to_browser, from_json=self._from_browser)

    def validate(self, obj: Any, value: Any) -> np.ndarray:
        return checked(value)

    @staticmethod
    def _to_browser(label_map: np.ndarray, widget: Any) -> dict[str, Any]:
        height, width = label_map.shape
        return {"width": width, "height": height, "labels": label_map.tobytes()}

    @staticmethod
    def _from_browser(sent: Any, widget: Any) -> np.ndarray:
        return unpack(sent)


class MaskPainter(anywidget.AnyWidget):
    """A label map that is painted by hand; `observe(function, "label_map")` tells of every finished stroke.

    Args:
        mask: what to begin with, in any form that `decode_mask` takes; None is nothing but background.
        size: side, or (height, width), in pixels: of the empty mask, or what `mask` is brought to. None keeps the
            mask's own; an empty one is 512 x 512 then.
        brush: the brush's size in pixels at the beginning; 0 chooses one that suits the mask.
        readonly: shows the mask with its names, and lets nobody change it.

    Raises:
        MogleError: see `decode_mask`; a side beyond `mogle.painter.MAX_SIDE`.
    """

    _esm = SCRIPT
    _css = STYLE
    # ipywidgets 7 displays by this method where there is one, and so past _repr_mimebundle_
    _ipython_display_ = None

    #: uint8 (H, W), values 0..18, read-only: copy it to change it, and set the copy.
    label_map = _LabelMap()
    classes: Any = traitlets.List(read_only=True).tag(sync=True)
    brush = traitlets.Int(0, min=0).tag(sync=True)
    readonly = traitlets.Bool(False).tag(sync=True)

    def __init__(self, mask: Any = None, size: Size | None = None, **options: Any) -> None:
        if mask is None:
            mask = np.zeros(sides(512 if size is None else size), dtype=np.uint8)
        super().__init__(label_map=decode_mask(mask, size=size), **options)
        self.on_msg(MaskPainter._receive)

    @traitlets.default("classes")
    def _classes(self) -> list[dict[str, Any]]:
        return classes()

    def load(self, dataset: FaceDataset | str | os.PathLike[str], id: str | int) -> None:
        """Paint on the mask of a sample of a data set, or of the data set in a folder.

        Raises:
            MogleError: no such data set, no such id in it, or a mask that cannot be read.
        """
        if not isinstance(dataset, FaceDataset):
            dataset = FaceDataset(dataset)
        if str(id) not in dataset.ids:
            some = ", ".join(dataset.ids[:3])
            raise MogleError(f"{dataset.root}: found no sample {str(id)!r}, expected one of its ids, such as {some}")
        self.label_map = dataset.label_map(dataset.ids.index(str(id)))

    def from_photo(self, picture: Any, parse: Callable[[Any], np.ndarray]) -> None:
        """Paint on what a parser finds in a photo.

        Args:
            picture: whatever `parse` takes.
            parse: picture -> label map.

        Raises:
            MogleError: where the parser's answer is no label map; and what the parser itself raises.
        """
        self.label_map = parse(picture)

    def _receive(self, content: Any, buffers: list[Any]) -> None:
        """A file that somebody has opened in the browser: painted on, or its fault said there."""
        if not isinstance(content, dict) or content.get("kind") != "file" or len(buffers) != 1:
            return
        with warnings.catch_warnings(record=True, action="always") as notes:
            try:
                self.label_map = read_mask(bytes(buffers[0]), str(content.get("name", "file"))[:200])
            except MogleError as error:
                self.send({"kind": "say", "text": str(error), "wrong": True})
                return
        self.send({"kind": "say", "text": " ".join(str(note.message) for note in notes), "wrong": False})

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and beside it a picture of the mask, which is what is seen where no kernel runs."""
        if (found := super()._repr_mimebundle_(**kwargs)) is None:
            return None
        data, metadata = found
        height, width = self.label_map.shape
        enlarged = max(1, _SHOWN // max(height, width))
        picture = Image.fromarray(colorize(self.label_map)).resize((width * enlarged, height * enlarged), 0)
        file = io.BytesIO()
        picture.save(file, format="PNG", optimize=True)
        alt = f"a mask of {width} x {height} pixels: {', '.join(self.names())}"
        seen = {"alt": alt, "width": width * enlarged, "height": height * enlarged}
        data = {**data, "image/png": base64.b64encode(file.getvalue()).decode("ascii"), "text/plain": alt}
        return data, {**metadata, "image/png": seen}

    def names(self) -> list[str]:
        """The names of the classes that the mask has, in the order of their labels."""
        return [self.classes[label]["name"] for label in np.unique(self.label_map)]
