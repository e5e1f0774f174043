"""Two judges, a face parser and an attribute reader, and a text embedder: all trained on painted portraits alone.

They measure generated pictures: the parser says whether a picture follows its mask, the reader whether it follows its
sentence. Their own accuracy on pictures they never saw stands in ``config.json`` beside the weights and belongs next to
every number that leans on them.

The embedder says whether picture and sentence belong together: 100 times the cosine of their embeddings, CLIP's way.
Of photographs that is CLIP itself; of painted portraits the small one here: on top of the attribute reader's features
for pictures, over words for sentences, trained to find each portrait's own caption among others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mogle.errors import MogleError
from mogle.metrics.stack import Pictures, batches

CLASSES = 19
MAX_WORDS = 96
PAD, UNKNOWN = 0, 1
JUDGE_SIZE = 128  # pixels on a side of the pictures that the judges are trained on


def to_tensor(images: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 pictures (N,H,W,3) -> float32 (N,3,H,W) in [0,1]."""
    return torch.as_tensor(images).to(device).permute(0, 3, 1, 2).float().div_(255.0)


def _at_judge_size(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,3,128,128)."""
    return F.interpolate(image, (JUDGE_SIZE, JUDGE_SIZE), mode="bilinear", antialias=True)


def _with_position(image: Tensor) -> Tensor:
    """Adds each pixel's x and y in [-1,1]: convolutions alone cannot tell a left eye from a right one."""
    rows, columns = (torch.linspace(-1, 1, side, device=image.device, dtype=image.dtype) for side in image.shape[2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.cat([image * 2 - 1, torch.stack([x, y]).expand(len(image), -1, -1, -1)], 1)


def _conv(inside: int, outside: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inside, outside, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


class _Block(nn.Module):
    """Two 3x3 convolutions around a residual path."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = _conv(width, width, dilation=dilation)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class FaceParser(nn.Module):
    """Picture (B,3,H,W) in [0,1] -> logits (B,19,H,W) of the CelebAMask-HQ classes.

    A small U-Net whose trunk starts at half resolution (2x2 pixels folded into channels, so nothing is lost) and
    whose last convolution sees the full-resolution stem again: brows and earrings are two pixels thick.
    Sides that are not a multiple of 16 are padded by repeating the border, and cut again.
    """

    WIDTHS = (32, 56, 80, 88)
    STEM = 16

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        w, stem = self.WIDTHS, self.STEM
        self.stem = _conv(5, stem)
        self.fold = _conv(4 * stem, w[0], 1)
        self.encode = nn.ModuleList([_Block(w[0]), _Block(w[1]), _Block(w[2]), _Block(w[3], dilation=2)])
        self.down = nn.ModuleList([_conv(w[i], w[i + 1], stride=2) for i in range(3)])
        self.context = nn.Linear(w[3], w[3])
        self.up = nn.ModuleList([nn.Conv2d(w[i + 1], w[i], 1) for i in range(3)])
        self.decode = nn.ModuleList([_conv(w[i], w[i]) for i in range(3)])
        self.unfold = nn.Conv2d(w[0], 4 * stem, 1)
        self.refine = _conv(stem, stem)
        self.head = nn.Conv2d(stem, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % 16, 0, -height % 16), mode="replicate")
        stem, skips, x = self._encoded(image)
        x = x + self.context(x.mean((2, 3)))[:, :, None, None]
        for level in (2, 1, 0):
            x = F.interpolate(self.up[level](x), scale_factor=2, mode="bilinear", align_corners=False)
            x = self.decode[level](x + skips[level])
        x = F.pixel_shuffle(self.unfold(x), 2) + stem
        return self.head(x + self.refine(x))[..., :height, :width]

    def _encoded(self, image: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """The stem at full resolution, what the way up sees again, and the deepest map (B,88,H/16,W/16)."""
        stem = self.stem(_with_position(image))
        x = self.fold(F.pixel_unshuffle(stem, 2))
        skips = []
        for level in range(4):
            x = self.encode[level](x)
            if level < 3:
                skips.append(x)
                x = self.down[level](x)
        return stem, skips, x

    @torch.inference_mode()
    def keys(self, images: Pictures) -> Iterator[np.ndarray]:
        """uint8 pictures (N,H,W,3) -> float32 (64,88) for one after the other: its deepest map at 128 px, by place.

        The tiny track compares structure by them, as the paper does by DINO's keys.
        """
        for part in batches(images):
            image = _at_judge_size(to_tensor(part, self.head.weight.device))
            yield from self._encoded(image)[2].flatten(2).transpose(1, 2).cpu().numpy()

    @torch.inference_mode()
    def parse(self, images: Pictures) -> np.ndarray:
        """uint8 pictures (N,H,W,3) -> uint8 label maps (N,H,W).

        Pictures whose shorter side is not 128 px are seen at that size, the one of the training.
        """
        size, maps = images[0].shape[:2], []
        small = tuple(max(JUDGE_SIZE, round(side * JUDGE_SIZE / min(size))) for side in size)
        for part in batches(images):
            # of pictures at that size both resizings leave every number as it is
            image = F.interpolate(to_tensor(part, self.head.weight.device), small, mode="bilinear", antialias=True)
            logits = F.interpolate(self(image), size, mode="bilinear")
            maps.append(logits.argmax(1).to(torch.uint8).cpu())
        return torch.cat(maps).numpy()


class AttributeReader(nn.Module):
    """Picture (B,3,H,W) in [0,1] -> {attribute: logits (B, number of its values)}.

    ``heads`` names the attributes and their values. Pictures of another size are resized to 128 px first.
    ``features`` gives the 192 numbers before the heads; the tiny track computes KID on them.
    """

    WIDTHS = (24, 48, 80, 104)
    FEATURES = 192

    def __init__(self, heads: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.values = {name: tuple(values) for name, values in heads.items()}
        w = self.WIDTHS
        self.trunk = nn.Sequential(
            _conv(5, w[0], 5, stride=2),
            _Block(w[0]),
            *(part for i in range(3) for part in (_conv(w[i], w[i + 1], stride=2), _Block(w[i + 1]))),
        )
        self.where = nn.Conv2d(w[3], 16, 1)  # keeps a coarse 4x4 layout that pooling would throw away
        self.mix = nn.Linear(w[3] + 16 * 16, self.FEATURES)
        self.heads = nn.ModuleDict({name: nn.Linear(self.FEATURES, len(v)) for name, v in self.values.items()})

    def features(self, image: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,192), after the last non-linearity."""
        x = self.trunk(_with_position(_at_judge_size(image)))
        layout = F.avg_pool2d(self.where(x), x.shape[-1] // 4).flatten(1)
        return F.gelu(self.mix(torch.cat([x.mean((2, 3)), layout], 1)))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.judge(self.features(image))

    def judge(self, features: Tensor) -> dict[str, Tensor]:
        """Features (B,192) -> {attribute: logits}."""
        return {name: head(features) for name, head in self.heads.items()}

    @torch.inference_mode()
    def read(self, images: Pictures) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """uint8 pictures (N,H,W,3) -> ({attribute: index of its value (N,)}, features float32 (N,192))."""
        device = self.mix.weight.device
        features = torch.cat([self.features(to_tensor(part, device)) for part in batches(images, 64)])
        read = {name: logits.argmax(1).cpu().numpy() for name, logits in self.judge(features).items()}
        return read, features.float().cpu().numpy()


def words_of(sentence: str) -> list[str]:
    """Small-letter words and the marks between sentences."""
    return re.findall(r"[a-z]+|[.,]", sentence.lower())


class TextEmbedder(nn.Module):
    """Pictures' features (B, 192) and sentences -> directions of 96 numbers in one space."""

    WIDTH, OUT, LAYERS, HEADS = 96, 96, 2, 4

    def __init__(self, vocabulary: Sequence[str], features: int = 192) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.heldout: dict[str, dict[str, float]] = {}  # what it does on pictures and captions it never saw
        self._index = {word: i + 2 for i, word in enumerate(self.vocabulary)}
        self.word = nn.Embedding(len(self.vocabulary) + 2, self.WIDTH, padding_idx=PAD)
        self.place = nn.Parameter(0.02 * torch.randn(MAX_WORDS, self.WIDTH))
        layer = nn.TransformerEncoderLayer(
            self.WIDTH, self.HEADS, 3 * self.WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, self.LAYERS, enable_nested_tensor=False)
        self.sentence = nn.Linear(self.WIDTH, self.OUT)
        self.picture = nn.Sequential(nn.Linear(features, 2 * self.OUT), nn.GELU(), nn.Linear(2 * self.OUT, self.OUT))
        self.scale = nn.Parameter(torch.tensor(2.5))  # the logarithm of the temperature's inverse

    def ids(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> int64 (B, words of the longest); what lies beyond 96 words is cut off."""
        rows = [[self._index.get(word, UNKNOWN) for word in words_of(s)][:MAX_WORDS] or [UNKNOWN] for s in sentences]
        longest = max(map(len, rows))
        return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])

    def embed_ids(self, ids: Tensor) -> Tensor:
        """int64 (B, W) -> unit vectors (B, 96)."""
        empty = ids == PAD
        states = self.encoder(self.word(ids) + self.place[: ids.shape[1]], src_key_padding_mask=empty)
        mean = states.masked_fill(empty[..., None], 0).sum(1) / (~empty).sum(1, keepdim=True)
        return F.normalize(self.sentence(mean), dim=-1)

    def embed_features(self, features: Tensor) -> Tensor:
        """The reader's features (B, 192) -> unit vectors (B, 96)."""
        return F.normalize(self.picture(features), dim=-1)

    @torch.inference_mode()
    def pictures(self, features: np.ndarray) -> np.ndarray:
        """The reader's features (N, 192) -> unit vectors float32 (N, 96), what CMMD is computed on."""
        return self.embed_features(torch.as_tensor(features, dtype=torch.float32)).numpy()

    @torch.inference_mode()
    def score(self, features: np.ndarray, sentences: Sequence[str]) -> np.ndarray:
        """Features (N, 192) of pictures and their sentences -> (N,) scores, 100 times the cosine."""
        if len(features) != len(sentences):
            raise MogleError(f"{len(features)} pictures and {len(sentences)} sentences; expected as many of each")
        scores = []
        for start in range(0, len(sentences), 256):
            part = slice(start, start + 256)
            said = self.embed_ids(self.ids(sentences[part]))
            seen = self.embed_features(torch.as_tensor(features[part], dtype=torch.float32))
            scores.append((seen * said).sum(-1))
        return 100 * torch.cat(scores).numpy().astype(np.float64)


class Judges(NamedTuple):
    """What ``load_judges`` gives; unpacks as ``parser, reader``."""

    parser: FaceParser
    reader: AttributeReader


def load_judges(folder: str | Path, device: torch.device | str = "cpu") -> Judges:
    """Both judges from a folder like checkpoints/judges: float32, in eval mode, without gradients."""
    from safetensors.torch import load_file

    folder, files = Path(folder), ("config.json", "parser.safetensors", "attributes.safetensors")
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise MogleError(f"{folder}: no {', '.join(missing)} there; expected a folder of judges (checkpoints/judges)")
    config = json.loads((folder / "config.json").read_text())
    judges = Judges(FaceParser(config["parser"]["classes"]), AttributeReader(config["attributes"]["heads"]))
    for name, network in zip(files[1:], judges, strict=True):
        try:
            network.load_state_dict(load_file(folder / name))
        except Exception as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise MogleError(f"{folder / name} does not fit this version's judge: {first}") from error
        network.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload]
    return judges


def load_text_embedder(folder: str | Path) -> TextEmbedder | None:
    """The embedder of a folder of judges, in float32; None in a folder without it."""
    from safetensors.torch import load_file

    folder = Path(folder)
    if not (folder / "text.safetensors").is_file():
        return None
    facts = json.loads((folder / "text.json").read_text())
    embedder = TextEmbedder(facts["vocabulary"])
    embedder.heldout = facts.get("heldout", {})
    embedder.load_state_dict({name: tensor.float() for name, tensor in load_file(folder / "text.safetensors").items()})
    return embedder.eval().requires_grad_(False)
