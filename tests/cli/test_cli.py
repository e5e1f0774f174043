"""The command line as its users meet it: pictures that carry their recipe, and one clear line for every mistake."""

import base64
import io
import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mogle.cli import app
from mogle.labels import colorize, decode_mask, save_mask
from mogle.provenance import SOURCE, fingerprint, mask_hash, read_picture
from mogle.tiny.command import parse_ids
from mogle.tiny.portraits import paint

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def mogle(capsys, tmp_path, monkeypatch):
    """Run `mogle ARGS` in an empty working directory -> (exit code, stdout, stderr)."""
    here = tmp_path / "work"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            app([str(arg) for arg in args], prog_name="mogle")
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def masks(tmp_path_factory) -> list[Path]:
    """Two masks of painted portraits."""
    folder = tmp_path_factory.mktemp("masks")
    for seed in (0, 1):
        save_mask(folder / f"{seed}.png", paint(seed).mask)
    return sorted(folder.iterdir())


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises width x height pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [struct.pack(">I", len(b)) + kind + b + struct.pack(">I", zlib.crc32(kind + b)) for kind, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


class Runs:
    """Unpickled by a careless loader, it would leave a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return Path.touch, (self.trace,)


def bad_input(case: str, masks: list[Path], folder: Path) -> tuple[list[object], str]:
    """Arguments that cannot work, and words that the error line must contain."""
    mask, file, golden = masks[0], folder / "mask.png", ("--base", GOLDEN / "flux", "--adapter", GOLDEN)
    if case == "neither":
        return ["--seed", 1], "neither --prompt nor --mask"
    if case == "missing":
        return ["--mask", file], f"{file}: no such file"
    if case == "directory":
        return ["--mask", folder], f"{folder}: found a directory"
    if case == "not an image":
        file.write_text("hello")
        return ["--mask", file], f"{file}: found no image"
    if case == "truncated":
        file.write_bytes(mask.read_bytes()[:-60])
        return ["--mask", file], f"{file}: the image is damaged or cut short"
    if case == "bomb":
        file.write_bytes(png(30_000, 30_000))
        return ["--mask", file], f"{file}: found"
    if case == "label 19":
        Image.fromarray(np.full((16, 16), 19, np.uint8)).save(file)
        return ["--mask", file], f"{file}: found label 19, expected labels 0..18"
    if case == "luma":
        Image.fromarray(colorize(decode_mask(mask))).convert("L").save(file)
        return ["--mask", file], "turned to gray"
    if case == "all background":
        save_mask(file, np.zeros((16, 16), np.uint8))
        return ["--mask", file], f"{file}: found nothing but background"
    if case == "second of two":
        return ["--mask", mask, "--mask", file], f"{file}: no such file"
    if case == "unequal":
        return [
            "--prompt",
            "a",
            "--prompt",
            "b",
            "--prompt",
            "c",
            "--mask",
            mask,
            "--mask",
            mask,
        ], "3 --prompt, 2 --mask"
    if case == "mask without adapter":
        return ["--mask", mask, "--base", GOLDEN / "flux", "--adapter", "none"], "--adapter none"
    if case == "steps":
        return ["--mask", mask, "--steps", 0], "--steps 0"
    if case == "not a number":
        return ["--mask", mask, "--steps", "many"], "--steps"
    if case == "size":
        return ["--mask", mask, "--size", 100], "multiple of 16"
    if case == "seed":
        return ["--mask", mask, "--seed", -1], "--seed -1"
    if case == "guidance":
        return ["--mask", mask, "--guidance", "nan"], "--guidance nan"
    if case == "no such base":
        return ["--mask", mask, "--base", folder / "base"], "no such folder"
    if case == "no base there":
        return ["--mask", mask, "--base", folder], "without model_index.json"
    if case == "device":
        return ["--mask", mask, *golden, "--device", "cuda:99"], "cuda:99"
    if case == "offload":
        return ["--mask", mask, *golden, "--device", "cpu", "--offload", "group"], "there is no GPU"
    if case == "dtype":
        return ["--mask", mask, *golden, "--device", "cpu", "--dtype", "int8"], "--dtype int8: expected one of float32"
    if case == "output":
        file.touch()
        return ["--mask", mask, *golden, "--output-dir", file / "below"], "found a file"
    if case == "like nothing":
        return ["--like", mask], f"{mask}: found no recipe"
    if case == "like and more":
        return ["--like", mask, "--seed", 1], "--seed beside it"
    if case == "option":
        return ["--mask", mask, "--colour", "red"], "--colour"
    raise AssertionError(case)


CHEAP = ["neither", "missing", "directory", "not an image", "truncated", "bomb", "label 19", "luma", "all background"]
CHEAP += ["second of two", "unequal", "mask without adapter", "steps", "not a number", "size", "seed", "guidance"]
CHEAP += [
    "no such base",
    "no base there",
    "device",
    "offload",
    "dtype",
    "output",
    "like nothing",
    "like and more",
    "option",
]


def refused(result: tuple[int, str, str], words: str, leaves: list[str] | None = None) -> None:
    code, out, err = result
    assert code == 2 and out == "" and words in err, result
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert [path.name for path in Path.cwd().iterdir()] == (leaves or []), "something was written"


@pytest.mark.parametrize("case", CHEAP)
def test_a_mistake_gets_one_line(mogle, masks, tmp_path, case):
    args, words = bad_input(case, masks, tmp_path)
    refused(mogle("generate", *args), words)


def test_prompt_beyond_t5(mogle):
    refused(mogle("generate", "--prompt", "She has blond hair. " * 60), "token")


def test_adapter_of_another_base(mogle, masks):
    refused(mogle("generate", "--mask", masks[0], "--adapter", GOLDEN), "transformer")


def test_pickle_that_would_run_code(mogle, masks, tmp_path):
    adapter, trace = tmp_path / "adapter", tmp_path / "trace"
    adapter.mkdir()
    shutil.copy(GOLDEN / "pytorch_lora_weights.safetensors", adapter)
    (adapter / "mogle.pt").write_bytes(pickle.dumps(Runs(trace)))
    refused(mogle("generate", "--mask", masks[0], "--base", GOLDEN / "flux", "--adapter", adapter), "mogle.pt")
    assert not trace.exists()


def test_pictures_carry_their_recipe(mogle, masks):
    code, out, err = mogle(
        "generate", "--prompt", "She has blond hair. \u2713", "--mask", masks[0], "--mask", masks[1],
        "--seed", 7, "--steps", 2, "--guidance", 2, "--strength", 0.5, "--output-dir", "made",
    )  # fmt: skip
    assert (code, out.split(), err) == (0, ["made/0000.png", "made/0001.png"], "")
    assert sorted(path.name for path in Path("made").iterdir()) == ["0000.png", "0001.png"]
    picture, recipe, origin = read_picture("made/0001.png")
    assert picture.size == (128, 128) and picture.text["Source"] == SOURCE == "AI-generated"
    assert (recipe.prompt, recipe.seed, recipe.steps) == ("She has blond hair. \u2713", 7, 2)
    assert (recipe.guidance, recipe.strength) == (2.0, 0.5)
    assert (recipe.mask == decode_mask(masks[1])).all()
    assert picture.text["mask_sha256"] == mask_hash(decode_mask(masks[1]))
    assert origin["base"] == "tiny-flux" and "torch" in origin["versions"] and len(origin["adapter_sha256"]) == 64
    assert str(Path.cwd()) not in json.dumps(picture.text)

    code, out, err = mogle("generate", "--like", "made/0001.png", "--output-dir", "made")
    assert (code, err) == (0, "") and out.split("\n")[:2] == ["made/0002.png", "the same picture, bit for bit"]
    assert Path("made/0002.png").read_bytes() == Path("made/0001.png").read_bytes()


def test_a_faster_format_stands_in_the_recipe_and_is_taken_from_it(mogle, masks):
    asked = ("generate", "--mask", masks[0], "--steps", 1, "--device", "cpu")
    assert mogle(*asked, "--dtype", "bfloat16")[0] == mogle(*asked, "--dtype", "float32")[0] == 0
    fast, exact = (read_picture(f"outputs/000{i}.png") for i in range(2))
    assert (fast[1].dtype, exact[1].dtype) == ("bfloat16", "") and fast[1].differences(exact[1]) == ["dtype"]
    assert "cpu, bfloat16" in fast[2]["machine"] and "cpu, float32" in exact[2]["machine"]
    for name in ("0000", "0001"):
        code, out, err = mogle("generate", "--like", f"outputs/{name}.png", "--device", "cpu")
        assert (code, err) == (0, "") and "the same picture, bit for bit" in out
    what = "--dtype beside it"
    refused(mogle("generate", "--like", "outputs/0000.png", "--dtype", "float32"), what, ["outputs"])


def test_text_alone_and_notes_on_what_differs(mogle):
    assert mogle("generate", "--prompt", "He has a beard.", "--steps", 1, "--adapter", "none")[0] == 0
    recipe = read_picture("outputs/0000.png")[1]
    assert recipe.mask is None and recipe.seed == 0
    code, out, err = mogle("generate", "--like", "outputs/0000.png")
    assert code == 0 and "outputs/0001.png" in out
    assert err.startswith("note: adapter differs: the picture was made with nothing, this is tiny-flux-mogle\n")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("rnk=3",), "did you mean rank"),
        (("batch=0",), "batch=0: expected greater than or equal to 1"),
        (("--config", "tinny"), "tinny: no such settings"),
        (("--data", "nowhere"), "nowhere: no such folder"),
        (("--base", "nowhere"), "nowhere: found no such folder"),
        (("--device", "tpu9"), "tpu9"),
        (("--from-adapter", "nowhere"), "nowhere: found no such folder"),
    ],
)
def test_mistakes_before_training_are_one_line(mogle, args: tuple[str, ...], words: str) -> None:
    refused(mogle("train", "--out", "made", *args), words)


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(mogle) -> None:
    code, out, err = mogle("train", "--dry-run", "--config", "reference", "steps=10")
    assert code == 0 and not err and not list(Path.cwd().iterdir())
    assert "14,487,808 in 343 layers" in out and "MoGLE 101,780" in out
    assert "an estimate" in out and "10 steps" in out and "200 portraits" in out


def test_a_data_set_is_drawn_by_id_and_goes_on_where_it_stopped(mogle) -> None:
    from mogle.sampling import seed_of

    data = Path(__file__).resolve().parents[2] / "data" / "portraits"
    command = ("generate", "--dataset", data, "--split", "all", "--steps", 1, "--size", 64, "--output-dir", "made")
    assert mogle(*command, "--count", 1)[0] == 0
    before = Path("made/0.png").stat().st_mtime_ns
    code, out, _ = mogle(*command, "--count", 2)
    assert code == 0 and "1 pictures drawn, 1 already there" in out
    assert Path("made/0.png").stat().st_mtime_ns == before
    picture, recipe, _ = read_picture(Path("made/1.png"))
    assert recipe.seed == seed_of("1", 0) and recipe.prompt and recipe.mask.shape == (64, 64)
    again = Path("made/1.png").read_bytes()
    Path("made/0.png").unlink(), Path("made/1.png").unlink()
    assert mogle(*command, "--count", 2)[0] == 0 and Path("made/1.png").read_bytes() == again
    refused(mogle(*command, "--guidance", 2), "made with another guidance", ["made"])
    refused(mogle(*command, "--prompt", "A man."), "--prompt", ["made"])
    refused(mogle("generate", "--dataset", "nowhere"), "nowhere", ["made"])


def test_dataset_and_evaluation_draw_the_same_picture_of_the_same_sample(mogle) -> None:
    """One rule for seeds: by run and sample, whatever the command, the batch and the row."""
    data, one = Path(__file__).resolve().parents[2] / "data" / "portraits", ("--steps", 2)
    common = ("--split", "all", *one)
    assert mogle("generate", "--dataset", data, *common, "--count", 3, "--output-dir", "made")[0] == 0
    code, out, err = mogle(
        "evaluate", "--data", data, "--n", 3, *common, "--rows", "text+mask", "--batch", 1, "--out", "measured"
    )
    assert code == 0, err
    names = sorted(path.name for path in Path("made").iterdir())
    assert len(names) == 3
    for name in names:
        assert (Path("made") / name).read_bytes() == (Path("measured/text+mask") / name).read_bytes()
    assert mogle("generate", "--dataset", data, *common, "--count", 3, "--output-dir", "measured/text+mask")[0] == 0
    seeds = {read_picture(path)[1].seed for path in Path("measured").rglob("*.png") if path.stem in "012"}
    assert len(seeds) == 9, "three samples, each at three seeds"


def test_a_mask_that_is_not_square_keeps_its_aspect(mogle, masks, tmp_path) -> None:
    wide = np.repeat(decode_mask(masks[0]), 2, axis=1)
    save_mask(tmp_path / "wide.png", wide)
    command = ("generate", "--mask", tmp_path / "wide.png", "--steps", 1)
    code, _, err = mogle(*command)
    assert code == 0 and err == "note: masks of 256x128 pixels are drawn at 192x96; --size sets another\n"
    picture, recipe, _ = read_picture("outputs/0000.png")
    assert picture.size == (192, 96) and (recipe.mask == decode_mask(wide, size=(96, 192))).all()
    assert mogle("generate", "--like", "outputs/0000.png")[::2] == (0, "")
    assert Path("outputs/0001.png").read_bytes() == Path("outputs/0000.png").read_bytes()

    code, _, err = mogle(*command, "--size", "64x32")
    assert (code, err) == (0, "") and Image.open("outputs/0002.png").size == (64, 32)
    refused(mogle(*command, "--size", "64"), "choose fit='crop' or fit='pad'", ["outputs"])
    code, _, err = mogle(*command, "--size", "64", "--fit", "stretch")
    assert code == 0 and err == "note: mask: of 256 x 128 pixels, stretched out of its shape to 64 x 64\n"
    for size, words in (("64x", "WIDTHxHEIGHT"), ("64x30", "multiple of 16"), ("0", "at least 1")):
        refused(mogle(*command, "--size", size), words, ["outputs"])


def test_a_recipe_from_before_mask_guidance_is_that_of_no_mask_guidance(mogle, tmp_path) -> None:
    from PIL.PngImagePlugin import PngInfo

    assert mogle("generate", "--prompt", "A man.", "--steps", 1)[0] == 0
    picture, recipe, _ = read_picture("outputs/0000.png")
    assert picture.text["mask_guidance"] == "1.0" and recipe.mask_guidance == 1
    info = PngInfo()
    for key, text in picture.text.items():
        if key != "mask_guidance":
            info.add_text(key, text)
    picture.save(tmp_path / "old.png", pnginfo=info)
    assert read_picture(tmp_path / "old.png")[1] == recipe
    assert "the same picture, bit for bit" in mogle("generate", "--like", tmp_path / "old.png")[1]
    refused(mogle("generate", "--prompt", "A man.", "--mask-guidance", -1), "--mask-guidance -1.0", ["outputs"])


def test_wrong_rows_are_named(mogle) -> None:
    refused(mogle("evaluate", "--rows", "text,fantasy"), "--rows fantasy: expected some of real, reconstruction")
    refused(mogle("evaluate", "--rows", "female", "--data", "nowhere"), "--rows female: these are painted sets")


def test_generate_and_evaluate_work_without_what_makes_the_embedded_default(tmp_path) -> None:
    data = Path(__file__).resolve().parents[2] / "data" / "portraits"
    script = f"""
import sys
sys.modules["mogle.tiny"] = None  # as if the folder was deleted: any import of it fails
from mogle.cli import app
for command in (
    "generate --prompt Hello --mask {data}/mask/0.png --steps 1",
    "generate --dataset {data} --split all --count 1 --steps 1",
    "evaluate --data {data} --split all --n 2 --steps 1 --rows real,reconstruction,text+mask",
    "evaluate --masks {data}/mask/0.png --seeds 0 --steps 1 --out runs/masks",
):
    try:
        app(command.split(), prog_name="mogle")
    except SystemExit as ended:
        assert not ended.code, command
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "runs/eval/index.html").is_file() and (tmp_path / "runs/masks/masks.png").is_file()


