"""Experiments that wait for the released weights, and run on any base and adapter (`mogle experiment`).

Both test what reading the reference's code and the paper's tables suggested. Nothing here says how they end: until they
have been run on the released weights the defaults of this project are defaults, not findings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mogle.metrics.evaluate import evaluate
from mogle.metrics.measure import Instruments, against, load_measured
from mogle.metrics.report import cell, differences, table_of
from mogle.metrics.rows import Row
from mogle.metrics.samples import Samples
from mogle.sampling import Settings

if TYPE_CHECKING:
    from mogle.pipeline import FaceMoGLEPipeline


class Experiment(NamedTuple):
    """A question, the rows that are drawn, and pairs of them with what each outcome means; see experiments.toml."""

    question: str
    rows: Mapping[str, Row]
    pairs: Sequence[Mapping[str, str]]


_ENTRIES = tomllib.loads(Path(__file__).with_name("experiments.toml").read_text(encoding="utf-8"))
EXPERIMENTS = {
    name: Experiment(one["question"], {row: Row(**fields) for row, fields in one["rows"].items()}, one["pairs"])
    for name, one in _ENTRIES.items()
}


def experiment(
    name: str, pipe: FaceMoGLEPipeline, tools: Instruments, samples: Samples, *, out: Path, settings: Settings
) -> str:
    """Draws and measures the rows of an experiment, with the same noise in each -> question, table and conclusion.

    Writes experiment.md into ``out``, beside what an evaluation leaves there.

    Raises:
        MogleError: as `mogle.metrics.evaluate.evaluate`.
    """
    chosen = EXPERIMENTS[name]
    sets = {"portraits": samples}
    evaluate(pipe, tools, sets, out=out, settings=settings, rows=chosen.rows, few=len(samples))
    measured = {row: load_measured(out, row) for row in chosen.rows}
    found = [against(measured[pair["less"]], measured[pair["row"]]) for pair in chosen.pairs]
    head, cells = differences(found)
    titles = [[chosen.rows[pair[part]].title for part in ("row", "less")] for pair in chosen.pairs]
    lines = [[*title, str(one["n"]), *line] for title, one, line in zip(titles, found, cells, strict=True)]
    table = table_of(["row", "less", "n", *head], lines)
    said = [conclusion(one, pair) for one, pair in zip(found, chosen.pairs, strict=True)]
    text = "\n\n".join([chosen.question, table, *said]) + "\n"
    (out / "experiment.md").write_text(text, encoding="utf-8")
    return text


def conclusion(found: Mapping[str, Any], says: Mapping[str, str]) -> str:
    """What a difference with its interval means, and that difference.

    DINO's structure distance decides, which is smaller where masks are followed better, or where the paper's networks
    were not asked the parser's pixel accuracy. An interval that reaches to both sides of 0 decides nothing.
    """
    key, title, sign = "pixel_accuracy", "pixel accuracy", 1
    if "paper_structure" in found:
        key, title, sign = "paper_structure", "structure distance", -1
    value, low, high = found[key]
    decided = low is not None and not low <= 0 <= high
    outcome = "undecided" if not decided else "better" if sign * value > 0 else "worse"
    return f"{says[outcome]} ({title} {cell([value, low, high], '+.4f')}, {found['n']} samples)"
