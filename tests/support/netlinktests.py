"""What holds of the handshake family, on the fake as on a real kernel."""

from __future__ import annotations

import errno
import os
import socket
import struct
from itertools import product

from twisted.logger import capturedLogs, eventAsText
from zope.interface.verify import verifyObject

from ktlsagent.errors import NetlinkError
from ktlsagent.interfaces import IHandshakeKernel, INetlinkSocket
from ktlsagent.netlink import HandshakeNetlink
from tests.support.mixin import TestsMixin

_HEADER = struct.Struct("=IHHII")

FORGED = (
    _HEADER.pack(28, 28, 0, 0, 0) + b"\1\1\0\0\x08\0\2\0\1\0\0\0",
    _HEADER.pack(28, 28, 0, 1, 0) + b"\2\1\0\0\x08\0\1\0\0\0\0\0",
    *(_HEADER.pack(36, 2, 0, sequence, 0) + b"\xff" * 4 + bytes(16) for sequence in (1, 2, 3)),
    _HEADER.pack(20, 3, 0, 1, 0) + bytes(4),
    b"\0",
    b"\xff" * 16,
    _HEADER.pack(70000, 28, 0, 0, 0) + bytes(69984),
)
"""READY, a reply to ACCEPT, EPERM, a dump's end, and what is no message at all."""


