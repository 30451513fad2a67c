"""
When cryptography runs: one step in each turn of the reactor, the earliest
deadline first.

Between two steps the reactor looks at its descriptors, so READY is answered
with ACCEPT before any more work is done on what was accepted earlier: the
kernel holds only a few requests that nobody has accepted.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

Step = Callable[[], None]


class StepQueue:
    """Steps that wait for their turn."""

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: gives the turns.
        """
        self._clock = clock
        self._order = itertools.count()
        self._steps: list[tuple[float, int, Step]] = []
        self._called = False

    def add(self, deadline: float, step: Step) -> None:
        """
        Run a step when its turn comes, never before this returns.

        @param deadline: in the clock's seconds; the earliest one goes first.
        @param step: must not raise.
        """
        heapq.heappush(self._steps, (deadline, next(self._order), step))
        self._callSoon()

    def _callSoon(self) -> None:
        if not self._called:
            self._called = True
            self._clock.callLater(0, self._runOne)

    def _runOne(self) -> None:
        self._called = False
        _deadline, _number, step = heapq.heappop(self._steps)
        if self._steps:
            self._callSoon()
        step()
