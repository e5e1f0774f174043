"""Answers to `workbook.exercises.flows` and `.flux`: wrong ones with words of their hints, right ones another way."""

import torch
import torch.nn.functional as F

from workbook.exercises.flows import euler_step, flow_loss, interpolate, sample
from workbook.exercises.flux import attend_jointly, rope_map, rotate


def stretched(t, z):
    return t.view(-1, *[1] * (z.ndim - 1))


def mixed(share_of_picture, share_of_noise):
    """interpolate with other shares."""
    return lambda z, e, t: share_of_picture(stretched(t, z)) * z + share_of_noise(stretched(t, z)) * e


def loss_to(target, of=lambda off: off.square().mean()):
    """flow_loss with another target, or another mean."""
    return lambda v, z, e, t: of(v(interpolate(z, e, t), t) - target(z, e, interpolate(z, e, t)))


def velocity_of(z_0, eps, z_t):
    return eps - z_0


def step_by(change, at="t"):
    """A step that adds another change: change(t, t_next, velocity)."""

    def step(velocity, z, t, t_next):
        found = velocity(z, torch.full((len(z),), t if at == "t" else t_next))
        return z + change(t, t_next, found)

    return step


def in_place(velocity, z, times):
    path = []
    for t, t_next in zip(times[:-1], times[1:], strict=True):
        path.append(z)
        z += (t_next - t) * velocity(z, torch.full((len(z),), t))
    return torch.stack([*path, z])


def always_the_first(velocity, z, times):
    return torch.stack([z + (t - times[0]) * velocity(z, torch.full((len(z),), times[0])) for t in times])


def asking_twice(velocity, z, times):
    for t in times[:-1]:
        velocity(z, torch.full((len(z),), t))
    return sample(velocity, z, times)


def grown(velocity, z, times):
    """The sampler with a tensor of states that is filled."""
    states = z.new_empty(len(times), *z.shape)
    states[0] = z
    for i in range(len(times) - 1):
        states[i + 1] = states[i] - (times[i] - times[i + 1]) * velocity(states[i], z.new_full((len(z),), times[i]))
    return states


def in_halves(query, key, rope, here):
    def turned(x, by):
        return torch.view_as_real(torch.complex(*x.view(2, -1)) * by).transpose(-1, -2).flatten(-2)

    return turned(key, rope) @ turned(query, rope[here])


def by_angles(query, key, rope, here):
    q, k = (torch.view_as_complex(x.view(-1, 2)) for x in (query, key))
    return (q * k.conj() * torch.polar(torch.ones(()), rope[here].angle() - rope.angle())).real.sum(dim=-1)


def summed_angles(query, key, rope, here):
    q, k = (torch.view_as_complex(x.view(-1, 2)) for x in (query, key))
    return (q * rope[here] * k * rope).real.sum(dim=-1)


def fused(text, image, scale=None, split=None):
    """Joint attention by torch's own."""
    query, key, value = (torch.cat(pair, 1).transpose(1, 2) for pair in zip(text, image, strict=True))
    out = F.scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2).flatten(2)
    split = text[0].shape[1] if split is None else split
    return out[:, :split], out[:, split:]


def softmax_over(axis):
    def attend(text, image):
        query, key, value = (torch.cat(pair, 1).transpose(1, 2) for pair in zip(text, image, strict=True))
        out = (query @ key.mT / query.shape[-1] ** 0.5).softmax(axis) @ value
        return out.transpose(1, 2).flatten(2).split([text[0].shape[1], image[0].shape[1]], dim=1)

    return attend


def apart(text, image):
    return tuple(F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in one)).transpose(1, 2).flatten(2)
                 for one in (text, image))  # fmt: skip


def across(text, image):
    pairs = (text[0], *image[1:]), (image[0], *text[1:])
    return apart(*pairs)


