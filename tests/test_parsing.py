"""Photo -> label map: by the classes' names, left and right as the person has them, however the photo was made.

The weights of parsers of photos are not part of the project; what stands in for them here has the same interface.
"""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from mogle import pictures
from mogle.assets.ledger import find
from mogle.conditions import condition_images
from mogle.datasets import FaceDataset
from mogle.errors import MogleError, MogleWarning
from mogle.labels import LABELS, ORDERS, decode_mask, save_mask
from mogle.parsing import ParsedFace, Parser, alignment, load_parser, parse_face
from mogle.parsing.parsers import network_parser

#: facer's own names (face_parsing/farl.py), where "r" and "l" are the viewer's: FaRL's data set class has "rr" for
#: CelebAMask-HQ's files "_l_ear". Its list for LaPa follows it.
FACER = ["background", "neck", "face", "cloth", "rr", "lr", "rb", "lb", "re", "le", "nose"]
FACER += ["imouth", "llip", "ulip", "hair", "eyeg", "hat", "earr", "neck_l"]
FACER_LAPA = ["background", "face", "rb", "lb", "re", "le", "nose", "ulip", "imouth", "llip", "hair"]
MEANS = {"rr": "l_ear", "lr": "r_ear", "rb": "l_brow", "lb": "r_brow", "re": "l_eye", "le": "r_eye", "face": "skin"}
MEANS |= {"imouth": "mouth", "llip": "l_lip", "ulip": "u_lip", "eyeg": "eye_g", "earr": "ear_r"}
#: What the reference's demo makes of FaRL's and SegFace's numbers of ears, brows and eyes.
REFERENCE_DEMO = {4: 9, 5: 8, 6: 7, 7: 6, 8: 5, 9: 4}
PAIRS = ("eye", "brow", "ear")
OTHER = {f"{a}_{part}": f"{b}_{part}" for part in PAIRS for a, b in ("lr", "rl")}
MIRRORED = np.array([LABELS.index(OTHER.get(name, name)) for name in LABELS])

#: Shapes on 256 x 256: name, box. Left and right of a pair have one colour, so that it does not tell them apart.
SHAPES = [
    ("cloth", (40, 215, 216, 300)), ("neck", (100, 170, 156, 235)), ("hair", (55, 25, 201, 150)),
    ("l_ear", (186, 105, 206, 145)), ("r_ear", (50, 105, 70, 145)), ("skin", (66, 45, 190, 210)),
    ("l_brow", (140, 84, 176, 94)), ("r_brow", (80, 84, 116, 94)), ("l_eye", (144, 102, 172, 118)),
    ("r_eye", (84, 102, 112, 118)), ("nose", (116, 118, 140, 150)), ("u_lip", (98, 162, 158, 174)),
    ("l_lip", (98, 172, 158, 186)),
]  # fmt: skip
POINTS = np.array([[98, 110], [158, 110], [128, 140], [98, 174], [158, 174]], dtype=float)
LEVELS = np.array([20, 130, 240])
SHADES = np.random.default_rng(887).permutation(np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS), -1).reshape(-1, 3))


def colour(name: str) -> tuple[int, ...]:
    """One for each class, the same for both of a pair."""
    return tuple(int(c) for c in SHADES[LABELS.index(f"l_{name[2:]}" if name[2:] in PAIRS else name)])


def drawn(turn: float = 0.0, scale: float = 1.0, place=(128, 128), size=(256, 256)) -> tuple[Image.Image, np.ndarray]:
    """A face as a photo of (width, height) and as its label map: scaled, turned by degrees, its middle at a place."""
    photo, labels = Image.new("RGB", (256, 256), colour("background")), Image.new("L", (256, 256))
    for name, box in SHAPES:
        ImageDraw.Draw(photo).ellipse(box, fill=colour(name))
        ImageDraw.Draw(labels).ellipse(box, fill=LABELS.index(name))
    matrix = np.linalg.inv(moves(turn, scale, place))[:2].ravel().tolist()
    method = Image.Transform.AFFINE
    photo = photo.transform(size, method, matrix, Image.Resampling.NEAREST, fillcolor=colour("background"))
    return photo, np.array(labels.transform(size, method, matrix, Image.Resampling.NEAREST))


