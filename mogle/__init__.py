"""Face-MoGLE: a face from a mask and a sentence, on any FLUX backbone (arXiv 2509.00428).

The names below are loaded on first use, so that `import mogle` costs milliseconds and not a deep-learning stack.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from mogle.neighbours import announce

announce()
# A thread of torch that waits for another one sleeps instead of spinning: spinning, it holds up the one it waits for
# where the cores have other work too (a picture beside a training took 40 s, and takes 3). OpenMP reads it as torch
# is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

_EXPORTS = {
    "FaceMoGLEPipeline": "mogle.pipeline",
    "MoGLE": "mogle.experts",
    "FaceDataset": "mogle.datasets",
    "decode_mask": "mogle.labels",
    "MogleError": "mogle.errors",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mogle' has no attribute {name!r}; it exports {', '.join(__all__)}")
    value = globals()[name] = getattr(importlib.import_module(_EXPORTS[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
