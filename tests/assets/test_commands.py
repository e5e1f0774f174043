"""`mogle weights` and `mogle data` as their users meet them."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mogle.assets.ledger import ledger
from mogle.cli import app


@pytest.fixture
def mogle(server, no_network, capsys):
    """Run `mogle ARGS` in an empty working directory without a network -> (exit code, stdout, stderr)."""

    def run(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            app([str(arg) for arg in args], prog_name="mogle")
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    yield run
    assert not no_network, "nothing touches the network unless asked"


def test_lists_name_everything_and_fetch_nothing(mogle):
    for kind in ("weights", "data"):
        code, out, _ = mogle(kind, "list")
        assert code == 0
        assert all((asset.source in out) == (asset.kind == kind) for asset in ledger().values())


def test_a_data_set_comes_from_a_zip_at_hand(mogle):
    with zipfile.ZipFile("some.zip", "w") as made:
        for name in ("face/0.jpg", "mask/0.png", "text/0.txt", "text.json"):
            made.writestr(f"mmcelebahq/{name}", b"x")
    code, out, err = mogle("data", "get", "mmcelebahq", "--from", "some.zip")
    assert (code, out) == (0, "mmcelebahq is in data/mmcelebahq\n")
    assert "licence: not verified" in err and "access: not verified" in err and "revision, size, sha256" in err
    assert Path("data/mmcelebahq/text.json").is_file()


def test_weights_come_from_a_folder_at_hand(mogle):
    Path("in").mkdir()
    for name in ("pytorch_lora_weights.safetensors", "mogle.pt", "notes.txt"):
        Path("in", name).write_bytes(b"x")
    code, _, _ = mogle("weights", "get", "face-mogle", "--from", "in", "--to", "mine")
    assert code == 0 and {p.name for p in Path("mine").iterdir()} == {"pytorch_lora_weights.safetensors", "mogle.pt"}


def test_what_must_be_accepted_is_said_before_anything_is_fetched(mogle, offline):
    offline()
    code, out, err = mogle("weights", "get", "flux-dev")
    assert (code, out) == (2, "")
    licence, access, error = (err.index(word) for word in ("Non-Commercial License", "must be accepted", "error: "))
    assert licence < access < error


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("weights", "get", "nothing"), "expected one of flux-dev, t5"),
        (("data", "get", "mmcelebahq", "--from", "nowhere.zip"), "found nothing there"),
        (("data", "get", "mmcelebahq", "--from", "."), "expected face, mask, text"),
        (("weights", "get", "face-mogle", "--from", "."), "found no pytorch_lora_weights.safetensors, which"),
        (("weights", "get", "clip-b16", "--from", "."), "--to FOLDER"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(mogle, arguments, message):
    code, out, err = mogle(*arguments)
    assert (code, out) == (2, "") and message in err and "Traceback" not in err
    assert not any(Path(name).exists() for name in ("data", "runs", "checkpoints"))


def test_mirror_and_offline_mode_are_those_of_the_environment(server):
    server.files = dict.fromkeys(("pytorch_lora_weights.safetensors", "mogle.pt"), b"x")
    command = [sys.executable, "-m", "mogle", "weights", "get", "face-mogle"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "HF_ENDPOINT": server.url}
    for offline, to in (("0", "one"), ("1", "one"), ("1", "two")):
        done = subprocess.run(
            [*command, "--to", to], env={**environment, "HF_HUB_OFFLINE": offline}, capture_output=True, text=True
        )
        assert (done.returncode == 0) == (to == "one"), done.stderr
    assert {path.name for path in Path("one").iterdir()} == set(server.files)
    assert "unset HF_HUB_OFFLINE" in done.stderr and not Path("two").exists()
