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
_UTF8_FLAG, _ENCRYPTED_FLAG = 0x800, 0x1


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip into a new folder, whole or not at all.

    Raises:
        MogleError: it is damaged, or has an entry that leads out of the folder, is a link, is encrypted, has the name
            of another, has a name that is not UTF-8, or is far larger than its place in the zip; says which.
        OSError: the disk is full.
    """
    from tqdm import tqdm

    where, whole = "it", False
    try:
        with zipfile.ZipFile(archive) as opened:
            for info, name in tqdm(_plan(archive, opened.infolist()), desc=archive.name, disable=None):
                where, info.filename = f"the entry {name!r}", name
                opened.extract(info, folder)
        whole = True
    except UnicodeDecodeError as error:
        raise MogleError(f"{archive}: refused, the name {error.object!r} in it is not UTF-8; pack it again") from error
    except Exception as error:  # damage shows as an error of nearly any kind, a full disk as OSError with a number
        if isinstance(error, MogleError) or getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise
        raise MogleError(f"{archive}: {where} is damaged or no zip of a known kind ({error}); get it again") from error
    finally:
        if not whole:
            shutil.rmtree(folder, ignore_errors=True)


def _plan(archive: Path, entries: list[zipfile.ZipInfo]) -> list[tuple[zipfile.ZipInfo, str]]:
    """(entry, path inside the folder) for each entry of a zip that may be unpacked."""
    plan: list[tuple[zipfile.ZipInfo, str]] = []
    taken: dict[str, bool] = {}  # name as a forgiving file system compares it -> is a folder
    for info in entries:
        name = _name(info)
        if trouble := _trouble(info, name):
            raise MogleError(f"{archive}: refused, the entry {name!r} {trouble}; nothing was unpacked")
        key = unicodedata.normalize("NFC", name).casefold().rstrip("/")
        above = [str(parent) for parent in PurePosixPath(key).parents][:-1]
        if (key in taken and not (info.is_dir() and taken[key])) or any(taken.get(parent) is False for parent in above):
            raise MogleError(f"{archive}: refused, the entry {name!r} is there twice; nothing was unpacked")
        taken |= {**dict.fromkeys(above, True), key: info.is_dir()}
        plan.append((info, name))
    total = sum(info.file_size for info in entries)
    if total > min(RATIO * archive.stat().st_size + SMALL, TOTAL):
        raise MogleError(f"{archive}: refused, it would unpack to {total:,} bytes (a zip bomb?); nothing was unpacked")
    return plan


def _name(info: zipfile.ZipInfo) -> str:
    """An entry's name. Many packers write UTF-8 without the flag that says so, which Python reads as code page 437."""
    name = info.orig_filename
    return name if info.flag_bits & _UTF8_FLAG else name.encode("cp437").decode("utf-8")


def _trouble(info: zipfile.ZipInfo, name: str) -> str | None:
    """Why an entry is not unpacked, or None."""
    mode = info.external_attr >> 16
    if re.search(r"^/|^[A-Za-z]:|\\|(^|/)\.\.?(/|$)|//|[\x00-\x1f]", name) or not name:
        return "leads out of the folder or has no plain name"
    if stat.S_ISLNK(mode):
        return "is a link"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither file nor folder"
    if info.flag_bits & _ENCRYPTED_FLAG:
        return "is encrypted"
    if info.file_size > max(SMALL, RATIO * info.compress_size):
        return f"would unpack from {info.compress_size:,} to {info.file_size:,} bytes (a zip bomb?)"
    return None
