"""The pretraining of the tiny track, in its smallest honest case: every stage runs, and what it writes is used."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from mogle.errors import MogleError
from mogle.tiny import loop
from mogle.tiny import pretrain as stages
from mogle.tiny.text import (
    build_clip_encoder,
    build_t5_encoder,
    token_ids,
    train_clip_tokenizer,
    train_t5_tokenizer,
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    settings = stages.load_settings()
    settings["portraits"].update(count=8, size=64)
    settings["vae"]["model"].update(channels=[16, 16, 16, 16], sample_size=64)
    settings["vae"]["train"].update(steps=2, batch=8)
    settings["text"]["train"].update(steps=2, batch=4)
    settings["base"]["model"].update(num_layers=1, num_single_layers=1, num_attention_heads=2)
    settings["base"]["train"].update(steps=4, batch=4)
    settings["decay"].update(steps=2)
    settings["distill"].update(steps=2, batch=4)
    settings["adapter"].update(steps=2, batch=4, rank=2)
    made = stages.Workshop(tmp_path_factory.mktemp("shop"), settings, workers=1)
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(loop.Halfway, "every", 2)
    stages.pretrain(made, [stage for stage in stages.STAGES if stage != "judges"])
    monkeypatch.undo()
    return made


@pytest.fixture()
def pipe(shop):
    from mogle.pipeline import FaceMoGLEPipeline

    return FaceMoGLEPipeline.from_pretrained(shop.base_dir)


def test_every_stage_leaves_a_base_and_an_adapter_that_draw(shop, pipe):
    pipe.load_mogle(shop.out / "tiny-flux-mogle")
    mask = shop.portraits()[1][0]
    image = pipe(prompt="a man", mask=mask, num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (64, 64, 3)
    record = json.loads((shop.out / "record.json").read_text())
    assert set(record) == set(stages.STAGES) - {"judges"}
    assert all("hardware" in facts and "seconds" in facts for facts in record.values())
    assert record["decay"]["stream"] == shop.settings["base"]["train"]["stream"] and record["decay"]["losses"]


def test_finished_stages_are_not_repeated(shop):
    before = (shop.base_dir / "vae" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    stages.pretrain(shop, ["paint", "vae", "base"])
    assert (shop.base_dir / "vae" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns == before


def test_training_goes_on_from_a_base(shop, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    settings = copy.deepcopy(shop.settings)
    settings["base"]["train"].update(learning_rate=0.0, ema=0.0)
    more = stages.Workshop(tmp_path, settings, workers=1, start=shop.base_dir)
    more._portraits = shop.portraits()
    monkeypatch.setattr(loop.Halfway, "every", 2)
    stages.pretrain(more, ["base", "decay"])
    name = "diffusion_pytorch_model.safetensors"
    before, after = load_file(shop.base_dir / "transformer" / name), load_file(tmp_path / "undistilled" / name)
    assert all(torch.allclose(before[k].float(), v.float(), atol=1e-3) for k, v in after.items())
    with pytest.raises(MogleError, match="found no tokenizer/"):
        stages.Workshop(tmp_path, settings, start=tmp_path / "nothing").take_over(["base"])


def test_a_wider_and_deeper_base_computes_nearly_the_same(shop):
    from diffusers import FluxTransformer2DModel

    from mogle.tiny.base import zero_start
    from mogle.tiny.grow import grown

    torch.manual_seed(0)
    old = FluxTransformer2DModel.from_pretrained(shop.out / "undistilled").float()
    for name, parameter in old.named_parameters():  # a network that has learned something
        if "norm" not in name or "linear" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    more = {"num_layers": 2, "num_single_layers": 3, "num_attention_heads": 3}
    new = FluxTransformer2DModel.from_config({**old.config, **more})
    zero_start(new)
    grown(old, new)
    ids = torch.zeros(16, 3)
    ids[:, 1:] = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    inputs = (torch.randn(2, 16, 64), torch.randn(2, 5, 128), torch.randn(2, 128), torch.tensor([0.9, 0.3]), ids)
    with torch.no_grad():
        a, b = (m(*inputs, torch.zeros(5, 3), torch.ones(2), return_dict=False)[0] for m in (old, new))
    assert (a - b).square().mean() < 0.05 * a.square().mean()
    with pytest.raises(MogleError, match="num_layers=1: expected at least the 2"):
        grown(new, old)


def test_the_step_compiles_to_one_graph(shop):
    """Alone and with a stream; attention written out, in bfloat16, gives what torch's kernel gives."""
    from mogle.tiny.base import FlowLoss

    transformer, clip, t5 = stages._networks(shop)
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)
    corpus, generator = stages._corpus(shop), torch.Generator().manual_seed(0)
    loss = FlowLoss(transformer, corpus, loop.Speed("cpu", bf16=True), (clip, t5), False)
    for stream in (False, True):
        draw = corpus.draw(4, generator, stream=stream, drop_text=0.1, high_noise=0.4, drawings=0.5)
        with torch.no_grad():
            states, pooled = loss.encode(draw.clip_ids, draw.t5_ids)
            inputs = (draw.noisy, draw.stream, states, pooled, draw.t, torch.ones(4), draw.target, draw.weight)
            kernel = loss._errors(*inputs)[0]
        written_out = torch.compile(loss._errors, backend="eager", fullgraph=True)(*inputs)[0]
        torch.testing.assert_close(written_out, kernel, atol=2e-3, rtol=0)


