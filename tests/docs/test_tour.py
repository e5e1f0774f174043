"""The page of `make course`: what a command made stands below it; a command that fails is named."""

import importlib.util
import re
from pathlib import Path

import pytest

from mogle.errors import MogleError

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("tour", ROOT / "docs" / "run_tour.py")
tour = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tour)
TEXT = tour.TOUR.read_text()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """`main` works in the project's folder and clears its own; here both are temporary."""
    monkeypatch.setattr(tour, "ROOT", tmp_path)
    monkeypatch.setattr(tour, "TOUR", tmp_path / "tour.md")
    monkeypatch.setattr(tour, "shipped", lambda name: tmp_path)
    monkeypatch.chdir(tmp_path)


def test_the_page_holds_commands_what_they_said_pictures_and_tables(tmp_path, capsys):
    painting, *_ = re.findall(r"^## Paint.*?(?=^## )", TEXT, re.DOTALL | re.MULTILINE)
    command = "printf '| a |\\n|---|\\n| 1 |\\n' > runs/course/t.md; echo two lines; echo 'a < b'"
    tour.TOUR.write_text(f"# A tour\n\n{painting}## A table\n\n```bash\n{command}\n```\n\n<!-- t.md -->\n")
    tour.main()
    page = (tmp_path / "runs" / "course" / "index.html").read_text()
    assert "mogle data paint --out runs/course/portraits" in page and page.count("<h2>") == 2
    assert page.count("data:image/jpeg;base64,") == page.count("data:image/png;base64,") == 4
    assert "<td>1</td>" in page and "<pre><code>a &lt; b\n</code></pre>" in page and "two lines\n" not in page
    said = capsys.readouterr().out
    assert said.startswith("1/2 Paint portraits ... ") and said.endswith("index.html\n")


def test_a_command_that_fails_is_named_with_what_it_said_last():
    tour.TOUR.write_text("# A tour\n\n## Paint\n\n```bash\nmogle data paint --out x --count 0\n```\n")
    with pytest.raises(MogleError, match="Paint: exit code 2: error: --count 0: expected at least 1; all that was"):
        tour.main()


def test_the_tour_shows_what_its_commands_write_and_every_notebook():
    commands = "".join(re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL))
    folders = {Path(path).parts[0] for path in re.findall(r"(?:\]\(|<!-- )([^\s)]+)", TEXT)}
    assert folders == set(re.findall(r"--out\S* runs/course/(\w+)", commands)) - {"adapter"}
    pages = [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert re.findall(r"\(notebooks/(\w+)\.html\)", TEXT) == pages
    assert commands.count("--prompt") == len(re.findall(r"\(grid/000\d\.png\)", TEXT)) == 9
