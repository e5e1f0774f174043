"""The pipeline on a tiny random FLUX: masks, sentences, both, neither; files; options; what users get wrong."""

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mogle.ablations import build_mogle, variant_of
from mogle.conditions import KnownImages, condition_images
from mogle.errors import MogleError, MogleWarning
from mogle.experts import MoGLE
from mogle.labels import decode_mask
from mogle.lora import NAME, add_lora
from mogle.pipeline import FaceMoGLEPipeline
from mogle.transformer import Condition, ConditionCache, forward_streams

GOLDEN = Path(__file__).parent / "golden"
MASKS = [GOLDEN / "mask0.png", GOLDEN / "mask1.png"]
NO_TEXT = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))


def worst(found, expected):
    return (torch.as_tensor(found) - torch.as_tensor(expected)).abs().max().item()


def seeds(*values):
    return [torch.Generator().manual_seed(value) for value in values]


def load_pipe():
    pipe = FaceMoGLEPipeline.from_pretrained(GOLDEN / "flux", **NO_TEXT)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def bare():
    return load_pipe()


@pytest.fixture(scope="module")
def pipe():
    pipe = load_pipe()
    pipe.load_mogle(GOLDEN)
    return pipe


@pytest.fixture(scope="module")
def text(golden):
    return {"prompt_embeds": golden["prompt_embeds"], "pooled_prompt_embeds": golden["pooled_prompt_embeds"]}


@pytest.fixture(scope="module")
def quick(text):
    return {**text, "num_inference_steps": 2, "output_type": "latent"}


@pytest.fixture(scope="module")
def talking(pipe):
    """The golden pipeline with small random text encoders of the real classes; prompts of at most 12 tokens."""
    from mogle.tiny.text import build_clip_encoder, build_t5_encoder, train_clip_tokenizer, train_t5_tokenizer

    torch.manual_seed(0)
    words = ["a young woman with red hair", "an elderly man who smiles"] * 4
    clip, t5 = train_clip_tokenizer(words, 600, 10), train_t5_tokenizer(words, 200, 12)
    text = {"tokenizer": clip, "text_encoder": build_clip_encoder(clip, 24, 1).eval()}
    text |= {"tokenizer_2": t5, "text_encoder_2": build_t5_encoder(t5, 48, 1).eval()}
    talking = FaceMoGLEPipeline(**{**pipe.components, **text})
    talking.mogle = pipe.mogle
    talking.set_progress_bar_config(disable=True)
    return talking


# --- the reference's numbers, through the pipeline -----------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1])
def test_condition_tokens_from_mask_files(pipe, golden, k):
    tokens = pipe.encode_conditions(MASKS[k])
    assert worst(tokens[0], golden[f"condition_tokens{k}"]) < 1e-4
    assert torch.equal(tokens, pipe.encode_conditions(MASKS[k]))


@pytest.fixture
def encoded(pipe):
    """How many images went through the VAE at a time, of a pipeline that knows none yet."""
    counts: list[int] = []
    pipe.known_images = KnownImages()
    with pipe.vae.encoder.register_forward_hook(lambda _m, inputs, _o: counts.append(len(inputs[0]))):
        yield counts
    pipe.known_images = KnownImages()


def test_after_a_stroke_only_what_changed_is_encoded(pipe, encoded):
    before = decode_mask(MASKS[0])
    stroke = before.copy()
    skin = np.argwhere(before == 1)[:20]
    stroke[tuple(skin.T)] = 13  # changes this class, that class and the picture of all, which a black one goes with
    assert 13 in before and 1 in stroke
    first = pipe.encode_conditions(before)
    encoded.clear()
    assert torch.equal(pipe.encode_conditions(before), first) and not encoded
    second = pipe.encode_conditions(stroke)
    assert encoded == [4]
    pipe.known_images.tokens.clear()
    assert torch.equal(pipe.encode_conditions(stroke), second) and not torch.equal(first, second)
    bias = pipe.vae.encoder.conv_in.bias
    with torch.no_grad():
        bias += 1
    try:
        assert not torch.equal(pipe.encode_conditions(stroke), second), "another VAE, though the same object"
    finally:
        with torch.no_grad():
            bias -= 1


