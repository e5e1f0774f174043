"""The rows of the evaluation's table: each is one way to make pictures of the test samples. This is the first pass.

What is special about a row is data of the row. Pictures are kept in the output folder with their recipes inside, so an
interrupted evaluation goes on where it stopped, and one of another model is never mixed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mogle.labels import LABELS
from mogle.metrics.samples import Samples, SampleSet, derangement
from mogle.metrics.stack import Pictures, chunks, stored, taken
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
class Job:
    """What a row's pictures are made with; of several processes (number, how many) each makes its `share`."""

    pipe: FaceMoGLEPipeline
    row: Row
    samples: Samples
    folder: Path
    settings: Settings
    share: tuple[int, int]

    @property
    def files(self) -> list[Path]:
        return [self.folder / f"{name}.png" for name in self.samples.ids]


def own(job: Job) -> Pictures:
    """The samples' own pictures."""
    return job.samples.images


def drawn(job: Job) -> Pictures:
    """Pictures by the pipeline from the row's inputs."""
    row, samples, settings = job.row, job.samples, job.settings
    said, how = row.captions(samples), settings
    if row.mask_guidance is not None:
        how = replace(settings, mask_guidance=row.mask_guidance)

    def recipe_of(i: int) -> Recipe:
        prompt, mask = said[i] if row.text else None, samples.masks[i] if row.mask else None
        return how.recipe(prompt, mask, seed_of(samples.ids[i], settings.seed), samples.size)

    origin = {**(settings.origin or {}), **({"without": row.without} if row.without else {})}
    options = {"batch": settings.batch, "share": job.share, "run": WITHOUT[row.without], "title": row.title}
    draw(job.pipe, job.files, recipe_of, origin, **options)  # type: ignore[arg-type]
    return stored(job.files, samples.size)


def reconstructed(job: Job) -> Pictures:
    """The samples' own pictures through the VAE, by the first process; made anew each time, which costs little."""
    from PIL import Image

    job.folder.mkdir(parents=True, exist_ok=True)
    for part in chunks(len(job.samples) if job.share[0] == 0 else 0, 16):
        for picture, path in zip(reconstruct(job.pipe.vae, job.samples.images[part]), job.files[part], strict=True):
            Image.fromarray(picture).save(path)
    return stored(job.files, job.samples.size)


