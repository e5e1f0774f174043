"""Downloads that are cut off, damaged or refused, copies at hand, and where things end up."""

import errno
import hashlib
import io
import json
import random
import shutil
import zipfile
from pathlib import Path

import pytest

from mogle.assets import fetch, ledger
from mogle.assets.fetch import get
from mogle.errors import MogleError


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.name.endswith(".part")]


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def dataset(top: str = "", **extra: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name in ("face/0.jpg", "mask/0.png", "text/0.txt", "text.json"):
            made.writestr(top + name, noise(2000, len(name)))
        for name, data in extra.items():
            made.writestr(name, data)
    return buffer.getvalue()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


DATA = {"kind": "data", "name": "set", "holds": ("face", "mask", "text"), "to": "data/set"}


# --- cut off -----------------------------------------------------------------------------------------------------


def fetch_until_whole(asset, server) -> int:
    """Give the command again until it succeeds -> how often."""
    for attempt in range(1, 100):
        try:
            get(asset)
            return attempt
        except MogleError as error:
            assert "give the same command again" in str(error)
    raise AssertionError("never whole")


def test_a_download_from_the_hub_cut_off_fifty_times_ends_whole(server, asset):
    server.files = {"a.safetensors": noise(90_000), "b/c.json": noise(10_000, 1), "other.bin": b"not asked for"}
    server.cuts = 50
    thing = asset("a.safetensors", "b/*.json")
    fetch_until_whole(thing, server)
    assert server.cuts == 0 and leftovers(Path()) == []
    assert tree(Path("runs/thing")) == {k: v for k, v in server.files.items() if k != "other.bin"}
    sent = sum(1 for _, _, headers in server.requests if "Range" in headers)
    assert sent > 30, "went on instead of beginning anew"


@pytest.mark.parametrize("tags", [True, False])
def test_a_download_from_an_address_cut_off_fifty_times_ends_whole(server, asset, tags):
    server.files, server.cuts, server.tags = {"net.pt": noise(70_000 if tags else 1500)}, 50, tags
    thing = asset("net.pt", hub="", url=f"{server.url}/net.pt")
    fetch_until_whole(thing, server)
    assert server.cuts <= 0 if tags else True
    assert tree(Path("runs/thing")) == server.files and leftovers(Path()) == []


def test_a_data_set_cut_off_is_whole_or_not_there(server, asset):
    server.files, server.cuts = {"set.zip": dataset()}, 50
    thing = asset("set.zip", **DATA)
    for _ in range(100):
        try:
            get(thing)
            break
        except MogleError:
            assert not Path("data/set").exists()
    assert set(tree(Path("data/set"))) == {"face/0.jpg", "mask/0.png", "text/0.txt", "text.json"}
    assert [p.name for p in Path("data").iterdir()] == ["set"]


@pytest.mark.parametrize("size", [50_000, 90_000])
def test_a_file_that_changed_between_two_attempts_is_not_mixed(server, asset, size):
    server.files = {"net.pt": noise(50_000)}
    begun = Path("runs/.thing.thing.part/files/net.pt..part")
    begun.parent.mkdir(parents=True)
    begun.write_bytes(noise(size, seed=9)[: size - 20_000])
    get(asset("net.pt", hub="", url=f"{server.url}/net.pt"))
    assert tree(Path("runs/thing")) == server.files and leftovers(Path()) == []


def test_what_an_ended_process_left_is_gone_on_from(server, asset):
    server.files = {"a.bin": noise(50_000)}
    begun = Path(f"runs/.thing.thing.part/files/a.bin.{sha(server.files['a.bin'])[:12]}.part")
    begun.parent.mkdir(parents=True)
    begun.write_bytes(server.files["a.bin"][:20_000])
    get(asset("a.bin"))
    assert tree(Path("runs/thing")) == server.files and leftovers(Path()) == []
    assert "bytes=20000-" in [titled(headers).get("Range") for _, _, headers in server.requests]


@pytest.mark.parametrize("size", [20_000, 60_000])
def test_a_damaged_part_is_found_and_the_next_attempt_is_whole(server, asset, size):
    server.files = {"a.bin": noise(50_000)}
    begun = Path(f"runs/.thing.thing.part/files/a.bin.{sha(server.files['a.bin'])[:12]}.part")
    begun.parent.mkdir(parents=True)
    begun.write_bytes(noise(size, seed=5))
    if size < 50_000:
        with pytest.raises(MogleError, match="found sha256 .* it was removed"):
            get(asset("a.bin"))
        assert not Path("runs/thing").exists()
    get(asset("a.bin"))
    assert tree(Path("runs/thing")) == server.files


# --- wrong, refused, full ----------------------------------------------------------------------------------------


def test_a_wrong_byte_is_found_by_what_the_hub_publishes(server, asset):
    server.files = {"a.bin": noise(5000), "b.bin": noise(100)}
    wrong = bytearray(server.files["a.bin"])
    wrong[1234] ^= 1
    server.wrong = {"a.bin": bytes(wrong)}
    with pytest.raises(MogleError, match=r"a\.bin: found sha256 .*, expected .*, says owner/name; it was removed"):
        get(asset("a.bin", "b.bin"))
    assert not Path("runs/thing").exists() and not ledger.lock_file().exists()
    server.wrong = {}
    get(asset("a.bin", "b.bin"))
    assert tree(Path("runs/thing")) == server.files


def test_a_wrong_byte_is_found_by_the_ledger(server, asset):
    server.files = {"a.bin": b"some"}
    thing = asset("a.bin")
    thing = thing.model_copy(update={"files": (ledger.File(names=("a.bin",), size=4, sha256="0" * 64),)})
    with pytest.raises(MogleError, match="says the ledger"):
        get(thing)


def test_later_downloads_are_held_to_the_first(server, asset):
    server.files = {"net.pt": b"first"}
    thing = asset("net.pt", hub="", url=f"{server.url}/net.pt")
    get(thing)
    locked = json.loads(ledger.lock_file().read_text())
    assert locked[thing.url]["files"]["net.pt"]["size"] == 5
    shutil.rmtree("runs")
    server.files = {"net.pt": b"other"}
    with pytest.raises(MogleError, match=f"found sha256 .* says {ledger.lock_file()}; it was removed"):
        get(thing)
    assert tree(Path("runs")) == {} and json.loads(ledger.lock_file().read_text()) == locked
    Path("copies").mkdir()
    Path("copies/net.pt").write_bytes(b"other")
    with pytest.raises(MogleError, match="says .*assets.json"):
        get(thing, Path("copies"))
    assert tree(Path("runs")) == {}


def test_later_downloads_take_the_revision_of_the_first(server, asset):
    server.files = {"a.bin": b"some"}
    get(asset("a.bin"))
    shutil.rmtree("runs")
    server.requests.clear()
    get(asset("a.bin"))
    assert json.loads(ledger.lock_file().read_text())["owner/name"]["revision"] in server.requests[0][1]


def test_a_broken_lock_file_is_named(server, asset):
    ledger.lock_file().parent.mkdir()
    ledger.lock_file().write_text("{")
    with pytest.raises(MogleError, match=r"assets\.json: not JSON"):
        get(asset("a.bin"))


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_source_says_where_to_accept(server, asset, status):
    server.refuse = status
    with pytest.raises(
        MogleError, match=f"refused .{status}.; accept the licence at https://huggingface.co/owner/name"
    ):
        get(asset("a.bin"))
    with pytest.raises(MogleError, match="refused"):
        get(asset("net.pt", hub="", url=f"{server.url}/net.pt"))


@pytest.mark.parametrize("status", [404, 410])
def test_a_source_that_is_gone_is_said(server, asset, status):
    server.refuse = status
    for thing in (asset("a.bin"), asset("net.pt", hub="", url=f"{server.url}/net.pt")):
        with pytest.raises(MogleError, match="not to be had"):
            get(thing)


def test_a_file_that_the_source_lacks_is_named(server, asset):
    server.files = {"a.bin": b"x"}
    with pytest.raises(MogleError, match=r"owner/name: found no mogle\.pt or moe\.pt, which thing needs"):
        get(asset("a.bin", "mogle.pt|moe.pt"))


def test_a_name_that_leads_out_is_refused(server, asset):
    server.files = {"a/../../evil.bin": b"x"}
    with pytest.raises(MogleError, match="leads out of the folder"):
        get(asset("a/*.bin"))


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


class FullAfter(io.FileIO):
    """A file on a disk that has room for 5,000 bytes more."""

    room = 5000

    def write(self, data):
        if len(data) > self.room:
            full()
        self.room -= len(data)
        return super().write(data)


@pytest.mark.parametrize("step", ["download", "unpack", "copy", "place"])
def test_a_full_disk_leaves_nothing_half_there(server, asset, monkeypatch, step):
    server.files = {"set.zip": dataset(), "a.bin": noise(50_000)}
    thing, source = (asset("set.zip", **DATA), None) if step == "unpack" else (asset("a.bin"), None)
    with monkeypatch.context() as patch:
        if step == "download":
            opened = Path.open

            def on_full_disk(path, mode="r", *rest, **options):
                return FullAfter(path, mode) if path.suffix == ".part" else opened(path, mode, *rest, **options)

            patch.setattr(Path, "open", on_full_disk)
        elif step == "unpack":
            patch.setattr(zipfile.shutil, "copyfileobj", full)
        elif step == "copy":
            Path("from").mkdir()
            Path("from/a.bin").write_bytes(b"x")
            source = Path("from")
            patch.setattr(fetch.shutil, "copyfile", full)
        else:
            patch.setattr(fetch.os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            get(thing, source)
    assert [p for top in ("runs", "data") for p in Path(top).rglob("*")] == []
    get(thing)
    assert tree(Path(thing.to))


def test_a_download_that_cannot_fit_is_not_begun(server, asset, monkeypatch):
    server.files = {"a.bin": noise(5000)}
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 6, 4))
    with pytest.raises(MogleError, match="takes 5,000 bytes, and 4 are free"):
        get(asset("a.bin"))
    assert not any("/resolve/" in path for _, path, _ in server.requests)


