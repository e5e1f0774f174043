"""Exercises: every check passes the solution, knows the stub, and names each plausible mistake by its own hint."""

import io
import pkgutil
import subprocess
import sys
from importlib import import_module

import answers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from answers.experts import Residual, bank_of_data
from PIL import Image
from torch import nn

from mogle.conditions import pack_latents
from mogle.course import check, hint, progress, reveal, score, whose
from mogle.errors import MogleError
from mogle.experts import Expert, expert_bank
from mogle.labels import LABELS, save_mask
from workbook import checking
from workbook.exercises import EXERCISES
from workbook.exercises.experts import class_shares
from workbook.exercises.gating import gate_entropy
from workbook.exercises.tokens import unpack_latents
from workbook.inputs import loader_a, loader_b, loader_c


@pytest.fixture(autouse=True)
def _progress(tmp_path, monkeypatch):
    monkeypatch.setenv("MOGLE_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(checking, "_judged", {})
    monkeypatch.setattr(checking, "_hinted", {})


ANSWERS = [import_module(f"answers.{module.name}") for module in pkgutil.iter_modules(answers.__path__)]
WRONG = {name: wrong for notebook in ANSWERS for name, wrong in notebook.WRONG.items()}
OTHER_WAYS = {name: answer for notebook in ANSWERS for name, answer in notebook.OTHER_WAYS.items()}


#: Mistakes that have their hint above, made in another way.
ALSO_WRONG = [
    (
        "one expert after another",
        lambda experts, x: torch.stack(
            [
                F.linear(F.linear(x[:, i], e.net[0].weight, e.net[0].bias).relu(), e.net[2].weight, e.net[2].bias)
                for i, e in enumerate(experts)
            ],
            1,
        ),
    ),
    ("could be trained", bank_of_data),
]


@pytest.mark.parametrize(("words", "answer"), ALSO_WRONG)
def test_a_bank_in_a_loop_or_of_data_is_found_however_it_is_written(words, answer, capsys):
    check.expert_bank(answer)
    assert words in capsys.readouterr().out


def passed(name, answer):
    """What a check says of a right answer: a remark comes where there is one."""
    remark = EXERCISES[name].remark
    return f"{name}: passed.\n" + (f"  {remark(answer)}\n" if remark else "")


@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_answer_by_another_way_passes(name, capsys):
    answer = OTHER_WAYS[name]
    getattr(check, name)(*(answer if isinstance(answer, tuple) else (answer,)))
    assert capsys.readouterr().out == passed(name, answer)


def test_half_of_a_pair_is_judged_by_itself(capsys):
    def stub(tokens, height, width): ...

    assert check.packing(pack_latents, stub) == (pack_latents, unpack_latents)
    assert (
        "Your pack_latents is right." in (out := capsys.readouterr().out) and "unpack_latents is not attempted" in out
    )
    check.packing(lambda x: x.reshape(len(x), -1, 64), unpack_latents)
    assert "pack: A reshape" in (out := capsys.readouterr().out) and "Your unpack_latents is right." in out


def test_hints_come_one_after_the_other(capsys):
    for number in (1, 2, 3, 3):
        hint("packing")
        assert capsys.readouterr().out.startswith(f"{number} of 3: {EXERCISES['packing'].hints[number - 1]}")


def test_the_notebook_says_whose_code_goes_on(capsys):
    check.expert(Residual), check.expert_bank(expert_bank)
    assert (whose("expert"), whose("expert_bank")) == ("the package's expert", "your expert_bank")
    capsys.readouterr()
    score("06")
    assert capsys.readouterr().out.startswith("1 of 5 exercises are yours. Left: expert, class_home, train_bank")


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_passes_and_is_returned(name, capsys):
    own = EXERCISES[name].solutions
    found = getattr(check, name)(*own)
    assert capsys.readouterr().out == passed(name, own[0])
    assert found is own[0] if len(own) == 1 else all(a is b for a, b in zip(found, own, strict=True))


@pytest.mark.parametrize("name", EXERCISES)
def test_the_stub_is_recognised_and_the_package_goes_on(name, capsys):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            ...

        def forward(self, condition_tokens, noisy_latents, timestep):
            """Shapes are explained here."""
            ...

    def function(*arguments):
        """Shapes are explained here."""
        ...

    def raises(*arguments):
        raise NotImplementedError

    own = EXERCISES[name].solutions
    for stub in (Module if isinstance(own[0], type) else function, ..., raises):
        found = getattr(check, name)(*[stub] * len(own))
        assert (found if len(own) > 1 else (found,)) == own
        assert capsys.readouterr().out.startswith(f"{name}: not attempted; going on with the package's own")


@pytest.mark.parametrize("name", EXERCISES)
def test_each_mistake_has_a_hint_of_its_own(name, capsys):
    own, said = EXERCISES[name].solutions, {}
    assert len(WRONG[name]) >= 3
    for words, answer in WRONG[name]:
        answers = answer if isinstance(answer, tuple) else (answer,)
        torch.manual_seed(1)
        before = torch.random.get_rng_state()
        found = getattr(check, name)(*answers)
        assert torch.equal(torch.random.get_rng_state(), before), "a check leaves the notebook's chance alone"
        said[words] = capsys.readouterr().out
        assert (found if len(own) > 1 else (found,)) == own, words
        assert said[words].startswith(f"{name}: not yet.") and words in said[words], said[words]
    if name != "broken_loader":  # one test may make two mistakes there
        hints = [text.splitlines()[1] for text in said.values()]
        assert len(set(hints)) == len(hints), "each mistake has its own hint"


def test_an_answer_that_raises_is_explained_not_raised(capsys):
    check.gate_entropy(lambda weights: weights.entropy())
    assert "It raised AttributeError: 'Tensor' object has no attribute 'entropy'" in capsys.readouterr().out
    check.gate_entropy(lambda weights: print("computing"))
    assert "returned None" in capsys.readouterr().out
    with pytest.raises(MogleError, match="found 1 answers, expected 2: your pack_latents, unpack_latents"):
        check.packing(pack_latents)
    with pytest.raises(MogleError, match="no exercise 'exprt': expected one of"):
        check.exprt(Expert)


def test_reveal_prints_the_packages_own_source(capsys):
    reveal("packing")
    out = capsys.readouterr().out
    assert (
        "# mogle.conditions.pack_latents" in out and "def unpack_latents" in out and "permute(0, 2, 4, 1, 3, 5)" in out
    )
    assert set(dir(check)) == set(EXERCISES)


def test_progress_is_remembered_and_never_lost(tmp_path, monkeypatch, capsys):
    check.expert(Residual), check.gate_entropy(gate_entropy), check.gate_entropy(lambda w: w.sum())
    capsys.readouterr()
    progress()
    lines = {line.split()[1]: line for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == list(EXERCISES) and all("min" in line for line in lines.values())
    assert lines["expert"].endswith("tried") and lines["gate_entropy"].endswith("passed")
    assert lines["mogle"].endswith("min")
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MOGLE_PROGRESS", str(tmp_path / "file" / "progress.json"))
    assert check.gate_entropy(gate_entropy) is gate_entropy, "a disk that cannot be written does not stop a check"


def test_loaders_do_what_the_notebook_says_of_them():
    label_map = np.arange(19, dtype=np.uint8).repeat(4).reshape(4, 19)
    file = io.BytesIO()
    save_mask(file, label_map)
    picture = Image.open(file)
    assert not loader_a(picture).any(), "a picture never equals a number"
    gray = loader_b(picture)
    assert gray[0].sum() == 4 and not gray[LABELS.index("hair")].any() and gray[17][label_map == 12].all()
    assert np.array_equal(loader_c(picture), label_map == np.arange(19)[:, None, None])


def test_shares_and_tokens_agree_on_where_a_token_lies():
    label_map = np.zeros((32, 48), np.uint8)
    label_map[16:, 32:] = 13
    shares = class_shares(label_map)
    assert shares.shape == (6, 19) and np.allclose(shares.sum(1), 1) and shares[5, 13] == 1
    latents = F.interpolate(torch.from_numpy(label_map)[None, None].float(), scale_factor=1 / 8).expand(1, 16, -1, -1)
    assert (pack_latents(latents)[0].mean(1) == 13 * torch.from_numpy(shares[:, 13])).all()


def test_setup_twice_is_harmless_and_says_nothing():
    code = """
import os; os.chdir({folder!r})
import torch
from mogle.course import setup
first = setup(); a = torch.rand(3)
assert setup() == first and torch.equal(torch.rand(3), a), "seeded again"
assert first.data.name == "data" and first.base.name == "tiny-flux" and first.dtype.is_floating_point
import diffusers.pipelines.flux
"""
    run = subprocess.run([sys.executable, "-c", code.format(folder="tests")], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_every_exercise_is_complete():
    for exercise in EXERCISES.values():
        assert len(exercise.hints) == 3 and all(len(text) > 30 for text in exercise.hints)
        assert exercise.difficulty in (1, 2, 3) and 0 < exercise.minutes <= 30
        assert all(map(callable, exercise.solutions))
        assert exercise.checker.__doc__ and exercise.checker.__name__ == f"check_{exercise.name}"
    assert checking.is_stub(None) and not checking.is_stub(lambda x: 0.5) and not checking.is_stub(Expert)
