"""Tiers, and what `mogle doctor` says of machines that are only imagined, and of this one."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mogle.cli import app
from mogle.errors import MogleError
from mogle.hardware import FLUX, GIB, TIERS, Machine, best_tier
from mogle.training.settings import load_train_settings
from workbook.doctor import Facts, as_text, diagnose, look, report

ROOT = Path(__file__).resolve().parents[1]
BARE = Machine(torch="2.11.0", system_gib=16)
T4 = Machine("2.11.0", "12.8", "550.54", "Tesla T4", 14.7, False, 12.7)
L4 = Machine("2.11.0", "12.8", "550.54", "NVIDIA L4", 22.0, True, 53)
A100 = Machine("2.11.0", "12.8", "550.54", "NVIDIA A100-SXM4-40GB", 39.4, True, 84)
REQUIRES = (
    "python>=3.11", "torch>=2.6", "peft>=0.17", 'matplotlib>=3.9; extra == "notebook"',
    'bitsandbytes>=0.45; sys_platform == "linux" and extra == "gpu"', 'pytest>=8; extra == "dev"',
)  # fmt: skip
VERSIONS = {"python": "3.13.1", "torch": "2.11.0+cu128", "peft": "0.20.0", "matplotlib": "3.10", "bitsandbytes": "0.48"}
FINE = Facts(
    BARE, REQUIRES, VERSIONS, working_gib=50, cache_gib=50,
    notebooks={"00_quickstart": ("base", "judges"), "06_experts": ("base", "data")},
    shipped=("data", "base", "adapter", "judges"),
)  # fmt: skip


def states(facts: Facts, tier: str | None = None) -> dict[str, tuple[str, str, str]]:
    rows = diagnose(facts, best_tier(facts.machine, tier))
    return {row.subject: (row.state, row.found, row.mend) for row in rows}


def missing(facts: Facts, tier: str | None = None) -> set[str]:
    return {subject for subject, (state, _, _) in states(facts, tier).items() if state == "missing"}


@pytest.mark.parametrize(
    "machine, tier",
    [
        (Machine(), "tiny"), (BARE, "tiny"), (T4, "t4"), (L4, "l4"), (A100, "a100"),
        (replace(A100, gpu="NVIDIA A100-SXM4-80GB", gpu_gib=79.3), "a100"),
        (replace(A100, gpu="NVIDIA H100 80GB HBM3", gpu_gib=79.2), "h100"),
        (replace(A100, gpu="NVIDIA H100 MIG 2g.20gb", gpu_gib=19.8), "t4"),
        (replace(T4, gpu="Tesla V100-SXM2-32GB", gpu_gib=31.7), "t4"),
        (replace(L4, gpu="NVIDIA GeForce RTX 4090", gpu_gib=23.6), "l4"),
        (replace(L4, gpu="NVIDIA GeForce RTX 3060", gpu_gib=11.6), "tiny"),
    ],
)  # fmt: skip
def test_the_largest_tier_that_fits(machine, tier):
    assert best_tier(machine).name == tier
    assert best_tier(machine, "l4").name == "l4"
    with pytest.raises(MogleError, match="expected one of tiny, t4, l4, a100, h100"):
        best_tier(machine, "b200")


def test_tiers_agree_with_the_settings_for_training():
    for name, tier in TIERS.items():
        settings = load_train_settings(name)
        assert (settings.base, settings.precision) == (tier.base, tier.dtype)
        assert (settings.quantise, settings.quantise_text) == (tier.quantise, tier.quantise_text)
        # a T4 has room for 512 px in training too, but not the time
        assert settings.size in (None, tier.size) or (name, settings.size, tier.size) == ("t4", 256, 512)


def published_networks() -> dict[str, torch.nn.Module]:
    """FLUX.1-dev's four networks as their published configurations make them, without memory."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    t5 = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu"}
    clip = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    vae = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16}
    ends = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    with torch.device("meta"):
        return {
            "transformer": FluxTransformer2DModel(guidance_embeds=True),
            "t5": T5EncoderModel(T5Config(vocab_size=32128, **t5)),
            "clip": CLIPTextModel(CLIPTextConfig(**clip)),
            "vae": AutoencoderKL(**vae, **ends, use_quant_conv=False, use_post_quant_conv=False),
        }


def held_gib(network: torch.nn.Module, form: str, dtype: str) -> float:
    """What a network takes: bitsandbytes changes the weights of linear layers, but not those kept in float32."""
    size_of = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1, "nf4": 0.5 + 4 / 64}  # one scale for 64 numbers
    kept = getattr(network, "_keep_in_fp32_modules", None) or ()
    total, seen = 0.0, set()
    for name, module in network.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            whole = any(part in kept for part in name.split("."))
            changed = isinstance(module, torch.nn.Linear) and kind == "weight" and form != "none" and not whole
            bytes_ = size_of[form] if changed else 4 if whole and dtype == "fp16" else size_of[dtype]
            total += 0 if id(parameter) in seen else parameter.numel() * bytes_
            seen.add(id(parameter))
    return total / GIB


