"""Data sets of 1,000 samples in each layout that there is: loaded, checked, and used all the way."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mogle.cli import app
from mogle.datasets import FaceDataset
from mogle.datasets.check import check
from mogle.errors import MogleError
from mogle.labels import LABELS, resize_labels, save_mask

ROOT = Path(__file__).resolve().parents[1]
COUNT = 1000
FACE = np.asarray(Image.open(ROOT / "tests/cases/masks/rgb_labels_repeated.png"))[..., 0]
MAPS = [resize_labels(one, 64) for one in (FACE, np.roll(FACE, 4, axis=1))]  # pictures have twice the masks' side
CAPTIONS = [f"She has {colour} hair." for colour in ("blond", "black", "brown", "red", "gray") for _ in range(2)]


def fill(root: Path, names: list[str], *, masks: bool = True, texts: bool = True, in_json: bool = False) -> Path:
    """Faces of a few colours, two masks, ten captions each."""
    for folder in ["face", *["mask"] * masks, *["text"] * texts]:
        (root / folder).mkdir(parents=True)
    pictures = []
    for k in range(8):
        Image.new("RGB", (128, 128), (30 * k, 90, 90)).save(root / "picture.jpg")
        pictures.append((root / "picture.jpg").read_bytes())
    for k, label_map in enumerate(MAPS):
        save_mask(root / f"{k}.png", label_map)
    label_maps = [(root / f"{k}.png").read_bytes() for k in range(len(MAPS))]
    for file in root.glob("*.*"):
        file.unlink()
    for k, name in enumerate(names):
        (root / "face" / f"{name}.jpg").write_bytes(pictures[k % 8])
        if masks:
            (root / "mask" / f"{name}.png").write_bytes(label_maps[k % 2])
        if texts:
            (root / "text" / f"{name}.txt").write_text("\n".join(CAPTIONS) + "\n")
    if in_json:
        (root / "text.json").write_text(json.dumps({f"{name}.jpg": CAPTIONS for name in names}))
    return root


def celeba(root: Path) -> Path:
    return fill(root, [str(i) for i in range(26_500, 27_500)], in_json=True)


def ffhq_female(root: Path) -> Path:
    return fill(root, [f"{i:05}" for i in range(1, COUNT + 1)], in_json=True)


def fairface(root: Path) -> Path:
    return fill(root, [str(52 + 17 * i) for i in range(COUNT)])


def raw_parts(root: Path) -> Path:
    """CelebAMask-HQ: a black-and-white picture for each part, in folders of 100; merged as a user would."""
    fill(root, [str(i) for i in range(COUNT)], masks=False)
    parts: dict[tuple[int, int], bytes] = {}
    for k, label_map in enumerate(MAPS):
        for label in np.unique(label_map)[1:]:
            Image.fromarray((label_map == label).astype(np.uint8) * 255).save(root / "part.png")
            parts[k, int(label)] = (root / "part.png").read_bytes()
    (root / "part.png").unlink()
    for i in range(COUNT):
        folder = root.parent / "anno" / str(i // 100)
        folder.mkdir(parents=True, exist_ok=True)
        for (k, label), data in parts.items():
            if k == i % 2:
                (folder / f"{i:05}_{LABELS[label]}.png").write_bytes(data)
    with pytest.raises(SystemExit) as ended:
        app(["data", "merge-parts", str(root.parent / "anno"), str(root / "mask")], prog_name="mogle")
    assert not ended.value.code
    return root


def portraits(root: Path) -> Path:
    """As `mogle data paint` writes them: attributes beside the sentences, and a note of whose set it is."""
    fill(root, [str(i) for i in range(26_500, 27_500)], in_json=True)
    known = json.loads((ROOT / "data" / "portraits" / "attributes.json").read_text())
    each = next(iter(known.values()))
    (root / "attributes.json").write_text(json.dumps({str(i): each for i in range(26_500, 27_500)}))
    (root / "dataset.json").write_text((ROOT / "data" / "portraits" / "dataset.json").read_text())
    return root


#: Builder -> how many samples its training and test splits have; a set without splits has all of them in each.
LAYOUTS = {celeba: (500, 500), ffhq_female: (COUNT, COUNT), fairface: (COUNT, COUNT), raw_parts: (COUNT, None),
           portraits: (500, 500)}  # fmt: skip


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda builder: builder.__name__)
def built(request, tmp_path_factory) -> tuple[Path, tuple[int, int | None]]:
    return request.param(tmp_path_factory.mktemp("layouts") / "set"), LAYOUTS[request.param]


def test_a_thousand_samples_are_loaded_and_checked(built):
    root, (train, test) = built
    data = FaceDataset(root)
    assert len(data) == COUNT and len(FaceDataset(root, "train")) == train
    if test is None:  # numbers as CelebA-HQ's, and none of the test split
        with pytest.raises(MogleError, match="no usable sample in the test split"):
            FaceDataset(root, "test")
    else:
        assert len(FaceDataset(root, "test")) == test
    assert check(root) == (COUNT, [])
    for index in (0, 1, 500, COUNT - 1):
        sample = data[index]
        assert sample.image.size == (128, 128) and sample.label_map.shape == (128, 128)
        assert (resize_labels(sample.label_map, 64) == MAPS[index % 2]).all()
        assert sample.captions == CAPTIONS and (sample.attributes is None) == (not (root / "attributes.json").exists())


@pytest.mark.slow
def test_a_thousand_samples_are_trained_on_drawn_and_evaluated(built, tmp_path, monkeypatch, capsys):
    root, (_, test) = built
    monkeypatch.chdir(tmp_path)
    part = ["--split", "all" if test is None else "test"]
    train = ["--data", root, "--out", "adapter", "size=64", "batch=4", "steps=20", "warm_start=5", "cache=false"]
    draw = ["--dataset", root, *part, "--count", 20, "--steps", 2, "--size", 64, "--adapter", "adapter"]
    judge = ["--data", root, *part, "--n", 20, "--few", 20, "--steps", 2, "--adapter", "adapter", "--out", "eval"]
    commands = (
        ["train", *train],
        ["generate", *draw, "--output-dir", "made"],
        ["evaluate", *judge, "--rows", "real,reconstruction,text+mask,text"],
    )
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            app([str(word) for word in [*command, "--device", "cpu"]], prog_name="mogle")
        assert not ended.value.code, capsys.readouterr().err
    assert len((tmp_path / "adapter" / "metrics.jsonl").read_text().splitlines()) == 20
    assert len(list((tmp_path / "made").glob("*.png"))) == 20
    rows = json.loads((tmp_path / "eval" / "results.json").read_text())["rows"]
    assert set(rows) == {"real", "reconstruction", "text+mask", "text"} and all(row["n"] == 20 for row in rows.values())


# --- texts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["text", "text.json"])
def test_a_caption_of_ten_thousand_words_is_read_and_named_before_a_training(tmp_path, capsys, place):
    root = fill(tmp_path / "set", ["1", "2"], in_json=place == "text.json")
    long = "very " * 9_999 + "long"
    if place == "text":
        (root / "text" / "2.txt").write_text(f"A face.\n{long}\n")
    else:
        (root / "text.json").write_text(json.dumps({"1.jpg": CAPTIONS, "2.jpg": ["A face.", long]}))
    assert FaceDataset(root).captions(1) == ["A face.", long]
    with pytest.raises(SystemExit) as ended:
        app(["train", "--data", str(root), "--out", str(tmp_path / "out"), "--device", "cpu"], prog_name="mogle")
    error = capsys.readouterr().err
    file = "2.txt" if place == "text" else "text.json"
    assert ended.value.code == 2 and f"{file}: caption 2: a caption of" in error and "expected at most" in error
    assert len(error) < 500 and not (tmp_path / "out").exists()


def test_json_that_ends_or_breaks_at_any_byte_is_read_or_named(tmp_path):
    root = fill(tmp_path / "set", ["1", "2"], texts=False)
    whole = json.dumps({"1.jpg": ["Ein schönes Gesicht."], "2.jpg": ["A face.", "Another."]}, ensure_ascii=False)
    content, read = whole.encode(), 0
    for at in range(len(content)):
        for broken in (content[:at], content[:at] + b"\xff" + content[at + 1 :], content[:at] + b"}" + content[at:]):
            (root / "text.json").write_bytes(broken)
            try:
                captions = [sample.captions for sample in FaceDataset(root)]
                assert all(text for texts in captions for text in texts)
                read += 1
            except MogleError as error:
                assert "text.json" in str(error)
    assert 0 < read < len(content)  # a brace within a sentence is a sentence
