"""The web demo as programs meet it: one server, its endpoints, and what nobody may do with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from fuzz import Asker, cases
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from serving import ROOT, Server

from mogle.labels import LABELS, decode_mask, save_mask
from mogle.painter import pack, unpack
from mogle.provenance import Recipe, read_picture

PORTRAIT = ROOT / "data" / "portraits"
SENTENCE = "A woman has blond hair."


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    return decode_mask(PORTRAIT / "mask" / "22.png")


def test_a_picture_carries_what_it_was_made_of(client, mask) -> None:
    """From a mask file and from the painter's form come the same bytes."""
    asked = {"prompt": SENTENCE, "seed": 2**60 + 1, "steps": 2, "guidance": 3.0, "mask_guidance": 1.5, "strength": 0.9}
    made = [
        client.predict(mask=form, **asked, api_name="/generate")
        for form in (handle_file(PORTRAIT / "mask" / "22.png"), pack(mask))
    ]
    assert Path(made[0][0]).read_bytes() == Path(made[1][0]).read_bytes()
    _, recipe, origin = read_picture(made[0][0])
    assert not recipe.differences(Recipe(SENTENCE, mask, 2**60 + 1, 2, 3.0, 0.9, 128, 128, 1.5))
    assert made[0][1]["seed"] == 2**60 + 1 and made[0][1]["notes"] == [] and made[0][1]["has_mask"]
    assert {"base_sha256", "adapter_sha256", "machine", "versions"} <= set(origin)


@pytest.mark.slow
def test_a_picture_is_that_of_mogle_generate(client, mask, tmp_path) -> None:
    path, _ = client.predict(prompt=SENTENCE, mask=pack(mask), seed=7, steps=4, api_name="/generate")
    command = [sys.executable, "-m", "mogle", "generate", "--like", path, "--output-dir", tmp_path, "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "the same picture, bit for bit" in done.stdout and "note" not in done.stderr, done.stderr


def test_sentence_alone_mask_alone_and_sizes(client, mask) -> None:
    path, told = client.predict(prompt=SENTENCE, steps=1, size="64x32", api_name="/generate")
    recipe = read_picture(path)[1]
    assert (recipe.prompt, recipe.mask, recipe.width, recipe.height) == (SENTENCE, None, 64, 32)
    assert Image.open(path).size == (64, 32) and not told["has_mask"]
    path, told = client.predict(mask=pack(mask), steps=1, api_name="/generate")
    assert read_picture(path)[1].prompt is None and told["has_mask"]
    wide = pack(np.repeat(mask, 2, axis=1))
    path, told = client.predict(mask=wide, steps=1, api_name="/generate")
    assert Image.open(path).width > Image.open(path).height and "are drawn at" in told["notes"][0]


def test_the_steps_are_told(client) -> None:
    job = client.submit(prompt=SENTENCE, steps=3, api_name="/generate")
    job.result(timeout=120)
    told = [told for _, told in job.outputs()[:-1]]
    assert [told[0], told[-1]] == [{"step": step, "steps": 3} for step in (1, 3)]


def test_a_download_is_opened_again(client, mask, tmp_path) -> None:
    path, told = client.predict(prompt=SENTENCE, mask=pack(mask), seed=2**62, steps=1, api_name="/generate")
    again = client.predict(picture=handle_file(path), api_name="/reopen")
    assert np.array_equal(unpack(again.pop("mask")), mask)
    told.pop("notes")
    assert again == told
    with pytest.raises(AppError, match="0.jpg: found no recipe in the file"):
        client.predict(picture=handle_file(PORTRAIT / "face" / "0.jpg"), api_name="/reopen")


def test_masks_and_photos_are_read(client, mask, tmp_path) -> None:
    save_mask(tmp_path / "mine.png", mask)
    found = client.predict(file=handle_file(tmp_path / "mine.png"), api_name="/mask")
    assert np.array_equal(unpack(found), mask) and found["notes"] == []
    with pytest.raises(AppError, match="22.jpg: "):
        client.predict(file=handle_file(PORTRAIT / "face" / "22.jpg"), api_name="/mask")
    parsed = unpack(client.predict(photo=handle_file(PORTRAIT / "face" / "22.jpg"), api_name="/parse"))
    assert (parsed == mask).mean() > 0.95 and (parsed == LABELS.index("hat")).any()


@pytest.mark.parametrize(
    "asked, words",
    [
        ({}, "neither a sentence nor a mask"),
        ({"prompt": SENTENCE, "mask": pack(np.zeros((16, 16), np.uint8))}, "the mask is empty"),
        ({"prompt": SENTENCE, "steps": 101}, "steps: found 101, expected less than or equal to 100"),
        ({"prompt": "hair " * 300}, "tokens, expected at most"),
        ({"prompt": SENTENCE, "mask": {"width": 2, "height": 2, "labels": "AAAAEw=="}}, "label 19"),
    ],
)
def test_mistakes_are_answered_in_words(client, asked, words) -> None:
    with pytest.raises(AppError, match=words):
        client.predict(**asked, api_name="/generate")


def test_cancelled_work_stops_within_one_step(client, server) -> None:
    """In processor time of the server, so that it does not matter what else the machine does."""

    def wait_for(number: int) -> tuple[float, float]:
        deadline = time.monotonic() + 120
        while len(job.outputs()) < number:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return server.cpu(), time.monotonic()

    start = server.cpu()
    time.sleep(1)
    idle = server.cpu() - start
    job = client.submit(prompt=SENTENCE, steps=100, size="256", api_name="/generate")
    (first, began), (later, ended) = wait_for(2), wait_for(6)
    steps = job.outputs()[5][1]["step"] - job.outputs()[1][1]["step"]
    step, seconds = (later - first) / steps, (ended - began) / steps
    job.cancel()
    cancelled, waited = server.cpu(), max(1.0, 6 * seconds)
    time.sleep(waited)
    spent = server.cpu() - cancelled - idle * waited
    assert spent <= 2 * step + 0.05, f"{spent:.2f} s after it was cancelled; a step takes {step:.2f} s"
    assert job.outputs()[-1][1]["step"] < 50
    assert client.predict(prompt=SENTENCE, steps=1, api_name="/generate")


# --- what is not there -----------------------------------------------------------------------------------------------


def test_the_page_leads_to_no_other_host(server) -> None:
    page = httpx.get(server.url)
    found = set(re.findall(r"https?://([^/\"'\s<>\\:]+)", page.text + httpx.get(server.url + "theme.css").text))
    assert found <= {"127.0.0.1", "www.w3.org"}, found  # the name of SVG is no address
    assert "default-src 'self'" in page.headers["content-security-policy"]
    config = httpx.get(server.url + "config").json()
    assert not config.get("analytics_enabled") and not config.get("run_history")
    assert "export function mount" in httpx.get(server.url + "mogle/painter.js").text


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd", f"gradio_api/file={ROOT}/README.md", "gradio_api/file=../../../../etc/passwd",
        "gradio_api/file=README.md", "gradio_api/file=http://127.0.0.1:1/", "gradio_api/file=file:///etc/passwd",
        "gradio_api/file/etc/passwd", "gradio_api/proxy=http://127.0.0.1:1/", "static/..%2f..%2f..%2f..%2fetc/passwd",
        "assets/..%2f..%2f..%2findex.html%2f..%2f..%2f..%2f..%2fetc%2fpasswd", "svelte/..%2f..%2f..%2fetc/passwd",
        "monitoring/summary", "gradio_api/vibe-code", "gradio_api/deep_link", "gradio_api/runs", "mogle/painter.py",
        "mogle/..%2f..%2fpyproject.toml", "docs", "gradio_api/file=%2Fproc%2Fself%2Fenviron",
    ],
)  # fmt: skip
def test_no_file_of_the_machine_is_served(server, path) -> None:
    answer = httpx.get(server.url + path)
    assert answer.status_code in (400, 401, 403, 404, 405, 500), answer.text[:200]
    assert "root:" not in answer.text and "PATH=" not in answer.text and "[project]" not in answer.text


