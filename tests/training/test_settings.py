"""Settings of a training run: files, overrides, and what is said about mistakes."""

from __future__ import annotations

import pytest

from mogle.errors import MogleError
from mogle.training.settings import TrainSettings, load_train_settings, packaged


def test_every_packaged_file_is_valid_and_the_defaults_are_the_references() -> None:
    assert {"reference", "tiny"} <= set(packaged())
    for name in packaged():
        load_train_settings(name)
    found = load_train_settings("reference")
    assert (found.rank, found.optimizer, found.learning_rate, found.weight_decay) == (4, "prodigy", 1.0, 0.01)
    assert (found.clip, found.batch, found.steps, found.precision) == (0.5, 8, 4000, "bf16")
    assert (found.drop_local, found.drop_text, found.guidance, found.high_noise) == (0.1, 0.1, 1.0, 0.0)


def test_the_command_line_has_the_last_word() -> None:
    found = load_train_settings("tiny", ["steps=7", "minutes=1.5", "cache=false", "variant=only-global", "ema=none"])
    assert (found.steps, found.minutes, found.cache, found.variant, found.ema) == (7, 1.5, False, "only-global", None)
    assert found.rank == load_train_settings("tiny").rank


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("learning_rat=1", "did you mean learning_rate"),
        ("batch=0", "batch=0: expected greater than or equal to 1"),
        ("batch=many", "batch=many: expected a valid integer"),
        ("drop_text=1.5", "drop_text=1.5: expected less than or equal to 1"),
        ("learning_rate=nan", "expected a finite number"),
        ("variant=soft", "expected 'full', 'only-global', 'only-local'"),
        ("steps", "expected name=value"),
        ("accumulation=3", "multiple of accumulation=3"),
    ],
)
def test_mistakes_are_named(pair: str, said: str) -> None:
    with pytest.raises(MogleError, match=said):
        load_train_settings(None, [pair])


def test_files_that_are_none(tmp_path) -> None:
    with pytest.raises(MogleError, match="expected a YAML file or one of"):
        load_train_settings("tinny")
    path = tmp_path / "mine.yaml"
    for text, said in (("a: [", "not readable as YAML"), ("- 1", "found list"), ("bach: 2", "did you mean batch")):
        path.write_text(text)
        with pytest.raises(MogleError, match=said):
            load_train_settings(path)


def test_the_references_own_file_is_read(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "flux_path: some/FLUX\ndtype: bfloat16\nmodel: {union_cond_attn: true, latent_lora: false}\n"
        "train:\n  batch_size: 1\n  accumulate_grad_batches: 8\n  max_steps: -1\n  gradient_checkpointing: true\n"
        "  dataset: {image_size: 512, drop_text_prob: 0.1}\n  lora_config: {r: 4, lora_alpha: 4}\n"
        "  optimizer: {type: Prodigy, params: {lr: 1, weight_decay: 0.01, use_bias_correction: true}}\n"
    )
    assert load_train_settings(path) == TrainSettings(base="some/FLUX", size=512, alpha=4, accumulation=8)


def test_the_file_beside_the_released_weights_is_read(tmp_path) -> None:
    """Its names differ from those of the file that the reference trains with."""
    path = tmp_path / "config.yaml"
    path.write_text(
        "sd_path: checkpoints/FLUX.1-dev\ndtype: bfloat16\nmodel: {add_cond_attn: false, union_cond_attn: true}\n"
        "train:\n  batch_size: 4\n  accumulate_grad_batches: 1\n  dataloader_workers: 4\n  save_path: runs/face-mogle\n"
        "  dataset: {root: data/mmcelebahq, condition_size: 512, target_size: 512, drop_image_prob: 0.1}\n"
        "  lora_config: {r: 4, lora_alpha: 4, init_lora_weights: gaussian}\n  wandb: {project: face-mogle}\n"
    )
    expected = TrainSettings(
        base="checkpoints/FLUX.1-dev", data="data/mmcelebahq", size=512, alpha=4, batch=4, workers=4
    )
    assert load_train_settings(path) == expected
