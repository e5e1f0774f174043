"""`mogle doctor`: what this machine has, what the tier that fits it still needs, and the command that mends each.

`look` gathers facts, without a network and without loading a model; `diagnose` judges them and touches nothing. Whether
there is a token is asked, what it is never: no text from here holds one.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mogle.checkpoints import ADAPTER, BASE, JUDGES
from mogle.errors import MogleWarning
from mogle.hardware import FLUX, GIB, Machine, Tier, best_tier, measure
from mogle.neighbours import broken, hide_broken

_DISTRIBUTION = "face-mogle"
#: What `mogle.course.setup` gives to a notebook -> a file that is there when it is.
_SHIPPED = {
    "data": "data/portraits/text.json",
    "base": f"checkpoints/{BASE}/model_index.json",
    "adapter": f"checkpoints/{ADAPTER}/mogle.safetensors",
    "judges": f"checkpoints/{JUDGES}/config.json",
}
_WORKING_GIB = 2.0  # for adapters, pictures and encoded data sets


class Row(NamedTuple):
    """One line of the table; state is "ok", "note" or, where the tier needs what is not there, "missing"."""

    subject: str
    state: str
    found: str
    mend: str = ""


@dataclass(frozen=True)
class Facts:
    """All that is judged, so that a test can imagine any machine."""

    machine: Machine
    python: str = "3.11"
    requires_python: str = ">=3.11"
    requires: tuple[str, ...] = ()  # the package's own requirements, with extras
    versions: Mapping[str, str | None] = field(default_factory=dict)  # of what is required
    broken: Mapping[str, str] = field(default_factory=dict)  # as in `mogle.neighbours`
    working_gib: float = 0.0  # free disk space in the working folder ...
    cache_gib: float = 0.0  # ... and in the Hub's cache
    token: bool = False
    weights: str = ""  # where FLUX.1-dev's are
    licence: bool = False  # whether files are here that only those get who accepted it
    notebooks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name -> of `_SHIPPED`, and "gpu"
    shipped: tuple[str, ...] = ()  # of `_SHIPPED`, what is there


def report(tier: str | None = None) -> str:
    """The table as text: `print(mogle.doctor.report())` in a notebook. `tier` instead of the one that fits best."""
    facts = look()
    chosen = best_tier(facts.machine, tier)
    return as_text(chosen, diagnose(facts, chosen))


def as_text(tier: Tier, rows: list[Row]) -> str:
    """What the tier costs, a line for each row, below it the command that mends it, and a last line that sums up."""
    wide = max(len(row.subject) for row in rows)
    lines = [tier.cost(), ""]
    for row in rows:
        lines.append(f"{row.subject:<{wide}}  {row.state:<8} {row.found}")
        lines += [f"{'':<{wide}}  {'mend:':<8} {row.mend}"] if row.mend else []
    missing = [row.subject for row in rows if row.state == "missing"]
    told = f"{len(missing)} missing: {', '.join(missing)}" if missing else f"nothing is missing for tier {tier.name}"
    return "\n".join([*lines, "", told])


def diagnose(facts: Facts, tier: Tier) -> list[Row]:
    """The rows of the table for one tier."""
    lacking = list(_packages(facts, tier))
    rows = [*_machine(facts.machine, tier), *(row for _, row in lacking)]
    rows += [*_neighbours(facts, tier), *_hub(facts, tier), *_notebooks(facts, tier, [name for name, _ in lacking])]
    secrets = [value for name, value in os.environ.items() if re.search("TOKEN|SECRET|KEY|PASSWORD", name)]
    for secret in filter(lambda value: len(value) >= 8, secrets):  # an error's text may quote anything
        rows = [Row(*(part.replace(secret, "***") for part in row)) for row in rows]
    return rows


def _row(subject: str, fine: bool, found: str, mend: str, otherwise: str = "missing") -> Row:
    return Row(subject, "ok", found) if fine else Row(subject, otherwise, found, mend)


def _machine(machine: Machine, tier: Tier) -> Iterator[Row]:
    build = f"for CUDA {machine.cuda}" if machine.cuda else "without CUDA"
    found = f"{machine.torch}, {build}" if machine.torch else machine.trouble
    yield _row("torch", machine.torch is not None, found, "pip install torch")
    if machine.gpu is not None:
        bf16, driver = "bfloat16" if machine.bf16 else "no bfloat16", machine.driver or "unknown"
        yield Row("GPU", "ok", f"{machine.gpu}, {machine.gpu_gib:.1f} GiB, {bf16}, driver {driver}")
    else:
        why = f"driver {machine.driver}, but torch sees no GPU: this torch is {build}" if machine.driver else "none"
        mend = "install the build of torch that fits the driver, then start Python anew"
        yield _row("GPU", machine.driver is None, why, mend, "note")
    if (system := machine.system_gib) is not None:
        found = f"{system:.1f} GiB, {tier.system_gib:g} needed"
        yield _row("system memory", system >= tier.system_gib, found, "close other programs, or take a smaller tier")
    fits, misfit = best_tier(machine), tier.misfit(machine)
    found = f"{tier.name} ({tier.title}); the largest that fits is {fits.name}"
    yield _row("tier", not misfit, f"{tier.name} {misfit}" if misfit else found, f"mogle doctor --tier {fits.name}")


def _packages(facts: Facts, tier: Tier) -> Iterator[tuple[str, Row]]:
    """(extra, row) for each package that is missing or too old; rows of what is as it should be have the extra "-"."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    wanted_python = SpecifierSet(facts.requires_python)
    fine = wanted_python.contains(facts.python, prereleases=True)
    found = facts.python if fine else f"{facts.python}, expected {wanted_python}"
    yield "-" if fine else "", _row("Python", fine, found, "install a newer Python")
    extras = ["", *(["course"] if facts.notebooks else []), *(["gpu"] if tier.quantise != "none" else [])]
    bad = 0 if facts.requires else 1
    if bad:
        yield "", Row("packages", "missing", f"{_DISTRIBUTION} is not installed", 'pip install -e ".[course]"')
    for wanted in map(Requirement, facts.requires):
        of = [extra for extra in extras if wanted.marker is None or wanted.marker.evaluate({"extra": extra})]
        version = facts.versions.get(wanted.name.lower())
        if of and (version is None or not wanted.specifier.contains(version, prereleases=True)):
            bad += 1
            found = f"{version or 'not installed'}, expected {wanted.specifier}"
            yield of[0], Row(wanted.name, "missing", found, f'pip install "{wanted.name}{wanted.specifier}"')
    if not bad:
        yield "-", Row("packages", "ok", "all as new as they have to be")


