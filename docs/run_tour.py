"""`make course`: the whole way once, in minutes, on the tiny model; it ends with one HTML page.

`tour.md` is that page before anything has been made: sections of text, a command that a user would type, and the
pictures and tables that it makes. Here the commands are run, and what they made goes into the page.
"""

from __future__ import annotations

import base64
import mimetypes
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mogle.checkpoints import ADAPTER, BASE, JUDGES, shipped
from mogle.errors import MogleError

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("runs/course")
TOUR = Path(__file__).with_name("tour.md")


def run(section: str) -> tuple[str, float]:
    """Run the command of a section of `tour.md`.

    Returns:
        The section with its tables and the last line that the command printed; the seconds that it took.

    Raises:
        MogleError: the command failed; the message ends with the last line that it printed.
    """
    command = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)[0]
    log, start = OUT / "log.txt", time.monotonic()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # `mogle` beside this Python
    with log.open("w") as file:
        ran = subprocess.run(command, shell=True, stdout=file, stderr=file, env={**os.environ, "PATH": path})
    seconds = time.monotonic() - start
    last = next((line for line in reversed(log.read_text().splitlines()) if line.strip()), "")
    if ran.returncode:
        title = section.partition("\n")[0]
        raise MogleError(f"{title}: exit code {ran.returncode}: {last}; all that was printed is in {log}")
    said = f"{command}```\n\n```\n{last}\n```\n\n{seconds:.0f} s\n"
    tables = re.sub(r"<!-- (\S+) -->", lambda found: (OUT / found[1]).read_text(), section)
    return tables.replace(f"{command}```\n", said, 1), seconds


def render(markdown: str) -> str:
    """Markdown -> an HTML page that holds its pictures, so that it can be moved or sent."""
    import mistune

    def embedded(found: re.Match[str]) -> str:
        data = base64.b64encode((OUT / found[1]).read_bytes()).decode()
        return f'<img src="data:{mimetypes.guess_type(found[1])[0]};base64,{data}"'

    body = re.sub(r'<img src="([^"]+)"', embedded, str(mistune.html(markdown)))
    title = re.findall(r"<h1>(.*?)</h1>", body)[0]
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>{body}</html>\n'


def main() -> None:
    """Run every section of the tour, then write `runs/course/index.html`."""
    os.chdir(ROOT)
    for name in (BASE, ADAPTER, JUDGES):
        shipped(name)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    head, *sections = TOUR.read_text(encoding="utf-8").split("\n## ")
    total = 0.0
    for i, section in enumerate(sections):
        print(f"{i + 1}/{len(sections)} {section.splitlines()[0]} ...", end=" ", flush=True)
        sections[i], seconds = run(section)
        print(f"{seconds:.0f} s", flush=True)
        total += seconds
    head += f"\nMade on this machine in {total / 60:.1f} minutes by the commands below.\n"
    index = OUT / "index.html"
    index.write_text(render("\n## ".join([head, *sections])), encoding="utf-8")
    print(f"The course in one page: {index.resolve()}")


if __name__ == "__main__":
    try:
        main()
    except MogleError as error:
        sys.exit(f"\nerror: {error}")
