"""The paper's six numbers for a row of the evaluation, by the networks that the paper measured with.

For FLUX-size work (`--networks paper`). The ledger of weights (`mogle/assets.toml`) says where each network comes from
and under which licence. They are downloaded when they are first used, and verified whenever they are.

What the paper published (`tables.toml`) is of MM-CelebA-HQ at the paper's size, 28 steps, on all its test pictures;
ours of whatever was measured, so a comparison is fair only there. Structure is given for one picture; the paper's sum
over batches of 64 (`structure_as_reported`) stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from torch import Tensor

from mogle.assets.fetch import get
from mogle.assets.ledger import find
from mogle.errors import MogleError
from mogle.metrics.distances import fid, fid_estimate, structure_as_reported, structure_distances
from mogle.metrics.intervals import Estimate, ends, mean_estimate
from mogle.metrics.kernels import cmmd, kid, kid_subsets
from mogle.metrics.rows import Made
from mogle.metrics.stack import Pictures, batches

BATCH = 16
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_COLOURS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def from_ledger(name: str, load: Callable[..., Any], **options: Any) -> Any:
    """`load(folder)`, once the ledger's weights of that name are there.

    Raises:
        MogleError: they cannot be had; says what to do.
    """
    return load(get(find(name, "weights")), **options)


def resized(images: np.ndarray, size: int, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """uint8 (N,H,W,3) -> float32 (N,3,size,size): bicubic with antialiasing as Pillow's, in [0,1], then normalised."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = F.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)


class _Network:
    """A network on a device, and what it sees of pictures: all of each, at its own size and in its own scale."""

    colours = CLIP_COLOURS

    def __init__(self, model: Any, size: int, device: str) -> None:
        self.model, self.size, self.device = model.eval().to(device), size, device

    def seen(self, images: Pictures) -> Iterator[Tensor]:
        """uint8 (H,W,3) N times -> (at most 16,3,size,size), one batch after the other."""
        return (resized(part, self.size, *self.colours).to(self.device) for part in batches(images, BATCH))


class ClipPictures(_Network):
    """Features of CMMD: the projected embedding of CLIP ViT-L/14 at 336 px, nothing of the picture cut off."""

    def __init__(self, model: Any = None, device: str = "cpu") -> None:
        model = model or from_ledger("clip-l14-336", transformers.CLIPVisionModelWithProjection.from_pretrained)
        super().__init__(model, model.config.image_size, device)

    @torch.inference_mode()
    def features(self, images: Pictures) -> np.ndarray:
        """uint8 (H,W,3) N times -> float32 (N,d)."""
        return torch.cat([self.model(pixels).image_embeds.float().cpu() for pixels in self.seen(images)]).numpy()


class ClipText(_Network):
    """The paper's text score: 100 times the cosine of CLIP ViT-B/16's embeddings of a picture and its sentence."""

    def __init__(self, model: Any = None, tokenizer: Any = None, device: str = "cpu") -> None:
        model = model or from_ledger("clip-b16", transformers.CLIPModel.from_pretrained)
        self.tokenizer = tokenizer or from_ledger("clip-b16", transformers.CLIPTokenizer.from_pretrained)
        super().__init__(model, model.config.vision_config.image_size, device)

    @torch.inference_mode()
    def scores(self, images: Pictures, sentences: Sequence[str]) -> np.ndarray:
        """uint8 (H,W,3) N times and N sentences -> (N,); sentences beyond CLIP's length are cut."""
        if len(images) != len(sentences):
            raise MogleError(f"{len(images)} pictures and {len(sentences)} sentences; expected as many of each")
        left, scores = iter(sentences), []
        for pixels in self.seen(images):
            said = list(islice(left, len(pixels)))
            words = self.tokenizer(said, padding=True, truncation=True, return_tensors="pt").to(self.device)
            out = self.model(pixel_values=pixels, **words)
            scores.append(F.cosine_similarity(out.image_embeds, out.text_embeds).double())
        return 100 * torch.cat(scores).cpu().numpy()


class DinoKeys(_Network):
    """Keys of DINO ViT-B/8's last layer, class token first, all heads side by side: what structure is compared by."""

    colours = IMAGENET

    def __init__(self, model: Any = None, device: str = "cpu", layer: int = 11, size: int = 224) -> None:
        model = model or from_ledger("dino-vitb8", transformers.ViTModel.from_pretrained, add_pooling_layer=False)
        super().__init__(model, size, device)
        layers = [m for name, m in model.named_modules() if name.endswith((".attention.k_proj", ".attention.key"))]
        if layer >= len(layers):
            raise MogleError(f"found {len(layers)} attention layers, expected more than {layer}: not a ViT of DINO's")
        self.layer = layers[layer]

    @torch.inference_mode()
    def keys(self, images: Pictures) -> Iterator[np.ndarray]:
        """uint8 (H,W,3) N times -> float32 (T,d) for one after the other: all of them would fill the memory."""
        caught: list[Tensor] = []
        hook = self.layer.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
        try:
            for pixels in self.seen(images):
                self.model(pixels, interpolate_pos_encoding=True)
                yield from caught.pop().float().cpu().numpy()
        finally:
            hook.remove()