@pytest.mark.parametrize("stage", ["base", "decay", "distill"])
def test_an_interrupted_pretraining_ends_where_an_unbroken_one_does(shop, tmp_path, monkeypatch, stage):
    from mogle.tiny.base import pretrain_base
    from mogle.tiny.guidance import distill_guidance

    corpus = stages._corpus(shop)

    def train(steps_until_cut=None, checkpoint=None):
        """The transformer's weights after 4 steps, or None if cut."""
        from diffusers import FluxTransformer2DModel

        torch.manual_seed(0)
        clip, t5 = (build(tokenizer, 32, 1) for build, tokenizer in zip(
            (build_clip_encoder, build_t5_encoder), stages._tokenizers(shop), strict=True))  # fmt: skip
        model = FluxTransformer2DModel(
            joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=True, **shop.settings["base"]["model"]
        )
        section = shop.settings["distill"] if stage == "distill" else shop.settings["base"]["train"]
        run = distill_guidance if stage == "distill" else pretrain_base
        trunk = {"decay_from": tmp_path / "trunk.pt"} if stage == "decay" else {}
        if trunk and not trunk["decay_from"].exists():
            run(copy.deepcopy(model), *copy.deepcopy((clip, t5)), corpus, **section, speed=loop.Speed(),
                checkpoint=trunk["decay_from"])  # fmt: skip
        monkeypatch.setattr(loop.Progress, "__call__", cut_after(steps_until_cut))
        try:
            run(model, clip, t5, corpus, **{**section, "steps": 4}, speed=loop.Speed(), checkpoint=checkpoint, **trunk)
        except KeyboardInterrupt:
            return None
        return model.state_dict()

    def cut_after(steps):
        def call(self, step, **values):
            self.last = {}
            if steps is not None and step == steps + (4 if stage == "decay" else 0):
                raise KeyboardInterrupt

        return call

    monkeypatch.setattr(loop.Halfway, "every", 2)
    unbroken, halfway = train(), tmp_path / "halfway.pt"
    assert train(steps_until_cut=2, checkpoint=halfway) is None and halfway.exists()
    mended = train(checkpoint=halfway)
    assert all(torch.equal(unbroken[name], mended[name]) for name in unbroken)


def test_guidance_starts_without_effect_and_as_a_slow_function(shop):
    from diffusers import FluxTransformer2DModel

    from mogle.tiny.guidance import smooth_guidance

    model = FluxTransformer2DModel.from_pretrained(shop.out / "undistilled").float()
    embed, g = model.time_text_embed, torch.linspace(1, 5, 65)
    with torch.no_grad():
        mean = embed.guidance_embedder(embed.time_proj(1000 * g)).mean(dim=0)
        smooth_guidance(model)
        torch.testing.assert_close(embed.guidance_embedder(embed.time_proj(1000 * g)), mean.expand(65, -1))
        inner = embed.guidance_embedder.linear_1(embed.time_proj(1000 * g))
    # neighbours 1/16 apart are alike, the ends are not
    assert (inner[1:] - inner[:-1]).square().mean() < 0.05 * inner.var(dim=0).mean()
    assert inner.var(dim=0).mean() > 0.1


def test_balanced_latents_decode_as_before_and_weigh_alike_in_pixels():
    from mogle.tiny.vae import balance_latents, build_vae, pixel_metric

    torch.manual_seed(0)
    vae = build_vae((16, 16, 16, 16), 32).eval()
    images = torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8)
    masks = torch.zeros(4, 32, 32, dtype=torch.uint8)  # background: every pixel counts alike
    x = images.permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        before = vae.decode(vae.encode(x).latent_dist.mode()).sample
        balance_latents(vae, images, masks)
        after = vae.decode(vae.encode(x).latent_dist.mode()).sample
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    metric = pixel_metric(vae, images, masks, seed=1)
    values = torch.linalg.eigvalsh(metric)
    assert values.max() / values.mean() < 2, values


