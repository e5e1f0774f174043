"""Zip -> folder. A zip from elsewhere is not trusted: all of it is looked at before anything is written."""

from __future__ import annotations

import errno
import re
import shutil
import stat
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath

from mogle.errors import MogleError

#: Pictures do not shrink in a zip and sentences about tenfold. More is a bomb, unless it is small.
RATIO, SMALL, TOTAL = 100, 1 << 20, 500 << 30
#: What cannot be a path inside the folder: absolute, with a drive, with "..", with backslashes or control characters.
_NO_PATH = re.compile(r"^$|^/|^[A-Za-z]:|\\|(^|/)\.\.?(/|$)|//|[\x00-\x1f]")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into a new folder, whole or not at all.

    Raises:
        MogleError: it is damaged, or has an entry that leads out of the folder, is a link, is encrypted, has the name
            of another, has a name that is not UTF-8, or is far larger than its place in the zip; says which.
        OSError: the disk is full.
    """
    from tqdm import tqdm

    where = "it"
    try:
        # Many packers write UTF-8 without the flag that says so.
        with zipfile.ZipFile(archive, metadata_encoding="utf-8") as opened:
            _check(archive, opened.infolist())
            for info in tqdm(opened.infolist(), desc=archive.name, disable=None):
                where = f"the entry {info.filename!r}"
                opened.extract(info, folder)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        full = getattr(error, "errno", None) not in (None, errno.EINVAL)  # a disk; damage shows in nearly any other way
        if full or isinstance(error, MogleError) or not isinstance(error, Exception):
            raise
        why = f"{where} is damaged or no zip of a known kind ({error}); get it again"
        if isinstance(error, UnicodeDecodeError):
            why = f"refused, the name {error.object!r} in it is not UTF-8; pack it again"
        raise MogleError(f"{archive}: {why}") from error


def _check(archive: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuses a zip with an entry that a zip of pictures has no use for."""
    files: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    for info in entries:
        name, mode, size, packed = info.orig_filename, info.external_attr >> 16, info.file_size, info.compress_size
        path = PurePosixPath(unicodedata.normalize("NFC", name).casefold())  # as a forgiving file system compares it
        troubles = {
            "leads out of the folder or has no plain name": _NO_PATH.search(name),
            "is a link": stat.S_ISLNK(mode),
            "is neither file nor folder": stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR),
            "is encrypted": info.flag_bits & 1,
            f"would unpack from {packed:,} to {size:,} bytes (a zip bomb?)": size > max(SMALL, RATIO * packed),
            "is there twice": files & {path, *path.parents} or (path in folders and not info.is_dir()),
        }
        if found := [trouble for trouble, is_so in troubles.items() if is_so]:
            raise MogleError(f"{archive}: refused, the entry {name!r} {found[0]}; nothing was unpacked")
        (folders if info.is_dir() else files).add(path)
        folders.update(path.parents)
    total = sum(info.file_size for info in entries)
    if total > min(RATIO * archive.stat().st_size + SMALL, TOTAL):
        raise MogleError(f"{archive}: refused, it would unpack to {total:,} bytes (a zip bomb?); nothing was unpacked")
