"""Tests for L{ktlsagent.clocks}."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.clocks import (
    DAY_SECONDS,
    LOOK_SECONDS,
    Calendar,
    dateNow,
    followsWallClock,
    makeMonotonic,
)
from ktlsagent.errors import StartError
from tests.support.clock import Clocks
from tests.support.properties import patient


class StoppedReactor(Clock):
    """
    A reactor by another clock.

    @ivar clock: the clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """
        @param clock: the clock.
        """
        super().__init__()
        self._clock = clock

    def seconds(self) -> float:
        return self._clock()


class MakeMonotonicTests(SynchronousTestCase):
    """Tests for L{makeMonotonic}, with real reactors and clocks in the test's hand."""

    def reactor(self, kind: type[Any] = EPollReactor) -> Any:
        """
        Make a reactor that is not installed.

        @param kind: its class.
        @return: the reactor.
        """
        reactor = kind()
        self.addCleanup(self.close, reactor)
        return reactor

    def close(self, reactor: Any) -> None:
        """Close the descriptors of a reactor."""
        reactor.removeAll()
        for reader in list(reactor._internalReaders):
            reactor.removeReader(reader)
            reader.connectionLost(None)
        if isinstance(reactor, EPollReactor):
            reactor._poller.close()

    def test_wallClockIsSet(self) -> None:
        """
        What is due happens when its time has come, whatever becomes of the wall clock;
        without that it is late by as much as the clock is set back, or comes at once.
        """
        for kind in EPollReactor, SelectReactor:
            for mended in False, True:
                for step, wrong in ((-40.0, []), (86400.0, ["now", "soon"])):
                    clocks = Clocks(1.7e9)
                    self.patch(time, "monotonic", clocks.monotonic)
                    reactor = self.reactor(kind)
                    reactor.seconds = clocks.wall
                    if mended:
                        makeMonotonic(reactor)
                    called: list[str] = []
                    reactor.callLater(0, called.append, "now")
                    reactor.callLater(5, called.append, "soon")
                    clocks.step(step)
                    clocks.advance(0.01)
                    reactor.runUntilCurrent()
                    self.assertEqual(called, ["now"] if mended else wrong, (kind, step))

    def test_tooLate(self) -> None:
        """What is scheduled already would never come, or at once: that is refused in words."""
        reactor = self.reactor()
        call = reactor.callLater(5, self.fail)
        error = self.assertRaises(StartError, makeMonotonic, reactor)
        self.assertIn("found 1 calls", str(error))
        call.cancel()
        makeMonotonic(reactor)
        self.assertIs(reactor.seconds, time.monotonic)

    def test_followsWallClock(self) -> None:
        """Twisted's own reactors follow the wall clock, unless that is mended."""
        for kind in EPollReactor, SelectReactor:
            reactor = self.reactor(kind)
            self.assertTrue(followsWallClock(reactor))
            makeMonotonic(reactor)
            self.assertFalse(followsWallClock(reactor))

    def test_othersClocks(self) -> None:
        """A clock of a test, or one since the boot, is no wall clock, even where it is 1970."""
        self.assertFalse(followsWallClock(Clock()))
        self.assertFalse(followsWallClock(StoppedReactor(lambda: time.monotonic() + 3.0)))
        self.patch(time, "time", lambda: time.monotonic() + 0.02)
        self.assertFalse(followsWallClock(StoppedReactor(time.monotonic)))
        self.assertTrue(followsWallClock(StoppedReactor(time.time)))

    def test_dateNow(self) -> None:
        """The date is that of the wall clock."""
        before = time.time()
        self.assertTrue(before - 0.001 <= dateNow().timestamp() <= time.time() + 0.001)


class CalendarTests(SynchronousTestCase):
    """Tests for L{Calendar}."""

    def setUp(self) -> None:
        self.clocks = Clocks(1.7e9)
        self.days: list[float] = []
        self.steps: list[float] = []
        self.calendar = Calendar(
            self.clocks.steady,
            lambda: self.days.append(self.clocks.wall()),
            self.steps.append,
            self.clocks.date,
        )
        self.calendar.start()

    def wait(self, seconds: float) -> None:
        """Let time pass, a look at a time."""
        self.clocks.steady.pump([LOOK_SECONDS] * int(seconds / LOOK_SECONDS))

    def test_everyDay(self) -> None:
        """A day begins at the start, and whenever one has passed."""
        self.assertEqual(self.days, [1.7e9])
        self.wait(3 * DAY_SECONDS)
        self.assertEqual(self.days, [1.7e9 + day * DAY_SECONDS for day in range(4)])
        self.assertEqual(self.steps, [])

    def test_set(self) -> None:
        """Once it is told that the clock was set; a day begins then."""
        for step in (3600.0, -3600.0, 90 * DAY_SECONDS, -50 * 365 * DAY_SECONDS, 2.5, -2.5):
            self.clocks.step(step)
            self.wait(DAY_SECONDS - LOOK_SECONDS)
            self.assertEqual(len(self.steps), 1, step)
            self.assertAlmostEqual(self.steps.pop(), step, 3)
        self.assertEqual(len(self.days), 1)
        self.wait(2 * LOOK_SECONDS)
        self.assertEqual(len(self.days), 2)

    def test_setOnAQuietMachine(self) -> None:
        """It is told at the next look, also if that comes late."""
        self.clocks.step(-40.0)
        self.clocks.advance(10 * LOOK_SECONDS)
        self.assertEqual([round(step) for step in self.steps], [-40])

    @patient
    @given(st.lists(st.floats(-0.05, 0.05), max_size=50))
    def test_drift(self, drifts: list[float]) -> None:
        """Clocks may drift apart slowly, for ever; leap seconds are nothing either."""
        self.setUp()
        for drift in [*drifts, 1.0, -1.0]:
            self.clocks.step(drift)
            self.wait(LOOK_SECONDS)
        self.assertEqual(self.steps, [])

    def test_stop(self) -> None:
        """When it is stopped it looks no more; that may be said twice, or before the start."""
        self.calendar.stop()
        self.calendar.stop()
        self.clocks.step(3600)
        self.wait(2 * DAY_SECONDS)
        self.assertEqual((len(self.days), self.steps), (1, []))
        self.assertEqual(self.clocks.steady.getDelayedCalls(), [])
