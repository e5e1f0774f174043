"""Warnings of this package on their way to whoever made the request that caused them, however many there are at once.

`warnings.catch_warnings` changes the whole process, so threads that use it side by side put back each other's settings.
Here one function listens all the time and looks which thread it is in.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mogle.errors import MogleWarning

_FOUND: ContextVar[list[str] | None] = ContextVar("_FOUND", default=None)


def _hear(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if (found := _FOUND.get()) is not None and issubclass(category, MogleWarning):
        found.append(str(message))


@contextmanager
def noted() -> Iterator[list[str]]:
    """Gives a list in which each `MogleWarning` of this thread is noted until the end of the block."""
    warnings.showwarning = _hear  # each time: a catch_warnings of another thread may have taken it away
    warnings.simplefilter("always", MogleWarning)
    notes: list[str] = []
    before = _FOUND.set(notes)
    try:
        yield notes
    finally:
        _FOUND.reset(before)
