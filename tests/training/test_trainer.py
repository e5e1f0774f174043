"""The trainer on the golden tiny FLUX: the reference's step, and that division and interruption change nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import default_collate

from mogle.errors import MogleError
from mogle.training.dataset import TrainingSet, sample_of
from mogle.training.encode import Common, Encoded
from mogle.training.flow import Example, VelocityLoss
from mogle.training.settings import TrainSettings, load_train_settings
from mogle.training.trainer import Trainer, checkpoints_in, prepare_adapter, warm_start

GOLDEN = Path(__file__).parents[1] / "golden"
SETTINGS = TrainSettings(
    steps=20,
    save_every=2,
    batch=4,
    optimizer="adamw",
    learning_rate=1e-3,
    precision="fp32",
    gradient_checkpointing=False,
)


def but(**changes) -> TrainSettings:
    return SETTINGS.model_copy(update=changes)


class RandomSet:
    """Twelve samples of random numbers, two captions each."""

    captions = (2,) * 12

    def __init__(self) -> None:
        chance = torch.Generator().manual_seed(0)

        def numbers(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=chance)

        self.ids = [f"{i}" for i in range(12)]
        self.common = Common(numbers(64, 64), numbers(12, 48), numbers(24))
        shapes = ((64, 64), (20, 64, 64), (12, 48), (24,))
        outline = torch.ones(64, 64)
        self.samples = [[Encoded(*(numbers(*shape) for shape in shapes), outline) for _ in range(2)] for _ in self.ids]

    def read(self, wanted) -> list[Encoded]:
        return [self.samples[index][caption] for index, caption in wanted]


def make_pipe():
    from mogle.pipeline import FaceMoGLEPipeline

    parts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    return FaceMoGLEPipeline.from_pretrained(GOLDEN / "flux", **parts)


def make_trainer(out: Path, settings: TrainSettings = SETTINGS, **others) -> Trainer:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=settings.accumulation)
    return Trainer(make_pipe(), RandomSet(), settings, out, accelerator, **others)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def adapter(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "mogle.safetensors") | load_file(out / "pytorch_lora_weights.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    make_trainer(out).fit()
    return out


def test_the_references_training_step() -> None:
    golden = load_file(GOLDEN / "expected.safetensors")
    pipe = make_pipe()
    pipe.load_mogle(GOLDEN)
    pipe.mogle.requires_grad_(True)
    for name, parameter in pipe.transformer.named_parameters():
        parameter.requires_grad_("lora_" in name)
    loss = VelocityLoss(pipe.transformer, pipe.mogle, SETTINGS)
    names = ("x0", "x1", "t", "condition_tokens", "prompt_embeds", "pooled_prompt_embeds")
    value = loss(Example("", *(golden[f"train.{name}"] for name in names))).mean()
    value.backward()
    assert value.item() == pytest.approx(golden["train.loss"].item(), rel=1e-5)
    found = {f"mogle.{name}": p.grad for name, p in pipe.mogle.named_parameters()}
    for name, parameter in pipe.transformer.named_parameters():
        found[f"transformer.{name.replace('.mogle.', '.default.')}"] = parameter.grad
    for name, expected in golden.items():
        if name.startswith("train.grad."):
            gradient = found[name.removeprefix("train.grad.")]
            difference = expected if gradient is None else gradient - expected
            assert difference.norm() <= 1e-3 * expected.norm(), name


def test_every_epoch_shows_every_sample_once() -> None:
    for epoch in range(3):
        assert sorted(sample_of(epoch * 12 + i, 12, seed=3) for i in range(12)) == list(range(12))
    assert [sample_of(i, 12, 3) for i in range(12)] != [sample_of(12 + i, 12, 3) for i in range(12)]


def test_drops_are_as_frequent_as_asked_and_the_global_mask_is_never_dropped() -> None:
    samples = RandomSet()
    batch = default_collate(TrainingSet(samples, but(drop_local=0.3, drop_text=0.2)).__getitems__(range(400)))
    dropped = (batch.conditions == samples.common.empty).flatten(2).all(-1)
    assert not dropped[:, 0].any() and abs(dropped[:, 1:].float().mean() - 0.3) < 0.02
    silent = (batch.states == samples.common.states).flatten(1).all(-1)
    assert abs(silent.float().mean() - 0.2) < 0.06 and torch.equal(
        silent, (batch.pooled == samples.common.pooled).all(-1)
    )
    assert batch.t.min() > 0 and batch.t.max() < 1 and abs(batch.t.mean() - 0.5) < 0.03


def test_training_changes_the_adapter_alone_and_lowers_the_loss(tmp_path) -> None:
    settings = but(steps=60, learning_rate=1e-2, drop_local=0.0, drop_text=0.0)
    trainer = make_trainer(tmp_path, settings)
    network = trainer.pipe.transformer
    before = {name: p.clone() for name, p in network.state_dict().items() if "lora_" not in name}
    trainer.fit()
    assert sum(losses(tmp_path)[-10:]) < 0.9 * sum(losses(tmp_path)[:10])
    after = network.state_dict()
    assert all(torch.equal(after[name], p) for name, p in before.items())


def test_a_warm_start_draws_outlines_and_is_reproducible() -> None:
    samples, drawn = RandomSet(), []
    for steps in (1, 40, 40):
        pipe, settings = make_pipe(), but(warm_start=steps)
        drawn.append((warm_start(pipe, samples, settings), pipe.mogle.state_dict()))
    assert drawn[1][0] < 0.8 * drawn[0][0]
    assert all(torch.equal(drawn[1][1][name], drawn[2][1][name]) for name in drawn[1][1])


def test_without_experts_and_gate_there_is_nothing_to_warm() -> None:
    assert warm_start(make_pipe(), RandomSet(), but(warm_start=2, variant="neither")) == 0


def test_a_student_of_mask_guidance_starts_as_its_teacher_and_learns_what_two_forwards_give() -> None:
    """w = 1 asks for nothing new; w = 3 for twice the difference that the mask makes."""
    from mogle.transformer import Condition, forward_streams

    pipe = make_pipe()
    pipe.load_mogle(GOLDEN)
    batch: Example = default_collate(TrainingSet(RandomSet(), SETTINGS).__getitems__([0, 1]))
    ids = pipe._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32)
    loss = VelocityLoss(pipe.transformer, pipe.mogle, but(distil_mask_guidance=1.0))
    assert loss(batch).max() < 1e-12
    loss = VelocityLoss(pipe.transformer, pipe.mogle, but(distil_mask_guidance=3.0))
    t = batch.t[:, None, None]
    noisy = (1 - t) * batch.image + t * batch.noise
    inputs = (batch.states, batch.pooled, batch.t, torch.ones(2), ids, torch.zeros(12, 3))
    fused = pipe.mogle(batch.conditions, noisy, batch.t)
    text, masked = (forward_streams(pipe.transformer, noisy, Condition(c), *inputs) for c in (None, fused))
    wanted = (2 * (masked - text)).square().mean(dim=(1, 2))
    torch.testing.assert_close(loss(batch), wanted)
    before = {name: p.detach().clone() for name, p in pipe.transformer.named_parameters() if "lora_" in name}
    pipe.mogle.requires_grad_(True)
    prepare_adapter(pipe, SETTINGS)
    loss(batch).mean().backward()
    assert all(torch.equal(p, before[name]) for name, p in pipe.transformer.named_parameters() if name in before)
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in pipe.mogle.parameters())


def test_accumulation_gives_the_same_run(whole, tmp_path) -> None:
    settings = but(accumulation=2)
    make_trainer(tmp_path, settings).fit()
    assert losses(tmp_path) == pytest.approx(losses(whole), abs=1e-4)
    other = adapter(tmp_path)
    assert all((other[name] - tensor).abs().max() < 1e-3 for name, tensor in adapter(whole).items())


def test_two_processes_give_the_same_run(whole, tmp_path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom test_trainer import make_trainer\n"
        f"make_trainer(Path({str(tmp_path)!r})).fit()\n"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 0, done.stderr[-2000:]
    assert losses(tmp_path) == pytest.approx(losses(whole), abs=1e-4)
    other = adapter(tmp_path)
    assert all((other[name] - tensor).abs().max() < 1e-3 for name, tensor in adapter(whole).items())


def test_an_interrupted_run_goes_on_to_the_same_end(whole, tmp_path) -> None:
    def stop_at(step):
        def call(trainer, facts):
            if trainer.step == step:
                os.kill(os.getpid(), signal.SIGTERM)

        return call

    for step in (1, 3):
        trainer = make_trainer(tmp_path, after_step=stop_at(step))
        trainer.resume()
        assert trainer.fit()["stopped"] == "signal"
    assert not (tmp_path / "mogle.safetensors").exists()
    trainer = make_trainer(tmp_path)
    assert trainer.resume() and trainer.step == 3
    trainer.fit()
    assert losses(tmp_path) == losses(whole)
    other = adapter(tmp_path)
    assert all(torch.equal(other[name], tensor) for name, tensor in adapter(whole).items())
    assert len(checkpoints_in(tmp_path)) == 3


def test_a_checkpoint_of_another_configuration_is_named(whole) -> None:
    with pytest.raises(MogleError, match="rank=4, this run has rank=8"):
        make_trainer(whole, but(rank=8)).resume()


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_samples(tmp_path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.samples.samples[sample_of(4, 12, 0)][:] = [
        Encoded(*(torch.full_like(x, torch.nan) for x in e)) for e in trainer.samples.samples[sample_of(4, 12, 0)]
    ]
    with pytest.raises(MogleError, match=rf"step 2: the loss is nan.*\b{sample_of(4, 12, 0)}\b"):
        trainer.fit()


def test_from_settings_to_an_adapter_that_draws(tmp_path) -> None:
    """The whole way on the tiny base: encode, train, look at pictures, save, go on."""
    from mogle.checkpoints import load_pipeline, shipped
    from mogle.training.finetune import fine_tune

    pairs = ["count=2", "size=64", "batch=2", "warm_start=1", "sample_every=1", "save_every=1", "ema=0.5"]
    out, cache = tmp_path / "out", tmp_path / "cache"
    first = fine_tune(out, load_train_settings("tiny", [*pairs, "steps=2"]), cache=cache, device="cpu")
    assert (first["steps"], first["samples"], first["skipped"], first["stopped"]) == (2, 2, 0, "")
    assert sorted(path.name for path in (out / "samples").iterdir()) == ["step-000001.png", "step-000002.png"]
    assert list(out.glob("**/events.out.tfevents*"))
    again = fine_tune(out, load_train_settings("tiny", [*pairs, "steps=3"]), cache=cache, device="cpu")
    assert again["steps"] == 3 and len(losses(out)) == 3
    pipe = load_pipeline(shipped("tiny-flux"), out, "cpu")
    mask = torch.zeros(64, 64, dtype=torch.uint8).numpy() + 1
    assert pipe("A man.", mask, height=64, width=64, num_inference_steps=1).images[0].size == (64, 64)


def test_a_notebooks_plot_is_drawn_in_one_place(monkeypatch) -> None:
    from IPython import display

    from mogle.training.watch import LivePlot

    drawn: list = []
    monkeypatch.setattr(display, "display", lambda shown, **place: drawn.append((shown, place)))
    plot = LivePlot()
    plot.pause = 0.0
    for step in (1, 2, 3):
        plot.add(step, 1 / step, 0.5 if step == 2 else None)
    assert [shown.data[:4] for shown, _ in drawn] == [b"\x89PNG"] * 3 and "3 steps" in drawn[-1][0].alt
    assert [place["update"] for _, place in drawn] == [False, True, True]
    assert len({place["display_id"] for _, place in drawn}) == 1
    loss, accuracy = (axis.lines[0].get_xydata().tolist() for axis in plot.figure().axes)
    assert loss == [[1, 1], [2, 1 / 2], [3, 1 / 3]] and accuracy == [[2, 0.5]]


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch) -> None:
    from mogle.training import finetune

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MogleError, match="report_to=wandb: wandb is not installed; expected pip install wandb"):
        finetune.fine_tune(tmp_path, load_train_settings("tiny", ["count=1", "report_to=wandb"]), device="cpu")


def test_a_quantised_base_needs_a_gpu(tmp_path) -> None:
    from mogle.training.finetune import fine_tune

    with pytest.raises(MogleError, match="quantise=nf4: a base is quantised on a GPU alone, and this is cpu"):
        fine_tune(tmp_path, load_train_settings("tiny", ["count=1", "quantise=nf4"]), device="cpu")


@pytest.mark.slow
def test_two_processes_train_one_ablation_after_the_other(tmp_path) -> None:
    """Each by configuration alone, from the same portraits; what is there is not trained again."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "mogle.tiny.ablations", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    command += ["--steps", "1", "--count", "16", "--names", "scalar-gate,fast"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.split(",")[0] for line in done.stdout.splitlines()] == ["scalar-gate: 1 steps", "fast: 1 steps"]
    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr[-2000:]


