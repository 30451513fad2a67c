"""Tests for L{ktlsagent.credentials.expiry}."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.credentials.expiry import Expiry, warnings

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


def expiry(
    notAfter: timedelta, notBefore: timedelta = -365 * DAY, what: str = "the certificate CN=a"
) -> Expiry:
    """
    Make something that ends.

    @param notAfter: its end, from now.
    @param notBefore: its beginning, from now.
    @param what: what it is.
    @return: the expiry.
    """
    return Expiry(what, "/etc/a.pem", NOW + notBefore, NOW + notAfter)


class WarningsTests(SynchronousTestCase):
    """What is warned of, and when."""

    def warned(self, notAfter: timedelta, notBefore: timedelta = -365 * DAY) -> str:
        """
        Get the warning about one thing.

        @param notAfter: its end, from now.
        @param notBefore: its beginning, from now.
        @return: the warning, empty if there is none.
        """
        return "".join(warnings([expiry(notAfter, notBefore)], NOW))

    def test_early(self) -> None:
        """From 30 days before the end it is warned of, with the time that is left."""
        self.assertEqual(self.warned(30 * DAY + HOUR), "")
        self.assertEqual(
            self.warned(30 * DAY),
            "the certificate CN=a in /etc/a.pem ends in 30 days, at 2026-12-23 12:00:00 UTC; "
            "renew it",
        )
        self.assertIn(" ends in 2 days, at", self.warned(2 * DAY))
        self.assertIn(" ends in 47 hours, at", self.warned(2 * DAY - HOUR))
        self.assertIn(" ends in 1 hour, at", self.warned(HOUR))
        self.assertIn(" ends in 0 hours, at", self.warned(timedelta()))

    def test_ended(self) -> None:
        """What has ended is named as long as it is in use."""
        self.assertEqual(
            self.warned(-3 * DAY),
            "the certificate CN=a in /etc/a.pem ended 3 days ago, at 2026-11-20 12:00:00 UTC; "
            "renew it",
        )
        self.assertIn(" ended 0 hours ago, at", self.warned(timedelta(seconds=-1)))

    def test_notBegun(self) -> None:
        """What is not good yet is named, however long it will be."""
        self.assertEqual(
            self.warned(300 * DAY, 2 * DAY),
            "the certificate CN=a in /etc/a.pem begins in 2 days, at 2026-11-25 12:00:00 UTC",
        )

    def test_short(self) -> None:
        """What lives for less than 90 days is warned of in the last third of its life."""
        self.assertEqual(self.warned(3 * DAY, -4 * DAY), "")
        self.assertIn(" ends in 2 days, at", self.warned(2 * DAY, -5 * DAY))
        self.assertEqual(self.warned(29 * DAY, -57 * DAY), "")
        self.assertIn(" ends in 29 days, at", self.warned(29 * DAY, -58 * DAY))

    def test_several(self) -> None:
        """What ends first comes first, and nothing twice."""
        several = [expiry(2 * DAY), expiry(DAY, what="the CRL of CN=b"), expiry(2 * DAY)]
        found = [sentence.partition(" in ")[0] for sentence in warnings(several, NOW)]
        self.assertEqual(found, ["the CRL of CN=b", "the certificate CN=a"])
