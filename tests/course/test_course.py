"""Exercises: every check passes the solution, knows the stub, and names each plausible mistake by its own hint."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import Timesteps
from PIL import Image
from torch import nn

from mogle.conditions import condition_images, pack_latents
from mogle.course import check, exercises, hint, progress, reveal, score, setup_source, whose
from mogle.course.tokens import loader_a, loader_b, loader_c
from mogle.errors import MogleError
from mogle.experts import DynamicGate, Expert, MoGLE, expert_bank
from mogle.labels import LABELS, PALETTE, save_mask
from workbook.exercises import EXERCISES
from workbook.experts import class_shares
from workbook.gating import gate_entropy
from workbook.tokens import unpack_latents


@pytest.fixture(autouse=True)
def _progress(tmp_path, monkeypatch):
    monkeypatch.setenv("MOGLE_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.setattr(exercises, "_judged", {})
    monkeypatch.setattr(exercises, "_hinted", {})


def picture_of_all(loader):
    file = io.BytesIO()
    save_mask(file, np.arange(19, dtype=np.uint8).repeat(8).reshape(8, 19))
    return loader(Image.open(file)).tobytes()


def asserts(loader):
    assert picture_of_all(loader) == np.zeros((19, 8, 19), bool).tobytes()
    return True


def spoils(label_map):
    found = condition_images(label_map)
    label_map[:] = 0
    return found


def bank_of_data(experts, tokens):
    (w1, w2), (b1, b2) = (
        [torch.stack([getattr(e.net[i], kind).data for e in experts]) for i in (0, 2)] for kind in ("weight", "bias")
    )
    return (tokens @ w1.mT + b1[:, None]).relu() @ w2.mT + b2[:, None]


# --- wrong answers: exercise -> (hint, answers) ------------------------------------------------------------------


def local_images(label_map, labels):
    return torch.from_numpy(label_map[None] == np.array(list(labels))[:, None, None]).float()[:, None] * 2 - 1


def conditions(labels=range(19), colour=True, scale=lambda x: x):
    def answer(label_map):
        local = local_images(label_map, labels).expand(-1, 3, -1, -1)
        return scale(torch.cat([condition_images(label_map)[:1], local]) if colour else local)

    return answer


def pack_with(*axes):
    def answer(x):
        b, c, h, w = x.shape
        parts = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, *axes)
        return parts.reshape(b, h * w // 4, c * 4)

    return answer


def asks_for(question):
    """A test of loaders by a mask of all classes: `question(masks, label_map)`."""

    def is_right(loader):
        label_map = np.arange(19, dtype=np.uint8).repeat(8).reshape(8, 19)
        file = io.BytesIO()
        save_mask(file, label_map)
        return question(loader(Image.open(file)), label_map)

    return is_right


class Misspelt(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Expert().net

    def foward(self, tokens):
        return self.net(tokens)


class Residual(Expert):
    def forward(self, tokens):
        return tokens + self.net(tokens)


def net(*layers):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(*(make() for make in layers))

        def forward(self, tokens):
            return self.net(tokens)

    return Net


def mixed_bank(experts, tokens):
    """A bank that turns its weights by a reshape."""
    for layer, shape in ((0, (64, 32)), (2, (32, 64))):
        weights = torch.stack([e.net[layer].weight.reshape(shape) for e in experts])
        tokens = tokens @ weights + torch.stack([e.net[layer].bias for e in experts])[:, None]
        tokens = tokens.relu() if layer == 0 else tokens
    return tokens


def bank_of(first):
    """A bank in which expert i has the weights of expert `first(i)`."""
    return lambda experts, tokens: expert_bank([experts[first(i)] for i in range(20)], tokens)


def gate_with(inside=None, out=lambda x: x.softmax(-1)):
    class Gate(DynamicGate):
        def forward(self, tokens, latents, t):
            time = self.timestep_embedding(self.time_proj(t))[:, None]
            hidden = inside(self, tokens, latents, t) if inside else tokens + self.noise_proj(latents) + time
            return out(self.gate(hidden))

    return Gate


def time_of(gate, t):
    return gate.timestep_embedding(gate.time_proj(t))[:, None]


def mogle_with(fuse):
    class Wrong(MoGLE):
        def forward(self, conditions, latents, t):
            outputs = torch.stack(
                [e(conditions[:, i]) for i, e in enumerate([self.global_expert, *self.local_experts])], 1
            )
            return fuse(self, conditions, latents, t, outputs)

    return Wrong


class SharedExperts(MoGLE):
    def __init__(self):
        super().__init__()
        self.local_experts = nn.ModuleList([self.local_experts[0]] * 19)


def weigh(weights, outputs):
    return torch.einsum("bne,benc->bnc", weights, outputs)


def shannon(weights, log=torch.log2, dim=-1):
    return -(weights * log(weights.clamp_min(1e-12))).sum(dim)


WRONG = {
    "conditions20": [
        ("global image is missing", conditions(colour=False)),
        ("background is missing", conditions(range(1, 19))),
        ("Off by one", conditions(range(1, 20))),
        ("[0, 1]", conditions(scale=lambda x: (x + 1) / 2)),
        ("[0, 255]", conditions(scale=lambda x: (x + 1) * 127.5)),
        ("PIL image", lambda m: conditions([99] * 19)(m)),
        ("channels come last", conditions(scale=lambda x: x.permute(0, 2, 3, 1))),
        ("comes last", conditions(scale=lambda x: x.roll(-1, 0))),
        ("inverted", conditions(scale=lambda x: torch.cat([x[:1], -x[1:]]))),
        ("not the mask in the colours", conditions(scale=lambda x: torch.cat([-x[:1], x[1:]]))),
        ("local images lie in [0, 1]", conditions(scale=lambda x: torch.cat([x[:1], (x[1:] + 1) / 2]))),
        ("global image lies in [0, 255]", conditions(scale=lambda x: torch.cat([(x[:1] + 1) * 127.5, x[1:]]))),
        ("it mixes pixels", conditions(scale=lambda x: torch.cat([
            x[:1].permute(0, 2, 3, 1).reshape(1, *x.shape[1:]), x[1:]]))),
        ("4 local images are wrong, the first is that of label 15", conditions([*range(15), 99, 99, 99, 99])),
        ("not in the class's colour", lambda m: torch.cat([
            condition_images(m)[:1],
            torch.where(local_images(m, range(19)) > 0,
                        torch.as_tensor(PALETTE / 127.5 - 1).float()[:, :, None, None], -1.0)])),
        ("np.unique", lambda m: conditions(np.unique(m))(m)),
        ("expected float32", conditions(scale=lambda x: x.double())),
        ("takes a torch tensor", conditions(scale=lambda x: x.numpy())),
        ("Work on a copy", spoils),
    ],
    "packing": [
        ("come before the channels", (pack_with(2, 4, 3, 5, 1), unpack_latents)),
        ("column by column", (pack_with(4, 2, 1, 3, 5), unpack_latents)),
        ("rows and columns of the 2 x 2 pixels are swapped", (pack_with(2, 4, 1, 5, 3), unpack_latents)),
        ("A reshape alone mixes", (lambda x: x.reshape(len(x), -1, 64), unpack_latents)),
        ("the wrong way round", (lambda x: x.view(len(x), 16, 2, x.shape[2] // 2, 2, -1).permute(0, 3, 5, 1, 2, 4)
                                 .reshape(len(x), -1, 64), unpack_latents)),
        ("a reshape alone does not undo", (pack_latents, lambda x, h, w: x.reshape(len(x), 16, h, w))),
        ("height and width are swapped", (pack_latents, lambda x, h, w: unpack_latents(x, w, h))),
    ],
    "broken_loader": [
        ("shapes alone are no proof", asks_for(lambda found, m: found.shape == (19, *m.shape))),
        ("converts to gray", asks_for(lambda found, m: bool(found[0].any()))),
        ("swaps left and right eye", asks_for(lambda found, m: bool((found.sum(0) == 1).all()))),
        ("swaps upper and lower lip", asks_for(lambda found, m: bool(found[:11].any(axis=(1, 2)).all()))),
        ("refuses the right loader", asks_for(lambda found, m: bool((found.sum((1, 2)) > 8).all()))),
        ("expected True or False", asks_for(lambda found, m: None)),
        ("knows no more than that loader", lambda loader: picture_of_all(loader) == picture_of_all(loader_c)),
        ("raised AssertionError", asserts),
    ],
    "expert": [
        ("no residual", Residual),
        ("ReLU between the two layers is missing", type("Linear", (Expert,), {
            "forward": lambda self, x: self.net[2](self.net[0](x))})),
        ("after the last layer", type("After", (Expert,), {"forward": lambda self, x: self.net(x).relu()})),
        ("GELU", net(lambda: nn.Linear(64, 32), nn.GELU, lambda: nn.Linear(32, 64))),
        ("look at the widths", net(lambda: nn.Linear(64, 64), nn.ReLU, lambda: nn.Linear(64, 64))),
        ("no method called `forward`", Misspelt),
        ("bias is missing", net(lambda: nn.Linear(64, 32, bias=False), nn.ReLU, lambda: nn.Linear(32, 64))),
        ("parameters do not fit", net(lambda: nn.Linear(64, 32), lambda: nn.Linear(32, 64))),
    ],
    "expert_bank": [
        ("first expert's weights", bank_of(lambda i: 0)),
        ("another order", bank_of(lambda i: 19 - i)),
        ("one expert after another (40 products of matrices)",
         lambda experts, x: torch.stack([e(x[:, i]) for i, e in enumerate(experts)], 1)),
        ("cut the way back", lambda experts, x: expert_bank(experts, x).detach()),
        ("len(experts)", lambda experts, x: expert_bank([experts[i] for i in range(20)], x)),
        (".mT does", lambda experts, x: mixed_bank(experts, x)),
        ("stacked weights (20, out, in) go in as .mT",
         lambda experts, x: x @ torch.stack([e.net[0].weight for e in experts])),
        ("added up", lambda experts, x: expert_bank(experts, x).sum(1)),
        ("Both biases", lambda experts, x: (x @ torch.stack([e.net[0].weight for e in experts]).mT).relu()
         @ torch.stack([e.net[2].weight for e in experts]).mT),
    ],
    "class_home": [
        ("column by column",
         lambda m: class_shares(m).reshape(-1, m.shape[1] // 16, 19).swapaxes(0, 1).reshape(-1, 19)),
        ("not patches", lambda m: (m.reshape(-1, 256, 1) == np.arange(19)).mean(axis=1)),
        ("numbers of pixels", lambda m: class_shares(m) * 256),
        ("over the tokens, not over the classes", lambda m: class_shares(m) / class_shares(m).sum(0).clip(1e-9)),
        ("largest class", lambda m: np.eye(19)[class_shares(m).argmax(1)]),
        ("background is missing", lambda m: class_shares(m)[:, 1:]),
        ("one latent", lambda m: class_shares(m, 8)),
        ("expected a numpy array", lambda m: torch.from_numpy(class_shares(m))),
        ("ends at 255", lambda m: (class_shares(m) * 256).astype(np.uint8) / 256),
    ],
    "dynamic_gate": [
        ("over the tokens, not over the experts", gate_with(out=lambda x: x.softmax(1))),
        ("softmax is missing", gate_with(out=lambda x: x)),
        ("sigmoid", gate_with(out=torch.sigmoid)),
        ("ignores the noisy latents", gate_with(lambda g, c, z, t: c + time_of(g, t))),
        ("ignores the time", gate_with(lambda g, c, z, t: c + g.noise_proj(z))),
        ("does not know the mask", gate_with(lambda g, c, z, t: g.noise_proj(z) + time_of(g, t))),
        ("in thousands", gate_with(lambda g, c, z, t: c + g.noise_proj(z) + time_of(g, 1000 * t))),
        ("scalar gate", gate_with(out=lambda x: x.softmax(-1).mean(1, keepdim=True).expand_as(x))),
        ("downscale_freq_shift is 1", gate_with(lambda g, c, z, t: c + g.noise_proj(z) + g.timestep_embedding(
            Timesteps(64, True, 1)(t))[:, None])),
        ("C_global and Z_t are swapped", gate_with(lambda g, c, z, t: g.noise_proj(c) + z + time_of(g, t))),
        ("it lacks an axis", gate_with(lambda g, c, z, t: c + g.noise_proj(z) + time_of(g, t)[:, 0])),
        ("parameters do not fit", net(lambda: nn.Linear(64, 64), nn.ReLU, lambda: nn.Linear(64, 20))),
    ],
    "mogle": [
        ("share their weights", SharedExperts),
        ("without the gate", mogle_with(lambda m, c, z, t, o: o.sum(1))),
        ("averaged", mogle_with(lambda m, c, z, t, o: o.mean(1))),
        ("global expert is missing",
         mogle_with(lambda m, c, z, t, o: weigh(m.gating(c[:, 0], z, t)[..., 1:], o[:, 1:]))),
        ("looks at a local condition", mogle_with(lambda m, c, z, t, o: weigh(m.gating(c[:, 1], z, t), o))),
        ("as it is", mogle_with(lambda m, c, z, t, o: weigh(m.gating(o[:, 0], z, t), o))),
        ("different orders", mogle_with(lambda m, c, z, t, o: weigh(m.gating(c[:, 0], z, t).roll(-1, -1), o))),
        ("averaged; expected their sum", mogle_with(lambda m, c, z, t, o: weigh(m.gating(c[:, 0], z, t), o) / 20)),
        ("there is no residual", mogle_with(lambda m, c, z, t, o: c[:, 0] + weigh(m.gating(c[:, 0], z, t), o))),
        ("in thousands", mogle_with(lambda m, c, z, t, o: weigh(m.gating(c[:, 0], z, 1000 * t), o))),
        ("weigh the experts' outputs", mogle_with(lambda m, c, z, t, o: weigh(m.gating(c[:, 0], z, t), c))),
        ("could be trained", mogle_with(lambda m, c, z, t, o: weigh(m.gating(c[:, 0], z, t), o).detach())),
    ],
    "gate_entropy": [
        ("in nats", lambda w: shannon(w, torch.log)),
        ("sign is missing", lambda w: -shannon(w)),
        ("summed over the tokens", lambda w: shannon(w, dim=1)),
        ("averaged over the tokens too", lambda w: shannon(w).mean()),
        ("not after", lambda w: (-(w * w.log2()).sum(-1)).nan_to_num()),
        ("gives NaN", lambda w: -(w * w.log2()).sum(-1)),
        ("share of the largest", lambda w: shannon(w) / math.log2(20)),
        ("the experts are the last axis", lambda w: torch.special.entr(w).sum(dim=2) / math.log(2)),
    ],
}  # fmt: skip


def vmapped(experts, tokens):
    """All experts at once by functorch, without stacking by hand."""
    weights, buffers = torch.func.stack_module_state(experts)
    one = lambda w, b, x: torch.func.functional_call(experts[0], (w, b), (x,))  # noqa: E731
    return torch.vmap(one, in_dims=(0, 0, 1), out_dims=1)(weights, buffers, tokens)


def counted_by_hand(label_map):
    rows = [
        [(label_map[y : y + 16, x : x + 16] == k).sum() / 256 for k in range(19)]
        for y in range(0, label_map.shape[0], 16)
        for x in range(0, label_map.shape[1], 16)
    ]
    return np.array(rows)


def one_hot_conditions(label_map):
    labels = torch.from_numpy(label_map).long()
    local = F.one_hot(labels, 19).permute(2, 0, 1)[:, None].float() * 2 - 1
    colours = torch.tensor(PALETTE, dtype=torch.float32)[labels].movedim(-1, 0)[None] / 255 * 2 - 1
    return torch.cat([colours, local.repeat(1, 3, 1, 1)])


class OtherMoGLE(MoGLE):
    def forward(self, condition_tokens, noisy_latents, timestep):
        weights, total = self.gating(condition_tokens[:, 0], noisy_latents, timestep), 0
        for i, expert in enumerate([self.global_expert, *self.local_experts]):
            total = total + weights[..., i, None] * expert(condition_tokens[:, i])
        return total


class OtherGate(DynamicGate):
    def forward(self, global_tokens, noisy_latents, timestep):
        time = self.timestep_embedding(self.time_proj(timestep)).unsqueeze(1)
        return F.softmax(self.gate(global_tokens + self.noise_proj(noisy_latents) + time), dim=2)


class OtherExpert(nn.Module):
    def __init__(self, width=64, hidden=32):
        super().__init__()
        self.net = nn.ModuleList([nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)])

    def forward(self, tokens):
        for layer in self.net:
            tokens = layer(tokens)
        return tokens


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


#: Right answers by another way than the package's.
OTHER_WAYS = {
    "conditions20": one_hot_conditions,
    "packing": (
        lambda x: F.pixel_unshuffle(x, 2).flatten(2).mT,
        lambda x, h, w: F.pixel_shuffle(x.mT.reshape(len(x), 64, h // 2, w // 2), 2),
    ),
    "broken_loader": asks_for(lambda found, m: all((found[k] == (m == k)).all() for k in range(19))),
    "expert": OtherExpert,
    "expert_bank": vmapped,
    "class_home": counted_by_hand,
    "dynamic_gate": OtherGate,
    "mogle": OtherMoGLE,
    "gate_entropy": lambda w: -(w * w.clamp(min=1e-30).log2()).sum(-1),
}


@pytest.mark.parametrize("name", EXERCISES)
def test_a_right_answer_by_another_way_passes(name, capsys):
    answer = OTHER_WAYS[name]
    getattr(check, name)(*(answer if isinstance(answer, tuple) else (answer,)))
    assert capsys.readouterr().out == f"{name}: passed.\n"


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
    assert capsys.readouterr().out.startswith("1 of 3 exercises are yours. Left: expert, class_home")


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_passes_and_is_returned(name, capsys):
    own = EXERCISES[name].solutions
    found = getattr(check, name)(*own)
    assert capsys.readouterr().out == f"{name}: passed.\n"
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


def test_the_setup_cell_installs_only_where_the_course_is_missing(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: ran.append(command))
    monkeypatch.setattr("mogle.course.setup", lambda: "ready")
    namespace: dict = {}
    exec(setup_source(), namespace)
    assert namespace["course"] == "ready" and not ran

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("MOGLE_REPOSITORY", raising=False)
    with pytest.raises(AssertionError, match="MOGLE_REPOSITORY"):
        exec(setup_source(), {})
    monkeypatch.setenv("MOGLE_REPOSITORY", "https://example.org/course.git")
    exec(setup_source(), {})
    (tmp_path / "face-mogle").mkdir()
    exec(setup_source(), {})
    clone, install, again = ran
    assert clone[:2] == ["git", "clone"] and clone[-2:] == ["https://example.org/course.git", "face-mogle"]
    assert install == again and install[-2:] == ["-e", "face-mogle[course]"]


def test_every_exercise_is_complete():
    for exercise in EXERCISES.values():
        assert len(exercise.hints) == 3 and all(len(text) > 30 for text in exercise.hints)
        assert exercise.difficulty in (1, 2, 3) and 0 < exercise.minutes <= 30
        assert all(map(callable, exercise.solutions))
        assert exercise.checker.__doc__ and exercise.checker.__name__ == f"check_{exercise.name}"
    assert exercises.is_stub(None) and not exercises.is_stub(lambda x: 0.5) and not exercises.is_stub(Expert)
