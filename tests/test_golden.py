"""The reference implementation's own numbers (tests/golden, made by it on a tiny random FLUX) hold for ours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from safetensors.torch import load_file

from mogle.ablations import build_mogle
from mogle.experts import MoGLE
from mogle.lora import NAME
from mogle.transformer import Condition, ConditionCache, forward_streams

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = {
    "default": {},
    "scale0.6": {"scale": 0.6},
    "separate": {"attention": "separate"},
    "independent": {"attention": "independent"},
    "latent_lora": {"lora_on": "all"},
}


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def mogle():
    model = MoGLE()
    model.load_state_dict(torch.load(GOLDEN / "mogle.pt", weights_only=True))
    return model


@pytest.fixture(scope="module")
def transformer():
    model = FluxTransformer2DModel.from_pretrained(GOLDEN / "flux", subfolder="transformer")
    model.load_lora_adapter(GOLDEN, weight_name="pytorch_lora_weights.safetensors", adapter_name=NAME)
    return model.requires_grad_(False)


def worst(found, expected):
    return (found - expected).abs().max().item()


@pytest.mark.parametrize("k", "01")
def test_gate_and_fusion(golden, mogle, k):
    tokens, latents, t = golden[f"condition_tokens{k}"][None], golden[f"latents{k}"], torch.tensor([0.37])
    with torch.no_grad():
        assert worst(mogle.gate_weights(tokens, latents, t), golden[f"gate{k}"]) < 1e-5
        assert worst(mogle(tokens, latents, t), golden[f"mogle_out{k}"]) < 1e-5
        assert worst(mogle(tokens, latents, t * 1000), golden[f"mogle_out_t370_{k}"]) < 1e-5


@pytest.mark.parametrize(
    ("name", "variant"),
    [("no_gating", "no-gate"), ("scalar_gating", "scalar-gate"), ("no_expert", "no-experts")],
)
def test_ablations(golden, mogle, name, variant):
    ablation = build_mogle(variant)
    ablation.load_state_dict(mogle.state_dict())
    with torch.no_grad():
        found = ablation(golden["condition_tokens0"][None], golden["latents0"], torch.tensor([0.37]))
    assert worst(found, golden[f"ablation.{name}"]) < 1e-5


@pytest.mark.parametrize("k", "01")
@pytest.mark.parametrize("variant", VARIANTS)
def test_velocities_and_latents(golden, mogle, transformer, variant, k):
    """Four Euler steps by hand, with the reference's gate time (x 1000)."""
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(GOLDEN / "flux", subfolder="scheduler")
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 4, 4), mu=calculate_shift(64))
    x, cache = golden[f"latents{k}"], ConditionCache()
    text, pooled, image_ids = golden["prompt_embeds"], golden["pooled_prompt_embeds"], golden[f"condition_ids{k}"]
    ids, guidance, options = (image_ids, torch.zeros(12, 3)), torch.tensor([3.5]), VARIANTS[variant]
    with torch.no_grad():
        for i, t in enumerate(scheduler.timesteps):
            t01 = t[None] / 1000
            fused = mogle(golden[f"condition_tokens{k}"][None], x, t01 * 1000)
            condition = Condition(fused, cache=cache, **options)
            velocity = forward_streams(transformer, x, condition, text, pooled, t01, guidance, *ids)
            assert worst(velocity[0], golden[f"{variant}{k}.velocity"][i]) < 1e-4
            x = scheduler.step(velocity, t, x, return_dict=False)[0]
    assert worst(x, golden[f"{variant}{k}.latents"]) < 1e-4


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_a_training_step(golden, mogle, transformer, checkpointing):
    parameters = {f"mogle.{name}": p for name, p in mogle.named_parameters()}
    for name, p in transformer.named_parameters():
        if ".lora_" in name:
            parameters[f"transformer.{name.replace(f'.{NAME}.', '.default.')}"] = p.requires_grad_(True)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    x0, noise, t = golden["train.x0"], golden["train.x1"], golden["train.t"]
    x = (1 - t[:, None, None]) * x0 + t[:, None, None] * noise
    text, pooled = golden["train.prompt_embeds"], golden["train.pooled_prompt_embeds"]
    fused = mogle(golden["train.condition_tokens"], x, t)
    ids = golden["condition_ids0"], torch.zeros(12, 3)
    velocity = forward_streams(transformer, x, Condition(fused), text, pooled, t, torch.ones(2), *ids)
    loss = torch.nn.functional.mse_loss(velocity, noise - x0)
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    transformer.disable_gradient_checkpointing()

    assert worst(velocity, golden["train.velocity"]) < 1e-4
    assert loss.item() == pytest.approx(golden["train.loss"].item(), rel=1e-5)
    expected = {name.removeprefix("train.grad."): g for name, g in golden.items() if name.startswith("train.grad.")}
    assert set(expected) == set(parameters)
    for name, gradient in zip(parameters, gradients, strict=True):
        difference = -expected[name] if gradient is None else gradient - expected[name]
        assert difference.norm() <= 1e-3 * expected[name].norm(), name
