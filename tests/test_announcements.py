"""Tests for L{ktlsagent.announcements}; what a service does with them is in its own tests."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ktlsagent.announcements import Ready, ReadyTimes
from ktlsagent.errors import NetlinkError
from ktlsagent.interfaces import IAnnouncements
from ktlsagent.netlink import HandshakeNetlink
from tests.support.fakekernel import FakeHandshakeKernel
from tests.support.properties import patient


class ReadyTests(SynchronousTestCase):
    """Tests for L{Ready}."""

    def setUp(self) -> None:
        self.kernel = FakeHandshakeKernel()
        self.addCleanup(self.kernel.close)
        self.netlink = HandshakeNetlink(self.kernel.socket, self.kernel.listenersFile)
        self.addCleanup(self.netlink.close)
        self.ready = Ready(Clock(), self.netlink)
        self.netlink.open()
        self.ready.begin()

    def test_interface(self) -> None:
        """It is what an agent needs."""
        self.assertTrue(verifyObject(IAnnouncements, self.ready))

    def test_begin(self) -> None:
        """It is the listener, and its descriptor that of READY."""
        self.assertEqual(self.ready.fileno(), self.netlink.fileno())

    def test_due(self) -> None:
        """Whatever has come is a reason to take all there is, once."""
        self.assertEqual(self.ready.due(), 0)
        self.kernel.announce()
        self.kernel.announce()
        self.ready.heard()
        self.assertIsNone(self.ready.due())
        self.assertEqual(self.ready.due(), 0)

    def test_read(self) -> None:
        """Who shares requests out is told how many were announced."""
        for _time in range(3):
            self.kernel.announce()
        self.assertEqual([self.ready.read(), self.ready.read()], [3, 0])

    def test_lost(self) -> None:
        """If announcements were lost, nobody knows how many, and that is said."""
        self.kernel.loseHints()
        with capturedLogs() as events:
            self.assertIsNone(self.ready.read())
        self.assertIn("ENOBUFS", eventAsText(events[0]))

    def test_room(self) -> None:
        """Requests that there was no room for are asked for when there is."""
        self.ready.settled(3)
        self.ready.load(1, 1.0, busy=True, crowded=False)
        self.assertEqual(self.ready.due(), 0)
        self.ready.room()
        self.assertIsNone(self.ready.due())
        self.assertEqual(self.ready.due(), 0)

    def test_broken(self) -> None:
        """A socket that is of no use any more is the caller's problem."""
        self.kernel.readError = errno.EBADF
        self.assertRaises(NetlinkError, self.ready.due)
        self.ready.end()


class ReadyTimesTests(SynchronousTestCase):
    """Tests for L{ReadyTimes}."""

    def setUp(self) -> None:
        self.times = ReadyTimes()

    def take(self, now: float, patience: float = 5.0) -> float | None:
        """Take a request."""
        return self.times.take(patience, now)

    def test_unknown(self) -> None:
        """Of what was never announced to us nothing is known."""
        self.assertIsNone(self.take(7.0))

    def test_oldestFirst(self) -> None:
        """Requests are taken in the order in which they were announced."""
        self.times.read(1, 1.0)
        self.times.read(2, 2.0)
        self.assertEqual([self.take(3.0) for _time in range(4)], [1.0, 2.0, 2.0, None])

    def test_tooOld(self) -> None:
        """What the kernel has given up is not what was taken; longer timeouts count."""
        for announced in (1.0, 4.0, 6.5):
            self.times.read(1, announced)
        self.assertEqual(self.take(9.5, patience=6.0), 4.0)
        self.assertIsNone(self.take(11.5, patience=5.0))
        self.times.read(1, 1.0)
        self.assertEqual(self.take(30.0, patience=60.0), 1.0)

    def test_clear(self) -> None:
        """When nothing is pending, what was announced is over."""
        self.times.read(3, 1.0)
        self.times.clear()
        self.assertIsNone(self.take(2.0))

    def test_keep(self) -> None:
        """Of more than are pending the oldest were taken by others."""
        for announced in (1.0, 2.0, 3.0):
            self.times.read(1, announced)
        self.times.keep(2)
        self.times.keep(7)
        self.assertEqual(list(self.times.pending()), [2.0, 3.0])
        self.times.keep(0)
        self.assertEqual(list(self.times.pending()), [])

    def test_bounded(self) -> None:
        """No more are remembered than the kernel keeps, the newest."""
        self.times.read(1, 0.0)
        self.times.read(10**12, 1.0)
        self.assertEqual([self.take(2.0) for _time in range(51)], [1.0] * 50 + [None])

    @patient
    @given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 4), st.integers(0, 4))))
    def test_neverTooLate(self, turns: list[tuple[float, int, int]]) -> None:
        """
        Whoever else takes some of the requests, none is thought to be younger than it is,
        nor older than the kernel's patience.
        """
        self.setUp()
        pending: list[float] = []
        now = 0.0
        for seconds, announced, others in turns:
            now += seconds
            pending = [one for one in pending if one + 5.0 > now]
            # The kernel announces none that it does not keep.
            kept = min(announced, 50 - len(pending))
            pending = [*pending, *[now] * kept][others:]
            self.times.read(kept, now)
            if pending:
                thought = self.take(now)
                assert thought is not None
                self.assertLessEqual(thought, pending.pop(0))
                self.assertLess(now, thought + 5.0)
