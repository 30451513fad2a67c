"""What the measurements keep."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel.bench.results import FILE, Results, Run, directoryName, newest
from tests.kernel.bench.showing import tables

_MACHINE = {"processor": "fast", "packages": {"python3": "3.14"}}
_RUN = Run("abc", "2026-11-23T08:00+00:00", 12, 1, True, 0.5, [{"agent": "ktlsagent", "x": 1}])


class ResultsTests(SynchronousTestCase):
    """Tests for L{Results}."""

    def directory(self) -> Path:
        """Say where to write."""
        return Path(self.mktemp())

    def test_kept(self) -> None:
        """What was written is read."""
        directory = self.directory()
        Results(_MACHINE, {"soak": _RUN}).write(directory)
        self.assertEqual(Results.read(directory), Results(_MACHINE, {"soak": _RUN}))

    def test_partsAdded(self) -> None:
        """A part that is measured later stands beside the others, or in the place of its own."""
        directory = self.directory()
        Results(_MACHINE, {"soak": _RUN}).write(directory)
        results = Results.read(directory)
        again = Run("def", _RUN.began, 1, 5, False, 0.0, [])
        results.runs.update(storm=again, soak=again)
        results.write(directory)
        self.assertEqual(Results.read(directory).runs, {"storm": again, "soak": again})

    def test_sampleALine(self) -> None:
        """Each sample has a line of its own, so that results can be compared."""
        directory = self.directory()
        run = Run("abc", "", 0, 1, True, 0.0, [{"agent": "a"}, {"agent": "b"}])
        Results(_MACHINE, {"soak": run}).write(directory)
        lines = (directory / FILE).read_text().splitlines()
        self.assertIn('  {"agent": "b"}', lines)

    def test_samples(self) -> None:
        """The samples are found by the part."""
        self.assertEqual(Results(_MACHINE, {"soak": _RUN}).samples, {"soak": _RUN.samples})

    def test_about(self) -> None:
        """It tells of each part what was measured, when, and how thoroughly."""
        heading, row = Results(_MACHINE, {"soak": _RUN}).about()
        told = dict(zip(heading, row, strict=True))
        self.assertEqual(told["commit"], "abc")
        self.assertEqual(told["rounds"], "1, a quick look")


class DirectoryTests(SynchronousTestCase):
    """Tests for L{directoryName} and L{newest}."""

    def test_name(self) -> None:
        """Days, machines and quick looks do not share a directory."""
        names = {
            directoryName(machine, day, quick=quick)
            for machine in (_MACHINE, {**_MACHINE, "kernel": "7"})
            for day in ("2026-11-23", "2026-11-24")
            for quick in (False, True)
        }
        self.assertEqual(len(names), 8)
        again = directoryName(dict(reversed(_MACHINE.items())), "2026-11-23", quick=False)
        self.assertIn(again, names)

    def test_newest(self) -> None:
        """The newest is what was written last, and no quick look."""
        parent = Path(self.mktemp())
        self.assertIsNone(newest(parent))
        for time, name in enumerate(("b", "a", "c-quick"), 1000):
            Results(_MACHINE).write(parent / name)
            os.utime(parent / name / FILE, (time, time))
        self.assertEqual(newest(parent), parent / "a")


class TablesTests(SynchronousTestCase):
    """Tests for L{tables}."""

    def test_tables(self) -> None:
        """They tell of the machine, of how parts were measured, of the bars and of each part."""
        sample = {"agent": "ktlsagent", "handshakes": 10, "resident": 1 << 20, "descriptors": 7}
        sample |= {"failures": 0}
        run = Run("abc", _RUN.began, 1, 1, True, 0.0, [sample])
        text = tables(Results(_MACHINE, {"soak": run}))
        for part in ("* processor: fast", "python3 3.14", "abc", "soak: growth", "| 1.00"):
            self.assertIn(part, text)