def test_people_who_take_turns_have_their_masks_encoded_once(pipe, encoded):
    masks = [np.roll(decode_mask(MASKS[k]), shift, axis=0) for k in (0, 1) for shift in (0, 3)]
    alone = []
    for mask in masks:
        pipe.known_images.tokens.clear()
        alone.append(pipe.encode_conditions(mask))
    pipe.known_images.tokens.clear()
    for turn in range(3):
        encoded.clear()
        for mask, tokens in zip(masks, alone, strict=True):
            assert torch.equal(pipe.encode_conditions(mask), tokens)
        assert bool(encoded) == (turn == 0)
    # as many at once as torch has threads, each with one: the same bits, and torch has as many as before
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        pipe.known_images.tokens.clear()
        assert torch.equal(pipe.encode_conditions(masks[0]), alone[0]) and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_what_is_known_of_masks_has_bounds(pipe, encoded):
    masks = [np.roll(decode_mask(MASKS[0]), shift, axis=0) for shift in range(6)]
    (one,) = pipe.encode_conditions(masks[0])
    image = one[0].nbytes
    images = len(pipe.known_images.tokens)
    pipe.known_images.room = 3 * images * image
    for mask in masks:
        pipe.encode_conditions(mask)
        pipe.encode_conditions(masks[0])  # somebody stays with theirs
        kept = pipe.known_images.tokens.values()
        assert sum(tokens.untyped_storage().nbytes() for tokens in kept) <= pipe.known_images.room
    encoded.clear()
    pipe.encode_conditions(masks[0])
    assert not encoded, "what is in use is not forgotten"
    pipe.encode_conditions(masks[1])
    assert encoded, "what was used longest ago is"
    pipe.known_images.room = 0
    assert torch.equal(pipe.encode_conditions(masks[0])[0], one) and len(pipe.known_images.tokens) == images


def test_pictures_alone_and_in_a_batch(pipe, golden, text):
    options = {**text, "num_inference_steps": 4, "gate_time": "reference", "output_type": "np"}
    latents = [golden["latents0"], golden["latents1"]]
    for k in range(2):
        assert worst(pipe(mask=MASKS[k], latents=latents[k], **options).images, golden[f"image{k}"]) < 1e-4
    both = pipe(mask=MASKS, latents=torch.cat(latents), **options).images
    assert worst(both, torch.cat([golden["image0"], golden["image1"]])) < 1e-4
    options["gate_time"] = "training"
    assert worst(pipe(mask=MASKS[0], latents=latents[0], **options).images, golden["image0"]) > 1e-3


# --- with and without masks ----------------------------------------------------------------------------------------


def test_without_mask_it_is_fluxpipeline_bit_for_bit(pipe, quick):
    plain = FluxPipeline.from_pretrained(GOLDEN / "flux", **NO_TEXT)
    expected = plain(generator=seeds(3), height=128, width=128, **quick).images
    assert torch.equal(pipe(generator=seeds(3), **quick).images, expected)
    for options in ({"conditioning_scale": 0}, {"attention": "separate"}, {"attention": "separate", "lora_on": "all"}):
        found = pipe(mask=MASKS[0], generator=seeds(3), **options, **quick).images
        assert torch.equal(found, expected) != (options.get("lora_on") == "all")
    assert not torch.equal(pipe(mask=MASKS[0], generator=seeds(3), **quick).images, expected)


def test_no_lora_effect_means_no_lora(quick, bare):
    """A fresh LoRA (B = 0) changes nothing, whatever its rank; experts without any are half an adapter: refused."""

    def run():
        return bare(mask=MASKS[0], generator=seeds(1), **quick).images

    bare.mogle = MoGLE().requires_grad_(False)
    with pytest.raises(MogleError, match="found experts but no mask LoRA"):
        run()
    add_lora(bare.transformer)
    expected = run()
    bare.transformer.delete_adapters(NAME)
    add_lora(bare.transformer, rank=2)
    assert torch.equal(run(), expected)
    experts = bare.mogle
    bare.load_mogle(GOLDEN)
    bare.mogle = experts
    assert not torch.equal(run(), expected)


