"""From the ledger's source, or a copy at hand, to the place where the rest of the project looks.

The Hub is asked through huggingface_hub, so its token, its mirrors (HF_ENDPOINT) and its offline mode (HF_HUB_OFFLINE)
count. Its `hf_hub_download` begins a file anew when a process has ended, and files have 10 GB; `_stream` goes on.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from mogle.assets.archive import unpack
from mogle.assets.ledger import Asset, read_lock, verify, write_lock
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
        return _hub_cache(asset) if offline else _gather(asset, None, None, Path())
    if asset.holds and folder.exists() and any(folder.iterdir()):
        return _layout(asset, folder, folder)
    if source is None and offline:
        source = folder if folder.exists() else _hub_cache(asset)
    stage = folder.parent / f".{folder.name}.{asset.name}.part"  # on the same disk, so that moving is renaming
    if source is not None:
        shutil.rmtree(stage, ignore_errors=True)  # half a copy, perhaps
    try:
        if asset.holds:
            _place_data(asset, source or _gather(asset, None, folder, stage / "files"), folder, stage / "unpacked")
        else:
            if source is not None and source.suffix.lower() == ".zip":
                unpack(source, source := stage / "unpacked")
            files = _gather(asset, source, folder, stage / "files")
            shutil.copytree(files, folder, dirs_exist_ok=True, copy_function=os.replace)
    except Exception as error:
        if source is not None or isinstance(error, OSError):  # otherwise the next call goes on from what is there
            shutil.rmtree(stage, ignore_errors=True)
        raise
    shutil.rmtree(stage, ignore_errors=True)
    return folder


def _gather(asset: Asset, source: Path | None, folder: Path | None, files: Path) -> Path:
    """Get what is not in `folder` into `files`, or all into the Hub's cache; verify all; keep what a download saw."""
    revision, remotes = _listing(asset, source)
    if folder is None:
        folder = files = _hub_cache(asset, [remote.name for remote in remotes])
    missing = [remote for remote in remotes if not (folder / remote.name).is_file()]
    files.mkdir(parents=True, exist_ok=True)
    needed, free = sum(remote.size for remote in missing), shutil.disk_usage(files).free
    if needed > free:
        raise MogleError(f"{asset.name} takes {needed:,} bytes, and {free:,} are free at {folder.parent}")
    seen = {}
    for remote in remotes:
        path = (files if remote in missing else folder) / remote.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if source is not None and not path.is_file():
            shutil.copyfile(remote.url, path)
        elif not path.is_file():
            _stream(asset, remote, path)
        try:
            seen[remote.name] = verify(asset, remote.name, path, size=remote.size, sha256=remote.sha256)
        except MogleError as error:
            if not path.is_relative_to(files):
                raise MogleError(f"{error}; move it away and try again") from error
            path.resolve().unlink()  # in the Hub's cache it is a link
            path.unlink(missing_ok=True)
            raise MogleError(f"{error}; it was removed, nothing was put in place") from error
    if source is None:
        write_lock(asset, revision, seen)
    return files


def _place_data(asset: Asset, source: Path, folder: Path, unpacked: Path) -> None:
    name = asset.files[0].names[0]
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


# --- bytes from the source ---------------------------------------------------------------------------------------


class Remote(NamedTuple):
    """A file at its source: its name within the asset, address or path, size (0: unknown) and hash (empty: unknown)."""

    name: str
    url: str
    size: int = 0
    sha256: str = ""


def _repository(asset: Asset) -> dict[str, Any]:
    revision = asset.revision or read_lock(asset)["revision"] or None
    return {"repo_id": asset.hub, "repo_type": "dataset" if asset.kind == "data" else "model", "revision": revision}


def _listing(asset: Asset, at_hand: Path | None) -> tuple[str, list[Remote]]:
    """The revision that a source has (empty where it has none), and the files there that make up the asset.

    Args:
        at_hand: the folder or file to take instead of the network.

    Raises:
        MogleError: the source cannot be reached, wants a licence accepted, or lacks a file.
    """
    if at_hand is not None:
        root = at_hand if at_hand.is_dir() else at_hand.parent
        paths = root.rglob("*") if at_hand.is_dir() else [at_hand]
        names = asset.wanted([path.relative_to(root).as_posix() for path in paths], at_hand)
        return "", [Remote(name, str(root / name)) for name in names]
    if asset.url:
        return "", [Remote(asset.url.rsplit("/", 1)[1], asset.url)]
    try:
        info: Any = HfApi().repo_info(**_repository(asset), files_metadata=True)
    except Exception as error:
        _refuse(asset, error)
    there, where = {one.rfilename: one for one in info.siblings or []}, _repository(asset) | {"revision": info.sha}
    remotes = []
    for name in asset.wanted(there, asset.hub):
        size, lfs = there[name].size or 0, there[name].lfs
        remotes.append(Remote(name, hf_hub_url(**where, filename=name), size, lfs.sha256 if lfs else ""))
    return info.sha or "", remotes


def _hub_cache(asset: Asset, names: list[str] | None = None) -> Path:
    """The asset's folder in the Hub's cache, with the files named downloaded into it; offline, as it is there.

    Raises:
        MogleError: it cannot be had.
    """
    offline, where = constants.HF_HUB_OFFLINE, _repository(asset)
    try:
        return Path(snapshot_download(**where, allow_patterns=names, local_files_only=offline))
    except Exception as error:
        if offline and (folder := getattr(error, "snapshot_path", None)):  # other files of the repository are missing
            return Path(folder)
        _refuse(asset, error)


def _stream(asset: Asset, remote: Remote, path: Path) -> None:
    """Download one file; until it is whole it is called NAME.part, and a later call goes on from there.

    A part whose whole is not known by its hash is begun anew: the file may have changed since.

    Raises:
        MogleError: it was cut off, or refused.
        OSError: the disk is full.
    """
    part, headers = Path(f"{path}.{remote.sha256[:12]}.part"), build_hf_headers(token=None if asset.hub else False)
    if part.exists() and (not remote.sha256 or part.stat().st_size > remote.size):
        part.unlink()
    while True:  # an attempt that brought something is followed by another
        with part.open("ab") as target:
            have = target.tell()
            try:
                http_get(remote.url, target, resume_size=have, headers=headers, expected_size=remote.size or None)
                break
            except Exception as error:
                if getattr(error, "errno", None) or getattr(error, "response", None) is not None:
                    _refuse(asset, error)
                if target.tell() <= have:
                    why = f"cut off at {have:,} bytes ({error}); give the same command again"
                    raise MogleError(f"{remote.url}: {why}") from error
    part.replace(path)


def _refuse(asset: Asset, error: Exception) -> NoReturn:
    """Raises the user's error for a request that failed; what the disk refused, such as being full, as it is."""
    if getattr(error, "errno", None):
        raise error
    # Its class is httpx's or requests', depending on the version of huggingface_hub.
    status = getattr(getattr(error, "response", None), "status_code", getattr(error, "code", None))
    line = (" ".join(str(error).split()) or type(error).__name__)[:200]
    what = f"not to be had ({line}); try again, set HF_ENDPOINT to a mirror, or use --from"
    if constants.HF_HUB_OFFLINE:
        what = "not on this machine; unset HF_HUB_OFFLINE, or use --from"
    elif status in (401, 403):
        page = f"https://huggingface.co/{'datasets/' * (asset.kind == 'data')}{asset.hub}" if asset.hub else asset.url
        accept = f"accept the licence at {page}, then log in with `hf auth login` or HF_TOKEN"
        what = f"access refused ({status}); {accept}"
    raise MogleError(f"{asset.source}: {what}") from error
