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
from mogle.hardware import FLUX, GIB, Machine, Tier, best_tier, copies_of_flux, hub_cache, measure
from mogle.neighbours import broken, hide_broken

#: What `mogle.course.setup` gives to a notebook -> its folder in the project.
_SHIPPED = {
    "data": "data/portraits", "base": f"checkpoints/{BASE}", "adapter": f"checkpoints/{ADAPTER}",
    "judges": f"checkpoints/{JUDGES}",
}  # fmt: skip
_MENDS = {"python": "install a newer Python", "face-mogle": 'pip install -e ".[course]"'}


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
    requires: tuple[str, ...] = ()  # "python>=3.11" and the package's own requirements, with extras
    versions: Mapping[str, str] = field(default_factory=dict)  # of everything installed, and of Python
    broken: Mapping[str, str] = field(default_factory=dict)  # as in `mogle.neighbours`
    working_gib: float = 0.0  # free disk space in the working folder ...
    cache_gib: float = 0.0  # ... and in the Hub's cache
    token: bool = False
    weights: str = ""  # where FLUX.1-dev's are
    licence: bool = False  # whether files are here that only those get who accepted it
    notebooks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name -> what it takes from `setup()`
    shipped: tuple[str, ...] = ()  # of `_SHIPPED`, what is there


def report(tier: str | None = None) -> str:
    """The table as text, for a cell: `from workbook.doctor import report`. `tier` instead of the one that fits best."""
    return as_text(*examine(tier))


def examine(tier: str | None = None) -> tuple[Tier, list[Row]]:
    """The tier for this machine, or the one of that name, and the rows of its table.

    Raises:
        MogleError: no tier of that name.
    """
    best_tier(Machine(), tier)  # refuse a name that is none before torch is imported
    facts = look()
    chosen = best_tier(facts.machine, tier)
    return chosen, diagnose(facts, chosen)


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
    rows = [*_machine(facts.machine, tier), *_packages(facts, tier), *_hub(facts, tier), *_notebooks(facts)]
    for name, secret in os.environ.items():  # an error's text may quote anything
        if re.search("(TOKEN|SECRET|KEY|PASSWORD)$", name) and len(secret) >= 8:  # from its first letters on
            rows = [Row(*(re.sub(re.escape(secret[:8]) + r"\S*", "***", part) for part in row)) for row in rows]
    return rows


def _row(subject: str, fine: bool, found: str, mend: str, otherwise: str = "missing") -> Row:
    return Row(subject, "ok", found) if fine else Row(subject, otherwise, found, mend)


def _machine(machine: Machine, tier: Tier) -> Iterator[Row]:
    build = f"for CUDA {machine.cuda}" if machine.cuda else "without CUDA"
    found = f"{machine.torch}, {build}" if machine.torch else machine.trouble
    yield _row("torch's build", machine.torch is not None, found, "pip install torch")
    found = f"driver {machine.driver}, but torch sees no GPU: this torch is {build}" if machine.driver else "none"
    if machine.gpu is not None:
        bf16 = "bfloat16" if machine.bf16 else "no bfloat16"
        found = f"{machine.gpu}, {machine.gpu_gib:.1f} GiB, {bf16}, driver {machine.driver or 'unknown'}"
    mend = "install the build of torch that fits the driver, then start Python anew"
    yield _row("GPU", machine.gpu is not None or machine.driver is None, found, mend, "note")
    found = f"{machine.system_gib:.1f} GiB, {tier.system_gib:g} needed"
    yield _row("system memory", not 0 < machine.system_gib < tier.system_gib, found, "take a smaller tier")
    fits, misfit = best_tier(machine).name, tier.misfit(machine)
    found = misfit or f"fits; the largest that does is {fits}"
    yield _row("tier", not misfit, f"{tier.name} {found}", f"mogle doctor --tier {fits}")


def _unmet(facts: Facts, extras: set[str]) -> Iterator[Row]:
    """What is not installed or too old, of the requirements with one of these extras ("" for those without)."""
    from packaging.requirements import Requirement

    for wanted in map(Requirement, facts.requires):
        version = facts.versions.get(wanted.name.lower())
        asked = wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras)
        if asked and (version is None or not wanted.specifier.contains(version, prereleases=True)):
            mend = _MENDS.get(wanted.name, f'pip install "{wanted.name}{wanted.specifier}"')
            yield Row(wanted.name, "missing", f"{version or 'not installed'}, needed {wanted.specifier}", mend)