def test_batches(pipe, text):
    """A sample in a batch is the one made alone; None among masks is the text-only picture."""
    options = {**text, "num_inference_steps": 3, "output_type": "np"}
    masks = [MASKS[0], None, MASKS[1]]
    batch = pipe(mask=masks, generator=seeds(0, 1, 2), **options).images
    for i, mask in enumerate(masks):
        alone = pipe(mask=mask, generator=seeds(i), **options).images[0]
        assert np.abs(np.round(batch[i] * 255) - np.round(alone * 255)).max() <= 1
    again = pipe(mask=masks, generator=seeds(0, 1, 2), **options).images
    assert np.array_equal(batch, again)


def test_none_in_a_list_holds_for_every_option(pipe, quick):
    for options in ({"attention": "independent"}, {"conditioning_scale": 0.5}, {"lora_on": "all"}):
        batch = pipe(mask=[None, MASKS[1]], generator=seeds(0, 1), **options, **quick).images
        for i, mask in enumerate([None, MASKS[1]]):
            alone = pipe(mask=mask, generator=seeds(i), **options, **quick).images
            torch.testing.assert_close(batch[i : i + 1], alone, atol=1e-4, rtol=0)


def test_scale_and_attention_combine(pipe, quick):
    def run(**options):
        return pipe(mask=MASKS[0], generator=seeds(0), **options, **quick).images

    separate = run(attention="separate")
    distances = [worst(run(attention="independent", conditioning_scale=s), separate) for s in (1e-4, 0.5, 1)]
    assert distances[0] < 1e-3 < distances[1] < distances[2]
    assert not torch.equal(run(attention="independent", conditioning_scale=0.5), run(conditioning_scale=0.5))


def test_sizes_repeats_and_callbacks(pipe, text):
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append(tensors["latents"].shape)
        return {}

    out = pipe(
        mask=MASKS[0],
        height=96,
        width=160,
        fit="stretch",
        num_images_per_prompt=2,
        num_inference_steps=2,
        generator=seeds(0, 1),
        callback_on_step_end=callback,
        **text,
    )
    assert [image.size for image in out.images] == [(160, 96)] * 2
    assert seen == [(2, 60, 64)] * 2
    assert condition_images(np.arange(256, dtype=np.uint8).reshape(16, 16) % 19).sum(0).shape == (3, 16, 16)


def test_changed_tokens(pipe, quick):
    """Condition tokens made before give the same picture; without local masks another."""
    expected = pipe(mask=MASKS[0], generator=seeds(0), **quick).images
    tokens = pipe.encode_conditions(MASKS[0])
    assert torch.equal(pipe(condition_tokens=tokens, generator=seeds(0), **quick).images, expected)
    tokens = pipe.encode_conditions(MASKS[0], local_masks=False)
    assert torch.equal(tokens[0, 1], tokens[0, 19])
    assert not torch.equal(pipe(condition_tokens=tokens, generator=seeds(0), **quick).images, expected)


# --- text ----------------------------------------------------------------------------------------------------------


def test_prompts_absent_or_short_or_long(talking):
    options = {"num_inference_steps": 1, "output_type": "latent"}

    def run(**inputs):
        return talking(generator=seeds(0), **inputs, **options).images

    assert talking.max_prompt_tokens == 12
    assert torch.equal(run(mask=MASKS[0]), run(prompt="", mask=MASKS[0]))
    assert not torch.equal(run(mask=MASKS[0]), run(prompt="a young man", mask=MASKS[0]))
    assert run(prompt="a young man").shape == (1, 64, 64)
    two = talking(["red hair", None], [None, MASKS[0]], generator=seeds(0, 0), **options).images
    torch.testing.assert_close(two[:1], run(prompt="red hair"), atol=1e-4, rtol=0)
    torch.testing.assert_close(two[1:], run(mask=MASKS[0]), atol=1e-4, rtol=0)
    with pytest.raises(MogleError, match="found 14 tokens, expected at most 12"):
        run(prompt="a young woman with red hair who smiles a a a a a")
    with pytest.warns(MogleWarning, match="CLIP reads the first 10") as caught:
        run(prompt=["a young woman with red hair who smiles a"])
    assert len(caught) == 1
    with pytest.raises(MogleError, match="sample 0: found neither prompt nor mask"):
        talking()
    with pytest.raises(MogleError, match="sample 1: found neither prompt nor mask"):
        talking(["red hair", None], [MASKS[0], None])


# --- files ---------------------------------------------------------------------------------------------------------


