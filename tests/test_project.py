"""The project's own promises: one list of requirements, imports that go one way and cost little."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

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
    expected = [*PROJECT["dependencies"], *(r for extra in ("course", "app", "dev") for r in EXTRAS[extra]), "-e ."]
    assert sorted(pip["pip"]) == sorted(expected)


def test_requirements_are_floors_that_the_constraints_meet():
    exact = constraints()
    for requirement in [*PROJECT["dependencies"], *(r for extra in EXTRAS for r in EXTRAS[extra])]:
        assert re.fullmatch(r"[\w.-]+>=[\d.]+(; .*)?", requirement), f"{requirement}: a floor, and no upper pin"
        name, floor = name_of(requirement), re.search(r">=([\d.]+)", requirement)[1]
        if requirement not in (*EXTRAS["gpu"], *EXTRAS["eval"]):  # CI installs neither: a GPU, torchvision
            assert tuple(map(int, exact[name].split(".")[:2])) >= tuple(map(int, floor.split(".")[:2])), name
    assert "torchvision" not in exact, "the pinned torch has no CPU build of it beside it"


def loaded_by(code: str) -> set[str]:
    """Top-level packages in a fresh interpreter after `code`."""
    script = f"{code}\nimport sys; print(*{{m.split('.')[0] for m in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.parametrize("code", ["import mogle", "from mogle import MogleError", "import mogle.cli"])
def test_imports_are_cheap(code):
    assert not loaded_by(code) & {"torch", "diffusers", "transformers", "matplotlib", "scipy"}


#: Rooms in the order in which data walks through them; a room imports only what comes before it.
HOUSE = (
    "errors", "classes", "pictures", "anatomy", "mask_formats", "labels", "words", "provenance", "dataset_files",
    "datasets", "conditions", "experts", "ablations", "blocks", "transformer", "adapters", "pipeline", "checkpoints",
    "sampling", "metrics", "parsing", "training", "course", "cli",
)  # fmt: skip


def imports_of(path: Path) -> list[tuple[bool, str]]:
    """(at the top of the file, room) for everything that a file takes from `mogle`."""
    found = re.findall(r"^( *)(?:from|import) mogle\.(\w+)", path.read_text(), re.MULTILINE)
    return [(not indent, room) for indent, room in found]


def test_rooms_import_only_what_comes_before_them():
    for path in sorted((ROOT / "mogle").rglob("*.py")):
        room = path.relative_to(ROOT / "mogle").parts[0].removesuffix(".py")
        if room.startswith("__"):
            continue
        for at_top, imported in imports_of(path):
            if imported == "tiny":  # what only makes the embedded default is reached from inside functions alone
                assert room == "tiny" or not at_top, f"{path.name} imports mogle.tiny at the top"
            elif room != "tiny":
                assert HOUSE.index(imported) <= HOUSE.index(room), f"{path.name} imports mogle.{imported}"


def test_readme_and_citation_name_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"
    assert citation["preferred-citation"]["url"].rsplit("/", 1)[1] in (ROOT / "README.md").read_text()


def test_readme_links_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_the_results_page_shows_what_was_measured():
    from mogle.course.results import tables
    from mogle.metrics.orderings import OPEN, OTHER, SAME, ordering_table

    page = (ROOT / "docs" / "results.md").read_text()
    results = json.loads((ROOT / "docs" / "results" / "results.json").read_text())
    assert tables(results) in page
    verdicts = [line[-1] for line in ordering_table(results)[1]]
    same, other, undecided = (verdicts.count(one) for one in (SAME, OTHER, OPEN))
    assert (
        f"Of {len(verdicts)} comparisons {same} come out as in the paper, {other} the other way round, "
        f"{undecided} undecided." in " ".join(page.split())
    )
    for i in range(0, len(verdicts), 4):  # the page's own short table: mask, structure, KID, text of each row
        assert f"| {' | '.join(verdicts[i : i + 4])} |" in page
