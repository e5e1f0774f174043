"""`mogle evaluate`: generates pictures for test portraits and measures whether they follow mask and sentence.

Every row of the table is one way to make the pictures. Pictures are kept in the output folder with their recipes
inside, so an interrupted evaluation goes on where it stopped, and one of another model is never mixed in.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from mogle.metrics.cmmd import cmmd, cmmd_estimate
from mogle.metrics.compare import Measured, against, save_measured
from mogle.metrics.detection import detection_auc
from mogle.metrics.diversity import diversity
from mogle.metrics.fid import fid, fid_by_size, fid_estimate
from mogle.metrics.intervals import bootstrap, ends, mean_estimate
from mogle.metrics.kid import kid
from mogle.metrics.masks import class_iou, confusion_matrices, mean_iou, pixel_accuracy
from mogle.metrics.report import gallery, write_report
from mogle.metrics.samples import JPEG_SHOWS, Samples, derangement, pictures_of
from mogle.metrics.sampling import Settings, reconstructions, sample
from mogle.metrics.stack import Pictures, chunks, taken
from mogle.metrics.structure import paired_structure, structure_as_reported
from mogle.provenance import Recipe, fingerprint
from mogle.words import ATTRIBUTES, read_caption

if TYPE_CHECKING:
    from accelerate import PartialState

    from mogle.experts import MoGLE
    from mogle.metrics.judges import Judges
    from mogle.metrics.paper import PaperNetworks
    from mogle.metrics.text import TextEmbedder
    from mogle.pipeline import FaceMoGLEPipeline

GALLERY = 12  # the first samples, unselected
SEEDS, SEED_SAMPLES = 3, 24  # for diversity: so many seeds of so many samples
GATES = 6  # samples whose gate maps are shown
SMALL = 50  # below so many pictures the report warns
_DETECTABLE = 20  # pictures of each kind that a classifier needs at least


@dataclass(frozen=True)
class Row:
    """One way to make the pictures: from which inputs, and with what taken away from MoGLE.

    `few`: the row shows an effect, for which fewer samples do. `style`: of which set of portraits. `adapter`: another
    one than the pipeline's, an ablation.
    """

    title: str
    mask: bool = True
    text: bool = True
    swapped: bool = False
    without: str | None = None  # "locals" or "places"
    few: bool = True
    style: str = "portraits"
    adapter: Path | None = None


ROWS: dict[str, Row] = {
    "real": Row("real portraits", few=False),
    "reconstruction": Row("VAE reconstructions", few=False),
    "text+mask": Row("text + mask", few=False),
    "text": Row("text only", mask=False),
    "mask": Row("mask only", text=False),
    "swapped": Row("captions swapped", swapped=True, few=False),
    "no-local": Row("local masks emptied", without="locals"),
    "scalar-gate": Row("gate averaged over tokens", without="places"),
    "female": Row("zero-shot: women, another style", style="female"),
    "balanced": Row("zero-shot: balanced set", style="balanced"),
}
_TRUE = ("real", "reconstruction")  # rows of the portraits themselves


@dataclass(frozen=True)
class SampleSet:
    """Samples whose masks and captions are used, and other real pictures (M,H,W,3) that KID compares with.

    Not the samples' own pictures: reconstructions of the very same ones would come out closer than any new sample of
    the right distribution can.
    """

    samples: Samples
    reference: Pictures


def psnr(real: Pictures, made: Pictures) -> float:
    """Peak signal-to-noise ratio of uint8 pictures (N,H,W,3) in dB, averaged over the pictures."""
    error = np.array([np.square(a.astype(np.float64) - b).mean() for a, b in zip(real, made, strict=True)])
    return float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-12))))


def _caption_order(row: Row, samples: Samples) -> np.ndarray:
    """Whose caption each sample has in this row."""
    return derangement(len(samples)) if row.swapped else np.arange(len(samples))


def _expected(row: Row, real: bool, samples: Samples) -> list[Mapping[str, str | None]]:
    """What the reader ought to see in each picture of a row."""
    if real:
        return list(samples.attributes)
    said = [read_caption(samples.captions[i]) for i in _caption_order(row, samples)]
    if not row.mask:
        return list(said)
    return [judgeable(s, m, only_invisible=row.swapped) for s, m in zip(said, samples.masks, strict=True)]


def measure(
    row: Row,
    made: Pictures,
    samples: Samples,
    judges: Judges,
    reference: np.ndarray,
    *,
    real: bool = False,
    embedder: TextEmbedder | None = None,
) -> tuple[dict[str, Any], Measured]:
    """The numbers of one row, and what they were made of.

    Args:
        made: uint8 pictures (N,H,W,3), one for each sample.
        reference: the reader's features (M,192) of other real pictures.
        real: the pictures are the samples' own, so all their attributes count, not only what the caption says.
        embedder: tells how well pictures and captions match.
    """
    matrices = np.concatenate(
        [confusion_matrices(samples.masks[part], judges.parser.parse(made[part])) for part in chunks(len(made))]
    )
    matrix = matrices.sum(axis=0)
    read, features = judges.reader.read(made)
    true = encode_attributes(_expected(row, real, samples), judges.reader.values)
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

            def average(sums: np.ndarray, cuts: np.ndarray = cuts) -> float:
                return mean_balanced(np.split(sums, cuts))

            intervals[key] = ends(bootstrap(np.concatenate(counts, axis=1), average))
    scores: dict[str, np.ndarray] = {}
    if embedder is not None:
        scores["text"] = embedder.score(features, [samples.captions[i] for i in _caption_order(row, samples)])
        text = mean_estimate(scores["text"])
        numbers["text"], intervals["text"] = text.value, ends(text)
    if len(made) > 1 and len(reference) > 1:
        distance = kid(reference, features)
        numbers["kid"], intervals["kid"] = distance.value, ends(distance)
        if embedder is not None:
            seen = embedder.pictures(reference), embedder.pictures(features)
            numbers["cmmd"], intervals["cmmd"] = cmmd(*seen), ends(cmmd_estimate(*seen))
        scores["structure"] = each = paired_structure(judges.parser.keys(samples.images), judges.parser.keys(made))
        structure = mean_estimate(each)
        numbers["structure"], intervals["structure"] = structure.value, ends(structure)
        numbers["structure_as_reported"] = structure_as_reported(each)
    if min(len(made), len(reference)) >= _DETECTABLE:
        told = detection_auc(reference, features)
        numbers["detection"], intervals["detection"] = told.value, ends(told)
        numbers["fid"], endless = fid(reference, features), fid_estimate(reference, features)
        numbers["fid_endless"], intervals["fid_endless"] = endless.value, ends(endless)
        sizes, distances = fid_by_size(reference, features)
        numbers["fid_by_size"] = [[int(size), float(d)] for size, d in zip(sizes, distances, strict=True)]
    numbers["intervals"] = intervals
    return numbers, Measured(samples.ids, matrices, features, scores)


def evaluate(
    pipe: FaceMoGLEPipeline,
    judges: Judges,
    sets: Mapping[str, SampleSet],
    *,
    out: str | Path,
    rows: Sequence[str] = tuple(ROWS),
    few: int = 200,
    settings: Settings | None = None,
    judged: Mapping[str, Any] | None = None,
    embedder: TextEmbedder | None = None,
    paper: PaperNetworks | None = None,
    ablations: Mapping[str, Row] | None = None,
    state: PartialState | None = None,
) -> dict[str, Any]:
    """Fills the rows of the table and writes results.json, table.md, index.html, galleries and pictures into ``out``.

    Args:
        sets: by style; "portraits" is the test set proper.
        few: samples of the rows that show an effect; the others take all.
        judged: what config.json says about the judges, for the report.
        paper: the paper's networks, for its own six numbers besides.
        ablations: more rows, by name, each with its own adapter. They run last, and leave the pipeline with the last.
        state: where several processes share the sampling; the first one measures and writes.

    Returns:
        What results.json holds; from other processes than the first, no rows.

    Raises:
        MogleError: an unknown row, a row whose set is not given, too few samples, pictures of another model in ``out``.
    """
    known = {**ROWS, **(ablations or {})}
    unknown = [name for name in rows if name not in known]
    if unknown or not rows:
        raise MogleError(f"rows {', '.join(unknown) or 'none'}: expected some of {', '.join(known)}")
    rows = sorted(rows, key=lambda name: known[name].adapter is not None)
    if absent := [name for name in rows if known[name].style not in sets]:
        raise MogleError(f"rows {', '.join(absent)}: their set of portraits is not there; expected rows of {[*sets]}")
    if len(sets["portraits"].samples) < 2 and "swapped" in rows:
        raise MogleError("captions can only be swapped between at least two samples; use --n 2 or more")
    settings, out = settings or Settings(), Path(out)
    features = {style: _features(judges, one.reference) for style, one in sets.items()}
    main = sets["portraits"].samples
    results = _no_rows(sets["portraits"], settings, judged, embedder)
    results["warnings"] += [] if paper is None else [*paper.missing.values()]
    kept: dict[str, Measured] = {}
    columns = {"given mask": colorize(main.masks[:GALLERY]), "real portrait": main.images[:GALLERY]}
    ablated = dict(columns)
    share = (0, 1) if state is None else (state.process_index, state.num_processes)
    more: list[Pictures] = []
    for name in rows:
        start, row = time.monotonic(), known[name]
        samples = sets[row.style].samples
        if row.few:
            samples = samples.first(few)
        if name == "real":
            made = samples.images
        elif name == "reconstruction" and share[0] > 0:
            continue
        elif name == "reconstruction":
            made = reconstructions(pipe.vae, samples.images, samples.ids, out / name)
        else:
            how = settings
            if row.adapter is not None:
                pipe.load_mogle(row.adapter)
                how = replace(settings, origin={**(settings.origin or {}), "adapter_sha256": fingerprint(row.adapter)})
            recipes = _recipes(row, samples, how)
            made = sample(pipe, recipes, samples.ids, out / name, how, row.without, row.title, share)
            if name == "text+mask" and len(samples) > 1:
                more = other_seeds(pipe, samples.first(SEED_SAMPLES), made, out / "seeds", settings, share)
            if state is not None:
                state.wait_for_everyone()
        if share[0] > 0:
            continue
        numbers, measured = measure(
            row, made, samples, judges, features[row.style], real=name in _TRUE, embedder=embedder
        )
        if paper is not None:
            said = [samples.captions[i] for i in _caption_order(row, samples)]
            numbers["paper"] = paper.measure(made, said, samples.images, sets[row.style].reference)
        if name == "reconstruction":
            numbers["psnr"] = psnr(samples.images, made)
        if name == "text+mask" and len(samples) > 1:
            each = np.stack([judges.reader.read(pictures)[1] for pictures in more], axis=1)
            spread = diversity(each, features[row.style]) if len(features[row.style]) > 1 else None
            if spread is not None:
                numbers["diversity"], numbers["intervals"]["diversity"] = spread.value, ends(spread)
            gallery({f"seed {k}": pictures[:GALLERY] for k, pictures in enumerate(more)}).save(out / "seeds.png")
            _best_and_worst(made, samples, measured, judges, out)
            if (mogle := pipe.mogle) is not None and mogle.gate not in ("none", "scalar") and mogle.experts == "all":
                gate_picture(pipe, mogle, samples.first(GATES)).save(out / "gates.png")
        save_measured(out, name, measured)
        numbers["seconds"] = round(time.monotonic() - start, 1)
        results["rows"][name] = numbers
        if row.adapter is not None:
            ablated[name.removeprefix("ablation-")] = made[:GALLERY]
            gallery(ablated).save(out / "ablations.png")
        elif row.style == "portraits" and name != "real":
            columns[name] = made[:GALLERY]
            if name == "text+mask":
                columns["parsed back"] = colorize(judges.parser.parse(made[:GALLERY]))
        elif row.style != "portraits":
            shown = {"given mask": colorize(samples.masks[:GALLERY]), "real portrait": samples.images[:GALLERY]}
            gallery({**shown, "made": made[:GALLERY]}).save(out / f"{name}.png")
        if row.style == "portraits" and name not in _TRUE:
            kept[name] = measured
            for key in kept:  # whichever of two rows came first
                base = _base_of(key, kept)
                if base in kept and key != base and results["against"].get(key, {}).get("base") != base:
                    found = against(kept[base], kept[key], features["portraits"])
                    results["against"][key] = {"base": base, **found}
        gallery(columns).save(out / "gallery.png")
        write_report(out, results)
    return results


def _base_of(name: str, kept: Mapping[str, Measured]) -> str:
    """What a row is held against: an ablation against the whole method with its budget, if that is there."""
    full = "ablation-full"
    return full if name.startswith("ablation-") and full in kept and name != full else "text+mask"


def _no_rows(
    test: SampleSet,
    settings: Settings | None,
    judged: Mapping[str, Any] | None,
    embedder: TextEmbedder | None,
) -> dict[str, Any]:
    """What results.json holds before anything is measured."""
    return {
        "title": "Text and mask to face",
        "source": test.samples.source,
        "origin": dict((settings and settings.origin) or {}),
        "judges": dict(judged or {}),
        "labels": list(LABELS),
        "attributes": list(ATTRIBUTES),
        "hidden": [name for name, attribute in ATTRIBUTES.items() if not attribute.in_mask],
        "notes": _notes(test.samples, len(test.reference), settings, judged, embedder),
        "warnings": warnings_about(test, embedder, generated=settings is not None),
        "rows": {},
        "against": {},
    }


def _features(judges: Judges, pictures: Pictures) -> np.ndarray:
    return judges.reader.read(pictures)[1] if len(pictures) else np.empty((0, 1))


def other_seeds(
    pipe: FaceMoGLEPipeline,
    samples: Samples,
    made: Pictures,
    folder: Path,
    settings: Settings,
    share: tuple[int, int] = (0, 1),
) -> list[Pictures]:
    """Pictures (N,H,W,3) of the samples at their own seed, which are there already, and at two more."""
    stacks = [taken(made, range(len(samples)))]
    for k in range(1, SEEDS):
        recipes = _recipes(ROWS["text+mask"], samples, settings, seed_from=1_000_000 * k)
        names = [f"{name}-{k}" for name in samples.ids]
        stacks.append(sample(pipe, recipes, names, folder, settings, title=f"seed {k}", share=share))
    return stacks


def _best_and_worst(made: Pictures, samples: Samples, measured: Measured, judges: Judges, out: Path) -> None:
    """best.png and worst.png: the pictures that follow their masks best and worst."""
    order = np.argsort([-pixel_accuracy(matrix) for matrix in measured.matrices], kind="stable")
    for name, rows in (("best", order[:6]), ("worst", order[::-1][:6])):
        parsed = colorize(judges.parser.parse(made[rows]))
        shown = {"given mask": colorize(samples.masks[rows]), "made": made[rows], "parsed back": parsed}
        gallery({**shown, "real portrait": samples.images[rows]}).save(out / f"{name}.png")


def gate_picture(pipe: FaceMoGLEPipeline, mogle: MoGLE, samples: Samples) -> Any:
    """The gate's weights (20 maps) for each sample at t = 1, pure noise: the first thing that sampling asks for.

    The largest of all weights is white.
    """
    import torch

    maps = []
    height, width = samples.images.shape[1:3]
    unit = 2 * pipe.vae_scale_factor
    for i, mask in enumerate(samples.masks):
        tokens = pipe.encode_conditions([mask], height, width)
        noise = torch.randn(1, *tokens.shape[2:], generator=torch.Generator().manual_seed(samples.seed(i)))
        with torch.inference_mode():
            weights = mogle.gate_weights(tokens, noise.to(tokens), torch.ones(1, device=tokens.device))
        maps.append(weights[0].float().T.reshape(-1, height // unit, width // unit).cpu().numpy())
    shown = np.stack(maps, axis=1)[..., None].repeat(3, axis=-1)  # (20, N, h, w, 3)
    grey = (255 * shown / shown.max()).round().astype(np.uint8)
    return gallery(dict(zip(("global", *LABELS), grey, strict=True)), scale=8)


def warnings_about(test: SampleSet, embedder: TextEmbedder | None, generated: bool) -> list[str]:
    """What makes the numbers of a set doubtful, and why some are missing."""
    found = [*test.samples.warnings]
    if embedder is None:
        found.append("no text embedder beside the judges: text and CMMD are not measured")
    if min(len(test.samples), len(test.reference)) < _DETECTABLE:
        found.append(f"FID and the classifier need {_DETECTABLE} pictures of each kind: they are not measured")
    if test.samples.jpeg and generated:
        found.append(f"real pictures are JPEG, generated ones are not: {JPEG_SHOWS}")
    if len(test.samples) < SMALL:
        found.append(f"only {len(test.samples)} samples: intervals are wide, rare classes and attributes may be absent")
    if len(test.reference) < SMALL:
        found.append(f"only {len(test.reference)} other real pictures: KID and the classifier say little")
    return found


def _recipes(row: Row, samples: Samples, settings: Settings, seed_from: int = 0) -> list[Recipe]:
    order = _caption_order(row, samples)
    height, width = samples.images.shape[1:3]
    return [
        Recipe(
            prompt=samples.captions[order[i]] if row.text else None,
            mask=samples.masks[i] if row.mask else None,
            seed=samples.seed(i) + seed_from,
            steps=settings.steps,
            guidance=settings.guidance,
            strength=settings.strength,
            height=height,
            width=width,
        )
        for i in range(len(samples))
    ]


def _notes(
    samples: Samples,
    others: int,
    settings: Settings | None,
    judged: Mapping[str, Any] | None,
    embedder: TextEmbedder | None,
) -> list[str]:
    side = samples.images.shape[1]
    notes = [
        f"Samples: {samples.source}, {side} px, first captions, each sample's number as its seed.",
        "Pixel accuracy and mIoU: the pictures parsed back, one confusion matrix over the set, absent classes left "
        "out; for text only they say what chance gives.",
        "Attributes: those that the caption states and the mask leaves room for; for real portraits and "
        "reconstructions all that apply; for mask only those of the caption that was withheld. Averages are over "
        "attributes.",
        "Text: 100 times the cosine of picture and caption in a small embedder of portraits; for captions swapped and "
        "mask only it is the caption given, and the one withheld.",
        "Diversity: distance between seeds of one sample in the same features, in units of the distance between two "
        f"real portraits ({SEEDS} seeds, {SEED_SAMPLES} samples at most).",
        f"KID: unbiased, cubic kernel, the reader's features, against {others} other real portraits.",
        "FID: the same features, each set taken for a Gaussian; small sets come out larger, so it is given as found, "
        "by the number of pictures, and for endless sets (jackknife). CMMD: Gaussian kernel, sigma 10, times 1000, on "
        "the small embedder's pictures; its interval is of the number without bias.",
        "Structure: mean squared difference of two pictures' tables of cosines, between each and its own real one, on "
        "the parser's deepest map (8 x 8 places); the paper's convention, summed within 64 pictures, beside it.",
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
    if found := embedder and embedder.heldout.get("first captions"):
        notes.append(
            f"Text embedder on {found['n']} real portraits it was not trained on: finds a portrait's own caption first "
            f"in {found['first']:.3f} of them; text {found['own']:.1f} for its own, {found['others']:.1f} for others."
        )
    if settings is None:
        return notes
    notes.insert(
        1, f"Sampling: {settings.steps} steps, guidance {settings.guidance:g}, strength {settings.strength:g}."
    )
    return notes + [f"{key}: {value}" for key, value in (settings.origin or {}).items()]


def judge_pictures(
    folder: str | Path,
    judges: Judges,
    test: SampleSet,
    *,
    out: str | Path,
    judged: Mapping[str, Any] | None = None,
    embedder: TextEmbedder | None = None,
) -> dict[str, Any]:
    """Measures pictures that somebody else made of the samples' masks and sentences, in files named after them.

    Writes results.json, table.md, index.html and gallery.png into ``out``.
    """
    out = Path(out)
    samples, made, found = pictures_of(folder, test.samples)
    if len(samples) < 2:
        raise MogleError(f"{folder}: found one picture, expected at least two: distances are between sets")
    row = Row(f"pictures in {Path(folder).name}")
    numbers, measured = measure(row, made, samples, judges, _features(judges, test.reference), embedder=embedder)
    results = _no_rows(SampleSet(samples, test.reference), None, judged, embedder)
    results["source"] += f"; {len(samples)} pictures"
    results["warnings"] = found + results["warnings"]
    results["rows"]["pictures"] = numbers
    first = slice(GALLERY)
    columns = {"given mask": colorize(samples.masks[first]), "real portrait": samples.images[first]}
    columns |= {"made": made[first], "parsed back": colorize(judges.parser.parse(made[first]))}
    out.mkdir(parents=True, exist_ok=True)
    gallery(columns).save(out / "gallery.png")
    save_measured(out, "pictures", measured)
    write_report(out, results)
    return results
