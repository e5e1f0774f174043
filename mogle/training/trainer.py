"""Fine-tunes MoGLE and LoRA on a frozen base, on one CPU or many GPUs: how a run starts, its loop, its checkpoints.

How the work is divided never changes what is computed (see `dataset.py`). Distribution, the batches' way to the device,
mixed precision and accumulation are Accelerate's. All that is random follows from the seed and the position, so a
checkpoint holds no state of any generator.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel, cast_training_params
from torch import nn
from torch.utils.data import DataLoader

from mogle.ablations import build_mogle
from mogle.errors import MogleError
from mogle.files import atomic_write
from mogle.lora import add_lora, train_lora
from mogle.pipeline import FaceMoGLEPipeline
from mogle.training.dataset import TrainingSet
from mogle.training.encode import EncodedSet
from mogle.training.flow import Example, VelocityLoss, make_optimizer, make_schedule
from mogle.training.settings import TrainSettings

_EXPLODED = 10  # times the usual loss
_REASONS = ("", "time", "signal")  # to stop, the strongest last
#: Settings that may differ between a run and the one that goes on from its checkpoint.
_FREE = {"steps", "minutes", "save_every", "keep", "sample_every", "report_to", "cache", "accumulation", "workers"}


def prepare_adapter(pipe: FaceMoGLEPipeline, settings: TrainSettings) -> list[nn.Parameter]:
    """Puts a new MoGLE and new LoRA layers into the pipeline where it has none -> the parameters to train, float32."""
    torch.manual_seed(settings.seed)
    if pipe.mogle is None:
        pipe.mogle = build_mogle(settings.variant, pipe.transformer.config.in_channels)
        add_lora(pipe.transformer, rank=settings.rank, alpha=settings.alpha, lora_on=settings.lora_on)
        pipe.settings = {"attention": settings.attention, "lora_on": settings.lora_on}
    experts = pipe.mogle.to(pipe._execution_device, torch.float32).train().ask_for_gradients()
    lora = train_lora(pipe.transformer, settings.lora_on)
    cast_training_params(pipe.transformer, torch.float32)
    return [*experts, *lora]


def warm_start(pipe: FaceMoGLEPipeline, samples: EncodedSet, settings: TrainSettings) -> float:
    """Teaches the pipeline's new MoGLE, in place, to draw outlines: `settings.warm_start` steps towards edges.

    A small base reads pictures in the second stream, not the noise that untrained experts make, and while it reads
    nothing MoGLE learns nothing: without this the loss stayed where it was for 1,000 steps. The reference has no such
    thing. Returns the last loss.
    """
    prepare_adapter(pipe, settings)
    mogle: Any = pipe.mogle
    parameters, loss = [p for p in mogle.parameters() if p.requires_grad], torch.zeros(())
    if not parameters:  # neither experts nor gate: the tokens go in as they are
        return 0.0
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, settings.warm_start))
    data, batch = TrainingSet(samples, settings.model_copy(update={"drop_local": 0.0})), 4 * settings.batch
    for drawn in DataLoader(data, batch_size=batch, sampler=range(settings.warm_start * batch)):
        parts = (drawn.image, drawn.noise, drawn.t, drawn.conditions, drawn.outline)
        image, noise, t, conditions, outline = (tensor.float().to(pipe._execution_device) for tensor in parts)
        loss = nn.functional.mse_loss(mogle(conditions, torch.lerp(image, noise, t[:, None, None]), t), outline)
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
        after_step: Callable[[Trainer, dict[str, float]], None] = lambda trainer, facts: None,
    ) -> None:
        self.pipe, self.samples, self.settings, self.out = pipe, samples, settings, Path(out)
        self.accelerator, self.after_step = accelerator, after_step
        self.step, self.usual, self.stopped = 0, math.nan, ""
        self.share, rest = divmod(settings.batch, accelerator.num_processes * settings.accumulation)
        if rest:
            raise MogleError(
                f"batch={settings.batch}: expected a multiple of {accelerator.num_processes} processes times "
                f"accumulation={settings.accumulation}"
            )
        self.parameters = prepare_adapter(pipe, settings)
        if settings.gradient_checkpointing:
            pipe.transformer.enable_gradient_checkpointing()
        loss = VelocityLoss(pipe.transformer.train(), pipe.mogle, settings)  # type: ignore[arg-type]
        optimizer = make_optimizer(self.parameters, settings)
        self.schedule = make_schedule(optimizer, settings)
        self.loss, self.optimizer = accelerator.prepare(loss, optimizer)
        self.average = None if settings.ema is None else EMAModel(self.parameters, decay=settings.ema)

    # --- the loop ------------------------------------------------------------------------------------------------

    def _one_step(self, batches: Iterator[Example]) -> dict[str, float]:
        accelerator, losses = self.accelerator, []
        ids: list[str] = []
        facts: dict[str, float] = {}
        for batch in islice(batches, self.settings.accumulation):
            with accelerator.accumulate(self.loss):
                loss = self.loss(batch).mean()
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.parameters, self.settings.clip)
                    facts = {"gradient_norm": float(norm)}
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach().float())
            ids += batch.id
        value = float(accelerator.reduce(torch.stack(losses).mean(), reduction="mean"))
        self._check(value, ids)
        self.schedule.step()
        if self.average is not None:
            self.average.step(self.parameters)
        self.step += 1
        return {"step": self.step, "loss": value, "learning_rate": float(self.schedule.get_last_lr()[0]), **facts}

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
        settings, start, first = self.settings, time.monotonic(), self.step
        seconds = speed = 0.0
        positions = range(first * settings.batch, settings.steps * settings.batch)
        loader = DataLoader(TrainingSet(self.samples, settings), batch_size=self.share, sampler=positions)
        # this process's parts of the coming steps, on its device: part n goes to process n modulo their number
        batches = iter(self.accelerator.prepare_data_loader(loader))
        self._cut_log()
        with self._signals():
            while self.step < settings.steps and not self.stopped:
                facts = self._one_step(batches)
                seconds = time.monotonic() - start
                speed = facts["images_per_second"] = round((self.step - first) * settings.batch / seconds, 3)
                self.after_step(self, facts)
                self._log(facts)
                if settings.minutes is not None and seconds > 60 * settings.minutes:
                    self.stopped = self.stopped or "time"
                self.stopped = self._agreed()
                if self.step % settings.save_every == 0 or self.stopped == "signal":
                    self.save()
        if self.stopped != "signal":
            self._finish()
        self.accelerator.wait_for_everyone()
        summary = {"steps": self.step, "stopped": self.stopped, "minutes": round(seconds / 60, 2)}
        return summary | {"loss": round(self.usual, 5), "images_per_second": speed}

    def _agreed(self) -> str:
        """Why to stop, if any process has a reason: all of them leave together."""
        mine = torch.tensor(float(_REASONS.index(self.stopped)), device=self.accelerator.device)
        return _REASONS[int(self.accelerator.gather(mine).max())]

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run after the step, with a checkpoint. A second one ends it at once."""
        with ExitStack() as handlers_of_before:

            def stop(number: int, frame: Any) -> None:
                self.stopped = "signal"
                handlers_of_before.close()

            for number in (signal.SIGINT, signal.SIGTERM):
                handlers_of_before.callback(signal.signal, number, signal.signal(number, stop))
            yield

    def _cut_log(self) -> None:
        """Drops what `metrics.jsonl`, one line a step, says of steps after the state that this run goes on from."""
        path = self.out / "metrics.jsonl"
        if self.accelerator.is_main_process:
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            with atomic_write(path) as part:
                part.write_text("".join(lines[: self.step]))

    def _log(self, facts: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            with (self.out / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(facts) + "\n")
        self.accelerator.log({name: value for name, value in facts.items() if name != "step"}, step=self.step)

    # --- keeping -------------------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Any]:
        """What has a state of its own besides the parameters."""
        parts = {"optimizer": self.optimizer, "schedule": self.schedule, "scaler": self.accelerator.scaler}
        return {name: part for name, part in {**parts, "average": self.average}.items() if part is not None}

    def save(self) -> None:
        """A checkpoint, the same whichever process writes it: one file, which is there whole or not at all.

        The frozen base is not in it.
        """
        if not self.accelerator.is_main_process:
            return
        state = {"settings": self.settings.model_dump(), "step": self.step, "usual": self.usual}
        state["trained"] = [parameter.detach() for parameter in self.parameters]
        state |= {name: part.state_dict() for name, part in self._parts().items()}
        folder = self.out / "checkpoints"
        with atomic_write(folder / f"step-{self.step:06d}.pt") as file:
            torch.save(state, file)
        for old in [*checkpoints_in(self.out)[: -self.settings.keep], *folder.glob("*.part")]:  # of killed runs
            old.unlink()

    @torch.no_grad()
    def resume(self) -> bool:
        """Goes on from the last checkpoint, if there is one.

        Raises:
            MogleError: it was made with other settings (the first that differs is named).
        """
        if not (checkpoints := checkpoints_in(self.out)):
            return False
        state = torch.load(checkpoints[-1], map_location="cpu", weights_only=True)
        then = state["settings"]
        for name, value in self.settings.model_dump().items():
            if name not in _FREE and then.get(name) != value:
                raise MogleError(
                    f"{checkpoints[-1]}: made with {name}={then.get(name)}, this run has {name}={value}; "
                    "go on with the same settings, or choose another folder"
                )
        self.step, self.usual = state["step"], state["usual"]
        for parameter, trained in zip(self.parameters, state["trained"], strict=True):
            parameter.copy_(trained)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        if self.average is not None:
            self.average.to(self.accelerator.device)
        return True

    def _finish(self) -> None:
        """Writes the adapter: the weights' moving average, if there is one, which then is what the pipeline has."""
        if self.average is not None:
            self.average.copy_to(self.parameters)
        if self.accelerator.is_main_process:
            self.pipe.save_mogle(self.out)


def checkpoints_in(out: str | Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(Path(out, "checkpoints").glob("step-*.pt"))
