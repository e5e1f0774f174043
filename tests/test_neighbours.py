"""A neighbour that does not load costs nobody what works without it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mogle.neighbours import NEIGHBOURS

ROOT = Path(__file__).resolve().parents[1]
BROKEN = {
    "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')",
    "bitsandbytes": "raise OSError('libbitsandbytes_cpu.so: cannot open shared object file')",
    "torchao": "",  # loads, but peft raises as soon as it sees this version
    "xformers": "raise ImportError('built for another torch')",
    "flash_attn": "raise SystemExit(3)",
}
TRAIN = ["train", "--out", "{out}", "--cache", "{out}/cache", "count=2", "steps=1", "batch=1", "warm_start=0", "rank=2"]
GENERATE = [
    "generate", "--mask", "{root}/data/portraits/mask/0.png", "--prompt", "A woman.", "--steps", "1",
    "--output-dir", "{out}",
]  # fmt: skip


def plant(folder: Path, names) -> None:
    for name in names:
        package = folder / name
        package.mkdir()
        (package / "__init__.py").write_text(BROKEN[name])
        info = folder / f"{name}-0.10.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.10.0\n")


def mogle(folder: Path, arguments, out: Path) -> subprocess.CompletedProcess:
    filled = [part.format(root=ROOT, out=out) for part in arguments]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, "-m", "mogle", *filled], env=environment, capture_output=True, text=True)


def test_there_is_a_broken_one_of_each_kind():
    assert set(BROKEN) == set(NEIGHBOURS)


def test_all_of_them_broken_and_the_main_jobs_run(tmp_path):
    (folder := tmp_path / "planted").mkdir()
    plant(folder, BROKEN)
    for arguments in (GENERATE, TRAIN):
        run = mogle(folder, arguments, tmp_path / "out")
        assert run.returncode == 0, run.stderr
        assert "Traceback" not in run.stderr
        for name in BROKEN:
            said = [line for line in run.stderr.splitlines() if f"{name} is installed and does not load" in line]
            assert len(said) == 1 and f"pip uninstall -y {name.replace('_', '-')}" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_each_of_them_broken_and_the_main_jobs_run(tmp_path, name):
    (folder := tmp_path / "planted").mkdir()
    plant(folder, [name])
    for arguments in (GENERATE, TRAIN):
        run = mogle(folder, arguments, tmp_path / "out")
        assert run.returncode == 0 and run.stderr.count("does not load") == 1, run.stderr


def test_what_needs_a_broken_neighbour_says_so(tmp_path):
    (folder := tmp_path / "planted").mkdir()
    plant(folder, ["bitsandbytes"])
    code = (
        "import warnings; warnings.simplefilter('ignore'); import mogle, diffusers, importlib.util, json; "
        "from mogle.neighbours import broken; "
        "print(json.dumps([broken, importlib.util.find_spec('bitsandbytes') is None]))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    found, hidden = json.loads(run.stdout.splitlines()[-1])
    assert hidden and "cannot open shared object file" in found["bitsandbytes"]


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["", "course", "app", "gpu", "dev", "course,app,gpu,dev"])
def test_each_extra_in_a_fresh_environment(tmp_path, extra):
    """Installed as the README says, beside the pinned torch: one picture and one training step."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    torch = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, f"{ROOT}[{extra}]" if extra else str(ROOT)], check=True)
    for arguments in (GENERATE, TRAIN):
        filled = [part.format(root=ROOT, out=tmp_path / "out") for part in arguments]
        run = subprocess.run([python, "-m", "mogle", *filled], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
