"""Trains the two judges on painted portraits: ``python -m mogle.tiny.judges --out checkpoints/judges``.

All pictures lie on the device as uint8; augmentation runs there for a whole batch at once. Generated pictures are a
little blurred, noisy or off in contrast, and their outlines wobble: the judges must read them all the same, so they
see such changes here, and half of the samples as the VAE gives them back. Pictures are never flipped, because left and
right are part of what is judged.
"""

from __future__ import annotations

import argparse
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mogle.errors import MogleError
from mogle.labels import LABELS
from mogle.metrics.attributes import encode_attributes, score_attributes
from mogle.metrics.judges import CLASSES, AttributeReader, FaceParser, Judges, load_judges, to_tensor
from mogle.metrics.masks import class_iou, confusion_matrix, mean_iou, pixel_accuracy
from mogle.tiny.loop import Progress
from mogle.tiny.muon import Muon
from mogle.tiny.save import save_judges

Network = TypeVar("Network", bound=nn.Module)
Attributes = Sequence[Mapping[str, str | None]]


def warp_grid(batch: int, size: tuple[int, int], strength: float, rng: torch.Generator, device: Any) -> Tensor:
    """Sampling grid (B,H,W,2): a slight turn, scale, shift and wobble for three samples in four, else the identity."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device) * 2 - 1

    on = (torch.rand(batch, generator=rng, device=device) < 0.75).float() * strength
    angle, scale = 0.17 * on * uniform(batch), 1 + 0.2 * on * uniform(batch)
    shift = 0.12 * on[:, None] * uniform(batch, 2)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(theta, [batch, 1, *size], align_corners=False)
    wobble = F.interpolate(uniform(batch, 2, 5, 5) * (0.05 * on)[:, None, None, None], size, mode="bicubic")
    return grid + wobble.permute(0, 2, 3, 1)


def disturb(image: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Brightness, contrast, tint, blur and noise, mild enough to leave skin, light and colours readable."""
    batch, device = len(image), image.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device)

    blur = (uniform(batch, 1, 1, 1) * 1.6 - 0.6).clamp(0)  # none for more than a third
    image = torch.lerp(image, F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1), blur)
    gain = 1 + strength * (0.10 * (uniform(batch, 1, 1, 1) * 2 - 1) + 0.04 * (uniform(batch, 3, 1, 1) * 2 - 1))
    image = (image - 0.5) * (1 + strength * 0.15 * (uniform(batch, 1, 1, 1) * 2 - 1)) + 0.5
    noise = torch.randn(image.shape, generator=rng, device=device) * (0.04 * uniform(batch, 1, 1, 1) ** 2)
    return (image * gain + noise).clamp(0, 1)


def _either(pictures: Sequence[Tensor], index: Tensor, rng: torch.Generator) -> Tensor:
    """uint8 (B,H,W,3): for each sample its picture in one of the stacks (N,H,W,3), drawn anew."""
    which = torch.randint(len(pictures), (len(index),), generator=rng, device=index.device)
    return torch.stack([stack[index] for stack in pictures])[which, torch.arange(len(index), device=index.device)]


def _class_weights(masks: Tensor) -> Tensor:
    """Mildly larger weights for small classes (frequency to the power -1/4), mean 1 over the classes that occur."""
    counts = torch.bincount(masks.flatten().long(), minlength=CLASSES).double()
    weight = torch.where(counts > 0, (counts.clamp(min=1) / counts.sum()) ** -0.25, 0.0)
    return (weight / weight[counts > 0].mean()).float()