def moves(turn: float, scale: float, place) -> np.ndarray:
    """(3, 3), from the drawing to the photo."""
    cos, sin = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    x, y = np.array(place) - np.array([[cos, -sin], [sin, cos]]) @ [128, 128]
    return np.array([[cos, -sin, x], [sin, cos, y], [0, 0, 1]])


class ByColour(nn.Module):
    """Stands in for FaRL: classes by colour, which of a pair by the side of the skin's middle that it lies on."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        there = [name for name, _ in SHAPES] + ["background"]
        colours = [colour(name) if name in there else (-999, -999, -999) for name in names]
        self.register_buffer("colours", torch.tensor(colours) / 255)
        self.skin: int = names.index("skin")
        left = torch.tensor([float(name in OTHER and name[0] == "l") for name in names])
        right = torch.tensor([float(name in OTHER and name[0] == "r") for name in names])
        self.register_buffer("wrong", 1000 * torch.stack([left, right])[:, :, None])

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # minus the squared distance from each colour, up to what all have in common
        near = torch.einsum("bchw,kc->bkhw", image, 2 * self.colours) - self.colours.square().sum(1)[:, None, None]
        skin = (near.argmax(1) == self.skin).float()
        columns = torch.arange(image.shape[3], device=image.device)
        on_the_right = (columns > (skin * columns).sum() / skin.sum().clamp(min=1)).float()
        logits = 100 * near - (self.wrong[0] * (1 - on_the_right) + self.wrong[1] * on_the_right)[:, None]
        return logits, logits


@pytest.fixture(scope="module")
def torchscript(tmp_path_factory):
    """A folder with a file of FaRL's name."""
    folder = tmp_path_factory.mktemp("farl")
    torch.jit.script(ByColour(ORDERS["farl"])).save(folder / find("farl", "weights").files[0].names[0])
    return folder


@pytest.fixture(scope="module")
def farl(torchscript):
    with pytest.warns(MogleWarning, match="runs code as it is loaded, and its hash is not known"):
        return load_parser("farl", torchscript, "cpu")


@pytest.fixture
def lock(tmp_path, monkeypatch):
    monkeypatch.setenv("MOGLE_ASSETS_LOCK", str(tmp_path / "lock.json"))
    return tmp_path / "lock.json"


def columns_of(label_map: np.ndarray) -> dict[str, float]:
    return {LABELS[label]: float(np.nonzero(label_map == label)[1].mean()) for label in np.unique(label_map)}


def right_share(found: ParsedFace, labels: np.ndarray) -> float:
    """Of the pixels that were cut out, those that have the label that was drawn."""
    cut_out = alignment.put_back(np.ones_like(found.crop_labels), found.corners, labels.shape) == 1
    assert cut_out.any() and not found.label_map[~cut_out].any(), "around it is background"
    return float((found.label_map == labels)[cut_out].mean())


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    return float((a == b).mean())


# --- names ---------------------------------------------------------------------------------------------------------


def test_the_orders_are_those_of_facer_by_name() -> None:
    assert [MEANS.get(name, name) for name in FACER] == ORDERS["farl"] == ORDERS["segface"]
    assert [MEANS.get(name, name) for name in FACER_LAPA] == ORDERS["lapa"]


def test_left_is_the_persons_own_in_a_photo_and_in_its_mirror_image(farl) -> None:
    photo, labels = drawn()
    found = parse_face(photo, farl)
    mirrored = parse_face(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), farl)
    assert right_share(found, labels) > 0.97 and right_share(mirrored, MIRRORED[labels[:, ::-1]]) > 0.97
    for one in (found, mirrored):
        columns = columns_of(one.label_map)
        assert all(columns[f"l_{part}"] > 128 > columns[f"r_{part}"] for part in PAIRS), "l_ is on the picture's right"


def test_the_references_exchange_of_left_and_right_is_not_ours() -> None:
    for number, theirs in REFERENCE_DEMO.items():
        ours = LABELS.index(ORDERS["farl"][number])
        assert ours != theirs and ours == MIRRORED[theirs]


