"""The course: set-up, exercises, figures, notebook tools. `from mogle.course import setup, check, ...`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mogle.course.exercises import check, from_workbook, hint, progress, reveal, score, whose

if TYPE_CHECKING:
    import torch

__all__ = ["REPOSITORY", "Course", "check", "hint", "progress", "reveal", "score", "setup", "whose"]

#: Address of the git repository that a notebook clones where the course is not installed (Colab). This is the one place
#: to set it; `mogle notebooks run` writes it into the notebooks. Empty: the notebook asks for MOGLE_REPOSITORY.
REPOSITORY = ""


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
        from mogle.course.figures import show

        drawn, sample = from_workbook("schematic"), self.data / "portraits"
        figure = drawn.schematic(*lit, mask=sample / "mask" / "22.png", face=sample / "face" / "22.jpg")
        show(figure, alt=f"{drawn.ALT} Lit here: {', '.join(lit)}.")


def setup(seed: int = 0) -> Course:
    """Prepare a notebook: seeds, number of threads, sharp figures, quiet libraries. Calling it twice is harmless.

    Computes on two threads (or OMP_NUM_THREADS), so that the last digits do not depend on the number of cores.

    Raises:
        MogleError: there is no folder checkpoints/ in the project, here or above.
    """
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
    torch.manual_seed(seed)
    np.random.seed(seed)

    device, weights = pick_device(), shipped(BASE).parent
    data = weights.parent / "data"
    return Course(data, weights / BASE, weights / ADAPTER, weights / JUDGES, device, pick_dtype(device))


def setup_source() -> str:
    """The code of a notebook's set-up cell: it installs the course where it is missing and calls `setup`."""
    return f'''# Installs the course where it is missing (Colab); elsewhere, and the second time, changes nothing.
import importlib.util, os, subprocess, sys

if importlib.util.find_spec("mogle") is None:
    folder = ".." if os.path.isfile("../pyproject.toml") else "face-mogle"
    if not os.path.isdir(folder):
        address = os.environ.get("MOGLE_REPOSITORY", "{REPOSITORY}")
        assert address, "no address to install from: run %env MOGLE_REPOSITORY=<git address of the course> first"
        subprocess.run(["git", "clone", "--depth", "1", address, folder], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", folder + "[course]"], check=True)
    sys.path.insert(0, os.path.abspath(folder))
    importlib.invalidate_caches()

from mogle.course import setup

course = setup()'''
