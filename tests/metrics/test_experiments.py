"""The experiments for the released weights, run on the tiny ones: a table with intervals, and what follows from it."""

from pathlib import Path

import pytest

from mogle.cli import app
from mogle.metrics.experiments import EXPERIMENTS, conclusion
from mogle.provenance import read_picture

DATA = Path(__file__).resolve().parents[2] / "data" / "portraits"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_on_the_tiny_base_with_few_samples(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--n", "3", "--steps", "2", "--data", str(DATA), "--split", "all", "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        app(["experiment", name, *options], prog_name="mogle")
    out, err = capsys.readouterr()
    assert not ended.value.code and all(line.startswith("note: the prompt has") for line in err.splitlines())
    folder, chosen = tmp_path / "runs" / "experiments" / name, EXPERIMENTS[name]
    assert out == (folder / "experiment.md").read_text() + "\n" and out.startswith(chosen.question)
    table = [line for line in out.splitlines() if line.startswith("| ")]
    assert len(table) == 2 + len(chosen.pairs) and "| 3 |" in table[2] and table[2].count("[") >= 3  # intervals
    for pair in chosen.pairs:
        assert sum(pair[outcome] in out for outcome in ("better", "worse", "undecided")) == 1
    pictures = {row: sorted((folder / row).glob("*.png")) for row in chosen.rows}
    assert all(len(files) == 3 for files in pictures.values())
    recipes = {row: read_picture(files[0])[1] for row, files in pictures.items()}
    assert len({recipe.seed for recipe in recipes.values()}) == 1, "the same noise in each"
    if name == "gate-time":
        assert {row: recipe.gate_time for row, recipe in recipes.items()} == {row: row for row in recipes}
        assert pictures["training"][0].read_bytes() != pictures["reference"][0].read_bytes()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"pixel_accuracy": [0.02, 0.01, 0.03]}, "better (pixel accuracy +0.0200 [+0.0100, +0.0300], 9 samples)"),
        ({"pixel_accuracy": [-0.02, -0.03, -0.01]}, "worse (pixel accuracy -0.0200"),
        ({"pixel_accuracy": [0.02, -0.01, 0.05]}, "undecided (pixel"),
        ({"pixel_accuracy": [0.02, None, None]}, "undecided (pixel"),
        # of structure distance less is better, and it is what counts of photographs
        ({"pixel_accuracy": [0.2, 0.1, 0.3], "paper_structure": [0.01, 0.005, 0.02]}, "worse (structure distance +"),
        ({"paper_structure": [-0.01, -0.02, -0.005]}, "better (structure"),
    ],
)
def test_a_conclusion_follows_from_the_interval(found, said):
    says = {outcome: outcome for outcome in ("better", "worse", "undecided")}
    assert conclusion({"n": 9, **found}, says).startswith(said)
