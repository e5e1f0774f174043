"""Bases of other shapes: FLUX.1-schnell's, which has no guidance embedding and takes four steps."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

from mogle.checkpoints import load_pipeline, shipped
from mogle.cli import app
from mogle.training.finetune import fine_tune
from mogle.training.settings import load_train_settings

MASK = Path(__file__).resolve().parents[1] / "data" / "portraits" / "mask" / "22.png"


@pytest.fixture(scope="module")
def schnell(tmp_path_factory) -> Path:
    """The tiny FLUX with a random transformer of schnell's form, and schnell's scheduler: no shift by resolution."""
    folder = tmp_path_factory.mktemp("bases") / "schnell"
    shutil.copytree(shipped("tiny-flux"), folder, ignore=shutil.ignore_patterns("transformer", "scheduler"))
    config = FluxTransformer2DModel.load_config(shipped("tiny-flux"), subfolder="transformer")
    torch.manual_seed(0)
    network = FluxTransformer2DModel.from_config({**config, "guidance_embeds": False})
    network.save_pretrained(folder / "transformer")
    FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False).save_pretrained(folder / "scheduler")
    return folder


def test_an_adapter_is_trained_on_it_and_draws_in_four_steps(schnell, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pairs = [f"base={schnell}", "count=4", "batch=2", "steps=2", "warm_start=1", "size=64", "rank=2"]
    facts = fine_tune("adapter", load_train_settings("tiny", pairs), cache="cache", device="cpu")
    assert facts["steps"] == 2 and facts["loss"] == facts["loss"]
    pipe = load_pipeline(schnell, Path("adapter"), "cpu")
    assert not pipe.transformer.config.guidance_embeds
    assert not any("guidance" in name for name, _ in pipe.transformer.named_parameters())

    common = ["generate", "--mask", MASK, "--prompt", "She has black hair.", "--base", schnell, "--adapter", "adapter"]
    for guidance in (3.5, 0):
        options = ["--steps", 4, "--size", 64, "--guidance", guidance, "--output-dir", f"made-{guidance}"]
        with pytest.raises(SystemExit) as ended:
            app([str(word) for word in [*common, *options]], prog_name="mogle")
        assert not ended.value.code, capsys.readouterr().err
    from mogle.provenance import read_picture

    pictures = [read_picture(f"made-{guidance}/0000.png") for guidance in (3.5, 0)]
    assert pictures[0][0].tobytes() == pictures[1][0].tobytes(), "guidance changes nothing"
    assert pictures[0][1].steps == 4 and json.loads((schnell / "model_index.json").read_text())
    pipe.scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    assert pipe.scheduler.sigmas.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
