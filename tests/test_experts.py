"""Experts, gate, and the sizes of everything that is trained."""

import pytest
import torch
from diffusers import FluxTransformer2DModel

from mogle.ablations import VARIANTS, build_mogle, variant_in, variant_of
from mogle.errors import MogleError
from mogle.experts import MoGLE
from mogle.lora import add_lora


def inputs(batch=2, tokens=6):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, 20, tokens, 64, generator=generator),
        torch.randn(batch, tokens, 64, generator=generator),
        torch.tensor([0.2, 0.9])[:batch],
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("time", [1, 1000])
def test_gate_is_right_in_half_precision(dtype, time):
    torch.manual_seed(0)
    mogle = MoGLE().requires_grad_(False)
    tokens, latents, t = inputs()
    exact, weights = mogle(tokens, latents, t * time), mogle.gate_weights(tokens, latents, t * time)
    mogle.to(dtype)
    half = mogle.gate_weights(tokens.to(dtype), latents.to(dtype), t * time)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.sum(-1), torch.ones(2, 6))
    torch.testing.assert_close(half, weights, atol=2e-3, rtol=0)
    out = mogle(tokens.to(dtype), latents.to(dtype), t * time)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), exact, atol=1e-2, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants(variant):
    """Same parameter names; every unfrozen parameter gets a gradient; `static` says what it means."""
    torch.manual_seed(0)
    mogle = build_mogle(variant)
    assert variant_of(mogle) == variant
    tokens, latents, t = inputs()
    out = mogle(tokens, latents, t)
    assert out.shape == (2, 6, 64)
    assert list(mogle.state_dict()) == list(MoGLE().state_dict())
    trained = [p for p in mogle.parameters() if p.requires_grad]
    if trained:
        gradients = torch.autograd.grad(out.square().sum(), trained, allow_unused=True)
        assert all(g is not None for g in gradients)
    assert torch.equal(mogle(tokens, latents + 1, t / 2), out) == mogle.static
    kept = mogle(tokens, latents, t, mogle.expert_outputs(tokens))
    assert torch.equal(kept, out)


def test_scalar_gate_is_the_mean_and_local_leaves_the_global_expert_out():
    torch.manual_seed(0)
    tokens, latents, t = inputs()
    mogle = MoGLE()
    scalar, local = build_mogle("scalar-gate"), build_mogle("only-local")
    scalar.load_state_dict(mogle.state_dict())
    local.load_state_dict(mogle.state_dict())
    mean = mogle.gate_weights(tokens, latents, t).mean(1, keepdim=True)
    torch.testing.assert_close(scalar.gate_weights(tokens, latents, t), mean)
    weights = mogle.gate_weights(tokens, latents, t)[..., 1:]
    torch.testing.assert_close(local.gate_weights(tokens, latents, t), weights / weights.sum(-1, keepdim=True))


def test_names_of_variants():
    with pytest.raises(MogleError, match="variant='dinamic': expected one of 'full', 'only-global'"):
        build_mogle("dinamic")
    assert variant_in({}) == "full" and variant_in({"variant": "no-gate"}) == "no-gate"
    assert variant_in({"experts": "local", "gate": "dynamic"}) == "only-local"  # files of version 0.1
    with pytest.raises(MogleError, match="variant='local experts, none gate'"):
        build_mogle(variant_in({"experts": "local", "gate": "none"}))


def test_sizes_on_flux_dev():
    """FLUX.1-dev's published configuration, without its weights."""
    mogle = MoGLE()
    assert sum(p.numel() for p in mogle.parameters()) == 101_780
    assert sum(p.numel() for p in mogle.gating.parameters()) == 17_940
    with torch.device("meta"):
        transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=19,
            num_single_layers=38,
            attention_head_dim=128,
            num_attention_heads=24,
            joint_attention_dim=4096,
            pooled_projection_dim=768,
            guidance_embeds=True,
        )
        add_lora(transformer, rank=4)
    lora = {name: p for name, p in transformer.named_parameters() if ".lora_" in name}
    assert sum(p.numel() for p in lora.values()) == 14_487_808
    assert len({name.split(".lora_")[0] for name in lora}) == 343
    assert all(not p.requires_grad for name, p in transformer.named_parameters() if name not in lora)
