"""Waiting for conditions, and what is raised when one is not met."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")

_PAUSE: Final = 0.01

PATIENCE: Final = int(os.environ.get("LAB_PATIENCE", "1"))
"""How many times as long as usual everything may take: an emulated machine is slow."""


class Unexpected(Exception):
    """A scenario saw something other than what it expects; the message says what."""


def until(condition: Callable[[], _T], what: str, seconds: float = 15.0) -> _T:
    """
    Wait until something is the case.

    @param condition: looked at again and again.
    @param what: the condition in words.
    @param seconds: how long to wait, before L{PATIENCE}.
    @return: the condition's value, once it is true.
    @raise Unexpected: if it does not become true.
    """
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Unexpected(f"waited {seconds:.0f} s in vain until: {what}")
        time.sleep(_PAUSE)
    return value


def expect(what: str, found: object, *expected: object) -> None:
    """
    Compare.

    @param what: the thing compared, in words.
    @param found: what it is.
    @param expected: what it may be.
    @raise Unexpected: if it is none of these.
    """
    if found not in expected:
        wanted = " or ".join(map(repr, expected))
        raise Unexpected(f"{what}: expected {wanted}, found {found!r}")
