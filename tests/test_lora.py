"""A mask adapter is there as a whole or refused: half of one still gives plausible pictures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from mogle.ablations import build_mogle
from mogle.errors import MogleError
from mogle.lora import NAME, lora_layers
from mogle.lora.keys import plain_lora
from mogle.pipeline import FaceMoGLEPipeline

GOLDEN = Path(__file__).parent / "golden"
MASK = GOLDEN / "mask0.png"
LORA = "pytorch_lora_weights.safetensors"
NO_TEXT = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))


def load_pipe(adapter: bool = True) -> FaceMoGLEPipeline:
    pipe = FaceMoGLEPipeline.from_pretrained(GOLDEN / "flux", **NO_TEXT)
    pipe.set_progress_bar_config(disable=True)
    if adapter:
        pipe.load_mogle(GOLDEN)
    return pipe


@pytest.fixture(scope="module")
def text():
    golden = load_file(GOLDEN / "expected.safetensors")
    return {name: golden[name] for name in ("prompt_embeds", "pooled_prompt_embeds")}


def draw(pipe, text, mask=MASK, **options):
    options = {"num_inference_steps": 2, "output_type": "latent", **options}
    return pipe(mask=mask, generator=torch.Generator().manual_seed(0), **text, **options).images


@pytest.fixture(scope="module")
def expected(text):
    return draw(load_pipe(), text)


@pytest.fixture(scope="module")
def style(tmp_path_factory):
    """A LoRA on attention of all tokens, as people train styles."""
    folder, pipe = tmp_path_factory.mktemp("style"), load_pipe(adapter=False)
    torch.manual_seed(1)
    config = LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"])
    pipe.transformer.add_adapter(config, adapter_name="style")
    from peft.utils import get_peft_model_state_dict

    lora = get_peft_model_state_dict(pipe.transformer, adapter_name="style")
    FluxPipeline.save_lora_weights(folder, transformer_lora_layers=lora)
    return folder


# --- names of the same LoRA -----------------------------------------------------------------------------------------

RENAMED = {
    "no prefix": lambda name: name.removeprefix("transformer."),
    "peft": lambda name: f"base_model.model.{name.removeprefix('transformer.')}",
    "adapter name": lambda name: name.replace(".weight", ".default.weight"),
    "compiled": lambda name: name.replace("transformer.", "_orig_mod.", 1),
    "diffusers' old names": lambda name: name.replace("lora_A", "lora.down").replace("lora_B", "lora.up"),
}


@pytest.fixture()
def copy(tmp_path):
    """A copy of the adapter with other LoRA tensors."""

    def made(lora, metadata=None):
        (tmp_path / "mogle.pt").write_bytes((GOLDEN / "mogle.pt").read_bytes())
        save_file(lora, tmp_path / LORA, metadata=metadata)
        return tmp_path

    return made


@pytest.mark.parametrize("kind", RENAMED)
def test_other_names_of_the_same_lora(copy, text, expected, kind):
    pipe = load_pipe(adapter=False)
    pipe.load_mogle(copy({RENAMED[kind](name): t for name, t in load_file(GOLDEN / LORA).items()}))
    assert torch.equal(draw(pipe, text), expected)


def test_an_alpha_counts(copy, text, expected):
    lora = load_file(GOLDEN / LORA)
    with_alpha = {name: t / 2 if "lora_B" in name else t for name, t in lora.items()}
    with_alpha |= {name.replace("lora_A.weight", "alpha"): torch.tensor(8.0) for name in lora if "lora_A" in name}
    pipe = load_pipe(adapter=False)
    pipe.load_mogle(copy(with_alpha))
    torch.testing.assert_close(draw(pipe, text), expected)


def test_kohya_names(copy):
    """sd-scripts fuse queries, keys and values: diffusers' converter takes them apart."""
    down, up = torch.randn(4, 64), torch.randn(192, 4)
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    kohya = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(4.0)}
    modules = [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]
    found = plain_lora(kohya, modules, "file")
    assert set(found) == {f"transformer.{m}.lora_{half}.weight" for m in modules for half in "AB"}


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_names_of_black_forest_labs(prefix, with_alpha):
    """As ComfyUI and ai-toolkit write them; queries, keys and values are one layer there."""
    stem = f"{prefix}double_blocks.0.img_attn.qkv"
    down, up = torch.randn(4, 64), torch.randn(192, 4)
    written = {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    written |= {f"{stem}.alpha": torch.tensor(8.0)} if with_alpha else {}
    found = plain_lora(written, [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"], "file")
    scale = 2 if with_alpha else 1
    for part, rows in zip("qkv", up.split(64), strict=True):
        a, b = (found[f"transformer.transformer_blocks.0.attn.to_{part}.lora_{half}.weight"] for half in "AB")
        torch.testing.assert_close(b @ a, scale * rows @ down)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lora, a: lora.pop(a), "expected lora_A and lora_B of each layer"),
        (lambda lora, a: lora[a].fill_(torch.nan), "lora_A.weight: found NaN or infinity, expected weights"),
        (lambda lora, a: lora.update({a.replace("lora_A.weight", "lokr_w1"): torch.ones(2)}), "found LoKr weights"),
        (lambda lora, a: lora.update({a.replace("lora_A.weight", "hada_w1_a"): torch.ones(2)}), "found LoHa weights"),
        (lambda lora, a: lora.update({a.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(2)}), "DoRA"),
        (lambda lora, a: lora.update({"something.else": torch.ones(2)}), "something.else"),
        (lambda lora, a: lora.update({a: torch.ones(4, 63)}), "found 4 x 63, expected 4 x 64"),
    ],
)  # fmt: skip
def test_what_is_not_this_lora_is_refused_by_name(copy, change, message):
    lora = load_file(GOLDEN / LORA)
    change(lora, "transformer.x_embedder.lora_A.weight")
    pipe = load_pipe(adapter=False)
    with pytest.raises(MogleError, match=message):
        pipe.load_mogle(copy(lora))
    assert pipe.mogle is None and not lora_layers(pipe.transformer)


