"""Damaged files of every kind end in a message: no traceback, no hang, no gigabyte. Seeds are fixed."""

import json
import resource
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel

from mogle.adapters import LORA_FILE, read_adapter
from mogle.datasets import FaceDataset
from mogle.errors import MogleError
from mogle.labels import decode_mask

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"
SECONDS = 5


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes flipped, or the end cut off, or a piece repeated; mostly near the start, where headers are."""
    changed, kind = bytearray(data), rng.integers(4)
    near = len(changed) if kind == 0 else min(len(changed), 600)
    at = int(rng.integers(near))
    if kind in (0, 1):
        for place in rng.integers(near, size=int(rng.integers(1, 8))):
            changed[place] ^= int(rng.integers(1, 256))
    elif kind == 2:
        del changed[at:]
    else:
        changed[at:at] = changed[at : at + int(rng.integers(1, 400))]
    return bytes(changed)


def survives(read) -> bool:
    """Whether the reader gave a result; MogleError is the other way to end, in time."""
    start = time.monotonic()
    try:
        with warnings.catch_warnings(action="ignore"):
            read()
        return True
    except MogleError as error:
        assert "Traceback" not in str(error)
        return False
    finally:
        assert time.monotonic() - start < SECONDS


@pytest.fixture(scope="module")
def transformer():
    return FluxTransformer2DModel.from_pretrained(GOLDEN / "flux", subfolder="transformer")


@pytest.mark.parametrize("name", [LORA_FILE, "mogle.pt"])
def test_damaged_weights(tmp_path, transformer, name):
    for file in (LORA_FILE, "mogle.pt"):
        shutil.copy(GOLDEN / file, tmp_path / file)
    whole, rng = (GOLDEN / name).read_bytes(), np.random.default_rng(1)
    read = 0
    for _ in range(200):
        (tmp_path / name).write_bytes(damaged(whole, rng))
        read += survives(lambda: read_adapter(tmp_path, transformer))
    assert read < 150  # most damage near a header is found; a flipped bit of a weight is a weight


def test_weights_that_promise_more_than_there_is(tmp_path, transformer):
    """A header of a terabyte, a tensor of 2^60 numbers, a header that is no JSON: nothing is allocated for them."""
    shutil.copy(GOLDEN / "mogle.pt", tmp_path)
    huge = json.dumps({"a.lora_A.weight": {"dtype": "F32", "shape": [2**30, 2**30], "data_offsets": [0, 8]}}).encode()
    for content in (
        (2**40).to_bytes(8, "little") + b"{}",
        len(huge).to_bytes(8, "little") + huge + bytes(8),
        (2).to_bytes(8, "little") + b"{]" + bytes(8),
        b"",
    ):
        (tmp_path / LORA_FILE).write_bytes(content)
        assert not survives(lambda: read_adapter(tmp_path, transformer))
    assert not any(p.is_meta for p in transformer.parameters())


def test_damaged_masks_captions_and_lists(tmp_path):
    """300 masks, 150 caption files and 150 text.json, in one process that is measured."""
    here = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {here!r}); import test_damage as t; t.many({str(tmp_path)!r})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    grown = json.loads(run.stdout.splitlines()[-1])
    assert grown < 500, "megabytes above what importing takes"


def many(folder: str) -> None:
    """What the test above runs; prints by how many megabytes memory grew."""
    data, rng = Path(folder, "set"), np.random.default_rng(2)
    for part in ("face", "mask"):
        (data / part).mkdir(parents=True)
        for name in ("0", "1"):
            file = next((ROOT / "data" / "portraits" / part).glob(f"{name}.*"))
            shutil.copy(file, data / part / file.name)
    captions = {f"{name}.jpg": ["A woman.", "She has blond hair."] for name in ("0", "1")}
    listed = json.dumps(captions, indent=1).encode()
    (data / "text.json").write_bytes(listed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    masks = [
        *sorted((ROOT / "data" / "portraits" / "mask").glob("*.png"))[:3],
        GOLDEN / "mask0.png",
        GOLDEN / "mask1.png",
    ]
    for turn in range(300):
        path = Path(folder, "mask.png")
        path.write_bytes(damaged(masks[turn % len(masks)].read_bytes(), rng))
        survives(lambda path=path: decode_mask(path))
    for _ in range(150):
        (data / "text.json").write_bytes(damaged(listed, rng))
        survives(lambda: FaceDataset.checked(data, size=64))
    (data / "text.json").unlink()
    (data / "text").mkdir()
    for _ in range(150):
        for name in ("0", "1"):
            (data / "text" / f"{name}.txt").write_bytes(damaged("Ein Gesicht, blond. ü\n".encode() * 5, rng))
        survives(lambda: FaceDataset.checked(data, size=64))
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


def test_a_weight_that_is_no_number_is_named(tmp_path, transformer):
    shutil.copy(GOLDEN / LORA_FILE, tmp_path)
    state = torch.load(GOLDEN / "mogle.pt", weights_only=True)
    state["gating.gate.0.bias"][3] = torch.inf
    torch.save(state, tmp_path / "mogle.pt")
    with pytest.raises(MogleError, match="gating.gate.0.bias: found NaN or infinity"):
        read_adapter(tmp_path, transformer)
