"""What notebook 10 measures: its judges, the pictures of two models, damaged copies, and two ways of cheating."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

if TYPE_CHECKING:
    from mogle.course import Course
    from mogle.metrics.judges import AttributeReader, FaceParser, TextEmbedder

#: Who the two models are: the shipped weights, at this strength of the mask.
WHO = {"A": 0.5, "B": 1.0}


def judges_of(course: Course) -> tuple[FaceParser, AttributeReader, TextEmbedder]:
    """The parser (picture -> label map), the reader (attributes and features), the embedder (text score)."""
    from mogle.metrics.judges import load_judges, load_text_embedder

    embedder = load_text_embedder(course.judges)
    assert embedder is not None, f"{course.judges}: no text.safetensors there"
    return *load_judges(course.judges), embedder


def two_models(course: Course, masks: np.ndarray, sentences: Sequence[str], steps: int = 6) -> dict[str, np.ndarray]:
    """Masks (n, H, W) and their sentences -> the pictures of A and of B, uint8 (n, H, W, 3), from the same noise."""
    from mogle import FaceMoGLEPipeline

    pipe = FaceMoGLEPipeline.from_pretrained(course.base).to(course.device)
    pipe.load_mogle(course.adapter)
    pipe.set_progress_bar_config(disable=True)
    height, width = masks[0].shape
    with warnings.catch_warnings():  # CLIP reads the beginning of a long caption, T5 all of it
        warnings.simplefilter("ignore")
        words, pooled, _ = pipe.encode_prompt(list(sentences))
    tokens, made = pipe.encode_conditions(list(masks), height, width), {}
    for name, strength in WHO.items():
        chance = [torch.Generator().manual_seed(i) for i in range(len(masks))]
        drawn = pipe(
            prompt_embeds=words, pooled_prompt_embeds=pooled, condition_tokens=tokens, conditioning_scale=strength,
            generator=chance, num_inference_steps=steps, height=height, width=width,
        )  # fmt: skip
        made[name] = np.stack([np.asarray(picture) for picture in drawn.images])
    return made


def through_vae(course: Course, pictures: np.ndarray) -> np.ndarray:
    """Pictures (n, H, W, 3) encoded and decoded again: the best that any model on this VAE can do."""
    from diffusers import AutoencoderKL

    from mogle.metrics.rows import reconstructed

    vae = AutoencoderKL.from_pretrained(course.base / "vae").float().eval().requires_grad_(False)
    return np.stack(list(reconstructed(vae, pictures)))


# --- damage --------------------------------------------------------------------------------------------------------


def _jpeg(picture: np.ndarray, quality: int = 75) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file))


def _blurred(picture: np.ndarray, sigma: float = 2.0) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(picture, (sigma, sigma, 0))


def _noisy(picture: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 25, picture.shape)
    return (picture + noise).clip(0, 255).round().astype(np.uint8)


def _gray(picture: np.ndarray) -> np.ndarray:
    return np.repeat(picture.mean(axis=-1, keepdims=True).round().astype(np.uint8), 3, axis=-1)


#: How a picture (H, W, 3) can be damaged without moving anything in it.
DAMAGE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "saved as JPEG": _jpeg,
    "half as bright": lambda picture: (picture // 2).astype(np.uint8),
    "blurred": _blurred,
    "with noise": _noisy,
    "without colour": _gray,
}


def damaged(pictures: np.ndarray, kind: str) -> np.ndarray:
    """Copies of pictures uint8 (n, H, W, 3), damaged in a way of `DAMAGE`."""
    return np.stack([DAMAGE[kind](picture) for picture in pictures])


# --- cheating ------------------------------------------------------------------------------------------------------


def copies(embedder: TextEmbedder, features: np.ndarray, sentences: Sequence[str]) -> np.ndarray:
    """Features of pictures (m, 192) and n sentences -> (n,), for each the picture that suits it, none twice."""
    from scipy.optimize import linear_sum_assignment

    with torch.inference_mode():
        said = embedder.embed_ids(embedder.ids(sentences)).numpy()
    return np.asarray(linear_sum_assignment(said @ embedder.pictures(features).T, maximize=True)[1])


def flattering(parser: Any, pictures: np.ndarray, masks: np.ndarray, steps: int = 6, most: int = 6) -> np.ndarray:
    """Pictures uint8 (n, H, W, 3) that a parser takes for their masks (n, H, W), changed by at most `most` gray levels.

    Each step moves every number by 2 levels in the direction that makes the parser surer of the mask.
    """
    start = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    x, wanted = start.clone(), torch.from_numpy(masks).long()
    with torch.enable_grad():
        for _ in range(steps):
            x.requires_grad_(True)
            (slope,) = torch.autograd.grad(F.cross_entropy(parser(x), wanted), x)
            x = (x.detach() - 2 / 255 * slope.sign()).clamp(start - most / 255, start + most / 255).clamp(0, 1)
    return (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


# --- tables --------------------------------------------------------------------------------------------------------


def published() -> dict[str, dict[str, float]]:
    """The numbers of the paper's tables, from mogle/metrics/tables.toml: setting -> number's name -> value."""
    from mogle.metrics.report import COLUMNS

    return dict(COLUMNS["published"])
