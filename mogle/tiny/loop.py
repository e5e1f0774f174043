"""What the small pretraining loops share: a schedule, an average of the weights, a log line."""

from __future__ import annotations

import functools
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mogle.errors import MogleError
from mogle.files import atomic_write

if TYPE_CHECKING:
    import torch


def cosine_schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: int = 0) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over `warmup` steps, then a cosine down to 2 % of the learning rate."""
    import torch

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def averaged(model: torch.nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel:
    """A moving average of the model's weights, updated by `.update_parameters(model)`.

    The decay grows to its value as (1 + n) / (10 + n): at a fixed one a short run would end near its first weights.
    """
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    def update(averages: Any, currents: Any, count: Any) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, currents, count)

    return AveragedModel(model, multi_avg_fn=update)


class Halfway:
    """Keeps what a long training needs to go on: `save` every so often, `load` at the start -> steps already done.

    An interrupted save leaves the one before.
    """

    every = 250  # steps

    def __init__(self, path: Path | None, **parts: Any) -> None:
        self.path, self.parts = path, parts
        self.notes: dict[str, Any] = {}

    def load(self, device: torch.device) -> int:
        """Puts a kept state back into all parts -> the number of steps behind it, 0 without a file."""
        import torch

        if self.path is None or not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True, map_location=device)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.notes = state.get("notes", {})
        return int(state["steps"])

    def note(self, name: str, value: Any) -> Any:
        """Keeps a fact about the run in the file -> the fact."""
        self.notes[name] = value
        return value

    def is_time(self, steps: int) -> bool:
        """Whether a state is written after so many steps."""
        return steps % self.every == 0

    def save(self, steps: int) -> None:
        """Writes the state after `steps` steps, if it is time for it and this is the main process."""
        import torch

        if self.path is None or not self.is_time(steps) or not main_process():
            return
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        with atomic_write(self.path) as new:
            torch.save({**parts, "steps": steps, "notes": self.notes}, new)


def main_process() -> bool:
    """False in all but the first of several processes that `torchrun` or `accelerate launch` have started."""
    return os.environ.get("RANK", "0") == "0"


class Processes:
    """This process among those that `torchrun` or `accelerate launch` have started; alone without them.

    Two processes of one thread each are faster than one of two threads where a virtual machine's cores are not always
    there: threads meet hundreds of times a step, processes once.
    """

    def __init__(self, device: torch.device) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
        self.count, self.rank = self.accelerator.num_processes, self.accelerator.process_index

    def share(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model as the processes share it: gradients are averaged over all of them."""
        return self.accelerator.prepare_model(model)

    def part_of(self, batch: int) -> int:
        """This process's number of samples."""
        if batch % self.count:
            raise MogleError(f"batch {batch}: expected a multiple of the {self.count} processes")
        return batch // self.count

    def rows(self, count: int) -> slice:
        """This process's rows of `count`; `gather` puts what all processes made of theirs together again."""
        mine = self.part_of(count)
        return slice(self.rank * mine, (self.rank + 1) * mine)

    def gather(self, part: torch.Tensor) -> torch.Tensor:
        """The processes' tensors one after another, for all of them; bytes travel, so any type does."""
        import torch

        return self.accelerator.gather(part.contiguous().view(torch.uint8)).view(part.dtype)

    def seed(self, seed: int, step: int) -> int:
        """A seed for this step and process, so that a run that goes on needs no state of a generator."""
        return (seed * 1_000_003 + step) * 1009 + self.rank


def multiplies_bf16(device: torch.device, seconds: float = 0.5) -> bool:
    """Whether bfloat16 pays: always on a GPU; measured on a CPU, as some multiply it fast and others emulate it."""
    import torch

    if device.type != "cpu":
        return True
    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(1024, 1024).to(dtype) for _ in range(2))
        a @ b
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            a @ b
            count += 1
        rates.append(count / (time.perf_counter() - start))
    return rates[1] > 1.3 * rates[0]


@dataclass(frozen=True)
class Speed:
    """How a training computes: part of its record, as another number format or a compiler gives other last bits."""

    device: str = "cpu"
    bf16: bool = False
    compiled: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of matrix products."""
        import torch

        return torch.bfloat16 if self.bf16 else torch.float32

    def autocast(self) -> torch.autocast:
        """The context of a forward."""
        import torch

        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 autocast where the machine multiplies it fast."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=_fast_bf16(device.type))


@functools.cache
def _fast_bf16(device: str) -> bool:
    import torch

    return multiplies_bf16(torch.device(device))


def eager_or_compiled(function: Callable, compile_model: bool) -> Callable:
    """The function itself, or compiled: minutes once, then twice as fast on a CPU."""
    import torch

    return torch.compile(function) if compile_model else function


#: glibc gives freed memory back and faults it in again at every step, when graphs of two sizes take turns.
MALLOC = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184:"
    "glibc.malloc.top_pad=268435456"
)


def keep_memory(arguments: Sequence[str]) -> None:
    """Starts this command anew, once, with an allocator that keeps its memory: settings are read at a process's start.

    A step of 128 samples took 1.20 s instead of 1.45 alone, 1.92 instead of 2.4 to 4.2 s with a second stream.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ or "RANK" in os.environ:
        return
    os.execve(sys.executable, [sys.executable, "-m", "mogle", *arguments], {**os.environ, "GLIBC_TUNABLES": MALLOC})


class Progress:
    """Prints running means twenty-five times a run, of a long one each hundred steps; reads the losses only then."""

    def __init__(self, name: str, steps: int) -> None:
        self.name, self.steps, self.every = name, steps, max(1, min(steps // 25, 100))
        self.start = time.monotonic()
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}
        self.last: dict[str, Any] = {}

    def __call__(self, step: int, **values: torch.Tensor) -> None:
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0) + value.detach()
            self.counts[key] = self.counts.get(key, 0) + 1
        if main_process() and ((step + 1) % self.every == 0 or step + 1 == self.steps):
            self.last = {key: round(float(value) / self.counts[key], 5) for key, value in self.sums.items()}
            seconds = time.monotonic() - self.start
            said = " ".join(f"{key} {value:.4f}" for key, value in self.last.items())
            print(f"{self.name} {step + 1}/{self.steps} {said} [{seconds:.0f} s]", flush=True)
            self.sums, self.counts = {}, {}
