"""The files of a data set: listing them, reading texts and JSON, and saying what is wrong with many of them."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mogle.errors import MogleError

LISTED = 8  # problems that are spelled out; the rest is counted by kind


class Finding(NamedTuple):
    """Something about one sample, or a file of all of them: what kind it is, to be counted by, and what was found.

    A note is read all right; `mend` is what `mogle data check --fix` calls.
    """

    kind: str
    id: str
    text: str
    note: bool = False
    mend: Callable[[], None] | None = None


def natural(name: str) -> list[tuple[Any, ...]]:
    """Sort key: 2 before 10, "00002" before "10"."""
    parts = re.findall(r"(\D*)(0*)(\d*)", name)
    return [(text, len(digits), digits, zeros + digits) for text, zeros, digits in parts]


class Files:
    """The files of one folder by id: the one list that is checked and opened. `others` end in something else."""

    def __init__(self, folder: Path, endings: Sequence[str]) -> None:
        self.folder, self.endings = folder, endings
        self.found: dict[str, list[str]] = {}
        self.others: dict[str, list[str]] = {}
        for entry in sorted(os.listdir(folder)) if folder.is_dir() else ():
            stem, ending = os.path.splitext(entry)
            if not entry.startswith("."):  # hidden files are nobody's business
                into = self.found if ending.lower() in endings else self.others
                into.setdefault(stem, []).append(entry)

    def path(self, name: str) -> Path:
        """Where the file of an id is."""
        return self.folder / self.found[name][0]

    def faults(self, name: str, what: str, missing: str) -> list[tuple[str, str]]:
        """Where an id has not exactly one file: the kind of problem, and what was found."""
        found, others = self.found.get(name, []), self.others.get(name, [])
        if len(found) > 1:
            return [(f"several {what}s", f"{len(found)} {what}s: {', '.join(found)}; keep one")]
        if others and not found:
            missing += f" (found {self.folder.name}/{others[0]}, expected an ending of {', '.join(self.endings)})"
        return [] if found else [(f"no {what}", missing)]


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


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file.

    Raises:
        MogleError: not readable, or something else than an object.
    """
    if not path.is_file():
        return {}
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MogleError(f"{path}: not readable as JSON ({error}); put it right, or remove it") from error
    if not isinstance(value, dict):
        raise MogleError(f"{path}: found a JSON {type(value).__name__}, expected an object; put it right, or remove it")
    return value


def in_lines(found: Sequence[Finding]) -> str:
    """The first few in full, the rest counted by kind; a line each."""
    lines = [finding.text for finding in found[:LISTED]]
    if rest := Counter(finding.kind for finding in found[LISTED:]):
        counts = ", ".join(f"{count} with {kind}" for kind, count in rest.most_common())
        lines.append(f"... and {rest.total()} more: {counts}")
    return "".join(f"\n  {line}" for line in lines)
