"""Tests for L{ktlsagent.ledger}."""

from __future__ import annotations

from dataclasses import fields

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.ledger import Ledger


class LedgerTests(SynchronousTestCase):
    """Tests for L{Ledger}."""

    def test_new(self) -> None:
        """New books are balanced."""
        ledger = Ledger()
        self.assertTrue(ledger.balanced())
        self.assertEqual(ledger.inFlight, 0)

    def test_inFlight(self) -> None:
        """What is accepted and not answered is in flight."""
        ledger = Ledger(accepted=5, answered=3)
        self.assertEqual(ledger.inFlight, 2)
        self.assertFalse(ledger.balanced())
        ledger.answered = 5
        self.assertTrue(ledger.balanced())

    def test_heldThings(self) -> None:
        """Each thing that is held or owed alone unbalances the books."""
        for each in fields(Ledger):
            if each.name == "latest":
                continue
            self.assertFalse(Ledger(**{each.name: 1}).balanced(), each.name)

    def test_text(self) -> None:
        """The text has every number, as the log shows it when the agent stops."""
        self.assertEqual(
            str(Ledger(accepted=12, answered=11, descriptors=3, timers=4, keyLinks=5)),
            "accepted=12 answered=11 in-flight=1 descriptors=3 timers=4 key-links=5",
        )
