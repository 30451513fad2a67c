"""A wall clock that can be set, beside a monotonic one that cannot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.internet.task import Clock


class Clocks:
    """
    The two clocks in the test's hand.

    @ivar steady: the monotonic one, which may be a reactor.
    """

    def __init__(self, now: float = 1500.0, steady: Clock | None = None) -> None:
        """
        @param now: what the wall clock says, in seconds of the epoch.
        @param steady: the monotonic one; by default one of its own.
        """
        self.steady = steady or Clock()
        self._epoch = now - self.steady.seconds()

    def wall(self) -> float:
        """
        Look at the wall clock.

        @return: seconds of the epoch.
        """
        return self._epoch + self.steady.seconds()

    def date(self) -> datetime:
        """
        Look at the wall clock.

        @return: the date and time.
        """
        return datetime.fromtimestamp(self.wall(), UTC)

    def monotonic(self) -> float:
        """
        Look at the monotonic clock.

        @return: seconds since some time.
        """
        return self.steady.seconds()

    def advance(self, seconds: float) -> None:
        """
        Let time pass, by both clocks.

        @param seconds: how much.
        """
        self.steady.advance(seconds)

    def step(self, by: timedelta | float) -> None:
        """
        Set the wall clock, while no time passes.

        @param by: how far, back if it is negative.
        """
        self._epoch += by.total_seconds() if isinstance(by, timedelta) else by
