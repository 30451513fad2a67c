"""What the measurements say about the agents that they compare."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ktlsagent
from tests.kernel.bench import part
from tests.kernel.bench.guest.contenders import REALTIME, WAYS

UNIT = Path(ktlsagent.__file__).parents[1] / "conf" / "ktlsagent.service"


class WaysTests(SynchronousTestCase):
    """Tests for L{WAYS}."""

    def test_scheduledAsTheUnitSays(self) -> None:
        """The agent is measured as its unit has it scheduled."""
        lines = UNIT.read_text().splitlines()
        command, option, priority = REALTIME
        self.assertEqual((command, option), ("chrt", "--rr"))
        self.assertIn("CPUSchedulingPolicy=rr", lines)
        self.assertIn(f"CPUSchedulingPriority={priority}", lines)
        self.assertEqual(WAYS[part.KTLSAGENT].prefix, REALTIME)

    def test_sameNames(self) -> None:
        """Who asks for measurements and who makes them use the same names."""
        self.assertEqual(set(WAYS), {*part.AGENTS, part.WORKERS, part.REALTIME})