def reconstruct(vae: AutoencoderKL, images: np.ndarray, batch: int = 16) -> np.ndarray:
    """Pictures (N,H,W,3) through the VAE and back: the best that any generator on this VAE can do."""
    import torch

    made = []
    with torch.inference_mode():
        for part in chunks(len(images), batch):
            pixels = torch.from_numpy(images[part]).permute(0, 3, 1, 2).to(vae.device, vae.dtype)
            decoded = vae.decode(vae.encode(pixels / 127.5 - 1).latent_dist.mode()).sample
            made.append(((decoded.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu())
    return torch.cat(made).numpy()


@dataclass(frozen=True)
class Row:
    """One way to make the pictures: from which inputs, and with what taken away from MoGLE.

    Attributes:
        mask, text, swapped: what the pictures are made from; swapped: each with the caption of another sample.
        mask_guidance: in place of the settings' own.
        without: "locals" or "places", what is taken away (`WITHOUT`).
        few: the row shows an effect, for which fewer samples do.
        style: of which set of portraits.
        adapter: another one than the pipeline's, an ablation.
        make: how the pictures come about.
        real: they are the samples' own, so all their attributes count, not only what the caption says.
        detailed: also at other seeds, parsed back, with gate maps, and the best and the worst of them.
        psnr: the noise in dB is measured, against the samples' own pictures.
        against: the rows that it is held against, picture by picture: the first of these that is there.
        gallery, column: the sheet that shows its first pictures, and the title there (the row's name).
    """

    title: str
    mask: bool = True
    text: bool = True
    swapped: bool = False
    mask_guidance: float | None = None
    without: str | None = None
    few: bool = True
    style: str = "portraits"
    adapter: Path | None = None
    make: Callable[[Job], Pictures] = drawn
    real: bool = False
    detailed: bool = False
    psnr: bool = False
    against: tuple[str, ...] = ("text+mask",)
    gallery: str = "gallery"
    column: str = ""

    def captions(self, samples: Samples) -> list[str]:
        """What each picture of this row is made from, or was withheld from it."""
        order = derangement(len(samples)) if self.swapped else range(len(samples))
        return [samples.captions[i] for i in order]


def _shifted(title: str, style: str) -> Row:
    return Row(title, style=style, against=(), gallery=style, column="made")


def ablation(title: str, adapter: Path, without: str | None = None) -> Row:
    """The row of another adapter, held against the whole method with the same budget."""
    against = ("ablation-full", "text+mask")
    return Row(title, adapter=adapter, without=without, against=against, gallery="ablations")


def guided(weight: float) -> Row:
    """Text + mask with mask guidance: two forwards a step, where the adapter has not learned to do with one."""
    return Row(f"text + mask, mask guidance {weight:g}", mask_guidance=weight, column=f"mask guidance {weight:g}")


ROWS: dict[str, Row] = {
    "real": Row("real portraits", few=False, make=own, real=True, against=(), column="real portrait"),
    "reconstruction": Row("VAE reconstructions", few=False, make=reconstructed, real=True, psnr=True, against=()),
    "text+mask": Row("text + mask", few=False, detailed=True, against=()),
    "text": Row("text only", mask=False),
    "mask": Row("mask only", text=False),
    "swapped": Row("captions swapped", swapped=True, few=False),
    "no-local": Row("local masks emptied", without="locals"),
    "scalar-gate": Row("gate averaged over tokens", without="places"),
    "female": _shifted("zero-shot: women, another style", "female"),
    "balanced": _shifted("zero-shot: balanced set", "balanced"),
}


@dataclass(frozen=True)
class Made:
    """The pictures (N,H,W,3) of a row, one for each sample.

    Of a detailed row also those of the first samples at several seeds, and the gate's maps: {expert: uint8 (N,h,w,3)}.
    """

    row: Row
    samples: Samples
    pictures: Pictures
    seeds: list[Pictures] = field(default_factory=list)
    gates: dict[str, np.ndarray] = field(default_factory=dict)


def make(
    pipe: FaceMoGLEPipeline, rows: Mapping[str, Row], sets: Mapping[str, SampleSet], out: Path, settings: Settings,
    *, few: int, share: tuple[int, int] = (0, 1),
) -> dict[str, Made]:  # fmt: skip
    """The pictures of all rows, in folders of their names; of several processes each makes its share.

    Rows with adapters of their own run last, and leave the pipeline with the last of these.

    Raises:
        MogleError: pictures of another model or other settings are in the way.
    """
    made = {}
    for name, row in sorted(rows.items(), key=lambda item: item[1].adapter is not None):
        samples, how = sets[row.style].samples, settings
        if row.few:
            samples = samples.first(few)
        if row.adapter is not None:
            pipe.load_mogle(row.adapter)
            how = replace(settings, origin={**(settings.origin or {}), "adapter_sha256": fingerprint(row.adapter)})
        made[name] = one = Made(row, samples, row.make(Job(pipe, row, samples, out / name, how, share)))
        if row.detailed and len(samples) > 1:
            some = samples.first(SEED_SAMPLES)
            one.seeds.append(taken(one.pictures, range(len(some))))
            for k in range(1, SEEDS):
                job = Job(pipe, row, some, out / "seeds" / str(k), replace(how, seed=how.seed + k), share)
                one.seeds.append(row.make(job))
            one.gates.update(gate_maps(pipe, samples.first(GATES), how.seed))
    return made


def gate_maps(pipe: FaceMoGLEPipeline, samples: Samples, seed: int = 0) -> dict[str, np.ndarray]:
    """The gate's weights for each sample at t = 1, pure noise, the first thing that sampling asks for: uint8 (N,h,w,3).

    The largest of all weights is white. Without a gate that weighs all experts by place there are none.
    """
    import torch

    mogle: Any = pipe.mogle
    maps, (height, width), unit = [], samples.size, 2 * pipe.vae_scale_factor
    for name, mask in zip(samples.ids, samples.masks, strict=True):
        tokens = pipe.encode_conditions([mask], height, width)
        noise = torch.randn(1, *tokens.shape[2:], generator=torch.Generator().manual_seed(seed_of(name, seed)))
        with torch.inference_mode():
            weights = mogle.gate_weights(tokens, noise.to(tokens), torch.ones(1, device=tokens.device))
        if weights.shape[1:] != (tokens.shape[2], tokens.shape[1]):
            return {}
        maps.append(weights[0].float().T.reshape(-1, height // unit, width // unit).cpu().numpy())
    shown = np.stack(maps, axis=1)[..., None].repeat(3, axis=-1)  # (20, N, h, w, 3)
    return dict(zip(("global", *LABELS), (255 * shown / shown.max()).round().astype(np.uint8), strict=True))
