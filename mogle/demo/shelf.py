"""The one folder that the demo writes to: uploads and results, for some hours and up to some size.

Files that come in are read here, with the name their owner knows them by in every message.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from mogle.demo.notes import noted
from mogle.errors import MogleError
from mogle.painter import read_mask
from mogle.provenance import Recipe, read_picture, save_picture

KEPT = 2 * 3600  # seconds
ROOM = 1_000_000_000  # bytes; the oldest files go first
Found = TypeVar("Found")


class Shelf:
    """Files of the demo, in one folder.

    Args:
        folder: is there, and belongs to the demo alone.
        kept, room: for how many seconds files are kept, and how many bytes in all.
    """

    def __init__(self, folder: Path, kept: float = KEPT, room: int = ROOM) -> None:
        self.folder, self.kept, self.room = folder.resolve(), kept, room
        self._tidied = time.monotonic()

    def keep(self, picture: Image.Image, recipe: Recipe, origin: dict[str, str]) -> Path:
        """Writes a result with its recipe, where nobody finds it who was not told."""
        self.tidy(every=60)
        path = self.folder / secrets.token_hex(16) / f"face-{recipe.seed}.png"
        save_picture(path, picture, recipe, origin)
        return path

    def tidy(self, every: float = 0) -> None:
        """Removes what is old, and the oldest where there is too much; at most once in `every` seconds."""
        if time.monotonic() - self._tidied < every:
            return
        self._tidied, now, left = time.monotonic(), time.time(), self.room
        files = []
        for path in self.folder.rglob("*"):
            try:
                files.append((path.stat(), path))
            except OSError:  # another request was faster
                continue
        for stat, path in sorted(files, key=lambda one: one[0].st_mtime, reverse=True):
            if path.is_dir():
                if now - stat.st_mtime > self.kept:
                    with suppress(OSError):  # something is in it
                        path.rmdir()
                continue
            left -= stat.st_size
            if now - stat.st_mtime > self.kept or left < 0:
                path.unlink(missing_ok=True)

    # --- what came in ------------------------------------------------------------------------------------------------

    def mask(self, file: Any) -> tuple[np.ndarray, list[str]]:
        """An uploaded mask file of any form -> label map, and notes on it."""
        return self._read(file, lambda path, name: read_mask(path.read_bytes(), name))

    def photo(self, file: Any, parse: Callable[[Path], np.ndarray]) -> tuple[np.ndarray, list[str]]:
        """An uploaded photograph, as `parse` reads it -> label map, and notes on it."""
        return self._read(file, lambda path, _: parse(path))

    def result(self, file: Any) -> tuple[Path, Recipe]:
        """An uploaded picture that carries its recipe."""
        return self._read(file, lambda path, _: (path, read_picture(path)[1]))[0]

    def _read(self, file: Any, read: Callable[[Path, str], Found]) -> tuple[Found, list[str]]:
        """What `read(path, name)` makes of a file as gradio names it; where it lies is not told to who sent it.

        Raises:
            MogleError: no file that lies here, or what `read` says of it.
        """
        sent, name = (file.get("path"), file.get("orig_name")) if isinstance(file, dict) else (file, None)
        if not isinstance(sent, str) or "\0" in sent:
            raise MogleError(f"found {type(file).__name__}, expected an uploaded file")
        path, name = Path(sent).resolve(), str(name or Path(sent).name or "the file")[:80]
        if self.folder not in path.parents or not path.is_file():
            raise MogleError(f"{name}: found no such file among what was uploaded; it may be too old: upload it again")
        try:
            with noted() as notes:
                return read(path, name), [note.replace(str(path), name) for note in notes]
        except MogleError as error:
            raise MogleError(str(error).replace(str(path), name)) from error
