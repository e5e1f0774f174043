"""`mogle data check` and `mogle data merge-parts` on the layouts that the real data sets have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mogle.cli import app
from mogle.datasets.check import check, merge_parts
from mogle.labels import LABELS, PALETTE, colorize, decode_mask, save_mask

ROOT = Path(__file__).resolve().parents[1]
FACE = np.asarray(Image.open(ROOT / "tests/cases/masks/rgb_labels_repeated.png"))[..., 0]
#: Name -> ids, captions in text.json, captions in text/. Pictures have twice the masks' side, as 1,024 and 512 px.
LAYOUTS = {
    "MM-CelebA-HQ": ([str(i) for i in range(30)], True, True),
    "MM-FFHQ-Female": ([f"{i:05}" for i in range(1, 31)], True, True),
    "MM-FairFace-HQ": ([str(52 + 7 * i) for i in range(30)], False, True),
}


def make(root: Path, layout: str) -> Path:
    ids, in_json, in_texts = LAYOUTS[layout]
    for folder in ("face", "mask", "text"):
        (root / folder).mkdir(parents=True)
    captions = [f"She has hair of colour {k}." for k in range(10)]
    for k, name in enumerate(ids):
        side = 2 * len(FACE)
        Image.new("RGB", (side, side), (8 * k, 90, 90)).save(root / "face" / f"{name}.jpg")
        save_mask(root / "mask" / f"{name}.png", FACE)
        (root / "text" / f"{name}.txt").write_text("\n".join(captions) + "\n")
    if in_json:
        (root / "text.json").write_text(json.dumps({f"{name}.jpg": captions for name in ids}))
    return root


@pytest.fixture
def mogle(capsys):
    def run(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            app([str(arg) for arg in args], prog_name="mogle")
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_found_where_nothing_is_wrong(tmp_path, layout, mogle):
    root = make(tmp_path / "set", layout)
    assert check(root) == (30, [])
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    code, out, _ = mogle("data", "check", root, "--fix")
    assert code == 0 and "30 samples can be used; 0 problems, 0 notes" in out
    assert before == {file: file.stat().st_mtime_ns for file in root.rglob("*")}


def plant(root: Path, ids: list[str]) -> dict[str, str]:
    """Faults of 20 kinds in a set without text.json -> id: words of what is to be said about it."""
    face, mask, text = ([root / folder / f"{name}.{ending}" for name in ids] for folder, ending in
                        (("face", "jpg"), ("mask", "png"), ("text", "txt")))  # fmt: skip
    face[0].unlink()
    Image.open(face[1]).save(face[1].with_suffix(".png"))
    mask[2].unlink()
    save_mask(mask[3].with_suffix(".bmp"), FACE)
    text[4].unlink()
    face[5].write_bytes(face[5].read_bytes()[:-200])
    Image.fromarray(np.full_like(FACE, 19)).save(mask[6])
    Image.fromarray((FACE == 13).astype(np.uint8) * 255).save(mask[7])
    save_mask(mask[8], FACE[:, :64])
    save_mask(mask[9], np.zeros_like(FACE))
    text[10].write_text("\n \n")
    text[11].write_bytes("Blonde Strähnen".encode("latin-1"))
    Image.fromarray(colorize(FACE)).convert("L").save(mask[12])
    face[13].rename(face[13].with_suffix(".gif"))
    save_mask(mask[14], FACE[::-1])
    text[15].write_bytes(b"\xef\xbb\xbfShe has hair.\n")
    text[16].write_text("  She has hair. \t\nShe   smiles.\n")
    mask[17].rename(mask[17].with_suffix(".PNG"))
    Image.fromarray(np.repeat(FACE[..., None], 3, -1)).save(mask[18])
    Image.fromarray(colorize(FACE)).save(mask[19])
    said = [
        "mask and captions without a picture", "2 pictures", "no mask/", "2 masks", "no captions", "damaged or cut",
        "found label 19", "black-and-white", "expected one shape", "nothing but background", "empty", "expected UTF-8",
        "turned to gray", ".gif", "neck above brows", "byte-order mark", "white space", "capital letters",
        "a mask without a palette", "a mask without a palette",
    ]  # fmt: skip
    return dict(zip(ids, said, strict=False))


def test_each_planted_fault_is_found_and_nothing_else(tmp_path, mogle):
    root = make(tmp_path / "set", "MM-FairFace-HQ")
    ids = LAYOUTS["MM-FairFace-HQ"][0]
    planted = plant(root, ids)
    good, found = check(root)
    assert good == 16
    assert sorted(finding.id for finding in found) == sorted(planted)  # one finding for each, none for the others
    for finding in found:
        assert planted[finding.id] in finding.text, finding
    assert {finding.id for finding in found if finding.note} == set(ids[14:20])
    assert {finding.id for finding in found if finding.mend} == set(ids[15:20])

    files = {file.relative_to(root).with_suffix("") for file in root.rglob("*.*")}
    code, out, err = mogle("data", "check", root)
    assert code == 1 and "16 samples can be used; 14 problems, 6 notes, of which --fix mends 5" in out
    assert "3  a mask that cannot be read" in out and f"{ids[6]}, {ids[7]}, {ids[12]}" in out and err == ""
    code, out, _ = mogle("data", "check", root, "--fix")
    assert code == 1 and "mended:\n     2  a mask without a palette" in out
    assert "14 problems, 1 notes, of which --fix mends 0" in out
    assert {file.relative_to(root).with_suffix("") for file in root.rglob("*.*")} == files  # nothing was deleted
    for name in ids[17:20]:
        with Image.open(root / "mask" / f"{name}.png") as picture:
            assert picture.mode == "P" and picture.getpalette()[:57] == PALETTE.ravel().tolist()
        assert (decode_mask(root / "mask" / f"{name}.png") == FACE).all()
    assert (root / "text" / f"{ids[15]}.txt").read_bytes() == b"She has hair.\n"
    assert (root / "text" / f"{ids[16]}.txt").read_text() == "She has hair.\nShe smiles.\n"


def test_text_json(tmp_path, mogle):
    root = make(tmp_path / "set", "MM-CelebA-HQ")
    entries = json.loads((root / "text.json").read_text())
    entries["3.jpg"] = "no list"
    entries["77.jpg"] = ["She has hair."]
    entries["4.jpg"][2] = "  Ähnlich. "
    (root / "text.json").write_text("\ufeff" + json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    good, found = check(root)
    kinds = {"3": "no captions", "77": "no picture"}
    assert good == 29 and {f.id: f.kind for f in found if not f.note} == kinds
    assert [f.kind for f in found if f.note] == ["a byte-order mark", "white space around or within captions"]
    mogle("data", "check", root, "--fix")
    mended = json.loads((root / "text.json").read_text(encoding="utf-8"))
    assert mended == entries | {"4.jpg": [" ".join(caption.split()) for caption in entries["4.jpg"]]}

    twice = '{"0.jpg": ["A."], "0.jpg": ["B. "], ' + json.dumps(entries)[1:].replace('"0.jpg"', '"0.png"')
    (root / "text.json").write_text(twice)
    assert "text.json: has names twice" in mogle("data", "check", root, "--fix")[1]
    assert (root / "text.json").read_text() == twice  # writing it would have dropped captions
    (root / "text.json").write_text(json.dumps(entries)[:500])
    assert [f.kind for f in check(root)[1]] == ["unreadable text.json"]  # text/ has the captions as well


def test_what_cannot_be_mended_safely_is_left(tmp_path, mogle):
    root = make(tmp_path / "set", "MM-FairFace-HQ")
    noisy = colorize(FACE).astype(int) + np.random.default_rng(0).integers(-9, 10, (*FACE.shape, 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / "mask" / "52.png")
    before = (root / "mask" / "52.png").read_bytes()
    code, out, _ = mogle("data", "check", root, "--fix")
    assert code == 0 and "left as it is: " in out and (root / "mask" / "52.png").read_bytes() == before


def test_a_file_is_mended_whole_or_not_at_all(tmp_path, mogle, monkeypatch):
    root = make(tmp_path / "set", "MM-FairFace-HQ")
    Image.fromarray(colorize(FACE)).save(root / "mask" / "52.png")
    before = (root / "mask" / "52.png").read_bytes()

    def full(path, label_map):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("mogle.datasets.check.save_mask", full)
    assert "left as it is: no space left" in mogle("data", "check", root, "--fix")[1]
    assert (root / "mask" / "52.png").read_bytes() == before and len(list((root / "mask").iterdir())) == 30


def test_no_data_set(tmp_path, mogle):
    code, _, err = mogle("data", "check", tmp_path / "absent")
    assert code == 2 and "no such folder" in err and "Traceback" not in err


def test_raw_parts_become_label_maps(tmp_path, mogle):
    """Ids padded to five digits in folders, RGB as in the archive; each part also covers what lies before it."""
    for k in range(30):
        folder = tmp_path / "anno" / str(k // 10)
        folder.mkdir(parents=True, exist_ok=True)
        for label in np.unique(FACE)[1:]:
            part = (label == FACE) | ((label + 1 == FACE) & (FACE > 1) & (label > 0))  # the next label covers it
            shown = Image.fromarray(part.astype(np.uint8) * 255).convert("RGB")
            shown.save(folder / f"{k:05}_{LABELS[label]}.png")
    (tmp_path / "anno" / "0" / "Thumbs.png").write_bytes(b"")
    code, out, _ = mogle("data", "merge-parts", tmp_path / "anno", tmp_path / "mask")
    assert code == 0 and "30 label maps" in out and len(list((tmp_path / "mask").iterdir())) == 30
    for k in (0, 11, 29):
        with Image.open(tmp_path / "mask" / f"{k}.png") as picture:
            assert picture.mode == "P" and (np.asarray(picture) == FACE).all()
    assert merge_parts(tmp_path / "anno", tmp_path / "mask") == (0, [])  # what is there is kept


def test_parts_that_do_not_fit_are_left_out(tmp_path, mogle):
    white = Image.new("L", (8, 8), 255)
    faults = {1: "teeth", 2: "nose", 3: "nose", 4: "nose", 5: "hair"}
    for number, part in faults.items():
        white.save(tmp_path / f"{number:05}_skin.png")
        white.save(tmp_path / f"{number:05}_{part}.png")
    Image.new("L", (4, 4), 255).save(tmp_path / "00002_nose.png")
    Image.new("L", (8, 8), 77).save(tmp_path / "00003_nose.png")
    (tmp_path / "more").mkdir()
    white.save(tmp_path / "more" / "00004_nose.png")
    code, out, _ = mogle("data", "merge-parts", tmp_path, tmp_path / "out")
    assert code == 1 and "1 label maps" in out and "4 faces left out" in out
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["5.png"]
    assert decode_mask(tmp_path / "out" / "5.png").max() == LABELS.index("hair")
    code, _, err = mogle("data", "merge-parts", tmp_path / "absent", tmp_path / "out")
    assert code == 2 and "found no parts" in err


def test_an_index_of_30000_samples(tmp_path):
    for folder, ending in (("face", "jpg"), ("mask", "png")):
        (tmp_path / folder).mkdir()
        for k in range(30000):
            os.mknod(tmp_path / folder / f"{k}.{ending}")
    captions = [f"She has hair of colour {k}." for k in range(10)]
    (tmp_path / "text.json").write_text(json.dumps({f"{k}.jpg": captions for k in range(30000)}))
    code = (
        "import re, sys, time; from mogle.datasets import FaceDataset; start = time.process_time()\n"
        "data = FaceDataset(sys.argv[1], 'test')\n"
        "peak = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"  # its own, not a parent's
        "print(len(data), time.process_time() - start, peak / 1024)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True)
    count, seconds, mib = done.stdout.split()
    assert int(count) == 3000 and float(seconds) <= 3 and float(mib) <= 200, done.stdout
