"""How long to wait before what has ended is started again."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime

GOOD_SECONDS: Final = 10.0
"""After what time a process's end is not an early one."""

_SHORTEST: Final = 0.1
_LONGEST: Final = 10.0


class BackOff:
    """The pauses of several processes: twice as long each time that one ends early."""

    def __init__(self, reactor: IReactorTime) -> None:
        """
        @param reactor: gives time.
        """
        self._reactor = reactor
        self._last: dict[int, float] = {}

    def pause(self, place: int, since: float) -> float:
        """
        Say how long to wait now.

        @param place: whose place is empty.
        @param since: from when on it was not.
        @return: seconds.
        """
        early = self._reactor.seconds() - since < GOOD_SECONDS
        pause = min(2 * self._last.get(place, 0), _LONGEST) if early else 0
        self._last[place] = pause = max(pause, _SHORTEST)
        return pause
