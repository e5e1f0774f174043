"""`make course`: the whole way once, in minutes, on the tiny model; it ends with one HTML page.

Everything is done by the commands that a user would type, and the page shows them beside what they made.
"""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mogle.checkpoints import ADAPTER, BASE, JUDGES, shipped
from mogle.errors import MogleError

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("runs/course")
LOG = OUT / "log.txt"
IDS = range(27_000, 27_003)  # the first three of the test split: neither chosen nor trained on
PROMPTS = (
    "She has blond hair and is wearing red lipstick.",
    "He has black hair and a beard.",
    "This elderly person has gray hair and dark skin.",
)
LAYOUT = ("face", "mask")
STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
pre{background:#f4f4f4;padding:.6rem;overflow-x:auto;font-size:13px}table{border-collapse:collapse;margin:1rem 0;
display:block;overflow-x:auto}td,th{padding:2px 8px;font-weight:normal;font-size:14px;max-width:14rem}
img{max-width:100%}"""


@dataclass(frozen=True)
class Station:
    """A title, what a reader should look at, a command, and Markdown of what the command made."""

    title: str
    text: str
    command: Sequence[str | Path]
    result: Callable[[], str]

    def run(self) -> str:
        """Run the command from the project's folder -> the station's part of the page, in Markdown.

        Raises:
            MogleError: the command failed; the message ends with the last line that it printed.
        """
        command, start = [str(word) for word in self.command], time.monotonic()
        shown = shlex.join(command)
        with LOG.open("w") as log:
            code = subprocess.run([sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT).returncode
        if code:
            raise MogleError(f"{self.title}: exit code {code}: {last_line()}; the whole output is in {LOG}")
        seconds = time.monotonic() - start
        print(f"{seconds:.0f} s", flush=True)
        return f"## {self.title}\n\n{self.text} ({seconds:.0f} s)\n\n```\n{shown}\n```\n\n{self.result()}"


def stations() -> list[Station]:
    """All of them, in order."""
    portraits, adapter, evaluation, pages = (OUT / name for name in ("portraits", "adapter", "evaluation", "notebooks"))
    masks = [portraits / "mask" / f"{number}.png" for number in IDS]
    pairs = [(mask, prompt) for mask in masks for prompt in PROMPTS]
    made = [OUT / "grid" / f"{i:04d}.png" for i in range(len(pairs))]
    notebooks = sorted(Path("notebooks").glob("*.ipynb"))
    return [
        Station(
            "Paint portraits",
            "Each number is a seed, and gives a picture, its exact mask of 19 classes, and ten captions.",
            ["mogle", "data", "paint", "--out", portraits, "--first", str(IDS[0]), "--count", "8"],
            lambda: grid([sorted((portraits / kind).iterdir()) for kind in LAYOUT], rows=LAYOUT),
        ),
        Station(
            "Three masks by three sentences",
            "Down the mask changes, and with it pose, hair and mouth; across the sentence, and with it the colours.",
            ["mogle", "generate", "--output-dir", OUT / "grid"]
            + [word for mask, prompt in pairs for word in ("--mask", mask, "--prompt", prompt)],
            lambda: grid(
                [[mask, *made[3 * i : 3 * i + 3]] for i, mask in enumerate(masks)], columns=["mask", *PROMPTS]
            ),
        ),
        Station(
            "Fine-tune for a minute",
            "A new adapter from nothing, on the frozen base: the last printed loss is the training's.",
            ["mogle", "train", "--out", adapter, "--count", "200", "--minutes", "1"],
            lambda: f"```\n{last_line()}\n```",
        ),
        Station(
            "What a minute teaches",
            "The same masks without any sentence: your adapter, which has only begun to follow them.",
            ["mogle", "generate", "--adapter", adapter, "--output-dir", OUT / "minute"]
            + [word for mask in masks for word in ("--mask", mask)],
            lambda: grid([masks, sorted((OUT / "minute").glob("*.png"))], rows=["mask", "after a minute"]),
        ),
        Station(
            "Evaluate 50 portraits",
            "Two small judges read the pictures: which class each pixel shows, and which attributes the face has.",
            ["mogle", "evaluate", "--n", "50", "--rows", "real,reconstruction,text+mask", "--out", evaluation],
            lambda: (evaluation / "table.md").read_text() + image((evaluation / "gallery.png").read_bytes(), "gallery"),
        ),
        Station(
            "Run the notebooks",
            "Each from its first cell to its last, on this machine.",
            ["jupyter", "nbconvert", "--to", "html", "--execute", "--output-dir", pages, *notebooks],
            lambda: "\n".join(f"- [{file.stem}]({pages.name}/{file.stem}.html)" for file in notebooks),
        ),
    ]


def image(picture: bytes, alt: str) -> str:
    """A PNG inside the page itself, so that the page can be moved or sent."""
    return f'\n<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">\n'


def grid(files: Sequence[Sequence[Path]], **titles: Sequence[str]) -> str:
    """Pictures in rows, with titles over the columns or before the rows."""
    from mogle.course.figures import image_grid, png
    from mogle.labels import open_image

    figure = image_grid([[open_image(file) for file in row] for row in files], **titles)  # type: ignore[arg-type]
    return image(png(figure), ", ".join(name for names in titles.values() for name in names))


def last_line() -> str:
    """The last line that the last command printed."""
    return next((line for line in reversed(LOG.read_text().splitlines()) if line.strip()), "")


def main() -> None:
    """Run every station, then write `runs/course/index.html`."""
    import mistune

    os.chdir(ROOT)
    for name in (BASE, ADAPTER, JUDGES):
        shipped(name)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    start, title, sections, todo = time.monotonic(), "Face-MoGLE: the course in one page", [], stations()
    for number, station in enumerate(todo, start=1):
        print(f"{number}/{len(todo)} {station.title} ...", end=" ", flush=True)
        sections.append(station.run())
    minutes = (time.monotonic() - start) / 60
    head = f"# {title}\n\nMade on this machine in {minutes:.1f} minutes by the commands below."
    body = mistune.html("\n\n".join([head, *sections]))
    style = f"<title>{title}</title><style>{STYLE}</style>"
    page = f'<!doctype html><html lang="en"><meta charset="utf-8">{style}{body}</html>\n'
    index = OUT / "index.html"
    index.write_text(page, encoding="utf-8")
    print(f"The course in one page: {index.resolve()}")


if __name__ == "__main__":
    try:
        main()
    except MogleError as error:
        sys.exit(f"\nerror: {error}")
