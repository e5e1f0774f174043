"""The deck: a title for each notebook, figures with texts, formulas and headings as they should be."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_deck_has_each_notebook_and_its_figures(tmp_path):
    command = [sys.executable, "docs/slides.py", "--out", str(tmp_path), "02", "04"]
    assert "of 2 notebooks" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    page = (tmp_path / "index.html").read_text()
    titles = re.findall(r"<h1>(.*?)</h1>", page)
    assert [title[:2] for title in titles] == ["02", "04"]
    pictures = re.findall(r'<img src="([^"]+)" alt="([^"]+)">', page)
    assert len(pictures) > 10 and all((tmp_path / name).is_file() and len(alt.split()) > 2 for name, alt in pictures)
    assert "<math" in page and "http" not in re.sub(r"xmlns=\S+", "", page)
    assert not re.search(r"<h\d>[^<]*[<>]?\s*(start=|<li)", page)
