"""Data sets that are streamed: Parquet files and an image folder, made on the spot and read without a network."""

import io
import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mogle.datasets import FaceDataset
from mogle.datasets.stream import BUFFER, Endless, FaceStream
from mogle.errors import MogleError, MogleWarning
from mogle.labels import save_mask
from mogle.training.finetune import fine_tune
from mogle.training.plan import describe
from mogle.training.settings import load_train_settings

DATA = Path(__file__).resolve().parents[1] / "data" / "portraits"
datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No network, and a cache of its own."""

    def refuse(*_, **__):
        raise OSError("the network is off in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub-cache"))


def plain(count: int) -> FaceDataset:
    data = FaceDataset(DATA)
    data.ids = data.ids[:count]
    return data


def parquet(folder: Path, count: int = 6, files: int = 2, **columns) -> Path:
    """The first portraits as Parquet files, masks as the bytes of their palette PNGs."""
    folder.mkdir(parents=True)
    data, each = plain(count), count // files
    features = {"id": datasets.Value("string"), "image": datasets.Image(), "mask": datasets.Image()}
    for number in range(files):
        rows = range(number * each, (number + 1) * each)
        values = {
            "id": [data.ids[i] for i in rows],
            "image": [{"bytes": data.picture_file(i).read_bytes(), "path": None} for i in rows],
            "mask": [{"bytes": data.mask_file(i).read_bytes(), "path": None} for i in rows],
            "captions": [data.captions(i) for i in rows],
        }
        values |= {name: change(values[name]) for name, change in columns.items()}
        known = datasets.Features({**features, "captions": datasets.List(datasets.Value("string"))})
        kept = {name: values[name] for name in known if values[name] is not None}
        made = datasets.Dataset.from_dict(kept, features=datasets.Features({name: known[name] for name in kept}))
        made.to_parquet(folder / f"train-{number:05}.parquet")
    return folder


def same(one, other) -> bool:
    pictures = np.array_equal(np.asarray(one.image), np.asarray(other.image))
    return pictures and np.array_equal(one.label_map, other.label_map) and one.captions == other.captions


def test_a_stream_has_the_samples_of_the_folder_that_it_was_made_of(tmp_path):
    stream = FaceStream(str(parquet(tmp_path / "set")), seed=None)
    for streamed, sample in zip(stream, plain(6), strict=True):
        assert streamed.id == sample.id and same(streamed, sample)
    small = FaceStream(str(tmp_path / "set"), size=64, seed=None, count=3)
    assert [sample.label_map.shape for sample in small] == [(64, 64)] * 3
    assert small.image(0).size == (64, 64) and small.captions(2) == plain(6).captions(2)


def test_an_image_folder_with_sentences_beside_it(tmp_path):
    data, lines = plain(3), []
    (tmp_path / "set" / "train").mkdir(parents=True)
    for i, name in enumerate(data.ids):
        shutil.copy(data.picture_file(i), tmp_path / "set" / "train" / f"{name}.jpg")
        shutil.copy(data.mask_file(i), tmp_path / "set" / "train" / f"mask-{name}.png")
        files = {"file_name": f"{name}.jpg", "mask_file_name": f"mask-{name}.png"}
        lines.append(json.dumps({**files, "text": "\n".join(data.captions(i))}))
    (tmp_path / "set" / "train" / "metadata.jsonl").write_text("\n".join(lines))
    found = {sample.id: sample for sample in FaceStream(str(tmp_path / "set"))}
    assert set(found) == set(data.ids) and all(same(found[sample.id], sample) for sample in data)


def test_the_order_follows_from_the_seed_and_no_place_depends_on_how_it_was_reached(tmp_path):
    name = str(parquet(tmp_path / "set"))
    orders = [[FaceStream(name, seed=seed).ids[i] for i in range(18)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    epochs = [orders[0][i : i + 6] for i in (0, 6, 12)]
    assert all(sorted(epoch) == sorted(plain(6).ids) for epoch in epochs) and epochs[0] != epochs[1]
    stream = FaceStream(name, kept=2)
    assert [stream.ids[i] for i in (16, 17, 16, 3, 4, 0)] == [orders[0][i] for i in (16, 17, 16, 3, 4, 0)]
    assert len(stream._held) <= 2 and isinstance(stream.ids, Endless)


def test_pictures_that_nobody_asks_for_are_not_decoded(tmp_path, monkeypatch):
    stream, opened = FaceStream(str(parquet(tmp_path / "set")), seed=None), []
    monkeypatch.setattr("mogle.datasets.stream.read_rgb", lambda source, name: opened.append(name) or source)
    stream.image(5)
    assert len(opened) == 1


def test_training_on_a_stream_keeps_nothing_and_can_be_cut_in_two(tmp_path):
    name = parquet(tmp_path / "set")
    pairs = [f"data=hf:{name}", "size=64", "batch=2", "warm_start=1", "save_every=1", "rank=2"]
    runs = {}
    for out, cuts in (("whole", (4,)), ("cut", (2, 4))):
        for steps in cuts:
            settings = load_train_settings("tiny", [*pairs, "steps=4", "schedule=constant", f"steps={steps}"])
            facts = fine_tune(tmp_path / out, settings, cache=tmp_path / "cache", device="cpu")
        lines = (tmp_path / out / "metrics.jsonl").read_text().splitlines()
        runs[out] = [json.loads(line)["loss"] for line in lines]
        assert (facts["steps"], facts["samples"], facts["skipped"]) == (4, 8, 0)
    assert runs["whole"] == runs["cut"] and not (tmp_path / "cache").exists()
    held = [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix in (".arrow", ".jpg")]
    assert held == [] and "streamed, its first sample is" in describe(settings, device="cpu")


def broken(values):
    return [{"bytes": b"no picture", "path": None}, *values[1:]]


def test_what_is_wrong_is_said_of_the_sample_or_left_out(tmp_path):
    name = str(parquet(tmp_path / "set", image=broken))
    with pytest.raises(MogleError, match="image of 0: found no image in the file"):
        list(FaceStream(name, seed=None))
    stream = FaceStream(name, seed=None, skip_bad=True)
    assert [stream.ids[i] for i in range(8)] == ["1", "2", "4", "5", "1", "2", "4", "5"]  # the first of each file
    assert {finding.id for finding in stream.problems} == {"0", "3"}
    with pytest.raises(MogleError, match="caption: found"):
        FaceStream(name, seed=None, caption_problem=lambda text: "caption: found too much").captions(1)
    all_bad = str(parquet(tmp_path / "bad", image=lambda values: [broken(values)[0]] * len(values)))
    with pytest.raises(MogleError, match=r"no usable sample \(6 with problems\)"):
        FaceStream(all_bad, skip_bad=True).image(0)
    empty = str(parquet(tmp_path / "empty", captions=lambda values: [[" "]] * len(values)))
    with pytest.raises(MogleError, match="found no caption of 0"):
        list(FaceStream(empty, seed=None))


def test_a_note_is_given_once_for_each_kind(tmp_path):
    def mirrored(values):
        for value in values:
            turned = np.asarray(Image.open(io.BytesIO(value["bytes"])))[:, ::-1].copy()
            save_mask(file := io.BytesIO(), turned)
            value["bytes"] = file.getvalue()
        return values

    name = str(parquet(tmp_path / "set", mask=mirrored))
    with pytest.warns(MogleWarning, match="mask of 0: found every left part .*more like it") as notes:
        assert len(list(FaceStream(name, seed=None))) == 6
    assert len(notes) == 1


def test_what_is_no_data_set_is_one_line(tmp_path):
    with pytest.raises(MogleError, match=r"found columns id, image, captions; expected mask in mask or"):
        FaceStream(str(parquet(tmp_path / "set", mask=lambda _: None)))
    for name, split in ((tmp_path / "absent", "train"), (tmp_path / "set", "test"), ("owner/name", "train")):
        with pytest.raises(MogleError, match="not to be had as a data set") as caught:
            FaceStream(str(name), split)
        assert "\n" not in str(caught.value)
    (file := next((tmp_path / "set").glob("*.parquet"))).write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(MogleError, match="not to be had|reading stopped"):
        FaceStream(str(tmp_path / "set"))
    assert BUFFER >= 100
