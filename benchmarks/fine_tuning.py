"""Short trainings of an adapter, once with each of several ranks, rates and shares of dropping, and broken ones.

    python benchmarks/fine_tuning.py [--steps 40]

Each begins with the same experts, which have learned outlines, and with B = 0, sees the same portraits, noise and times
in the same order, and is measured on the same portraits that it never sees. Writes `notebooks/workbook/trainings.json`,
whose curves notebook 08 shows.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import default_collate

from mogle.checkpoints import base_folder, load_pipeline
from mogle.files import atomic_write
from mogle.lora import add_lora, train_lora
from mogle.pipeline import ENCODERS, FaceMoGLEPipeline
from mogle.provenance import fingerprint
from mogle.tiny.portraits import paint_many
from mogle.tiny.source import PaintedSource
from mogle.training.dataset import TrainingSet
from mogle.training.encode import Encoder, encode_set
from mogle.training.finetune import base_size
from mogle.training.flow import Example
from mogle.training.settings import TrainSettings, load_train_settings
from mogle.training.trainer import warm_start
from mogle.transformer import Condition, forward_streams

OUT = Path(__file__).resolve().parents[1] / "notebooks" / "workbook" / "trainings.json"
HELD_OUT = range(27000, 27016)  # portraits that no training sees
#: Name -> how it differs from the training as it should be.
RUNS: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "nothing is trained": {"trained": False},
    "one batch": {"one_batch": True},
    "sign of the target": {"sign": -1},
    "rate falls to zero": {"rate": lambda part: float(part < 0.25)},
    "resumed wrongly": {"rate": lambda part: 1.0 if part < 0.5 else 20.0, "forget": True},
    "rate 0.0001": {"learning_rate": 1e-4},
    "rate 0.01": {"learning_rate": 1e-2},
    "rank 1": {"rank": 1},
    "rank 4": {"rank": 4},
    "rank 64": {"rank": 64},
    "drop 0": {"drop_local": 0.0, "drop_text": 0.0},
    "drop 0.5": {"drop_local": 0.5, "drop_text": 0.5},
}


class Bench:
    """The portraits, encoded, and what every training begins with."""

    def __init__(self, steps: int, count: int, cache: Path) -> None:
        base, self.steps = base_folder(None), steps
        fields = ["batch=8", f"count={count}", "warm_start=60", "high_noise=0.5"]
        self.settings = load_train_settings("tiny", fields)
        size = base_size(base, self.settings)
        encoders = load_pipeline(base, None, "cpu", without=("transformer",))
        images, masks, _, captions = paint_many(HELD_OUT, size=size[0])
        encoder, accelerator = Encoder(encoders, size, self.settings), Accelerator(cpu=True)
        encode = partial(encode_set, cache, encoder=encoder, accelerator=accelerator)
        self.samples = encode(source=PaintedSource.paint(count, size))
        others = encode(source=PaintedSource(images, masks, captions, HELD_OUT[0]))
        plain = self.settings.model_copy(update={"drop_local": 0.0, "drop_text": 0.0, "seed": 1})
        self.others: Example = default_collate(TrainingSet(others, plain).__getitems__(range(len(HELD_OUT))))
        self.pipe = load_pipeline(base, None, "cpu", without=(*ENCODERS, "vae"))
        warm_start(self.pipe, self.samples, self.settings)
        self.experts = self.pipe.mogle

    def fresh(self, settings: TrainSettings) -> tuple[Any, list[Tensor]]:
        """A new adapter, with the experts of the beginning and B = 0 -> its MoGLE, all parameters to train."""
        network: Any = self.pipe.transformer
        network.delete_adapters("mogle")
        torch.manual_seed(settings.seed)
        add_lora(network, rank=settings.rank)
        mogle: Any = copy.deepcopy(self.experts)
        return mogle, [*mogle.ask_for_gradients(), *train_lora(network)]

    def loss(self, mogle: Any, batch: Example, sign: int = 1) -> Tensor:
        """Rectified flow's; with sign -1 the target points the wrong way."""
        t, side = batch.t[:, None, None], math.isqrt(batch.image.shape[1])
        noisy = (1 - t) * batch.image + t * batch.noise
        places = FaceMoGLEPipeline._prepare_latent_image_ids(1, side, side, "cpu", torch.float32)
        velocity = forward_streams(
            self.pipe.transformer, noisy, Condition(mogle(batch.conditions, noisy, batch.t)), batch.states,
            batch.pooled, batch.t, torch.ones(len(t)), places, torch.zeros(batch.states.shape[1], 3),
        )  # fmt: skip
        return (velocity - sign * (batch.noise - batch.image)).square().mean()

    def batches(self, settings: TrainSettings, one_batch: bool) -> Iterator[Example]:
        """One for each step."""
        data, size = TrainingSet(self.samples, settings), settings.batch
        for step in range(self.steps):
            first = 0 if one_batch else step * size
            yield default_collate(data.__getitems__(range(first, first + size)))

    @torch.no_grad()
    def measured(self, mogle: Any, **changed: Tensor) -> float:
        """The loss on portraits that it never sees: the same noise, times and captions each time."""
        return round(self.loss(mogle, self.others._replace(**changed)).item(), 5)

    def run(
        self, *, trained: bool = True, one_batch: bool = False, sign: int = 1, forget: bool = False,
        rate: Callable[[float], float] = lambda part: 1.0, **fields: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """One training -> its loss at each step, on other portraits at some, and at the end without this or that."""
        settings = self.settings.model_copy(update=fields)
        mogle, parameters = self.fresh(settings)
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
        losses, others = [], [(0, self.measured(mogle))]
        for step, batch in enumerate(self.batches(settings, one_batch)):
            if forget and step == self.steps // 2:
                optimizer.state.clear()
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate(step / self.steps)
            with torch.set_grad_enabled(trained):
                loss = self.loss(mogle, batch, sign)
            losses.append(round(loss.item(), 5))
            if trained:
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
                optimizer.step()
            if (step + 1) % (self.steps // 8) == 0:
                others.append((step + 1, self.measured(mogle)))
        return {"loss": losses, "others": others, "without": self.without(mogle)}

    def without(self, mogle: Any) -> dict[str, float]:
        """The loss on other portraits, with a part of what the adapter is told left out."""
        batch, common = self.others, self.samples.common
        conditions = common.empty.repeat(*batch.conditions.shape[:2], 1, 1)
        conditions[:, 0] = batch.conditions[:, 0]
        states, pooled = common.states.expand_as(batch.states), common.pooled.expand_as(batch.pooled)
        silent = self.measured(mogle, states=states, pooled=pooled)
        alone = self.measured(mogle, conditions=conditions)
        return {"nothing": self.measured(mogle), "sentence": silent, "local": alone}


def main() -> None:
    """Runs all of them, one after another; what is there already, of the same base, is not run again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--count", type=int, default=64, help="portraits to train on")
    parser.add_argument("--cache", type=Path, default=Path("runs/cache"), help="where encoded portraits are kept")
    options = parser.parse_args()
    bench = Bench(options.steps, options.count, options.cache)
    of = {"base": fingerprint(base_folder(None)), "steps": options.steps, "portraits": options.count}
    found: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    if {name: found.get(name) for name in of} != of:
        found = {**of, "runs": {}}
    for name in [name for name in RUNS if name not in found["runs"]]:
        found["runs"][name] = run = bench.run(**RUNS[name])
        print(f"{name}: on other portraits {run['others'][0][1]:.4f} -> {run['others'][-1][1]:.4f}", flush=True)
        with atomic_write(OUT) as part:
            part.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