# --- what is at hand ---------------------------------------------------------------------------------------------


def test_what_is_there_is_kept_and_what_is_missing_comes(server, asset):
    server.files = {"a.bin": b"one", "b.bin": b"two"}
    Path("runs/thing").mkdir(parents=True)
    Path("runs/thing/a.bin").write_bytes(b"one")
    Path("runs/thing/config.yaml").write_text("mine")
    get(asset("a.bin", "b.bin"))
    assert tree(Path("runs/thing")) == {**server.files, "config.yaml": b"mine"}
    assert not any("a.bin" in path for _, path, _ in server.requests)
    Path("runs/thing/a.bin").write_bytes(b"eno")
    with pytest.raises(MogleError, match="move it away"):
        get(asset("a.bin", "b.bin"))
    assert Path("runs/thing/a.bin").read_bytes() == b"eno"


@pytest.mark.parametrize("form", ["folder", "zip", "top folder", "unpacked", "unpacked top folder"])
def test_a_data_set_at_hand_needs_no_network(asset, server, no_network, form):
    top = "any/" if "top" in form else ""
    Path("in").mkdir()
    Path("in/set.zip").write_bytes(dataset(top))
    source = Path("in/set.zip" if form in ("zip", "top folder") else "in")
    if "unpacked" in form:
        zipfile.ZipFile("in/set.zip").extractall("out")
        source = Path("out")
    assert get(asset("set.zip", **DATA), source) == Path("data/set")
    assert {"face/0.jpg", "text.json"} <= set(tree(Path("data/set"))) and source.exists() and not no_network
    assert get(asset("set.zip", **DATA)) == Path("data/set"), "already there"


