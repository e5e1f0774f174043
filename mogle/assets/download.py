"""Bytes from the Hub or from an address.

The Hub is asked through huggingface_hub, so its token, its mirrors (HF_ENDPOINT) and its offline mode (HF_HUB_OFFLINE)
count. Its `hf_hub_download` begins a file anew when a process has ended, and files have 10 GB; `stream` goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from huggingface_hub import HfApi, constants, hf_hub_url, snapshot_download
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from mogle.assets.ledger import Asset, read_lock
from mogle.errors import MogleError


class Remote(NamedTuple):
    """A file at its source: its name within the asset, its address, size (0: unknown) and hash (empty: unknown)."""

    name: str
    url: str
    size: int = 0
    sha256: str = ""


def _repository(asset: Asset) -> dict[str, Any]:
    revision = asset.revision or read_lock(asset)["revision"] or None
    return {"repo_id": asset.hub, "repo_type": "dataset" if asset.kind == "data" else "model", "revision": revision}


def listing(asset: Asset) -> tuple[str, list[Remote]]:
    """The revision that a source has (empty for an address), and the files there that make up the asset.

    Raises:
        MogleError: the source cannot be reached, wants a licence accepted, or lacks a file.
    """
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


def hub_cache(asset: Asset, names: list[str] | None = None) -> Path:
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


def stream(asset: Asset, remote: Remote, path: Path) -> None:
    """Download one file; until it is whole it is called NAME.part, and a later call goes on from there.

    A part whose whole is not known by its hash is begun anew: the file may have changed since.

    Raises:
        MogleError: it was cut off, or refused.
        OSError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
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