def _packages(facts: Facts, tier: Tier) -> Iterator[Row]:
    quantised = tier.quantise != "none"
    unmet = list(_unmet(facts, {"", *(["notebook"] if facts.notebooks else []), *(["gpu"] if quantised else [])}))
    yield Row("Python", "ok", facts.versions.get("python", "unknown"))
    yield from unmet or [Row("packages", "ok", "all as new as they have to be")]
    for name, why in facts.broken.items():
        package, needed = name.replace("_", "-"), name == "bitsandbytes" and quantised
        mend = f"pip install --force-reinstall {package}" if needed else f"pip uninstall -y {package}"
        yield Row(name, "missing" if needed else "note", f"does not load, and is hidden ({why})", mend)


def _hub(facts: Facts, tier: Tier) -> Iterator[Row]:
    """Disk space, token, licence and weights: the last three matter to tiers on FLUX.1-dev alone."""
    flux, here = tier.base == FLUX, bool(facts.weights)
    unneeded = "" if flux else f"; tier {tier.name} needs none"
    wanted = tier.disk_gib if flux and not here else 0.0
    # In the working folder are adapters, pictures and encoded data sets.
    for place, free, least in (("working folder", facts.working_gib, 2.0), ("cache", facts.cache_gib, wanted)):
        found, mend = f"{free:.1f} GiB free, {least:g} needed", "free some, or take another disk (cache: set HF_HOME)"
        yield _row(f"disk, {place}", free >= least, found, mend)
    yield _row("Hub token", facts.token or here or not flux, "present" if facts.token else "none", "hf auth login")
    licence = "accepted, as gated files are here" if facts.licence else f"cannot be told offline{unneeded}"
    yield _row("FLUX.1-dev's licence", facts.licence or not flux, licence, f"accept it on the Hub, {FLUX}", "note")
    found, mend = facts.weights or f"not here{unneeded}", "mogle weights get flux-dev"
    yield _row("FLUX.1-dev's weights", here or not flux, found, mend)


def _notebooks(facts: Facts) -> Iterator[Row]:
    packages = any(_unmet(facts, {"", "notebook"}))
    for name, needs in facts.notebooks.items():
        lacks = [_SHIPPED[need] for need in sorted((_SHIPPED.keys() & set(needs)).difference(facts.shipped))]
        mend = [f"git checkout -- {' '.join(lacks)}"] * bool(lacks) + [_MENDS["face-mogle"]] * packages
        lacks += ["packages"] * packages
        yield _row(name, not lacks, f"lacks {', '.join(lacks)}" if lacks else "has all it needs", " && ".join(mend))


def look() -> Facts:
    """The facts of this machine; takes about as long as importing torch."""
    machine = measure()
    with warnings.catch_warnings(action="ignore", category=MogleWarning):  # said in the table instead
        hide_broken()
    own = next(iter(metadata.distributions(name="face-mogle")), None)
    requires = [f"python{own.metadata['Requires-Python'] or ''}", *(own.requires or [])] if own else ["face-mogle"]
    names = {re.split(r"[^\w.-]", text)[0].lower() for text in requires}
    versions = {name: found.version for name in names for found in reversed([*metadata.distributions(name=name)])}
    versions["python"] = platform.python_version()
    hub, copies = hub_cache(), copies_of_flux()
    home = os.environ.get("HF_HOME") or f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    token = Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()  # never opened
    whole = [str(copy) for copy in copies if any((copy / "transformer").glob("*.safetensors"))]
    root = Path(__file__).resolve().parents[2]
    notebooks = {file.stem: file.read_text("utf-8") for file in sorted((root / "notebooks").glob("*.ipynb"))}
    return Facts(
        machine, tuple(requires), versions, dict(broken), _free_gib(Path.cwd()), _free_gib(hub),
        any(map(os.environ.get, ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))) or token.is_file(), whole[0] if whole else "",
        licence=any((copy / "transformer" / "config.json").exists() for copy in copies),
        # Each takes what it names from `setup()`, which itself wants the base.
        notebooks={name: ("base", *re.findall(r"\bcourse\.(\w+)", text)) for name, text in notebooks.items()},
        shipped=tuple(name for name, folder in _SHIPPED.items() if (root / folder).is_dir()),
    )  # fmt: skip


def _free_gib(folder: Path) -> float:
    """Of the disk on which the folder is, or would be."""
    there = next(part for part in (folder.absolute(), *folder.absolute().parents) if part.exists())
    return shutil.disk_usage(there).free / GIB
