"""The command line: `mogle generate`, `mogle data`, ... Each command checks its input before loading anything heavy."""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import suppress
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from mogle.cli import data, demo, evaluate, experiment, generate, weights
from mogle.course import from_workbook
from mogle.errors import MogleError, MogleWarning
from mogle.training import command as training


class _Group(TyperGroup):
    """A command group that prints an error as one line on stderr, or a line for each of several problems.

    The exit code is 2 for what the user can put right, 1 for what the machine refuses.
    """

    def main(self, *args: Any, **options: Any) -> Any:
        with warnings.catch_warnings():
            _quiet()
            try:
                code = super().main(*args, **{**options, "standalone_mode": False})
            except MogleError as error:
                _fail(str(error), 2)
            except OSError as error:  # a full disk, no permission, a download that failed
                _fail(str(error) or type(error).__name__, 1)
            except Exception as error:
                # Usage errors, whose class comes from click or from typer's own copy of it, depending on the version.
                if type(error).__name__ == "NoArgsIsHelpError":
                    error.show()  # type: ignore[attr-defined]
                    sys.exit(2)
                if not hasattr(error, "format_message"):
                    raise
                _fail(error.format_message(), 2)
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    lines = [" ".join(line.split()) for line in message.splitlines() if line.strip()]  # one for each problem
    typer.echo("error: " + "\n  ".join(lines), err=True)
    sys.exit(code)


def _quiet() -> None:
    """Hide what libraries print; print this package's own warnings as one line, `note: ...`."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", MogleWarning)
    warnings.showwarning = lambda message, *_, **__: typer.echo(f"note: {message}", err=True)


app = typer.Typer(cls=_Group, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _start() -> None:
    """Face-MoGLE: a face from a mask and a sentence."""


for room in (generate, evaluate, experiment, data, weights, training, demo):
    room.register(app)
try:
    from mogle.tiny import command as tiny
except ModuleNotFoundError as error:  # installed without the part that makes the tiny default
    if not (error.name or "").startswith("mogle.tiny"):
        raise
else:
    tiny.register(app, data.group)
with suppress(MogleError):  # installed without the notebooks
    from_workbook("command").register(app)


def main() -> None:
    """Entry point of the `mogle` script."""
    app()