def _neighbours(facts: Facts, tier: Tier) -> Iterator[Row]:
    for name, why in facts.broken.items():
        package = name.replace("_", "-")
        if name == "bitsandbytes" and tier.quantise != "none":
            yield Row(name, "missing", f"does not load ({why})", f"pip install --force-reinstall {package}")
        else:
            yield Row(name, "note", f"does not load, and is hidden ({why})", f"pip uninstall -y {package}")


def _hub(facts: Facts, tier: Tier) -> Iterator[Row]:
    """Disk space, token, licence and weights: the last three matter to tiers on FLUX.1-dev alone."""
    flux = tier.base == FLUX
    unneeded = "" if flux else f"; tier {tier.name} needs none"
    wanted = tier.disk_gib if flux and not facts.weights else 0.0
    for place, free, least, mend in (
        ("working folder", facts.working_gib, _WORKING_GIB, "free some, or work on another disk"),
        ("Hub's cache", facts.cache_gib, wanted, "free some, or set HF_HOME to a folder on another disk"),
    ):
        yield _row(f"disk, {place}", free >= least, f"{free:.1f} GiB free, {least:g} needed", mend)
    here = bool(facts.weights)
    token = "present" if facts.token else f"none{unneeded}"
    yield _row("Hub token", facts.token or not flux, token, "hf auth login", "note" if here else "missing")
    licence = "accepted, as gated files are here" if facts.licence else f"cannot be told offline{unneeded}"
    yield _row("FLUX.1-dev's licence", facts.licence or not flux, licence, f"accept it on the Hub, {FLUX}", "note")
    weights = facts.weights or f"not on this machine{unneeded}"
    yield _row("FLUX.1-dev's weights", here or not flux, weights, f"hf download {FLUX}")