def test_saved_as_the_reference_does(pipe, tmp_path):
    pipe.save_mogle(tmp_path, format="pt")
    found, expected = (torch.load(folder / "mogle.pt", weights_only=True) for folder in (tmp_path, GOLDEN))
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    found, expected = (load_file(folder / "pytorch_lora_weights.safetensors") for folder in (tmp_path, GOLDEN))
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    (tmp_path / "mogle.pt").rename(tmp_path / "global_local_mask_moe.pt")
    other = load_pipe()
    other.load_mogle(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(other.mogle.parameters(), pipe.mogle.parameters(), strict=True))


@pytest.mark.parametrize("format", ["safetensors", "pt"])
def test_round_trip_keeps_alpha_and_variant(tmp_path, quick, bare, format):
    pipe = load_pipe()
    torch.manual_seed(0)
    add_lora(pipe.transformer, rank=2, alpha=5)
    for name, parameter in pipe.transformer.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    variant = "places" if format == "safetensors" else "full"
    pipe.mogle = build_mogle(variant).requires_grad_(False)
    pipe.settings = {"attention": "independent"}
    expected = pipe(mask=MASKS[0], generator=seeds(0), **quick).images
    pipe.save_mogle(tmp_path, format=format)
    bare.load_mogle(GOLDEN)
    bare.load_mogle(tmp_path)  # takes the first one's place
    assert variant_of(bare.mogle) == variant
    options = {} if format == "safetensors" else {"attention": "independent"}
    torch.testing.assert_close(bare(mask=MASKS[0], generator=seeds(0), **options, **quick).images, expected)
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        assert ("lora_adapter_metadata" in (file.metadata() or {})) == (format == "safetensors")


class Evil:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_unsafe_damaged_and_foreign_files(pipe, tmp_path, capsys):
    before = {name: p.clone() for name, p in pipe.transformer.named_parameters() if "lora" in name}
    lora = load_file(GOLDEN / "pytorch_lora_weights.safetensors")

    def refused(match):
        with pytest.raises(MogleError, match=match):
            pipe.load_mogle(tmp_path)

    refused("found nothing; expected pytorch_lora_weights.safetensors")
    save_file(lora, tmp_path / "pytorch_lora_weights.safetensors")
    (tmp_path / "mogle.pt").write_bytes(pickle.dumps(Evil()))
    refused("mogle.pt: refused, the pickle .* could run code")
    torch.save({"x": Evil()}, tmp_path / "mogle.pt")
    refused("could run code")
    assert "never" not in capsys.readouterr().out
    (tmp_path / "mogle.pt").write_bytes(b"PK nonsense")
    refused("mogle.pt: ")
    torch.save({}, tmp_path / "mogle.pt")
    refused(r"mogle.pt: does not fit this base: global_expert.net.0.weight: found nothing, expected 32 x 64")
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"nonsense")
    refused("found no readable weights")
    name = "transformer.x_embedder.lora_B.weight"
    save_file({**lora, name: torch.zeros(3072, 4)}, tmp_path / "pytorch_lora_weights.safetensors")
    refused(rf"does not fit this base: {name}: found 3072 x 4, expected 64 x 4")
    layer = "transformer.single_transformer_blocks.7.proj_out"
    halves = {f"{layer}.lora_A.weight": torch.zeros(4, 320), f"{layer}.lora_B.weight": torch.zeros(64, 4)}
    save_file({**lora, **halves}, tmp_path / "pytorch_lora_weights.safetensors")
    refused(rf"{layer}.lora_A.weight: found 4 x 320, expected nothing")
    assert all(torch.equal(p, before[name]) for name, p in pipe.transformer.named_parameters() if name in before)


# --- what users get wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": np.zeros((128, 128), np.uint8)}, "mask 0: found only background"),
        ({"mask": MASKS[0], "height": 100}, "height=100: expected a multiple of 16, for instance 96"),
        ({"mask": MASKS[0], "attention": "both"}, "attention='both': expected one of 'union'"),
        ({"mask": MASKS[0], "lora_on": "text"}, "lora_on='text': expected one of 'condition', 'all'"),
        ({"mask": MASKS[0], "gate_time": "test"}, "gate_time='test': expected one of"),
        ({"mask": MASKS[0], "conditioning_scale": -1}, "conditioning_scale=-1: expected a finite number"),
        ({"mask": MASKS * 2, "prompt_embeds": torch.zeros(3, 12, 48)}, "found 3 prompts and 4 masks"),
        ({"mask": GOLDEN / "none.png"}, "none.png: no such file"),
        ({"mask": [None]}, "found neither prompt nor mask"),
        ({"prompt": "a face"}, "no text encoders"),
        ({"prompt": 7}, "prompt 0: found a int, expected text"),
        ({"mask": None, "condition_tokens": torch.zeros(1, 20, 9, 64)}, "found 9 condition tokens, expected 64"),
    ],
)
def test_mistakes(pipe, text, options, message):
    alone = {"prompt", "prompt_embeds"} & set(options) or isinstance(options["mask"], list)
    inputs = {} if alone else text
    with pytest.raises(MogleError, match=message):
        pipe(**inputs, **options)


