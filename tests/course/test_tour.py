"""The page of `make course`: what a station's command made stands beside it; a command that fails is named."""

import pytest

from mogle.course import tour
from mogle.errors import MogleError


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """`main` works in the project's folder and clears its own; here both are temporary."""
    monkeypatch.setattr(tour, "ROOT", tmp_path)
    monkeypatch.setattr(tour, "OUT", tmp_path / "runs")
    monkeypatch.setattr(tour, "LOG", tmp_path / "runs" / "log.txt")
    monkeypatch.setattr(tour, "shipped", lambda name: tmp_path)
    monkeypatch.chdir(tmp_path)


def test_the_page_shows_commands_pictures_and_tables(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_quickstart.ipynb").touch()
    names = [station.title for station in tour.stations()]
    assert len(names) == 6 and names[-1] == "Run the notebooks"
    painted = tour.stations()[0]
    painted.command[-1] = "2"
    table = tour.Station("A table", "Numbers.", ["json.tool", "--help"], lambda: "| a | b |\n|---|---:|\n| 1 | 2 |")
    said = tour.Station("A line", "Words.", ["json.tool", "--help"], lambda: f"```\n{tour.last_line()}\n```")
    links = tour.Station("Notebooks", "Pages.", ["json.tool", "--help"], tour.stations()[-1].result)
    monkeypatch.setattr(tour, "stations", lambda: [painted, table, said, links])
    tour.main()
    page = (tmp_path / "runs" / "index.html").read_text()
    assert f"<code>mogle data paint --out {tmp_path}/runs/portraits --first 27000 --count 2" in page
    assert '<img alt="face, mask" src="data:image/png;base64,' in page and page.count("<h2>") == 4
    assert "<th>a</th>" in page and ">2</td>" in page and "suppress all whitespace" in page
    assert '<a href="notebooks/00_quickstart.html">00_quickstart</a>' in page
    assert "1/4 Paint portraits ... " in capsys.readouterr().out


def test_a_command_that_fails_is_named_with_what_it_said_last(monkeypatch):
    wrong = tour.Station("Paint", "Faces.", ["mogle", "data", "paint", "--out", "x", "--count", "0"], lambda: "")
    monkeypatch.setattr(tour, "stations", lambda: [wrong])
    with pytest.raises(MogleError, match="Paint: exit code 2: error: --count 0: expected at least 1; the whole output"):
        tour.main()
