"""The numbers behind docs/results.md, which `mogle evaluate` has measured on the shipped weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).resolve().parents[2] / "docs" / "results" / "results.json"


def shipped_results() -> dict[str, Any]:
    """ "rows": what was measured of each row; "against": its difference from the row that it is held against."""
    found: dict[str, Any] = json.loads(_FILE.read_text())
    return found
