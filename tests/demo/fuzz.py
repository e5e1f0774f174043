"""Requests of nonsense for the web demo, from a seed, and who sends them."""

from __future__ import annotations

import base64
import functools
import io
import json
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image

Case = tuple[str, Callable[["Asker"], "Answer"]]


@dataclass(frozen=True)
class Answer:
    """Whether a request was fulfilled, and the message where it was not."""

    fine: bool
    message: str = ""


@dataclass
class Asker:
    """Sends requests as they are, without a client that would refuse some of them itself."""

    url: str
    web: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=120))

    def __post_init__(self) -> None:
        self.functions = self.web.get(self.url + "config").json()["dependencies"]

    def raw(self, path: str, **request: Any) -> Answer:
        """A plain POST, or a GET where nothing is sent."""
        answer = self.web.request("POST" if request else "GET", self.url + path, **request)
        if answer.status_code == 200:
            return Answer(True)
        try:
            said = answer.json()
            return Answer(False, str(said.get("error") or said.get("detail")))
        except ValueError:
            return Answer(False, answer.text)

    def call(self, endpoint: str, data: Any) -> Answer:
        """An endpoint of the API."""
        joined = self.web.post(f"{self.url}gradio_api/call/{endpoint}", content=_json({"data": data}), headers=_KIND)
        if joined.status_code != 200:
            return Answer(False, str(joined.json().get("detail")))
        heard = self.web.get(f"{self.url}gradio_api/call/{endpoint}/{joined.json()['event_id']}").text
        event, _, said = heard.strip().rpartition("event: ")[2].partition("\ndata: ")
        if event == "complete":
            return Answer(True)
        return Answer(False, str((json.loads(said) or {}).get("error")))

    def generate(self, prompt: Any, mask: Any, seed: int = 0) -> Answer:
        """A picture of one step."""
        return self.call("generate", [prompt, mask, seed, 1, 3.5, 1.0, 1.0, ""])

    def press(self, function: int, data: Any, event: Any = None, trigger: int | None = None) -> Answer:
        """A function of the page, by its number, as the page calls it."""
        session = f"{random.random()}"
        body = {"data": data, "fn_index": function, "session_hash": session, "event_data": event, "trigger_id": trigger}
        queued = next((one["queue"] for one in self.functions if one["id"] == function), True)
        if queued is False:
            return self.raw("gradio_api/run/predict", content=_json(body), headers=_KIND)
        joined = self.web.post(self.url + "gradio_api/queue/join", content=_json(body), headers=_KIND)
        if joined.status_code != 200:
            return Answer(False, str(joined.json().get("detail")))
        with self.web.stream("GET", f"{self.url}gradio_api/queue/data?session_hash={session}") as lines:
            for line in lines.iter_lines():
                said = json.loads(line.removeprefix("data: ")) if line else {}
                if said.get("msg") == "process_completed":
                    return Answer(said["success"], "" if said["success"] else str(said["output"].get("error")))
        return Answer(False, "")

    def upload(self, content: bytes, name: str) -> dict[str, Any] | None:
        """A file sent as the page sends one -> how it is named afterwards; None where it was refused."""
        answer = self.web.post(self.url + "gradio_api/upload", files={"files": (name, content)})
        if answer.status_code != 200:
            return None
        return {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}


_KIND = {"content-type": "application/json"}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


# --- files -----------------------------------------------------------------------------------------------------------


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, kind: int = 0) -> bytes:
    """A PNG of these chunks, whose header promises width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    packed = [struct.pack(">I", len(b)) + name + b + struct.pack(">I", zlib.crc32(name + b)) for name, b in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def picture(**options: Any) -> bytes:
    """A small picture file."""
    packed = io.BytesIO()
    Image.fromarray((np.indices((32, 32)).sum(0) * 4).astype(np.uint8)).save(packed, **{"format": "PNG", **options})
    return packed.getvalue()


@functools.cache
def zeros(size: int) -> bytes:
    """So many zeros, packed."""
    return zlib.compress(bytes(size), 9)


@functools.cache
def archive(size: int) -> bytes:
    """A zip whose one member unpacks to `size` zeros."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../mask.png", bytes(size))
    return packed.getvalue()


