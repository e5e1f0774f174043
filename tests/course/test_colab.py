"""The first cell of a notebook: on a machine with the course, on one without, behind a proxy, on what Colab has."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import mogle
from workbook.authoring import setup_source

ROOT = Path(__file__).resolve().parents[2]
COLAB = Path(__file__).with_name("colab-2026-08-19.txt")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REAL = subprocess.run


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """An empty folder without the course in it; commands of pip are noted, those of git carried out."""
    commands: list[list[str]] = []

    def run(command, **options):
        commands.append(command)
        return REAL(command, **options) if command[0] == "git" else None

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr("mogle.course.setup", lambda: "ready")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("MOGLE_REPOSITORY", raising=False)
    monkeypatch.chdir(tmp_path)
    return commands


def git(folder: Path, *arguments: str) -> None:
    own = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    REAL(["git", "-C", folder, *own, *arguments], check=True, capture_output=True)


def repository(folder: Path, tag: str) -> str:
    """A git repository with a tag, and one commit after it -> its address."""
    folder.mkdir()
    git(folder, "init", "-q")
    for text in ("of the tag", "newer"):
        (folder / "pyproject.toml").write_text(text)
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", text)
        if text == "of the tag":
            git(folder, "tag", tag)
    return f"file://{folder}"


def test_where_the_course_is_nothing_is_installed(monkeypatch):
    monkeypatch.setattr("subprocess.run", lambda command, **_: pytest.fail(f"{command} was run"))
    monkeypatch.setattr("mogle.course.setup", lambda: "ready")
    namespace: dict = {}
    exec(setup_source(), namespace)
    exec(setup_source(), namespace)
    assert namespace["course"] == "ready"


def test_without_an_address_it_says_what_to_set(ran):
    with pytest.raises(AssertionError, match="MOGLE_REPOSITORY"):
        exec(setup_source(), {})
    assert not ran


def test_the_version_that_the_notebook_was_written_for_is_installed_and_torch_stays(ran, tmp_path, monkeypatch):
    import numpy
    import torch

    monkeypatch.setenv("MOGLE_REPOSITORY", repository(tmp_path / "there", f"v{mogle.__version__}"))
    exec(setup_source(), {})
    exec(setup_source(), {})  # as after a restart: the clone is there
    clone, install, again = ran
    assert clone[:2] == ["git", "clone"] and Path("face-mogle/pyproject.toml").read_text() == "of the tag"
    assert install == again and install[1:6] == ["-m", "pip", "install", "-q", "-e"]
    assert install[6:] == ["face-mogle[notebook]", f"numpy=={numpy.__version__}", f"torch=={torch.__version__}"]


def test_without_that_version_the_newest_is_taken_and_said(ran, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MOGLE_REPOSITORY", repository(tmp_path / "there", "v99"))
    exec(setup_source(), {})
    assert Path("face-mogle/pyproject.toml").read_text() == "newer"
    assert f"no version {mogle.__version__} there" in capsys.readouterr().out


def test_inside_a_clone_that_is_what_is_installed(ran, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    exec(setup_source(), {})
    assert [command[6] for command in ran] == ["..[notebook]"]


def test_a_proxy_is_asked(ran, monkeypatch):
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("MOGLE_REPOSITORY", "http://course.invalid/course.git")
    with pytest.raises(subprocess.CalledProcessError):
        exec(setup_source(), {})
    server.shutdown()
    server.server_close()
    assert asked and all(path.startswith("http://course.invalid/course.git/") for path in asked)


def test_colabs_torchao_is_put_aside_in_the_kernel_that_runs_and_a_line_says_so(tmp_path):
    """peft raises at the sight of it, as soon as a LoRA is added; also where something has imported it before."""
    (tmp_path / "torchao").mkdir()
    (tmp_path / "torchao" / "__init__.py").touch()
    (info := tmp_path / "torchao-0.10.0.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchao\nVersion: 0.10.0\n")
    add_lora = (
        "from mogle.checkpoints import load_pipeline\nfrom mogle.lora import add_lora\n"
        "add_lora(load_pipeline(course.base, None, 'cpu').transformer, rank=2)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    for before in ("", "import torchao\n"):
        code = f"{before}{setup_source()}\n{add_lora}"
        done = REAL([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        said = "torchao is installed and does not load (version 0.10.0; peft needs at least 0.16); going on without it"
        assert done.stdout.count(said) == 1 and "Warning" not in done.stderr
    add_alone = "import torch, peft\nfrom peft import LoraConfig, get_peft_model\n"
    add_alone += "get_peft_model(torch.nn.Sequential(torch.nn.Linear(2, 2)), LoraConfig(target_modules=['0']))"
    alone = REAL([sys.executable, "-c", add_alone], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert alone.returncode and "torchao" in alone.stderr, "this is what would happen otherwise"


# --- with the package index --------------------------------------------------------------------------------------


def pip(capsys, python: Path | str, *arguments: object) -> str:
    """What pip prints; skips, with one loud line, where there is no package index."""
    done = REAL([python, "-m", "pip", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode and re.search("NewConnectionError|Temporary failure in name|ProxyError", done.stderr):
        with capsys.disabled():
            print("\nNO PACKAGE INDEX: whether the course fits into Colab was NOT tested")
        pytest.skip("no package index")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_beside_colabs_packages_neither_torch_nor_numpy_would_be_replaced(tmp_path, capsys):
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(one for name in ("notebook", "app", "hub", "gpu") for one in extras[name])]
    options = ["--dry-run", "--ignore-installed", "--python-version", "3.13", "--only-binary=:all:"]
    options += ["--quiet", "--target", tmp_path, "--report", "-", "-c", COLAB]
    told = json.loads(pip(capsys, sys.executable, "install", *options, *wanted))
    found = {one["metadata"]["name"].lower(): one["metadata"]["version"] for one in told["install"]}
    for line in COLAB.read_text().splitlines()[1:]:
        name, version = line.split("==")
        if name != "torchao":  # which nobody asks for
            assert found[name].split("+")[0].startswith(version.rstrip("*")), (name, found[name])
    assert "torchvision" not in found  # (JupyterLab is: this ipywidgets wants a notebook server, which Colab has)


@pytest.mark.slow
def test_a_notebook_runs_on_colabs_packages(tmp_path, capsys):
    """All of them but Python and torch's build; the course comes from a clone, as there."""
    python, torch = tmp_path / "venv" / "bin" / "python", (ROOT / "constraints.txt").read_text()
    torch = next(line for line in torch.splitlines() if line.startswith("torch=="))
    REAL([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    here = [line for line in COLAB.read_text().splitlines()[1:] if not line.startswith("torch==")]
    pip(capsys, python, "install", "--quiet", torch)
    pip(capsys, python, "install", "--quiet", torch, *here, "nbclient", "ipykernel", "matplotlib")
    before = json.loads(pip(capsys, python, "list", "--format", "json"))

    work = tmp_path / "content"
    work.mkdir()
    shutil.copy(ROOT / "notebooks" / "00_quickstart.ipynb", work)
    run = "import nbformat, nbclient; notebook = nbformat.read('00_quickstart.ipynb', 4); "
    run += "nbclient.NotebookClient(notebook, timeout=3000, kernel_name='python3').execute(); "
    run += "nbformat.write(notebook, 'done.ipynb')"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MOGLE_REPOSITORY": f"file://{ROOT}", "OMP_NUM_THREADS": "1"}
    done = REAL([python, "-c", run], cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads((work / "done.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    said = "".join("".join(output.get("text", "")) for output in outputs)
    assert "torchao is installed and does not load (version 0.10.0" in said
    assert not any(output["output_type"] == "error" for output in outputs)

    after = {one["name"]: one["version"] for one in json.loads(pip(capsys, python, "list", "--format", "json"))}
    replaced = {one["name"]: after[one["name"]] for one in before if after[one["name"]] != one["version"]}
    assert not replaced
