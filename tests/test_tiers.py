"""How a tier is picked, what it is loaded as, and that sentences encoded first draw the same picture."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mogle import checkpoints
from mogle.checkpoints import load_pipeline, load_tier, shipped, tier_at_hand
from mogle.cli import app
from mogle.errors import MogleError, MogleWarning
from mogle.hardware import FLUX, TIERS, Machine, base_here
from mogle.pipeline import FaceMoGLEPipeline, Texts
from mogle.provenance import read_picture

MASK = Path(__file__).resolve().parents[1] / "data" / "portraits" / "mask" / "22.png"
T4 = Machine("2.11.0", "12.8", "550.54", "Tesla T4", 14.7, False, 12.7)
A100 = Machine("2.11.0", "12.8", "550.54", "NVIDIA A100-SXM4-40GB", 39.4, True, 84)
#: The tiny FLUX as a T4 would hold FLUX.1-dev, but for the form of its weights.
SMALL = replace(TIERS["tiny"], name="small", size=64, frees_text=True)


def pretend(monkeypatch, machine: Machine) -> None:
    monkeypatch.setattr(checkpoints, "measure", lambda: machine)


def place(folder: Path) -> None:
    """As if a FLUX.1-dev lay there."""
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "model.safetensors").touch()
    (folder / "model_index.json").touch()


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def test_the_best_fit_whose_weights_are_here_is_picked(empty, monkeypatch):
    pretend(monkeypatch, Machine())
    assert tier_at_hand() is None, "no GPU: the tiny FLUX, and nothing to say about it"
    pretend(monkeypatch, T4)
    said = "fits tier t4, whose weights are not all here .mogle weights get flux-dev && mogle weights get face-mogle"
    with pytest.warns(MogleWarning, match=said):
        assert tier_at_hand() is None
    place(Path("checkpoints/FLUX.1-dev-nf4"))
    with pytest.warns(MogleWarning, match="not all here .mogle weights get face-mogle"):
        assert tier_at_hand() is None
    Path("runs/face-mogle").mkdir(parents=True)
    assert tier_at_hand() is TIERS["t4"] and base_here(TIERS["t4"]) == Path("checkpoints/FLUX.1-dev-nf4")
    pretend(monkeypatch, A100)
    with pytest.warns(MogleWarning, match="mogle weights get flux-dev"):
        assert tier_at_hand() is None, "it holds whole weights, which a package in 4 bits has not"
    place(Path("hub/models--black-forest-labs--FLUX.1-dev/snapshots/0"))
    assert tier_at_hand() is TIERS["a100"] and base_here(TIERS["a100"]) == FLUX
    place(Path("checkpoints/FLUX.1-dev"))
    assert base_here(TIERS["a100"]) == Path("checkpoints/FLUX.1-dev")


def test_a_tier_can_be_asked_for_whether_it_fits_or_not(empty, monkeypatch):
    pretend(monkeypatch, T4)
    with pytest.warns(MogleWarning, match="tier a100 needs a GPU, 38 GiB, bfloat16; found Tesla T4, 14.7 GiB"):
        assert tier_at_hand("a100") is TIERS["a100"]
    assert tier_at_hand("t4") is TIERS["t4"] and tier_at_hand("tiny") is TIERS["tiny"]
    with pytest.raises(MogleError, match="expected one of tiny, t4"):
        tier_at_hand("b200")


def test_flux_dev_on_a_t4_is_loaded_in_two_parts_and_in_four_bits(monkeypatch):
    """Text encoders first, which go again; then transformer and VAE; both as bitsandbytes' configurations say."""
    loaded: list[dict] = []

    class Stub(SimpleNamespace):
        def to(self, device):
            return self

        def load_mogle(self, folder):
            self.adapter = folder

        def encode_prompt(self, prompts, **options):
            return torch.zeros(len(prompts), 3, 2), torch.zeros(len(prompts), 2), None

    def from_pretrained(base, dtype, **options):
        loaded.append({"base": base, "dtype": dtype, **options})
        layer = torch.nn.Linear(2, 2)
        layer.compute_dtype = torch.bfloat16  # as a package made for another GPU says
        network = torch.nn.Sequential(layer)
        return Stub(transformer=network, text_encoder_2=None, vae_scale_factor=8, max_prompt_tokens=512)

    monkeypatch.setattr(FaceMoGLEPipeline, "from_pretrained", from_pretrained)
    monkeypatch.setattr(checkpoints, "pick_device", lambda device: "cuda")
    monkeypatch.setattr(checkpoints, "require", lambda package, wanted: None)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.49.0")
    pipe = load_tier(TIERS["t4"], FLUX, Path("adapter"), prompts=["A man.", "A woman."])
    text, drawing = loaded
    assert text["transformer"] is text["vae"] is None and "text_encoder" not in text
    assert drawing["text_encoder"] is drawing["text_encoder_2"] is None and "transformer" not in drawing
    for part in loaded:
        mapping = part["quantization_config"].quant_mapping
        assert (
            part["base"] == FLUX
            and part["dtype"] == torch.float16
            and set(mapping) == {"transformer", "text_encoder_2"}
        )
        for config in mapping.values():
            assert config.load_in_4bit and config.bnb_4bit_quant_type == "nf4"
            assert config.bnb_4bit_compute_dtype == torch.float16, "a T4 has no bfloat16"
        assert type(mapping["transformer"]).__module__.startswith("diffusers")
        assert type(mapping["text_encoder_2"]).__module__.startswith("transformers")
    assert pipe.transformer[0].compute_dtype == torch.float16 and pipe.adapter == Path("adapter")
    assert pipe.default_sample_size * pipe.vae_scale_factor == TIERS["t4"].size
    pipe.texts(["A woman."])
    assert len(loaded) == 2, "what is coming was encoded along with the first"

    loaded.clear()
    load_tier(TIERS["l4"], FLUX, None)
    (whole,) = loaded
    assert whole["quantization_config"].quant_mapping["text_encoder_2"].load_in_8bit
    loaded.clear()
    load_tier(TIERS["a100"], FLUX, None)
    assert "quantization_config" not in loaded[0] and loaded[0]["dtype"] == torch.bfloat16