class Inception(_Network):
    """Features of FID and KID as clean-fid makes them in mode "clean": its network, its resizing, without the package
    itself, which would bring a torchvision of another build than torch's."""

    colours = (128 / 255,) * 3, (128 / 255,) * 3

    def __init__(self, layers: Any = None, device: str = "cpu", side: int = 299) -> None:
        if layers is None:
            asset = find("inception", "weights")
            layers = torch.jit.load(get(asset) / asset.files[0].names[0], map_location=device).layers
        super().__init__(layers, side, device)

    @torch.inference_mode()
    def features(self, images: Pictures) -> np.ndarray:
        """uint8 (H,W,3) N times -> float32 (N,2048)."""
        return torch.cat([self.model(pixels).flatten(1).float().cpu() for pixels in self.seen(images)]).numpy()


class Reward:
    """ImageReward-v1.0's score of a picture for its sentence."""

    def __init__(self, model: Any = None, device: str = "cpu") -> None:
        if model is None and find_spec("ImageReward") is None:
            raise MogleError("ImageReward needs ImageReward, which is not installed; pip install image-reward")
        self.model = model or import_module("ImageReward").load("ImageReward-v1.0", device=device)

    @torch.inference_mode()
    def scores(self, images: Pictures, sentences: Sequence[str]) -> np.ndarray:
        """uint8 (H,W,3) N times and N sentences -> (N,)."""
        pairs = zip(images, sentences, strict=True)
        return np.array([self.model.score(sentence, Image.fromarray(image)) for image, sentence in pairs])


BUILDERS: dict[str, Callable[..., Any]] = {
    "inception": Inception, "clip-cmmd": ClipPictures, "dino": DinoKeys, "clip-text": ClipText, "reward": Reward,
}  # fmt: skip


def _cell(estimate: Estimate, **more: float) -> dict[str, Any]:
    return {"value": estimate.value, "interval": ends(estimate), **more}


class PaperNetworks:
    """All of them that can be had; what cannot stands in `missing` with the reason, and its columns stay empty."""

    def __init__(self, device: str = "cpu", builders: Mapping[str, Callable[..., Any]] = BUILDERS) -> None:
        self.missing: dict[str, str] = {}
        self.networks: dict[str, Any] = {}
        for name, build in builders.items():
            try:
                self.networks[name] = build(device=device)
            except MogleError as error:
                self.missing[name] = str(error)
        if not self.networks:
            raise MogleError("none of the paper's networks can be had:\n  " + "\n  ".join(self.missing.values()))

    def features(self, pictures: Pictures) -> dict[str, np.ndarray]:
        """{network: features (N,d)} of those that distances between sets stand on."""
        both = self.networks.keys() & {"inception", "clip-cmmd"}
        return {name: self.networks[name].features(pictures) for name in both}

    def measure(
        self, one: Made, reference: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
        """{column: {value, interval, ...}} of a row's pictures; reference: `features` of other real pictures.

        Beside it what each picture has of its own, {column: (N,)}.
        """
        made, samples, captions = one.pictures, one.samples, one.row.captions(one.samples)
        found: dict[str, dict[str, Any]] = {}
        scores: dict[str, np.ndarray] = {}
        features, networks = self.features(made), self.networks
        if "inception" in networks:
            real, fake = reference["inception"], features["inception"]
            # the interval is that of endless sets, so the biased number itself may lie above it
            interval = fid_estimate(real, fake)[1:] if min(len(real), len(fake)) >= 20 else (np.nan, np.nan)
            found["FID"] = _cell(Estimate(fid(real, fake), *interval))
            subsets = 1000 * float(kid_subsets(real, fake).mean())
            found["KID x 1000"] = _cell(Estimate(*(1000 * part for part in kid(real, fake))), subsets=subsets)
        if "clip-cmmd" in networks:
            found["CMMD"] = _cell(cmmd(reference["clip-cmmd"], features["clip-cmmd"]))
        if dino := networks.get("dino"):
            scores["structure"] = structure_distances(dino.keys(samples.images), dino.keys(made))
            reported = structure_as_reported(scores["structure"])
            found["structure"] = _cell(mean_estimate(scores["structure"]), as_reported=reported)
        for column, name in (("text", "clip-text"), ("ImageReward", "reward")):
            if name in networks:
                scores[column] = networks[name].scores(made, captions)
                found[column] = _cell(mean_estimate(scores[column]))
        return found, scores
