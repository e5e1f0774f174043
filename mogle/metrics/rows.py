"""The rows of the evaluation's table: each is one way to make pictures of the test samples. This is the first pass.

What is special about a row is data of the row. Pictures are kept in the output folder with their recipes inside, so an
interrupted evaluation goes on where it stopped, and one of another model is never mixed in.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from mogle.checkpoints import shipped
from mogle.errors import MogleError
from mogle.labels import LABELS
from mogle.metrics.samples import Samples, derangement
from mogle.metrics.stack import Pictures, batches, stored, taken
from mogle.provenance import Recipe, fingerprint
from mogle.sampling import Settings, draw, run, seed_of

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from PIL import Image

    from mogle.pipeline import FaceMoGLEPipeline

SEEDS, SEED_SAMPLES = 3, 24  # for diversity: so many seeds of so many samples
GATES = 6  # samples whose gate maps are shown


def _without_locals(pipe: FaceMoGLEPipeline, recipes: Sequence[Recipe]) -> list[Image.Image]:
    """All 19 local masks black, as they were in the reference's inference by mistake."""
    one, masks = recipes[0], [recipe.mask for recipe in recipes]
    tokens = pipe.encode_conditions(masks, one.height, one.width, local_masks=False)
    return run(pipe, recipes, condition_tokens=tokens)


def _without_places(pipe: FaceMoGLEPipeline, recipes: Sequence[Recipe]) -> list[Image.Image]:
    """The gate averaged over the tokens, on the same weights."""
    mogle: Any = pipe.mogle
    by_place = mogle.gate_weights
    mogle.gate_weights = lambda *inputs: by_place(*inputs).mean(dim=1, keepdim=True)
    try:
        return run(pipe, recipes)
    finally:
        del mogle.gate_weights  # the class has its own


WITHOUT = {None: run, "locals": _without_locals, "places": _without_places}


@dataclass(frozen=True)
class Row:
    """One way to make the pictures: from which inputs, and with what taken away from MoGLE.

    Attributes:
        source: who makes them: the pipeline, the VAE of the samples' own pictures, or nobody, the samples' own.
        mask, text, swapped: what the pictures are made from; swapped: each with the caption of another sample.
        mask_guidance, gate_time: in place of the evaluation's own.
        without: what MoGLE goes without: "locals" or "places".
        few: only the first samples, as many as the evaluation says.
        style: whose samples: the test set's portraits, or a shifted set.
        adapter: a folder, of a row that has one of its own; in rows.toml its name in checkpoints/ablations.
        detailed: several seeds, gate maps, and the best and the worst are shown too.
        against: the rows that it is held against, picture by picture: the first of these that is there.
        gallery, column: the sheet that shows its first pictures, and the title there (the row's name).
    """

    title: str
    source: Literal["pipeline", "vae", "samples"] = "pipeline"
    mask: bool = True
    text: bool = True
    swapped: bool = False
    mask_guidance: float | None = None
    gate_time: str | None = None
    without: str | None = None
    few: bool = True
    style: str = "portraits"
    adapter: Path | str | None = None
    detailed: bool = False
    against: Sequence[str] = ("text+mask",)
    gallery: str = "gallery"
    column: str = ""

    def captions(self, samples: Samples) -> list[str]:
        """What each picture of this row is made from, or was withheld from it."""
        order = derangement(len(samples)) if self.swapped else range(len(samples))
        return [samples.captions[i] for i in order]


def _table(kind: str, **shared: Any) -> dict[str, Row]:
    return {name: Row(**{**shared, **fields}) for name, fields in _ENTRIES[kind].items()}


_ENTRIES = tomllib.loads(Path(__file__).with_name("rows.toml").read_text(encoding="utf-8"))
ROWS = _table("rows")
ABLATIONS = _table("ablations", against=("ablation-full", "text+mask"), gallery="ablations")


def guided(weight: float) -> Row:
    """Text + mask with mask guidance: two forwards a step, where the adapter has not learned to do with one."""
    return Row(f"text + mask, mask guidance {weight:g}", mask_guidance=weight, column=f"mask guidance {weight:g}")


def shipped_ablations() -> dict[str, Row]:
    """The rows of those ablations whose adapters are in checkpoints/ablations, if any."""
    try:
        folder = shipped("ablations")
    except MogleError:
        return {}
    rows = {name: replace(row, adapter=folder / str(row.adapter)) for name, row in ABLATIONS.items()}
    return {name: row for name, row in rows.items() if Path(str(row.adapter)).is_dir()}


class Made(NamedTuple):
    """The pictures (H,W,3) of a row, one for each sample.

    Of a detailed row also those of the first samples at several seeds, and the gate's maps: {expert: uint8 (N,h,w,3)}.
    """

    row: Row
    samples: Samples
    pictures: Pictures
    seeds: Sequence[Pictures] = ()
    gates: Mapping[str, np.ndarray] = {}


