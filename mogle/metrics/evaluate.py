"""`mogle evaluate`: generates pictures for test portraits and measures whether they follow mask and sentence.

Every row of the table is one way to make the pictures. Pictures are kept in the output folder with their recipes
inside, so an interrupted evaluation goes on where it stopped, and one of another model is never mixed in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.errors import MogleError
from mogle.labels import LABELS, colorize
from mogle.metrics.attributes import (
    encode_attributes,
    judgeable,
    mean_balanced,
    recall_counts,
    score_attributes,
)
from mogle.metrics.detection import detection_auc
from mogle.metrics.intervals import bootstrap, ends
from mogle.metrics.kid import kid
from mogle.metrics.masks import class_iou, confusion_matrices, confusion_matrix, mean_iou, pixel_accuracy
from mogle.metrics.report import gallery, write_report
from mogle.portraits import ATTRIBUTES, read_caption
from mogle.provenance import Recipe, mask_hash, read_picture, save_picture

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

    from mogle.metrics.judges import Judges
    from mogle.pipeline import FaceMoGLEPipeline

TEST_IDS = range(27_000, 30_000)
GALLERY = 12  # the first samples, unselected


@dataclass(frozen=True)
class Row:
    """One way to make the pictures: from which inputs, and with what taken away from MoGLE."""

    title: str
    mask: bool = True
    text: bool = True
    swapped: bool = False
    without: str | None = None  # "locals" or "places"


ROWS: dict[str, Row] = {
    "real": Row("real portraits"),
    "reconstruction": Row("VAE reconstructions"),
    "text+mask": Row("text + mask"),
    "text": Row("text only", mask=False),
    "mask": Row("mask only", text=False),
    "swapped": Row("captions swapped", swapped=True),
    "no-local": Row("local masks emptied", without="locals"),
    "scalar-gate": Row("gate averaged over tokens", without="places"),
}
_TRUE = ("real", "reconstruction")  # rows of the portraits themselves


@dataclass(frozen=True)
class Samples:
    """Test portraits: uint8 pictures (N,H,W,3) and label maps (N,H,W), first captions, and what is true of them."""

    ids: tuple[str, ...]
    images: np.ndarray
    masks: np.ndarray
    captions: tuple[str, ...]
    attributes: tuple[Mapping[str, str | None], ...]
    source: str

    def __len__(self) -> int:
        return len(self.ids)

    def seed(self, index: int) -> int:
        """The noise of a sample is fixed by its number, so every row starts from the same."""
        return int(self.ids[index]) if self.ids[index].isdecimal() else index


def painted_samples(count: int, size: int, first: int = TEST_IDS.start) -> Samples:
    """Portraits of the test split, painted from their numbers."""
    from mogle.portraits import paint_many

    if not 1 <= count <= TEST_IDS.stop - first:
        raise MogleError(f"{count} portraits from number {first} on: expected 1 to {max(0, TEST_IDS.stop - first)}")
    images, masks, attributes, captions = paint_many(range(first, first + count), size=size)
    return Samples(
        tuple(str(i) for i in range(first, first + count)),
        images,
        masks,
        tuple(c[0] for c in captions),
        tuple(attributes),
        f"painted portraits {first} to {first + count - 1}",
    )


def folder_samples(
    root: str | Path, count: int, size: int, split: str | None = "test", others: int = 0
) -> tuple[Samples, np.ndarray]:
    """The first samples of a data set folder, and pictures (M,H,W,3) of up to ``others`` that follow.

    Of photographs, what the first caption states counts as true.
    """
    from mogle.datasets import FaceDataset

    data = FaceDataset(root, split=split, size=size)
    items = [data[i] for i in range(min(count, len(data)))]
    rest = [np.asarray(data.image(i)) for i in range(len(items), min(count + others, len(data)))]
    samples = Samples(
        tuple(item.id for item in items),
        np.stack([np.asarray(item.image) for item in items]),
        np.stack([item.label_map for item in items]),
        tuple(item.captions[0] for item in items),
        tuple(item.attributes or read_caption(item.captions[0]) for item in items),
        f"{Path(root).name}, {'first ' if count < len(data) else ''}{len(items)} samples",
    )
    return samples, np.stack(rest) if rest else np.empty((0, size, size, 3), np.uint8)


def derangement(count: int, seed: int = 0) -> np.ndarray:
    """A fixed random order in which nothing keeps its place (one cycle; Sattolo's algorithm)."""
    order, rng = np.arange(count), np.random.default_rng(seed)
    for i in range(count - 1, 0, -1):
        j = int(rng.integers(i))
        order[i], order[j] = order[j], order[i]
    return order


@dataclass(frozen=True)
class Settings:
    """How pictures are sampled; ``origin`` (weights, versions) goes into every PNG and decides what may be reused."""

    steps: int = 28
    guidance: float = 3.5
    strength: float = 1.0
    batch: int = 16
    origin: Mapping[str, str] | None = None


def sample(
    pipe: FaceMoGLEPipeline, recipes: Sequence[Recipe], names: Sequence[str], folder: Path, settings: Settings,
    without: str | None = None, title: str = "",
) -> np.ndarray:  # fmt: skip
    """Pictures (N,H,W,3) of the recipes as ``folder/NAME.png``; what is there already is read, not made again."""
    from tqdm.auto import tqdm

    origin = {**(settings.origin or {}), **({"without": without} if without else {})}
    made: dict[int, np.ndarray] = {}
    for i, (recipe, name) in enumerate(zip(recipes, names, strict=True)):
        if (folder / f"{name}.png").exists():
            made[i] = _reuse(folder / f"{name}.png", recipe, origin)
    todo = [i for i in range(len(recipes)) if i not in made]
    pipe.set_progress_bar_config(disable=True)  # one bar for all, not one for each batch
    with tqdm(total=len(recipes), initial=len(made), desc=title or folder.name, unit="picture") as bar:
        for start in range(0, len(todo), settings.batch):
            chunk = todo[start : start + settings.batch]
            for i, picture in zip(chunk, _run(pipe, [recipes[i] for i in chunk], without), strict=True):
                save_picture(folder / f"{names[i]}.png", picture, recipes[i], dict(origin))
                made[i] = np.asarray(picture.convert("RGB"))
            bar.update(len(chunk))
    return np.stack([made[i] for i in range(len(recipes))])


def _reuse(path: Path, recipe: Recipe, origin: Mapping[str, str]) -> np.ndarray:
    """The picture, if it was made by just this recipe and these weights."""
    picture, then, made_by = read_picture(path)
    wanted, found = _plain(recipe), _plain(then)
    for key in ("base_sha256", "adapter_sha256", "without"):
        wanted[key], found[key] = origin.get(key), made_by.get(key)
    different = [key for key in wanted if wanted[key] != found[key]]
    if different:
        raise MogleError(
            f"{path}: made with another {', '.join(different)}; choose an empty --out, or delete {path.parent}"
        )
    return np.asarray(picture.convert("RGB"))


def _plain(recipe: Recipe) -> dict[str, Any]:
    return {**recipe.__dict__, "mask": None if recipe.mask is None else mask_hash(recipe.mask)}


@contextmanager
def _gate(pipe: FaceMoGLEPipeline, kind: str | None) -> Iterator[None]:
    """MoGLE with another kind of gate on the same weights, for a while."""
    if kind is None or pipe.mogle is None:
        yield
        return
    before, pipe.mogle.gate = pipe.mogle.gate, kind
    try:
        yield
    finally:
        pipe.mogle.gate = before


def _run(pipe: FaceMoGLEPipeline, recipes: Sequence[Recipe], without: str | None) -> list[Any]:
    """One batch. Recipes of one batch agree in all but prompt, mask and seed."""
    import torch

    one = recipes[0]
    inputs: dict[str, Any] = {}
    if any(r.prompt is not None for r in recipes):
        inputs["prompt"] = [r.prompt or "" for r in recipes]
    if any(r.mask is not None for r in recipes):
        inputs["mask"] = [r.mask for r in recipes]
    if without == "locals":
        inputs["condition_tokens"] = empty_locals(pipe, inputs.pop("mask"))
    with _gate(pipe, "scalar" if without == "places" else None):
        return pipe(
            **inputs,
            height=one.height,
            width=one.width,
            num_inference_steps=one.steps,
            guidance_scale=one.guidance,
            conditioning_scale=one.strength,
            generator=[torch.Generator().manual_seed(r.seed) for r in recipes],
        ).images


def empty_locals(pipe: FaceMoGLEPipeline, masks: Sequence[np.ndarray]) -> Any:
    """Condition tokens (B,20,N,64) whose 19 local masks are all black, as they were in the reference's inference."""
    from mogle.conditions import encode_distinct

    tokens, index = encode_distinct(pipe.vae, masks, pipe._execution_device)
    index[:, 1:] = 0
    return tokens[index]


def reconstruct(vae: AutoencoderKL, images: np.ndarray, batch: int = 16) -> np.ndarray:
    """Pictures (N,H,W,3) through the VAE and back: the best that any generator on this VAE can do."""
    import torch

    made = []
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(images[start : start + batch]).permute(0, 3, 1, 2).to(vae.device, vae.dtype)
            decoded = vae.decode(vae.encode(pixels / 127.5 - 1).latent_dist.mode()).sample
            made.append(((decoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu())
    return torch.cat(made).numpy()


def psnr(real: np.ndarray, made: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 pictures (N,H,W,3) in dB, averaged over the pictures."""
    error = np.square(real.astype(np.float64) - made).mean((1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-12))))


def _measure(
    name: str, made: np.ndarray, samples: Samples, judges: Judges, reference: np.ndarray, own: np.ndarray
) -> dict[str, Any]:
    """The numbers of one row. ``reference`` are features of other real portraits, ``own`` of the samples themselves."""
    row = ROWS[name]
    matrices = confusion_matrices(samples.masks, judges.parser.parse(made))
    matrix = matrices.sum(axis=0)
    read, features = judges.reader.read(made)
    if name in _TRUE:
        expected: list[Mapping[str, str | None]] = list(samples.attributes)
    else:
        order = derangement(len(samples)) if row.swapped else np.arange(len(samples))
        said = [read_caption(samples.captions[i]) for i in order]
        expected = list(said)
        if row.mask:
            expected = [judgeable(s, m, only_invisible=row.swapped) for s, m in zip(said, samples.masks, strict=True)]
    true = encode_attributes(expected, judges.reader.values)
    table = score_attributes(true, read)
    numbers: dict[str, Any] = {
        "title": row.title,
        "n": len(samples),
        "mask": {
            "pixel_accuracy": pixel_accuracy(matrix),
            "mean_iou": mean_iou(matrix),
            "class_iou": {n: None if np.isnan(v) else float(v) for n, v in zip(LABELS, class_iou(matrix), strict=True)},
        },
        "attributes": table,
    }
    intervals: dict[str, list[float] | None] = {
        "pixel_accuracy": ends(bootstrap(matrices, pixel_accuracy)),
        "mean_iou": ends(bootstrap(matrices, mean_iou)),
    }
    for key, in_mask in (("attributes_hidden", False), ("attributes_shown", True)):
        names = [attribute for attribute in table if ATTRIBUTES[attribute].in_mask == in_mask]
        numbers[key] = float(np.mean([table[n]["balanced"] for n in names])) if names else None
        if names:
            counts = [recall_counts(true[n], read[n], len(judges.reader.values[n])) for n in names]
            cuts = np.cumsum([c.shape[1] for c in counts])[:-1]
            joined = np.concatenate(counts, axis=1)
            intervals[key] = ends(bootstrap(joined, lambda sums, cuts=cuts: mean_balanced(np.split(sums, cuts))))  # type: ignore[misc]
    if len(made) > 1 and len(reference) > 1:
        distance = kid(reference, features)
        numbers["kid"] = distance.value
        intervals["kid"] = ends(distance)
        numbers["kid_own"] = kid(own, features).value
        seen = detection_auc(reference, features) if min(len(made), len(reference)) >= 10 else None
        numbers["detection"] = None if seen is None else seen.value
        intervals["detection"] = None if seen is None else ends(seen)
    numbers["intervals"] = intervals
    if name == "reconstruction":
        numbers["psnr"] = psnr(samples.images, made)
    return numbers


def evaluate(
    pipe: FaceMoGLEPipeline,
    judges: Judges,
    samples: Samples,
    reference: np.ndarray,
    *,
    out: str | Path,
    rows: Sequence[str] = tuple(ROWS),
    settings: Settings | None = None,
    judged: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Fills the rows of the table and writes results.json, table.md, gallery.png and the pictures into ``out``.

    Args:
        samples: the portraits whose masks and captions are used.
        reference: other real pictures (M,H,W,3) that KID compares with. Not the samples' own: reconstructions of the
            very same pictures would come out closer than any new sample of the right distribution can.
        judged: what config.json says about the judges, for the report.

    Returns:
        What results.json holds.
    """
    unknown = [name for name in rows if name not in ROWS]
    if unknown or not rows:
        raise MogleError(f"rows {', '.join(unknown) or 'none'}: expected some of {', '.join(ROWS)}")
    if len(samples) < 2 and "swapped" in rows:
        raise MogleError("captions can only be swapped between at least two samples; use --n 2 or more")
    settings, out = settings or Settings(), Path(out)
    own = judges.reader.read(samples.images)[1]
    other = judges.reader.read(reference)[1] if len(reference) else reference
    results: dict[str, Any] = {
        "title": "Text and mask to face",
        "source": samples.source,
        "origin": dict(settings.origin or {}),
        "judges": dict(judged or {}),
        "labels": list(LABELS),
        "attributes": list(ATTRIBUTES),
        "hidden": [name for name, attribute in ATTRIBUTES.items() if not attribute.in_mask],
        "notes": _notes(samples, len(reference), settings, judged),
        "rows": {},
    }
    columns = {"given mask": colorize(samples.masks[:GALLERY]), "real portrait": samples.images[:GALLERY]}
    for name in rows:
        start = time.monotonic()
        if name == "real":
            made = samples.images
        elif name == "reconstruction":
            made = reconstruct(pipe.vae, samples.images)
        else:
            made = sample(
                pipe, _recipes(ROWS[name], samples, settings), samples.ids, out / name, settings, ROWS[name].without,
                ROWS[name].title,
            )  # fmt: skip
        results["rows"][name] = _measure(name, made, samples, judges, other, own)
        results["rows"][name]["seconds"] = round(time.monotonic() - start, 1)
        if name != "real":
            columns[name] = made[:GALLERY]
            if name == "text+mask":
                columns["parsed back"] = colorize(judges.parser.parse(made[:GALLERY]))
        write_report(out, results)
    gallery(columns).save(out / "gallery.png")
    return results


def _recipes(row: Row, samples: Samples, settings: Settings) -> list[Recipe]:
    order = derangement(len(samples)) if row.swapped else np.arange(len(samples))
    height, width = samples.images.shape[1:3]
    return [
        Recipe(
            prompt=samples.captions[order[i]] if row.text else None,
            mask=samples.masks[i] if row.mask else None,
            seed=samples.seed(i),
            steps=settings.steps,
            guidance=settings.guidance,
            strength=settings.strength,
            height=height,
            width=width,
        )
        for i in range(len(samples))
    ]


def _notes(samples: Samples, others: int, settings: Settings, judged: Mapping[str, Any] | None) -> list[str]:
    side = samples.images.shape[1]
    notes = [
        f"Samples: {samples.source}, {side} px, first captions, each sample's number as its seed.",
        f"Sampling: {settings.steps} steps, guidance {settings.guidance:g}, strength {settings.strength:g}.",
        "Pixel accuracy and mIoU: the pictures parsed back, one confusion matrix over the set, absent classes left "
        "out; for text only they say what chance gives.",
        "Attributes: those that the caption states and the mask leaves room for; for real portraits and "
        "reconstructions all that apply; for mask only those of the caption that was withheld. Averages are over "
        "attributes.",
        f"KID: unbiased, cubic kernel, the reader's features, against {others} other real portraits.",
        "Real or generated: area under the curve of a linear classifier on the same features, trained on one half of "
        "the pictures and tried on the other; 0.5 is chance.",
        "In brackets: 95 % intervals over the choice of pictures (bootstrap; KID by its variance, the classifier by "
        "DeLong's, single attributes by Agresti and Coull's).",
    ]
    if held := (judged or {}).get("heldout"):
        worst = min(held["balanced_accuracy"].items(), key=lambda item: item[1])
        notes.append(
            f"Judges on {held['n']} real portraits they were not trained on: mIoU {held['mean_iou']:.3f}, balanced "
            f"accuracy of attributes at least {worst[1]:.3f} ({worst[0]})."
        )
    return notes + [f"{key}: {value}" for key, value in (settings.origin or {}).items()]


def judge_masks(
    pipe: FaceMoGLEPipeline,
    judges: Judges,
    masks: Mapping[str, np.ndarray],
    prompts: Sequence[str | None],
    seeds: Sequence[int],
    *,
    out: str | Path,
    settings: Settings | None = None,
) -> list[dict[str, Any]]:
    """Every mask with every prompt and seed: does the picture, parsed back, have the mask?

    ``masks`` are label maps by name, at the size of the pictures wanted. Writes the pictures, masks.json and
    masks.png (mask, picture, parsed) into ``out`` and returns one record for each picture.
    """
    import json

    settings, out = settings or Settings(), Path(out)
    cases = [(name, p, seed) for name in masks for p in range(len(prompts)) for seed in seeds]
    recipes = [
        Recipe(
            prompts[p], masks[name], seed, settings.steps, settings.guidance, settings.strength, *masks[name].shape
        )
        for name, p, seed in cases
    ]  # fmt: skip
    names = [f"{name}-{p}-{seed}" for name, p, seed in cases]
    made = sample(pipe, recipes, names, out / "masks", settings, title="masks")
    parsed = judges.parser.parse(made)
    records = []
    for (name, p, seed), labels in zip(cases, parsed, strict=True):
        matrix = confusion_matrix(masks[name], labels)
        records.append(
            {
                "mask": name, "prompt": prompts[p], "seed": seed,
                "pixel_accuracy": pixel_accuracy(matrix), "mean_iou": mean_iou(matrix),
            }
        )  # fmt: skip
    (out / "masks.json").write_text(json.dumps(records, indent=1) + "\n")
    wanted = np.stack([masks[name] for name, _, _ in cases])
    gallery({"mask": colorize(wanted), "made": made, "parsed back": colorize(parsed)}).save(out / "masks.png")
    return records