# --- half an adapter --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["mask", "style"])
def test_a_style_leaves_the_mask_adapter_on(text, style, expected, first):
    pipe = load_pipe(adapter=first == "mask")
    pipe.load_lora_weights(style, adapter_name="style")
    if first == "style":
        pipe.load_mogle(GOLDEN)
    both = draw(pipe, text)
    assert not torch.equal(both, expected)
    pipe.set_adapters([NAME, "style"], [1.0, 0.0])
    torch.testing.assert_close(draw(pipe, text), expected)
    pipe.delete_adapters("style")
    torch.testing.assert_close(draw(pipe, text), expected)


HALVED = {
    "unloaded": (lambda pipe: pipe.unload_lora_weights(), "no mask LoRA in"),
    "deleted": (lambda pipe: pipe.delete_adapters(NAME), "no mask LoRA in"),
    "switched off": (lambda pipe: pipe.disable_lora(), "switched off"),
    "not chosen": (lambda pipe: pipe.set_adapters(["style"]), "switched off"),
    "past the pipeline": (lambda pipe: pipe.transformer.delete_adapters([NAME]), "no mask LoRA in"),
}


@pytest.mark.parametrize("order", ["style first", "mask first"])
@pytest.mark.parametrize("how", HALVED)
def test_half_an_adapter_is_refused(text, style, how, order):
    halve, message = HALVED[how]
    pipe = load_pipe(adapter=order == "mask first")
    pipe.load_lora_weights(style, adapter_name="style")
    pipe.load_mogle(GOLDEN)
    halve(pipe)
    with pytest.raises(MogleError, match=message):
        draw(pipe, text)
    draw(pipe, text, mask=None)  # sentences need no mask adapter


