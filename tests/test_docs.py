"""The pages under docs/ and what fills them: scripts that lie beside the pages."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import draw_playground  # noqa: E402
from draw_grid import draw, sheet  # noqa: E402
from fill_results import tables  # noqa: E402
from orderings import OPEN, OTHER, SAME, ordering_table, verdict  # noqa: E402


def test_the_results_page_shows_what_was_measured():
    page = (ROOT / "docs" / "results.md").read_text()
    results = json.loads((ROOT / "docs" / "results" / "results.json").read_text())
    assert tables(results) in page
    verdicts = [line[-1] for line in ordering_table(results)[1]]
    same, other, undecided = (verdicts.count(one) for one in (SAME, OTHER, OPEN))
    assert (
        f"Of {len(verdicts)} comparisons {same} come out as in the paper, {other} the other way round, "
        f"{undecided} undecided." in " ".join(page.split())
    )
    for i in range(0, len(verdicts), 4):  # the page's own short table: mask, structure, KID, text of each row
        assert f"| {' | '.join(verdicts[i : i + 4])} |" in page


def test_the_readme_s_map_says_of_each_notebook_what_its_card_says():
    from workbook.authoring import badge

    lines = [line.split("|")[1:-1] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
    rows = {cells[0].strip(): cells for cells in lines if re.fullmatch(r"\d\d", cells[0].strip())}
    paths = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    assert [path.name[:2] for path in paths] == list(rows)
    for path in paths:
        card = "".join(json.loads(path.read_text())["cells"][0]["source"])
        _, link, _, runs, worked = (cell.strip() for cell in rows[path.name[:2]])
        assert f"tiny, on two CPU cores: {runs} to run; {worked} with the exercises" in card, path.name
        assert f"](notebooks/{path.name})" in link and badge(path.name) in link


def test_the_readme_s_tiers_say_what_package_and_notebook_08_estimate():
    from mogle.hardware import TIERS

    text, estimates = (
        (ROOT / "README.md").read_text(),
        (ROOT / "notebooks" / "08_fine_tuning_with_lora.ipynb").read_text(),
    )
    for tier in TIERS.values():
        if tier.name != "tiny":
            row = re.search(rf"^\| {tier.name.upper()}\b.*\| {tier.size} px.*\| (\S+) min \| (\S+) min \|$", text, re.M)
            steps = re.search(rf"{tier.name} .*?([\d.]+) min for 150 steps", estimates)
            assert [float(one) for one in row.groups()] == [round(tier.minutes, 1), round(float(steps[1]))], tier.name


def test_the_five_minutes_of_training_stand_between_text_and_adapter_as_it_says():
    rows = json.loads((ROOT / "docs" / "results" / "results.json").read_text())["rows"]
    text = " ".join((ROOT / "docs" / "using.md").read_text().split())
    reached, share, alone, whole = map(
        float,
        re.search(
            r"reach a pixel accuracy of (\S+) on 200 test portraits: (\d+) % of the way from the sentence alone "
            r"\((\S+)\) to the shipped adapter \((\S+)\)",
            text,
        ).groups(),
    )
    assert round(100 * (reached - alone) / (whole - alone)) == share
    assert alone == round(rows["text"]["mask"]["pixel_accuracy"], 3)


def test_orderings_are_decided_by_intervals() -> None:
    """Less structure distance and KID, more text: what the paper found, ours with it, against it, and undecided."""

    def row(pixels: float, kid: float, text: float, wide: float) -> dict[str, Any]:
        ends = {"pixel_accuracy": [pixels - wide, pixels + wide], "kid": [kid - wide, kid + wide]}
        numbers = {"mask": {"pixel_accuracy": pixels}, "kid": kid, "text": text}
        return {"title": "t", **numbers, "intervals": {**ends, "text": [text - wide, text + wide]}}

    rows = {"text+mask": row(0.9, 0.4, 20.0, 0.01), "mask": row(0.8, 0.3, 10.0, 0.01), "text": row(0.7, 0.2, 15.0, 9.0)}
    pairs = {"pixel_accuracy": [-0.1, -0.3, 0.1], "text": [-10.0, -30.0, 10.0]}
    against = {"mask": {"base": "text+mask", **pairs}}
    head, lines = ordering_table({"rows": rows, "against": against})
    assert [line[1] for line in lines] == ["mask", "KID x 1000", "text"] * 2 and len(head) == 5
    # mask only: 2.57 against 2.44, 8.29 against 10.87, 24.53 against 26.32; text only: 4.94, 21.85, 26.91.
    # Mask only has less text by both rows' own intervals, and that is undecided by the pairs, which count.
    assert [line[4] for line in lines] == [
        OPEN,
        SAME,
        OPEN,
        OPEN,
        OPEN,
        OPEN,
    ]  # text -10 would be sure without its pairs
    assert lines[0][3] == "-0.100 [-0.300, +0.100]" and lines[1][3] == "-100.0 [-114.1, -85.9]"
    assert verdict(1.0, -2.0, -1.0) == OTHER and verdict(-1.0, -2.0, -1.0) == SAME and verdict(1.0, -1.0, 1.0) == OPEN


def test_the_readme_s_grid_pairs_masks_with_pictures_in_order():
    pairs = [(Image.new("RGB", (8, 8), (i, 0, 0)), Image.new("RGB", (8, 8), (0, i, 0))) for i in range(1, 4)]
    page = sheet(pairs, columns=2, gap=2)
    assert page.size == (2 * 16 + 2, 2 * 8 + 2)
    assert page.getpixel((0, 0)) == (1, 0, 0) and page.getpixel((8, 0)) == (0, 1, 0)
    assert page.getpixel((18, 0)) == (2, 0, 0) and page.getpixel((0, 10)) == (3, 0, 0)
    assert page.getpixel((18, 10)) == (255, 255, 255)


def test_the_readme_s_grid_is_drawn_from_the_shipped_weights():
    (mask, picture), *_ = draw(2, batch=2, steps=1)
    assert mask.size == picture.size == (128, 128)


def test_the_pages_link_to_what_is_there_and_name_what_the_ledger_has():
    from mogle.assets.ledger import ledger

    for page in ("using.md", "other-bases.md", "teachers.md", "architecture.md"):
        text = (ROOT / "docs" / page).read_text()
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (ROOT / "docs" / target).exists(), (page, target)
        for name in re.findall(r"`mogle (?:weights|data) get ([\w-]+)", text):
            assert name in ledger() or name == "NAME", (page, name)
    teachers = (ROOT / "docs" / "teachers.md").read_text()
    fetched = set(re.findall(r"[`,] ?`?(?:mogle (?:weights|data) get )?([a-z0-9-]+)`", teachers)) & set(ledger())
    assert {"flux-dev-nf4", "flux-dev-nf4-rest", "flux-dev", "flux-schnell", "face-mogle", "mmcelebahq"} <= fetched
    sizes = [file.size for name in fetched for file in ledger()[name].files]
    assert not any(sizes) and teachers.count("*unverified*") >= 6, "sizes are known now: put them on the page"
    for name in ("flux-dev", "flux-schnell"):  # the licences' names are the ledger's
        assert ledger()[name].licence in (ROOT / "docs" / "other-bases.md").read_text()


def test_the_moving_picture_shows_each_edit_and_what_comes_of_it(tmp_path):
    draw_playground.main(["--out", str(tmp_path / "play.webp"), "--steps", "2"])
    made = Image.open(tmp_path / "play.webp")
    assert made.is_animated and made.n_frames > 50 and made.info["loop"] == 0
    for file in (tmp_path / "play.webp", ROOT / "docs" / "playground.webp"):
        assert file.stat().st_size <= draw_playground.LIMIT
    *_, (seen, time) = draw_playground.played(1)
    assert (seen.step, seen.steps, time) == (1, 1, draw_playground.DONE) and seen.sentence.endswith("a blue hat.")
    assert seen.face is not None and {13, 14} <= set(seen.mask.ravel()), "hair and hat"
