"""Fine-tunes MoGLE and LoRA on a frozen base, on one CPU or many GPUs: the loop, its checkpoints, nothing else.

How the work is divided never changes what is computed: sample, noise, time and what is dropped depend on the seed, the
step and the place in the global batch alone. Distribution, mixed precision and accumulation are Accelerate's.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from mogle.errors import MogleError
from mogle.tiny.base import sample_times
from mogle.training.cache import EncodedSet
from mogle.training.settings import TrainSettings
from mogle.lora import add_lora, train_lora
from mogle.transformer import Condition, forward_streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator

    from mogle.experts import MoGLE
    from mogle.pipeline import FaceMoGLEPipeline

PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_EXPLODED = 10  # times the usual loss


class Batch(NamedTuple):
    """A process's part of a step. B samples of N tokens."""

    ids: list[str]
    image: Tensor  # (B, N, 64)
    noise: Tensor  # (B, N, 64)
    t: Tensor  # (B,)
    conditions: Tensor  # (B, 20, N, 64)
    states: Tensor  # (B, L, D2)
    pooled: Tensor  # (B, D1)


def sample_of(position: int, count: int, seed: int) -> int:
    """Which of `count` samples stands at this place in the endless sequence of shuffled epochs."""
    epoch, place = divmod(position, count)
    return int(_order(epoch, count, seed)[place])


@functools.lru_cache(maxsize=2)
def _order(epoch: int, count: int, seed: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(_mixed(seed, epoch, 1)))


def _mixed(seed: int, number: int, purpose: int) -> int:
    """A seed of its own for each use; hashed, because neighbouring seeds give generators that begin alike."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}/{purpose}".encode()).digest()[:4], "big")


def draw(samples: EncodedSet, positions: Sequence[int], settings: TrainSettings) -> Batch:
    """The samples at these places of the run, with their noise, times and drops (reference: 0.1 each)."""
    parts: list[tuple[Any, ...]] = []
    for position in positions:
        index = sample_of(position, len(samples.ids), settings.seed)
        chance = torch.Generator().manual_seed(_mixed(settings.seed, position, 2))
        t = sample_times(1, chance, "cpu", settings.high_noise)[0]
        silent = torch.rand((), generator=chance)
        dropped = torch.rand(20, generator=chance) < settings.drop_local
        dropped[0] = False  # the global condition never
        caption = int(torch.randint(samples.captions, (), generator=chance))
        found = samples.read(index, caption)
        noise = torch.randn(found.image.shape, generator=chance)
        common = samples.common
        conditions = torch.where(dropped[:, None, None], common.empty, found.conditions)
        states, pooled = (common.states, common.pooled) if silent < settings.drop_text else (found.states, found.pooled)
        parts.append((samples.ids[index], found.image, noise, t, conditions, states, pooled))
    ids, *tensors = zip(*parts, strict=True)
    return Batch(list(ids), *(torch.stack(column) for column in tensors))


class VelocityLoss(nn.Module):
    """Rectified flow: mean squared error of the predicted velocity against eps - z0, at z_t = (1-t) z0 + t eps."""

    def __init__(self, transformer: Any, mogle: MoGLE, settings: TrainSettings, image_ids: Tensor) -> None:
        super().__init__()
        self.transformer, self.mogle, self.settings = transformer, mogle, settings
        self.image_ids: Tensor
        self.register_buffer("image_ids", image_ids, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """-> the losses of the samples, float32 (B,)."""
        config, dtype = self.transformer.config, self.transformer.dtype
        t = batch.t[:, None, None]
        noisy = (1 - t) * batch.image.float() + t * batch.noise
        fused = self.mogle(batch.conditions.float(), noisy, batch.t)
        guidance = torch.full_like(batch.t, self.settings.guidance) if config.guidance_embeds else None
        condition = Condition(fused.to(dtype), attention=self.settings.attention, lora_on=self.settings.lora_on)
        velocity = forward_streams(
            self.transformer, noisy.to(dtype), condition, batch.states.to(dtype), batch.pooled.to(dtype),
            batch.t, guidance, self.image_ids, self.image_ids.new_zeros(batch.states.shape[1], 3),
        )  # fmt: skip
        return (velocity.float() - (batch.noise - batch.image.float())).square().mean(dim=(1, 2))


def make_optimizer(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Prodigy as the reference sets it, AdamW, or AdamW with 8-bit states."""
    if settings.optimizer == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, use_bias_correction=True,
            safeguard_warmup=True,
        )  # fmt: skip
    options: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise MogleError(
                "optimizer=adamw8bit: bitsandbytes is not installed; expected pip install 'face-mogle[gpu]', "
                "or optimizer=adamw"
            ) from error
        return AdamW8bit(parameters, betas=(0.9, 0.99), **options)
    return torch.optim.AdamW(parameters, betas=(0.9, 0.99), **options)


