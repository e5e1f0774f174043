"""Exercises: `check.NAME(answer)`, `hint("NAME")`, `reveal("NAME")`, `whose("NAME")`, `score("06")`, `progress()`.

A check says whether an answer has passed, has not been attempted, or what is wrong with it, and returns what the next
cells use: the answer if it is right, otherwise the package's own. So a notebook runs from top to bottom whichever
exercises are solved. The exercises themselves stand beside the notebooks, in `notebooks/workbook/`.
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
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from mogle.errors import MogleError
from mogle.files import atomic_write


class Wrong(Exception):
    """An answer is not right; the arguments are hints, each in terms of the mistake."""


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        notebook: the stem of its file.
        difficulty: 1 (a line or two) to 3 (a class with several decisions).
        checker: takes the answers, raises `Wrong` where they are not right.
        solutions: the course's own answer for each that the checker takes.
        hints: what to look at, where, and how; `hint` gives them one after the other.
        remark: what there is to say about answers that have passed; takes the answers.
    """

    name: str
    notebook: str
    difficulty: int
    minutes: int
    checker: Callable[..., None]
    solutions: tuple[Any, ...]
    hints: tuple[str, str, str]
    remark: Callable[..., str] | None = None

    def judge(self, *answers: Any) -> None:
        """Run the checker.

        Raises:
            Wrong: the answers are not right; what is wrong with them.
        """
        import torch

        with torch.random.fork_rng(devices=[]), torch.no_grad():  # the notebook's own random numbers stay as they are
            torch.manual_seed(0)
            self.checker(*answers)


def exercises() -> dict[str, Exercise]:
    """All exercises by their names, in the order of the notebooks."""
    found: dict[str, Exercise] = import_module("workbook.exercises").EXERCISES
    return found


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


#: What has been judged in this kernel: name -> whether it passed; and how many hints were given.
_judged: dict[str, bool] = {}
_hinted: dict[str, int] = {}


def _check(exercise: Exercise, *answers: Any) -> Any:
    """Judge the answers, print the verdict, and return them if they are right or else the package's own."""
    name, own = exercise.name, exercise.solutions
    if len(answers) != len(own):
        wanted = ", ".join(solution.__name__ for solution in own)
        raise MogleError(f"check.{name}: found {len(answers)} answers, expected {len(own)}: your {wanted}")
    try:
        wrong = None if all(map(is_stub, answers)) else _what_is_wrong(exercise, answers)
    except NotImplementedError:
        wrong = None
    _judged[name] = wrong == []
    if wrong is None:
        print(f"{name}: not attempted; going on with the package's own.", _ways_on(name))
        return own[0] if len(own) == 1 else own
    if wrong:
        print(f"{name}: not yet.", *wrong, f"Going on with the package's own. {_ways_on(name)}", sep="\n  ")
    else:
        print(f"{name}: passed.", *([exercise.remark(*answers)] if exercise.remark else []), sep="\n  ")
        own = answers
    _remember(name, passed=not wrong)
    return own[0] if len(own) == 1 else own


def _ways_on(name: str) -> str:
    return f'hint("{name}") helps, reveal("{name}") shows it.'


def _what_is_wrong(exercise: Exercise, answers: tuple[Any, ...]) -> list[str]:
    """Hints, none if all is right. Where an exercise takes several answers, each that is right is said to be.

    Raises:
        NotImplementedError: the answer is a stub that raises it.
    """

    def judged(*some: Any) -> list[str]:
        try:
            exercise.judge(*some)
        except Wrong as wrong:
            return list(wrong.args)
        except NotImplementedError as error:  # torch raises it, too, for a module without `forward`
            if "forward" not in str(error):
                raise
            return ["There is no method called `forward`."]
        except Exception as error:
            return [f"It raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"]
        return []

    own, missing = exercise.solutions, [is_stub(answer) for answer in answers]
    attempted = tuple(right if stub else answer for answer, right, stub in zip(answers, own, missing, strict=True))
    wrong = judged(*attempted)
    if wrong or any(missing):
        for i, (right, stub) in enumerate(zip(own, missing, strict=True)):
            if stub:
                wrong.append(f"{right.__name__} is not attempted.")
            elif len(own) > 1 and not judged(*own[:i], answers[i], *own[i + 1 :]):
                wrong.append(f"Your {right.__name__} is right.")
    return wrong


class _Checks:
    """`check.NAME(answer)` for each exercise."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(_check, _find(name))

    def __dir__(self) -> list[str]:
        return list(exercises())


check = _Checks()


def hint(name: str) -> None:
    """Print the next of three hints: what to look at, where, and how. After the last one there is `reveal`."""
    hints = _find(name).hints
    count = _hinted[name] = min(_hinted.get(name, 0) + 1, len(hints))
    print(f"{count} of {len(hints)}: {hints[count - 1]}")


def reveal(name: str) -> None:
    """Print the solution: the package's own source, and where it lives."""
    for solution in _find(name).solutions:
        print(f"# {solution.__module__}.{solution.__qualname__}\n{inspect.getsource(solution)}")


def whose(name: str) -> str:
    """ "your NAME" if the answer has passed in this kernel, else "the package's NAME": for what later cells say."""
    return ("your " if _judged.get(_find(name).name) else "the package's ") + name


def score(notebook: str) -> None:
    """Print which of a notebook's exercises are the reader's own in this kernel; `notebook` begins its name: "06"."""
    names = [name for name, exercise in exercises().items() if exercise.notebook.startswith(notebook)]
    left = [name for name in names if not _judged.get(name)]
    print(
        f"{len(names) - len(left)} of {len(names)} exercises are yours.", *(["Left:", ", ".join(left)] if left else [])
    )


def progress() -> None:
    """Print all exercises and which of them are done. This is stored on this machine alone."""
    done = _read()
    for e in exercises().values():
        state = {True: "passed", False: "tried", None: ""}[done.get(e.name)]
        print(f"{e.notebook:<28} {e.name:<14} {'*' * e.difficulty:<3} {e.minutes:>3} min  {state}".rstrip())


def _find(name: str) -> Exercise:
    if name not in exercises():
        raise MogleError(f"no exercise {name!r}: expected one of {', '.join(exercises())}")
    return exercises()[name]


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