@pytest.mark.parametrize("form", ["folder", "zip", "file"])
def test_weights_at_hand_need_no_network(asset, server, no_network, form):
    Path("in").mkdir()
    with zipfile.ZipFile("in/all.zip", "w") as made:
        for folder in ("in", "zip"):
            (Path("in/mogle.pt") if folder == "in" else Path("x")).write_bytes(b"x")
        made.writestr("mogle.pt", b"x")
    source = {"folder": Path("in"), "zip": Path("in/all.zip"), "file": Path("in/mogle.pt")}[form]
    thing = asset("moe.pt|mogle.pt")
    assert get(thing, source, Path("elsewhere/deep")) == Path("elsewhere/deep")
    assert tree(Path("elsewhere")) == {"deep/mogle.pt": b"x"} and not no_network and source.exists()
    assert get(thing, source, Path("elsewhere/deep")) == Path("elsewhere/deep"), "again"


def test_a_zip_that_is_no_such_data_set_says_what_it_has(asset, server):
    with zipfile.ZipFile("a.zip", "w") as made:
        made.writestr("pictures/0.jpg", b"x")
    with pytest.raises(MogleError, match=r"a\.zip: found pictures, expected face, mask, text"):
        get(asset("set.zip", **DATA), Path("a.zip"))
    assert not Path("data/set").exists()


