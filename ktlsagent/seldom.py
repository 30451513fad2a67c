"""Warnings about what may happen a thousand times in a second."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_AGAIN_SECONDS: Final = 60.0
"""How long a warning is not repeated."""


class Seldom:
    """Gives each warning at most once in a minute."""

    def __init__(self, clock: IReactorTime, log: Logger) -> None:
        """
        @param clock: gives the time.
        @param log: where to.
        """
        self._clock = clock
        self._log = log
        self._said: dict[str, float] = {}

    def warn(self, text: str, **fields: Any) -> None:  # noqa: ANN401 - the logger's
        """
        Warn, unless that was done lately.

        @param text: the words, with the names of fields; one of a few.
        @param fields: the fields.
        """
        now = self._clock.seconds()
        if now - self._said.get(text, -_AGAIN_SECONDS) >= _AGAIN_SECONDS:
            self._said[text] = now
            self._log.warn(text, **fields)