def prepare_adapter(pipe: FaceMoGLEPipeline, settings: TrainSettings) -> list[nn.Parameter]:
    """Puts a new MoGLE and new LoRA layers into the pipeline where it has none -> the parameters to train, float32."""
    from mogle.ablations import build_mogle

    torch.manual_seed(settings.seed)
    if pipe.mogle is None:
        pipe.mogle = build_mogle(settings.variant, pipe.transformer.config.in_channels)
        add_lora(pipe.transformer, rank=settings.rank, alpha=settings.alpha, lora_on=settings.lora_on)
        pipe.settings = {"attention": settings.attention, "lora_on": settings.lora_on}
    experts = pipe.mogle.train().float().ask_for_gradients()
    lora = train_lora(pipe.transformer, settings.lora_on)
    for parameter in lora:
        parameter.data = parameter.data.float()
    return [*experts, *lora]


def warm_start(pipe: FaceMoGLEPipeline, samples: EncodedSet, settings: TrainSettings) -> float:
    """Teaches the pipeline's new MoGLE, in place, to draw outlines: `settings.warm_start` steps towards edges.

    A small base reads pictures in the second stream, not the noise that untrained experts make, and while it reads
    nothing MoGLE learns nothing: without this the loss stayed where it was for 1,000 steps. The reference has no such
    thing. Returns the last loss.
    """
    mogle = pipe.mogle
    if mogle is None:
        raise MogleError("the pipeline has no MoGLE; call prepare_adapter before")
    device = pipe._execution_device
    mogle.to(device).train()
    parameters = [p for p in mogle.parameters() if p.requires_grad]
    if not parameters:  # neither experts nor gate: the tokens go in as they are
        return 0.0
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.warm_start))
    batch, loss = 4 * settings.batch, torch.zeros(())
    with torch.enable_grad():
        for step in range(settings.warm_start):
            positions = range(step * batch, (step + 1) * batch)
            drawn = draw(samples, positions, replace(settings, drop_local=0.0))
            rows = [sample_of(position, len(samples.ids), settings.seed) for position in positions]
            target = torch.stack([samples.read_outlines(row) for row in rows]).to(device)
            image, noise, t = drawn.image.float().to(device), drawn.noise.to(device), drawn.t.to(device)
            noisy = torch.lerp(image, noise, t[:, None, None])
            loss = nn.functional.mse_loss(mogle(drawn.conditions.float().to(device), noisy, t), target.float())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return round(loss.item(), 4)