def test_every_label_reaches_its_own_condition_and_none_its_brightness(farl, tmp_path) -> None:
    """The reference's demo turned its mask's colours to gray and compared those with labels."""
    labels = parse_face(drawn()[0], farl).crop_labels
    save_mask(tmp_path / "mask.png", labels)
    with Image.open(tmp_path / "mask.png") as file:
        assert not np.array_equal(np.asarray(file.convert("L")), labels)
    assert np.array_equal(decode_mask(tmp_path / "mask.png"), labels)
    local = np.asarray(condition_images(labels))[1:]
    for label in np.unique(labels):
        assert np.array_equal(local[label].max(0) > 0, labels == label), LABELS[label]


def test_a_network_is_held_to_the_classes_that_it_should_have(farl) -> None:
    with pytest.raises(MogleError, match="found a class 'face', expected background, skin"):
        network_parser("mine", 64, FACER, lambda image: image)
    with pytest.raises(MogleError, match="mine: found 3 classes, expected 19"):
        network_parser("mine", 64, LABELS, lambda image: image).parse(np.zeros((8, 8, 3), np.uint8))


# --- where the face is ---------------------------------------------------------------------------------------------


def test_the_frame_is_that_of_celeba_hq() -> None:
    points = [[100, 100], [140, 100], [120, 120], [105, 150], [135, 150]]
    frame = alignment.frame_of_points(points)  # eyes 40 apart, 50 above the mouth: half a side is 1.8 x 50
    assert np.allclose(frame, [[30, 15], [210, 15], [210, 195], [30, 195]])
    turned = moves(33, 0.7, (300, 200))
    there = np.c_[points, np.ones(5)] @ turned.T
    assert np.allclose(alignment.frame_of_points(there[:, :2]), (np.c_[frame, np.ones(4)] @ turned.T)[:, :2])


@pytest.mark.parametrize("turn", [0, 25, -40])
def test_a_face_anywhere_in_a_photo_is_found_turned_upright_and_put_back(farl, turn) -> None:
    photo, labels = drawn(turn, 1.2, (420, 300), (800, 600))
    found = parse_face(photo, farl)
    there = (np.c_[POINTS, np.ones(5)] @ moves(turn, 1.2, (420, 300)).T)[:, :2]
    exact = parse_face(photo, farl, points=there)
    assert (found.aligned_by, exact.aligned_by) == ("features", "points")
    side = np.hypot(*(exact.corners[1] - exact.corners[0]))
    assert abs(found.corners - exact.corners).max() < 0.05 * side
    for one in (found, exact):
        assert one.crop.size == (512, 512) and one.crop_labels.shape == (512, 512) and one.label_map.shape == (600, 800)
        assert right_share(one, labels) > 0.97
        rows = [np.nonzero(one.crop_labels == LABELS.index(name))[0].mean() for name in ("l_eye", "r_eye")]
        assert abs(rows[0] - rows[1]) < 8 and 220 < rows[0] < 270, "level, as high as in CelebA-HQ"


def test_a_box_says_where_to_look(farl) -> None:
    photo, labels = drawn(0, 0.5, (700, 120), (800, 600))
    found = parse_face(photo, farl, box=(669, 78, 731, 161))
    assert found.aligned_by == "features" and right_share(found, labels) > 0.97
    covered = photo.copy()  # no eyes to be seen: the head is cut out as a whole, and not turned
    ImageDraw.Draw(covered).rectangle((672, 95, 728, 118), fill=colour("skin"))
    assert parse_face(covered, farl, box=(669, 78, 731, 161)).aligned_by == "box"


def test_the_larger_of_two_faces_is_taken(farl) -> None:
    photo, _ = drawn(0, 1.2, (250, 300), (800, 600))
    photo.paste(drawn(0, 0.8, (150, 150), (300, 300))[0], (480, 150))
    assert parse_face(photo, farl).corners.mean(0)[0] == pytest.approx(250, abs=15)


