"""Tests for L{ktlsagent.processes.backoff}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.processes.backoff import GOOD_SECONDS, BackOff


class BackOffTests(SynchronousTestCase):
    """Tests for L{BackOff}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.backOff = BackOff(self.clock)

    def test_early(self) -> None:
        """Ends that are early make the pauses longer, up to a bound."""
        found = [self.backOff.pause(1, self.clock.seconds()) for _time in range(9)]
        self.assertEqual(found, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])

    def test_late(self) -> None:
        """An end that is not early makes the pause short again."""
        self.backOff.pause(1, 0)
        self.clock.advance(GOOD_SECONDS - 0.001)
        self.assertEqual(self.backOff.pause(1, 0), 0.2)
        self.clock.advance(0.001)
        self.assertEqual([self.backOff.pause(1, 0) for _time in range(2)], [0.1, 0.1])

    def test_places(self) -> None:
        """Each place has its own pauses."""
        self.backOff.pause(1, 0)
        self.assertEqual((self.backOff.pause(2, 0), self.backOff.pause(1, 0)), (0.1, 0.2))
