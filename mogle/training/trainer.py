"""Fine-tunes MoGLE and LoRA on a frozen base, on one CPU or many GPUs: the loop and its checkpoints, nothing else.

How the work is divided never changes what is computed (see `dataset.py`). Distribution, the batches' way to the device,
mixed precision and accumulation are Accelerate's.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mogle.errors import MogleError
from mogle.training.dataset import EncodedSet, TrainingSet
from mogle.training.flow import Example, VelocityLoss, make_optimizer, make_schedule
from mogle.training.guided import Teacher
from mogle.training.settings import TrainSettings
from mogle.training.start import prepare_adapter

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mogle.pipeline import FaceMoGLEPipeline

_EXPLODED = 10  # times the usual loss
_REASONS = ("", "time", "signal")  # to stop, the strongest last
#: Settings that may differ between a run and the one that goes on from its checkpoint.
_FREE = {"steps", "minutes", "save_every", "keep", "sample_every", "report_to", "cache", "accumulation"}


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
        if settings.batch % (accelerator.num_processes * settings.accumulation):
            raise MogleError(
                f"batch={settings.batch}: expected a multiple of {accelerator.num_processes} processes times "
                f"accumulation={settings.accumulation}"
            )
        self.parameters = prepare_adapter(pipe, settings)
        if settings.gradient_checkpointing:
            pipe.transformer.enable_gradient_checkpointing()
        side = math.isqrt(samples.common.empty.shape[0])
        ids = pipe._prepare_latent_image_ids(1, side, side, accelerator.device, torch.float32)
        weight, teacher = settings.distil_mask_guidance, None
        if weight is not None:  # before `resume`, so that it is the adapter that the run began with
            teacher = Teacher(pipe.transformer, pipe.mogle, weight)
        loss = VelocityLoss(pipe.transformer.train(), pipe.mogle, settings, ids, teacher)  # type: ignore[arg-type]
        optimizer = make_optimizer(self.parameters, settings)
        self.schedule = make_schedule(optimizer, settings)
        self.loss, self.optimizer = accelerator.prepare(loss, optimizer)
        self.average = None
        if settings.ema is not None:
            from diffusers.training_utils import EMAModel

            self.average = EMAModel(self.parameters, decay=settings.ema)
            accelerator.register_for_checkpointing(self.average)
        accelerator.register_for_checkpointing(self.schedule, self)
        accelerator.register_save_state_pre_hook(self._save_trained)
        accelerator.register_load_state_pre_hook(self._load_trained)

    # --- the loop ------------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[Example]:
        """This process's parts of the coming steps, on its device: batch n goes to process n modulo their number."""
        batch = self.settings.batch
        share = batch // (self.accelerator.num_processes * self.settings.accumulation)
        positions = range(self.step * batch, self.settings.steps * batch)
        loader = DataLoader(TrainingSet(self.samples, self.settings), batch_size=share, sampler=positions)
        return iter(self.accelerator.prepare_data_loader(loader))

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
                    facts = {} if norm is None else {"gradient_norm": float(norm)}
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
        self._cut_log()
        with self._signals():
            batches = self._batches()
            while self.step < settings.steps and not self.stopped:
                facts = self._one_step(batches)
                self.after_step(self, facts)
                self._log(facts)
                if settings.minutes is not None and time.monotonic() - start > 60 * settings.minutes:
                    self.stopped = self.stopped or "time"
                self.stopped = self._agreed()
                if self.step % settings.save_every == 0 or self.stopped == "signal":
                    self.save()
        seconds = time.monotonic() - start
        if self.stopped != "signal":
            self.finish()
        self.accelerator.wait_for_everyone()
        speed = (self.step - first) * settings.batch / seconds
        summary = {"steps": self.step, "stopped": self.stopped, "minutes": round(seconds / 60, 2)}
        return summary | {"loss": round(self.usual, 5), "images_per_second": round(speed, 3)}

    def _agreed(self) -> str:
        """Why to stop, if any process has a reason: all of them leave together."""
        mine = torch.tensor(float(_REASONS.index(self.stopped)), device=self.accelerator.device)
        return _REASONS[int(self.accelerator.gather(mine).max())]

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run after the step, with a checkpoint. A second one ends it at once."""

        def stop(number: int, frame: Any) -> None:
            self.stopped = "signal"
            signal.signal(number, before[number])

        before: dict[int, Any] = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _cut_log(self) -> None:
        """Drops what `metrics.jsonl`, one line a step, says of steps after the state that this run goes on from."""
        path = self.out / "metrics.jsonl"
        if self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            path.write_text("".join(lines[: self.step]))

    def _log(self, facts: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            with (self.out / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(facts) + "\n")
        self.accelerator.log({name: value for name, value in facts.items() if name != "step"}, step=self.step)

    # --- keeping -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The place in the run, as Accelerate keeps it."""
        return {"step": self.step, "usual": self.usual}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to the place that `state_dict` has told."""
        self.step, self.usual = state["step"], state["usual"]

    def _trained(self) -> dict[str, Tensor]:
        model = self.accelerator.unwrap_model(self.loss)
        return {name: p for name, p in model.named_parameters() if p.requires_grad}

    def _save_trained(self, models: list, weights: list, folder: str) -> None:
        """Of the model only what is trained goes to disk: the frozen base is there already."""
        from safetensors.torch import save_file

        if self.accelerator.is_main_process:
            state = {name: p.detach().cpu().contiguous() for name, p in self._trained().items()}
            save_file(state, Path(folder) / "trained.safetensors")
            Path(folder, "settings.json").write_text(self.settings.model_dump_json(indent=1))
        weights.clear()

    def _load_trained(self, models: list, folder: str) -> None:
        from safetensors.torch import load_file

        state = load_file(Path(folder) / "trained.safetensors")
        with torch.no_grad():
            for name, parameter in self._trained().items():
                parameter.copy_(state[name])
        models.clear()

    def save(self) -> None:
        """A checkpoint, written beside its name and then moved: it is there whole or not at all."""
        folder = self.out / "checkpoints"
        new, name = folder / "new", folder / f"step-{self.step:06d}"
        if self.accelerator.is_main_process:
            shutil.rmtree(new, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.accelerator.save_state(str(new))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            _remove(name)  # if the run went back to before it
            new.rename(name)
            for old in checkpoints_in(self.out)[: -self.settings.keep]:
                _remove(old)

    def resume(self) -> bool:
        """Goes on from the last checkpoint, if there is one.

        Raises:
            MogleError: it was made with other settings (the first that differs is named).
        """
        checkpoints = checkpoints_in(self.out)
        if not checkpoints:
            return False
        then = json.loads((checkpoints[-1] / "settings.json").read_text())
        for name, value in self.settings.model_dump().items():
            if name not in _FREE and then.get(name) != value:
                raise MogleError(
                    f"{checkpoints[-1]}: made with {name}={then.get(name)}, this run has {name}={value}; "
                    "go on with the same settings, or choose another folder"
                )
        self.accelerator.load_state(str(checkpoints[-1]))
        return True

    def finish(self) -> None:
        """Writes the adapter: the weights' moving average, if there is one, which then is what the pipeline has."""
        if self.average is not None:
            self.average.copy_to(self.parameters)
        if self.accelerator.is_main_process:
            self.pipe.save_mogle(self.out)


def checkpoints_in(out: str | Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    return sorted(Path(out, "checkpoints").glob("step-*"))


def _remove(folder: Path) -> None:
    """Moved away before it is deleted: a checkpoint that has its name is whole, also while it goes."""
    gone = folder.with_name("removed")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        folder.rename(gone)
        shutil.rmtree(gone)
