"""From the ledger's source, or a copy at hand, to the place where the rest of the project looks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from huggingface_hub import constants

from mogle.assets.archive import unpack
from mogle.assets.download import hub_cache, listing, stream
from mogle.assets.ledger import Asset, verify, write_lock
from mogle.errors import MogleError


def place(asset: Asset) -> Path | None:
    """The folder where an asset goes by itself, relative ones from the working directory; None is the Hub's cache."""
    torch_home = os.environ.get("TORCH_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/torch"
    return None if asset.to == "HUB_CACHE" else Path(asset.to.replace("TORCH_HOME", torch_home)).expanduser()


def get(asset: Asset, source: Path | None = None, to: Path | None = None) -> Path:
    """Fetch an asset, verify it and put it in place, whole or not at all.

    Files that are there already are verified and kept; a data set that is there already is left alone.

    Args:
        source: a zip, file or folder to take it from, instead of the network.
        to: the folder, instead of the ledger's.

    Returns:
        the folder.

    Raises:
        MogleError: it cannot be had, or is not what ledger, lock file or source say.
        OSError: the disk is full; nothing of it is left.
    """
    folder, offline = to or place(asset), constants.HF_HUB_OFFLINE
    if source is not None and not source.exists():
        raise MogleError(f"--from {source}: found nothing there, expected a zip, a file or a folder")
    if source is not None and folder is None:
        raise MogleError(f"{asset.name} goes into the Hub's cache; with --from give a folder too: --to FOLDER")
    if folder is None:
        return hub_cache(asset) if offline else _download(asset, None, Path())
    if asset.holds and folder.exists() and any(folder.iterdir()):
        return _layout(asset, folder, folder)
    if source is None and offline:
        source = folder if folder.exists() else hub_cache(asset)
    stage = folder.parent / f".{folder.name}.{asset.name}.part"  # on the same disk, so that moving is renaming
    try:
        files = source or _download(asset, folder, stage / "files")
        (_place_data if asset.holds else _place_weights)(asset, files, folder, stage)
    except Exception as error:
        if source is not None or isinstance(error, OSError):  # otherwise the next call goes on from what is there
            shutil.rmtree(stage, ignore_errors=True)
        raise
    shutil.rmtree(stage, ignore_errors=True)
    return folder


def _download(asset: Asset, folder: Path | None, files: Path) -> Path:
    """Download what is not in `folder` into `files`, or all into the Hub's cache; verify it and write the lock file."""
    revision, remotes = listing(asset)
    missing = [remote for remote in remotes if folder is None or not (folder / remote.name).is_file()]
    if folder is None:
        files = hub_cache(asset, [remote.name for remote in remotes])
    files.mkdir(parents=True, exist_ok=True)
    needed, free = sum(remote.size for remote in missing), shutil.disk_usage(files).free
    if folder is not None and needed > free:
        raise MogleError(f"{asset.name} takes {needed:,} bytes, and {free:,} are free at {folder.parent}")
    seen = {}
    for remote in remotes:
        path = (files if remote in missing else folder or files) / remote.name
        if not path.is_file():
            stream(asset, remote, path)
        try:
            seen[remote.name] = verify(asset, remote.name, path, size=remote.size, sha256=remote.sha256)
        except MogleError as error:
            if remote not in missing:
                raise MogleError(f"{error}; move it away and try again") from error
            path.resolve().unlink()  # in the Hub's cache it is a link
            path.unlink(missing_ok=True)
            raise MogleError(f"{error}; it was removed, nothing was put in place") from error
    write_lock(asset, revision, seen)
    return files


def _place_weights(asset: Asset, source: Path, folder: Path, stage: Path) -> None:
    files = stage / "files"
    if source != files:
        shutil.rmtree(stage, ignore_errors=True)  # half a copy, perhaps
        if source.suffix.lower() == ".zip":
            unpack(source, source := stage / "zip")
        root = source if source.is_dir() else source.parent
        there = [path.relative_to(root).as_posix() for path in root.rglob("*")] if source.is_dir() else [source.name]
        for name in asset.wanted(there, source):
            (files / name).parent.mkdir(parents=True, exist_ok=True)
            if not (folder / name).exists():
                shutil.copyfile(root / name, files / name)
            verify(asset, name, (folder if (folder / name).exists() else files) / name)
    shutil.copytree(files, folder, dirs_exist_ok=True, copy_function=os.replace)


def _place_data(asset: Asset, source: Path, folder: Path, stage: Path) -> None:
    name, unpacked = asset.files[0].names[0], stage / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    archive = source / name if source.is_dir() else source
    if archive.is_file():
        verify(asset, name, archive)
        unpack(archive, unpacked)
    else:
        shutil.copytree(_layout(asset, source, source), unpacked)
    root = _layout(asset, unpacked, archive)
    if folder.exists():
        folder.rmdir()  # an empty one
    root.replace(folder)


def _layout(asset: Asset, folder: Path, where: Path) -> Path:
    """The folder itself, or the one in it, that has a data set's folders.

    Raises:
        MogleError: neither has.
    """
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "__MACOSX")
    for root in (folder, *inside):
        if all((root / part).is_dir() for part in asset.holds):
            return root
    found = ", ".join(path.name for path in inside) or "no folder"
    raise MogleError(f"{where}: found {found}, expected {', '.join(asset.holds)}; give another --from or --to")
