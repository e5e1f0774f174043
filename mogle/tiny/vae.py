"""Trains the tiny FLUX's VAE: 8x smaller in each direction, 16 channels, as FLUX.1's.

Face-MoGLE sends three kinds of picture through one encoder: portraits, palette-coloured masks and black-and-white local
masks. FLUX.1's VAE has seen everything; ours must be shown all three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mogle.labels import PALETTE
from mogle.training.loop import Progress, averaged, cosine_schedule, eager_or_compiled, mixed_precision

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL


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
) -> torch.Tensor:
    """(batch, 3, crop, crop) in [-1, 1]; a quarter are masks (half coloured, half one class in white on black)."""
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
    return torch.cat([coloured, binary, faces])


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
    seed: int,
    compile_model: bool = False,
) -> dict[str, Any]:
    """Fits `vae` in place and sets its `scaling_factor` and `shift_factor`.

    images (N, H, W, 3) and masks (N, H, W) uint8, on the device that trains. The loss is the squared error plus the
    error of the picture's gradients (which keeps edges crisp) plus a small KL term: it puts a little noise on the
    latents, so that the decoder forgives the small errors of a generated latent. The first steps see crops of `crop`
    pixels (as much work a picture as a quarter of it); from `full_from` of the way on `batch * (crop / H)^2` whole
    pictures. Returns the last losses.
    """
    import torch
    import torch.nn.functional as F

    from mogle.tiny.muon import Muon

    device = images.device
    vae.to(device).train()
    generator = torch.Generator(device).manual_seed(seed)
    optimizer = Muon(vae.parameters(), lr=learning_rate)
    schedule = cosine_schedule(optimizer, steps, warmup=min(200, steps // 10))
    average = averaged(vae, 0.999)

    def losses(x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with mixed_precision(device):
            mean, log_variance = vae.encoder(x).float().chunk(2, dim=1)
            log_variance = log_variance.clamp(-20, 10)
            latent = mean + torch.exp(0.5 * log_variance) * noise
            y = vae.decoder(latent).float()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        error = F.mse_loss(y, x)
        edges = (y.diff(dim=-1) - x.diff(dim=-1)).abs().mean() + (y.diff(dim=-2) - x.diff(dim=-2)).abs().mean()
        return error, edges, kl

    step_losses = eager_or_compiled(losses, compile_model)
    progress = Progress("vae", steps)
    for step in range(steps):
        whole = step >= full_from * steps
        size = images.shape[1] if whole else crop
        x = _mixed_batch(images, masks, max(8, batch * crop**2 // size**2) if whole else batch, size, generator)
        noise = torch.randn((len(x), 16, size // 8, size // 8), generator=generator, device=device)
        error, edges, kl = step_losses(x, noise)
        loss = error + 0.1 * edges + kl_weight * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(vae)
        progress(step, error=error, edges=edges, kl=kl)
    vae.load_state_dict(average.module.state_dict())
    vae.eval()
    balance_latents(vae, images[:64], seed)
    measure_scaling(vae, images[:256])
    return progress.last


def pixel_metric(vae: AutoencoderKL, images: torch.Tensor, seed: int = 0, step: float = 0.05) -> torch.Tensor:
    """(16, 16) matrix G: moving the latent by d at a place changes the decoded picture by d' G d, summed over pixels.

    Measured by finite differences of length `step` along each channel, with the same random sign pattern for all.
    """
    import torch

    generator = torch.Generator(images.device).manual_seed(seed)
    with torch.no_grad():
        latents = vae.encode(images.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mode()
        plain = vae.decode(latents).sample
        pattern = torch.randn(latents[:, 0].shape, generator=generator, device=images.device)
        rows = []
        for channel in range(latents.shape[1]):
            moved = latents.clone()
            moved[:, channel] += step * pattern
            rows.append(((vae.decode(moved).sample - plain) / step).flatten())
        response = torch.stack(rows)
    return response @ response.T / pattern.numel()


def balance_latents(vae: AutoencoderKL, images: torch.Tensor, seed: int = 0) -> None:
    """Turns and scales the latent channels, in place, so that equal steps in latent space are equally visible.

    The KL term gives a faint texture as much room as the outline of the head, and a velocity loss on such latents is
    spent on textures. With z' = G^(1/2) z (`pixel_metric`) it weighs what a pixel loss would weigh. The linear map is
    folded into the encoder's last and the decoder's first convolution: reconstructions stay as they were. The
    posterior's variances cannot be folded and become their mean over `images`, one for each channel.
    """
    import torch

    values, vectors = torch.linalg.eigh(pixel_metric(vae, images, seed).double())
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
