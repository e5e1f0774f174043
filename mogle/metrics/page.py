"""An evaluation as one HTML page that holds its own pictures, to be opened from disk or sent."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Galleries in the order in which they are shown, where they are there: file, title, what to look for.
GALLERIES = (
    ("gallery.png", "The first samples, unselected", "One line is one sample, one column one way to make it."),
    ("seeds.png", "The same mask and sentence at several seeds", "What changes is what neither of them says."),
    ("best.png", "Best by pixel accuracy", "Mask, picture, the picture parsed back, the real portrait."),
    ("worst.png", "Worst by pixel accuracy", "The same for the pictures that follow their masks least."),
    ("gates.png", "Gate maps", "Weights of the twenty experts by place, the largest white. One line is one sample."),
    ("ablations.png", "Ablations", "The first samples, unselected; all adapters were trained as long as each other."),
    ("female.png", "Zero-shot: women, another style", "Masks and sentences of a set that nothing was trained on."),
    ("balanced.png", "Zero-shot: balanced set", "A set balanced over skin tone, age and gender."),
)

_TEMPLATE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{{ results.title }}</title>
<style>body{font:15px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;display:block;overflow-x:auto;margin:1rem 0}
td,th{padding:3px 9px;text-align:right;font-weight:normal;border-bottom:1px solid #ddd;white-space:nowrap}
th{color:#555}td:first-child,th:first-child{text-align:left}.warning{background:#fff3cd;padding:.4rem .8rem}
figure{margin:1rem 0;overflow-x:auto}img{display:block}figcaption{color:#555}
.bar{display:inline-block;height:.7em;background:#4477aa;vertical-align:middle}</style>
<h1>{{ results.title }}</h1>
<p>{{ results.source }}</p>
{% for warning in results.warnings %}<p class="warning">{{ warning }}</p>{% endfor %}
{% for title, head, lines in tables %}{% if title %}<h2>{{ title }}</h2>{% endif %}
<table><tr>{% for cell in head %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for line in lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table>{% endfor %}
{% if bars %}<h2>Accuracy by class, text + mask</h2>
<table>{% for label, iou in bars %}<tr><td>{{ label }}</td><td>{{ "%.3f"|format(iou) }}</td>
<td style="text-align:left"><span class="bar" style="width:{{ (300 * iou)|round|int }}px"></span></td></tr>
{% endfor %}</table>{% endif %}
{% for title, text, data in galleries %}<h2>{{ title }}</h2>
<figure><img alt="{{ title }}" src="data:image/png;base64,{{ data }}"><figcaption>{{ text }}</figcaption></figure>
{% endfor %}
<h2>Conditions</h2><ul>{% for note in results.notes %}<li>{{ note }}</li>{% endfor %}</ul></html>
"""


def page(folder: Path, results: Mapping[str, Any]) -> str:
    """The whole page: tables, IoU by class as bars, and every gallery of `GALLERIES` that lies in the folder."""
    from jinja2 import Environment

    from mogle.metrics.report import TABLES

    tables = [(title, *table(results)) for title, table in TABLES]
    classes = results["rows"].get("text+mask", {}).get("mask", {}).get("class_iou", {})
    shown = [
        (title, text, base64.b64encode((folder / name).read_bytes()).decode())
        for name, title, text in GALLERIES
        if (folder / name).is_file()
    ]
    return Environment(autoescape=True).from_string(_TEMPLATE).render(
        results=results,
        tables=[(title, head, lines) for title, head, lines in tables if lines],
        bars=[(label, iou) for label, iou in classes.items() if iou is not None],
        galleries=shown,
    )  # fmt: skip