def test_half_an_adapter_is_refused_when_compiled_or_offloaded(text):
    pipe = load_pipe()
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    draw(pipe, text)
    pipe.transformer._orig_mod.disable_adapters()
    with pytest.raises(MogleError, match="switched off"):
        draw(pipe, text)
    pipe = load_pipe()
    pipe.transformer.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    draw(pipe, text)
    pipe.transformer.delete_adapters(NAME)
    with pytest.raises(MogleError, match="no mask LoRA"):
        draw(pipe, text)


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_a_static_condition_survives_offloading(text, kind):
    """Hooks hand a block copies of the containers that they know; what it keeps must not be one of them."""

    def pictures(offload):
        pipe = load_pipe()
        torch.manual_seed(0)
        pipe.mogle = build_mogle("places").requires_grad_(False)
        if offload:
            more = {"num_blocks_per_group": 1} if kind == "block_level" else {}
            pipe.transformer.enable_group_offload(torch.device("cpu"), offload_type=kind, **more)
        return draw(pipe, text, attention="independent", num_inference_steps=3)

    torch.testing.assert_close(pictures(True), pictures(False))


def test_an_adapter_is_saved_from_wherever_offloading_keeps_it(tmp_path, text, expected):
    from accelerate import cpu_offload

    pipe = load_pipe()
    cpu_offload(pipe.transformer, torch.device("cpu"))
    assert any(p.is_meta for p in pipe.transformer.parameters())
    pipe.save_mogle(tmp_path)
    again = load_pipe(adapter=False)
    again.load_mogle(tmp_path)
    assert torch.equal(draw(again, text), expected)


