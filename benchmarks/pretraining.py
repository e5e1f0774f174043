"""Samples a second of the base's pretraining, against an earlier commit's, in one run.

    python benchmarks/pretraining.py [--before 5452abb] [--rounds 2] [--steps 12]

Both train a base of the same size on random tokens, batch 64, compiled, each in processes of its own that take turns;
medians of the steps after the first ones (which compile), alone and with a second stream. Needs git and a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What both commits' processes do: the same model and data; times of steps by kind on stdout.
COMMON = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import torch
from diffusers import FluxTransformer2DModel
from transformers import CLIPTextModel, T5EncoderModel
steps, heads, base = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.manual_seed(0)
model = FluxTransformer2DModel(num_layers=2, num_single_layers=5, attention_head_dim=32, num_attention_heads=heads,
    axes_dims_rope=[8, 12, 12], joint_attention_dim=128, pooled_projection_dim=128, guidance_embeds=True)
clip = CLIPTextModel.from_pretrained(base + "/text_encoder").float()
t5 = T5EncoderModel.from_pretrained(base + "/text_encoder_2").float()
n = 512
ids = torch.zeros(64, 3)
ids[:, 1:] = torch.cartesian_prod(torch.arange(8), torch.arange(8))
random = lambda: torch.randn(n, 64, 64).bfloat16()
words = lambda length: torch.randint(500, (n, 2, length)).to(torch.int16)
texts = dict(clip_ids=words(52), t5_ids=words(48),
    empty_clip=torch.zeros(52, dtype=torch.long), empty_t5=torch.zeros(48, dtype=torch.long), image_ids=ids)
last, times = [time.perf_counter()], {"alone": [], "stream": []}
def note(self, step, **values):
    now = time.perf_counter()
    times["stream" if "stream" in values else "alone"].append(now - last[0])
    last[0], self.last = now, {}
"""
BEFORE = """
from mogle.training import base, loop
loop.Progress.__call__ = note
corpus = base.Corpus(tokens=random(), views=[random()], **texts)
base.pretrain_base(model, clip, t5, corpus, steps=steps, batch=64, learning_rate=2e-3, stream_from=0.0, easy_stream=0.0,
    drop_text=0.1, high_noise=0.4, seed=0, compile_model=True)
"""
NOW = """
from mogle.tiny import base, corpus, loop
loop.Progress.__call__ = note
data = corpus.Corpus(tokens=random(), views={"one": random()}, weight=torch.ones(n, 64), **texts)
speed = loop.Speed("cpu", loop.multiplies_bf16(torch.device("cpu")), True)
base.pretrain_base(model, clip, t5, data, steps=steps, batch=64, learning_rate=2e-3, stream=0.5, easy_until=0.0,
    drop_text=0.1, high_noise=0.4, drawings=0.0, train_text=True, ema=0.999, seed=0, speed=speed)
"""


def run(tree: Path, code: str, steps: int, heads: int, keep_memory: bool) -> dict[str, list[float]]:
    """The times of one process's steps, by kind, without the first two of each."""
    from mogle.tiny.loop import MALLOC

    environment = {**os.environ, "PYTHONPATH": str(tree), **({"GLIBC_TUNABLES": MALLOC} if keep_memory else {})}
    code = COMMON + code + "\nprint(json.dumps(times))"
    arguments = [sys.executable, "-c", code, str(steps), str(heads), str(ROOT / "checkpoints" / "tiny-flux")]
    done = subprocess.run(arguments, cwd=tree, env=environment, capture_output=True, text=True, check=True)
    return {kind: found[2:] for kind, found in json.loads(done.stdout.splitlines()[-1]).items()}


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="5452abb", help="a commit whose recipe is the one of version 0.1")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--heads", type=int, default=6, help="of 32 channels; 6 is the base of version 0.1")
    options = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "before")
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--detach", "-q", tree, options.before], check=True)
        try:
            for _ in range(options.rounds):
                for name, place, code in (("before", tree, BEFORE), ("now", ROOT, NOW)):
                    for kind, times in run(place, code, options.steps, options.heads, name == "now").items():
                        found.setdefault(name, {}).setdefault(kind, []).extend(times)
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)
    print("| recipe | step alone, s | with a stream, s | samples/s on half of each |\n| --- | ---: | ---: | ---: |")
    rates = []
    for name, kinds in found.items():
        alone, stream = (statistics.median(kinds[kind]) for kind in ("alone", "stream"))
        rates.append(128 / (alone + stream))
        print(f"| {name} | {alone:.2f} | {stream:.2f} | {rates[-1]:.1f} |")
    print(f"now {rates[1] / rates[0]:.2f} times as many samples a second")


if __name__ == "__main__":
    main()
