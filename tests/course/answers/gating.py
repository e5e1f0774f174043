"""Answers to `workbook.exercises.gating`: wrong ones with words of their hints, right ones by another way."""

import math

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import Timesteps
from torch import nn

from answers.experts import net
from mogle.experts import DynamicGate, MoGLE
from workbook.exercises.gating import who_notices


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


class UnderNoGrad(MoGLE):
    @torch.no_grad()
    def forward(self, conditions, latents, t):
        return super().forward(conditions, latents, t)


def gate_under_no_grad(mogle, conditions, latents, t, outputs):
    with torch.no_grad():
        weights = mogle.gating(conditions[:, 0], latents, t)
    return weigh(weights, outputs)


def noticing(changes=(), **more):
    return lambda: who_notices() | dict(changes) | more


def moved(outputs, silent):
    return (outputs - silent).norm(dim=-1)


def by_distances(weights, outputs, silent):
    return torch.cdist(outputs[:, :, None], silent[:, :, None]).squeeze() * weights.mT


def weigh(weights, outputs):
    return torch.einsum("bne,benc->bnc", weights, outputs)


def shannon(weights, log=torch.log2, dim=-1):
    return -(weights * log(weights.clamp_min(1e-12))).sum(dim)


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


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
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
        ("nothing could be trained", gate_with(out=lambda x: x.softmax(-1).detach())),
        ("the weights of noise_proj", gate_with(lambda g, c, z, t: c + g.noise_proj(z).detach() + time_of(g, t))),
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
        ("nothing could be trained", UnderNoGrad),
        ("the weights of gating", mogle_with(gate_under_no_grad)),
        ("the weights of global_expert, local_experts",
         mogle_with(lambda m, c, z, t, o: weigh(m.gating(c[:, 0], z, t), o.detach()))),
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
    "who_notices": [
        ("through noise_proj", noticing(noise=(False, False))),
        ("and no Z_t", noticing(noise=(True, True))),
        ("told the time", noticing(clock=(False, False))),
        ("what time it is", noticing(clock=(True, True))),
        ("C_global alone", noticing(local=(True, True))),
        ("just this picture. The weights are right", noticing(local=(False, False))),
        ("the gate reads C_global. The answers are right", noticing({"global": (False, True)})),
        ("what the global expert reads", noticing({"global": (True, False)})),
        ("no input of the gate", noticing(sentence=(True, False))),
        ("no input of any expert", noticing(sentence=(False, True))),
        ("with the keys", lambda: {"noise": (True, False)}),
        ("two of True and False", noticing(noise=True)),
    ],
    "heard": [
        ("weights are missing", lambda w, o, s: moved(o, s)),
        ("the weight alone", lambda w, o, s: w.T),
        ("length of the whole answer", lambda w, o, s: w.T * o.norm(dim=-1)),
        ("difference of two lengths", lambda w, o, s: w.T * (o.norm(dim=-1) - s.norm(dim=-1)).abs()),
        ("both have the same weight", lambda w, o, s: (w.T[..., None] * o - s).norm(dim=-1)),
        ("squared lengths", lambda w, o, s: w.T * (o - s).square().sum(-1)),
        ("absolute values", lambda w, o, s: w.T * (o - s).abs().sum(-1)),
        ("added up before", lambda w, o, s: (w.T[..., None] * (o - s)).sum(0).norm(dim=-1)),
        ("averaged already", lambda w, o, s: (w.T * moved(o, s)).mean(1)),
        ("as logits once more", lambda w, o, s: w.softmax(-1).T * moved(o, s)),
        ("Axes are swapped", lambda w, o, s: w * moved(o, s).T),
        ("one of them has to be turned", lambda w, o, s: w * moved(o, s)),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "dynamic_gate": OtherGate,
    "mogle": OtherMoGLE,
    "gate_entropy": lambda w: -(w * w.clamp(min=1e-30).log2()).sum(-1),
    "who_notices": lambda: {change: [int(one) for one in pair] for change, pair in who_notices().items()},
    "heard": by_distances,
}
