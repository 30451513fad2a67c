"""What the measurements say about mounts that hang and mounts that fail."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel.bench.clientbars import noFailure, noHang
from tests.kernel.bench.samples import Sample


def runs(
    agent: str = "ktlsagent", number: int = 20, hung: int = 0, failed: int = 0, slow: int = 100
) -> Sample:
    """
    Make a sample of the part about many connections.

    @param agent: whose.
    @param number: how many runs.
    @param hung: how many of them hung.
    @param failed: how many failed.
    @param slow: by how much the server was slower.
    @return: the sample.
    """
    found = {"runs": number, "hung": hung, "failed": failed}
    return {"agent": agent, "server slower by, ms": slow, **found}


def mounts(agent: str, mounted: int, failed: int) -> Sample:
    """
    Make a sample of the part about restarts.

    @param agent: whose.
    @param mounted: how many mounts succeeded.
    @param failed: how many failed.
    @return: the sample.
    """
    return {"agent": agent, "way": "restart", "mounts": mounted, "failed": failed}


class HangTests(SynchronousTestCase):
    """Tests for L{noHang}."""

    def test_notMeasured(self) -> None:
        """Without runs of ktlsagent with a slow server there is nothing to say."""
        others = [runs("tlshd", hung=3), runs(slow=0, hung=1)]
        for measured in ({}, {"nconnect": others}):
            verdict = noHang(measured)
            self.assertEqual((verdict.measured, verdict.held), ("", None))

    def test_held(self) -> None:
        """It holds if nothing hung in all the runs that are wanted."""
        verdict = noHang({"nconnect": [runs(), runs("tlshd", hung=9)]})
        self.assertEqual((verdict.measured, verdict.held), ("0 of 20", True))

    def test_tooFew(self) -> None:
        """A few runs say nothing, unless one of them hung."""
        self.assertIsNone(noHang({"nconnect": [runs(number=4)]}).held)
        self.assertIs(noHang({"nconnect": [runs(number=4, hung=1)]}).held, False)

    def test_failed(self) -> None:
        """A run that failed is not better than one that hung."""
        self.assertIs(noHang({"nconnect": [runs(failed=1)]}).held, False)


class FailureTests(SynchronousTestCase):
    """Tests for L{noFailure}."""

    def test_notMeasured(self) -> None:
        """Without mounts there is nothing to say."""
        self.assertIsNone(noFailure({"restarts": [mounts("tlshd", 5, 1)]}).held)

    def test_held(self) -> None:
        """It holds if no mount failed."""
        verdict = noFailure({"restarts": [mounts("ktlsagent", 5, 0), mounts("tlshd", 5, 1)]})
        self.assertEqual((verdict.measured, verdict.held), ("0 of 5", True))

    def test_missed(self) -> None:
        """One that failed is one too many."""
        verdict = noFailure({"restarts": [mounts("ktlsagent", 5, 0), mounts("ktlsagent", 4, 1)]})
        self.assertEqual((verdict.measured, verdict.held), ("1 of 10", False))