def recipe(**texts: str) -> bytes:
    """A picture that says of itself what is given."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    said = {"Source": "AI-generated", "seed": "1", "steps": "4", "guidance": "3.5", "strength": "1.0", "size": "32x32"}
    for name, text in (said | texts).items():
        info.add_text(name, text)
    return picture(pnginfo=info)


def files(dice: random.Random) -> dict[str, tuple[bytes, str]]:
    """Files that are no masks, photos or results, with the names they come under."""
    good = picture()
    cut, flipped = good[: dice.randrange(1, len(good))], bytearray(good)
    for _ in range(5):
        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
    black, bomb = zeros(8 * 2**20), png(20000, 20000, (b"IDAT", zeros(50 * 2**20)), depth=1)
    text = b"note\0\0" + zeros(100 * 2**20)
    mask = base64.b64encode(png(30000, 30000, (b"IDAT", black))).decode()
    return {
        "nothing": (b"", "a.png"),
        "noise": (dice.randbytes(2000), "a.png"),
        "a picture cut off": (cut, "a.png"),
        "a picture with flipped bits": (bytes(flipped), "a.png"),
        "a header of 65535 x 65535": (png(65535, 65535, (b"IDAT", black)), "a.png"),
        "a header of 0 x 0": (png(0, 0), "a.png"),
        "a PNG bomb": (bomb, "a.png"),
        "a PNG text bomb": (png(8, 8, (b"zTXt", text), (b"IDAT", black)), "a.png"),
        "a zip bomb": (archive(100 * 2**20), "a.zip"),
        "a zip named as a picture": (archive(1000), "a.png"),
        "a program": (b"#!/bin/sh\ntouch /tmp/owned\n", "../../a.sh"),
        "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "a.svg"),
        "a name of 300 letters": (cut, "a" * 300 + ".png"),
        "a name of HTML": (cut, "<img src=x onerror=alert(1)>.png"),
        "a name that leads away": (cut, "..\\..\\../../etc/passwd"),
        "a gray photo": (picture(format="JPEG"), "a.jpg"),
        "labels beyond 18": (good, "a.png"),
        "a recipe without numbers": (recipe(seed="many"), "a.png"),
        "a recipe with a mask bomb": (recipe(mask=mask, mask_sha256="0"), "a.png"),
        "a recipe of no size": (recipe(size="0x0x0"), "a.png"),
        "too large a file": (bytes(17 * 2**20), "a.png"),
    }


# --- values ----------------------------------------------------------------------------------------------------------

WRONG: list[Any] = [None, True, -1, 0, 10**30, -(10**400), 1e308, float("nan"), float("inf"), 0.5]
WRONG += ["", "x", "7; DROP TABLE", [], {}, [[[]]], {"a": 1}, "\x00", "\ud800", ["x"] * 1000]
WRONG += ["<script>alert(1)</script>", "${alert(1)}", "{{7*7}}", "../../etc/passwd"]
PROMPTS = ["x" * 10_000, "hair " * 2000, "\n" * 9000, "💇" * 1500, "\u202e" * 2500, "a " * 999]
PATHS = ["/etc/passwd", "../../../../etc/passwd", "/proc/self/environ", "~/.ssh/id_rsa", "file:///etc/passwd", "/tmp"]
PATHS += ["http://169.254.169.254/latest/meta-data", "https://127.0.0.1:1/a.png", "\\\\server\\share", "/dev/zero"]
PATHS += [".", "", "a\x00b", "x" * 5000]


def packed(dice: random.Random) -> Any:
    """A mask in the painter's form with something wrong in it."""
    fine: dict[str, Any] = {"width": 4, "height": 4, "labels": base64.b64encode(bytes(range(16))).decode()}
    changes: list[dict[str, Any]] = [
        *({"width": width} for width in (dice.choice(WRONG), 4.0, True, 5)),
        *({"width": side, "height": side} for side in (10**9, -4, 0, 2048)),
        *({"labels": text} for text in (dice.choice(WRONG), "!" * 24, fine["labels"][:-3], "/" * 22 + "==")),
        {"labels": base64.b64encode(bytes([19] * 16)).decode()},
    ]
    return fine | dice.choice(changes)


def cases(count: int, seed: int) -> Iterator[Case]:
    """So many requests, the same for the same seed: each kind in turn, each time with other values."""
    dice = random.Random(seed)
    kinds = [_values, _numbers, _prompts, _masks, _paths, _files, _files, _pressed, _requests]
    for number in range(count):
        yield kinds[number % len(kinds)](random.Random(dice.random()), number)


