"""
The two clocks.  By the monotonic one everything waits and is measured; the wall clock
is for the dates of certificates and CRLs, and of the log, and may be set at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ktlsagent.errors import StartError

DAY_SECONDS = 24 * 60 * 60.0

LOOK_SECONDS = 60.0
"""How often the wall clock is looked at."""

_STEP_SECONDS = 2.0
"""
By how much the clocks have to disagree for one of them to have been set.  Who slows a
clock down or speeds it up, as NTP does, gets no further than 0.03 s in a minute.
"""

_FOLLOWS = (
    "expected a reactor with a monotonic clock, found one that follows the wall clock: when that "
    "is set, handshakes stall or fail; call ktlsagent.clocks.makeMonotonic before anything is "
    "scheduled"
)


def makeMonotonic(reactor: Any) -> None:  # noqa: ANN401 - reactors have it, their interface has not
    """
    Have a reactor take its time from the monotonic clock.

    Twisted's take it from the wall clock.  If that is set back by 40 s, nothing that
    is due happens for 40 s; if it is set forward, every deadline has passed.

    @param reactor: the reactor.
    @raise StartError: if something is scheduled by the other clock already.
    """
    scheduled = len(reactor.getDelayedCalls())
    if scheduled:
        raise StartError(
            "expected to set the reactor's clock before anything is scheduled, found "
            f"{scheduled} calls; make ktlsagent's service first"
        )
    reactor.seconds = time.monotonic


def followsWallClock(reactor: IReactorTime) -> bool:
    """
    Say whether a reactor takes its time from the wall clock.

    @param reactor: the reactor.
    @return: whether its time is that of the wall clock rather than any other.
    """
    wall, monotonic, now = time.time(), time.monotonic(), reactor.seconds()
    return abs(now - wall) < min(1.0, abs(now - monotonic))


def warnOfWallClock(reactor: IReactorTime, log: Logger) -> None:
    """
    Warn whoever runs a reactor that follows the wall clock.

    @param reactor: the reactor.
    @param log: where to.
    """
    if followsWallClock(reactor):
        log.warn(_FOLLOWS)


def dateNow() -> datetime:
    """
    Look at the wall clock.

    @return: the date and time.
    """
    return datetime.now(UTC)


class Calendar:
    """
    Has dates looked at: every day, and soon after the wall clock was set.  A machine
    that was suspended finds its clock set, too.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        day: Callable[[], None],
        stepped: Callable[[float], None],
        now: Callable[[], datetime] = dateNow,
    ) -> None:
        """
        @param reactor: gives the monotonic time.
        @param day: called at once, and when a day has passed by the wall clock.
        @param stepped: called with the seconds by which the wall clock was set, at most
            L{LOOK_SECONDS} later; the day begins anew.
        @param now: the wall clock.
        """
        self._reactor = reactor
        self._day = day
        self._stepped = stepped
        self._now = now
        self._offset = 0.0
        self._latest = 0.0
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """Begin."""
        self._latest = self._now().timestamp()
        self._offset = self._latest - self._reactor.seconds()
        self._day()
        self._looking.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        wall = self._now().timestamp()
        step = wall - self._reactor.seconds() - self._offset
        # The clocks may drift apart slowly.
        self._offset += step
        if abs(step) >= _STEP_SECONDS:
            self._latest = wall
            self._stepped(step)
        elif wall - self._latest >= DAY_SECONDS:
            self._latest = wall
            self._day()
