"""Exercises: `check.NAME(answer)`, `reveal("NAME")`, `progress()`.

A check says whether an answer has passed, has not been attempted, or what is wrong with it, and returns what the next
cells use: the answer if it is right, otherwise the package's own. So a notebook runs from top to bottom whichever
exercises are solved. The solution of every exercise is code that the package itself uses.
"""

from __future__ import annotations

import dis
import inspect
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from types import FunctionType
from typing import Any

from mogle.errors import MogleError
from mogle.files import atomic_write


class Wrong(Exception):
    """An answer is not right; the arguments are hints, each in terms of the mistake."""


@dataclass(frozen=True)
class Exercise:
    """One exercise. Its checker is the function of the same name in `mogle.course.checks`.

    Attributes:
        difficulty: 1 (a line or two) to 3 (a class with several decisions).
        solutions: "module:object" for each answer that the check takes.
    """

    name: str
    notebook: str
    difficulty: int
    minutes: int
    solutions: tuple[str, ...]

    def own(self) -> tuple[Any, ...]:
        """The package's own answers."""
        return tuple(map(resolve_name, self.solutions))

    def judge(self, *answers: Any) -> None:
        """Run the checker.

        Raises:
            Wrong: the answers are not right; what is wrong with them.
        """
        import torch

        with torch.random.fork_rng(devices=[]), torch.no_grad():  # the notebook's own random numbers stay as they are
            torch.manual_seed(0)
            resolve_name(f"mogle.course.checks:{self.name}")(*answers)


_TOKENS, _EXPERTS, _GATING = "02_from_mask_to_tokens", "06_global_and_local_experts", "07_dynamic_gating"
EXERCISES = {
    exercise.name: exercise
    for exercise in (
        Exercise("conditions20", _TOKENS, 1, 10, ("mogle.conditions:condition_images",)),
        Exercise("packing", _TOKENS, 2, 15, ("mogle.conditions:pack_latents", "mogle.course.tokens:unpack_latents")),
        Exercise("broken_loader", _TOKENS, 2, 15, ("mogle.course.tokens:loader_is_right",)),
        Exercise("expert", _EXPERTS, 1, 5, ("mogle.experts:Expert",)),
        Exercise("expert_bank", _EXPERTS, 3, 20, ("mogle.experts:expert_bank",)),
        Exercise("class_home", _EXPERTS, 2, 15, ("mogle.course.tokens:class_shares",)),
        Exercise("dynamic_gate", _GATING, 2, 15, ("mogle.experts:DynamicGate",)),
        Exercise("mogle", _GATING, 3, 20, ("mogle.experts:MoGLE",)),
        Exercise("gate_entropy", _GATING, 1, 10, ("mogle.course.tokens:gate_entropy",)),
    )
}


def is_stub(answer: Any) -> bool:
    """True for an answer not attempted: `...`, None, a function whose body is `...`, a class that sets no attribute
    and has no `forward` of its own, or one that is such a function."""
    if inspect.isclass(answer):
        forward = inspect.getattr_static(answer, "forward", None)
        if any(step.opname == "STORE_ATTR" for step in dis.get_instructions(answer.__init__)):
            return False
        return not isinstance(forward, FunctionType) or forward.__module__.startswith("torch") or is_stub(forward)
    if not isinstance(answer, FunctionType):
        return answer is None or answer is ...
    steps = [step for step in dis.get_instructions(answer) if step.opname not in ("RESUME", "NOP", "POP_TOP")]
    constants = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    only_returns = all(step.opname in ("LOAD_CONST", "RETURN_CONST", "RETURN_VALUE") for step in steps)
    return only_returns and set(constants) <= {None, ...}


def _check(exercise: Exercise, *answers: Any) -> Any:
    """Judge the answers, print the verdict, and return them if they are right or else the package's own."""
    name, own = exercise.name, exercise.own()
    if len(answers) != len(own):
        wanted = ", ".join(path.split(":")[1] for path in exercise.solutions)
        raise MogleError(f"check.{name}: found {len(answers)} answers, expected {len(own)}: your {wanted}")
    hints: tuple[str, ...] | None = None
    if not any(is_stub(answer) for answer in answers):
        try:
            exercise.judge(*answers)
            hints = ()
        except Wrong as wrong:
            hints = wrong.args
        except NotImplementedError as error:  # a stub raises it; torch raises it for a module without `forward`
            hints = ("There is no method called `forward`.",) if "forward" in str(error) else None
        except Exception as error:
            hints = (f"It raised {type(error).__name__}: {' '.join(str(error).split())[:200]}",)
    if hints is None:
        print(f'{name}: not attempted; going on with the package\'s own. reveal("{name}") shows it.')
    elif hints:
        print(f"{name}: not yet.", *hints, "Going on with the package's own.", sep="\n  ")
    else:
        print(f"{name}: passed.")
        own = answers
    if hints is not None:
        _remember(name, passed=not hints)
    return own[0] if len(own) == 1 else own


class _Checks:
    """`check.NAME(answer)` for each exercise."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(_check, _find(name))

    def __dir__(self) -> list[str]:
        return list(EXERCISES)


check = _Checks()


def reveal(name: str) -> None:
    """Print the solution: the package's own source, and where it lives."""
    for path, solution in zip(_find(name).solutions, _find(name).own(), strict=True):
        print(f"# {path.replace(':', '.')}\n{inspect.getsource(solution)}")


def progress() -> None:
    """Print all exercises and which of them are done. This is stored on this machine alone."""
    done = _read()
    for e in EXERCISES.values():
        state = {True: "passed", False: "tried", None: ""}[done.get(e.name)]
        print(f"{e.notebook:<28} {e.name:<14} {'*' * e.difficulty:<3} {e.minutes:>3} min  {state}".rstrip())


def _find(name: str) -> Exercise:
    if name not in EXERCISES:
        raise MogleError(f"no exercise {name!r}: expected one of {', '.join(EXERCISES)}")
    return EXERCISES[name]


def _file() -> Path:
    return Path(os.environ.get("MOGLE_PROGRESS") or Path.home() / ".cache" / "face-mogle" / "progress.json")


def _read() -> dict[str, bool]:
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(name: str, passed: bool) -> None:
    """Store a result; what has passed once stays passed. A disk that cannot be written does not spoil the check."""
    done = _read()
    done[name] = passed or done.get(name, False)
    with suppress(OSError), atomic_write(_file()) as part:
        part.write_text(json.dumps(done))
