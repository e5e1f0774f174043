"""Trains the tiny FLUX's VAE: 8x smaller in each direction, 16 channels, as FLUX.1's.

Face-MoGLE sends three kinds of picture through one encoder: portraits, palette-coloured masks and black-and-white local
masks. FLUX.1's VAE has seen everything; ours must be shown all three. Its loss and its latents weigh small parts of a
face (eyes, brows, lips, glasses, jewellery) as those who look at it do: of the pixels they are a few in a hundred.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mogle.labels import LABELS, PALETTE
from mogle.tiny.loop import Progress, Speed, averaged, cosine_schedule, eager_or_compiled

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL


#: What a pixel of a part counts in the loss and in the balance of the latents; all others count 1.
PARTS_IN_PIXELS = {
    "nose": 2.0, "eye_g": 4.0, "l_eye": 6.0, "r_eye": 6.0, "l_brow": 4.0, "r_brow": 4.0, "l_ear": 2.0, "r_ear": 2.0,
    "mouth": 4.0, "u_lip": 4.0, "l_lip": 4.0, "ear_r": 4.0, "neck_l": 4.0,
}  # fmt: skip


def pixel_weights(masks: torch.Tensor) -> torch.Tensor:
    """(B, H, W) labels -> (B, 1, H, W): what each pixel counts, parts a pixel wider than they are."""
    import torch

    value = torch.tensor([PARTS_IN_PIXELS.get(name, 1.0) for name in LABELS], device=masks.device)
    return torch.nn.functional.max_pool2d(value[masks.long()][:, None], 3, stride=1, padding=1)


def build_vae(channels: tuple[int, ...], sample_size: int) -> AutoencoderKL:
    """An untrained `AutoencoderKL` of FLUX's shape; one level for each entry of `channels`, four levels make 8x."""
    from diffusers import AutoencoderKL
    from diffusers.models.resnet import ResnetBlock2D

    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=2,
        sample_size=sample_size,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=True,
    )
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):  # every residual branch starts at zero: the first steps are nearly linear
            for parameter in module.conv2.parameters():
                parameter.data.zero_()
    return vae


def colour_masks(masks: torch.Tensor) -> torch.Tensor:
    """(B, H, W) labels -> (B, 3, H, W) palette colours in [-1, 1]."""
    import torch

    palette = torch.as_tensor(PALETTE.copy(), device=masks.device).float() / 127.5 - 1
    return palette[masks.long()].permute(0, 3, 1, 2)


