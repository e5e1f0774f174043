"""The networks that the paper measured with, each behind its own import, for FLUX-size work (`--networks paper`).

They are downloaded when they are first used. Which revision that was is written to a lock file, and from then on only
that one is taken. What they were trained on and may be used for is theirs to say: the licence stands beside each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mogle.errors import MogleError
from mogle.metrics.stack import Pictures, chunks

BATCH = 16
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_COLOURS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DINO_LAYER, DINO_SIZE = 11, 224


class Network(NamedTuple):
    """Where a network comes from, what it is used for, and its licence as its page names it."""

    hub: str
    use: str
    licence: str
    package: str  # the import it needs
    pip: str  # how to get that


NETWORKS = {
    "clip-text": Network("openai/clip-vit-base-patch16", "text", "MIT (CLIP)", "transformers", "transformers"),
    "clip-cmmd": Network("openai/clip-vit-large-patch14-336", "CMMD", "MIT (CLIP)", "transformers", "transformers"),
    "dino": Network("facebook/dino-vitb8", "structure", "Apache-2.0", "transformers", "transformers"),
    "inception": Network(
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
        "FID and KID",
        "Apache-2.0 (TensorFlow's Inception)",
        "torch",
        "torch",
    ),
    "reward": Network("ImageReward-v1.0", "ImageReward", "Apache-2.0", "ImageReward", "image-reward"),
}


def lock_file() -> Path:
    """Where revisions are kept: MOGLE_LOCK, or networks.lock.json in the user's cache."""
    return Path(os.environ.get("MOGLE_LOCK") or Path.home() / ".cache" / "mogle" / "networks.lock.json")


def need(name: str) -> None:
    """Raises MogleError if the package behind a network is missing, with the command that gets it."""
    network = NETWORKS[name]
    if find_spec(network.package) is None:
        raise MogleError(f"{network.use} needs {network.package}, which is not installed; pip install {network.pip}")


def locked(name: str, load: Callable[..., Any], **options: Any) -> Any:
    """`load(hub name, revision=...)` at the revision of the lock file, or at the newest, which is then locked.

    Raises:
        MogleError: it could not be loaded; says what to do.
    """
    hub, path = NETWORKS[name].hub, lock_file()
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    try:
        made = load(hub, revision=known.get(hub), **options)
    except OSError as error:
        first = str(error).strip().splitlines()[0]
        raise MogleError(f"{hub}: not to be had ({first}); expected a connection, or the model in the cache") from error
    found = getattr(getattr(made, "config", None), "_commit_hash", None)
    if found and hub not in known:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**known, hub: found}, indent=1) + "\n")
    return made


def _batches(images: Pictures) -> Iterator[np.ndarray]:
    return (images[part] for part in chunks(len(images), BATCH))


def _features(images: Pictures, network: Callable[[np.ndarray], Tensor]) -> np.ndarray:
    with torch.inference_mode():
        return np.concatenate([network(part).float().cpu().numpy() for part in _batches(images)])


def resized(images: np.ndarray, size: int, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    """uint8 (N,H,W,3) -> float32 (N,3,size,size): bicubic with antialiasing, in [0,1], then normalised."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
    x = torch.nn.functional.interpolate(x, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(deviation).view(3, 1, 1)


class ClipPictures:
    """Features of CMMD: the projected embedding of CLIP ViT-L/14 at 336 px, the whole picture, nothing cut off."""

    def __init__(self, model: Any = None, device: str = "cpu") -> None:
        if model is None:
            from transformers import CLIPVisionModelWithProjection

            model = locked("clip-cmmd", CLIPVisionModelWithProjection.from_pretrained)
        self.model, self.device = model.eval().to(device), device

    def features(self, images: Pictures) -> np.ndarray:
        """uint8 (N,H,W,3) -> float32 (N,d)."""
        size = self.model.config.image_size
        return _features(images, lambda x: self.model(resized(x, size, *CLIP_COLOURS).to(self.device)).image_embeds)


class ClipText:
    """The paper's text score: 100 times the cosine of CLIP ViT-B/16's embeddings of a picture and its sentence."""

    def __init__(self, model: Any = None, tokenizer: Any = None, device: str = "cpu") -> None:
        if model is None or tokenizer is None:
            from transformers import CLIPModel, CLIPTokenizer

            model = locked("clip-text", CLIPModel.from_pretrained)
            tokenizer = locked("clip-text", CLIPTokenizer.from_pretrained)
        self.model, self.tokenizer, self.device = model.eval().to(device), tokenizer, device

    @torch.inference_mode()
    def scores(self, images: Pictures, sentences: Sequence[str]) -> np.ndarray:
        """uint8 (N,H,W,3) and N sentences -> (N,); sentences beyond CLIP's length are cut."""
        if len(images) != len(sentences):
            raise MogleError(f"{len(images)} pictures and {len(sentences)} sentences; expected as many of each")
        size, scores = self.model.config.vision_config.image_size, []
        for part in chunks(len(images), BATCH):
            said = self.tokenizer(list(sentences[part]), padding=True, truncation=True, return_tensors="pt")
            pixels = resized(images[part], size, *CLIP_COLOURS).to(self.device)
            out = self.model(pixel_values=pixels, **said.to(self.device))
            scores.append(torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds).double())
        return 100 * torch.cat(scores).cpu().numpy()