# --- what is saved is read back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compiled", [False, True])
def test_saved_adapters_are_read_back(tmp_path, text, expected, dtype, compiled):
    pipe = load_pipe()
    pipe.transformer.to(dtype)
    if compiled:
        pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    pipe.save_mogle(tmp_path)
    again = load_pipe(adapter=False)
    again.load_mogle(tmp_path)
    for name, layer in lora_layers(again.transformer).items():
        assert torch.equal(layer.lora_A[NAME].weight, lora_layers(pipe.transformer)[name].lora_A[NAME].weight.float())
    if dtype == torch.float32:
        assert torch.equal(draw(again, text), expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_saved_base_is_read_back_without_the_adapter(tmp_path, text, expected, compiled):
    pipe = load_pipe()
    if compiled:
        pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    pipe.save_pretrained(tmp_path)
    torch.testing.assert_close(draw(pipe, text), expected)  # it goes on working
    again = FaceMoGLEPipeline.from_pretrained(tmp_path, **NO_TEXT)
    assert not any(p.is_meta for p in again.transformer.parameters())
    plain = load_pipe(adapter=False)
    assert torch.equal(draw(again, text, mask=None), draw(plain, text, mask=None))
    code = (
        "from mogle import FaceMoGLEPipeline as P; import json, sys; "
        "p = P.from_pretrained(sys.argv[1], text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None); "
        "print(json.dumps(float(sum(q.double().sum() for q in p.transformer.parameters()))))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    total = float(sum(p.double().sum() for p in plain.transformer.parameters()))
    assert json.loads(run.stdout) == pytest.approx(total, rel=1e-9)


# --- neighbours in diffusers ------------------------------------------------------------------------------------------


def test_other_pipelines_on_the_same_network_see_no_mask_adapter(text):
    plain = FluxPipeline.from_pretrained(GOLDEN / "flux", **NO_TEXT)
    shared = FluxPipeline.from_pipe(load_pipe())
    for pipe in (plain, shared):
        pipe.set_progress_bar_config(disable=True)
    options = {**text, "num_inference_steps": 2, "output_type": "latent", "height": 64, "width": 64}
    found, wanted = (p(generator=torch.Generator().manual_seed(0), **options).images for p in (shared, plain))
    assert torch.equal(found, wanted)


def test_a_style_may_be_fused_beside_the_mask_adapter(text, style, expected):
    pipe = load_pipe()
    pipe.load_lora_weights(style, adapter_name="style")
    both = draw(pipe, text)
    pipe.fuse_lora(adapter_names=["style"])
    torch.testing.assert_close(draw(pipe, text), both, atol=1e-4, rtol=1e-4)
    with pytest.raises(MogleError, match="cannot be fused"):
        pipe.fuse_lora()


def test_one_positive_and_one_negative_embedding_serve_several_masks(text):
    negative = {f"negative_{name}": torch.zeros_like(tensor) for name, tensor in text.items()}
    pipe = load_pipe()
    both = draw(pipe, text, mask=[MASK, GOLDEN / "mask1.png"], true_cfg_scale=2.0, **negative)
    assert len(both) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps=0: expected at least 1"),
        ({"mask_guidance": -1.0}, "mask_guidance=-1.0: expected a finite number"),
        ({"mask_guidance": float("nan")}, "mask_guidance=nan"),
        ({"conditioning_scale": float("inf")}, "conditioning_scale=inf"),
        ({"attention": "joint"}, "attention='joint': expected one of 'union'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_computed(text, options, message):
    with pytest.raises(MogleError, match=message):
        draw(load_pipe(), text, **options)


def test_a_prompt_of_broken_bytes_is_refused():
    with pytest.raises(MogleError, match="prompt 0: found bytes that are no UTF-8"):
        load_pipe()(prompt=b"caf\xe9".decode("utf-8", "surrogateescape"), mask=MASK)


def test_a_cache_put_on_by_hand_is_refused_by_name(text):
    from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache

    pipe = load_pipe()
    apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(MogleError, match="found fbc_block_hook on, which knows no masks"):
        draw(pipe, text)


def test_experts_that_were_compiled_are_saved_and_read(tmp_path, text, expected):
    pipe = load_pipe()
    pipe.mogle = torch.compile(pipe.mogle, backend="eager")
    pipe.save_mogle(tmp_path)
    again = load_pipe(adapter=False)
    again.load_mogle(tmp_path)
    assert torch.equal(draw(again, text), expected)


def test_first_block_cache_is_refused_by_name(text):
    from diffusers import FirstBlockCacheConfig

    pipe = load_pipe()
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(MogleError, match="found FirstBlockCache on, which knows no masks"):
        draw(pipe, text)
    pipe.transformer.disable_cache()
    draw(pipe, text)


# --- mask guidance ----------------------------------------------------------------------------------------------------


def test_mask_guidance_extrapolates_from_the_sentence_alone(text):
    """One step: v = v(text) + w (v(text, mask) - v(text)); 1 is the call without it, bit for bit."""
    pipe = load_pipe()
    one = {"num_inference_steps": 1}
    plain, masked = draw(pipe, text, mask=None, **one), draw(pipe, text, **one)
    assert torch.equal(draw(pipe, text, mask_guidance=1.0, **one), masked)
    torch.testing.assert_close(draw(pipe, text, mask_guidance=2.5, **one), plain + 2.5 * (masked - plain))
    assert torch.equal(draw(pipe, text, mask_guidance=0.0, **one), plain)


@pytest.mark.parametrize("attention", ["union", "independent"])
def test_mask_guidance_in_batches(text, attention):
    """A sample without a mask is the one made alone, whatever guides its neighbours."""
    pipe = load_pipe()
    options = {"mask_guidance": 2.5, "attention": attention}
    batch = pipe(
        mask=[MASK, None], generator=[torch.Generator().manual_seed(0) for _ in range(2)], num_inference_steps=2,
        output_type="latent", **text, **options,
    ).images  # fmt: skip
    torch.testing.assert_close(batch[:1], draw(pipe, text, **options), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(batch[1:], draw(pipe, text, mask=None), atol=1e-4, rtol=1e-4)
    negative = {f"negative_{name}": torch.zeros_like(tensor) for name, tensor in text.items()}
    guided = draw(pipe, text, true_cfg_scale=2.0, **negative, **options)
    assert guided.isfinite().all() and not torch.allclose(guided, batch[:1])