def test_a_mask_needs_an_adapter_and_an_adapter_stays_apart(text, pipe):
    with pytest.raises(MogleError, match="no adapter"):
        load_pipe()(mask=MASKS[0], **text)
    with pytest.raises(MogleError, match="cannot be fused"):
        pipe.fuse_lora()


def test_no_foreign_warnings_on_import_and_loading():
    code = (
        "import warnings; warnings.simplefilter('error', FutureWarning)\n"
        "import torch; from mogle import FaceMoGLEPipeline\n"
        f"FaceMoGLEPipeline.from_pretrained({str(GOLDEN / 'flux')!r}, dtype=torch.float32, **{NO_TEXT!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.replace("\r", "\n").splitlines() if line and "components" not in line]


# --- other bases, dtypes, and what wraps a transformer ---------------------------------------------------------------


def random_inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    ids = FluxPipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32), torch.zeros(5, 3)
    return randn(2, 16, 64), randn(2, 16, 64), randn(2, 5, 48), randn(2, 24), torch.tensor([0.3, 0.8]), ids


def random_transformer(**options):
    torch.manual_seed(0)
    config = dict(FluxTransformer2DModel.load_config(GOLDEN / "flux", subfolder="transformer"))
    return FluxTransformer2DModel.from_config({**config, **options}).requires_grad_(False)