class HandshakeKernelTestsMixin(TestsMixin):
    """Tests that need no consumer: nobody asks for a handshake."""

    def openSocket(self) -> INetlinkSocket:
        """
        Open a netlink socket of the kernel under test.

        @return: the socket.
        """
        raise NotImplementedError

    def makeKernel(self, inherited: int | None = None) -> HandshakeNetlink:
        """
        Make what is tested; not opened yet.

        @param inherited: the descriptor of a socket for READY that is open.
        @return: the handshake family of the kernel under test.
        """
        raise NotImplementedError

    def handOver(self, opened: INetlinkSocket) -> int:
        """
        Give a socket up, but do not close it.

        @param opened: the socket.
        @return: its descriptor.
        """
        raise NotImplementedError

    def forge(self, datagram: bytes, port: int = 0) -> None:
        """
        Send something as another process that may administer the network namespace.

        @param datagram: what, at least one octet.
        @param port: whom to; by default all that have joined the agents' group.
        @raise OSError: if that is not possible.
        """
        raise NotImplementedError

    def listening(self, inherited: int | None = None) -> HandshakeNetlink:
        """
        Make what is tested, and listen.

        @param inherited: the descriptor of a socket for READY that is open.
        @return: the handshake family, closed at the end of the test.
        """
        kernel = self.makeKernel(inherited)
        kernel.open()
        self.addCleanup(kernel.close)
        kernel.listen()
        return kernel

    def connection(self) -> socket.socket:
        """
        Make a socket for which no handshake was asked.

        @return: one end of a pair, closed at the end of the test.
        """
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        return near

    def refusedDone(self, descriptor: int, status: int = 0) -> NetlinkError:
        """
        Send a DONE that is refused.

        @param descriptor: of what.
        @param status: which status.
        @return: the refusal.
        """
        error: NetlinkError = self.assertRaises(
            NetlinkError, self.listening().done, descriptor, status
        )
        return error

    def test_interfaces(self) -> None:
        """Socket and family provide what the agent's other parts count on."""
        opened = self.openSocket()
        self.addCleanup(opened.close)
        verifyObject(INetlinkSocket, opened)
        verifyObject(IHandshakeKernel, self.makeKernel())

    def test_portsDiffer(self) -> None:
        """Each netlink socket has a port of its own."""
        first, second = self.openSocket(), self.openSocket()
        self.addCleanup(first.close)
        self.addCleanup(second.close)
        self.assertNotEqual(first.portId(), second.portId())

    def test_noAnswerWithoutQuestion(self) -> None:
        """A netlink socket on which nothing has come does not block."""
        opened = self.openSocket()
        self.addCleanup(opened.close)
        self.assertRaises(BlockingIOError, opened.receive)

    def test_unknownGroup(self) -> None:
        """A multicast group that no family has cannot be joined."""
        opened = self.openSocket()
        self.addCleanup(opened.close)
        self.assertRaises(OSError, opened.join, 0x7FFFFFF0)

    def test_closedSocket(self) -> None:
        """A closed netlink socket gives errors, and can be closed again."""
        opened = self.openSocket()
        opened.close()
        opened.close()
        self.assertRaises(OSError, opened.receive)
        self.assertRaises(OSError, opened.send, b"")
        self.assertEqual(opened.fileno(), -1)

    def test_listens(self) -> None:
        """The family and its group are found, and READY has a descriptor to wait on."""
        self.assertGreaterEqual(self.listening().fileno(), 0)

    def test_noReady(self) -> None:
        """Reading READY when none has come returns at once, and says so."""
        self.assertEqual(self.listening().readReady(), 0)

    def test_nothingPending(self) -> None:
        """ACCEPT without a request pending is C{None}, each time."""
        kernel = self.listening()
        self.assertIsNone(kernel.accept())
        self.assertIsNone(kernel.accept())

    def test_doneWithClosedDescriptor(self) -> None:
        """DONE with a descriptor that is closed is C{EBADF}."""
        connection = self.connection()
        descriptor = os.dup(connection.fileno())
        kernel = self.listening()
        os.close(descriptor)
        error = self.assertRaises(NetlinkError, kernel.done, descriptor, 0)
        self.assertEqual(error.errno, errno.EBADF)

    def test_doneWithoutRequest(self) -> None:
        """DONE with a socket that no handshake was asked for is C{EBUSY}."""
        error = self.refusedDone(self.connection().fileno())
        self.assertEqual(error.errno, errno.EBUSY)
        self.assertEqual(str(error), "DONE: EBUSY")

    def test_doneWithoutSocket(self) -> None:
        """DONE with a descriptor of something else is C{ENOTSOCK}."""
        readable, writable = os.pipe()
        self.addCleanup(os.close, readable)
        self.addCleanup(os.close, writable)
        self.assertEqual(self.refusedDone(readable).errno, errno.ENOTSOCK)

    def test_doneWithHugeStatus(self) -> None:
        """The kernel's own words are in the refusal of a status that is no errno."""
        error = self.refusedDone(self.connection().fileno(), 4096)
        self.assertEqual(error.errno, errno.ERANGE)
        self.assertIn("integer out of range", str(error))

    def test_doneWithTags(self) -> None:
        """
        Session tags go only to a kernel that says it takes them, and only those
        that it takes: this answer is refused for nothing but its socket.
        """
        kernel = self.listening()
        for tags in (("admins",), ("", "a\0b", "x" * 256), tuple(f"tag{at}" for at in range(99))):
            descriptor = self.connection().fileno()
            error = self.assertRaises(NetlinkError, kernel.done, descriptor, 0, (5,), tags)
            self.assertEqual(str(error), "DONE: EBUSY")

    def test_otherListeners(self) -> None:
        """Another listener is seen while it is there; we are not one of the others."""
        kernel = self.listening()
        self.assertEqual(list(kernel.otherListeners()), [])
        other = self.listening()
        self.assertEqual(len(kernel.otherListeners()), 1)
        self.assertEqual(len(other.otherListeners()), 1)
        self.assertNotEqual(list(kernel.otherListeners()), list(other.otherListeners()))
        other.leave()
        self.assertEqual(list(kernel.otherListeners()), [])

    def test_groups(self) -> None:
        """A socket tells which groups it has joined."""
        kernel = self.listening()
        group = kernel._family.groups["tlshd"]
        opened = self.openSocket()
        self.addCleanup(opened.close)
        self.assertEqual(opened.groups(), frozenset())
        opened.join(group)
        self.assertEqual(opened.groups(), {group})

    def test_inherits(self) -> None:
        """A socket for READY that has been open before is used, and is the only one."""
        group = self.listening()._family.groups["tlshd"]
        opened = self.openSocket()
        opened.join(group)
        port = opened.portId()
        with capturedLogs() as events:
            kernel = self.listening(self.handOver(opened))
        self.assertEqual(events, [])
        self.assertIsNone(kernel.accept())
        self.assertEqual(len(kernel.otherListeners()), 1)
        self.assertIn(port, self.listening().otherListeners())

    def test_doesNotInheritWhatHearsNothing(self) -> None:
        """A socket that is not in the group is closed, with a warning, and a new one opened."""
        opened = self.openSocket()
        with capturedLogs() as events:
            kernel = self.listening(self.handOver(opened))
        (event,) = events
        self.assertIn("is not in the group", eventAsText(event))
        self.assertIsNone(kernel.accept())
        self.assertNotEqual(kernel._opened(kernel._ready).groups(), frozenset())

    def test_doesNotInheritAnythingElse(self) -> None:
        """What is no netlink socket is not used, and the next start does not try it again."""
        readable, writable = os.pipe()
        self.addCleanup(os.close, readable)
        self.addCleanup(os.close, writable)
        with capturedLogs() as events:
            kernel = self.listening(os.dup(readable))
            kernel.close()
            kernel.open()
            kernel.listen()
        (event,) = events
        self.assertIn("expected a netlink socket of this network namespace", eventAsText(event))

    def test_nobodyElseCanAnswer(self) -> None:
        """What another process sends to one of our ports is refused, and nothing comes of it."""
        kernel = self.listening()
        opened = self.openSocket()
        self.addCleanup(opened.close)
        ports = [opened.portId()]
        ports += [kernel._opened(each).portId() for each in (kernel._ready, kernel._command)]
        for port, datagram in product(ports, FORGED):
            error = self.assertRaises(OSError, self.forge, datagram, port)
            self.assertEqual(error.errno, errno.ECONNREFUSED)
        self.assertRaises(BlockingIOError, opened.receive)
        self.assertEqual((kernel.readReady(), kernel.discardStrays(), kernel.foreign), (0, 0, 0))

    def test_inheritedHearsTheKernelOnly(self) -> None:
        """That holds of a socket that was open before, too."""
        opened = self.openSocket()
        opened.join(self.listening()._family.groups["tlshd"])
        port = opened.portId()
        self.listening(self.handOver(opened))
        self.assertRaises(ConnectionRefusedError, self.forge, FORGED[0], port)

    def test_nobodyElseCanAnnounce(self) -> None:
        """What another process sends to the agents' group is no READY; it is counted."""
        kernel = self.listening()
        for datagram in FORGED:
            self.forge(datagram)
        self.assertEqual(kernel.readReady(), 0)
        self.assertEqual(kernel.foreign, len(FORGED))
        self.assertNotEqual(kernel.foreigner, 0)
        self.assertEqual(kernel.discardStrays(), 0)
        self.assertIsNone(kernel.accept())

    def test_flood(self) -> None:
        """Whoever sends more than we read keeps us busy for a while, but not for ever."""
        kernel = self.listening()
        for _number in range(1200):
            self.forge(FORGED[0])
        self.assertEqual(kernel.readReady(), 0)
        self.assertEqual(kernel.foreign, 512)
        self.assertIsNone(kernel.accept())
        self.assertEqual((kernel.readReady(), kernel.foreign), (0, 1024))
        self.assertEqual((kernel.readReady(), kernel.foreign), (0, 1200))

    def test_leave(self) -> None:
        """After leaving, requests can still be answered, but none be accepted."""
        kernel = self.listening()
        kernel.leave()
        kernel.leave()
        connection = self.connection()
        error = self.assertRaises(NetlinkError, kernel.done, connection.fileno(), 0)
        self.assertEqual(error.errno, errno.EBUSY)
        self.assertRaises(NetlinkError, kernel.accept)

    def test_close(self) -> None:
        """After closing nothing works until the family is opened again."""
        kernel = self.listening()
        kernel.close()
        kernel.close()
        for use in (kernel.fileno, kernel.readReady, kernel.accept, kernel.otherListeners):
            self.assertEqual(self.assertRaises(NetlinkError, use).errno, errno.EBADF)
        self.assertRaises(NetlinkError, kernel.done, self.connection().fileno(), 0)
        kernel.open()
        kernel.listen()
        self.assertIsNone(kernel.accept())