def test_a_damaged_recipe_is_refused(mogle, masks, tmp_path):
    from PIL.PngImagePlugin import PngInfo

    packed = io.BytesIO()
    save_mask(packed, decode_mask(masks[0]))
    good = {"Source": SOURCE, "seed": "1", "steps": "1", "guidance": "1.0", "strength": "1.0", "size": "128x128"}
    good |= {"mask_sha256": "0" * 64, "mask": base64.b64encode(packed.getvalue()).decode()}
    for change in ({}, {"seed": "x"}, {"size": "big"}, {"mask": "?"}, {"mask_sha256": None, "steps": "0"}):
        info = PngInfo()
        for key, text in (good | change).items():
            if text is not None:
                info.add_text(key, text)
        Image.new("RGB", (128, 128)).save(tmp_path / "picture.png", pnginfo=info)
        refused(mogle("generate", "--like", tmp_path / "picture.png"), "steps" if "steps" in change else "damaged")


def test_fingerprint_follows_contents_not_places(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "part").mkdir(parents=True)
        (tmp_path / name / "part" / "config.json").write_text("{}")
    first = fingerprint(tmp_path / "one")
    assert first == fingerprint(tmp_path / "two")
    (tmp_path / "two" / "part" / "config.json").write_text("[]")
    assert first != fingerprint(tmp_path / "two")