def _mixed_batch(
    images: torch.Tensor, masks: torch.Tensor, batch: int, crop: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(batch, 3, crop, crop) in [-1, 1], a quarter masks (half coloured, half one class in white on black); weights."""
    import torch

    device = images.device
    rows = torch.randint(len(images), (batch,), generator=generator, device=device)
    top, left = torch.randint(images.shape[1] - crop + 1, (2, batch), generator=generator, device=device)
    span = torch.arange(crop, device=device)
    index = rows[:, None, None], (top[:, None] + span)[:, :, None], (left[:, None] + span)[:, None, :]
    images, masks, rows = images[index], masks[index], torch.arange(batch, device=device)
    eighth = batch // 8
    faces = images[rows[2 * eighth :]].permute(0, 3, 1, 2).float() / 127.5 - 1
    coloured = colour_masks(masks[rows[:eighth]])
    picked = masks[rows[eighth : 2 * eighth]]
    where = torch.randint(picked[0].numel(), (eighth,), generator=generator, device=device)
    label = picked.flatten(1).gather(1, where[:, None])[:, :, None]  # a pixel's class: large ones come up more often
    rare = torch.randint(19, (eighth, 1, 1), generator=generator, device=device)
    label = torch.where(torch.arange(eighth, device=device)[:, None, None] % 2 == 0, label, rare.to(label.dtype))
    binary = (picked == label).float()[:, None].expand(-1, 3, -1, -1) * 2 - 1
    return torch.cat([coloured, binary, faces]), pixel_weights(masks)


def train_vae(
    vae: AutoencoderKL,
    images: torch.Tensor,
    masks: torch.Tensor,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    kl_weight: float,
    crop: int,
    full_from: float,
    half_size: float,
    seed: int,
    speed: Speed,
) -> dict[str, Any]:
    """Fits `vae` in place, from what it has, and sets its `scaling_factor` and `shift_factor`.

    images (N, H, W, 3) and masks (N, H, W) uint8, on the device that trains. The loss is the squared error plus the
    error of the picture's gradients (which keeps edges crisp), both weighted by part of the face; plus a small KL term:
    it puts a little noise on the latents, so that the decoder forgives the small errors of a generated latent; plus, in
    every third step and `half_size` times, the error of decode(half-size z) against the half-size picture, which makes
    latents smooth over scales. The first steps see crops of `crop` pixels (as much work a picture as a quarter of it);
    from `full_from` of the way on `batch * (crop / H)^2` whole pictures. Returns the last losses.
    """
    import torch
    import torch.nn.functional as F

    from mogle.tiny.muon import Muon

    device = images.device
    vae.to(device).train()
    generator = torch.Generator(device).manual_seed(seed)
    optimizer = Muon(vae.parameters(), lr=learning_rate, dtype=speed.dtype)
    schedule = cosine_schedule(optimizer, steps, warmup=min(200, steps // 10))
    average = averaged(vae, 0.999)

    def losses(x: torch.Tensor, w: torch.Tensor, noise: torch.Tensor, half: bool) -> tuple[torch.Tensor, ...]:
        with speed.autocast():
            mean, log_variance = vae.encoder(x).float().chunk(2, dim=1)
            log_variance = log_variance.clamp(-20, 10)
            latent = mean + torch.exp(0.5 * log_variance) * noise
            y = vae.decoder(latent).float()
            few = len(x) // 2
            small = vae.decoder(F.avg_pool2d(latent[:few], 2)).float() if half else None
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        error, wrong = (w * (y - x).square()).mean(), (y - x).detach()
        across = (w[..., 1:] * (y.diff(dim=-1) - x.diff(dim=-1)).abs()).mean()
        down = (w[..., 1:, :] * (y.diff(dim=-2) - x.diff(dim=-2)).abs()).mean()
        scaled = error.new_zeros(()) if small is None else F.mse_loss(small, F.avg_pool2d(x[:few], 2))
        return error, across + down, kl, scaled, wrong.square().mean()

    step_losses = eager_or_compiled(losses, speed.compiled)
    progress = Progress("vae", steps)
    for step in range(steps):
        whole = step >= full_from * steps
        size = images.shape[1] if whole else crop
        count = max(8, batch * crop**2 // size**2) if whole else batch
        x, w = _mixed_batch(images, masks, count, size, generator)
        noise = torch.randn((len(x), 16, size // 8, size // 8), generator=generator, device=device)
        error, edges, kl, scaled, plain = step_losses(x, w / w.mean(), noise, half_size > 0 and step % 3 == 0)
        loss = error + 0.1 * edges + kl_weight * kl + half_size * scaled
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(vae)
        progress(step, error=error, edges=edges, kl=kl, half_size=scaled, plain=plain)
    vae.load_state_dict(average.module.state_dict())
    vae.eval()
    balance_latents(vae, images[:64], masks[:64], seed)
    measure_scaling(vae, images[:256])
    return progress.last


def pixel_metric(
    vae: AutoencoderKL, images: torch.Tensor, masks: torch.Tensor, seed: int = 0, step: float = 0.05
) -> torch.Tensor:
    """(16, 16) matrix G: moving the latent by d at a place changes the decoded picture by d' G d, summed over pixels
    as `pixel_weights` counts them.

    Measured by finite differences of length `step` along each channel, with the same random sign pattern for all.
    """
    import torch

    generator = torch.Generator(images.device).manual_seed(seed)
    with torch.no_grad():
        latents = vae.encode(images.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mode()
        plain, root = vae.decode(latents).sample, pixel_weights(masks).sqrt()
        pattern = torch.randn(latents[:, 0].shape, generator=generator, device=images.device)
        rows = []
        for channel in range(latents.shape[1]):
            moved = latents.clone()
            moved[:, channel] += step * pattern
            rows.append((root * (vae.decode(moved).sample - plain) / step).flatten())
        response = torch.stack(rows)
    return response @ response.T / pattern.numel()


def balance_latents(vae: AutoencoderKL, images: torch.Tensor, masks: torch.Tensor, seed: int = 0) -> None:
    """Turns and scales the latent channels, in place, so that equal steps in latent space are equally visible.

    The KL term gives a faint texture as much room as the outline of the head, and a velocity loss on such latents is
    spent on textures. With z' = G^(1/2) z (`pixel_metric`) it weighs what a pixel loss would weigh. The linear map is
    folded into the encoder's last and the decoder's first convolution: reconstructions stay as they were. The
    posterior's variances cannot be folded and become their mean over `images`, one for each channel.
    """
    import torch

    values, vectors = torch.linalg.eigh(pixel_metric(vae, images, masks, seed).double())
    root = values.clamp_min(1e-4 * float(values.max())).sqrt()
    turn = (vectors * root) @ vectors.T
    back = (vectors / root) @ vectors.T
    with torch.no_grad():
        posterior = vae.encode(images.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
        variance = turn.square() @ posterior.var.double().mean(dim=(0, 2, 3))
        last, first = vae.encoder.conv_out, vae.decoder.conv_in
        channels = len(turn)
        last.weight[:channels] = torch.einsum("ij,jkhw->ikhw", turn, last.weight[:channels].double()).float()
        last.bias[:channels] = (turn @ last.bias[:channels].double()).float()
        last.weight[channels:] = 0
        last.bias[channels:] = variance.log().float()
        first.weight.copy_(torch.einsum("kjhw,ji->kihw", first.weight.double(), back).float())


def measure_scaling(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Writes the mean and inverse deviation of the portraits' latents into the VAE's configuration."""
    import torch

    with torch.no_grad():
        latents = torch.cat(
            [vae.encode(chunk.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mode() for chunk in images.split(64)]
        )
    vae.register_to_config(
        shift_factor=round(latents.mean().item(), 4), scaling_factor=round(1 / latents.std().item(), 4)
    )
