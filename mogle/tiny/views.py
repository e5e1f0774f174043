"""Other pictures of a portrait that keep its shapes: what the tiny base learns to read in a second stream.

A frozen backbone can only be steered by a second stream of tokens if it knows how to read one. FLUX.1-dev does by its
size; a small model has to be taught, on pictures of the same scene at the same places: in turned colours, in gray, as
edges, in a few flat colours, and as a flat drawing whose regions have a colour each, drawn anew for every portrait. The
palette of the masks is never among them: what the colours of a mask mean is what Face-MoGLE's adapter learns later.
All take and give uint8 pictures (N, H, W, 3).
"""

from __future__ import annotations

import torch

from mogle.labels import LABELS


def shuffled_colours(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each picture in colours of its own: colour space is turned at random, contrast too."""
    count, device = len(images), images.device
    turns = torch.randn(count, 3, 3, generator=generator, device=device).cpu()  # a GPU is slow at many small QRs
    rotation = torch.linalg.qr(turns)[0].to(device)
    gain = 0.5 + torch.rand(count, 1, 1, generator=generator, device=device)
    out = []
    for chunk, turn in zip(images.split(2048), (rotation * gain).split(2048), strict=True):
        x = chunk.flatten(1, 2).float() / 127.5 - 1
        x = x - x.mean(dim=1, keepdim=True)
        out.append(((x @ turn).clamp(-1, 1) * 127.5 + 127.5).to(torch.uint8).view(chunk.shape))
    return torch.cat(out)


def gray_pictures(images: torch.Tensor) -> torch.Tensor:
    """Each picture in gray: of all views the one that keeps most of the picture."""
    out = [chunk.float().mean(dim=-1, keepdim=True).to(torch.uint8).expand(*chunk.shape) for chunk in images.split(256)]
    return torch.cat(out)


def posterized_pictures(images: torch.Tensor, generator: torch.Generator, colours: int = 8) -> torch.Tensor:
    """Each picture reduced to a few flat colours, drawn anew: shapes without texture or true colour.

    The regions are those of `colours` pixels of the picture itself, picked at random: a pixel goes to the nearest one.
    """
    out = []
    for chunk in images.split(256):
        count, device = len(chunk), chunk.device
        x = chunk.permute(0, 3, 1, 2).float()
        x = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False).flatten(2)
        where = torch.randint(x.shape[-1], (count, 1, colours), generator=generator, device=device)
        centres = x.gather(2, where.expand(-1, 3, -1))
        nearest = torch.cdist(x.mT, centres.mT).argmin(dim=-1)
        paint = torch.randint(256, (count, colours, 3), generator=generator, device=device)
        out.append(paint.gather(1, nearest[..., None].expand(-1, -1, 3)).to(torch.uint8).view(chunk.shape))
    return torch.cat(out)


def flat_drawings(masks: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Label maps (N, H, W) uint8 as drawings (N, H, W, 3): each portrait's parts in random colours of its own."""
    out = []
    for chunk in masks.split(256):
        paint = torch.randint(256, (len(chunk), len(LABELS), 3), generator=generator, device=masks.device)
        index = chunk.flatten(1).long()[..., None].expand(-1, -1, 3)
        out.append(paint.gather(1, index).to(torch.uint8).view(*chunk.shape, 3))
    return torch.cat(out)
