"""What the measurements make of mounts that succeed, fail, or never come to an end."""

from __future__ import annotations

import errno
import tempfile
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.kernel.bench import outcomes
from tests.kernel.bench.guest import mounter


class QuantileTests(SynchronousTestCase):
    """Tests for L{outcomes.quantile}."""

    def test_nothing(self) -> None:
        """Of nothing there is none."""
        self.assertIsNone(outcomes.quantile([], 0.5))

    def test_parts(self) -> None:
        """A part of all is not above it; the whole has the greatest."""
        values = [0.4, 0.1, 0.3, 0.2]
        found = [outcomes.quantile(values, part) for part in (0.0, 0.5, 0.99, 1.0)]
        self.assertEqual(found, [0.1, 0.3, 0.4, 0.4])

    def test_digits(self) -> None:
        """What is below a millisecond is noise."""
        self.assertEqual(outcomes.quantile([0.12345], 0.5), 0.123)


class FailureTests(SynchronousTestCase):
    """Tests for L{outcomes.failures}."""

    def test_names(self) -> None:
        """Failures are counted by their errno's name; successes are not in it."""
        results = [(0, 1.0), (errno.EACCES, 0.1), None, (errno.EACCES, 0.2), (4095, 0.3)]
        self.assertEqual(
            outcomes.failures(results), {"EACCES": 2, outcomes.UNFINISHED: 1, "4095": 1}
        )

    def test_none(self) -> None:
        """Where all is well there is nothing to count."""
        self.assertEqual(outcomes.failures([(0, 1.0)]), {})


class SampleTests(SynchronousTestCase):
    """Tests for what goes into samples."""

    def test_mounts(self) -> None:
        """Only mounts that succeeded have times."""
        found = outcomes.ofMounts([(0, 3.0), (0, 1.0), (0, 2.0), (errno.EACCES, 9.0), None])
        self.assertEqual((found["last"], found["p50"], found["p99"]), (3.0, 2.0, 3.0))
        self.assertEqual(found["failed"], 2)
        self.assertEqual(found["failures"], {"EACCES": 1, outcomes.UNFINISHED: 1})

    def test_run(self) -> None:
        """A run takes as long as its mount and the last answer."""
        found = outcomes.ofRun([(0, 0.5)], [(0, 2.0), (0, 1.0)])
        self.assertEqual(found, {"seconds": 2.5, "failures": {}})

    def test_badRun(self) -> None:
        """A run that failed, or hung, has no time; without a mount there is nothing to ask."""
        self.assertEqual(
            outcomes.ofRun([(0, 0.5)], [(0, 2.0), None]),
            {"seconds": None, "failures": {outcomes.UNFINISHED: 1}},
        )
        self.assertEqual(
            outcomes.ofRun([(errno.ESRCH, 0.5)], []), {"seconds": None, "failures": {"ESRCH": 1}}
        )

    def test_runs(self) -> None:
        """Runs that hung and runs that failed are counted apart; the others have times."""
        hung = outcomes.ofRun([(0, 0.5)], [None])
        failed = outcomes.ofRun([(errno.EACCES, 0.5)], [])
        good = [outcomes.ofRun([(0, 0.5)], [(0, seconds)]) for seconds in (1.0, 3.0)]
        runs = [{**run, "cpu": cpu} for cpu, run in enumerate((hung, failed, *good))]
        found = outcomes.ofRuns(runs)
        self.assertEqual((found["runs"], found["hung"], found["failed"]), (4, 1, 1))
        self.assertEqual((found["p50"], found["longest"], found["cpu"]), (3.5, 3.5, 2))
        self.assertEqual(found["each"], runs)

    def test_mounting(self) -> None:
        """Mounts that found no agent are counted among those that failed."""
        found = outcomes.ofMounting([1.0, 2.0], ["ESRCH", "EACCES", "ESRCH"], [0.5])
        self.assertEqual((found["mounts"], found["failed"], found["noAgent"]), (2, 3, 2))
        self.assertEqual(found["failures"], {"ESRCH": 2, "EACCES": 1})
        self.assertEqual((found["longest"], found["longestAway"]), (2.0, 0.5))


class AtOnceTests(SynchronousTestCase):
    """Tests for L{mounter.AtOnce}."""

    def test_all(self) -> None:
        """All run at the same time, and each has its result."""
        barrier = threading.Barrier(3, timeout=10.0)
        work = mounter.AtOnce([lambda: barrier.wait() * 0 + 7] * 3)
        self.assertTrue(work.finish(time.monotonic() + 10.0))
        self.assertEqual([result and result[0] for result in work.results], [7, 7, 7])

    def test_unfinished(self) -> None:
        """What does not end is waited for until then, and has no result."""
        gate = threading.Event()
        work = mounter.AtOnce([lambda: 0, lambda: int(gate.wait(10.0))])
        self.assertFalse(work.finish(time.monotonic() + 0.05))
        self.assertIsNone(work.results[1])
        gate.set()
        self.assertTrue(work.finish(time.monotonic() + 10.0))

    def test_nothing(self) -> None:
        """Nothing to do is done at once."""
        self.assertTrue(mounter.AtOnce([]).finish(0.0))


class PerformTests(SynchronousTestCase):
    """Tests for L{mounter.perform}."""

    def setUp(self) -> None:
        self.calls: list[str] = []
        self.errors = {"bad": errno.ESRCH}
        self.points = Path(self.mktemp())
        self.points.mkdir()
        self.patch(mounter, "_POINTS", self.points)
        self.patch(mounter, "_mount", lambda source, point, how: self.errors.get(how, 0))
        self.patch(mounter, "_unmount", self.unmount)

    def unmount(self, point: Path, *, forcibly: bool) -> None:
        """Note what is unmounted."""
        self.calls.append(f"{point.name} {forcibly}")

    def test_story(self) -> None:
        """Mount, say so, wait, look for files where it is mounted, say so, unmount."""
        found = mounter.perform(
            "server:/", ["good", "bad"], 2, 10.0, lambda: self.calls.append("between")
        )
        mounts = next(found)
        self.assertEqual([result and result[0] for result in mounts], [0, errno.ESRCH])
        self.assertEqual(self.calls, [])
        lookups = next(found)
        self.assertEqual([result and result[0] for result in lookups], [0, 0])
        self.assertEqual(list(found), [])
        self.assertEqual(self.calls, ["between", "at-once-0 False"])

    def test_hanging(self) -> None:
        """Where somebody waits for the server in vain it is unmounted forcibly."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        self.patch(mounter, "_look", lambda path: int(gate.wait(10.0)))
        _mounts, lookups = mounter.perform("server:/", ["good"], 1, 0.05, lambda: None)
        self.assertEqual(lookups, [None])
        self.assertEqual(self.calls, ["at-once-0 True"])

    def test_looking(self) -> None:
        """That a file is not there is an answer; other errors are none."""
        with tempfile.NamedTemporaryFile() as file:
            self.assertEqual(mounter._look(Path(file.name)), 0)
            self.assertEqual(mounter._look(Path(file.name) / "below"), errno.ENOTDIR)
        self.assertEqual(mounter._look(self.points / "none"), 0)