def test_memory_and_minutes_by_arithmetic():
    """The memory plan of each tier: what is held together while sentences are encoded, and while a picture is drawn."""
    networks = published_networks()
    numbers = sum(p.numel() for p in networks["transformer"].parameters())
    assert numbers == 11_901_408_320
    rates = {"t4": 20e12, "l4": 45e12, "a100": 125e12, "h100": 400e12}  # operations a second
    for name, rate in rates.items():
        tier = TIERS[name]
        forms = {"transformer": tier.quantise, "t5": tier.quantise_text, "clip": "none", "vae": "none"}
        gib = {part: held_gib(network, forms[part], tier.dtype) for part, network in networks.items()}
        text, drawing = gib["t5"] + gib["clip"], gib["transformer"] + gib["vae"]
        drawing += tier.batch * 1.5 * (tier.size / 512) ** 2
        held = max(text, drawing) if tier.frees_text else text + drawing
        assert tier.offload == "none" and tier.peak_gib == pytest.approx(held, abs=0.06), name
        assert gib["transformer"] < tier.peak_gib < tier.needs_gib
        if name == "t4":  # why T5 goes: beside the transformer it leaves too little of 14.7 GiB at 512 px
            assert 5.8 < gib["t5"] < 6 and text + gib["transformer"] + gib["vae"] + 1.5 > 14
            # between two pictures there is room for it, for a sentence that is new
            assert text + gib["transformer"] + gib["vae"] < 13
        tokens = 512 + 2 * tier.size**2 // 256  # text, picture and condition
        minutes = 2 * numbers * tokens * tier.steps * tier.batch / rate / 60
        assert tier.minutes == pytest.approx(minutes, rel=0.02) and tier.disk_gib == 34
        # in 4 or 8 bits the weights pass piece by piece through the system's memory: Colab's T4 has 12.7 GB of it
        assert tier.system_gib == (36 if tier.quantise == "none" else 12)
        line = tier.cost()
        assert "\n" not in line and f"{tier.peak_gib:.1f} GiB" in line and "not measured" in line and FLUX in line
        assert ("sentences encoded first" in line) == (name == "t4")
    assert "tiny FLUX" in TIERS["tiny"].cost()


def test_no_gpu():
    assert missing(FINE) == set()
    rows = states(FINE)
    assert rows["GPU"] == ("ok", "none", "") and rows["Python"][1] == "3.13.1"
    assert missing(FINE, "t4") == {"tier", "Hub token", "FLUX.1-dev's weights"}
    assert states(FINE, "t4")["tier"][2] == "mogle doctor --tier tiny"


def test_a_gpu_that_torch_does_not_see():
    rows = states(replace(FINE, machine=replace(BARE, driver="550.54")))
    assert rows["GPU"][0] == "note" and "this torch is without CUDA" in rows["GPU"][1]
    rows = states(replace(FINE, machine=replace(BARE, driver="470.1", cuda="12.8")))
    assert "this torch is for CUDA 12.8" in rows["GPU"][1]


@pytest.mark.parametrize("machine", [T4, A100])
def test_gpus(machine):
    facts = replace(FINE, machine=machine, token=True)
    assert missing(facts) == {"FLUX.1-dev's weights"}
    assert states(facts)["FLUX.1-dev's weights"][2] == "mogle weights get flux-dev"
    assert states(facts)["FLUX.1-dev's licence"][0] == "note"
    assert missing(replace(facts, token=False)) == {"Hub token", "FLUX.1-dev's weights"}
    here = replace(facts, token=False, weights="checkpoints/FLUX.1-dev", licence=True, cache_gib=0)
    assert missing(here) == set()  # no token and no space are needed for what is there
    assert missing(replace(facts, cache_gib=20, weights="")) >= {"disk, cache"}
    without = {name: version for name, version in VERSIONS.items() if name != "bitsandbytes"}
    assert missing(replace(here, versions=without)) == ({"bitsandbytes"} if machine is T4 else set())
    assert f"{machine.gpu}, {machine.gpu_gib:.1f} GiB" in states(here)["GPU"][1]
    assert "tier" in missing(here, "h100") and missing(replace(here, machine=replace(machine, system_gib=8)))