def make(
    pipe: FaceMoGLEPipeline, rows: Mapping[str, Row], sets: Mapping[str, Samples], out: Path, settings: Settings,
    *, few: int, share: tuple[int, int] = (0, 1),
) -> dict[str, Made]:  # fmt: skip
    """The pictures of all rows, in folders of their names; of several processes each makes its share.

    Rows with adapters of their own run last, and leave the pipeline with the last of these.

    Raises:
        MogleError: pictures of another model or other settings are in the way.
    """
    made = {}
    for name, row in sorted(rows.items(), key=lambda item: item[1].adapter is not None):
        samples, how = sets[row.style].first(few) if row.few else sets[row.style], settings
        own: dict[str, Any] = {"mask_guidance": row.mask_guidance, "gate_time": row.gate_time}
        how = replace(how, **{name: value for name, value in own.items() if value is not None})
        if row.adapter is not None:
            pipe.load_mogle(row.adapter)
            how = replace(how, origin={**(how.origin or {}), "adapter_sha256": fingerprint(row.adapter)})
        made[name] = one = Made(row, samples, pictures_of_row(pipe, row, samples, out / name, how, share))
        if row.detailed and len(samples) > 1:
            some = samples.first(SEED_SAMPLES)
            seeds: list[Pictures] = [taken(one.pictures, range(len(some)))]
            for k in range(1, SEEDS):
                other = replace(how, seed=how.seed + k)
                seeds.append(pictures_of_row(pipe, row, some, out / "seeds" / str(k), other, share))
            made[name] = one._replace(seeds=seeds, gates=gate_maps(pipe, samples.first(GATES), how.seed))
    return made


def pictures_of_row(
    pipe: FaceMoGLEPipeline, row: Row, samples: Samples, folder: Path, settings: Settings, share: tuple[int, int]
) -> Pictures:
    """The pictures of a row, kept in the folder unless they are the samples' own.

    Reconstructions are made anew each time, by the first process: they cost little.
    """
    from PIL import Image

    files = [folder / f"{name}.png" for name in samples.ids]
    if row.source == "samples":
        return samples.images
    if row.source == "vae" and share[0] == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for path, picture in zip(files, reconstructed(pipe.vae, samples.images), strict=True):
            Image.fromarray(picture).save(path)
    if row.source == "pipeline":
        captions = row.captions(samples)

        def recipe_of(i: int) -> Recipe:
            prompt, mask = captions[i] if row.text else None, samples.masks[i] if row.mask else None
            return settings.recipe(prompt, mask, seed_of(samples.ids[i], settings.seed), samples.size)

        origin = {**(settings.origin or {}), **({"without": row.without} if row.without else {})}
        method = WITHOUT[row.without]
        draw(pipe, files, recipe_of, origin, batch=settings.batch, share=share, run=method, title=row.title)
    return stored(files, samples.size)


def reconstructed(vae: AutoencoderKL, images: Pictures) -> Iterator[np.ndarray]:
    """Pictures (H,W,3) through the VAE and back: the best that any generator on this VAE can do."""
    import torch

    for part in batches(images, 16):
        with torch.inference_mode():
            pixels = torch.from_numpy(part).permute(0, 3, 1, 2).to(vae.device, vae.dtype)
            decoded = vae.decode(vae.encode(pixels / 127.5 - 1).latent_dist.mode()).sample.float()
        whole = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        yield from whole.permute(0, 2, 3, 1).cpu().numpy()


def gate_maps(pipe: FaceMoGLEPipeline, samples: Samples, seed: int = 0) -> dict[str, np.ndarray]:
    """The gate's weights for each sample at t = 1, pure noise, the first thing that sampling asks for: uint8 (N,h,w,3).

    The largest of all weights is white. Without a gate that weighs all experts by place there are none.
    """
    import torch

    mogle: Any = pipe.mogle
    (height, width), unit = samples.size, 2 * pipe.vae_scale_factor
    tokens = pipe.encode_conditions(list(samples.masks), height, width)
    chance = [torch.Generator().manual_seed(seed_of(name, seed)) for name in samples.ids]
    noise = torch.cat([torch.randn(1, *tokens.shape[2:], generator=one) for one in chance])
    with torch.inference_mode():
        weights = mogle.gate_weights(tokens, noise.to(tokens), torch.ones(len(tokens), device=tokens.device))
    if weights.shape[1:] != (tokens.shape[2], tokens.shape[1]):
        return {}
    maps = (255 * weights.float() / weights.float().max()).round().to("cpu", torch.uint8).numpy()  # (N, places, 20)
    maps = maps.reshape(len(samples), height // unit, width // unit, -1, 1).repeat(3, axis=-1)
    return {name: maps[:, :, :, k] for k, name in enumerate(("global", *LABELS))}