def test_a_picture_that_was_aligned_before_can_be_taken_as_it_is(farl) -> None:
    photo, labels = drawn()
    found = parse_face(photo, farl, align=False)
    assert found.aligned_by == "whole" and found.label_map.shape == labels.shape
    assert agreement(found.label_map, labels) > 0.97 and agreement(found.crop_labels[::2, ::2], labels) > 0.97
    wide, labels = drawn(size=(300, 256), place=(150, 128))
    found = parse_face(wide, farl, align=False, size=256)
    assert found.label_map.shape == (256, 300) and agreement(found.label_map, labels) > 0.95


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"points": POINTS[[1, 0, 2, 3, 4]]}, "points: found the eyes in the wrong order"),
        ({"points": POINTS[:3]}, r"points: found shape \(3, 2\), expected five"),
        ({"points": "eyes"}, "points: found no numbers"),
        ({"box": (9, 0, 5, 5)}, r"box: found \(9, 0, 5, 5\), expected left, top, right, bottom"),
        ({"box": (0, 0, float("inf"), 5)}, "box: found shape"),
    ],
)
def test_places_that_are_none_are_refused(farl, given, words) -> None:
    with pytest.raises(MogleError, match=words):
        parse_face(drawn()[0], farl, **given)


def test_no_face_is_said_plainly(farl) -> None:
    with pytest.raises(MogleError, match="photo: the parser 'farl' found no face; expected eyes, nose and mouth"):
        parse_face(Image.new("RGB", (300, 200), colour("background")), farl)
    with pytest.raises(MogleError, match="knows painted portraits alone, photos need another one"):
        parse_face(Image.new("RGB", (128, 128), (90, 120, 160)))


# --- photos as people have them ------------------------------------------------------------------------------------

AS_IT_IS = Parser("stub", 0, lambda picture: np.asarray(Image.fromarray(drawn()[1]).resize(picture.shape[1::-1], 0)))