def test_data_paint(mogle):
    code, out, err = mogle("data", "paint", "--set", "female", "--out", "set", "--ids", "3,27001", "--size", 64)
    assert (code, err) == (0, "") and "2 female" in out
    assert {path.as_posix() for path in Path("set").rglob("*.*")} >= {
        "set/face/00003.jpg",
        "set/mask/27001.png",
        "set/text.json",
    }
    assert (decode_mask("set/mask/00003.png") == paint(3, 64, "female").mask).all()
    refused(mogle("data", "paint", "--out", "set"), "set: holds", leaves=["set"])


def test_data_paint_refuses(mogle):
    refused(mogle("data", "paint", "--out", "set", "--set", "men"), "men")
    refused(mogle("data", "paint", "--out", "set", "--count", 0), "--count 0")
    refused(mogle("data", "paint", "--out", "set", "--ids", "3-1"), "--ids 3-1")
    assert parse_ids("0-2, 7,1") == [0, 1, 2, 7]


def test_every_command_has_help_with_an_example(mogle):
    from typer.main import get_command

    def commands(group, path=()):  # type: ignore[no-untyped-def]
        for name, command in group.commands.items():
            yield from commands(command, (*path, name)) if hasattr(command, "commands") else [(*path, name)]

    for path in commands(get_command(app)):
        code, out, err = mogle(*path, "--help")
        example = rf"Examples?: mogle {' '.join(path)} "
        assert code == 0 and re.search(example, " ".join(out.split())), path


def test_help_does_not_load_torch():
    tail = "finally: print('torch' in sys.modules)"
    script = f"import sys; from mogle.cli import app\ntry: app(['generate', '--help'])\n{tail}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_package_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "mogle", "generate"], capture_output=True, text=True)
    assert done.returncode == 2 and "neither --prompt nor --mask" in done.stderr