def test_what_a_dry_run_counts_for_the_published_flux() -> None:
    from mogle.training.plan import count_parameters, transformer_config

    counts = count_parameters(transformer_config("black-forest-labs/FLUX.1-dev"), TrainSettings())
    assert (counts["lora"], counts["lora_modules"], counts["mogle"]) == (14_487_808, 343, 101_780)
    assert counts["frozen"] == 11_901_408_320
    alone = count_parameters(transformer_config("black-forest-labs/FLUX.1-dev"), TrainSettings(variant="only-global"))
    assert counts["trained"] - alone["trained"] == 101_780 - 64 * 32 - 32 - 32 * 64 - 64


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path) -> None:
    """kill -9, ten times, each at another moment; every checkpoint that is there can be read."""
    import random

    script = tmp_path / "run.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom pathlib import Path\n"
        "from test_trainer import but, make_trainer\n"
        "trainer = make_trainer(Path(sys.argv[1]), but(steps=300))\ntrainer.resume()\n"
        "print('ready', flush=True)\ntrainer.fit()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}

    def start(out: Path) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, str(script), str(out)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    assert start(tmp_path / "whole").wait() == 0
    chance, out = random.Random(0), tmp_path / "killed"
    for _ in range(10):
        process = start(out)
        time.sleep(chance.uniform(0.1, 1.5))
        process.kill()
        process.wait()
        for file in checkpoints_in(out):
            torch.load(file, weights_only=True)
    assert start(out).wait() == 0
    assert losses(out) == losses(tmp_path / "whole")
    other = adapter(tmp_path / "whole")
    assert all(torch.equal(other[name], tensor) for name, tensor in adapter(out).items())


def test_training_on_a_data_set_needs_nothing_that_makes_the_tiny_base(tmp_path) -> None:
    """As if `mogle/tiny/` were deleted."""
    root = Path(__file__).resolve().parents[2]
    code = "import sys; sys.modules['mogle.tiny'] = None; from mogle.cli import main; main()"
    options = ["--data", root / "data" / "portraits", "--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    pairs = ["count=2", "size=64", "batch=2", "steps=1", "warm_start=1", "sample_every=1"]
    command = [sys.executable, "-c", code, "train", *map(str, options), *pairs]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert done.returncode == 0 and done.stdout.startswith("1 steps in"), done.stdout + done.stderr[-2000:]
    assert (tmp_path / "out" / "mogle.safetensors").exists()