class Trainer:
    """One run. `fit` trains; what it leaves in `out` is the adapter, `metrics.jsonl`, and the last checkpoints."""

    def __init__(
        self,
        pipe: FaceMoGLEPipeline,
        samples: EncodedSet,
        settings: TrainSettings,
        out: str | Path,
        accelerator: Accelerator,
        after_step: Callable[[Trainer, dict[str, float]], None] | None = None,
    ) -> None:
        self.pipe, self.samples, self.settings, self.out = pipe, samples, settings, Path(out)
        self.accelerator, self.after_step = accelerator, after_step
        self.step, self.usual, self.stopped = 0, math.nan, ""
        share = settings.batch // (accelerator.num_processes * settings.accumulation)
        if share * accelerator.num_processes * settings.accumulation != settings.batch:
            raise MogleError(
                f"batch={settings.batch}: expected a multiple of {accelerator.num_processes} processes times "
                f"accumulation={settings.accumulation}"
            )
        self.share = share
        self.parameters = prepare_adapter(pipe, settings)
        if settings.gradient_checkpointing:
            pipe.transformer.enable_gradient_checkpointing()
        side = math.isqrt(samples.common.empty.shape[0])
        ids = pipe._prepare_latent_image_ids(1, side, side, accelerator.device, torch.float32)
        optimizer = make_optimizer(self.parameters, settings)
        self.loss: Any
        self.loss, self.optimizer = accelerator.prepare(
            VelocityLoss(pipe.transformer.train(), pipe.mogle, settings, ids),  # type: ignore[arg-type]
            optimizer,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        self.average = None
        if settings.ema is not None:
            from diffusers.training_utils import EMAModel

            self.average = EMAModel(self.parameters, decay=settings.ema)
            accelerator.register_for_checkpointing(self.average)
        accelerator.register_for_checkpointing(self.schedule, _Position(self))
        accelerator.register_save_state_pre_hook(self._save_trained)
        accelerator.register_load_state_pre_hook(self._load_trained)

    def _factor(self, step: int) -> float:
        """Of the learning rate, at this step: linear warm-up, then constant or a cosine to zero."""
        settings = self.settings
        if step < settings.warmup:
            return (step + 1) / settings.warmup
        if settings.schedule == "constant":
            return 1.0
        done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    # --- the loop ------------------------------------------------------------------------------------------------

    def _my_batches(self) -> Iterator[Batch]:
        """This process's parts of the coming step, one for each accumulation."""
        accelerator, settings = self.accelerator, self.settings
        for part in range(settings.accumulation):
            first = (part * accelerator.num_processes + accelerator.process_index) * self.share
            start = self.step * settings.batch + first
            batch = draw(self.samples, range(start, start + self.share), settings)
            yield Batch(batch.ids, *(tensor.to(accelerator.device) for tensor in batch[1:]))

    def _one_step(self) -> dict[str, float]:
        accelerator, losses, ids = self.accelerator, [], []
        for batch in self._my_batches():
            with accelerator.accumulate(self.loss):
                loss = self.loss(batch).mean()
                accelerator.backward(loss)
                norm = None
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.parameters, self.settings.clip)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach().float())
            ids += batch.ids
        mean = torch.stack(losses).mean()
        value = float(accelerator.reduce(mean, reduction="mean"))
        self._check(value, ids)
        self.schedule.step()
        if self.average is not None:
            self.average.step(self.parameters)
        self.step += 1
        facts = {"step": self.step, "loss": value, "learning_rate": float(self.schedule.get_last_lr()[0])}
        return facts | ({} if norm is None else {"gradient_norm": float(norm)})

    def _check(self, loss: float, ids: list[str]) -> None:
        """Stops a run whose loss is no number, or many times what it used to be."""
        if not math.isfinite(loss) or (self.step > 20 and loss > _EXPLODED * self.usual):
            raise MogleError(
                f"step {self.step + 1}: the loss is {loss:.4g} (before: {self.usual:.4g}) on samples "
                f"{', '.join(ids)}; the last checkpoint is from before it. Look at these samples, or lower the "
                "learning rate"
            )
        self.usual = loss if math.isnan(self.usual) else 0.95 * self.usual + 0.05 * loss

    def fit(self) -> dict[str, Any]:
        """Trains to the last step, or until time is up or somebody stops it -> what there is to say about the run."""
        settings, accelerator = self.settings, self.accelerator
        start, first, facts = time.monotonic(), self.step, {}
        with self._signals(), self._log() as log:
            while self.step < settings.steps and not self.stopped:
                facts = self._one_step()
                if self.after_step is not None:
                    self.after_step(self, facts)
                log(facts)
                if settings.minutes is not None and time.monotonic() - start > 60 * settings.minutes:
                    self.stopped = "time"
                self.stopped = self._agreed()
                if self.step % settings.save_every == 0 or self.stopped == "signal":
                    self.save()
        seconds = time.monotonic() - start
        if self.stopped != "signal":
            self.finish()
        done = self.step - first
        summary = {"steps": self.step, "stopped": self.stopped, "minutes": round(seconds / 60, 2)}
        summary |= {"loss": round(self.usual, 5), "images_per_second": round(done * settings.batch / seconds, 3)}
        accelerator.wait_for_everyone()
        return summary

    def _agreed(self) -> str:
        """Why to stop, if any process has a reason: all of them leave together."""
        reasons = ("", "time", "signal")
        mine = torch.tensor(float(reasons.index(self.stopped)), device=self.accelerator.device)
        return reasons[int(self.accelerator.gather(mine).max())]

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run after the step, with a checkpoint. A second one ends it at once."""
        before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def stop(number: int, frame: Any) -> None:
            self.stopped = "signal"
            signal.signal(number, before[number])

        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _log(self) -> Iterator[Callable[[dict[str, float]], None]]:
        """`metrics.jsonl`, one line a step; lines after the state that a run goes on from are dropped first."""
        if not self.accelerator.is_main_process:
            yield lambda facts: None
            return
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= self.step]
        path.write_text("".join(line + "\n" for line in kept))
        with path.open("a") as file:

            def log(facts: dict[str, float]) -> None:
                file.write(json.dumps(facts) + "\n")
                file.flush()
                numbers = {name: value for name, value in facts.items() if name != "step"}
                self.accelerator.log(numbers, step=self.step)

            yield log

    # --- keeping -------------------------------------------------------------------------------------------------

    def _trained(self) -> dict[str, Tensor]:
        model = self.accelerator.unwrap_model(self.loss)
        return {name: p for name, p in model.named_parameters() if p.requires_grad}

    def _save_trained(self, models: list, weights: list, folder: str) -> None:
        """Of the model only what is trained goes to disk: the frozen base is there already."""
        from safetensors.torch import save_file

        if self.accelerator.is_main_process:
            state = {name: p.detach().cpu().contiguous() for name, p in self._trained().items()}
            save_file(state, Path(folder) / "trained.safetensors")
            settings = json.dumps(asdict(self.settings), indent=1)
            Path(folder, "settings.json").write_text(settings)
        weights.clear()

    def _load_trained(self, models: list, folder: str) -> None:
        from safetensors.torch import load_file

        state, mine = load_file(Path(folder) / "trained.safetensors"), self._trained()
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(state[name])
        models.clear()

    @property
    def checkpoints(self) -> list[Path]:
        """The whole checkpoints of this run, oldest first."""
        return checkpoints_in(self.out)

    def save(self) -> None:
        """A checkpoint, written beside its name and then moved: it is there whole or not at all."""
        folder = self.out / "checkpoints"
        new, name = folder / "new", folder / f"step-{self.step:06d}"
        if self.accelerator.is_main_process:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(new))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            if name.exists():  # the run went back to before it
                _remove(name)
            new.rename(name)
            for old in self.checkpoints[: -self.settings.keep]:
                _remove(old)

    def resume(self) -> bool:
        """Goes on from the last checkpoint, if there is one.

        Raises:
            MogleError: it was made with other settings (the first that differs is named).
        """
        if not self.checkpoints:
            return False
        folder = self.checkpoints[-1]
        then, now = json.loads((folder / "settings.json").read_text()), asdict(self.settings)
        free = {"steps", "minutes", "save_every", "keep", "sample_every", "report_to", "cache", "accumulation"}
        for name, value in now.items():
            if name not in free and then.get(name) != value:
                raise MogleError(
                    f"{folder}: made with {name}={then.get(name)}, this run has {name}={value}; "
                    "go on with the same settings, or choose another folder"
                )
        self.accelerator.load_state(str(folder))
        return True

    def finish(self) -> None:
        """Writes the adapter: the weights' moving average, if there is one."""
        if self.average is not None:
            self.average.store(self.parameters)
            self.average.copy_to(self.parameters)
        if self.accelerator.is_main_process:
            self.pipe.save_mogle(self.out)
        if self.average is not None:
            self.average.restore(self.parameters)


def checkpoints_in(out: str | Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(Path(out, "checkpoints").glob("step-*"))


def _remove(folder: Path) -> None:
    """Moved away before it is deleted: a checkpoint that has its name is whole, also while it goes."""
    gone = folder.with_name("removed")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone)


class _Position:
    """The place in the run, as Accelerate keeps it."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.trainer.step, "usual": self.trainer.usual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.trainer.step, self.trainer.usual = state["step"], state["usual"]


def _step_of(line: str) -> float:
    """The step of a line of metrics.jsonl; a line cut off by a kill belongs nowhere."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
