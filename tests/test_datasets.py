"""The three layouts, pairing by id, splits, and every problem at once."""

import json

import numpy as np
import pytest
from PIL import Image

from mogle.datasets import FaceDataset
from mogle.errors import MogleError
from mogle.labels import save_mask


def make(root, ids, *, ending="jpg", text_json=True, texts=True, size=16, mask_size=None):
    for folder in ("face", "mask", "text"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(ids):
        Image.new("RGB", (size, size), (k * 7 % 256, 0, 0)).save(root / "face" / f"{name}.{ending}")
        save_mask(root / "mask" / f"{name}.png", np.full([mask_size or size] * 2, k % 19, np.uint8))
        if texts:
            (root / "text" / f"{name}.txt").write_text(f"Caption of {name}.\nAnother.\n")
    if text_json:
        names = {f"{name}.{ending}": [f"Caption of {name}.", "Another."] for name in ids}
        (root / "text.json").write_text(json.dumps(names))
    return root


@pytest.mark.parametrize(
    "ids, options",
    [
        (["0", "2", "10", "27000"], {}),  # MM-CelebA-HQ
        (["00001", "00002", "00010"], {}),  # MM-FFHQ-Female
        (["52", "55", "101", "86001"], {"text_json": False}),  # MM-FairFace-HQ
        (["3", "20"], {"texts": False, "ending": "png"}),
        (["9", "10", "face-2", "face-10"], {"text_json": False, "ending": "JPEG"}),
    ],
)
def test_layouts(tmp_path, ids, options):
    data = FaceDataset(make(tmp_path, ids, **options))
    (tmp_path / "face" / "Thumbs.db").write_bytes(b"")
    assert data.ids == ids
    for k, sample in enumerate(data):
        assert sample.id == ids[k] and sample.captions == [f"Caption of {ids[k]}.", "Another."]
        assert sample.image.mode == "RGB" and sample.attributes is None
        assert (sample.label_map == k % 19).all() and sample.label_map.dtype == np.uint8
    assert data.validate() == 0


def test_split_by_number_only_where_numbered_as_celeba(tmp_path):
    celeba = make(tmp_path / "a", ["0", "26999", "27000", "29999"])
    assert FaceDataset(celeba, "train").ids == ["0", "26999"]
    assert FaceDataset(celeba, "test").ids == ["27000", "29999"]
    for other in (
        make(tmp_path / "b", ["00001", "00002"]),
        make(tmp_path / "c", ["52", "28000"], text_json=False),
        make(tmp_path / "d", ["1", "40000"]),
    ):
        data = FaceDataset(other, "test")
        assert len(data) == 2 and not data.has_split
    with pytest.raises(MogleError, match="no usable sample in the test split"):
        FaceDataset(make(tmp_path / "e", ["0", "1"]), "test")


def test_size(tmp_path):
    make(tmp_path, ["0"], size=32, mask_size=16)
    assert FaceDataset(tmp_path)[0].label_map.shape == (32, 32)
    sample = FaceDataset(tmp_path, size=(24, 20), fit="stretch")[0]
    assert sample.image.size == (20, 24) and sample.label_map.shape == (24, 20)


def test_all_problems_at_once(tmp_path):
    make(tmp_path, [str(i) for i in range(6)])
    (tmp_path / "mask" / "1.png").unlink()
    (tmp_path / "face" / "2.jpg").unlink()
    Image.new("RGB", (16, 16)).save(tmp_path / "face" / "3.png")
    with pytest.raises(MogleError) as error:
        FaceDataset(tmp_path)
    message = str(error.value)
    assert "3 problems" in message and "no mask/1.png" in message and "skip_bad" in message
    assert "2: mask and captions without a picture" in message and "3: 2 pictures" in message
    data = FaceDataset(tmp_path, skip_bad=True)
    assert data.ids == ["0", "4", "5"] and data.skipped == 3


def test_validate_reads_files(tmp_path):
    make(tmp_path, [str(i) for i in range(4)], text_json=False)
    (tmp_path / "face" / "0.jpg").write_bytes((tmp_path / "face" / "0.jpg").read_bytes()[:200])
    save_mask(tmp_path / "mask" / "1.png", np.zeros((16, 24), np.uint8))
    (tmp_path / "text" / "2.txt").write_text("\n")
    with pytest.raises(MogleError) as error:
        FaceDataset(tmp_path).validate()
    message = str(error.value)
    assert "3 problems" in message and "0.jpg" in message and "24 x 16" in message and "2.txt" in message
    data = FaceDataset(tmp_path, skip_bad=True)
    assert data.validate() == 3 and data.ids == ["3"]


@pytest.mark.parametrize("content", ["{", "[]", '{"0.jpg": "not a list"}'])
def test_damaged_text_json(tmp_path, content):
    make(tmp_path, ["0"], texts=False)
    (tmp_path / "text.json").write_text(content)
    with pytest.raises(MogleError, match="text.json"):
        FaceDataset(tmp_path)


def test_no_data_set(tmp_path):
    with pytest.raises(MogleError, match="no such folder"):
        FaceDataset(tmp_path / "absent")
    with pytest.raises(MogleError, match="without face/"):
        FaceDataset(tmp_path)
    with pytest.raises(MogleError, match="expected 'train'"):
        FaceDataset(tmp_path, "val")
