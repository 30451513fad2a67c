"""What the measurements make of their samples."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel.bench.samples import Group, Sample, Spread, Value, summarise, table

_RATE = Value("rate", "per second", 1)
_MEMORY = Value("memory", "memory, KiB", 0, 1024)


def _sample(agent: str, concurrency: int, rate: float | None, memory: int | None = None) -> Sample:
    """Make a sample."""
    return {"agent": agent, "concurrency": concurrency, "rate": rate, "memory": memory}


class SummaryTests(SynchronousTestCase):
    """Tests for L{summarise}."""

    def summarised(self, *samples: Sample) -> list[Group]:
        """Summarise by concurrency."""
        return summarise(samples, ("concurrency",), (_RATE, _MEMORY))

    def test_rounds(self) -> None:
        """All rounds of one agent and setting become the median, the least and the most."""
        (group,) = self.summarised(*(_sample("a", 8, rate) for rate in (9.0, 1.0, 2.0)))
        self.assertEqual(group, Group((8,), "a", {"rate": Spread(2.0, 1.0, 9.0)}))

    def test_settingsStayTogether(self) -> None:
        """Agents stand beside each other in each setting, both in the order of the samples."""
        groups = self.summarised(
            *(_sample(agent, places, 1.0) for agent in ("b", "a") for places in (8, 1))
        )
        found = [(group.setting[0], group.agent) for group in groups]
        self.assertEqual(found, [(8, "b"), (8, "a"), (1, "b"), (1, "a")])

    def test_notMeasured(self) -> None:
        """What was measured in some rounds only is summarised over these."""
        (group,) = self.summarised(_sample("a", 1, None), _sample("a", 1, 3.0))
        self.assertEqual(group.median("rate"), 3.0)
        self.assertIsNone(group.median("memory"))


class TableTests(SynchronousTestCase):
    """Tests for L{table}."""

    def test_table(self) -> None:
        """The table has a row for each group, the spread in brackets, and no empty column."""
        samples = [_sample("a", 1, 1.0, 2048), _sample("a", 1, 2.0, 2048), _sample("bb", 1, None)]
        values = (_RATE, _MEMORY, Value("absent", "absent"))
        text = table(summarise(samples, ("concurrency",), values), ("concurrency",), values)
        self.assertEqual(
            text,
            "| concurrency | agent | per second    | memory, KiB |\n"
            "| ----------- | ----- | ------------- | ----------- |\n"
            "| 1           | a     | 1.5 (1.0-2.0) | 2           |\n"
            "| 1           | bb    | -             | -           |",
        )
