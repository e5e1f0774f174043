"""The way into the course: `from mogle.course import setup`, and `check`, `hint`, `reveal`, `score` and others.

All that serves the notebooks alone (exercises, figures, widgets, the tools of who writes them) stands beside them, in
`notebooks/workbook/`; `setup` makes it importable.
"""

from __future__ import annotations

import os
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mogle.errors import MogleError, MogleWarning
from mogle.neighbours import hide_broken

if TYPE_CHECKING:
    import torch

_CHECKING = ("check", "hint", "progress", "reveal", "score", "whose")
__all__ = ["Course", "from_workbook", "setup", *_CHECKING]


def from_workbook(module: str) -> Any:
    """A module of `notebooks/workbook/`, whose folder is importable from then on.

    Raises:
        MogleError: the package was installed without the notebooks.
    """
    folder = Path(__file__).resolve().parents[1] / "notebooks"
    if not (folder / "workbook").is_dir():
        raise MogleError(f"{folder}: no notebooks there; expected a clone of the course, installed with pip install -e")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return import_module(f"workbook.{module}")


def __getattr__(name: str) -> Any:
    if name in _CHECKING:
        return getattr(from_workbook("checking"), name)
    raise AttributeError(f"module 'mogle.course' has no attribute {name!r}; it has {', '.join(__all__)}")


@dataclass(frozen=True)
class Course:
    """Where things are, and what to compute with."""

    data: Path  # the tracked samples: portraits/, female/, balanced/
    base: Path  # the tiny FLUX, a FluxPipeline folder
    adapter: Path  # LoRA and MoGLE for it
    judges: Path  # the face parser and the attribute reader
    device: str
    dtype: torch.dtype

    def schematic(self, *lit: str) -> None:
        """Display the map of the whole method with some parts lit; `notebooks/workbook/schematic.py` lists them."""
        sample = self.data / "portraits"
        from_workbook("schematic").show_lit(*lit, mask=sample / "mask" / "22.png", face=sample / "face" / "22.jpg")


def setup(seed: int = 0) -> Course:
    """Prepare a notebook: seeds, number of threads, sharp figures, quiet libraries. Calling it twice is harmless.

    A package beside torch that would make the libraries fail is hidden, and a line says so; see `mogle.neighbours`.

    Computes on two threads (or OMP_NUM_THREADS), so that the last digits do not depend on the number of cores.

    Raises:
        MogleError: there is no folder checkpoints/ in the project, here or above.
    """
    with warnings.catch_warnings(record=True) as broken:
        warnings.simplefilter("always", MogleWarning)
        hide_broken()  # Colab's torchao would stop peft
    for note in broken:
        print(note.message)

    import numpy as np
    import torch
    from diffusers.utils import logging as diffusers_logging
    from IPython.core.getipython import get_ipython
    from transformers.utils import logging as transformers_logging

    from mogle.checkpoints import ADAPTER, BASE, JUDGES, pick_device, pick_dtype, shipped

    # They warn about torchvision, which nothing here needs, and draw a progress bar for each file that they load.
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    from_workbook("checking")
    torch.manual_seed(seed)
    np.random.seed(seed)

    device, weights = pick_device(), shipped(BASE).parent
    data = weights.parent / "data"
    return Course(data, weights / BASE, weights / ADAPTER, weights / JUDGES, device, pick_dtype(device))