class DinoKeys:
    """Keys of DINO ViT-B/8's last layer, class token first, all heads side by side: what structure is compared by."""

    def __init__(self, model: Any = None, device: str = "cpu", layer: int = DINO_LAYER, size: int = DINO_SIZE) -> None:
        if model is None:
            from transformers import ViTModel

            model = locked("dino", ViTModel.from_pretrained, add_pooling_layer=False)
        self.model, self.device, self.size = model.eval().to(device), device, size
        layers = [m for name, m in model.named_modules() if name.endswith((".attention.k_proj", ".attention.key"))]
        if layer >= len(layers):
            raise MogleError(f"found {len(layers)} attention layers, expected more than {layer}: not a ViT of DINO's")
        self.layer = layers[layer]

    @torch.inference_mode()
    def keys(self, images: Pictures) -> Iterator[np.ndarray]:
        """uint8 (N,H,W,3) -> float32 (T,d) for one picture after the other: all of them would fill the memory."""
        caught: list[Tensor] = []
        hook = self.layer.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
        try:
            for part in _batches(images):
                self.model(resized(part, self.size, *IMAGENET).to(self.device), interpolate_pos_encoding=True)
                yield from caught.pop().float().cpu().numpy()
        finally:
            hook.remove()


class Inception:
    """Features of FID and KID as clean-fid makes them in mode "clean": its network, its resizing, without the package
    itself, which would bring a torchvision of another build than torch's."""

    def __init__(self, layers: Any = None, device: str = "cpu", side: int = 299) -> None:
        if layers is None:
            layers = torch.jit.load(_downloaded(NETWORKS["inception"].hub), map_location=device).eval().layers
        self.layers, self.device, self.side = layers, device, side

    def resized(self, picture: np.ndarray) -> np.ndarray:
        """uint8 (H,W,3) -> float32 (side,side,3): bicubic with antialiasing, a channel at a time, not rounded."""
        from PIL import Image

        def channel(values: np.ndarray) -> np.ndarray:
            image = Image.fromarray(values.astype(np.float32), mode="F")
            return np.asarray(image.resize((self.side, self.side), Image.Resampling.BICUBIC)).clip(0, 255)

        return np.stack([channel(picture[..., index]) for index in range(3)], axis=-1)

    def features(self, images: Pictures) -> np.ndarray:
        """uint8 (N,H,W,3) -> float32 (N,2048)."""

        def network(part: np.ndarray) -> Tensor:
            pixels = torch.from_numpy(np.stack([self.resized(picture) for picture in part]))
            return self.layers((pixels.permute(0, 3, 1, 2).to(self.device) - 128) / 128).flatten(1)

        return _features(images, network)


def _downloaded(address: str) -> Path:
    """The file at an address, kept in torch's cache.

    Raises:
        MogleError: it could not be fetched; says what to do.
    """
    path = Path(torch.hub.get_dir(), "mogle", address.rsplit("/", 1)[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        try:
            torch.hub.download_url_to_file(address, str(path), progress=False)
        except OSError as error:
            raise MogleError(f"{address}: not to be had ({error}); expected a connection, or {path}") from error
    return path


class Reward:
    """ImageReward-v1.0's score of a picture for its sentence."""

    def __init__(self, model: Any = None, device: str = "cpu") -> None:
        if model is None:
            need("reward")
            import ImageReward  # type: ignore[import-not-found]

            model = ImageReward.load(NETWORKS["reward"].hub, device=device)
        self.model = model

    @torch.inference_mode()
    def scores(self, images: Pictures, sentences: Sequence[str]) -> np.ndarray:
        """uint8 (N,H,W,3) and N sentences -> (N,)."""
        from PIL import Image

        pairs = zip(images, sentences, strict=True)
        return np.array([self.model.score(sentence, Image.fromarray(image)) for image, sentence in pairs])


BUILDERS = {
    "inception": Inception, "clip-cmmd": ClipPictures, "dino": DinoKeys, "clip-text": ClipText, "reward": Reward,
}  # fmt: skip
