"""One real browser for the tests in this folder: Debian's Chromium, driven by Playwright."""

import os
import shutil
import warnings
from pathlib import Path

import pytest
from jupyter_lab import running

#: Where pictures of pages go, to be looked at; git ignores it.
SCREENSHOTS = Path(__file__).parents[2] / "runs" / "screenshots"

_MISSING = "NO BROWSER: tests in a browser are skipped; to run them: apt-get install chromium (.ci/run does)"


@pytest.fixture(scope="module")
def browser():
    """Chromium, closed at the end of the file: its event loop would be in the way of tests that have their own."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        warnings.warn(pytest.PytestWarning(_MISSING))
        pytest.skip(_MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # It refuses to sandbox itself as root, as which containers run; it sees nothing but this project's own pages.
        options = {"args": ["--no-sandbox"]} if hasattr(os, "geteuid") and os.geteuid() == 0 else {}
        found = playwright.chromium.launch(executable_path=chromium, **options)
        yield found
        found.close()


@pytest.fixture(scope="module")
def page(browser):
    """A page of 1280 x 900 pixels, for a whole file; what goes wrong in its scripts fails the test that is running."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, has_touch=True)
    found = context.new_page()
    found.wrong = []
    found.on("pageerror", lambda error: found.wrong.append(str(error)))
    found.on("console", lambda message: message.type == "error" and found.wrong.append(message.text))
    yield found
    context.close()


@pytest.fixture(autouse=True)
def _no_errors_on_the_page(request):
    yield
    if "page" in request.fixturenames:
        found = request.getfixturevalue("page")
        wrong, found.wrong = found.wrong, []
        assert not wrong, wrong


@pytest.fixture(scope="session")
def screenshots():
    """The folder for pictures of pages."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab in `tmp_path`."""
    with running(tmp_path) as address:
        yield address
