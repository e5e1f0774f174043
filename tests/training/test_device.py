"""`--config reference` on an accelerator, which here is a pretended one: a tensor left on the wrong device is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_iter, tree_map

ROOT = Path(__file__).resolve().parents[2]
CARD = torch.device("meta")  # stands for the accelerator: torch knows it, and does nothing for it by itself
aten = torch.ops.aten
#: What may take tensors of both devices.
CROSSING = (aten._to_copy.default, aten.copy_.default)
#: Where float32 meets bfloat16 in these, automatic casting on a real card takes bfloat16.
PRODUCTS = (torch.nn.functional.linear, torch.nn.functional.scaled_dot_product_attention, torch.conv2d)


class OnCard(torch.Tensor):
    """A tensor that says it lies on the card and keeps its numbers in a CPU tensor."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> OnCard:
        made = torch.Tensor._make_wrapper_subclass(
            cls, numbers.size(), numbers.stride(), numbers.storage_offset(), dtype=numbers.dtype, device=CARD
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if function == torch.Tensor.data.__set__:
                args[0].numbers = args[1].numbers
            if function in PRODUCTS and torch.bfloat16 in [getattr(x, "dtype", None) for x in args]:
                args = [x.bfloat16() if isinstance(x, OnCard) and x.is_floating_point() else x for x in args]
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None) -> Any:
        return compute(function, args, kwargs or {})


class PretendedCard(TorchDispatchMode):
    """While this is on, tensors can be made on the card and moved to it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> Any:
        return compute(function, args, kwargs or {})


class ValuesToCard(TorchFunctionMode):
    """`torch.tensor` moves its values past the other mode."""

    def __torch_function__(self, function, types, args=(), kwargs=None) -> Any:
        if function is torch.tensor and (kwargs or {}).get("device") == CARD:
            return torch.tensor(*args, **{**kwargs, "device": "cpu"}).to(CARD)
        return function(*args, **(kwargs or {}))


def compute(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the numbers; its results lie where a real card would leave them.

    Raises:
        AssertionError: tensors of both devices meet, other than a CPU scalar.
    """
    given = [x for x in tree_iter((args, kwargs)) if isinstance(x, torch.Tensor)]
    on_card = [x for x in given if isinstance(x, OnCard)]
    if on_card and function not in CROSSING:
        strays = [tuple(x.shape) for x in given if not isinstance(x, OnCard) and x.dim()]
        assert not strays, f"{function}: CPU tensors of shapes {strays} meet {len(on_card)} on the card"
    target = kwargs.get("device")
    if target == CARD:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args, kwargs = tree_map(lambda x: x.numbers if isinstance(x, OnCard) else x, (args, kwargs))
    known = {id(x.numbers): x for x in on_card} | {id(x): x for x in given if not isinstance(x, OnCard)}

    def placed(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        if id(x) in known:  # written in place
            return known[id(x)]
        return OnCard(x) if target == CARD or (target is None and on_card) else x

    return tree_map(placed, function(*args, **kwargs))


@pytest.fixture()
def card(monkeypatch):
    """A pretended accelerator that Accelerate takes for the machine's own."""
    from accelerate import accelerator, state

    from mogle.training import finetune

    state.AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(state.PartialState, "default_device", property(lambda self: CARD))
    # torch has no automatic casting for it; `PRODUCTS` do what matters here
    monkeypatch.setattr(
        accelerator, "get_mixed_precision_context_manager", lambda *_: torch.autocast("cpu", enabled=False)
    )
    load = finetune.load_pipeline

    def load_and_move(base, adapter, device, **options):
        with _disable_current_modes():  # the libraries read weights by way of torch's own use of this device
            pipe = load(base, adapter, "cpu", **options)
        return pipe.to(device)

    monkeypatch.setattr(finetune, "load_pipeline", load_and_move)
    with PretendedCard(), ValuesToCard():
        yield
    state.AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A FluxPipeline of a few random layers, with text encoders."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    golden, shipped = ROOT / "tests" / "golden" / "flux", ROOT / "checkpoints" / "tiny-flux"
    torch.manual_seed(0)
    config = FluxTransformer2DModel.load_config(golden, subfolder="transformer")
    transformer = FluxTransformer2DModel.from_config({**config, "num_layers": 1, "num_single_layers": 1})
    clip = {"hidden_size": transformer.config.pooled_projection_dim, "intermediate_size": 32}
    t5 = {"d_model": transformer.config.joint_attention_dim, "d_ff": 32, "d_kv": 8}
    tokenizers = [AutoTokenizer.from_pretrained(shipped / name) for name in ("tokenizer", "tokenizer_2")]
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(golden, subfolder="scheduler"),
        vae=AutoencoderKL.from_pretrained(golden, subfolder="vae"),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(vocab_size=len(tokenizers[0]), num_hidden_layers=1, num_attention_heads=2, **clip)
        ),
        tokenizer=tokenizers[0],
        text_encoder_2=T5EncoderModel(T5Config(vocab_size=len(tokenizers[1]), num_layers=1, num_heads=2, **t5)),
        tokenizer_2=tokenizers[1],
        transformer=transformer,
    )
    folder = tmp_path_factory.mktemp("base")
    pipe.save_pretrained(folder)
    return folder


def test_a_tensor_on_the_wrong_device_is_found() -> None:
    with PretendedCard():
        there, here = torch.ones(3, device=CARD), torch.ones(3)
        assert (there + 1).device == CARD and float(there.sum()) == 3 and there.cpu().tolist() == [1, 1, 1]
        with pytest.raises(AssertionError, match="meet 1 on the card"):
            there + here


def test_the_references_settings_train_on_an_accelerator(card, base, tmp_path, monkeypatch) -> None:
    from mogle.training import finetune
    from mogle.training.settings import load_train_settings

    monkeypatch.setattr(finetune, "fitting", lambda settings, device: settings)
    small = ["size=64", "steps=20", "sample_every=20", "save_every=20", f"base={base}", f"data={ROOT}/data/portraits"]
    settings = load_train_settings("reference", small)
    assert (settings.cache, settings.precision, settings.gradient_checkpointing) == (False, "bf16", True)
    facts = finetune.fine_tune(tmp_path, settings, device="meta")
    assert facts["steps"] == 20 and (tmp_path / "samples" / "step-000020.png").exists()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 20 and all(loss == loss for loss in losses)
