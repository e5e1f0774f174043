"""The evaluation's bookkeeping, with a generator and judges whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mogle.errors import MogleError
from mogle.labels import PALETTE, colorize
from mogle.metrics import evaluate as module
from mogle.metrics.evaluate import ROWS, Samples, Settings, derangement, evaluate, judge_masks, psnr
from mogle.portraits import ATTRIBUTES

GOLDEN = Path(__file__).parent / "golden"


class Painter:
    """Stands in for a pipeline: paints the mask in palette colours, or noise; remembers what it was asked for."""

    def __init__(self) -> None:
        from diffusers import AutoencoderKL

        self.vae = AutoencoderKL.from_pretrained(GOLDEN / "flux", subfolder="vae")
        self._execution_device = torch.device("cpu")
        self.mogle = SimpleNamespace(gate="dynamic")
        self.calls: list[dict] = []

    def set_progress_bar_config(self, **options) -> None:
        pass

    def __call__(self, *, height: int, width: int, generator: list, **inputs) -> SimpleNamespace:
        self.calls.append({"gate": self.mogle.gate, **inputs})
        noise = [np.random.default_rng(g.initial_seed()).integers(0, 256, (height, width, 3)) for g in generator]
        masks = inputs.get("mask")
        pictures = [n if masks is None else colorize(m) for n, m in zip(noise, masks or noise, strict=True)]
        return SimpleNamespace(images=[Image.fromarray(p.astype(np.uint8)) for p in pictures])


def judges() -> SimpleNamespace:
    """The parser reads palette colours; the reader calls every hair blond and everything else its first value."""
    values = {name: a.values for name, a in ATTRIBUTES.items()}

    def read(images: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        answers = {name: np.full(len(images), v.index("blond") if "blond" in v else 0) for name, v in values.items()}
        return answers, images.reshape(len(images), -1)[:, ::97] / 255.0

    def parse(images: np.ndarray) -> np.ndarray:
        return np.square(images[..., None, :].astype(int) - PALETTE).sum(-1).argmin(-1).astype(np.uint8)

    return SimpleNamespace(parser=SimpleNamespace(parse=parse), reader=SimpleNamespace(values=values, read=read))


@pytest.fixture
def samples() -> Samples:
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[:, 4:28, 4:28], masks[:, :4], masks[:, 28:] = 1, 13, 18
    masks[1, 10:14, 10:14] = 4
    captions = ("She has blond hair.", "She has black hair.", "He has blond hair and dark skin.", "He is smiling.")
    facts = tuple({"gender": "woman" if i < 2 else "man", "hair_color": "blond"} for i in range(4))
    images = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    return Samples(("27000", "27001", "27002", "27003"), images, masks, captions, facts, "four squares")


def test_derangement_moves_everything() -> None:
    for count in (2, 3, 50):
        order = derangement(count)
        assert sorted(order) == list(range(count)) and (order != np.arange(count)).all()
    assert np.array_equal(derangement(50), derangement(50))


def test_every_row_is_made_measured_and_reported(tmp_path, samples) -> None:
    pipe, reference = Painter(), samples.images[::-1].copy()
    results = evaluate(pipe, judges(), samples, reference, out=tmp_path, settings=Settings(steps=2, batch=3))
    rows = results["rows"]
    assert list(rows) == list(ROWS) and pipe.mogle.gate == "dynamic"
    assert rows["text+mask"]["mask"]["pixel_accuracy"] == rows["mask"]["mask"]["mean_iou"] == 1
    assert rows["text"]["mask"]["pixel_accuracy"] < 0.5 < rows["reconstruction"]["psnr"]
    assert rows["text+mask"]["mask"]["class_iou"]["l_eye"] == 1 and rows["mask"]["mask"]["class_iou"]["hat"] is None
    assert rows["text+mask"]["attributes"]["hair_color"].items() >= {"n": 3, "accuracy": 2 / 3, "balanced": 0.5}.items()
    assert "gender" in rows["text+mask"]["attributes"] and "gender" not in rows["swapped"]["attributes"]
    assert rows["real"]["attributes"]["gender"].items() >= {"n": 4, "accuracy": 0.5, "balanced": 0.5}.items()
    assert all(np.isfinite(row["kid"]) for row in rows.values())

    assert [len(call["mask"]) for call in pipe.calls[:2]] == [3, 1] and "prompt" not in pipe.calls[4]
    swapped = [p for call in pipe.calls[6:8] for p in call["prompt"]]
    assert sorted(swapped) == sorted(samples.captions) and all(
        a != b for a, b in zip(swapped, samples.captions, strict=True)
    )
    emptied = pipe.calls[8]["condition_tokens"]
    assert emptied.shape[:2] == (3, 20) and (emptied[:, 1:] == emptied[0, 1]).all()
    assert not torch.equal(emptied[0, 0], emptied[0, 1])
    assert [call["gate"] for call in pipe.calls] == ["dynamic"] * 10 + ["scalar"] * 2

    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["rows"]["mask"]["mask"]["class_iou"]["hat"] is None
    table = (tmp_path / "table.md").read_text()
    assert "| text + mask | 4 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] |" in table and "hair_color *" in table
    assert Image.open(tmp_path / "gallery.png").size == (10 * 32, 4 * 32 + 18)


def test_it_goes_on_where_it_stopped_and_mixes_nothing(tmp_path, samples) -> None:
    pipe, some = Painter(), Settings(steps=2, origin={"adapter_sha256": "1"})

    def run(settings: Settings) -> dict:
        return evaluate(pipe, judges(), samples, samples.images, out=tmp_path, rows=["text+mask"], settings=settings)

    first = run(some)
    (tmp_path / "text+mask" / "27002.png").unlink()
    pipe.calls.clear()
    second = run(some)
    assert [len(call["prompt"]) for call in pipe.calls] == [1]
    assert first["rows"]["text+mask"]["mask"] == second["rows"]["text+mask"]["mask"]
    for other in (Settings(steps=3, origin=some.origin), Settings(steps=2, origin={"adapter_sha256": "2"})):
        with pytest.raises(MogleError, match="made with another"):
            run(other)


def test_wrong_rows_are_named(tmp_path, samples) -> None:
    with pytest.raises(MogleError, match="fantasy"):
        evaluate(Painter(), judges(), samples, samples.images, out=tmp_path, rows=["fantasy"])
    assert not list(tmp_path.iterdir())


def test_masks_of_ones_own_are_judged_at_every_seed(tmp_path, samples) -> None:
    pipe = Painter()
    masks = {"a": samples.masks[0], "b": samples.masks[1]}
    records = judge_masks(pipe, judges(), masks, ["She smiles."], [0, 1], out=tmp_path, settings=Settings(steps=1))
    assert [(r["mask"], r["seed"], r["pixel_accuracy"]) for r in records] == [
        ("a", 0, 1), ("a", 1, 1), ("b", 0, 1), ("b", 1, 1),
    ]  # fmt: skip
    assert (tmp_path / "masks.png").exists() and len(json.loads((tmp_path / "masks.json").read_text())) == 4


def test_psnr_and_reconstruction_of_a_known_error(samples) -> None:
    made = samples.images.astype(int).clip(10, 245)
    base = made.astype(np.uint8)
    assert psnr(base, (made + 10).astype(np.uint8)) == pytest.approx(20 * np.log10(255 / 10))
    assert module.reconstruct(Painter().vae, samples.images).shape == samples.images.shape
