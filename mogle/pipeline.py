"""`FaceMoGLEPipeline`: diffusers' FluxPipeline that also takes masks.

`FluxPipeline.__call__` runs whole and unchanged (scheduler, callbacks, offloading, true CFG, progress bar). The mask
travels to the transformer in `joint_attention_kwargs`; without mask or prompt it is FluxPipeline bit for bit.
"""

from __future__ import annotations

import functools
import gc
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Silence notes of other libraries that a user of this one can do nothing about."""
    found = [logging.getLogger(name) for name in loggers]
    before = [logger.level for logger in found]
    for logger in found:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(found, before, strict=True):
            logger.setLevel(level)


import transformers.utils.logging as _transformers_logging  # noqa: E402

_transformers_logging.get_logger()  # configures the library's logger, which would undo `_quiet` later
with _quiet("transformers"):  # it would say that image processors fall back to Pillow without torchvision
    from diffusers.pipelines import pipeline_utils
    from diffusers.pipelines.flux.pipeline_flux import FluxPipeline

from mogle.adapters import read_adapter, write_adapter  # noqa: E402
from mogle.conditions import KnownImages, encode_distinct  # noqa: E402
from mogle.errors import MogleError, MogleWarning  # noqa: E402
from mogle.experts import MoGLE  # noqa: E402
from mogle.labels import decode_mask  # noqa: E402
from mogle.lora import (  # noqa: E402
    NAME,
    activate_beside,
    active_adapters,
    check_lora,
    lora_layers,
    lora_set_aside,
    remember_lora,
    unwrapped,
)
from mogle.lora.keys import PREFIX  # noqa: E402
from mogle.transformer import Condition, ConditionCache, check_hooks, install  # noqa: E402

GATE_TIMES = {"training": 1.0, "reference": 1000.0}
#: The parts that only encode, and decode: a training holds them apart from the transformer.
ENCODERS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


class FaceMoGLEPipeline(FluxPipeline):
    """Faces from masks and sentences, on any FLUX base.

    Attributes:
        mogle: the experts, float32 whatever the base is, or None before `load_mogle`. They move to the latents' device
            by themselves.
        settings: what the adapter says about itself (`mogle.adapters.SETTINGS`); `attention` and `lora_on` found
            there are the defaults of a call.
    """

    transformer: Any
    # parts that a folder may lack, or that `from_pretrained` is asked to leave out
    _optional_components = [*FluxPipeline._optional_components, *ENCODERS]

    @functools.wraps(FluxPipeline.__init__)  # type: ignore[misc]  # diffusers reads the components from the signature
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.mogle: MoGLE | None = None
        self.settings: dict[str, str] = {}
        self.texts: Texts | None = None
        self.known_images = KnownImages()  # of the last masks, for people who take turns, or paint on
        if self.vae is not None and self.vae.config.sample_size:
            self.default_sample_size = self.vae.config.sample_size // self.vae_scale_factor
        if self.transformer is not None:
            install(self.transformer)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, base: str | Path, dtype: torch.dtype | None = None, **kwargs: Any
    ) -> FaceMoGLEPipeline:
        """Any FluxPipeline directory or Hub name. Further arguments (text_encoder=None, ...) as in diffusers.

        `dtype` defaults to float32.
        """
        dtype = kwargs.pop("torch_dtype", None) or dtype or torch.float32
        # diffusers took "torch_dtype" for years and warns of it now
        name = "dtype" if hasattr(pipeline_utils, "_resolve_dtype") else "torch_dtype"
        with _quiet("transformers"):
            return super().from_pretrained(base, **{name: dtype}, **kwargs)

    # --- adapter -------------------------------------------------------------------------------------------------

    def load_mogle(self, folder: str | Path) -> None:
        """Load LoRA and MoGLE from a directory, ours or the reference's, in place of those loaded before.

        A LoRA of another name (a style) stays as active as it was.

        Raises:
            MogleError: before anything has changed, if files are missing, unsafe, damaged or made for another base.
        """
        adapter = read_adapter(folder, self.transformer)
        network = unwrapped(self.transformer)
        before = active_adapters(network)
        if NAME in getattr(network, "peft_config", {}):
            network.delete_adapters(NAME)
        network.load_lora_adapter(adapter.lora, adapter_name=NAME, metadata=adapter.config, _pipeline=self)
        activate_beside(network, before, NAME)
        remember_lora(network)
        if missing := {name.removeprefix(PREFIX).partition(".lora_")[0] for name in adapter.lora} - set(
            lora_layers(network)
        ):
            raise MogleError(f"{folder}: peft left out {len(missing)} layers of the LoRA, such as {min(missing)}")
        self.mogle, self.settings = adapter.mogle.requires_grad_(False).eval(), adapter.settings

    def save_mogle(self, folder: str | Path, format: str = "safetensors") -> None:
        """Write LoRA and MoGLE under the reference's key names.

        format="pt" writes the mogle.pt that the reference can read (a LoRA alpha other than the rank goes into B);
        it holds weights only, so a variant of the experts must be known to whoever loads it.
        """
        if self.mogle is None:
            raise MogleError("there is no MoGLE to save: expected load_mogle() or an assigned `mogle` before")
        mogle = getattr(self.mogle, "_orig_mod", self.mogle)  # as torch.compile wraps it
        write_adapter(folder, self, mogle, self.settings, format)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Write the base as a FluxPipeline folder. Adapters are not part of it: `save_mogle` writes the mask's.

        With LoRA layers in place diffusers would write their names, which no loader finds again.
        """
        wrapped, self.transformer = self.transformer, unwrapped(self.transformer)
        try:
            with lora_set_aside(self.transformer):
                super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self.transformer = wrapped

    def load_lora_weights(self, *args: Any, **kwargs: Any) -> None:
        """As in diffusers, for a LoRA that acts on all tokens (a style); the mask adapter stays as active as it was."""
        before = active_adapters(self.transformer)
        super().load_lora_weights(*args, **kwargs)
        for name, layer in lora_layers(self.transformer).items():
            if NAME in before.get(name, []) and NAME not in layer.active_adapters:
                layer._active_adapter = [*layer.active_adapters, NAME]

    def fuse_lora(self, *args: Any, **kwargs: Any) -> None:
        """As in diffusers; refused for the mask adapter, which must act on condition tokens alone."""
        names = kwargs.get("adapter_names")
        if NAME in getattr(unwrapped(self.transformer), "peft_config", {}) and (not names or NAME in names):
            raise MogleError(
                "the mask adapter acts on condition tokens alone and cannot be fused into the base; expected "
                "adapter_names=[...] with the names of other adapters"
            )
        super().fuse_lora(*args, **kwargs)

    # --- inputs --------------------------------------------------------------------------------------------------

    @property
    def max_prompt_tokens(self) -> int:
        """Tokens that a prompt may have: what this base's second tokenizer says, at most FLUX's 512."""
        return 512 if self.tokenizer_2 is None else min(self.tokenizer_2.model_max_length, 512)

    def encode_conditions(
        self,
        masks: Any,
        height: int | None = None,
        width: int | None = None,
        palette: str = "dataset",
        local_masks: bool = True,
        labels: str = "celebamask",
        fit: str | None = None,
    ) -> Tensor:
        """Masks -> condition tokens (B, 20, N, 64), deterministic. None in the list gives zeros.

        Args:
            masks: one or a list of what `decode_mask` takes (paths, pictures, arrays, label maps).
            height, width: of the picture, default: the base's own size. Masks are resized by nearest neighbour.
            palette, labels, fit: colours and numbers of masks, and masks of another shape; see `decode_mask`.
            local_masks: False leaves all 19 local images black, as the reference's inference does by mistake.
        """
        size = self._size(height, width)
        masks = list(masks) if isinstance(masks, (list, tuple)) else [masks]
        reading: Any = {"palette": palette, "labels": labels, "size": size, "fit": fit}
        label_maps = [None if mask is None else decode_mask(mask, **reading) for mask in masks]
        for i, label_map in enumerate(label_maps):
            if label_map is not None and not label_map.any():
                raise MogleError(
                    f"mask {i}: found only background, expected a face to draw; leave the mask out instead"
                )
        given = [label_map for label_map in label_maps if label_map is not None]
        if not given:
            raise MogleError("masks: found none, expected at least one")
        device = self._execution_device
        known = self.known_images if len(given) == 1 else None
        tokens, index = encode_distinct(self.vae, given, device, known)
        if not local_masks:
            index[:, 1:] = 0
        conditions = tokens.new_zeros(len(masks), index.shape[1], *tokens.shape[1:])
        conditions[[i for i, label_map in enumerate(label_maps) if label_map is not None]] = tokens[index]
        return conditions

    def encode_prompt(self, prompt: Any, prompt_2: Any = None, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """As in diffusers; the length defaults to the base's own, and text is not cut off in silence.

        Raises:
            MogleError: a prompt longer than T5 reads.

        Warns:
            MogleWarning: once, if CLIP (which only sets the overall tone) reads part of a prompt.
        """
        limit = kwargs.setdefault("max_sequence_length", self.max_prompt_tokens)
        if kwargs.get("prompt_embeds") is None and self.texts is not None and prompt_2 is None:
            copies, found = kwargs.pop("num_images_per_prompt", 1), self.texts(_as_list(prompt), limit)
            where, prompt = {"device": self._execution_device, "dtype": self.transformer.dtype}, None
            states, pooled = (part.repeat_interleave(copies, dim=0).to(**where) for part in found)
            kwargs |= {"prompt_embeds": states, "pooled_prompt_embeds": pooled}
        if kwargs.get("prompt_embeds") is None:
            if self.text_encoder is None or self.text_encoder_2 is None:
                raise MogleError("this pipeline has no text encoders: pass prompt_embeds and pooled_prompt_embeds")
            prompts, prompts_2 = ([p] if isinstance(p, str) else p for p in (prompt, prompt_2 or prompt))
            for text in prompts_2:
                if (count := len(self.tokenizer_2(text, verbose=False).input_ids)) > limit:
                    raise MogleError(f"prompt {text[:60]!r}...: found {count} tokens, expected at most {limit}")
            longest = max(len(self.tokenizer(text, verbose=False).input_ids) for text in prompts)
            if longest > self.tokenizer_max_length:
                warnings.warn(
                    f"the prompt has {longest} tokens; CLIP reads the first {self.tokenizer_max_length}, T5 all of it",
                    MogleWarning,
                    stacklevel=2,
                )
        with _quiet("diffusers.pipelines.flux.pipeline_flux", "transformers"):
            return super().encode_prompt(prompt, prompt_2, **kwargs)

    def _size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width in pixels: the given ones if the backbone takes them, or the base's own."""
        unit = self.vae_scale_factor * 2
        default = self.default_sample_size * self.vae_scale_factor
        for name, side in (("height", height), ("width", width)):
            if side is not None and (side <= 0 or side % unit):
                near = max(unit, round(side / unit) * unit)
                raise MogleError(f"{name}={side}: expected a multiple of {unit}, for instance {near}")
        return height or default, width or default

    # --- sampling ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        prompt: str | Sequence[str | None] | None = None,
        mask: Any = None,
        *,
        prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        condition_tokens: Tensor | None = None,
        height: int | None = None,
        width: int | None = None,
        conditioning_scale: float = 1.0,
        mask_guidance: float = 1.0,
        attention: str | None = None,
        lora_on: str | None = None,
        gate_time: str = "training",
        palette: str = "dataset",
        labels: str = "celebamask",
        fit: str | None = None,
        num_images_per_prompt: int = 1,
        max_sequence_length: int | None = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate pictures from prompts, masks, or both.

        Args:
            prompt: one or a list; absent is the empty caption. `prompt_embeds` (B, T, ...) and `pooled_prompt_embeds`
                (B, ...) may take its place.
            mask: one or a list of what `decode_mask` takes; None in a list is a sample without mask. One prompt with
                several masks, or the other way round, is used for all of them.
            condition_tokens: (B, 20, N, 64), `encode_conditions(mask)` made (or changed) before, in place of `mask`.
            height, width: pixels, multiples of 16; default: the VAE's `sample_size`, what the base was trained at.
            conditioning_scale: strength of the mask, >= 0; 0 ignores it, 1 is what was trained.
            mask_guidance: w in v = v(text) + w (v(text, mask) - v(text)): for the mask what `guidance_scale` is for
                words. 1 is the method as published; other values take two forwards a step and are this project's.
            attention, lora_on: see `mogle.transformer.Condition`; default: what the adapter was trained with, or
                "union" and "condition".
            gate_time: "training": the gate sees t in (0, 1), as it did in training; "reference": t x 1000, as in the
                reference's sampler. Loading an adapter never changes it. For the released weights this default is a
                default, not a finding: `mogle experiment gate-time` would tell.
            palette, labels, fit: colours and numbers of masks, and masks of another shape; see `decode_mask`.
            max_sequence_length: tokens that prompts are padded to; default: the base's own.
            **kwargs: as FluxPipeline takes them: num_inference_steps=28, guidance_scale=3.5, generator, latents,
                output_type, callback_on_step_end, true_cfg_scale, negative_prompt, ...

        The same seed gives the same bytes. With a list of generators, one for each sample, a sample differs by at most
        1/255 from the one made alone.

        Raises:
            MogleError: neither prompt nor mask, a mask of background only, no adapter loaded, or bad options.
        """
        condition = Condition(
            None,
            attention=attention or self.settings.get("attention", "union"),
            scale=conditioning_scale,
            lora_on=lora_on or self.settings.get("lora_on", "condition"),
            mask_guidance=mask_guidance,
        )
        if gate_time not in GATE_TIMES:
            raise MogleError(f"gate_time={gate_time!r}: expected one of {', '.join(map(repr, GATE_TIMES))}")
        if kwargs.get("num_inference_steps", 28) < 1:
            raise MogleError(f"num_inference_steps={kwargs['num_inference_steps']}: expected at least 1")
        height, width = self._size(height, width)

        texts = prompt_embeds if prompt_embeds is not None else _as_list(prompt)
        masks = condition_tokens if condition_tokens is not None else _as_list(mask)
        count = _common_length(len(texts), len(masks))
        present = [condition_tokens is not None or m is not None for m in masks]
        present = present if len(present) == count else present * count
        if prompt_embeds is None:
            texts = list(texts) if len(texts) == count else list(texts) * count
            _check_texts(texts, present)
        else:
            prompt_embeds, pooled_prompt_embeds = (_for_each(x, count) for x in (prompt_embeds, pooled_prompt_embeds))
        for name in ("negative_prompt_embeds", "negative_pooled_prompt_embeds"):
            kwargs[name] = _for_each(kwargs.get(name), count)

        if any(present):
            if condition_tokens is None:
                tokens = self.encode_conditions(masks, height, width, palette, labels=labels, fit=fit)
            else:
                tokens = condition_tokens.to(self._execution_device)
            tokens = self._checked(tokens, height, width)
            tokens = _for_each(tokens, count).repeat_interleave(num_images_per_prompt, dim=0)  # type: ignore[union-attr]
            mogle: MoGLE = self.mogle  # type: ignore[assignment]
            each = torch.tensor(present, device=tokens.device).repeat_interleave(num_images_per_prompt)
            condition = replace(
                condition,
                tokens=_Fusion(mogle, tokens, GATE_TIMES[gate_time]),
                present=None if all(present) else each,
                cache=ConditionCache(static=mogle.static),
            )
        return super().__call__(
            prompt=None if prompt_embeds is not None else [text or "" for text in texts],
            prompt_embeds=prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds,
            height=height,
            width=width,
            num_images_per_prompt=num_images_per_prompt,
            max_sequence_length=max_sequence_length or self.max_prompt_tokens,
            joint_attention_kwargs={**(joint_attention_kwargs or {}), NAME: condition},
            **kwargs,
        )

    def _checked(self, condition_tokens: Tensor, height: int, width: int) -> Tensor:
        """The condition tokens, if they fit the picture and everything that a mask acts through is there and on."""
        if self.mogle is None:
            raise MogleError("found a mask but no adapter, expected load_mogle(folder) first")
        check_lora(self.transformer)
        check_hooks(self.transformer)
        expected = height * width // (2 * self.vae_scale_factor) ** 2
        if condition_tokens.shape[2] != expected:
            found = f"found {condition_tokens.shape[2]} condition tokens"
            raise MogleError(f"{found}, expected {expected} for a picture of {height} x {width}")
        return condition_tokens


class Texts:
    """Sentences -> embeddings for a pipeline that holds no text encoders, because memory has no room for both.

    `load` gives a pipeline of text encoders, which goes again when it has encoded. What was encoded is known from then
    on, and with a sentence that is new those come along that follow it among the `coming` ones.
    """

    AT_ONCE = 32  # sentences; T5's states of one take 4 MB in half precision

    def __init__(self, load: Callable[[], FaceMoGLEPipeline], coming: Sequence[str] = ()) -> None:
        self.load, self.coming = load, list(dict.fromkeys(coming))
        self.known: dict[tuple[str, int | None], tuple[Tensor, Tensor]] = {}

    def __call__(self, prompts: Sequence[str], limit: int | None = None) -> tuple[Tensor, Tensor]:
        """-> T5's states (B, limit, ...) and CLIP's pooled vectors (B, ...), on the CPU."""
        if new := [text for text in dict.fromkeys(prompts) if (text, limit) not in self.known]:
            place = self.coming.index(new[0]) if new[0] in self.coming else len(self.coming)
            new = [*dict.fromkeys([*new, *self.coming[place : place + self.AT_ONCE]])]
            encoder = self.load()
            with torch.no_grad():
                states, pooled, _ = encoder.encode_prompt(new, max_sequence_length=limit or encoder.max_prompt_tokens)
            del encoder
            gc.collect()  # a pipeline refers to itself
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            for length in {limit, states.shape[1]}:
                pairs = zip(states.cpu(), pooled.cpu(), strict=True)
                self.known |= {(text, length): pair for text, pair in zip(new, pairs, strict=True)}
            self.known = dict(list(self.known.items())[-4 * self.AT_ONCE :])
        states, pooled = (
            torch.stack(part) for part in zip(*(self.known[text, limit] for text in prompts), strict=True)
        )
        return states, pooled


class _Fusion:
    """The condition of one run: what the mask decides is computed once, the gate at every step."""

    def __init__(self, mogle: MoGLE, tokens: Tensor, time_factor: float):
        self.mogle = mogle.to(tokens.device)
        self.tokens, self.time_factor = tokens, time_factor
        self.outputs = mogle.expert_outputs(tokens)

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        return self.mogle(self.tokens, latents, timestep.float() * self.time_factor, self.outputs)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _for_each(tensor: Tensor | None, count: int) -> Tensor | None:
    """A tensor (1, ...) that serves all samples, as (count, ...)."""
    if tensor is None or len(tensor) == count or len(tensor) != 1:
        return tensor
    return tensor.expand(count, *tensor.shape[1:])


def _check_texts(texts: Sequence[Any], present: Sequence[bool]) -> None:
    """Each sample has a text or a mask, and the text is one."""
    for i, (text, has_mask) in enumerate(zip(texts, present, strict=True)):
        if not isinstance(text, (str, type(None))):
            raise MogleError(f"prompt {i}: found a {type(text).__name__}, expected text or None")
        if text is None and not has_mask:
            raise MogleError(f"sample {i}: found neither prompt nor mask, expected at least one of them")
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:
            raise MogleError(f"prompt {i}: found bytes that are no UTF-8, expected text ({error.reason})") from error


def _common_length(prompts: int, masks: int) -> int:
    """The batch size: one prompt or one mask serves all of the others."""
    if prompts != masks and 1 not in (prompts, masks) or not prompts or not masks:
        raise MogleError(f"found {prompts} prompts and {masks} masks, expected as many of both, or one of either")
    return max(prompts, masks)