def parser_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted cross-entropy plus soft Dice over the batch: the first for every pixel, the second for thin classes.

    logits (B,19,H,W), target int64 (B,H,W), weight (19,).
    """
    logits = logits.float()
    soft = logits.softmax(1)
    truth = target[:, None] == torch.arange(CLASSES, device=target.device)[:, None, None]
    count = truth.sum((0, 2, 3))
    overlap, total = (soft * truth).sum((0, 2, 3)), soft.sum((0, 2, 3)) + count
    dice = torch.where(count > 0, 1 - (2 * overlap + 1) / (total + 1), 0.0).sum() / (count > 0).sum()
    return F.cross_entropy(logits, target, weight) + dice


_CHANCE = threading.Lock()


def _seeded(make: Callable[[], Network], seed: int) -> Network:
    """A network with the initial weights of this seed, also while another thread makes one."""
    with _CHANCE:
        torch.manual_seed(seed)
        return make()


def _fit(
    network: nn.Module,
    loss: Callable[[nn.Module, Tensor], Tensor],
    *,
    count: int,
    steps: int,
    batch: int,
    lr: float,
    device: torch.device,
    rng: torch.Generator,
    minutes: float | None,
    title: str,
) -> dict[str, float]:
    """Muon, short warm-up, cosine to zero; leaves the moving average of the weights in ``network``.

    ``loss(network, index)`` gets sample numbers (B,). Steps decide the schedule; ``minutes`` is a limit that shortens
    it when the machine is slower than planned (the result then depends on its speed).
    """
    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    decay = 1 - min(0.1, 8 / steps)
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay), use_buffers=True
    )
    optimizer = Muon(network.parameters(), lr=lr, weight_decay=0.02)
    start, step, value = time.monotonic(), 0, torch.zeros(())
    order = torch.randperm(count, generator=rng, device=device)
    used, progress = 0, Progress(title, steps)
    while step < steps:
        done = step / steps
        if minutes is not None:
            done = max(done, (time.monotonic() - start) / (60 * minutes))
            if done >= 1:
                break
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / max(1, steps // 20)) * 0.5 * (1 + math.cos(math.pi * done))
        if used + batch > count:
            order, used = torch.randperm(count, generator=rng, device=device), 0
        index = order[used : used + batch]
        used += batch
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            value = loss(network, index)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
        progress(step, loss=value)
        step += 1
    network.load_state_dict(average.module.state_dict())
    network.eval()
    if not math.isfinite(value.item()):
        raise MogleError(f"{title}: the loss became {value.item()} after {step} steps; lower the learning rate")
    return {"steps": step, "batch": batch, "seconds": round(time.monotonic() - start, 1), "loss": value.item()}


def train_parser(
    images: Sequence[np.ndarray | Tensor],
    masks: np.ndarray | Tensor,
    *,
    start: FaceParser | None = None,
    device: torch.device | str = "cpu",
    steps: int = 1500,
    batch: int = 128,
    lr: float = 2e-2,
    seed: int = 0,
    minutes: float | None = None,
) -> tuple[FaceParser, dict[str, float]]:
    """Stacks of uint8 pictures (N,H,W,3) with the same label maps (N,H,W) -> the parser and a record of its training.

    `start` is trained further, in place, instead of a new network.
    """
    device = torch.device(device)
    pictures, masks = [torch.as_tensor(stack).to(device) for stack in images], torch.as_tensor(masks).to(device)
    batch, size = min(batch, len(masks)), (masks.shape[1], masks.shape[2])
    rng = torch.Generator(device).manual_seed(seed)
    weight = _class_weights(masks)

    def loss(network: nn.Module, index: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            grid = warp_grid(len(index), size, 1.0, rng, device)
            image = to_tensor(_either(pictures, index, rng), device)
            image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
            target = masks[index][:, None].float()
            target = F.grid_sample(target, grid, "nearest", padding_mode="border", align_corners=False)
            image = disturb(image, 1.0, rng).contiguous(memory_format=torch.channels_last)
        return parser_loss(network(image), target[:, 0].long(), weight)

    network = start or _seeded(FaceParser, seed)
    network.requires_grad_(True)
    record = _fit(
        network, loss, count=len(masks), steps=steps, batch=batch, lr=lr, device=device, rng=rng, minutes=minutes,
        title="face parser",
    )  # fmt: skip
    return network, record


def train_reader(
    images: Sequence[np.ndarray | Tensor],
    attributes: Attributes,
    *,
    start: AttributeReader | None = None,
    device: torch.device | str = "cpu",
    steps: int = 1500,
    batch: int = 256,
    lr: float = 1e-2,
    seed: int = 0,
    minutes: float | None = None,
    values: Mapping[str, Sequence[str]] | None = None,
) -> tuple[AttributeReader, dict[str, float]]:
    """Stacks of uint8 pictures (N,H,W,3) with the same N attribute dictionaries -> the reader and a record.

    `start` is trained further, in place, instead of a new network. Values are weighted by the inverse of their
    frequency, because balanced accuracy is what counts; ``None`` (no hair to have a colour) carries no weight.
    ``values`` defaults to the portraits' ATTRIBUTES.
    """
    if values is None:
        from mogle.words import ATTRIBUTES

        values = {name: attribute.values for name, attribute in ATTRIBUTES.items()}
    device = torch.device(device)
    pictures = [torch.as_tensor(stack).to(device) for stack in images]
    batch, size = min(batch, len(attributes)), (pictures[0].shape[1], pictures[0].shape[2])
    rng = torch.Generator(device).manual_seed(seed)
    targets = {name: torch.from_numpy(t).to(device) for name, t in encode_attributes(attributes, values).items()}
    weights = {}
    for name, target in targets.items():
        counts = torch.bincount(target[target >= 0], minlength=len(values[name])).float()
        inverse = torch.where(counts > 0, counts.sum() / counts.clamp(min=1), 0.0)
        weights[name] = (inverse / inverse[counts > 0].min()).clamp(max=10) if (counts > 0).any() else inverse

    def loss(network: nn.Module, index: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            grid = warp_grid(len(index), size, 0.3, rng, device)
            image = to_tensor(_either(pictures, index, rng), device)
            image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
            image = disturb(image, 0.4, rng).contiguous(memory_format=torch.channels_last)
        total = torch.zeros((), device=device)
        for name, logits in network(image).items():
            target = targets[name][index]
            each = F.cross_entropy(
                logits.float(), target, weights[name], ignore_index=-1, reduction="sum", label_smoothing=0.02
            )
            scale = weights[name][target.clamp(min=0)] * (target >= 0)
            total = total + each / scale.sum().clamp(min=1)
        return total / len(targets)

    network = start or _seeded(lambda: AttributeReader(values), seed)
    network.requires_grad_(True)
    record = _fit(
        network, loss, count=len(attributes), steps=steps, batch=batch, lr=lr, device=device, rng=rng, minutes=minutes,
        title="attribute reader",
    )  # fmt: skip
    return network, record


def measure_judges(judges: Judges, images: np.ndarray, masks: np.ndarray, attributes: Attributes) -> dict[str, Any]:
    """What the judges get right on pictures (N,H,W,3) they were not trained on."""
    matrix = confusion_matrix(masks, judges.parser.parse(images))
    read, _ = judges.reader.read(images)
    table = score_attributes(encode_attributes(attributes, judges.reader.values), read)
    return {
        "n": len(images),
        "pixel_accuracy": pixel_accuracy(matrix),
        "mean_iou": mean_iou(matrix),
        "class_iou": [None if math.isnan(v) else float(v) for v in class_iou(matrix)],
        "balanced_accuracy": {name: row["balanced"] for name, row in table.items()},
    }


def train_judges(
    images: np.ndarray,
    masks: np.ndarray,
    attributes: Attributes,
    *,
    out: str | Path,
    device: torch.device | str = "cpu",
    steps: int = 1500,
    batch: int = 128,
    seed: int = 0,
    minutes: float | None = None,
    heldout: int = 500,
    softened: np.ndarray | None = None,
    start: Judges | None = None,
    only: str | None = None,
    record: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Trains both judges on all but the last ``heldout`` samples, measures them on those, writes ``out``.

    ``softened`` are the same pictures as a VAE gives them back: half of the training's samples are taken from there,
    and the judges are measured on the held out ones too. ``start`` is trained further instead of new networks, and
    of it only the "parser" or the "reader" if ``only`` says so.
    The reader takes batches twice as large (it starts at half resolution). On a CPU both train at the same time, each
    with half of the threads (they then need not wait for each other); on a GPU one after the other. ``minutes`` limits
    each of the two on a CPU, both together on a GPU, two thirds of it for the parser. ``record`` is added to what
    config.json says about the training. Returns the facts that config.json holds.
    """
    count = len(images) - heldout
    if not len(images) == len(masks) == len(attributes) or count < 1:
        raise MogleError(
            f"{len(images)} pictures, {len(masks)} masks, {len(attributes)} attribute sets, {heldout} of them held "
            "out; expected equal numbers and more samples than are held out"
        )
    if only is not None and (start is None or only not in ("parser", "reader")):
        raise MogleError(f'only={only!r}: expected "parser" or "reader", and judges to start from')
    device = torch.device(device)
    stacks = [images] if softened is None else [images, softened]
    pictures = [torch.from_numpy(stack[:count]).to(device) for stack in stacks]
    cuda = device.type == "cuda"
    share = (minutes, minutes) if minutes is None or not cuda else (minutes * 2 / 3, minutes / 3)
    all_threads = torch.get_num_threads()
    threads = all_threads if cuda or only else max(1, all_threads // 2)
    idle = {"steps": 0, "batch": 0, "seconds": 0.0}

    def parser_job() -> tuple[FaceParser, dict[str, float]]:
        if start and only == "reader":
            return start.parser, idle
        torch.set_num_threads(threads)
        labels = torch.from_numpy(masks[:count])
        return train_parser(
            pictures, labels, start=start and start.parser, device=device, steps=steps, batch=batch, seed=seed,
            minutes=share[0],
        )  # fmt: skip

    def reader_job() -> tuple[AttributeReader, dict[str, float]]:
        if start and only == "parser":
            return start.reader, idle
        torch.set_num_threads(threads)
        facts = attributes[:count]
        return train_reader(
            pictures, facts, start=start and start.reader, device=device, steps=steps, batch=2 * batch, seed=seed,
            minutes=share[1],
        )  # fmt: skip

    with ThreadPoolExecutor(1 if cuda else 2) as pool:
        parsing, reading = pool.submit(parser_job), pool.submit(reader_job)
        (parser, parser_run), (reader, reader_run) = parsing.result(), reading.result()
    torch.set_num_threads(all_threads)  # MKL's number is the whole process's
    judges = Judges(parser.half().float(), reader.half().float())  # the files hold half precision; so does the measure
    measured = [measure_judges(judges, stack[count:], masks[count:], attributes[count:]) for stack in stacks]
    training = {
        "samples": count,
        "seed": seed,
        "hardware": torch.cuda.get_device_name(device) if cuda else f"{torch.get_num_threads()} CPU threads",
        "torch": torch.__version__,
        "minutes": round((sum if cuda else max)([parser_run["seconds"], reader_run["seconds"]]) / 60, 2),
        "parser": parser_run,
        "attributes": reader_run,
        **(record or {}),
    }
    facts = {"training": training, **dict(zip(("heldout", "heldout_softened"), measured, strict=False))}
    save_judges(out, judges, facts)
    write_card(out, facts)
    return facts


def write_card(folder: str | Path, facts: Mapping[str, Any]) -> None:
    """README.md beside the judges: what they are, how they were trained, what they get right."""
    run, held = facts["training"], facts["heldout"]
    columns = [held, *([facts["heldout_softened"]] if "heldout_softened" in facts else [])]
    head = "portraits |" if len(columns) == 1 else "portraits | through the VAE |"
    rule = "---: |" * len(columns)

    def row(name: str, values: Sequence[float | None]) -> str:
        return f"| {name} | " + " | ".join("absent" if v is None else f"{v:.3f}" for v in values) + " |"

    attributes = "\n".join(row(n, [c["balanced_accuracy"][n] for c in columns]) for n in held["balanced_accuracy"])
    classes = "\n".join(row(label, [c["class_iou"][i] for c in columns]) for i, label in enumerate(LABELS))

    def steps(run: Mapping[str, Any]) -> str:
        each = (("parser", run["parser"]), ("reader", run["attributes"]))
        return ", ".join(f"{name} {one['steps']} steps of {one['batch']}" for name, one in each if one["steps"])

    earlier, before = run.get("before"), ""
    while earlier:
        before += f"\n- Before that: {steps(earlier)}, on {earlier['samples']} portraits, {earlier['minutes']} minutes."
        earlier = earlier.get("before")
    overall = [row("pixel accuracy", [c["pixel_accuracy"] for c in columns])]
    overall += [row("mIoU", [c["mean_iou"] for c in columns])]
    text = f"""---
license: apache-2.0
---
# Judges of painted portraits

Two small networks that measure generated faces: `parser.safetensors`, a U-Net from a picture to the 19 classes of
CelebAMask-HQ, and `attributes.safetensors`, a residual network that reads {len(held["balanced_accuracy"])} attributes.
Load both with `mogle.metrics.judges.load_judges`. They learned from painted portraits alone: what they say of a
photograph is a guess.

- Data: {run["samples"]} painted portraits of 128 px ({run.get("portraits", "seeds on record with the pretraining")}).
- Training: {steps(run)}, seed {run["seed"]}.
- Cost: {run["minutes"]} minutes on {run["hardware"]}, torch {run["torch"]}.{before}
- Licence: Apache-2.0. Weights in float16.

On {held["n"]} portraits never trained on:

| parser | {head}
| --- | {rule}
{overall[0]}
{overall[1]}

| attribute: balanced accuracy | {head}
| --- | {rule}
{attributes}

| class: IoU | {head}
| --- | {rule}
{classes}
"""
    Path(folder, "README.md").write_text(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Paints portraits from seeds 1,000,000 on and trains the judges on them."""
    from mogle.metrics.rows import reconstructed
    from mogle.tiny.portraits import paint_many

    parser = argparse.ArgumentParser(prog="python -m mogle.tiny.judges", description=main.__doc__)
    parser.add_argument("--out", default="checkpoints/judges")
    parser.add_argument("--portraits", type=int, default=40_000)
    parser.add_argument("--heldout", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--minutes", type=float, help="limit for each judge (on a GPU for both together)")
    parser.add_argument("--vae", help="folder of a VAE; half of the samples go through it")
    parser.add_argument("--start", help="folder of judges to train further")
    parser.add_argument("--only", choices=("parser", "reader"), help="of --start, train this one alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    first = 1_000_000
    images, masks, attributes, _ = paint_many(range(first, first + options.portraits + options.heldout))
    softened = start = None
    record: dict[str, Any] = {"portraits": f"style portraits, seeds {first}..{first + options.portraits - 1}"}
    if options.vae:
        from diffusers import AutoencoderKL

        vae = AutoencoderKL.from_pretrained(options.vae).float().to(options.device)
        softened = np.stack([*reconstructed(vae, images)])
    if options.start:
        start = load_judges(options.start)
        record["before"] = json.loads(Path(options.start, "config.json").read_text())["training"]
    facts = train_judges(
        images, masks, attributes, out=options.out, device=options.device, steps=options.steps, batch=options.batch,
        seed=options.seed, minutes=options.minutes, heldout=options.heldout, softened=softened, start=start,
        only=options.only, record=record,
    )  # fmt: skip
    held = facts["heldout"]
    worst = min(held["balanced_accuracy"], key=held["balanced_accuracy"].get)
    print(
        f"{options.out}: mIoU {held['mean_iou']:.3f}; balanced accuracy at least "
        f"{held['balanced_accuracy'][worst]:.3f} ({worst}), on {held['n']} portraits not trained on"
    )


if __name__ == "__main__":
    main()
