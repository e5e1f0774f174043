"""The project's own promises: one list of requirements, imports that go one way and cost little."""

import ast
import graphlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from count_lines import count

import mogle

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>;\[ ]", requirement)[0]).lower()


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {name_of(line): line.split("==")[1] for line in lines if not line.startswith("#")}


def test_environment_equals_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert environment["name"] == PROJECT["name"] and conda == ["python=3.11", "pip"]
    assert PROJECT["requires-python"] == ">=3.11"
    expected = [
        *PROJECT["dependencies"],
        *(r for extra in ("course", "app", "site", "dev") for r in EXTRAS[extra]),
        "-e .",
    ]
    assert sorted(pip["pip"]) == sorted(expected)


def test_requirements_are_floors_that_the_constraints_meet():
    exact = constraints()
    for requirement in [*PROJECT["dependencies"], *(r for extra in EXTRAS for r in EXTRAS[extra])]:
        assert re.fullmatch(r"[\w.-]+>=[\d.]+(; .*)?", requirement), f"{requirement}: a floor, and no upper pin"
        name, floor = name_of(requirement), re.search(r">=([\d.]+)", requirement)[1]
        if requirement not in EXTRAS["gpu"]:  # CI has none
            assert tuple(map(int, exact[name].split(".")[:2])) >= tuple(map(int, floor.split(".")[:2])), name
    assert "torchvision" not in exact, "the pinned torch has no CPU build of it beside it"


def run(*arguments: str, cwd: Path = ROOT, **environment: str) -> str:
    """What a fresh interpreter prints."""
    command, options = [sys.executable, *arguments], {"cwd": cwd, "capture_output": True, "text": True}
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(cwd), **environment}, **options)
    assert done.returncode == 0, f"{arguments}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.parametrize("code", ["import mogle", "from mogle import MogleError", "import mogle.cli"])
def test_imports_load_nothing_heavy(code):
    loaded = run("-c", f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})").split()
    assert "mogle" in loaded and not {"torch", "diffusers", "transformers", "matplotlib", "scipy"} & set(loaded)


def test_import_takes_at_most_half_a_second():
    code = "import time; start = time.perf_counter(); import mogle; print(time.perf_counter() - start)"
    assert statistics.median(float(run("-c", code)) for _ in range(3)) <= 0.5


def test_waiting_threads_sleep_unless_the_user_says_otherwise():
    code = "import mogle, os; print(os.environ['OMP_WAIT_POLICY'])"
    assert [run("-c", code, **more).strip() for more in ({}, {"OMP_WAIT_POLICY": "ACTIVE"})] == ["PASSIVE", "ACTIVE"]


# --- the house ---------------------------------------------------------------------------------------------------

#: Files of the package by the names of their modules: "mogle.metrics.judges".
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "mogle").rglob("*.py"))
}


def rooms() -> list[str]:
    """The rooms in the order of the table: a room imports only what stands above it."""
    house = (ROOT / "docs" / "architecture.md").read_text().split("## The rooms")[1].split("\n## ")[0]
    return re.findall(r"^\| `mogle/(\w+)(?:\.py|/)` \|", house, re.MULTILINE)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports_of(path: Path) -> set[tuple[bool, str]]:
    """(at the top of the file, module) for everything that a file takes from `mogle`, inside functions too."""
    tree, found = ast.parse(path.read_text()), set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "mogle":
            names = [mogle._EXPORTS.get(alias.name, f"mogle.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name.startswith("mogle") and name not in MODULES:
                name = name.rpartition(".")[0]
            if name in MODULES and name != "mogle":
                found.add((node in tree.body, name))
    return found


def test_the_page_about_the_architecture_lists_every_room():
    assert sorted(rooms()) == sorted({room_of(module) for module in MODULES} - {"", "__main__"})


def test_rooms_import_only_what_stands_above_them():
    order = rooms()
    for module, path in MODULES.items():
        if room_of(module) in ("", "__main__", "tiny"):
            continue
        for at_top, imported in imports_of(path):
            if room_of(imported) == "tiny":  # what only makes the embedded default is reached from inside functions
                assert not at_top, f"{module} imports {imported} at the top"
            else:
                assert order.index(room_of(imported)) <= order.index(room_of(module)), f"{module} imports {imported}"


def test_no_imports_go_in_a_circle():
    graph = {
        module: {name for _, name in imports_of(path) if room_of(name) != "tiny" and name != module}
        for module, path in MODULES.items()
        if room_of(module) != "tiny"
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_modules_and_functions_are_short():
    """The limits hold for what has to be read to follow the method: everything but the making of the tiny default."""
    counts = {path: count(path) for path in MODULES.values() if "tiny" not in path.relative_to(ROOT).parts}
    long = [f"{path.relative_to(ROOT)}: {lines} lines" for path, (lines, _) in counts.items() if lines > 350]
    long += [f"{path.name}: {name} has {n}" for path, (_, bodies) in counts.items() for name, n in bodies if n > 60]
    assert not long
    assert sum(lines for lines, _ in counts.values()) <= 7469  # it may shrink; what grows it has to earn it


@pytest.mark.slow
def test_the_method_works_without_the_making_of_the_tiny_default(tmp_path):
    shutil.copytree(ROOT / "mogle", tmp_path / "mogle", ignore=shutil.ignore_patterns("tiny", "__pycache__"))
    for name in ("checkpoints", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    # Not simply absent: an editable install would find the project's own.
    (tmp_path / "mogle" / "tiny.py").write_text(
        "raise ModuleNotFoundError('mogle.tiny has been deleted', name='mogle.tiny')\n"
    )
    assert run("-c", "import mogle; print(mogle.__file__)", cwd=tmp_path).startswith(str(tmp_path))

    words = "generate --mask data/portraits/mask/22.png --steps 2 --output-dir pictures --device cpu --prompt"
    run("-m", "mogle", *words.split(), "She has black hair.", cwd=tmp_path)
    words = "train --data data/portraits --out adapter --device cpu --count 4 steps=2 batch=2"
    run("-m", "mogle", *words.split(), cwd=tmp_path)
    words = "evaluate --data data/portraits --split all --n 3 --few 2 --steps 1 --out report --device cpu"
    run("-m", "mogle", *words.split(), "--rows", "real,reconstruction,text+mask,text", cwd=tmp_path)
    made = [tmp_path / "pictures" / "0000.png", tmp_path / "adapter" / "mogle.safetensors"]
    assert all(path.is_file() for path in [*made, tmp_path / "report" / "results.json"])


def test_readme_and_citation_name_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert citation["preferred-citation"]["url"].rsplit("/", 1)[1] in (ROOT / "README.md").read_text()


def test_readme_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_the_page_about_the_architecture_names_what_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text()
    for path in re.findall(r"`((?:mogle|docs|tests|benchmarks|checkpoints)/[\w/.]*)`", text):
        assert (ROOT / path).exists(), path
    for path, name in re.findall(r"`(mogle/[\w/]+\.py)`, `(\w+)`", text):
        assert re.search(rf"^(def|class) {name}\b|^{name}\b", (ROOT / path).read_text(), re.MULTILINE), (
            f"{path}: {name}"
        )
    for room in rooms():
        assert f"`mogle/{room}" in text, f"{room} is not on the page"
