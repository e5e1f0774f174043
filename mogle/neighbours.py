"""Packages that transformers, diffusers and peft use where they find them, and that often do not fit the torch beside.

A torchvision of another build, a torchao that is too old for peft, a bitsandbytes without its library: each makes the
libraries fail somewhere else, with a message that names the wrong cause. Nothing here needs them to draw or to train,
so one that does not load is hidden before those libraries look for it, and named once. The check runs when the first of
the libraries is imported; `import mogle` only announces it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from importlib.abc import MetaPathFinder
from typing import Any

from mogle.errors import MogleError, MogleWarning

LIBRARIES = ("accelerate", "diffusers", "peft", "transformers")
#: Package -> the oldest version that the libraries accept without raising, or None.
NEIGHBOURS = {"torchvision": None, "torchao": "0.16", "bitsandbytes": None, "xformers": None, "flash_attn": None}
#: What was hidden, and why: for those who need it after all (bitsandbytes to quantise).
broken: dict[str, str] = {}


def hide_broken() -> None:
    """Import each neighbour that is installed; make those invisible that do not load, and warn of them once.

    Warns:
        MogleWarning: what is broken, why, and the command that mends it.
    """
    for name, oldest in NEIGHBOURS.items():
        if name in sys.modules and (oldest is None or sys.modules[name] is None):  # it has loaded, or is hidden
            continue
        if importlib.util.find_spec(name) is None or not (reason := _trouble(name, oldest)):
            continue
        broken[name] = reason
        for loaded in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
            del sys.modules[loaded]
        sys.modules[name] = None  # type: ignore[assignment]  # find_spec and import now say that it is not there
        package = name.replace("_", "-")
        mend = f"pip uninstall -y {package}, or install the {package} that fits torch {_version('torch')}"
        what = f"{name} is installed and does not load ({reason}); going on without it. To mend it: {mend}"
        warnings.warn(what, MogleWarning, stacklevel=2)


def require(package: str, wanted: str) -> None:
    """MogleError where the package is not there, or does not load, that a setting `NAME=VALUE` or an option needs."""
    if importlib.util.find_spec(package) is None:
        found = f"does not load ({broken[package]})" if package in broken else "is not installed"
        command = "pip install 'face-mogle[gpu]'" if package == "bitsandbytes" else f"pip install {package}"
        name = wanted.partition("=")[0]
        raise MogleError(f"{wanted}: {package} {found}; expected {command}, or {name} left as it was")


def _trouble(name: str, oldest: str | None) -> str:
    """Why a package cannot be used, in one line; empty where it can."""
    from packaging.version import Version

    try:
        if oldest and Version(_version(name)) < Version(oldest):
            return f"version {_version(name)}; peft needs at least {oldest}"
        with warnings.catch_warnings(action="ignore"):
            importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a broken package raises anything, SystemExit too
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return ""


def _version(name: str) -> str:
    """The version of a package, 0 where it does not say."""
    from importlib import metadata

    return next((found.version for found in metadata.distributions(name=name)), "0")


class _Announced(MetaPathFinder):
    """Runs the check before the first of the libraries is found; finds nothing itself."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in LIBRARIES:
            sys.meta_path.remove(self)
            hide_broken()


def announce() -> None:
    """Have the check run when the first of `LIBRARIES` is imported; nothing, where one is loaded already."""
    if not any(name in sys.modules for name in LIBRARIES):
        sys.meta_path.insert(0, _Announced())