def heads_in_the_wrong_order(text, image):
    query, key, value = (torch.cat(pair, 1).transpose(1, 2) for pair in zip(text, image, strict=True))
    out = F.scaled_dot_product_attention(query, key, value)
    out = out.reshape(out.shape[0], out.shape[2], -1)
    return out[:, : text[0].shape[1]], out[:, text[0].shape[1] :]


def heads_apart(text, image):
    return tuple(x.unflatten(-1, (4, -1)) for x in attend_jointly(text, image))


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "flow_loss": [
        ("swapped: t = 0 is the picture", (mixed(lambda t: t, lambda t: 1 - t), flow_loss)),
        ("added to the whole picture", (mixed(lambda t: 1, lambda t: t), flow_loss)),
        ("not scaled", (mixed(lambda t: 1 - t, lambda t: 1), flow_loss)),
        ("keep the variance", (mixed(lambda t: (1 - t) ** 0.5, lambda t: t**0.5), flow_loss)),
        ("over the last axis", (lambda z, e, t: (1 - t) * z + t * e, flow_loss)),
        ("(B, 1, 1)", (lambda z, e, t: (1 - t)[:, None] * z + t[:, None] * e, flow_loss)),
        ("points the wrong way", (interpolate, loss_to(lambda z, e, z_t: z - e))),
        ("target is the noise", (interpolate, loss_to(lambda z, e, z_t: e))),
        ("target is the picture", (interpolate, loss_to(lambda z, e, z_t: z))),
        ("summed the squares", (interpolate, loss_to(velocity_of, lambda off: off.square().sum()))),
        ("absolute errors", (interpolate, loss_to(velocity_of, lambda off: off.abs().mean()))),
        ("a root around", (interpolate, loss_to(velocity_of, lambda off: off.square().mean().sqrt()))),
        ("one loss for each sample", (interpolate, loss_to(velocity_of, lambda off: off.square().flatten(1).mean(1)))),
        ("asked at Z_0", (interpolate, lambda v, z, e, t: (v(z, t) - (e - z)).square().mean())),
        ("one for each sample.", (interpolate, lambda v, z, e, t: v(interpolate(z, e, t), t.mean()).mean())),
        ("cut the way back", (interpolate, lambda *inputs: flow_loss(*inputs).item())),
    ],
    "euler": [
        ("away from the picture", (step_by(lambda t, t_next, v: (t - t_next) * v), sample)),
        ("subtracted as a whole", (step_by(lambda t, t_next, v: -v), sample)),
        ("all the way to t = 0", (step_by(lambda t, t_next, v: -t * v), sample)),
        ("asked at t_next", (step_by(lambda t, t_next, v: (t_next - t) * v, "t_next"), sample)),
        ("multiplied by a time", (step_by(lambda t, t_next, v: t_next * v), sample)),
        ("change alone", (lambda v, z, t, t_next: euler_step(v, z, t, t_next) - z, sample)),
        ("a time for each sample", (lambda v, z, t, t_next: z + (t_next - t) * v(z, t), sample)),
        ("+= changes the z", (lambda v, z, t, t_next: z.add_((t_next - t) * v(z, torch.full((len(z),), t))), sample)),
        ("last state alone", (euler_step, lambda *inputs: sample(*inputs)[-1])),
        ("noise itself is missing", (euler_step, lambda *inputs: sample(*inputs)[1:])),
        ("last state is missing", (euler_step, lambda v, z, times: sample(v, z, times[:-1]))),
        ("wrong order: noise first", (euler_step, lambda *inputs: sample(*inputs).flip(0))),
        ("+= changes them in place", (euler_step, in_place)),
        ("starts from the noise, with its velocity", (euler_step, always_the_first)),
        ("not evenly spaced",
         (euler_step, lambda v, z, times: sample(v, z, torch.linspace(1, 0, len(times)).tolist()))),
        ("torch.stack makes one", (euler_step, lambda *inputs: list(sample(*inputs)))),
        ("ask once in each step", (euler_step, asking_twice)),
    ],
    "euler_error": [
        ("you expect the face at once", lambda: (0.01, 0.01, 0.01)),
        ("before the step", lambda: (0.36, 0.15, 0.02)),
        ("nearer than you say", lambda: (1.2, 0.3, 0.0)),
        ("farther away than you say", lambda: [0.2, 0.1, 0.0]),
        ("more steps to err more", lambda: (0.1, 0.4, 2.8)),
        ("hardly better than one", lambda: (0.55, 0.5, 0.02)),
        ("less than half as far away", lambda: (0.55, 0.35, 0.02)),
        ("more than twice as far away", lambda: (0.55, 0.03, 0.02)),
        ("28 steps: points land much nearer", lambda: (0.55, 0.16, 0.15)),
        ("not below 0", lambda: (0.55, 0.16, -1.0)),
        ("Expected three numbers", lambda: "they land on the nose"),
        ("Keep it a function", [0.55, 0.16, 0.02]),
    ],
    "rope_map": [
        ("query is not turned", lambda q, k, rope, here: rotate(k, rope) @ q),
        ("keys are not turned", lambda q, k, rope, here: (rotate(q, rope[here]) @ k).expand(len(rope))),
        ("All keys lie at the query's place",
         lambda q, k, rope, here: (rotate(q, rope[here]) @ rotate(k, rope[here])).expand(len(rope))),
        ("Query and key are swapped", lambda q, k, rope, here: rope_map(k, q, rope, here)),
        ("place 0", lambda q, k, rope, here: rope_map(q, k, rope, 0)),
        ("angles are added", summed_angles),
        ("its other half", in_halves),
        ("softmax", lambda *inputs: rope_map(*inputs).softmax(-1)),
        ("square root of the head's width", lambda q, *rest: rope_map(q, *rest) / len(q) ** 0.5),
        ("cosines", lambda q, k, *rest: rope_map(q, k, *rest) / q.norm() / k.norm()),
        ("all places against all", lambda q, k, rope, here: rotate(q, rope) @ rotate(k, rope).T),
        ("did not sum", lambda q, k, rope, here: rotate(q, rope[here]) * rotate(k, rope)),
    ],
    "attend_jointly": [
        ("itself alone", apart),
        ("the other alone", across),
        ("not divided", lambda text, image: fused(text, image, scale=1.0)),
        ("root of the whole width", lambda text, image: fused(text, image, text[0][0, 0].numel() ** -0.5)),
        ("by its square root", lambda text, image: fused(text, image, 1 / text[0].shape[-1])),
        ("over the queries", softmax_over(-2)),
        ("over the heads", softmax_over(1)),
        ("merged in the wrong order", heads_in_the_wrong_order),
        ("two results are swapped", lambda text, image: attend_jointly(text, image)[::-1]),
        ("split is in the wrong place", lambda text, image: fused(text, image, split=image[0].shape[1])),
        ("heads are still apart", heads_apart),
        ("One tensor came back", lambda text, image: torch.cat(attend_jointly(text, image), dim=1)),
    ],
    "planted_bug": [
        ("Line 1 is right", lambda: 1),
        ("Line 10 is right: text queries look at the image's keys", lambda: 10),
        ("Line 12 is right: for these queries", lambda: 12),
        ("Line 13 is right: its result differs", lambda: "13"),
        ("Line 15 is right", lambda: "line 15"),
        ("Line 17 is right", lambda: 17),
        ("no line 19", lambda: 19),
        ("Expected the number of one line", lambda: "norm_k"),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "flow_loss": (
        lambda z, e, t: torch.lerp(z, e, stretched(t, z)),
        lambda v, z, e, t: F.mse_loss(v(z + stretched(t, z) * (e - z), t), e - z),
    ),
    "euler": (lambda v, z, t, t_next: z - (t - t_next) * v(z, torch.ones(len(z)) * t), grown),
    "euler_error": lambda: [0.6 / steps for steps in (1, 4, 28)],
    "rope_map": by_angles,
    "attend_jointly": fused,
    "planted_bug": "line 9",
}