def _notebooks(facts: Facts, tier: Tier, extras: list[str]) -> Iterator[Row]:
    for name, needs in facts.notebooks.items():
        lacks = [_SHIPPED[need].rpartition("/")[0] for need in needs if need in _SHIPPED and need not in facts.shipped]
        mend = [f"git checkout -- {' '.join(lacks)}"] if lacks else []
        if {"", "course"} & set(extras):
            lacks.append("packages")
            mend.append('pip install -e ".[course]"')
        skipped = "; its GPU cells are left out" if "gpu" in needs and not tier.needs_gib else ""
        found = (f"lacks {', '.join(lacks)}" if lacks else "has all it needs") + skipped
        yield _row(name, not lacks, found, " && ".join(mend))


def look() -> Facts:
    """The facts of this machine; takes about as long as importing torch."""
    machine = measure()
    with warnings.catch_warnings(action="ignore", category=MogleWarning):  # said in the table instead
        hide_broken()
    try:
        python = metadata.metadata(_DISTRIBUTION)["Requires-Python"] or ""
        requires = tuple(metadata.requires(_DISTRIBUTION) or ())
    except metadata.PackageNotFoundError:
        python, requires = "", ()
    # The Hub's folders by its own rules; asked of the environment, so that nothing has to be imported.
    home = _folder("HF_HOME", _folder("XDG_CACHE_HOME", Path("~/.cache")) / "huggingface")
    hub = _folder("HF_HUB_CACHE", home / "hub")
    token = _folder("HF_TOKEN_PATH", home / "token")  # never opened
    copies = [*(hub / f"models--{FLUX.replace('/', '--')}" / "snapshots").glob("*"), Path("checkpoints/FLUX.1-dev")]
    whole = [str(copy) for copy in copies if any((copy / "transformer").glob("*.safetensors"))]
    root = _root()
    return Facts(
        machine=machine,
        python=platform.python_version(),
        requires_python=python,
        requires=requires,
        versions={(found.name or "").lower().replace("_", "-"): found.version for found in metadata.distributions()},
        broken=dict(broken),
        working_gib=_free_gib(Path.cwd()),
        cache_gib=_free_gib(hub),
        token=bool(os.environ.get("HF_TOKEN")) or (token.is_file() and token.stat().st_size > 0),
        weights=whole[0] if whole else "",
        licence=any((copy / "transformer" / "config.json").exists() for copy in copies),
        notebooks=_needs_of_notebooks(root) if root else {},
        shipped=tuple(name for name, file in _SHIPPED.items() if root and (root / file).is_file()),
    )


def _folder(variable: str, otherwise: Path) -> Path:
    return Path(os.environ.get(variable) or otherwise).expanduser()


def _root() -> Path | None:
    """The clone of the project: where the package lies, or the working folder or one above it."""
    folders = (Path(__file__).resolve().parents[1], Path.cwd(), *Path.cwd().parents)
    return next((folder for folder in folders if (folder / "notebooks" / "00_quickstart.ipynb").is_file()), None)


def _needs_of_notebooks(root: Path) -> dict[str, tuple[str, ...]]:
    """What each notebook takes from `setup()`, which itself wants the base, and whether cells are marked for GPUs."""
    needs = {}
    for file in sorted((root / "notebooks").glob("*.ipynb")):
        text = file.read_text(encoding="utf-8")
        taken = sorted({"base", *re.findall(r"\bcourse\.(\w+)", text)} & _SHIPPED.keys())
        needs[file.stem] = (*taken, *(["gpu"] if re.search(r'"tags": \[[^\]]*"gpu"', text) else []))
    return needs


def _free_gib(folder: Path) -> float:
    """Of the disk on which the folder is, or would be."""
    there = next(part for part in (folder.absolute(), *folder.absolute().parents) if part.exists())
    return shutil.disk_usage(there).free / GIB