def test_scaled_latents_of_portraits_have_mean_zero_and_deviation_one(shop, pipe):
    from mogle.tiny.corpus import encode_images

    tokens = encode_images(pipe.vae, torch.as_tensor(shop.portraits()[0])).float()
    assert tokens.shape == (8, 16, 64)
    assert abs(tokens.mean().item()) < 0.05 and abs(tokens.std().item() - 1) < 0.05


def test_half_of_the_times_may_lie_near_noise():
    from mogle.training.flow import sample_times

    def beyond(limit, high_noise):
        t = sample_times(20_000, torch.Generator().manual_seed(0), "cpu", high_noise)
        assert t.min() > 0 and t.max() < 1
        return (t > limit).float().mean().item()

    assert abs(beyond(0.5, 0.0) - 0.5) < 0.02 and abs(beyond(0.85, 0.0) - 0.041) < 0.01
    assert abs(beyond(0.85, 1.0) - 0.570) < 0.02 and abs(beyond(0.85, 0.5) - 0.306) < 0.02


def test_encoders_learn_which_colour_belongs_to_what():
    from mogle.tiny.text import said_in, train_text_encoders
    from mogle.words import ATTRIBUTES

    pairs = [(a, b) for a in ("red", "blue", "green") for b in ("red", "blue", "green") if a != b]
    captions = [f"A woman with {a} clothes. The background is {b}." for a, b in pairs]
    said = said_in(captions, ATTRIBUTES)
    names = list(ATTRIBUTES)
    for (clothes, background), row in zip(pairs, said, strict=True):
        found = {names[i]: ATTRIBUTES[names[i]].values[int(k)] for i, k in enumerate(row) if k >= 0}
        assert found == {"gender": "woman", "clothes": clothes, "background": background}
    torch.manual_seed(0)
    tokenizers = train_clip_tokenizer(captions, 600, 20), train_t5_tokenizer(captions, 120, 20)
    clip, t5 = build_clip_encoder(tokenizers[0], 32, 2), build_t5_encoder(tokenizers[1], 32, 2)
    ids = [token_ids(tokenizer, captions) for tokenizer in tokenizers]
    losses = train_text_encoders(clip, t5, *ids, said, steps=150, batch=12, learning_rate=5e-3, seed=0)
    assert losses["clip"] < 0.1 and losses["t5"] < 0.1  # not knowing whose colour it is costs 0.46 at least
    assert not any(p.requires_grad for p in [*clip.parameters(), *t5.parameters()])


def test_own_tokenizers_know_every_letter_and_the_captions_words():
    captions = ["She has wavy hair.", "The man has a beard."]
    clip, t5 = train_clip_tokenizer(captions, 600, 16), train_t5_tokenizer(captions, 120, 24)
    assert t5.decode(t5("A Zebra: 42!").input_ids, skip_special_tokens=True) == "A Zebra: 42!"
    assert len(t5("She has wavy hair.").input_ids) == 5  # four words, the last with its full stop, and the end
    assert clip.decode(clip("été").input_ids, skip_special_tokens=True) == "été"
    assert token_ids(clip, ["", "a man"]).shape == (2, 16) and token_ids(t5, [""]).shape == (1, 24)


def test_wrong_settings_file_is_named(tmp_path):
    with pytest.raises(MogleError, match="no such settings file"):
        stages.load_settings(tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("text: {}")
    with pytest.raises(MogleError, match="without all of"):
        stages.load_settings(tmp_path / "bad.yaml")


def _muon_step(rank: int, count: int, folder: str) -> None:
    """Two updates of four matrices by one of `count` processes, all with the same gradients."""
    from mogle.tiny.muon import Muon

    torch.set_num_threads(1)
    if count > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 4), (4, 8), (6,), (5, 5), (3, 2, 2, 2))]
    optimizer = Muon(parameters, lr=0.1, weight_decay=0.01)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()
    torch.save([p.detach() for p in parameters], f"{folder}/{count}-{rank}.pt")


@pytest.mark.slow
def test_processes_that_share_muon_s_work_get_one_process_s_weights(tmp_path):
    _muon_step(0, 1, str(tmp_path))
    torch.multiprocessing.spawn(_muon_step, (2, str(tmp_path)), nprocs=2)
    alone = torch.load(tmp_path / "1-0.pt", weights_only=True)
    for rank in (0, 1):
        shared = torch.load(tmp_path / f"2-{rank}.pt", weights_only=True)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, shared, strict=True))
