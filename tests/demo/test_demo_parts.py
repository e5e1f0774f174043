"""The parts of the web demo, without a server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import threading
import time
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from starlette.exceptions import HTTPException

from mogle.cli import app
from mogle.demo import studio as studio_module
from mogle.demo.guard import Guard, check_json, scrubbed
from mogle.demo.notes import noted
from mogle.demo.server import Serving, check_address, environment, is_loopback, load_examples, read_auth
from mogle.demo.shelf import Shelf
from mogle.demo.snippets import Example, buttons, data_url, file_url, shown
from mogle.demo.studio import Drawn, Progress, Studio
from mogle.demo.wishes import BOTH, MASK, WORDS, caption, chosen, fields_of, new_seed, read_wish, recipe_of, told
from mogle.errors import Cancelled, MogleError, MogleWarning
from mogle.labels import decode_mask, resize_labels, save_mask
from mogle.painter import pack
from mogle.provenance import Recipe, read_picture

FACE = np.ones((32, 32), np.uint8)
RECIPE = Recipe("A man.", FACE, 2**62 + 1, 4, 3.5, 1.0, 32, 32, 1.5)


# --- wishes --------------------------------------------------------------------------------------------------------


def test_a_wish_has_the_defaults_of_mogle_generate() -> None:
    from mogle.sampling import Settings

    wish, settings = read_wish(prompt="  A man. ", seed="7", size=None), Settings()
    assert (wish.prompt, wish.seed) == ("A man.", 7)
    for name in ("steps", "guidance", "mask_guidance", "strength"):
        assert getattr(wish, name) == getattr(settings, name), name


@pytest.mark.parametrize(
    "values, words",
    [
        ({"prompt": "x" * 10_000}, "prompt: found 10000 characters, expected at most 2000"),
        ({"prompt": ["x"]}, "prompt: found ['x']"),
        ({"seed": -1}, "seed: found -1"),
        ({"seed": 2**63}, "seed: found 9223372036854775808"),
        ({"seed": 1.5}, "seed: found 1.5"),
        ({"seed": "seven"}, "seed: found 'seven'"),
        ({"steps": 10**400}, "steps: found"),
        ({"steps": 0}, "steps: found 0, expected greater than or equal to 1"),
        ({"guidance": float("nan")}, "guidance: found nan"),
        ({"mask_guidance": float("inf")}, "mask guidance: found inf"),
        ({"strength": {}}, "strength: found {}"),
        ({"size": "big"}, "size: found 'big', expected a side in pixels or WIDTHxHEIGHT"),
        ({"size": 256}, "size: found 256"),
        ({"colour": "red"}, "colour: found 'red'"),
    ],
)
def test_what_cannot_be_asked_for_is_named(values, words) -> None:
    with pytest.raises(MogleError) as raised:
        read_wish(**values)
    assert words in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 250


def test_a_recipe_has_what_was_wished() -> None:
    wish = read_wish(prompt="A man.", seed=5, steps=3, guidance=2, mask_guidance=1.5, strength=0.5, size="32x64")
    recipe = recipe_of(wish, FACE, 128)
    assert not recipe.differences(Recipe("A man.", FACE, 5, 3, 2.0, 0.5, 64, 32, 1.5))
    assert recipe_of(read_wish(prompt=""), FACE, 128).prompt is None
    assert recipe_of(read_wish(prompt="A man.", size="64"), None, 128).height == 64


@pytest.mark.parametrize(
    "values, mask, words",
    [
        ({}, None, "neither a sentence nor a mask"),
        ({"prompt": " \n "}, None, "neither a sentence nor a mask"),
        ({"prompt": "A man."}, np.zeros((32, 32), np.uint8), "the mask is empty"),
        ({"prompt": "A man.", "size": "100"}, None, "multiples of 16"),
        ({"prompt": "A man.", "size": "0x16"}, None, "multiples of 16"),
        ({"prompt": "A man.", "size": "9984x9984"}, None, "expected at most 65536"),
    ],
)
def test_a_recipe_that_cannot_be_drawn_is_refused(values, mask, words) -> None:
    with pytest.raises(MogleError, match=words):
        recipe_of(read_wish(**values), mask, 128)


def test_pictures_of_a_large_base_may_have_its_own_size() -> None:
    assert recipe_of(read_wish(prompt="A man.", size="1280"), None, 1280).height == 1280
    with pytest.raises(MogleError, match="at most 1048576"):
        recipe_of(read_wish(prompt="A man.", size="1280"), None, 512)


def test_a_recipe_comes_back_from_the_fields_of_the_page() -> None:
    for prompt, mask, mode in [("A man.", FACE, BOTH), ("A man.", None, WORDS), (None, FACE, MASK)]:
        for side in (32, 128):
            recipe = Recipe(prompt, mask, 2**62 + 1, 4, 3.5, 1.0, 32, 32, 1.5)
            fields, notes = fields_of(recipe, side)
            assert fields["mode"] == mode and not notes and fields["seed"] == "4611686018427387905"
            assert fields["size"] == ("" if side == 32 else "32x32")
            words, shape = chosen(fields.pop("mode"), fields.pop("prompt"), mask)
            again = recipe_of(read_wish(prompt=words, **fields), shape, side)
            assert set(again.differences(recipe)) <= {"height", "width"}
            assert again.height in (0, 32)


def test_what_the_page_cannot_show_of_a_recipe_is_said() -> None:
    fields, notes = fields_of(Recipe("A man.", None, 0, 1000, 50.0, 1.0, 32, 32), 32)
    assert (fields["steps"], fields["guidance"]) == (100, 20) and len(notes) == 2 and "1000" in notes[0]


def test_a_choice_leaves_out_the_other_half() -> None:
    assert chosen(WORDS, "A man.", FACE) == ("A man.", None)
    assert chosen(MASK, "A man.", FACE)[0] == ""
    with pytest.raises(MogleError, match="expected one of Mask and sentence"):
        chosen({"a": 1}, "A man.", FACE)


def test_a_recipe_is_told_without_its_mask() -> None:
    assert json.dumps(told(RECIPE)) and told(RECIPE)["has_mask"] and "mask" not in told(RECIPE)
    assert caption(RECIPE).startswith("seed 4611686018427387905, steps 4") and "alone" not in caption(RECIPE)
    assert len({new_seed() for _ in range(20)}) > 1


# --- notes ---------------------------------------------------------------------------------------------------------


def test_each_thread_hears_its_own_notes(recwarn) -> None:
    heard: dict[int, list[str]] = {}
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        with noted() as notes:
            for turn in range(20):
                barrier.wait()
                warnings.warn(f"{number} {turn}", MogleWarning, stacklevel=1)
                warnings.warn("not ours", UserWarning, stacklevel=1)
        heard[number] = notes

    with warnings.catch_warnings():
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert heard == {number: [f"{number} {turn}" for turn in range(20)] for number in range(4)}


# --- shelf ---------------------------------------------------------------------------------------------------------


def test_a_result_is_kept_with_its_recipe(tmp_path) -> None:
    shelf = Shelf(tmp_path)
    path = shelf.keep(Image.new("RGB", (32, 32)), RECIPE, {"base": "tiny"})
    assert tmp_path in path.parents and not read_picture(path)[1].differences(RECIPE)
    found, recipe = shelf.result({"path": str(path), "orig_name": "mine.png"})
    assert found == path and not recipe.differences(RECIPE)
    assert path.parent != shelf.keep(Image.new("RGB", (32, 32)), RECIPE, {}).parent


def test_only_files_that_lie_there_are_read_and_their_place_is_not_told(tmp_path) -> None:
    folder = tmp_path / "shelf"
    folder.mkdir()
    save_mask(tmp_path / "outside.png", FACE)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    shelf = Shelf(folder)
    tricks = [
        tmp_path / "outside.png",
        folder / "link.png",
        folder / ".." / "outside.png",
        "/etc/passwd",
        "~",
        "",
        folder,
    ]
    for trick in [
        *({"path": str(path)} for path in tricks),
        None,
        7,
        [],
        {},
        {"path": None},
        {"path": "a\0b"},
        str(folder),
    ]:
        with pytest.raises(MogleError) as raised:
            shelf.mask(trick)
        assert str(tmp_path) not in str(raised.value)
    with pytest.raises(MogleError) as raised:
        shelf.result({"path": str(folder / "broken.png"), "orig_name": "mine.png"})
    assert str(raised.value).startswith("mine.png: ")


def test_a_bomb_in_a_recipe_is_refused(tmp_path) -> None:
    from fuzz import png, recipe

    mask = base64.b64encode(png(30_000, 30_000, (b"IDAT", zlib.compress(bytes(10**6))))).decode()
    (tmp_path / "a.png").write_bytes(recipe(mask=mask, mask_sha256="0"))
    with pytest.raises(MogleError, match="the recipe in the file is damaged .*enormous"):
        read_picture(tmp_path / "a.png")


def test_notes_on_a_file_name_it_as_its_owner_does(tmp_path) -> None:
    wide = np.full((32, 32), 17, np.uint8)  # nothing but a neck, labelled from 1 on
    save_mask(tmp_path / "a.png", wide + 1)
    mask, notes = Shelf(tmp_path).mask({"path": str(tmp_path / "a.png"), "orig_name": "mine.png"})
    assert mask.shape == (32, 32) and not any(str(tmp_path) in note for note in notes)

    def parse(path: Path) -> np.ndarray:
        warnings.warn(f"{path}: odd", MogleWarning, stacklevel=1)
        return mask

    assert Shelf(tmp_path).photo({"path": str(tmp_path / "a.png"), "orig_name": "me.jpg"}, parse)[1] == ["me.jpg: odd"]


def test_old_files_go_and_so_do_too_many(tmp_path) -> None:
    shelf = Shelf(tmp_path, kept=100, room=2500)
    now = time.time()
    for age in (1000, 30, 20, 10):
        path = tmp_path / f"d{age}" / "file"
        path.parent.mkdir()
        path.write_bytes(bytes(1000))
        os.utime(path, (now - age, now - age))
        os.utime(path.parent, (now - age, now - age))
    shelf.tidy()
    assert sorted(path.parent.name for path in tmp_path.glob("*/file")) == ["d10", "d20"]
    os.utime(tmp_path / "d1000", (now - 1000, now - 1000))  # as if it had been empty for long
    shelf.tidy()
    assert not (tmp_path / "d1000").exists(), "an empty old folder goes too"
    shelf.tidy(every=60)


# --- snippets ------------------------------------------------------------------------------------------------------


def test_what_users_wrote_is_no_html() -> None:
    evil = '"><script>alert(1)</script>'
    for piece in (shown(evil, evil, 1, 2), buttons([Example(FACE, evil)])):
        assert "<script>" not in piece and "&lt;script&gt;" in piece
    assert '<progress max="4" value="2">' in shown("x", "y", 2, 4) and "<img" not in shown(text="y")
    assert file_url("/tmp/a b/ä.png") == "gradio_api/file=/tmp/a%20b/%C3%A4.png"
    assert data_url(Image.new("RGB", (4, 4)), "jpeg").startswith("data:image/jpeg;base64,")


# --- studio --------------------------------------------------------------------------------------------------------


class Pipe:
    """Stands in for a pipeline of 32 pixels."""

    default_sample_size, vae_scale_factor = 4, 8

    def set_progress_bar_config(self, **_: object) -> None:
        pass


@pytest.fixture
def steps(monkeypatch) -> SimpleNamespace:
    """A sampler that counts its steps, and waits before each until it may go on."""
    state = SimpleNamespace(done=0, go=threading.Semaphore(0), previews=0, running=0)

    def run(pipe, recipes, on_step):
        def preview():
            state.previews += 1
            return [Image.new("RGB", (32, 32))]

        state.running += 1
        assert state.running == 1, "one picture at a time"
        try:
            for step in range(1, recipes[0].steps + 1):
                assert state.go.acquire(timeout=20)
                state.done += 1
                on_step(step, recipes[0].steps, preview)
            warnings.warn("said while drawing", MogleWarning, stacklevel=1)
            return [Image.new("RGB", (32, 32), (recipes[0].seed, 0, 0))]
        finally:
            state.running -= 1

    monkeypatch.setattr(studio_module, "run", run)
    return state


def test_a_picture_comes_step_by_step(steps) -> None:
    studio = Studio(Pipe(), {}, None)
    steps.go.release(4)

    async def listen() -> list[Progress | Drawn]:
        return [news async for news in studio.draw(Recipe("A man.", None, 9, 4, 3.5, 1.0, 0, 0))]

    *progress, drawn = asyncio.run(listen())
    assert [(one.step, one.steps) for one in (progress[0], progress[-1])] == [(1, 4), (4, 4)]
    assert progress[0].preview is not None and progress[-1].preview is None and steps.previews <= 2
    assert len(progress) <= 3, "steps that are quick are not all told"
    assert drawn.picture.getpixel((0, 0)) == (9, 0, 0) and drawn.notes == ["said while drawing"]
    assert (drawn.recipe.height, drawn.recipe.width) == (32, 32)
    studio.close()


def test_a_mask_is_encoded_once() -> None:
    """Two people take turns, with masks of their own: each gets what they would get alone."""
    from mogle.checkpoints import ADAPTER, BASE, load_pipeline, shipped
    from mogle.sampling import run

    pipe = load_pipeline(shipped(BASE), shipped(ADAPTER), "cpu")
    masks = [decode_mask(f"data/portraits/mask/{number}.png") for number in (19, 22)]
    asked = [
        Recipe(None, resize_labels(mask, (32, 32), None), seed, 1, 3.5, 1.0, 32, 32)
        for mask in masks
        for seed in (0, 1)
    ]
    alone = []
    for recipe in asked:
        pipe.known_images.tokens.clear()
        alone.append(run(pipe, [recipe])[0].tobytes())
    pipe.known_images.tokens.clear()
    studio, encoded = Studio(pipe, {}, None), []
    pipe.vae.encoder.register_forward_hook(lambda _module, inputs, _output: encoded.append(len(inputs[0])))

    async def draw(recipe: Recipe) -> Drawn:
        return [news async for news in studio.draw(recipe)][-1]

    for turn in range(2):
        for index in (0, 2, 1, 3):
            drawn = asyncio.run(draw(asked[index]))
            assert drawn.picture.tobytes() == alone[index] and not drawn.notes
            assert bool(encoded) == (turn == 0 and index % 2 == 0), (
                "what was encoded for the first picture serves others"
            )
            encoded.clear()
    studio.close()


def test_who_stops_listening_stops_the_work(steps) -> None:
    studio = Studio(Pipe(), {}, None)

    async def leave() -> None:
        drawing = studio.draw(Recipe("A man.", None, 0, 50, 3.5, 1.0, 0, 0))
        steps.go.release(2)
        assert isinstance(await anext(drawing), Progress)
        waiting = studio.draw(Recipe("A man.", None, 0, 50, 3.5, 1.0, 0, 0))
        never = asyncio.create_task(anext(waiting))
        await asyncio.sleep(0.05)
        never.cancel()  # before it has begun
        await asyncio.gather(never, return_exceptions=True)
        await drawing.aclose()
        steps.go.release(100)

    asyncio.run(leave())
    asyncio.run(studio.compute(lambda: None))  # after both
    assert steps.done <= 3, "one step more at most"
    studio.close()


def test_what_goes_wrong_in_the_studio_arrives(steps) -> None:
    studio = Studio(Pipe(), {}, None)

    async def ask(**change: object) -> list[Progress | Drawn]:
        values = {"prompt": "A man.", "mask": None, "seed": 0, "steps": 1, "guidance": 3.5, "strength": 1.0} | change
        return [news async for news in studio.draw(Recipe(**values, height=0, width=0))]

    with pytest.raises(MogleError, match="steps"):
        asyncio.run(ask(steps=5000))
    with pytest.raises(MogleError):
        asyncio.run(studio.compute(lambda: (_ for _ in ()).throw(MogleError("no face"))))
    steps.go.release(1)
    assert len(asyncio.run(ask())) == 2 and issubclass(Cancelled, Exception)
    studio.close()


# --- guard ---------------------------------------------------------------------------------------------------------


def test_a_page_is_freed_of_other_hosts() -> None:
    page = '<meta property="og:image"\n\tcontent="https://elsewhere.org/a.jpg" />\n<meta name="viewport" content="w">\n'
    page += '<link rel="preconnect" href="https://fonts.example"><link href="./a.css"><a href="https://x.org">x</a>'
    assert scrubbed(page) == '<meta name="viewport" content="w">\n<link href="./a.css"><a href="https://x.org">x</a>'


@pytest.mark.parametrize(
    "body, fine",
    [
        (b"", True),
        (b'{"data": ["https://in.a.sentence", {"path": "/tmp/x.png"}]}', True),
        (b'{"data": [{"path": "https://elsewhere.org/x.png"}]}', False),
        (b'{"data": [[{"a": {"path": "\\u0068ttp://10.0.0.1/"}}]]}', False),
        (b'{"path": " file:///etc/passwd"}', False),
        (b"{", False),
        (b"[" * 100_000, False),
        (b"\xff\xfe", False),
    ],
)
def test_a_body_names_no_addresses(body, fine) -> None:
    if fine:
        return check_json(body)
    with pytest.raises(HTTPException):
        check_json(body)


def asked(path: str, body: bytes = b"", method: str = "POST", kind: str = "application/json", **headers: str):
    """What the guard answers around an app that says what it received -> (status, headers, body)."""
    sent: list[dict] = []

    async def inner(scope, receive, send):
        if path == "/broken":
            raise KeyError(7)
        got, more = b"", True
        while more and method == "POST":
            message = await receive()
            got, more = got + message["body"], message.get("more_body", False)
        page = b'<link href="https://x.org/">' if path == "/page" else got
        kind = b"text/html; charset=utf-8" if path == "/page" else b"text/plain"
        head = [(b"content-type", kind), (b"content-length", str(len(page)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": page[:5], "more_body": True})
        await send({"type": "http.response.body", "body": page[5:]})

    async def receive():
        part, rest = queue.pop(0), bool(queue)
        return {"type": "http.request", "body": part, "more_body": rest}

    async def send(message):
        sent.append(message)

    queue = [body[start : start + 2**20] for start in range(0, max(1, len(body)), 2**20)]
    pairs = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in pairs.items()]
    asyncio.run(Guard(inner)({"type": "http", "path": path, "method": method, "headers": raw}, receive, send))
    start, *parts = sent
    found = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], found, b"".join(part["body"] for part in parts)


def test_the_guard_lets_through_what_is_fine() -> None:
    status, headers, body = asked("/gradio_api/queue/join", b'{"data": [1]}')
    assert (status, body) == (200, b'{"data": [1]}')
    assert "default-src 'self'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
    assert asked("/gradio_api/upload", bytes(2**20 + 5), kind="multipart/form-data; boundary=x")[2] == bytes(2**20 + 5)
    status, headers, body = asked("/page", method="GET")
    assert (status, body, headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    "path, body, kind, status",
    [
        ("/gradio_api/proxy=http://x.hf.space/", b"", "", 403),
        ("/gradio_api/file=http://example.com/x", b"", "", 403),
        ("/gradio_api/vibe-code", b"", "", 403),
        ("/gradio_api/process_recording", b"", "", 403),
        ("/gradio_api/queue/join", b"{", "application/json", 400),
        ("/gradio_api/queue/join", bytes(9 * 2**20), "text/plain", 413),
        ("/gradio_api/upload", bytes(33 * 2**20), "multipart/form-data", 413),
        ("/broken", b"{}", "application/json", 400),
    ],
)
def test_the_guard_refuses_with_a_message(path, body, kind, status, capsys) -> None:
    for length in ({}, {"content_length": str(len(body))}, {"content_length": "lots"}):
        found, _, answer = asked(path, body, kind=kind, **length)
        assert found == (413 if length.get("content_length") == "lots" and status == 400 else status)
        assert len(json.loads(answer)["detail"]) > 15 and "Traceback" not in answer.decode()


# --- server and command line ---------------------------------------------------------------------------------------


def test_a_password_is_not_repeated(capsys, monkeypatch) -> None:
    assert read_auth(None) is None and read_auth("ada:a:b") == ("ada", "a:b")
    assert "secret" not in repr(Serving(auth="ada:secret"))
    monkeypatch.setenv("MOGLE_APP_AUTH", "secret-without-user")
    for arguments in (["app"], ["app", "--help"]):
        with pytest.raises(SystemExit):
            app(arguments, prog_name="mogle")
    out, err = capsys.readouterr()
    assert "error: --auth: expected USER:PASSWORD" in err and "secret" not in out + err
    assert "Example: mogle app" in out and "--share" in out and "127.0.0.1" in out


def test_only_this_machine_is_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "example.com")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_a_port_that_is_taken_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MogleError, match=f"--port {port}: cannot be listened on"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", None)


def test_gradio_reports_to_nobody_and_writes_into_one_folder(tmp_path) -> None:
    found = environment(tmp_path)
    assert found["GRADIO_ANALYTICS_ENABLED"] == "False" and found["GRADIO_TEMP_DIR"] == str(tmp_path)


def test_the_examples_are_there() -> None:
    examples = load_examples()
    assert len(examples) == 6 and all(pack(one.mask)["width"] == 128 and one.prompt for one in examples)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--base", "nowhere"], "nowhere: found no such folder"),
        (["--parser", "nobody"], "parser 'nobody': expected one of"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1 --port any: cannot be listened on"),
        (["--host", "no host"], "--host no host"),
        (["--device", "cuda:99"], "--device cuda:99"),
    ],
)
def test_mistakes_are_said_before_anything_is_served(arguments, words, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["app", *arguments], prog_name="mogle")
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and words in err and "serving" not in out
