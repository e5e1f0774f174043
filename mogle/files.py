"""Files that are there in full or not at all, so that a run that is cut off leaves no half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file beside its name and move it there at the end; makes the folder where it is missing.

        with atomic_write(folder / "settings.json") as part:
            part.write_text(text)

    Gives the path of an empty file, `NAME.<random>.part`, which several processes can each have of one name. After an
    error the part is removed, and what had the name before is still there. The file gets the permissions 0644.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
