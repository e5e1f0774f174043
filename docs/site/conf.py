"""The course as static pages: `make site` renders notebooks and pages of the repository to build/site.

Nothing is run, and nothing fetched, neither while building nor by who reads: formulas become MathML, fonts are the
reader's. Notebooks open in Colab where the course has an address (`REPOSITORY` in notebooks/workbook/authoring.py).
"""

import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from myst_nb.core.render import NbElementRenderer

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "notebooks"), str(ROOT / "docs" / "site")]

from navigation import navigation  # noqa: E402

import mogle  # noqa: E402
from workbook.authoring import REPOSITORY  # noqa: E402

project, author, release = "Face-MoGLE on a laptop", "the authors of the course", mogle.__version__
copyright = "Apache-2.0"
extensions = ["myst_nb"]
include_patterns = ["docs/site/index.md", "docs/*.md", "notebooks/*.ipynb", "notebooks/*.md", "README.md"]
include_patterns += ["checkpoints/*/README.md", "notebooks/solutions/*.md", "notebooks/quiz/*.md"]
exclude_patterns = ["checkpoints/next/*", "docs/tour.md"]
root_doc = "docs/site/index"

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_fence_as_directive = []
suppress_warnings = ["mystnb.unknown_mime_type", "myst.xref_missing_code", "misc.highlighting_failure"]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2, "use_download_button": False, "use_fullscreen_button": False}
html_theme_options |= {"navbar_persistent": [], "navbar_start": [], "navbar_center": [], "navbar_end": []}
if REPOSITORY:
    html_theme_options |= {
        "repository_url": REPOSITORY.removesuffix(".git"),
        "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
html_math_renderer = "mathml"


def _mathml(self, node, display):  # type: ignore[no-untyped-def]
    self.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def _inline(self, node):  # type: ignore[no-untyped-def]
    _mathml(self, node, "inline")


def _block(self, node):  # type: ignore[no-untyped-def]
    _mathml(self, node, "block")


def _with_alt(render):  # type: ignore[no-untyped-def]
    """myst-nb takes width and height from an output's metadata; the text for who cannot see it is there too."""

    def render_image(self, data):  # type: ignore[no-untyped-def]
        images = render(self, data)
        for image in images:
            image["alt"] = data.output_metadata.get(data.mime_type, {}).get("alt", "")
        return images

    return render_image


def setup(app):  # type: ignore[no-untyped-def]
    """Called by Sphinx."""
    NbElementRenderer.render_image = _with_alt(NbElementRenderer.render_image)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    navigation(Path(__file__).parent / "static")