def test_offline_what_is_there_is_enough(asset, server, no_network, offline):
    offline()
    Path("runs/thing").mkdir(parents=True)
    Path("runs/thing/a.bin").write_bytes(b"x")
    assert get(asset("a.bin")) == Path("runs/thing") and tree(Path("runs")) == {"thing/a.bin": b"x"}
    with pytest.raises(MogleError, match="runs/thing: found no b.bin"):
        get(asset("a.bin", "b.bin"))
    assert not no_network and tree(Path("runs")) == {"thing/a.bin": b"x"}


def test_offline_mode_reaches_for_nothing(asset, server, no_network, offline):
    offline()
    things = [asset("a.bin"), asset("a.bin", to="HUB_CACHE"), asset("set.zip", **DATA)]
    for thing in [*things, asset("net.pt", hub="", url=f"{server.url}/net.pt")]:
        with pytest.raises(MogleError, match="not on this machine; unset HF_HUB_OFFLINE, or use --from"):
            get(thing)
    assert not no_network and not server.requests


def test_the_hub_cache_is_filled_and_serves_offline(asset, server, offline, request):
    server.files = {"config.json": b"{}", "model.safetensors": noise(3000), "tf_model.h5": noise(10)}
    thing = asset("*.json", "model.safetensors|pytorch_model.bin", to="HUB_CACHE")
    folder = get(thing)
    assert set(tree(folder)) == {"config.json", "model.safetensors"}
    offline()
    tried = request.getfixturevalue("no_network")
    assert get(thing) == folder
    assert tree(get(thing, to=Path("copy"))) == tree(folder) and not tried


def test_a_wrong_byte_does_not_stay_in_the_hub_cache(asset, server):
    server.files, server.wrong = {"a.bin": b"right"}, {"a.bin": b"wrong"}
    with pytest.raises(MogleError, match="found sha256"):
        get(asset("a.bin", to="HUB_CACHE"))
    assert b"wrong" not in tree(Path("hub")).values()
    server.wrong = {}
    assert tree(get(asset("a.bin", to="HUB_CACHE"))) == server.files


def test_the_token_stays_with_the_hub(asset, server, monkeypatch):
    server.files = {"a.bin": b"x"}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    get(asset("a.bin"))
    sent = [headers for _, path, headers in server.requests if "/resolve/" in path]
    assert sent and all(headers.get("Authorization") == "Bearer hf_secret" for headers in map(titled, sent))
    server.requests.clear()
    get(asset("a.bin", hub="", url=f"{server.url}/a.bin", to="other"))
    assert all("Authorization" not in titled(headers) for _, _, headers in server.requests)


def titled(headers: dict[str, str]) -> dict[str, str]:
    return {key.title(): value for key, value in headers.items()}
