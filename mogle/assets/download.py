"""Bytes from the Hub or from an address.

The Hub is asked through huggingface_hub, so its token, its mirrors (HF_ENDPOINT) and its offline mode (HF_HUB_OFFLINE)
count. Bytes are read here: huggingface_hub begins a file anew when a process has ended, which at 10 GB a file matters.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mogle.assets.ledger import Asset
from mogle.errors import MogleError

CHUNK, ATTEMPTS, PAUSE, TIMEOUT = 1 << 20, 6, 2.0, 30


class Remote(NamedTuple):
    """A file at its source: its name within the asset, its address, size (0: unknown) and hash (empty: unknown)."""

    name: str
    url: str
    size: int = 0
    sha256: str = ""


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _repository(asset: Asset) -> dict[str, Any]:
    return {"repo_id": asset.hub, "repo_type": "dataset" if asset.kind == "data" else "model"}


def listing(asset: Asset, revision: str) -> tuple[str, list[Remote]]:
    """The revision that a source has (empty for an address), and the files there that make up the asset.

    Raises:
        MogleError: the source cannot be reached, wants a licence accepted, or lacks a file.
    """
    if asset.url:
        return "", [Remote(asset.url.rsplit("/", 1)[1], asset.url)]
    from huggingface_hub import HfApi, hf_hub_url

    where, endpoint = _repository(asset), _endpoint()
    try:
        info = HfApi(endpoint=endpoint).repo_info(**where, revision=revision or None, files_metadata=True)
    except Exception as error:  # httpx's or requests', depending on the version of huggingface_hub
        raise _refusal(asset, error) from error
    there = {one.rfilename: one for one in info.siblings or []}
    remotes = []
    for name in asset.wanted(there, asset.hub):
        url = hf_hub_url(**where, filename=name, revision=info.sha, endpoint=endpoint)
        lfs = there[name].lfs
        remotes.append(Remote(name, url, there[name].size or 0, lfs.sha256 if lfs else ""))
    return info.sha or "", remotes


def hub_cache(asset: Asset, revision: str, names: Sequence[str] | None = None) -> Path:
    """The asset's folder in the Hub's cache, with the files named downloaded into it; offline, as it is there.

    Raises:
        MogleError: it cannot be had.
    """
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"endpoint": _endpoint(), "allow_patterns": names, "local_files_only": offline()}
    try:
        return Path(snapshot_download(**_repository(asset), revision=revision or None, **options))
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # a full disk, no permission
            raise
        if offline() and (found := getattr(error, "snapshot_path", None)):  # other files of the repository are missing
            return Path(found)
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
    """Download one file, going on where an earlier call was cut off; until it is whole it is called NAME.part.

    Raises:
        MogleError: it was cut off again and again, or refused.
        OSError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, failures = Path(f"{path}.part"), 0
    part.touch()
    while True:
        before = part.stat().st_size
        total, trouble = _read_on(asset, remote, part, before) if before != (remote.size or -1) else (before, "")
        have, total = part.stat().st_size, remote.size or total
        if not trouble and have == (total or have):
            part.with_suffix(".etag").unlink(missing_ok=True)
            part.replace(path)
            return
        if have > (total or have):  # the part was begun from another file
            part.write_bytes(b"")
        failures = 0 if have > before else failures + 1
        if failures == ATTEMPTS:
            why = f"cut off at {have:,} of {total or 'unknown':,} bytes ({trouble or 'the connection ended'})"
            raise MogleError(f"{remote.url}: {why}; the same command goes on from there")
        time.sleep(PAUSE * failures)


def _read_on(asset: Asset, remote: Remote, part: Path, have: int) -> tuple[int, str]:
    """Append what one connection gives to a part -> (size of the whole file or 0, what went wrong or "")."""
    from tqdm import tqdm

    tag, request = part.with_suffix(".etag"), urllib.request.Request(remote.url)
    if asset.hub:
        from huggingface_hub.utils import build_hf_headers

        for key, value in build_hf_headers().items():  # the token goes to the Hub, never to where it redirects
            request.add_unredirected_header(key, value)
    if have and tag.exists() and (etag := tag.read_text()):
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", etag)
    total = 0
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except (OSError, http.client.HTTPException) as error:
        code = getattr(error, "code", 500)
        if code == 416:  # the part is longer than the file
            part.write_bytes(b"")
        elif code < 500 and code not in (408, 429):
            raise _refusal(asset, error) from error
        return 0, str(error)
    with response, part.open("r+b") as target:
        target.seek(have if response.status == 206 else 0)
        target.truncate()
        tag.write_text(response.headers.get("ETag", ""))
        total = target.tell() + int(length) if (length := response.headers.get("Content-Length")) else 0
        with tqdm(desc=remote.name, total=total, initial=target.tell(), unit="B", unit_scale=True, disable=None) as bar:
            while True:
                try:
                    chunk = response.read1(CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    return total, str(error)
                if not chunk:
                    return total, ""
                target.write(chunk)
                bar.update(len(chunk))