def test_sentences_that_are_encoded_first_draw_the_same_picture():
    base, adapter = shipped("tiny-flux"), shipped("tiny-flux-mogle")
    pipe = load_tier(SMALL, base, adapter, "cpu", prompts=["A man with black hair."])
    assert pipe.text_encoder is None and pipe.text_encoder_2 is None and pipe.tokenizer_2 is not None
    options = {"num_inference_steps": 2, "output_type": "np"}
    whole = load_pipeline(base, adapter, "cpu", dtype=torch.float32)
    for prompt in ("A man with black hair.", "She has a hat."):  # known, and new
        for more in ({}, {"num_images_per_prompt": 2}):
            made = [
                one(prompt, MASK, height=64, width=64, generator=torch.Generator().manual_seed(3), **options, **more)
                for one in (pipe, whole)
            ]
            assert (made[0].images == made[1].images).all()
    assert pipe(None, MASK, generator=torch.Generator().manual_seed(3), **options).images.shape == (1, 64, 64, 3)


def test_text_encoders_are_loaded_as_seldom_as_can_be(monkeypatch):
    loads: list[int] = []

    class Encoder:
        max_prompt_tokens = 7

        def encode_prompt(self, prompts, max_sequence_length):
            loads.append(len(prompts))
            states = torch.tensor([[len(text)] for text in prompts]).expand(-1, max_sequence_length)
            return states, states[:, 0], None

    monkeypatch.setattr(Texts, "AT_ONCE", 3)
    texts = Texts(Encoder, ["a", "bb", "ccc", "dddd", "eeeee"])
    for text in ("a", "bb", "ccc", "dddd", "a"):
        states, pooled = texts([text], 7)
        assert states.shape == (1, 7) and pooled.item() == len(text)
    assert loads == [3, 2]  # a to ccc, then dddd and eeeee
    assert texts(["ffffff", "a", "ffffff"], 7)[1].tolist() == [6, 1, 6] and loads == [3, 2, 1]
    texts(["a"], 9)
    assert loads == [3, 2, 1, 3], "another length is another embedding"


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        app([str(one) for one in arguments], prog_name="mogle")
    return int(ended.value.code or 0), *capsys.readouterr()


@pytest.fixture
def loads(empty, monkeypatch) -> list[tuple]:
    """A T4 with FLUX.1-dev and the released adapter, on which nothing loads: what was asked for is kept instead."""
    asked: list[tuple] = []

    def stop(tier, *weights, **options):
        asked.append((tier, *weights, options["prompts"]))
        raise MogleError("this is where it would load")

    monkeypatch.setattr(checkpoints, "load_tier", stop)
    pretend(monkeypatch, T4)
    place(Path("checkpoints/FLUX.1-dev"))
    Path("runs/face-mogle").mkdir(parents=True)
    return asked