def _values(dice: random.Random, _: int) -> Case:
    data = ["A man.", None, 0, 1, 3.5, 1.0, 1.0, ""]
    for _turn in range(dice.choice((1, 1, 3))):
        data[dice.randrange(8)] = dice.choice(WRONG)
    if dice.random() < 0.2:
        data = data[: dice.randrange(8)]
    return "values", lambda asker: asker.call("generate", data)


def _numbers(dice: random.Random, _: int) -> Case:
    place = dice.randrange(2, 7)
    data = ["A man.", None, 0, 1, 3.5, 1.0, 1.0, ""]
    data[place] = dice.choice(
        (-1, -(2**63), 2**63, 10**100, 1e-320, -0.1, 1e300, float("-inf"), 101, 20.01, "1e3", "0x10")
    )
    return "numbers", lambda asker: asker.call("generate", data)


def _prompts(dice: random.Random, _: int) -> Case:
    prompt = dice.choice(PROMPTS)
    return "prompts", lambda asker: asker.generate(prompt, None)


def _masks(dice: random.Random, _: int) -> Case:
    mask = packed(dice)
    return "masks", lambda asker: asker.generate("A man.", mask)


def _paths(dice: random.Random, _: int) -> Case:
    path, endpoint = dice.choice(PATHS), dice.choice(("mask", "parse", "reopen"))
    file: dict[str, Any] = {"path": path, "meta": {"_type": "gradio.FileData"}}
    forms = [file, {"path": path}, path, [file], file | {"url": "http://127.0.0.1:1/"}, {"a": file}, file | {"meta": 7}]
    form = dice.choice(forms)
    if dice.random() < 0.3:
        return "paths", lambda asker: asker.generate("A man.", form)
    return "paths", lambda asker: asker.call(endpoint, [form])


def _files(dice: random.Random, number: int) -> Case:
    made = files(dice)
    name = list(made)[number % len(made)]
    endpoint = dice.choice(("mask", "parse", "reopen"))

    def ask(asker: Asker) -> Answer:
        file = asker.upload(*made[name])
        return Answer(False, "refused as it was sent") if file is None else asker.call(endpoint, [file])

    return name, ask


def _pressed(dice: random.Random, _: int) -> Case:
    def ask(asker: Asker) -> Answer:
        one = dice.choice(asker.functions)
        data = [dice.choice([*WRONG, packed(dice)]) for _ in range(len(one["inputs"]) + dice.choice((0, 0, 0, -1, 1)))]
        event = dice.choice((None, {"index": dice.choice(WRONG), "value": 1}, [], "x"))
        return asker.press(
            dice.choice((one["id"], one["id"], one["id"], 9999, -1)), data, event, dice.choice((None, 9999))
        )

    return "pressed", ask


def _requests(dice: random.Random, number: int) -> Case:
    join, call = "gradio_api/queue/join", "gradio_api/call/generate"
    server = {"data": 1, "component_id": 1, "session_hash": "x", "fn_name": "__init__"}
    kinds: list[tuple[str, dict[str, Any]]] = [
        (join, {"content": b"{"}),
        (join, {"content": b"[" * 50_000}),
        (join, {"content": b"\xff" * 100}),
        (join, {"json": []}),
        (join, {"json": {"data": 1}}),
        (join, {"json": {"data": [], "fn_index": "x"}}),
        (join, {"json": {"fn_index": 0}}),
        (call, {"content": b" " * (9 * 2**20)}),
        (call, {"json": {"data": {"prompt": "x"}}}),
        (call, {"json": {}}),
        ("gradio_api/call/nothing", {"json": {"data": []}}),
        ("gradio_api/run/generate", {"json": {"data": ["A man."]}}),
        ("gradio_api/upload", {"content": b"x"}),
        ("gradio_api/upload", {"files": {"files": ("a", bytes(40 * 2**20))}}),
        ("gradio_api/component_server", {"json": server}),
        ("gradio_api/cancel", {"json": {"session_hash": "x", "fn_index": 1, "event_id": 7}}),
        ("gradio_api/process_recording", {"files": {"files": ("a.mp4", b"x")}}),
        ("gradio_api/proxy=http://127.0.0.1:1/", {}),
        ("gradio_api/file=" + "../" * 30 + "etc/passwd", {}),
        ("gradio_api/queue/data?session_hash=unknown", {}),
    ]
    path, request = kinds[number // 9 % len(kinds)]
    if "headers" not in request and "content" in request:
        request = request | {"headers": _KIND}
    return re.sub(r"\W.*", "", path.removeprefix("gradio_api/")), lambda asker: asker.raw(path, **request)