@pytest.mark.parametrize("options", [{"guidance_embeds": False}, {"num_single_layers": 0}, {"num_layers": 0}])
def test_other_shapes_of_bases(options):
    """FLUX.1-schnell has no guidance embedding. A copy of the image as condition changes what is predicted."""
    transformer = random_transformer(**options)
    x, condition, text, pooled, t, ids = random_inputs()
    guidance = torch.full((2,), 3.5) if transformer.config.guidance_embeds else None
    with torch.no_grad():
        plain = transformer(x, text, pooled, t, *ids, guidance, return_dict=False)[0]
        assert torch.equal(forward_streams(transformer, x, Condition(None), text, pooled, t, guidance, *ids), plain)
        found = forward_streams(transformer, x, Condition(condition), text, pooled, t, guidance, *ids)
        assert found.shape == plain.shape
        assert not torch.allclose(found, plain)
        some = Condition(condition, present=torch.tensor([True, False]))
        found = forward_streams(transformer, x, some, text, pooled, t, guidance, *ids)
        torch.testing.assert_close(found[1], plain[1])
        assert not torch.allclose(found[0], plain[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(text, dtype):
    """With a mask, rounding costs about what it costs FLUX itself (on these random weights, a lot)."""

    def run(dtype, **options):
        pipe = load_pipe()
        pipe.load_mogle(GOLDEN)
        pipe.transformer.to(dtype)
        half = {name: tensor.to(dtype) for name, tensor in text.items()}
        out = pipe(**half, generator=seeds(0), num_inference_steps=2, output_type="latent", **options).images
        assert out.dtype == dtype
        return out.float()

    def error(**options):
        exact = run(torch.float32, **options)
        return ((run(dtype, **options) - exact).norm() / exact.norm()).item()

    plain = error(attention="separate")
    assert error(mask=MASKS[0]) < 2 * plain
    assert error(mask=[MASKS[0]], conditioning_scale=0.5) < 2 * plain


def test_kept_keys_and_values(pipe, golden):
    """Attention "independent" and a gate that depends on places: the condition is computed in the first step only."""
    mogle = build_mogle("places").requires_grad_(False)
    x, text, pooled = golden["latents0"], golden["prompt_embeds"], golden["pooled_prompt_embeds"]
    ids, guidance, calls = (golden["condition_ids0"], torch.zeros(12, 3)), torch.tensor([3.5]), []

    def fuse(latents, t):
        calls.append(t)
        return mogle(golden["condition_tokens0"][None], latents, t)

    cache = ConditionCache(static=mogle.static)
    with torch.no_grad():
        for i, t in enumerate((0.9, 0.5, 0.1)):
            inputs = (text, pooled, torch.tensor([t]), guidance, *ids)
            first, again = (Condition(fuse, attention="independent", cache=c) for c in (cache, None))
            kept = forward_streams(pipe.transformer, x * t, first, *inputs)
            assert len(calls) == (1 if i == 0 else 1 + i)
            fresh = forward_streams(pipe.transformer, x * t, again, *inputs)
            torch.testing.assert_close(kept, fresh, atol=1e-5, rtol=0)


def test_a_cache_notices_other_text(pipe, golden):
    x, text, pooled = golden["latents0"], golden["prompt_embeds"].clone(), golden["pooled_prompt_embeds"]
    ids, guidance, cache = (golden["condition_ids0"], torch.zeros(12, 3)), torch.tensor([3.5]), ConditionCache()

    def run(cache):
        condition, t = Condition(x, cache=cache), torch.tensor([0.5])
        return forward_streams(pipe.transformer, x, condition, text, pooled, t, guidance, *ids)

    with torch.no_grad():
        before = run(cache)
        text += 1
        after = run(cache)
        assert torch.equal(after, run(None))
        assert not torch.equal(after, before)


def test_another_lora_acts_on_all_tokens(pipe, quick):
    """A style LoRA keeps its usual effect, beside ours, with its weight; ours stays on the condition."""
    from peft import LoraConfig

    ours, style = copy.deepcopy(pipe), FluxPipeline.from_pretrained(GOLDEN / "flux", **NO_TEXT)
    ours.set_progress_bar_config(disable=True)
    for transformer in (ours.transformer, style.transformer):
        torch.manual_seed(1)
        config = LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=["to_q", "to_v", "proj_mlp"])
        transformer.add_adapter(config, adapter_name="style")
    ours.transformer.set_adapters([NAME, "style"], [1.0, 0.5])
    style.transformer.set_adapters("style", 0.5)
    expected = style(generator=seeds(0), height=128, width=128, **quick).images
    assert torch.equal(ours(generator=seeds(0), **quick).images, expected)
    for options in ({"conditioning_scale": 1e-6}, {"conditioning_scale": 1}):
        found = worst(ours(mask=MASKS[0], generator=seeds(0), **options, **quick).images, expected)
        assert (found < 1e-3) == (options["conditioning_scale"] < 1)


@pytest.mark.parametrize("way", ["sequential", "group", "leaves", "compiled", "compiled blocks", "copied"])
def test_wrapped_transformers(pipe, quick, way):
    """Hooks on blocks and layers (offloading), compiling and copying leave the picture as it is."""
    expected = pipe(mask=MASKS[0], generator=seeds(0), **quick).images
    other = copy.deepcopy(pipe)
    if way == "sequential":
        from accelerate import cpu_offload

        cpu_offload(other.transformer, torch.device("cpu"))
        cpu_offload(other.vae, torch.device("cpu"))
        assert other.transformer.proj_out.weight.device.type == "meta"
    elif way == "group":
        from diffusers.hooks import apply_group_offloading

        apply_group_offloading(
            other.transformer,
            onload_device=torch.device("cpu"),
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,
        )
    elif way == "leaves":  # as `mogle generate --offload group` does on a GPU
        other.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
        assert other._execution_device == torch.device("cpu")
    elif way == "compiled":
        other.transformer.compile(backend="eager", fullgraph=True)
    elif way == "compiled blocks":
        other.transformer.compile_repeated_blocks(backend="eager", fullgraph=True)
    else:
        with torch.no_grad():
            other.transformer.proj_out.weight.zero_()
            other.transformer.proj_out.bias.zero_()
        assert not torch.equal(other(mask=MASKS[0], generator=seeds(0), **quick).images, expected)
        expected, other = pipe(mask=MASKS[0], generator=seeds(0), **quick).images, copy.deepcopy(pipe)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = other(mask=MASKS[0], generator=seeds(0), **quick).images
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
