"""Exercises of notebook 12, playground: solutions, and checkers that raise `Wrong` with hints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mogle.labels import LABELS
from mogle.labels.anatomy import doubt
from mogle.words import read_caption
from workbook.checking import Exercise, Wrong
from workbook.figures import EXPERTS

NOTEBOOK = "12_playground"
PATCH = 16  # pixels on a side of what a token stands for
VISIBLE = 20  # pixels of a thing at 128 px, from which on it can be seen
#: What a mask shows or does not show, and a sentence can say: attribute -> its class.
THINGS = {
    "hat": LABELS.index("hat"),
    "eyeglasses": LABELS.index("eye_g"),
    "earrings": LABELS.index("ear_r"),
    "necklace": LABELS.index("neck_l"),
    "mouth_open": LABELS.index("mouth"),
}


def _label(name: str) -> int:
    return LABELS.index(name)


def _label_map(answer: Any, what: str) -> np.ndarray:
    """The answer as a label map uint8 (H, W).

    Raises:
        Wrong: it is none.
    """
    array = np.asarray(answer)
    if array.ndim == 3:
        raise Wrong(f"{what} has the shape {array.shape}, a picture's; expected a label map (H, W), a class a pixel.")
    if array.ndim != 2 or array.dtype.kind not in "ui":
        raise Wrong(f"{what} is {array.dtype} of shape {array.shape}; expected a label map, uint8 (H, W).")
    if array.size and (array.min() < 0 or array.max() >= len(LABELS)):
        raise Wrong(f"{what} has the label {array.max()}; there are {len(LABELS)}, from 0 to {len(LABELS) - 1}.")
    return array.astype(np.uint8)


# --- predict what a stroke touches -------------------------------------------------------------------------------


def touched(before: np.ndarray, after: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Label maps (H, W) twice -> names of the experts whose pictures differ, and of which tokens the patches do."""
    changed = before != after
    experts = ["global"] if changed.any() else []
    experts += [name for k, name in enumerate(LABELS) if ((before == k) != (after == k)).any()]
    height, width = changed.shape
    return experts, changed.reshape(height // PATCH, PATCH, width // PATCH, PATCH).any(axis=(1, 3))


def _edits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of label maps (48, 64)."""
    before = np.zeros((48, 64), np.uint8)
    before[8:40, 10:50], before[:12, 10:50], before[20:23, 18:26], before[20:23, 34:42] = 1, 13, 7, 6
    before[44:, :] = 18
    lower, swapped, hat = before.copy(), before.copy(), before.copy()
    lower[12:15, 12:30] = 13
    swapped[before == 7], swapped[before == 6] = 6, 7
    hat[:6, 10:50] = 14
    return {"hat": (before, hat), "lower": (before, lower), "swapped": (before, swapped), "none": (before, before)}


def check_touched(function: Callable[..., Any]) -> None:
    """Label maps (H, W) before and after -> (names of experts, boolean (H/16, W/16))."""
    for before, after in _edits().values():
        found = function(before.copy(), after.copy())
        if found is None:
            raise Wrong("It returned None: is there a `return` at the end?")
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise Wrong("Expected two things: the experts' names, and a map of the tokens.")
        _check_experts(found[0], before, after)
        _check_tokens(found[1], before, after)


def _check_experts(names: Any, before: np.ndarray, after: np.ndarray) -> None:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise Wrong("Expected names of experts, such as those in EXPERTS: 'global', then the classes.")
    said, (expected, _) = set(names), touched(before, after)
    right, changed = set(expected), before != after
    if said == right:
        return
    if unknown := said - set(EXPERTS):
        raise Wrong(f"There is no expert {sorted(unknown)[0]!r}; the names are in EXPERTS.")
    gone, come = ({LABELS[k] for k in np.unique(one[changed])} for one in (before, after))
    if not changed.any():
        raise Wrong(f"Nothing was changed, and you name {', '.join(sorted(said))}: equal masks give equal pictures.")
    if said == right - {"global"}:
        raise Wrong(
            "The global expert is missing: its picture shows the whole mask in colours, so every edit is in it."
        )
    if said - {"global"} == come:
        raise Wrong("Only the classes that gain pixels? The class that loses them has another picture, too.")
    if said - {"global"} == gone:
        raise Wrong("Only the classes that lose pixels? The class that gains them has another picture, too.")
    if said >= {LABELS[k] for k in np.unique(after)}:
        raise Wrong("Those are all classes of the mask; a class whose pixels stay has the same picture as before.")
    sizes = {LABELS[k] for k in range(len(LABELS)) if (before == k).sum() != (after == k).sum()}
    if said - {"global"} == sizes:
        raise Wrong("Counting pixels does not suffice: two classes that change places keep their sizes.")
    wrong = sorted(said ^ right)[0]
    verb = "is missing" if wrong in right else "is not touched"
    raise Wrong(f"{wrong} {verb}: a picture changes where a pixel begins or ceases to be of its class.")


def _check_tokens(tokens: Any, before: np.ndarray, after: np.ndarray) -> None:
    found, expected, changed = np.asarray(tokens), touched(before, after)[1], before != after
    if found.shape == expected.shape and found.dtype == bool and (found == expected).all():
        return
    height, width = before.shape
    if found.shape == before.shape:
        raise Wrong("That is a map of pixels; a token stands for a patch of 16 x 16 of them.")
    if found.shape == (height // 8, width // 8):
        raise Wrong("A patch of 8 pixels is a latent; a token is 2 x 2 of them, 16 pixels.")
    if found.shape != expected.shape:
        raise Wrong(f"The map of tokens has the shape {found.shape}, expected {expected.shape}: rows and columns.")
    if found.dtype != bool:
        raise Wrong(f"The map of tokens holds {found.dtype}; expected True where a patch has changed, and False.")
    patches = changed.reshape(height // PATCH, PATCH, width // PATCH, PATCH)
    if (found == patches.all(axis=(1, 3))).all():
        raise Wrong("One changed pixel in a patch suffices: any, not all.")
    if (found == (patches.mean(axis=(1, 3)) > 0.5)).all():
        raise Wrong("Less than half of a patch is enough: one changed pixel changes its token.")
    if (found == ~expected).all():
        raise Wrong("The map is the wrong way round: True where something has changed.")
    if (found == changed[::PATCH, ::PATCH]).all():
        raise Wrong("You looked at one pixel of each patch; a stroke may lie beside it.")
    raise Wrong(
        f"{int((found != expected).sum())} of {expected.size} tokens are wrong: which patches does a change meet?"
    )


# --- paint what was ordered --------------------------------------------------------------------------------------


def commission() -> np.ndarray:
    """A face as it was ordered, uint8 (128, 128): symmetric, glasses, open mouth, hair below the mouth, no hat."""
    y, x = np.mgrid[:128, :128] + 0.5
    side = abs(x - 64)  # of a symmetric face all that counts is how far a pixel lies from the middle

    def oval(right: float, down: float, wide: float, high: float) -> np.ndarray:
        return ((side - right) / wide) ** 2 + ((y - down) / high) ** 2 < 1

    shapes = {
        "cloth": (y > 112) & (side < 20 + 1.5 * (y - 112)), "hair": oval(0, 58, 42, 50) & (y < 104),
        "neck": (side < 11) & (y > 90) & (y < 116), "skin": oval(0, 64, 29, 37), "nose": oval(0, 72, 5, 9),
        "u_lip": oval(0, 86, 11, 3.5), "l_lip": oval(0, 91, 10, 4), "mouth": oval(0, 88.5, 8, 2),
        "l_brow": oval(13, 50, 7, 1.8), "l_eye": oval(13, 60, 4, 2.5),
        "eye_g": oval(13, 60, 9.5, 6.5) | oval(0, 60, 4, 1.5),
    }  # fmt: skip
    drawing = np.zeros((128, 128), np.uint8)
    for name, where in shapes.items():
        drawing[where] = _label(name)
    drawing[(drawing == _label("l_brow")) & (x < 64)] = _label("r_brow")  # the person's right lies on our left
    return drawing


def _mirrored(label_map: np.ndarray) -> np.ndarray:
    """The mask of the mirror image: sides and left and right names exchanged."""
    names = list(LABELS)
    other = [name.replace("l_", "r_", 1) if name.startswith("l_") else name.replace("r_", "l_", 1) for name in names]
    swap = [names.index(b) if b in names and a not in ("l_lip", "neck_l") else names.index(a)
            for a, b in zip(names, other, strict=True)]  # fmt: skip
    return np.array(swap, np.uint8)[label_map][:, ::-1]


def check_commission(answer: Any) -> None:
    """A label map (H, W), or a function that gives one: it is what was ordered."""
    drawing = _label_map(answer() if callable(answer) else answer, "Your mask")
    height, width = drawing.shape
    if height % PATCH or width % PATCH:
        raise Wrong(f"{height} x {width} pixels are no whole patches of {PATCH}: 128 x 128 will do.")
    share = {name: (drawing == k).mean() for k, name in enumerate(LABELS)}
    rows = {name: np.nonzero(drawing == k)[0] for k, name in enumerate(LABELS)}
    columns = {name: np.nonzero(drawing == k)[1] for k, name in enumerate(LABELS)}
    if share["skin"] < 0.08:
        raise Wrong(f"Skin covers {share['skin']:.1%} of the picture; a face that fills it has at least 8 %.")
    if share["hat"]:
        raise Wrong(f"There is a hat ({share['hat']:.1%} of the picture); it was ordered without one.")
    if share["eye_g"] < 0.01:
        raise Wrong(f"Glasses (eye_g) cover {share['eye_g']:.1%}; what can be seen has at least 1 % of the picture.")
    if missing := [name for name in ("nose", "u_lip", "l_lip", "l_brow", "r_brow", "hair") if not share[name]]:
        raise Wrong(f"There is no {missing[0]}; a face has hair, two brows, a nose and two lips.")
    if share["mouth"] < 0.002:
        raise Wrong("The mouth is closed: an open one shows the class `mouth`, at least 0.2 % of the picture.")
    if columns["r_brow"].mean() > columns["l_brow"].mean():
        raise Wrong("Left and right are exchanged: they are the person's own, so r_brow lies on the picture's left.")
    if not rows["u_lip"].mean() < rows["mouth"].mean() < rows["l_lip"].mean():
        raise Wrong("The opening of the mouth has to lie between the upper lip (above) and the lower lip.")
    if rows["eye_g"].mean() > rows["nose"].mean():
        raise Wrong("The glasses lie below the nose; they belong above it, where the eyes are.")
    middle, lowest = width / 2, rows["l_lip"].max()
    hair = [rows["hair"][part].max(initial=0) for part in (columns["hair"] < middle, columns["hair"] >= middle)]
    if min(hair) <= lowest:
        where = (
            "on both sides" if max(hair) <= lowest else f"on the picture's {'left' if hair[0] < hair[1] else 'right'}"
        )
        raise Wrong(f"The hair ends above the mouth {where}; ordered was hair that hangs down below it on both sides.")
    alike = (_mirrored(drawing) == drawing).mean()
    if alike < 0.92:
        raise Wrong(
            f"Mirrored, {alike:.0%} of the pixels stay the same; ordered was a face from the front, 92 % at least."
        )
    if fault := doubt(drawing):
        raise Wrong(f"The package doubts that this is a face: {fault}")


# --- quarrel with a sentence -------------------------------------------------------------------------------------


def quarrel(mask: np.ndarray) -> tuple[np.ndarray, str]:
    """A mask with one thing more, and a sentence that denies this thing and nothing else."""
    rows, columns = np.nonzero(np.isin(mask, (_label("l_eye"), _label("r_eye"))))
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    edited = mask.copy()
    for names in ("l_eye", "r_eye"):
        eye = np.nonzero(mask == _label(names))
        edited[np.hypot(y - eye[0].mean(), 0.75 * (x - eye[1].mean())) < 7] = _label("eye_g")
    bridge = (abs(y - rows.mean()) < 1.5) & (x > columns.min()) & (x < columns.max())
    edited[bridge] = _label("eye_g")
    return edited, "She has red hair and wears no glasses."


def shown(mask: np.ndarray) -> dict[str, bool]:
    """Of hat, glasses, earrings, necklace and open mouth: whether a mask shows them, 20 pixels at 128 px at least."""
    enough = VISIBLE * mask.size / 128**2
    return {name: bool((mask == label).sum() >= enough) for name, label in THINGS.items()}


def contradictions(mask: np.ndarray, sentence: str) -> list[str]:
    """The things of which the sentence says the opposite of what the mask shows."""
    said, seen = read_caption(sentence), shown(mask)
    return [name for name in THINGS if name in said and (said[name] == "yes") != seen[name]]


def check_quarrel(function: Callable[..., Any]) -> None:
    """A mask (H, W) -> an edited mask and a sentence that contradict each other in exactly one thing."""
    before = _woman()
    found = function(before.copy())
    if found is None:
        raise Wrong("It returned None: is there a `return` at the end?")
    if not isinstance(found, (tuple, list)) or len(found) != 2 or not isinstance(found[1], str):
        raise Wrong("Expected two things: the edited mask, and a sentence.")
    edited, sentence = _label_map(found[0], "The edited mask"), found[1]
    if edited.shape != before.shape:
        raise Wrong(f"The edited mask has the shape {edited.shape}, expected that of the old one, {before.shape}.")
    if (edited == before).all():
        raise Wrong("The mask is as it was: paint something into it, or over something.")
    said, things = read_caption(sentence), shown(edited)
    stated: Mapping[str, str] = {name: value for name, value in said.items() if name in THINGS}
    if not said:
        raise Wrong(f"Nothing that a mask or a judge knows is said in “{sentence}”.")
    if not stated:
        raise Wrong(
            f"The sentence speaks of {', '.join(said)}; a mask shows whether there are {', '.join(THINGS)}: only "
            "of these can it say otherwise."
        )
    found_things = contradictions(edited, sentence)
    if not found_things:
        name, value = next(iter(stated.items()))
        what = "has" if things[name] else "does not have"
        raise Wrong(
            f"Both agree: the sentence says {value} to {name}, and the mask {what} at least {VISIBLE} pixels of it."
        )
    if len(found_things) > 1:
        raise Wrong(f"They disagree in {len(found_things)} things ({', '.join(found_things)}); one at a time.")
    if shown(before)[found_things[0]] == things[found_things[0]]:
        raise Wrong(
            f"About {found_things[0]} the mask says what it said before; let your edit be what they disagree on."
        )
    if (changed := (edited != before).mean()) > 0.35:
        raise Wrong(
            f"Your edit changes {changed:.0%} of the mask; keep the rest as it is, or you cannot see who has won."
        )


def _woman() -> np.ndarray:
    """A face with an earring and none of the other things, eyes in sight."""
    drawing = commission()
    drawing[drawing == _label("eye_g")] = _label("skin")
    drawing[drawing == _label("mouth")] = _label("l_lip")
    drawing[58:63, 47:56], drawing[58:63, 72:81] = _label("r_eye"), _label("l_eye")
    drawing[72:82, 92:95] = _label("ear_r")
    return drawing


EXERCISES = (
    Exercise("touched", NOTEBOOK, 2, 15, check_touched, (touched,), (
        "Which of the twenty pictures would you have to paint anew? And which squares of 16 x 16 pixels does the "
        "stroke meet?",
        "Class k has another picture where (before == k) and (after == k) differ; the global one where anything does.",
        "changed = before != after; changed.reshape(H // 16, 16, W // 16, 16).any(axis=(1, 3)) gives the tokens.",
    )),
    Exercise("quarrel", NOTEBOOK, 2, 15, check_quarrel, (quarrel,), (
        "One thing that a mask shows: a hat, glasses, earrings, a necklace, an open mouth. Let one of both deny it.",
        "Paint it into a copy of the mask, or paint over it; `read_caption(sentence)` tells what your sentence states.",
        "edited = mask.copy(); edited[100:104, 50:78] = LABELS.index('neck_l'); with “She wears no necklace.”",
    )),
    Exercise("commission", NOTEBOOK, 2, 20, check_commission, (commission,), (
        "Paint from large to small, so that what comes later lies on top: hair, neck, skin, nose, lips, mouth, brows, "
        "glasses.",
        "`side = abs(x - 64)` makes everything symmetric at once; then name the right half's brow l_brow.",
        "An ellipse is ((side - right) / wide) ** 2 + ((y - down) / high) ** 2 < 1; drawing[ellipse] = "
        "LABELS.index('skin'). By hand: the painter's mirror key is m.",
    )),
)  # fmt: skip
