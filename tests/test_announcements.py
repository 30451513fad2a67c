"""Tests for L{ktlsagent.announcements}; what a service does with them is in its own tests."""

from __future__ import annotations

import errno

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ktlsagent.announcements import Ready
from ktlsagent.errors import NetlinkError
from ktlsagent.interfaces import IAnnouncements
from ktlsagent.netlink import HandshakeNetlink
from tests.support.fakekernel import FakeHandshakeKernel


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
