"""The files of a data set: listing them, reading texts and JSON, and saying what is wrong with many of them."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mogle.errors import MogleError
from mogle.pictures import ENDINGS

LISTED = 8  # problems that are spelled out; the rest is counted by kind


class Problem(NamedTuple):
    """What is wrong with a sample (or a file of all of them): its kind, to be counted by, and what was found."""

    kind: str
    text: str


def natural(name: str) -> tuple[Any, ...]:
    """Sort key: 2 before 10, "00002" before "10"."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple(
        (0, len(part.lstrip("0")), part.lstrip("0"), part) if part.isdecimal() else (1, 0, part) for part in parts
    )


@dataclass
class Files:
    """The files of one folder by id: the one list that is checked and opened. `others` end in something else."""

    folder: str
    found: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def listed(cls, root: Path, folder: str, endings: Sequence[str]) -> Files:
        """Hidden files are nobody's business."""
        files = cls(folder)
        if (root / folder).is_dir():
            for entry in sorted(os.listdir(root / folder)):
                stem, ending = os.path.splitext(entry)
                if not entry.startswith("."):
                    into = files.found if ending.lower() in endings else files.others
                    into.setdefault(stem, []).append(entry)
        return files

    def several(self, name: str, what: str) -> list[str]:
        """Says which, where an id has more than one file."""
        found = self.found.get(name, [])
        return [f"{len(found)} {what}: {', '.join(found)}; keep one"] if len(found) > 1 else []

    def instead(self, name: str) -> str:
        """What there is under this id that cannot be read."""
        if name not in self.others:
            return ""
        return f" (found {self.folder}/{self.others[name][0]}, expected an ending of {', '.join(ENDINGS)})"


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte-order mark, or in UTF-16 with one.

    Raises:
        MogleError: not readable, or in another encoding.
    """
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if wide else "utf-8-sig").replace("\ufeff", "")
    except (OSError, UnicodeDecodeError) as error:
        raise MogleError(f"{path}: not readable as text ({error}); expected UTF-8: save it as that") from error


def read_json(path: Path, problems: list[Problem]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(read_text(path))
        if isinstance(value, dict):
            return value
        what = f"{path.name}: found a JSON {type(value).__name__}, expected an object"
    except MogleError as error:
        what = str(error)
    except (ValueError, RecursionError) as error:
        what = f"{path.name}: not readable as JSON ({error})"
    problems.append(Problem(f"unreadable {path.name}", f"{what}; put the file right, or remove it"))
    return {}


def in_lines(entries: Sequence[Problem]) -> str:
    """The first few in full, the rest counted by kind; a line each."""
    lines = [entry.text for entry in entries[:LISTED]]
    rest = Counter(entry.kind for entry in entries[LISTED:])
    if rest:
        counts = ", ".join(f"{count} with {kind}" for kind, count in rest.most_common())
        lines.append(f"... and {len(entries) - LISTED} more: {counts}")
    return "".join(f"\n  {line}" for line in lines)