#: What every command, and the playground, is to load on that machine, and what is said of it.
CHOSEN = (TIERS["t4"], Path("checkpoints/FLUX.1-dev"), Path("runs/face-mogle"), None)
SAID = f"{TIERS['t4'].cost()}\nerror: this is where it would load\n"


def test_generate_says_what_a_tier_costs_before_anything_loads(loads, capsys):
    code, out, err = run(capsys, "generate", "--mask", MASK, "--prompt", "A man.", "--prompt", "A woman.")
    assert (code, out, err) == (2, "", SAID) and loads.pop() == (*CHOSEN, ["A man.", "A woman."])
    run(capsys, "generate", "--prompt", "A man.", "--tier", "l4", "--base", shipped("tiny-flux"), "--adapter", "none")
    assert loads.pop()[:3] == (TIERS["l4"], shipped("tiny-flux"), None)
    # weights that are named are loaded as ever, and so is what a picture was made with
    for named in (["--base", shipped("tiny-flux"), "--adapter", "none"], ["--adapter", shipped("tiny-flux-mogle")]):
        code, out, err = run(capsys, "generate", "--prompt", "A man.", "--steps", 1, *named, "--device", "cpu")
        assert (code, err, out) == (0, "", out) and not loads


def test_the_demo_chooses_and_says_the_same(loads, capsys):
    assert run(capsys, "app") == (2, "", SAID)
    *chosen, sentences = loads.pop()
    assert tuple(chosen) == CHOSEN
    assert sentences[0] == "" and len(sentences) == 7, "those of its examples are encoded before the transformer comes"
    code, _, err = run(capsys, "app", "--tier", "a100", "--base", shipped("tiny-flux"), "--adapter", "none")
    assert code == 2 and err.startswith("note: tier a100 needs a GPU, 38 GiB, bfloat16; found Tesla T4")
    assert loads.pop()[:3] == (TIERS["a100"], shipped("tiny-flux"), None)
    own = ["--adapter", shipped("tiny-flux-mogle")]
    for wrong, words in ((["--tier", "b200"], "expected one of tiny"), (["--dtype", "int3", *own], "expected one of")):
        code, _, err = run(capsys, "app", *wrong)
        assert code == 2 and words in err and not loads


def test_the_notebooks_playground_chooses_and_says_the_same(loads, capsys):
    from mogle.course import from_workbook

    playground, course = from_workbook("playground").playground, SimpleNamespace(base=None, adapter=None)
    with pytest.raises(MogleError, match="this is where it would load"):
        playground(course, mask=None, prompt="A man.")
    assert loads.pop() == (*CHOSEN, ["A man."]) and capsys.readouterr().err == TIERS["t4"].cost() + "\n"
    with pytest.warns(MogleWarning, match="tier l4 needs"), pytest.raises(MogleError, match="this is where"):
        playground(course, tier="l4")
    assert loads.pop()[0] == TIERS["l4"]


def test_a_tier_in_four_bits_needs_a_gpu_and_says_so(empty, monkeypatch, capsys):
    pretend(monkeypatch, Machine())
    weights = ["--base", shipped("tiny-flux"), "--adapter", shipped("tiny-flux-mogle"), "--device", "cpu"]
    code, out, err = run(capsys, "generate", "--prompt", "A man.", "--tier", "t4", *weights)
    assert (code, out) == (2, "") and "quantise=nf4: a base is quantised on a GPU alone" in err and "needs a GPU" in err


def test_the_tiny_tier_draws_and_the_gates_time_stands_in_the_recipe(empty, capsys):
    common = ["generate", "--mask", MASK, "--tier", "tiny", "--steps", 1, "--device", "cpu"]
    pictures = []
    for time in ("training", "reference"):
        code, _, err = run(capsys, *common, "--gate-time", time, "--output-dir", time)
        assert code == 0 and err == TIERS["tiny"].cost() + "\n"
        picture, recipe, _ = read_picture(f"{time}/0000.png")
        assert recipe.gate_time == time
        pictures.append(picture.tobytes())
    assert pictures[0] != pictures[1]
    code, out, _ = run(capsys, "generate", "--like", "reference/0000.png", "--device", "cpu")
    assert code == 0 and "the same picture, bit for bit" in out
    assert "expected training or reference" in run(capsys, *common, "--gate-time", "other")[2]
