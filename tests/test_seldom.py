"""Tests for L{ktlsagent.seldom}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import Logger, capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.seldom import Seldom


class SeldomTests(SynchronousTestCase):
    """Tests for L{Seldom}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.seldom = Seldom(self.clock, Logger())

    def said(self, *texts: str) -> list[str]:
        """
        Warn, and see what comes of it.

        @param texts: the warnings.
        @return: what was logged.
        """
        with capturedLogs() as events:
            for text in texts:
                self.seldom.warn(text, count=7)
        return [eventAsText(event, includeTimestamp=False, includeSystem=False) for event in events]

    def test_onceInAMinute(self) -> None:
        """A warning comes at once, and not again before a minute is over."""
        self.assertEqual(self.said("{count} left", "{count} left"), ["7 left"])
        self.clock.advance(59)
        self.assertEqual(self.said("{count} left"), [])
        self.clock.advance(1)
        self.assertEqual(self.said("{count} left"), ["7 left"])

    def test_each(self) -> None:
        """One warning does not keep another from being given."""
        self.assertEqual(self.said("one", "other"), ["one", "other"])
