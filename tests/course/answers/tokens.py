"""Answers to `workbook.exercises.tokens`: wrong ones with words of their hints, right ones by another way."""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mogle.conditions import condition_images, pack_latents
from mogle.labels import PALETTE, save_mask
from workbook.exercises.tokens import unpack_latents
from workbook.inputs import loader_c


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


def one_hot_conditions(label_map):
    labels = torch.from_numpy(label_map).long()
    local = F.one_hot(labels, 19).permute(2, 0, 1)[:, None].float() * 2 - 1
    colours = torch.tensor(PALETTE, dtype=torch.float32)[labels].movedim(-1, 0)[None] / 255 * 2 - 1
    return torch.cat([colours, local.repeat(1, 3, 1, 1)])


#: Exercise -> (words of the hint, wrong answer).
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
    "wrong_packings": [
        ("A is not fault 5: then the portrait would stand on its head", lambda: {"A": 5, "B": 4, "C": 1, "D": 3}),
        ("A is not fault 3: then the portrait would stand upright", lambda: {"A": 3, "B": 4, "C": 1, "D": 2}),
        ("B is not fault 1: then nothing of a portrait", lambda: {"A": 2, "B": 1, "C": 4, "D": 3}),
        ("D is not fault 2: then the portrait would lie on its side", lambda: {"A": 2, "B": 4, "C": 1, "D": 2}),
        ("C is not fault 4: then one pattern would repeat", {"A": 2, "B": 4, "C": 4, "D": 3}),
        ("Expected a dictionary", lambda: [2, 4, 1, 3]),
        ("Which fault has D?", lambda: {"A": 2, "B": 4, "C": 1}),
        ("no fault 6", lambda: {"A": 6, "B": 4, "C": 1, "D": 3}),
        ("the numbers of the faults", lambda: {"A": "sideways", "B": 4, "C": 1, "D": 3}),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "conditions20": one_hot_conditions,
    "packing": (
        lambda x: F.pixel_unshuffle(x, 2).flatten(2).mT,
        lambda x, h, w: F.pixel_shuffle(x.mT.reshape(len(x), 64, h // 2, w // 2), 2),
    ),
    "broken_loader": asks_for(lambda found, m: all((found[k] == (m == k)).all() for k in range(19))),
    "wrong_packings": {"D": "3", "C": "1", "B": "4", "A": "2"},
}
