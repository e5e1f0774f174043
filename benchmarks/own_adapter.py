"""How much better the adapter of notebook 08 follows masks than the sentence alone: by the notebook's cells, by seed.

    python benchmarks/own_adapter.py [--seeds 0 1 2]

Runs the cells that train and measure, once for each seed, and writes `notebooks/workbook/own_adapter.json`: the gains
in pixel accuracy, and two thirds of the least of them, which the notebook asserts. To be run again when the base
changes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from mogle.files import atomic_write

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOK, OUT = FOLDER / "08_fine_tuning_with_lora.ipynb", FOLDER / "workbook" / "own_adapter.json"
#: What neither trains the adapter nor measures it: sections by the beginnings of their headings.
_ASIDE = ("Exercise `rank", "Kill it", "Exercise `after_resume", "8. ", "Exercise `broken", "9. ")


def cells() -> Iterator[str]:
    """The code of the cells that are needed, to the one that measures."""
    heading = ""
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "markdown":
            heading = next(iter(re.findall(r"^##+ (.+)$", cell.source, re.MULTILINE)[::-1]), heading)
        elif not heading.startswith(_ASIDE):
            yield cell.source
            if "gain" in cell.metadata.get("tags", []):
                return


def gain(seed: int) -> float:
    """What the notebook's last measurement says when it is run with this seed."""
    known: dict[str, Any] = {}
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # its figures
        for source in cells():
            exec(re.sub(r"(SEED = \d+, \d+), 0$", rf"\1, {seed}", source, flags=re.MULTILINE), known)
    if known["SEED"] != seed:
        raise ValueError(f"found no place for the seed in {NOTEBOOK.name}")
    return float(known["gain"])


def keep(text: str) -> None:
    """What the notebook reads."""
    with atomic_write(OUT) as part:
        part.write_text(text)


def main() -> None:
    """Measures, prints, and keeps the gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    kept, gains = OUT.read_text(), {}
    try:
        keep(json.dumps({"least": 0.0}))  # the notebook asserts nothing while it is measured
        for seed in parser.parse_args().seeds:
            start = time.process_time()
            gains[seed] = round(gain(seed), 4)
            print(f"seed {seed}: {gains[seed]:.4f}, {time.process_time() - start:.0f} s of CPU", flush=True)
        least = math.floor(100 * 2 / 3 * min(gains.values())) / 100
        kept = json.dumps({"gains": gains, "least": least}) + "\n"
        print(f"at least {least:.2f}")
    finally:
        keep(kept)


if __name__ == "__main__":
    main()