def test_packages():
    old = replace(FINE, versions=VERSIONS | {"torch": "2.3.1+cu121"})
    assert states(old)["torch"] == ("missing", "2.3.1+cu121, needed >=2.6", 'pip install "torch>=2.6"')
    assert states(old)["00_quickstart"][0] == "missing"
    without = replace(FINE, versions={name: v for name, v in VERSIONS.items() if name != "matplotlib"})
    assert missing(without) == {"matplotlib", "00_quickstart", "06_experts"}
    assert states(without)["06_experts"][2] == 'pip install -e ".[course]"'
    assert missing(replace(without, notebooks={})) == set()
    assert "python" in missing(replace(FINE, versions=VERSIONS | {"python": "3.10.2"}))
    assert "face-mogle" in missing(replace(FINE, requires=("face-mogle",)))
    gone = replace(FINE, machine=Machine(trouble="OSError: libcudart.so.12"), versions=VERSIONS)
    assert states(gone)["torch's build"] == ("missing", "OSError: libcudart.so.12", "pip install torch")


def test_broken_neighbours():
    why = {"torchao": "version 0.10; peft needs at least 0.16", "bitsandbytes": "OSError: no library"}
    facts = replace(FINE, machine=T4, broken=why, weights="here", token=True)
    assert states(facts)["torchao"] == (
        "note", f"does not load, and is hidden ({why['torchao']})", "pip uninstall -y torchao",
    )  # fmt: skip
    assert missing(facts) == {"bitsandbytes"}  # which quantises on a T4 and is not needed elsewhere
    assert missing(replace(facts, machine=A100)) == missing(replace(facts, machine=BARE)) == set()


def test_notebooks_lack_what_was_shipped():
    facts = replace(FINE, shipped=("base",))
    rows = states(facts)
    assert rows["00_quickstart"] == ("missing", "lacks checkpoints/judges", "git checkout -- checkpoints/judges")
    assert rows["06_experts"][1].startswith("lacks data/portraits") and missing(facts) == {
        "00_quickstart",
        "06_experts",
    }


def test_the_text_names_what_is_missing_and_the_command():
    text = as_text(TIERS["t4"], diagnose(FINE, TIERS["t4"]))
    assert text.splitlines()[0] == TIERS["t4"].cost() and re.search(r"mend: +hf auth login", text)
    assert text.endswith("3 missing: tier, Hub token, FLUX.1-dev's weights")


def test_this_machine_by_command_and_as_json(tmp_path):
    """With a broken torchao, a token in the environment, and a neighbour that quotes it in its error."""
    secret = "hf_" + "Q7" * 17
    for name, code in (
        ("torchao", ""),
        ("xformers", "import os; raise RuntimeError('with ' * 16 + os.environ['HF_TOKEN'])"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        (info := tmp_path / f"{name}-0.10.0.dist-info").mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.10.0\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "HF_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-m", "mogle", "doctor", "--json", "--tier", "l4"]
    environment["HF_TOKEN"] = secret
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (told["ok"], done.returncode, told["tier"], done.stderr) == (False, 1, "l4", "")
    rows = {row["subject"]: row for row in told["rows"]}
    assert rows["Hub token"]["found"] == "present" and rows["torchao"]["state"] == "note"
    assert "with ***" in rows["xformers"]["found"] and "Q7" not in done.stdout  # nor a part of it
    assert {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")} <= rows.keys()


def test_facts_of_this_machine(tmp_path, monkeypatch):
    """The Hub's cache as it is laid out; a token on the disk is seen and not read."""
    (home := tmp_path / "home").mkdir()
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("no network"))
    start = time.process_time()  # what others do on the machine does not count either
    facts = look()
    assert time.process_time() - start < 3
    assert (facts.token, facts.weights, facts.licence) == (False, "", False)
    (home / "token").write_text("hf_" + "Z9" * 17)
    (home / "token").chmod(0)  # not even readable
    snapshot = home / "hub" / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / "0" / "transformer"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    facts = look()
    assert (facts.token, facts.weights, facts.licence) == (True, "", True)
    (snapshot / "diffusion_pytorch_model-00001-of-00003.safetensors").write_bytes(b"")
    assert look().weights == str(snapshot.parent)
    assert "base" in facts.notebooks["00_quickstart"] and {"base", "judges", "data"} <= set(facts.shipped)
    assert "Z9Z9" not in as_text(best_tier(facts.machine), diagnose(facts, best_tier(facts.machine)))


def test_as_text_and_as_exit_code(capsys, monkeypatch):
    monkeypatch.setattr("workbook.doctor.look", lambda: FINE)
    for tier, code, last in (("tiny", 0, "nothing is missing for tier tiny"), ("t4", 1, "FLUX.1-dev's weights")):
        with pytest.raises(SystemExit) as ended:
            app(["doctor", "--tier", tier], prog_name="mogle")
        out = capsys.readouterr().out
        assert (ended.value.code or 0) == code and out.rstrip().endswith(last) and out == report(tier) + "\n"


def test_a_tier_that_is_none(capsys):
    with pytest.raises(SystemExit) as ended:
        app(["doctor", "--tier", "b200"], prog_name="mogle")
    assert ended.value.code == 2 and "tier 'b200': expected one of" in capsys.readouterr().err
