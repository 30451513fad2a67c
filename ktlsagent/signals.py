"""
The signals that the program is told by.  From its first moment on none is lost: what
cannot be done yet is remembered, and what comes while one program takes the place of
another in the same process is kept for that one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""Orders to stop, which win over all others."""

_ORDERS: Final = (*STOPS, signal.SIGHUP, signal.SIGUSR2)
_ALL: Final = (*_ORDERS, signal.SIGUSR1)

_waiting: list[int] = []
"""What has come before there was somebody to obey."""


def remember() -> None:
    """
    Have orders wait for L{obey}, and those that were kept over an C{exec} as well.  An
    order to stop does not wait: so far there is nothing to be finished.
    """
    for number in _ORDERS:
        signal.signal(number, _tooEarly)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ORDERS)


def ignoreRotation() -> None:
    """Have SIGUSR1, by which C{twistd} takes up a new log file if it has one, do nothing."""
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def obey(handle: Callable[[int], None]) -> None:
    """
    Have orders obeyed, what has waited first.

    @param handle: called with each, between any two steps of the main thread.
    """

    def received(number: int, _frame: FrameType | None) -> None:
        handle(number)

    for number in _ORDERS:
        signal.signal(number, received)
    ignoreRotation()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
    while _waiting:
        handle(_waiting.pop(0))


def keep() -> None:
    """
    Keep what comes from now on: for the next L{obey}, or over an C{exec}.  What has come
    before has been handled when this returns.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)


def _tooEarly(number: int, _frame: FrameType | None) -> None:
    if number in STOPS:
        os._exit(0)
    _waiting.append(number)
