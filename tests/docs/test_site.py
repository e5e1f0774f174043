"""The site: it builds without a warning, every link leads somewhere, every figure has a text, nothing is fetched."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Page(HTMLParser):
    """What a page shows and where it leads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids, self.links, self.loaded, self.silent = set(), [], [], []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if "id" in found:
            self.ids.add(found["id"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("img", "script", "iframe") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(found["href"])
        if tag == "img" and not found.get("alt"):
            self.silent.append(found.get("src"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    site = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-c",
        "docs/site",
        ".",
        str(site),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return {path.resolve(): Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


def test_every_link_leads_somewhere_and_nothing_comes_from_elsewhere(pages):
    for path, page in pages.items():
        for link in page.links + page.loaded:
            address, anchor = urldefrag(link)
            if urlsplit(address).scheme in ("http", "https"):
                assert link not in page.loaded, f"{path.name} loads {link}"
                continue
            target = (path.parent / unquote(address.partition("?")[0])).resolve() if address else path
            assert target.exists(), f"{path.name}: {link}"
            if anchor and target in pages:
                assert unquote(anchor) in pages[target].ids, f"{path.name}: {link}"


def test_every_notebook_is_there_and_the_schematic_leads_to_them(pages):
    names = {path.name for path in pages}
    notebooks = {f"{path.stem}.html" for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    index = next(page for path, page in pages.items() if path.match("docs/site/index.html"))
    assert notebooks <= names
    linked = {link.rpartition("/")[2] for link in index.links}
    assert notebooks <= linked


def test_every_picture_has_a_text(pages):
    assert not {path.name: page.silent for path, page in pages.items() if page.silent}