def test_the_endpoints_are_documented(client) -> None:
    endpoints = client.view_api(print_info=False, return_format="dict")["named_endpoints"]
    assert sorted(endpoints) == ["/generate", "/mask", "/parse", "/reopen"]
    assert all(len(endpoint["description"]) > 50 for endpoint in endpoints.values())
    names = [parameter["parameter_name"] for parameter in endpoints["/generate"]["parameters"]]
    assert names == ["prompt", "mask", "seed", "steps", "guidance", "mask_guidance", "strength", "size"]


def test_who_has_no_password_sees_nothing(tmp_path) -> None:
    server = Server(tmp_path, MOGLE_APP_AUTH="ada:love lace")
    try:
        for path in ("config", "gradio_api/info", "gradio_api/queue/status"):
            assert httpx.get(server.url + path).status_code == 401
        join = httpx.post(server.url + "gradio_api/call/generate", json={"data": ["x"]})
        assert join.status_code == 401
        assert Client(server.url, auth=("ada", "love lace"), verbose=False).view_api(return_format="dict")
        assert "lace" not in server.log.read_text()
        (folder,) = server.folders["tmp"].glob("mogle-app-*")
        assert server.stop() == 0 and not folder.exists(), "it takes its folder with it"
    finally:
        server.process.kill()


# --- nonsense --------------------------------------------------------------------------------------------------------


def written(server: Server) -> set[str]:
    """Files in the server's home, working and temporary folders, without those of the demo's own folder."""
    found = {path for folder in server.folders.values() for path in folder.rglob("*") if path.is_file()}
    return {
        str(path) for path in found if not path.is_relative_to(server.folders["tmp"]) or "mogle-app-" not in str(path)
    }


def test_200_requests_of_nonsense_are_answered_in_words(server, client, mask) -> None:
    """Wrong types, broken and huge pictures, bombs, path tricks, extreme numbers, long sentences, from a seed."""
    outside, started = written(server), time.time()
    asker, answers = Asker(server.url), []
    memory = server.memory()
    for number, (name, ask) in enumerate(cases(200, seed=0)):
        answer = ask(asker)
        answers.append((name, answer))
        assert answer.fine or len(answer.message) >= 9, f"{number}, {name}: {answer}"
        assert "Traceback" not in answer.message and "\n" not in answer.message.strip(), f"{number}, {name}: {answer}"
        if number % 20 == 19:
            assert asker.generate(SENTENCE, pack(mask), number).fine, f"after {name}"
    refused = [name for name, answer in answers if not answer.fine]
    assert len(answers) == 200 and len(refused) > 150 and len(set(refused)) > 20
    assert written(server) == outside
    newer = [path for path in ROOT.rglob("*") if path.is_file() and path.stat().st_mtime > started]
    beside = {".git", ".pytest_cache", "__pycache__", ".ruff_cache", "screenshots"}  # other tests may run meanwhile
    newer = [path for path in newer if not beside & set(path.parts)]
    assert not newer, "the demo wrote into the project"
    log = server.log.read_text()
    assert "Traceback" not in log, log[-3000:]
    assert server.memory() < memory + 400, "no request leaves much behind"
    assert json.dumps(client.predict(file=handle_file(PORTRAIT / "mask" / "1.png"), api_name="/mask"))
