"""The evaluation's bookkeeping, with a generator and judges whose answers are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from mogle.errors import MogleError
from mogle.labels import PALETTE, colorize
from mogle.metrics.evaluate import evaluate, judge_masks, judge_pictures
from mogle.metrics.measure import Instruments, against, load_measured, psnr
from mogle.metrics.report import compare
from mogle.metrics.rows import ABLATIONS, ROWS, guided, reconstructed
from mogle.metrics.samples import Samples, derangement
from mogle.metrics.stack import Pictures, Stack, batches, taken
from mogle.sampling import Settings
from mogle.words import ATTRIBUTES

GOLDEN = Path(__file__).parents[1] / "golden"


class Gate:
    """A gate that weighs all experts alike."""

    def gate_weights(self, tokens: torch.Tensor, noise: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return torch.full((len(tokens), tokens.shape[2], 20), 1 / 20)


class Painter:
    """Stands in for a pipeline: paints the mask in palette colours, or noise; remembers what it was asked for."""

    def __init__(self) -> None:
        from diffusers import AutoencoderKL

        self.vae = AutoencoderKL.from_pretrained(GOLDEN / "flux", subfolder="vae")
        self._execution_device = torch.device("cpu")
        self.mogle = Gate()
        self.vae_scale_factor, self.default_sample_size = 8, 4
        self.calls: list[dict] = []

    def set_progress_bar_config(self, **options) -> None:
        pass

    def encode_conditions(self, masks: list, height: int, width: int, local_masks: bool = True) -> torch.Tensor:
        tokens = torch.ones(len(masks), 20, height * width // 256, 64)
        tokens[:, 1:] *= local_masks
        return tokens

    def __call__(self, *, height: int, width: int, generator: list, **inputs) -> SimpleNamespace:
        weights = self.mogle.gate_weights(torch.zeros(1, 20, 4, 64), torch.zeros(1, 4, 64), torch.ones(1))
        self.calls.append({"gate": "scalar" if weights.shape[1] == 1 else "dynamic", **inputs})
        noise = [np.random.default_rng(g.initial_seed()).integers(0, 256, (height, width, 3)) for g in generator]
        masks = inputs.get("mask")
        pictures = [n if masks is None else colorize(m) for n, m in zip(noise, masks or noise, strict=True)]
        return SimpleNamespace(images=[Image.fromarray(p.astype(np.uint8)) for p in pictures])


class Judges(NamedTuple):
    parser: SimpleNamespace
    reader: SimpleNamespace


def tools() -> Instruments:
    """The parser reads palette colours; the reader calls every hair blond and everything else its first value."""
    values = {name: a.values for name, a in ATTRIBUTES.items()}

    def read(images: Pictures) -> tuple[dict[str, np.ndarray], np.ndarray]:
        answers = {name: np.full(len(images), v.index("blond") if "blond" in v else 0) for name, v in values.items()}
        return answers, np.stack(list(images)).reshape(len(images), -1)[:, ::97] / 255.0

    def parse(images: Pictures) -> np.ndarray:
        return np.square(np.stack(list(images))[..., None, :].astype(int) - PALETTE).sum(-1).argmin(-1).astype(np.uint8)

    def keys(images: Pictures) -> np.ndarray:
        return 1 + np.stack(list(images))[:, ::8, ::8].reshape(len(images), -1, 3).astype(float)

    return Instruments(Judges(SimpleNamespace(parse=parse, keys=keys), SimpleNamespace(values=values, read=read)))


@pytest.fixture
def samples() -> Samples:
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 32, 32), np.uint8)
    masks[:, 4:28, 4:28], masks[:, :4], masks[:, 28:] = 1, 13, 18
    masks[1, 10:14, 10:14] = 4
    captions = ("She has blond hair.", "She has black hair.", "He has blond hair and dark skin.", "He is smiling.")
    facts = tuple({"gender": "woman" if i < 2 else "man", "hair_color": "blond"} for i in range(4))
    images = rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    ids = ("27000", "27001", "27002", "27003")
    return Samples(ids, images, masks, captions, facts, images[::-1].copy(), "four squares")


def test_a_stack_is_an_array_that_is_not_there() -> None:
    asked: list[int] = []

    def read(row: int) -> np.ndarray:
        asked.append(row)
        return np.full((2, 3), row, np.uint8)

    rows = np.repeat(np.arange(5, dtype=np.uint8), 6).reshape(5, 2, 3)
    stack = Stack(read, range(5))
    assert len(stack) == 5 and len(taken(stack, [4, 1])) == 2 and not asked
    assert np.array_equal(stack[-1], rows[-1]) and asked == [4]
    assert all(np.array_equal(list(taken(pictures, [4, 1])), rows[[4, 1]]) for pictures in (stack, rows))
    assert [int(one[0, 0]) for one in stack] == [0, 1, 2, 3, 4]
    assert [part.tolist() for part in batches(stack, 2)] == [rows[:2].tolist(), rows[2:4].tolist(), rows[4:].tolist()]


def test_derangement_moves_everything() -> None:
    for count in (2, 3, 50):
        order = derangement(count)
        assert sorted(order) == list(range(count)) and (order != np.arange(count)).all()
    assert np.array_equal(derangement(50), derangement(50))


def sets(samples: Samples) -> dict[str, Samples]:
    return dict.fromkeys(("portraits", "female", "balanced"), samples)


def test_every_row_is_made_measured_and_reported(tmp_path, samples) -> None:
    pipe = Painter()
    results = evaluate(pipe, tools(), sets(samples), out=tmp_path, few=3, settings=Settings(steps=2, batch=3))
    rows = results["rows"]
    assert list(rows) == list(ROWS) and vars(pipe.mogle) == {}
    assert {name: row["n"] for name, row in rows.items()} == {name: 3 if ROWS[name].few else 4 for name in ROWS}
    assert rows["text+mask"]["mask"]["pixel_accuracy"] == rows["mask"]["mask"]["mean_iou"] == 1
    assert rows["text"]["mask"]["pixel_accuracy"] < 0.5 < rows["reconstruction"]["psnr"]
    assert rows["text+mask"]["mask"]["class_iou"]["l_eye"] == 1 and rows["mask"]["mask"]["class_iou"]["hat"] is None
    hair = rows["text+mask"]["attributes"]["hair_color"]
    assert hair.items() >= {"n": 3, "accuracy": 2 / 3, "balanced": 0.5}.items() and hair["low"] < 0.5 < hair["high"]
    assert "gender" in rows["text+mask"]["attributes"] and "gender" not in rows["swapped"]["attributes"]
    assert rows["real"]["attributes"]["gender"].items() >= {"n": 4, "accuracy": 0.5, "balanced": 0.5}.items()
    assert all(row["intervals"]["kid"][0] <= row["kid"] <= row["intervals"]["kid"][1] for row in rows.values())
    assert rows["text+mask"]["diversity"] == 0  # the painter gives a mask the same picture at every seed
    assert rows["real"]["structure"] == 0 < rows["text"]["structure"] < 4
    assert rows["real"]["structure_as_reported"] == 0 < rows["text"]["structure_as_reported"]
    nothing = dict.fromkeys(("pixel_accuracy", "mean_iou", "structure", "kid"), [0, 0, 0])
    assert results["against"]["mask"] == {"base": "text+mask", "n": 3, **nothing}
    assert set(results["against"]) == {"text", "mask", "swapped", "no-local", "scalar-gate"}
    assert any("only 4 samples" in warning for warning in results["warnings"])

    calls = {kind: [c for c in pipe.calls if c["gate"] == kind] for kind in ("dynamic", "scalar")}
    assert [len(call["mask"]) for call in pipe.calls[:6]] == [3, 1] * 3 and len(calls["scalar"]) == 1
    assert [len(c["prompt"]) for c in pipe.calls if "mask" not in c and "condition_tokens" not in c] == [3]
    assert sum("prompt" not in call for call in pipe.calls) == 1
    swapped = [p for call in pipe.calls[8:10] for p in call["prompt"]]
    assert sorted(swapped) == sorted(samples.captions) and all(
        a != b for a, b in zip(swapped, samples.captions, strict=True)
    )
    emptied = next(call["condition_tokens"] for call in pipe.calls if "condition_tokens" in call)
    assert emptied.shape[:2] == (3, 20) and (emptied[:, 1:] == emptied[0, 1]).all()
    assert not torch.equal(emptied[0, 0], emptied[0, 1])

    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["rows"]["mask"]["mask"]["class_iou"]["hat"] is None
    table = (tmp_path / "table.md").read_text()
    assert "| text + mask | 4 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] |" in table and "hair_color *" in table
    assert Image.open(tmp_path / "gallery.png").width == 10 * 32
    html = (tmp_path / "index.html").read_text()
    assert html.count("data:image/png;base64,") == 7 and "http" not in html
    assert "Warning" not in html and "only 4 samples" in html and "&lt;" not in html


def test_it_goes_on_where_it_stopped_and_mixes_nothing(tmp_path, samples) -> None:
    pipe, some = Painter(), Settings(steps=2, origin={"adapter_sha256": "1"})

    def run(settings: Settings) -> dict:
        return evaluate(
            pipe, tools(), sets(samples), out=tmp_path, rows={"text+mask": ROWS["text+mask"]}, settings=settings
        )

    first = run(some)
    (tmp_path / "text+mask" / "27002.png").unlink()
    pipe.calls.clear()
    second = run(some)
    assert [len(call["prompt"]) for call in pipe.calls] == [1]
    assert first["rows"]["text+mask"]["mask"] == second["rows"]["text+mask"]["mask"]
    for other in (Settings(steps=3, origin=some.origin), Settings(steps=2, origin={"adapter_sha256": "2"})):
        with pytest.raises(MogleError, match="made with another"):
            run(other)


def test_processes_share_the_sampling_and_the_first_one_measures(tmp_path, samples) -> None:
    """Two of them, one after the other: each makes its share, and the pictures are those of one alone."""
    some, names = Settings(steps=2, batch=3), ["real", "reconstruction", "text+mask", "mask"]
    rows = {name: ROWS[name] for name in names}
    painters, found = [], []
    for rank in (1, 0):
        state = SimpleNamespace(process_index=rank, num_processes=2, wait_for_everyone=lambda: None)
        painters.append(Painter())
        found.append(
            evaluate(painters[-1], tools(), sets(samples), out=tmp_path, rows=rows, settings=some, state=state)
        )
    whole = Painter()
    alone = evaluate(whole, tools(), sets(samples), out=tmp_path / "alone", rows=rows, settings=some)
    made = [sum(len(call["mask"]) for call in one.calls) for one in (*painters, whole)]
    assert made[0] + made[1] == made[2] and abs(made[0] - made[1]) <= 1
    assert not found[0]["rows"] and list(found[1]["rows"]) == names
    assert all(found[1]["rows"][name]["mask"] == alone["rows"][name]["mask"] for name in names)


def test_a_guided_row_asks_for_mask_guidance_and_no_other_row_does(tmp_path, samples) -> None:
    rows = {"text+mask": replace(ROWS["text+mask"], detailed=False), "guided-2.5": guided(2.5)}
    pipe = Painter()
    results = evaluate(pipe, tools(), sets(samples), out=tmp_path, rows=rows, settings=Settings(steps=1))
    assert {call["mask_guidance"] for call in pipe.calls[: len(pipe.calls) // 2]} == {1.0}
    assert {call["mask_guidance"] for call in pipe.calls[len(pipe.calls) // 2 :]} == {2.5}
    assert results["rows"]["guided-2.5"]["title"] == "text + mask, mask guidance 2.5"


def test_pictures_of_a_folder_belong_to_samples_by_name(tmp_path, samples) -> None:
    folder, out = tmp_path / "made", tmp_path / "out"
    folder.mkdir()
    with pytest.raises(MogleError, match="found no picture"):
        judge_pictures(folder, tools(), samples, out=out)
    for i in (3, 0, 2):  # neither all nor in order
        Image.fromarray(colorize(samples.masks[i])).save(folder / f"{samples.ids[i]}.png")
    results = judge_pictures(folder, tools(), samples, out=out)
    row = results["rows"]["pictures"]
    assert row["n"] == 3 and row["mask"]["pixel_accuracy"] == 1 and "JPEG" not in " ".join(results["warnings"])
    photos = replace(samples, jpeg=True)
    assert "JPEG on one side" in " ".join(judge_pictures(folder, tools(), photos, out=out)["warnings"])
    assert any("27001" in warning for warning in results["warnings"])
    assert load_measured(out, "pictures")["ids"].tolist() == ["27000", "27002", "27003"]

    Image.fromarray(colorize(samples.masks[1])).resize((48, 48)).save(folder / "27001.jpg")
    warned = " ".join(judge_pictures(folder, tools(), samples, out=out)["warnings"])
    assert "mixes JPEG and PNG" in warned and "resized to 32 x 32 px: 1;" in warned
    (folder / "27003.png").write_bytes(b"half a picture")
    with pytest.raises(MogleError, match=r"unreadable pictures: 1\n  27003.png"):
        judge_pictures(folder, tools(), samples, out=out)
    (folder / "27003.png").rename(folder / "tom.png")
    with pytest.raises(MogleError, match=r"belong to no sample: 1 \(tom\)"):
        judge_pictures(folder, tools(), samples, out=out)
    with pytest.raises(MogleError, match="no such folder"):
        judge_pictures(tmp_path / "nowhere", tools(), samples, out=out)


def test_masks_of_several_sizes_are_warned_of(tmp_path, samples) -> None:
    from mogle.metrics.samples import folder_samples

    for kind in ("face", "mask", "text"):
        (tmp_path / kind).mkdir()
    for i in range(3):
        Image.fromarray(samples.images[i]).save(tmp_path / "face" / f"{i}.png")
        mask = Image.fromarray(samples.masks[i])
        (mask if i else mask.resize((16, 16), Image.Resampling.NEAREST)).save(tmp_path / "mask" / f"{i}.png")
        (tmp_path / "text" / f"{i}.txt").write_text("A face.")
    found = folder_samples(tmp_path, 3, 32, split="all")
    assert found.warnings == (
        "masks differ in size (2 of 32 x 32, 1 of 16 x 16 px) and were brought to 32 x 32: that shows in every number",
    )
    assert folder_samples(tmp_path, 1, 32, split="all").warnings == ()


def test_one_picture_is_no_set(tmp_path, samples) -> None:
    Image.fromarray(samples.images[0]).save(tmp_path / "27000.png")
    with pytest.raises(MogleError, match="one picture"):
        judge_pictures(tmp_path, tools(), samples, out=tmp_path / "out")


def test_runs_are_compared_picture_by_picture(tmp_path, samples) -> None:
    worse = samples.masks.copy()
    worse[:, 12:20, 12:20] = 2
    for name, masks in (("good", samples.masks), ("bad", worse)):
        (tmp_path / name).mkdir()
        for i, mask in zip(samples.ids, masks, strict=True):
            Image.fromarray(colorize(mask)).save(tmp_path / name / f"{i}.png")
        judge_pictures(
            tmp_path / name, tools(), samples, out=tmp_path / f"of-{name}"
        )  # fmt: skip
    good, bad = (load_measured(tmp_path / f"of-{name}", "pictures") for name in ("good", "bad"))
    found = against(good, bad)
    assert found["n"] == 4 and found["pixel_accuracy"] == pytest.approx([-64 / 32**2] * 3)
    assert found["mean_iou"][2] < 0
    table, again = compare(tmp_path / "of-good", tmp_path / "of-bad", tmp_path / "of-good").split("\n\n")
    head, _, line = table.splitlines()
    assert head.startswith("| of-bad less of-good |")
    assert again.splitlines()[2].startswith("| pictures in good | 4 | +0.0")
    assert line.startswith("| pictures in good | 4 | -0.0")
    with pytest.raises(MogleError, match="no results.json"):
        compare(tmp_path / "of-good", tmp_path)


def test_every_trained_ablation_has_a_row_and_every_row_its_ablation() -> None:
    from mogle.tiny import ablations

    assert {row.adapter for row in ABLATIONS.values()} == set(ablations.ABLATIONS)
    whole = ABLATIONS["ablation-scalar-gate"]
    assert whole.title == "scalar gate" and whole.against == ("ablation-full", "text+mask") and whole.few
    assert replace(whole, title=f"{whole.title}, local masks emptied", without="locals") in ABLATIONS.values()


def test_ablations_run_last_each_with_its_adapter(tmp_path, samples) -> None:
    pipe, loaded = Painter(), []
    pipe.load_mogle = loaded.append
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mogle.safetensors").write_bytes(b"weights")
    full = replace(ABLATIONS["ablation-full"], adapter=tmp_path / "a")
    rows = {"ablation-a": replace(full, title="without much"), "ablation-full": full}
    rows |= {name: ROWS[name] for name in ("mask", "text+mask")}
    out = tmp_path / "out"
    results = evaluate(pipe, tools(), sets(samples), out=out, rows=rows, few=2, settings=Settings(steps=1))
    assert list(results["rows"]) == ["mask", "text+mask", "ablation-a", "ablation-full"] and len(loaded) == 2
    assert results["against"]["ablation-a"]["n"] == results["against"]["mask"]["n"] == 2
    bases = {name: one["base"] for name, one in results["against"].items()}
    assert bases == {"mask": "text+mask", "ablation-full": "text+mask", "ablation-a": "ablation-full"}
    assert results["rows"]["ablation-a"]["title"] == "without much"
    (tmp_path / "a" / "mogle.safetensors").write_bytes(b"others")
    with pytest.raises(MogleError, match="made with another adapter_sha256"):
        evaluate(pipe, tools(), sets(samples), out=out, rows=rows, few=2, settings=Settings(steps=1))


def test_masks_of_ones_own_are_judged_at_every_seed(tmp_path, samples) -> None:
    pipe = Painter()
    masks = {"a": samples.masks[0], "b": samples.masks[1]}
    records = judge_masks(
        pipe, tools().judges.parser, masks, ["She smiles."], [0, 1], out=tmp_path, settings=Settings(steps=1)
    )
    assert [(r["mask"], r["seed"], r["pixel_accuracy"]) for r in records] == [
        ("a", 0, 1), ("a", 1, 1), ("b", 0, 1), ("b", 1, 1),
    ]  # fmt: skip
    assert (tmp_path / "masks.png").exists() and len(json.loads((tmp_path / "masks.json").read_text())) == 4


def test_psnr_and_reconstruction_of_a_known_error(samples) -> None:
    made = samples.images.astype(int).clip(10, 245)
    base = made.astype(np.uint8)
    assert psnr(base, (made + 10).astype(np.uint8)) == pytest.approx(20 * np.log10(255 / 10))
    assert np.stack([*reconstructed(Painter().vae, samples.images)]).shape == samples.images.shape