def test_a_photo_is_held_as_exif_says(farl, tmp_path) -> None:
    photo, labels = drawn(0, 1.0, (128, 150), (256, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    photo.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "held.png", exif=exif)
    for form in (tmp_path / "held.png", (tmp_path / "held.png").read_bytes(), Image.open(tmp_path / "held.png")):
        assert np.array_equal(parse_face(form, AS_IT_IS).photo, photo)
    assert right_share(parse_face(tmp_path / "held.png", farl), labels) > 0.97


def test_gray_palette_cmyk_and_transparent_photos_are_read_by_their_colours(tmp_path) -> None:
    photo = drawn()[0]
    gray, palette, cmyk = photo.convert("L"), photo.quantize(64), photo.convert("CMYK")
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    clear = photo.copy()
    clear.putalpha(255)
    for picture, expected in ((gray, gray), (palette, photo), (cmyk, photo), (clear, photo), (deep, gray)):
        off = np.asarray(parse_face(picture, AS_IT_IS).photo, int) - np.asarray(expected.convert("RGB"))
        assert abs(off).max() <= 1, picture.mode
    clear.putalpha(0)
    with pytest.warns(MogleWarning, match="100% of the picture is transparent"):
        parse_face(clear, AS_IT_IS)
    assert parse_face(np.asarray(photo), AS_IT_IS).photo.size == (256, 256)
    for strange in (np.zeros((4, 4, 7), np.uint8), np.zeros((4, 4, 3)), None, {"a": 1}):
        with pytest.raises(MogleError, match="photo: "):
            parse_face(strange, AS_IT_IS)


def test_huge_photos_are_reduced_first(farl, tmp_path, monkeypatch) -> None:
    photo, labels = drawn(10, 3.0, (650, 550), (1300, 1100))
    photo.save(tmp_path / "huge.jpg", quality=95)
    photo.save(tmp_path / "huge.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1_000_000)
    monkeypatch.setattr("mogle.parsing.LONGEST", 600)
    points = (np.c_[POINTS, np.ones(5)] @ moves(10, 3.0, (650, 550)).T)[:, :2]
    for given in ({}, {"points": points}):  # in pixels of the photo as it is
        found = parse_face(tmp_path / "huge.jpg", farl, **given)
        assert (
            found.photo.size == (600, 508)
            and right_share(found, np.array(Image.fromarray(labels).resize((600, 508), 0))) > 0.93
        )
    with pytest.raises(MogleError, match="huge.png: found 1300 x 1100 pixels"):
        parse_face(tmp_path / "huge.png", farl)
    monkeypatch.setattr(pictures, "MAX_PHOTO", 1_000_000)
    with pytest.raises(MogleError, match="huge.jpg: found 1300 x 1100 pixels"):
        parse_face(tmp_path / "huge.jpg", farl)


# --- parsers and their weights -------------------------------------------------------------------------------------


def test_the_portraits_parser_is_the_judges() -> None:
    dataset = FaceDataset("data/portraits", split=None)
    parser, swaps = load_parser("portraits", device="cpu"), []
    for index in range(3):
        picture = np.asarray(dataset.image(index))
        found = parse_face(picture, parser)
        assert found.aligned_by == "whole" and np.array_equal(found.label_map, parser.parse(picture))
        assert np.array_equal(found.crop, picture) and np.array_equal(found.crop_labels, found.label_map)
        assert agreement(found.label_map, dataset.label_map(index)) > 0.95
        swaps.append(agreement(MIRRORED[parse_face(picture[:, ::-1], parser).label_map[:, ::-1]], found.label_map))
    assert min(swaps) > 0.93, "a mirrored portrait has left and right exchanged"


@pytest.mark.parametrize("name", ["farl", "segformer"])
def test_absent_weights_are_named_with_the_command_that_fetches_them(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (None, tmp_path):
        with pytest.raises(MogleError, match=f"`mogle weights get {name}` fetches them"):
            load_parser(name, folder, "cpu")
    assert find(name, "weights").to == f"checkpoints/{name}"
    with pytest.raises(MogleError, match="parser 'dlib': expected one of portraits, segformer, farl"):
        parse_face(drawn()[0], "dlib")


def test_torchscript_is_held_to_the_hash_of_its_download(torchscript, lock, tmp_path, monkeypatch) -> None:
    asset = find("farl", "weights")
    name = asset.files[0].names[0]
    (tmp_path / "checkpoints" / "farl").mkdir(parents=True)
    (tmp_path / "checkpoints" / "farl" / name).write_bytes((torchscript / name).read_bytes())
    from mogle.assets.ledger import verify

    seen = verify(asset, name, torchscript / name)
    lock.write_text(json.dumps({asset.source: {"revision": "", "files": {name: seen}}}))
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MogleWarning)
        assert load_parser("farl", device="cpu").side == 448
    with (tmp_path / "checkpoints" / "farl" / name).open("ab") as file:
        file.write(b"more")
    with pytest.raises(MogleError, match="found size .*, expected .*lock.json"):
        load_parser("farl", device="cpu")
    lock.unlink()
    (tmp_path / "checkpoints" / "farl" / name).write_bytes(b"none")
    with pytest.warns(MogleWarning), pytest.raises(MogleError, match="cannot be loaded as TorchScript"):
        load_parser("farl", device="cpu")


def test_segformer_is_read_by_its_own_names_and_from_safetensors_alone(tmp_path) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    names = [LABELS[i] for i in np.random.default_rng(0).permutation(len(LABELS))]
    torch.manual_seed(0)
    small = {"depths": [1] * 4, "hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2]}
    named = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    config = SegformerConfig(**small, **named, decoder_hidden_size=8)
    network = SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path)
    picture = np.random.default_rng(1).integers(0, 256, (96, 80, 3), dtype=np.uint8)
    found = load_parser("segformer", tmp_path, "cpu")
    assert found.side == 512 and found.parse(picture).shape == (96, 80)
    with torch.inference_mode():
        image = torch.tensor(picture).permute(2, 0, 1)[None] / 255
        image = nn.functional.interpolate(image, (512, 512), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(x)[:, None, None] for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        logits = network((image - mean) / std).logits
        numbers = nn.functional.interpolate(logits, (96, 80), mode="bilinear").argmax(1)[0]
    assert np.array_equal(found.parse(picture), [[LABELS.index(names[n]) for n in row] for row in numbers.tolist()])

    settings = json.loads((tmp_path / "config.json").read_text())
    settings["id2label"]["3"] = "moustache"
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(MogleError, match="segformer: found a class 'moustache'"):
        load_parser("segformer", tmp_path, "cpu")
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MogleError, match="found no model.safetensors"):
        load_parser("segformer", tmp_path, "cpu")
