"""`mogle pretrain`: paints portraits and trains everything that the tiny track ships, stage by stage.

A stage whose result is already in the output folder is not run again, so an interrupted run goes on where it stopped.
`record.json` beside the results keeps settings, seconds, losses and hardware of every stage; the model cards quote it.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mogle.errors import MogleError
from mogle.files import atomic_write
from mogle.tiny.grow import grown
from mogle.tiny.loop import Speed, main_process, multiplies_bf16

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mogle.tiny.corpus import Corpus

STAGES = ("paint", "text", "vae", "judges", "base", "decay", "distill", "adapter")


def load_settings(path: str | Path | None = None) -> dict[str, Any]:
    """The settings of a run: the packaged `settings.yaml`, or a file of the same shape."""
    import yaml

    path = Path(path) if path else Path(__file__).parent / "settings.yaml"
    if not path.is_file():
        raise MogleError(f"{path}: no such settings file; expected YAML with the sections of settings.yaml")
    settings = yaml.safe_load(path.read_text())
    packaged = {"portraits", "text", "vae", "judges", "base", "decay", "distill", "adapter"}
    if not isinstance(settings, dict) or not packaged <= settings.keys():
        raise MogleError(f"{path}: found {type(settings).__name__} without all of {sorted(packaged)}")
    return settings


class Workshop:
    """One pretraining run: settings, output folder, device, and the results of finished stages, loaded on demand."""

    def __init__(
        self,
        out: str | Path,
        settings: dict[str, Any],
        *,
        device: str = "cpu",
        workers: int | None = None,
        compile_model: bool = False,
        start: str | Path | None = None,
        trunk: str | Path | None = None,
    ) -> None:
        self.out, self.settings, self.device, self.workers = Path(out), settings, device, workers
        self.compile, self.start = compile_model, None if start is None else Path(start)
        self.trunk = self.out / "base-halfway.pt" if trunk is None else Path(trunk)
        self.out.mkdir(parents=True, exist_ok=True)
        self._portraits: tuple[np.ndarray, np.ndarray, list[dict], list[list[str]]] | None = None

    def take_over(self, stages: Sequence[str]) -> None:
        """Copies from the base that this run goes on from what no stage of it makes anew.

        Latents and token ids must stay what the transformer has learned, so a stage that makes them trains it anew.
        """
        if self.start is None:
            return
        parts = {"tokenizer": "text", "tokenizer_2": "text", "text_encoder": "text", "text_encoder_2": "text"}
        for part, stage in {**parts, "vae": "vae"}.items():
            if not (self.start / part).is_dir():
                raise MogleError(f"{self.start}: found no {part}/ there, expected a FluxPipeline folder")
            if stage not in stages:
                folder = self.encoders if part.startswith("text_encoder") else self.base_dir
                shutil.copytree(self.start / part, folder / part, dirs_exist_ok=True)

    @functools.cached_property
    def speed(self) -> Speed:
        """Number format and compiling: measured when the run begins, and kept, as other ones give other last bits."""
        import torch

        path = self.out / "speed.json"
        if not path.exists():
            bf16 = multiplies_bf16(torch.device(self.device))
            found = Speed(torch.device(self.device).type, bf16, self.compile)
            path.write_text(json.dumps(asdict(found)))
        return Speed(**json.loads(path.read_text()))

    @property
    def base_dir(self) -> Path:
        return self.out / "tiny-flux"

    @property
    def encoders(self) -> Path:
        """The text encoders as they are before the transformer trains with them."""
        return self.out / "encoders"

    def record(self, stage: str, seconds: float, **facts: Any) -> None:
        """Adds a stage's facts to record.json."""
        import torch

        path = self.out / "record.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        cuda = self.device.startswith("cuda")
        known[stage] = {
            **facts,
            "seconds": round(seconds),
            "hardware": torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} CPU threads",
            "processes": int(os.environ.get("WORLD_SIZE", "1")),
            "bf16": self.speed.bf16,
            "compiled": self.speed.compiled,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        path.write_text(json.dumps(known, indent=1))

    def portraits(self) -> tuple[np.ndarray, np.ndarray, list[dict], list[list[str]]]:
        """The painted corpus: images (N, H, W, 3), masks (N, H, W), attributes, captions; kept on disk as .npy."""
        import numpy as np

        from mogle.tiny.portraits import paint_many

        if self._portraits is None:
            want, folder = self.settings["portraits"], self.out / "portraits"
            if not (folder / "text.json").exists():
                seeds = range(want["first_seed"], want["first_seed"] + want["count"])
                images, masks, attributes, captions = paint_many(seeds, size=want["size"], workers=self.workers)
                folder.mkdir(exist_ok=True)
                np.save(folder / "images.npy", images)
                np.save(folder / "masks.npy", masks)
                (folder / "text.json").write_text(json.dumps([attributes, captions]))
            attributes, captions = json.loads((folder / "text.json").read_text())
            images, masks = np.load(folder / "images.npy"), np.load(folder / "masks.npy")
            self._portraits = images, masks, attributes, captions
        return self._portraits

    def texts(self) -> list[list[str]]:
        """The captions of each portrait and, as an eleventh, the sentence that names every attribute."""
        from mogle.tiny.portraits import full_caption

        _, _, attributes, captions = self.portraits()
        return [[*group, full_caption(facts)] for group, facts in zip(captions, attributes, strict=True)]

    def on_device(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and masks as uint8 tensors on the training device."""
        import torch

        images, masks, _, _ = self.portraits()
        return torch.as_tensor(images).to(self.device), torch.as_tensor(masks).to(self.device)


def paint(shop: Workshop) -> dict[str, Any]:
    """Paints the corpus."""
    shop.portraits()
    return dict(shop.settings["portraits"])


def text(shop: Workshop) -> dict[str, Any]:
    """Trains both tokenizers, then both encoders on what the captions say."""
    import torch

    from mogle.tiny.text import (
        build_clip_encoder,
        build_t5_encoder,
        said_in,
        train_clip_tokenizer,
        train_t5_tokenizer,
        train_text_encoders,
    )
    from mogle.words import ATTRIBUTES

    want = shop.settings["text"]
    captions = [caption for group in shop.texts()[:6000] for caption in group]
    captions += [caption.lower() for caption in captions[::3]]
    clip = train_clip_tokenizer(captions, want["clip_vocabulary"], want["clip_length"])
    t5 = train_t5_tokenizer(captions, want["t5_vocabulary"], want["t5_length"])
    clip.save_pretrained(shop.base_dir / "tokenizer")
    t5.save_pretrained(shop.base_dir / "tokenizer_2")
    longest = max(len(ids) for ids in t5(captions[::7]).input_ids)
    torch.manual_seed(want["train"]["seed"])
    clip_encoder = build_clip_encoder(clip, want["clip_width"], want["clip_layers"]).to(shop.device)
    t5_encoder = build_t5_encoder(t5, want["t5_width"], want["t5_layers"]).to(shop.device)
    clip_ids, t5_ids = (ids.flatten(0, 1) for ids in _caption_ids(shop))
    said = said_in([caption for group in shop.texts() for caption in group], ATTRIBUTES).to(shop.device)
    losses = train_text_encoders(clip_encoder, t5_encoder, clip_ids, t5_ids, said, **want["train"])
    clip_encoder.save_pretrained(shop.encoders / "text_encoder")
    t5_encoder.save_pretrained(shop.encoders / "text_encoder_2")
    return {
        **want["train"],
        "losses": losses,
        "clip_vocabulary": len(clip),
        "t5_vocabulary": len(t5),
        "longest": longest,
    }


def vae(shop: Workshop) -> dict[str, Any]:
    """Trains the VAE, anew or on from an earlier base's, and stores it in half precision."""
    import torch

    from mogle.tiny.vae import build_vae, train_vae

    want = shop.settings["vae"]
    torch.manual_seed(want["train"]["seed"])
    if shop.start is None:
        model = build_vae(tuple(want["model"]["channels"]), want["model"]["sample_size"])
    else:
        from diffusers import AutoencoderKL

        model = AutoencoderKL.from_pretrained(shop.start / "vae").float()
    losses = train_vae(model, *shop.on_device(), **want["train"], speed=shop.speed)
    model.half().save_pretrained(shop.base_dir / "vae")
    return {**want["train"], "losses": losses, "parameters": sum(p.numel() for p in model.parameters())}


def judges(shop: Workshop) -> dict[str, Any]:
    """Trains the face parser and the attribute reader, on portraits and on what the VAE gives back of them."""
    import numpy as np
    from diffusers import AutoencoderKL

    from mogle.metrics.rows import reconstructed
    from mogle.tiny.judges import train_judges

    images, masks, attributes, _ = shop.portraits()
    want, first = shop.settings["judges"], shop.settings["portraits"]["first_seed"]
    vae = AutoencoderKL.from_pretrained(shop.base_dir / "vae").float().to(shop.device)
    last = first + len(images) - want.get("heldout", 500) - 1
    softened = np.stack([*reconstructed(vae, images)])
    return train_judges(
        images, masks, attributes, out=shop.out / "judges", device=shop.device, softened=softened,
        record={"portraits": f"style portraits, seeds {first}..{last}"}, **want,
    )  # fmt: skip


def _tokenizers(shop: Workshop) -> tuple[Any, Any]:
    from transformers import CLIPTokenizer, T5Tokenizer

    return (
        CLIPTokenizer.from_pretrained(shop.base_dir / "tokenizer"),
        T5Tokenizer.from_pretrained(shop.base_dir / "tokenizer_2"),
    )


def _caption_ids(shop: Workshop) -> tuple[torch.Tensor, torch.Tensor]:
    """int16 (N, K, L1) for CLIP and (N, K, L2) for T5; every third caption in small letters."""
    import torch

    from mogle.tiny.text import token_ids

    texts = shop.texts()
    flat = [c.lower() if n % 3 == 0 else c for n, c in enumerate(c for group in texts for c in group)]
    shape = (len(texts), len(texts[0]), -1)
    clip, t5 = (token_ids(tokenizer, flat).view(shape).to(shop.device, torch.int16) for tokenizer in _tokenizers(shop))
    return clip, t5


def _corpus(shop: Workshop) -> Corpus:
    """Latents of the portraits and of their views, and caption ids, on the device; kept in corpus.pt."""
    import torch
    from diffusers import AutoencoderKL, FluxPipeline

    from mogle.tiny import views
    from mogle.tiny.corpus import Corpus, encode_images, token_weights
    from mogle.tiny.text import token_ids
    from mogle.training.encode import edge_pictures

    kept = shop.out / "corpus.pt"
    if kept.exists():
        return Corpus(**torch.load(kept, weights_only=True, map_location=shop.device, mmap=shop.device == "cpu"))
    images, masks = shop.on_device()
    model = AutoencoderKL.from_pretrained(shop.base_dir / "vae").float().to(shop.device).eval()
    generator = torch.Generator(shop.device).manual_seed(shop.settings["base"]["train"]["seed"])
    clip, t5 = _tokenizers(shop)
    clip_ids, t5_ids = _caption_ids(shop)
    side = images.shape[1] // 16
    seen = {
        "shuffled": views.shuffled_colours(images, generator),
        "posterized": views.posterized_pictures(images, generator),
        "drawing": views.flat_drawings(masks, generator),
        "drawing again": views.flat_drawings(masks, generator),
        "gray": views.gray_pictures(images),
        "edges": edge_pictures(images),
    }
    corpus = Corpus(
        tokens=encode_images(model, images),
        views={name: encode_images(model, view) for name, view in seen.items()},
        weight=token_weights(masks),
        clip_ids=clip_ids,
        t5_ids=t5_ids,
        empty_clip=token_ids(clip, [""])[0].to(shop.device),
        empty_t5=token_ids(t5, [""])[0].to(shop.device),
        image_ids=FluxPipeline._prepare_latent_image_ids(1, side, side, shop.device, torch.float32),
    )
    with atomic_write(kept) as new:
        torch.save(asdict(corpus), new)
    return corpus


def _networks(shop: Workshop) -> tuple[Any, Any, Any]:
    """Transformer (new, or of the base that the run goes on from) and text encoders, in full precision."""
    import torch
    from diffusers import FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

    from mogle.tiny.base import zero_start

    torch.manual_seed(shop.settings["base"]["train"]["seed"])
    clip = CLIPTextModel.from_pretrained(shop.encoders / "text_encoder", dtype=torch.float32)
    t5 = T5EncoderModel.from_pretrained(shop.encoders / "text_encoder_2", dtype=torch.float32)
    transformer = FluxTransformer2DModel(
        joint_attention_dim=t5.config.d_model,
        pooled_projection_dim=clip.config.hidden_size,
        guidance_embeds=True,
        **shop.settings["base"]["model"],
    )
    zero_start(transformer)
    if shop.start is not None:
        transformer = grown(FluxTransformer2DModel.from_pretrained(shop.start / "transformer").float(), transformer)
    return transformer, clip, t5


def _train_base(shop: Workshop, stage: str) -> dict[str, Any]:
    """The trunk ("base"), or a decay from one of its checkpoints, which ends in `undistilled/` in half precision."""
    import torch
    from diffusers import AutoencoderKL

    from mogle.tiny.base import Watch, pretrain_base

    want = {**shop.settings["base"]["train"], **(shop.settings["decay"] if stage == "decay" else {})}
    train, heldout = _corpus(shop).split(min(256, shop.settings["portraits"]["count"] // 4))
    transformer, clip, t5 = _networks(shop)
    vae = AutoencoderKL.from_pretrained(shop.base_dir / "vae").float().to(shop.device).eval()
    halfway = shop.out / f"{stage}-halfway.pt"
    losses = pretrain_base(
        transformer, clip, t5, train, **want, speed=shop.speed, checkpoint=halfway,
        decay_from=shop.trunk if stage == "decay" else None,
        watch=Watch(shop.out / stage, heldout, vae) if main_process() else None,
    )  # fmt: skip
    if not main_process():
        return {}
    if stage == "decay":
        transformer.to(torch.float16).save_pretrained(shop.out / "undistilled")
        clip.half().save_pretrained(shop.base_dir / "text_encoder")
        t5.half().save_pretrained(shop.base_dir / "text_encoder_2")
    return {**want, "losses": losses, "parameters": sum(p.numel() for p in transformer.parameters())}


def base(shop: Workshop) -> dict[str, Any]:
    """Pretrains transformer and text encoders at a constant rate; raise `steps` to go on."""
    return _train_base(shop, "base")


def decay(shop: Workshop) -> dict[str, Any]:
    """Lets the rate fall to zero, from the trunk's last checkpoint or another (`--trunk`)."""
    if not shop.trunk.exists():
        raise MogleError(f"{shop.trunk}: no such checkpoint; expected one that the stage base has written")
    return _train_base(shop, "decay")


def distill(shop: Workshop) -> dict[str, Any]:
    """Distils guidance into the transformer and writes the whole base as a FluxPipeline directory."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

    from mogle.tiny.guidance import distill_guidance

    want, folder = shop.settings["distill"], shop.base_dir
    transformer = FluxTransformer2DModel.from_pretrained(shop.out / "undistilled").float().to(shop.device)
    clip = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).to(shop.device)
    t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32).to(shop.device)
    losses: dict[str, Any] = {}
    if want["steps"]:
        halfway = shop.out / "distill-halfway.pt"
        train, _ = _corpus(shop).split(min(256, shop.settings["portraits"]["count"] // 4))
        losses = distill_guidance(transformer, clip, t5, train, **want, speed=shop.speed, checkpoint=halfway)
    if not main_process():
        return {}
    clip_tokenizer, t5_tokenizer = _tokenizers(shop)
    pipe = FluxPipeline(
        # FLUX.1-dev's numbers; at 64 tokens the shift of the noise schedule is exp(0.47), far milder than at 4,096
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096
        ),
        vae=AutoencoderKL.from_pretrained(folder / "vae").half(),
        text_encoder=clip.half(),
        tokenizer=clip_tokenizer,
        text_encoder_2=t5.half(),
        tokenizer_2=t5_tokenizer,
        transformer=transformer.half(),
    )
    pipe.save_pretrained(folder)
    (shop.out / "distill-halfway.pt").unlink(missing_ok=True)
    for config in folder.glob("*/config.json"):  # the libraries note the folder that a part was loaded from
        kept = {key: value for key, value in json.loads(config.read_text()).items() if key != "_name_or_path"}
        config.write_text(json.dumps(kept, indent=2) + "\n")
    return {**want, "losses": losses}


def adapter(shop: Workshop) -> dict[str, Any]:
    """Fine-tunes MoGLE and LoRA on the finished base and saves the adapter."""
    from mogle.tiny.source import PaintedSource
    from mogle.training.finetune import train_on
    from mogle.training.settings import load_train_settings

    want = dict(shop.settings["adapter"])
    count, (images, masks, _, _) = want.pop("portraits"), shop.portraits()
    source = PaintedSource(images, masks, shop.texts()[:count], shop.settings["portraits"]["first_seed"])
    pairs = [f"{name}={value}" for name, value in want.items()]
    settings = load_train_settings("tiny", pairs)
    facts = train_on(source, shop.out / "tiny-flux-mogle", settings, shop.base_dir, shop.device, shop.out / "cache")
    return {**want, **facts}


_DONE: dict[str, str] = {
    "paint": "portraits/text.json",
    "text": "encoders/text_encoder_2/model.safetensors",
    "vae": "tiny-flux/vae/diffusion_pytorch_model.safetensors",
    "judges": "judges/config.json",
    "base": "never: more steps go on from the trunk's last checkpoint",
    "decay": "tiny-flux/text_encoder_2/model.safetensors",
    "distill": "tiny-flux/model_index.json",
    "adapter": "tiny-flux-mogle/mogle.safetensors",
}


#: Stages that several processes can share: `torchrun --nproc-per-node 2 -m mogle pretrain --stages base --out ...`.
_SHARED = ("base", "decay", "distill", "adapter")


def pretrain(shop: Workshop, stages: Sequence[str] = STAGES) -> None:
    """Runs the stages in order, skipping those whose result exists."""
    functions: dict[str, Callable[[Workshop], dict[str, Any]]] = {
        "paint": paint,
        "text": text,
        "vae": vae,
        "judges": judges,
        "base": base,
        "decay": decay,
        "distill": distill,
        "adapter": adapter,
    }
    shop.take_over(stages)
    for stage in STAGES:
        if stage not in stages or (shop.out / _DONE[stage]).exists():
            continue
        if stage not in _SHARED and "RANK" in os.environ:
            raise MogleError(f"stage {stage} runs in one process; run it first, without torchrun")
        start = time.monotonic()
        facts = functions[stage](shop)
        if not main_process():
            continue
        shop.record(stage, time.monotonic() - start, **facts)
        print(f"{stage}: {time.monotonic() - start:.0f} s", flush=True)
