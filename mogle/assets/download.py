"""Bytes from the Hub or from an address.

The Hub is asked through huggingface_hub, so its token, its mirrors (HF_ENDPOINT) and its offline mode (HF_HUB_OFFLINE)
count. Its `hf_hub_download` begins a file anew when a process has ended, and files have 10 GB; `stream` goes on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mogle.assets.ledger import Asset
from mogle.errors import MogleError


class Remote(NamedTuple):
    """A file at its source: its name within the asset, its address, size (0: unknown) and hash (empty: unknown)."""

    name: str
    url: str
    size: int = 0
    sha256: str = ""


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _hub() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)


def _repository(asset: Asset, revision: str) -> dict[str, Any]:
    kind = "dataset" if asset.kind == "data" else "model"
    return {"repo_id": asset.hub, "repo_type": kind, "revision": revision or None}


def listing(asset: Asset, revision: str) -> tuple[str, list[Remote]]:
    """The revision that a source has (empty for an address), and the files there that make up the asset.

    Raises:
        MogleError: the source cannot be reached, wants a licence accepted, or lacks a file.
    """
    if asset.url:
        return "", [Remote(asset.url.rsplit("/", 1)[1], asset.url)]
    from huggingface_hub import hf_hub_url

    hub = _hub()
    try:
        info = hub.repo_info(**_repository(asset, revision), files_metadata=True)
    except Exception as error:  # httpx's or requests', depending on the version of huggingface_hub
        raise _refusal(asset, error) from error
    there = {one.rfilename: one for one in info.siblings or []}
    remotes = []
    for name in asset.wanted(there, asset.hub):
        url = hf_hub_url(**_repository(asset, info.sha), filename=name, endpoint=hub.endpoint)
        lfs = there[name].lfs
        remotes.append(Remote(name, url, there[name].size or 0, lfs.sha256 if lfs else ""))
    return info.sha or "", remotes


def hub_cache(asset: Asset, revision: str, names: Sequence[str] | None = None) -> Path:
    """The asset's folder in the Hub's cache, with the files named downloaded into it; offline, as it is there.

    Raises:
        MogleError: it cannot be had.
    """
    local, where = offline(), _repository(asset, revision)
    try:
        return Path(_hub().snapshot_download(**where, allow_patterns=names, local_files_only=local))
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # a full disk, no permission
            raise
        if local and (folder := getattr(error, "snapshot_path", None)):  # other files of the repository are missing
            return Path(folder)
        raise _refusal(asset, error) from error


def _refusal(asset: Asset, error: Exception) -> MogleError:
    """The user's error for a request that failed."""
    if offline():
        return MogleError(f"{asset.source}: not on this machine; unset HF_HUB_OFFLINE, or use --from")
    status = getattr(getattr(error, "response", None), "status_code", getattr(error, "code", None))
    if status in (401, 403):
        page = f"https://huggingface.co/{'datasets/' * (asset.kind == 'data')}{asset.hub}" if asset.hub else asset.url
        what = f"accept the licence at {page}, then log in with `hf auth login` or HF_TOKEN"
        return MogleError(f"{asset.source}: access refused ({status}); {what}")
    line = (" ".join(str(error).split()) or type(error).__name__)[:200]
    return MogleError(f"{asset.source}: not to be had ({line}); try again, set HF_ENDPOINT to a mirror, or use --from")


def stream(asset: Asset, remote: Remote, path: Path) -> None:
    """Download one file; until it is whole it is called NAME.part, and a later call goes on from there.

    A part whose whole is not known by its hash is begun anew: the file may have changed since.

    Raises:
        MogleError: it was cut off, or refused.
        OSError: the disk is full.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    path.parent.mkdir(parents=True, exist_ok=True)
    part, headers = Path(f"{path}.{remote.sha256[:12]}.part"), build_hf_headers(token=None if asset.hub else False)
    begun = part.exists() and remote.sha256 and part.stat().st_size <= remote.size
    have, before = part.stat().st_size if begun else 0, -1
    while have > before:  # an attempt that brought something is followed by another
        before = have
        try:
            with part.open("ab") as target:
                target.truncate(have)
                http_get(remote.url, target, resume_size=have, headers=headers, expected_size=remote.size or None)
            part.replace(path)
            return
        except Exception as error:
            if getattr(error, "errno", None):  # a full disk
                raise
            if getattr(error, "response", None) is not None:
                raise _refusal(asset, error) from error
            have, why = part.stat().st_size, error
    raise MogleError(f"{remote.url}: cut off at {have:,} bytes ({why}); give the same command again")
