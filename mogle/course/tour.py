"""`make course`: the whole way once, in minutes, on the tiny model; it ends with one HTML page.

Everything is done by the commands that a user would type, and the page shows them beside what they made.
"""

from __future__ import annotations

import base64
import html
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mogle.checkpoints import ADAPTER, BASE, JUDGES, shipped
from mogle.errors import MogleError

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("runs/course")
IDS = (27_000, 27_001, 27_002)  # the first three of the test split: neither chosen nor trained on
PROMPTS = (
    "She has blond hair and is wearing red lipstick.",
    "He has black hair and a beard.",
    "This elderly person has gray hair and dark skin.",
)
LOG = OUT / "log.txt"


@dataclass(frozen=True)
class Step:
    """One station: a title, what a reader should look at, a command, and HTML of what the command made."""

    title: str
    text: str
    command: list[str]
    result: Callable[[], str]


def mask_of(number: int) -> Path:
    """The mask of a painted portrait."""
    return OUT / "portraits" / "mask" / f"{number}.png"


def steps() -> list[Step]:
    """The stations, in order."""
    pairs = [
        flag for number in IDS for prompt in PROMPTS for flag in ("--mask", str(mask_of(number)), "--prompt", prompt)
    ]
    masks = [flag for number in IDS for flag in ("--mask", str(mask_of(number)))]
    portraits, adapter, evaluation = OUT / "portraits", OUT / "adapter", OUT / "evaluation"
    stations = [
        Step(
            "Paint portraits",
            "Each number is a seed, and gives a picture, its exact mask of 19 classes, and ten captions.",
            ["mogle", "data", "paint", "--out", str(portraits), "--first", str(IDS[0]), "--count", "8"],
            lambda: grid(
                [[portraits / kind / f"{number}{end}" for number in range(IDS[0], IDS[0] + 8)] for kind, end in LAYOUT],
                ["portrait", "mask"],
            ),
        ),
        Step(
            "Three masks by three sentences",
            "Down the mask changes, and with it pose, hair and mouth; across the sentence, and with it the colours.",
            ["mogle", "generate", *pairs, "--output-dir", str(OUT / "grid")],
            lambda: grid(
                [
                    [mask_of(number), *(OUT / "grid" / f"{3 * row + column:04d}.png" for column in range(3))]
                    for row, number in enumerate(IDS)
                ],
                ["mask", *PROMPTS],
                head=True,
            ),
        ),
        Step(
            "Fine-tune for a minute",
            "A new adapter from nothing, on the frozen base: the last printed loss is the training's.",
            ["mogle", "train", "--out", str(adapter), "--count", "200", "--minutes", "1"],
            lambda: f"<pre>{html.escape(last_line())}</pre>",
        ),
        Step(
            "What a minute teaches",
            "The same masks without any sentence: your adapter, which has only begun to follow them.",
            ["mogle", "generate", *masks, "--adapter", str(adapter), "--output-dir", str(OUT / "minute")],
            lambda: grid([[mask_of(number) for number in IDS], [OUT / "minute" / f"{i:04d}.png" for i in range(3)]],
                         ["mask", "after a minute"]),
        ),
        Step(
            "Evaluate 50 portraits",
            "Two small judges read the pictures: which class each pixel shows, and which attributes the face has.",
            ["mogle", "evaluate", "--n", "50", "--rows", "real,reconstruction,text+mask", "--out", str(evaluation)],
            lambda: table(evaluation / "table.md") + image(evaluation / "gallery.png", "masks and pictures"),
        ),
    ]  # fmt: skip
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    out = OUT / "notebooks"
    run = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", "--execute", "--output-dir", str(out)]
    if notebooks:
        stations.append(
            Step(
                "Run the notebooks",
                "Each from its first cell to its last, on this machine.",
                [*run, *map(str, notebooks)],
                lambda: "<ul>" + "".join(link(out / f"{path.stem}.html") for path in notebooks) + "</ul>",
            )
        )
    return stations


LAYOUT = (("face", ".jpg"), ("mask", ".png"))


def image(path: Path, alt: str) -> str:
    """A picture inside the page itself, so that the page can be moved or sent."""
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{data}">'


def grid(rows: list[list[Path]], titles: list[str], head: bool = False) -> str:
    """Pictures as a table, with titles above the columns (head) or before the rows."""
    cells = [[image(path, f"{path.parent.name} {path.stem}") for path in row] for row in rows]
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in cells]
    names = [f"<th>{html.escape(title)}</th>" for title in titles]
    lines = ["".join(names), *lines] if head else [name + line for name, line in zip(names, lines, strict=True)]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def table(path: Path) -> str:
    """A Markdown file as HTML."""
    import mistune

    return str(mistune.create_markdown(plugins=["table"])(path.read_text()))


def link(path: Path) -> str:
    """A list item that leads to a page beside this one."""
    return f'<li><a href="{path.relative_to(OUT).as_posix()}">{html.escape(path.stem)}</a></li>'


def last_line() -> str:
    """What the last command said last."""
    lines = [line for line in LOG.read_text().splitlines() if line.strip()]
    return lines[-1] if lines else ""


def run(step: Step) -> float:
    """Run a station's command from the project's folder -> seconds.

    Raises:
        MogleError: the command failed; says what it said last.
    """
    command = step.command
    if command[0] == "mogle":
        command = [sys.executable, "-m", *command]
    start = time.monotonic()
    with LOG.open("w") as log:
        code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
    if code:
        raise MogleError(f"{step.title}: exit code {code}: {last_line()}; all that was said is in {LOG}")
    return time.monotonic() - start


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
pre{background:#f4f4f4;padding:.6rem;overflow-x:auto;font-size:13px}table{border-collapse:collapse;margin:1rem 0;
display:block;overflow-x:auto}td,th{padding:2px 8px;font-weight:normal;font-size:14px;max-width:14rem}
img{max-width:100%}td img{min-width:96px}"""


def page(sections: list[str], seconds: float) -> str:
    """The whole page."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Face-MoGLE: the course in one page</title>'
        f"<style>{STYLE}</style><h1>Face-MoGLE: the course in one page</h1>"
        f"<p>Made on this machine in {seconds / 60:.1f} minutes by the commands below.</p>{''.join(sections)}</html>\n"
    )


def section(step: Step, seconds: float) -> str:
    """A station's part of the page."""
    shown = shlex.join(step.command).replace(shlex.quote(sys.executable), "python")
    return (
        f"<h2>{html.escape(step.title)}</h2><p>{html.escape(step.text)} ({seconds:.0f} s)</p>"
        f"<pre>{html.escape(shown)}</pre>{step.result()}"
    )


def main() -> None:
    """Run every station, then write `runs/course/index.html`."""
    for name in (BASE, ADAPTER, JUDGES):
        shipped(name)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    start, sections, stations = time.monotonic(), [], steps()
    for number, step in enumerate(stations, start=1):
        print(f"{number}/{len(stations)} {step.title} ...", end=" ", flush=True)
        seconds = run(step)
        print(f"{seconds:.0f} s", flush=True)
        sections.append(section(step, seconds))
    index = OUT / "index.html"
    index.write_text(page(sections, time.monotonic() - start))
    print(f"The course in one page: {index.resolve()}")


if __name__ == "__main__":
    import os

    os.chdir(ROOT)
    try:
        main()
    except MogleError as error:
        sys.exit(f"\nerror: {error}")
