"""The ledger of weights and data sets, `mogle/assets.toml`, and the lock file that downloads are held to."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import tomllib
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from mogle.errors import MogleError
from mogle.files import atomic_write

LEDGER = Path(__file__).resolve().parents[1] / "assets.toml"


class File(BaseModel, extra="forbid", frozen=True):
    """A file of an asset, or several by a pattern. Of `names` the first that the source has is taken."""

    names: tuple[str, ...]
    size: int
    sha256: str
    optional: bool = False


class Asset(BaseModel, extra="forbid", frozen=True):
    """An entry of the ledger; the head of assets.toml says what each field means."""

    name: str
    kind: Literal["weights", "data"]
    title: str
    hub: str
    url: str
    revision: str
    files: tuple[File, ...]
    holds: tuple[str, ...]
    licence: str
    licence_url: str
    gated: Literal["yes", "no", ""]
    to: str
    tiers: tuple[str, ...]
    notebooks: tuple[str, ...]
    unverified: tuple[str, ...]

    @property
    def source(self) -> str:
        """The Hub's name or the address."""
        return self.hub or self.url

    def wanted(self, available: Collection[str], where: object) -> list[str]:
        """The names among `available` that make up the asset.

        Raises:
            MogleError: one that is needed is not among them, or one leads out of the folder.
        """
        chosen: list[str] = []
        for file in self.files:
            found = next((some for name in file.names if (some := fnmatch.filter(available, name))), [])
            if not found and not file.optional:
                raise MogleError(f"{where}: found no {' or '.join(file.names)}, which {self.name} needs")
            chosen += found
        if outside := [name for name in chosen if ".." in name.split("/")]:
            raise MogleError(f"{where}: refused, the name {outside[0]!r} leads out of the folder")
        return chosen


@cache
def ledger() -> dict[str, Asset]:
    """All entries by name."""
    entries = tomllib.loads(LEDGER.read_text(encoding="utf-8"))
    return {name: Asset(name=name, **entry) for name, entry in entries.items()}


def find(name: str, kind: str) -> Asset:
    """The entry of that name.

    Raises:
        MogleError: there is none of this kind.
    """
    names = [one.name for one in ledger().values() if one.kind == kind]
    if name not in names:
        raise MogleError(f"{name}: found no {kind} of that name, expected one of {', '.join(names)}")
    return ledger()[name]


def lock_file() -> Path:
    """Where is kept what earlier downloads saw: MOGLE_ASSETS_LOCK, or assets.lock.json in the user's cache."""
    return Path(os.environ.get("MOGLE_ASSETS_LOCK") or Path.home() / ".cache" / "mogle" / "assets.lock.json")


def _locks() -> dict[str, Any]:
    path = lock_file()
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise MogleError(f"{path}: not JSON ({error}); repair this lock file or move it away") from error


def read_lock(asset: Asset) -> dict[str, Any]:
    """{revision, files: {name: {size, sha256}}} of an asset's source, empty where nothing is known."""
    return _locks().get(asset.source, {"revision": "", "files": {}})


def write_lock(asset: Asset, revision: str, seen: dict[str, dict[str, Any]]) -> None:
    """Keep what a download saw; what was kept before stays."""
    old = read_lock(asset)
    entry = {"revision": old["revision"] or revision, "files": {**seen, **old["files"]}}
    with atomic_write(lock_file()) as part:
        part.write_text(json.dumps(_locks() | {asset.source: entry}, indent=1, sort_keys=True), encoding="utf-8")


def verify(asset: Asset, name: str, path: Path, **published: Any) -> dict[str, Any]:
    """A file's {size, sha256}, once they agree with ledger, lock file and what the source has published.

    Raises:
        MogleError: they do not; says who knows otherwise.
    """
    with path.open("rb") as handle:
        found = {"size": path.stat().st_size, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
    ours = next((file.model_dump() for file in asset.files if name in file.names), {})
    known = {"the ledger": ours, str(lock_file()): read_lock(asset)["files"].get(name, {}), asset.source: published}
    for who, facts in known.items():
        for fact, value in found.items():
            if facts.get(fact) and facts[fact] != value:
                raise MogleError(f"{path}: found {fact} {value}, expected {facts[fact]}, says {who}")
    return found
