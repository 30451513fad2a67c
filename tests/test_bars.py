"""What the measurements say about the bars."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel.bench.bars import judge, table
from tests.kernel.bench.samples import MEBIBYTE, Sample
from tests.kernel.bench.verdicts import Verdict


def rate(agent: str, keys: str = "ecdsa", trust: str = "small", **values: Any) -> Sample:
    """
    Make a sample of the parts about rates.

    @param agent: whose.
    @param keys: of which kind.
    @param trust: the size of the trust store.
    @param values: what was measured, and what else differs.
    @return: the sample.
    """
    setting = {"keys": keys, "trust": trust, "client": "mutual", "concurrency": 8}
    return {**setting, "agent": agent, "round": 0, **values}


def storm(agent: str, memory: str, count: int, succeeded: int, number: int = 0) -> Sample:
    """
    Make a sample of the part about storms.

    @param agent: whose.
    @param memory: of the guest.
    @param count: how many connections.
    @param succeeded: how many of them succeeded.
    @param number: the round's.
    @return: the sample.
    """
    cell = {"memory of guest": memory, "nfsd threads": 8, "trust": "small", "count": count}
    return {**cell, "agent": agent, "round": number, "succeeded": succeeded}


class BarsTests(SynchronousTestCase):
    """Tests for L{judge}."""

    def verdict(self, begin: str, **measured: list[Sample]) -> Verdict:
        """
        Look at the only bar whose name begins in some way.

        @param begin: the way.
        @param measured: the samples of each part.
        @return: what became of it.
        """
        (found,) = (row for row in judge(measured) if row.bar.startswith(begin))
        return found

    def test_nothingMeasured(self) -> None:
        """What was not measured is neither held nor missed."""
        self.assertEqual({row.held for row in judge({})}, {None})

    def test_least(self) -> None:
        """A ratio of medians that is to be large counts in its worst setting."""
        samples = [rate("ktlsagent", rate=number) for number in (90.0, 60.0, 50.0)]
        samples += [rate("tlshd", rate=10.0)]
        samples += [rate("ktlsagent", rate=40.0, concurrency=32)]
        samples += [rate("tlshd", rate=10.0, concurrency=32)]
        found = self.verdict("lab: handshakes/s : tlshd, ecdsa, small", server=samples)
        self.assertEqual(found.measured, "4 (mutual, 32 at a time), best 6")
        self.assertIs(found.held, False)

    def test_floor(self) -> None:
        """Beside a ratio to tlshd stands the floor's, the most that can be had."""
        samples = [rate("ktlsagent", rate=40.0), rate("tlshd", rate=10.0), rate("floor", rate=45.0)]
        found = self.verdict("lab: handshakes/s : tlshd, ecdsa, small", server=samples)
        self.assertEqual(
            found.measured,
            "4 (mutual, 8 at a time), best 4; floor: worst 4.5, best 4.5",
        )
        other = self.verdict("lab: handshakes/s : floor, ecdsa, small", server=samples)
        self.assertEqual(other.measured, "0.889 (mutual, 8 at a time), best 0.889")

    def test_most(self) -> None:
        """A ratio that is to be small is held if the largest one is small enough."""
        samples = [rate("ktlsagent", cpu=2.0), rate("tlshd", cpu=16.0)]
        found = self.verdict("lab: CPU each : tlshd, ecdsa", server=samples)
        self.assertEqual((found.measured[:5], found.held), ("0.125", True))

    def test_rivalAtZero(self) -> None:
        """Beside somebody who does nothing any rate is high enough."""
        samples = [rate("ktlsagent", trust="system", rate=1.0)]
        samples += [rate("tlshd", trust="system", rate=0.0)]
        found = self.verdict(
            "native: handshakes/s : tlshd, one process, ecdsa, sys", native=samples
        )
        self.assertIs(found.held, True)

    def test_rivalAbsent(self) -> None:
        """Without the other agent there is no ratio."""
        samples = [rate("ktlsagent", p99=1.0), rate("tlshd", p99=None)]
        self.assertIsNone(self.verdict("lab: p99 : tlshd, ecdsa", server=samples).held)

    def test_workers(self) -> None:
        """Two workers are measured against a bar of their own."""
        samples = [rate("ktlsagent-2w", rate=30.0), rate("tlshd", rate=10.0)]
        found = self.verdict(
            "native: handshakes/s : tlshd, two workers, ecdsa, small", native=samples
        )
        self.assertIs(found.held, True)

    def test_everyone(self) -> None:
        """With much memory all that reach the agent succeed: 64, or all of fewer."""
        samples = [storm("ktlsagent", "21G", 60, 60), storm("ktlsagent", "21G", 500, 64)]
        samples += [storm("ktlsagent", "2G", 500, 5)]
        self.assertIs(self.verdict("storm, 21 GB", storm=samples).held, True)
        samples += [storm("ktlsagent", "21G", 200, 63)]
        found = self.verdict("storm, 21 GB", storm=samples)
        self.assertEqual(found.measured, "63 of 200 [21G, 8 threads, small]")
        self.assertIs(found.held, False)

    def test_littleMemory(self) -> None:
        """With little memory every one of ten runs counts, and fewer runs show nothing."""
        samples = [storm("ktlsagent", "2G", 60, 55 + number, number) for number in range(5)]
        found = self.verdict("storm, 2 GB", storm=samples)
        self.assertEqual(found.measured, "55 in the worst of 5 runs [2G, 8 threads, small]")
        self.assertIsNone(found.held)
        more = [storm("ktlsagent", "2G", 60, 60, number) for number in range(5, 10)]
        self.assertIs(self.verdict("storm, 2 GB", storm=samples + more).held, True)
        bad = [storm("ktlsagent", "2G", 60, 54, 0)]
        self.assertIs(self.verdict("storm, 2 GB", storm=bad).held, False)

    def test_neverFewer(self) -> None:
        """In each cell and each round no fewer succeed than with the other agent."""
        samples = [storm("ktlsagent", "2G", 60, 60, number) for number in (0, 1)]
        samples += [storm("tlshd", "2G", 60, 60 + number, number) for number in (0, 1)]
        samples += [storm("ktlsagent", "2G", 200, 64), storm("tlshd", "2G", 200, 92)]
        found = self.verdict("storm: ktlsagent less tlshd,", storm=samples)
        self.assertEqual(found.measured, "-1 (60 and 61 of 60) [2G, 8 threads, small]")
        self.assertIs(found.held, False)

    def soak(self, *resident: float, handshakes: int = 100_000, failures: int = 0) -> Verdict:
        """
        Judge an endurance test.

        @param resident: the mebibytes at each of the steps.
        @param handshakes: how many in all.
        @param failures: how many at each step.
        @return: what became of it.
        """
        samples = [
            {
                "handshakes": handshakes * step // (len(resident) - 1),
                "resident": int(size * MEBIBYTE),
                "descriptors": 9,
                "failures": failures,
            }
            for step, size in enumerate(resident)
        ]
        return self.verdict("soak", soak=samples)

    def test_soak(self) -> None:
        """What grows before the first tenth does not count, what grows later does."""
        flat = [40.0, *[50.0] * 10]
        self.assertIs(self.soak(*flat).held, True)
        self.assertIs(self.soak(*flat[:-1], 51.0).held, False)
        self.assertIs(self.soak(*flat, failures=1).held, False)
        self.assertIsNone(self.soak(*flat, handshakes=2000).held)

    def test_starting(self) -> None:
        """What an idle agent holds and how fast it starts is judged where it runs."""
        samples = [
            {"kernel": "native", "agent": "ktlsagent", "resident": 46 * MEBIBYTE, "waited": waited}
            for waited in (0.4, None)
        ]
        found = self.verdict("native: idle", starting=samples)
        self.assertEqual((found.measured, found.held), ("46.00 (median of 2)", False))
        self.assertIs(self.verdict("native: a request", starting=samples).held, True)
        self.assertIsNone(self.verdict("lab: a request", starting=samples).held)


class TableTests(SynchronousTestCase):
    """Tests for L{table}."""

    def test_table(self) -> None:
        """Each bar has a row that says whether it is held, if that is known."""
        rows = [
            Verdict("a", "1", "2", True),
            Verdict("b", "1", "0", False),
            Verdict("c", "1", "", None),
        ]
        self.assertEqual(
            table(rows),
            "| bar | wanted | measured | held   |\n"
            "| --- | ------ | -------- | ------ |\n"
            "| a   | 1      | 2        | yes    |\n"
            "| b   | 1      | 0        | **no** |\n"
            "| c   | 1      | -        | -      |",
        )
