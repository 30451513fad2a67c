"""Tests for L{ktlsagent.sockets}."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ktlsagent.errors import HandshakeError, PeerClosed, PeerMisbehaved, RequestUnsupported
from ktlsagent.profiles import Endpoint
from ktlsagent.protocols.handshake import IRecordTransport
from ktlsagent.sockets import UpcallTransport, _endpoint
from tests.support.ktlstests import connectedPair
from tests.support.reactor import TurnReactor

RECORDS = (
    bytes((22, 3, 1, 0, 4)) + b"abcd",
    bytes((20, 3, 3, 0, 1, 1)),
    bytes((23, 3, 3, 0, 6)) + b"sealed",
)


class _NamedSocket(socket.socket):
    """A socket whose ends have the names of IPv6, which not every machine that tests has."""

    near = ("::ffff:192.0.2.1", 2049, 0, 0)
    far = ("2001:db8::2", 700, 0, 0)

    def getsockname(self) -> tuple[str, int, int, int]:
        return self.near

    def getpeername(self) -> tuple[str, int, int, int]:
        return self.far


def _named(descriptor: int) -> socket.socket:
    return _NamedSocket(fileno=descriptor)


class _Collector(Protocol):
    """
    Notes what it is told.

    @ivar records: what has come.
    @ivar lost: why the connection was lost.
    """

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.lost: list[HandshakeError] = []

    def dataReceived(self, data: bytes) -> None:
        self.records.append(data)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        assert isinstance(reason.value, HandshakeError)
        self.lost.append(reason.value)


class _GreedyCollector(_Collector):
    """Asks for the next record at once, as long as there is one wanted."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        assert isinstance(self.transport, UpcallTransport)
        self.transport.resumeProducing()


class _UpcallTestCase(SynchronousTestCase):
    """Has a TCP connection whose near end the kernel has lent."""

    def setUp(self) -> None:
        self.reactor = TurnReactor()
        self.near, self.far = connectedPair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.protocol = _Collector()
        self.transport = self.adopt(self.near)

    def adopt(self, consumer: socket.socket) -> UpcallTransport:
        """
        Make a transport, as for a descriptor that came by ACCEPT.

        @param consumer: the consumer's socket.
        @return: the transport, not connected yet.
        """
        transport = UpcallTransport(self.reactor, os.dup(consumer.fileno()))
        self.addCleanup(transport.close)
        return transport

    def connect(self, protocol: Protocol | None = None) -> None:
        """
        Connect the protocol.

        @param protocol: another one than L{_Collector}.
        """
        self.transport.connect(protocol or self.protocol)

    def lostBy(self) -> HandshakeError:
        """
        Let the reactor settle, and say why the connection was lost.

        @return: the only error that the protocol was told.
        """
        self.reactor.settle()
        (error,) = self.protocol.lost
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([], []))
        return error

    def left(self) -> bytes:
        """
        Look into the kernel's buffer.

        @return: what has come from the peer and was not read.
        """
        self.near.settimeout(0.2)
        try:
            return self.near.recv(65536, socket.MSG_PEEK)
        except TimeoutError:
            return b""


class UpcallTransportReadTests(_UpcallTestCase):
    """How L{UpcallTransport} reads."""

    def test_interfaces(self) -> None:
        """It is what the reactor and the handshake's protocol count on."""
        self.connect()
        for interface in (IRecordTransport, IReadDescriptor, IWriteDescriptor):
            verifyObject(interface, self.transport)
        self.assertEqual(self.transport.logPrefix(), "upcall")
        self.assertIs(self.protocol.transport, self.transport)

    def test_nothingUnasked(self) -> None:
        """Nothing is read until it is asked for."""
        self.connect()
        self.far.sendall(RECORDS[0])
        self.reactor.settle()
        self.assertEqual((self.reactor.readers, self.protocol.records), ([], []))
        self.assertEqual(self.left(), RECORDS[0])

    def test_oneRecord(self) -> None:
        """A record that waits is read at once, and the one behind it stays where it is."""
        self.connect()
        self.far.sendall(b"".join(RECORDS))
        for count, record in enumerate(RECORDS, 1):
            self.assertEqual(self.left(), b"".join(RECORDS[count - 1 :]))
            self.transport.resumeProducing()
            self.assertEqual(self.protocol.records[-1:], [record])
            self.reactor.settle()
            self.assertEqual(len(self.protocol.records), count)
        self.assertEqual((self.left(), self.reactor.readers), (b"", []))

    def test_recordThatComesLater(self) -> None:
        """A record that has not come is waited for, once."""
        self.connect()
        self.transport.resumeProducing()
        self.transport.resumeProducing()
        self.reactor.settle()
        self.assertEqual(self.reactor.readers, [self.transport])
        self.far.sendall(RECORDS[0] + RECORDS[1])
        self.reactor.settle()
        self.assertEqual((self.protocol.records, self.reactor.readers), ([RECORDS[0]], []))
        self.assertEqual(self.left(), RECORDS[1])

    def test_byteAtATime(self) -> None:
        """Records are the same however the octets arrive."""
        self.far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.protocol = _GreedyCollector()
        self.connect()
        self.transport.resumeProducing()
        stream = b"".join(RECORDS)
        for at in range(len(stream)):
            self.far.sendall(stream[at : at + 1])
            self.reactor.settle()
        self.assertEqual(self.protocol.records, list(RECORDS))
        self.assertEqual(self.reactor.readers, [self.transport])

    def test_largestRecord(self) -> None:
        """A record of the greatest length comes in one piece."""
        record = struct.pack("!BHH", 23, 0x0303, 2**14 + 256) + os.urandom(2**14 + 256)
        self.connect()
        self.transport.resumeProducing()
        self.far.sendall(record + RECORDS[0])
        self.reactor.settle()
        self.assertEqual(self.protocol.records, [record])
        self.assertEqual(self.left(), RECORDS[0])

    def test_readsInADataReceived(self) -> None:
        """The protocol may ask for the next record while it takes one."""
        self.protocol = _GreedyCollector()
        self.connect()
        self.far.sendall(b"".join(RECORDS))
        self.transport.resumeProducing()
        self.assertEqual(self.protocol.records, list(RECORDS))

    def test_stop(self) -> None:
        """After C{stopProducing} or C{loseConnection} nothing is read."""
        self.connect()
        for stop in (self.transport.stopProducing, self.transport.loseConnection):
            self.transport.resumeProducing()
            stop()
            stop()
            self.assertEqual(self.reactor.readers, [])
        self.far.sendall(RECORDS[0])
        self.reactor.settle()
        self.assertEqual((self.protocol.records, self.protocol.lost), ([], []))

    def test_end(self) -> None:
        """The peer's end of the connection is told once."""
        self.connect()
        self.transport.resumeProducing()
        self.far.close()
        error = self.lostBy()
        self.assertIsInstance(error, PeerClosed)
        self.assertEqual(error.code, "connection-closed")

    def test_endInARecord(self) -> None:
        """An end in the middle of a record gives no part of it."""
        self.connect()
        self.transport.resumeProducing()
        self.far.sendall(RECORDS[0][:-1])
        self.far.shutdown(socket.SHUT_WR)
        self.assertEqual(self.lostBy().code, "connection-closed")
        self.assertEqual(self.protocol.records, [])

    def test_reset(self) -> None:
        """A reset is told once, with the system's words."""
        self.connect()
        self.transport.resumeProducing()
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        error = self.lostBy()
        self.assertIsInstance(error, PeerClosed)
        self.assertEqual(error.code, "connection-lost")
        self.assertIn(os.strerror(errno.ECONNRESET), error.reason)

    def test_noTLS(self) -> None:
        """A peer that does not speak TLS is found out by five octets, and no more are read."""
        self.connect()
        self.transport.resumeProducing()
        self.far.sendall(b"GET / HTTP/1.0\r\n\r\n")
        error = self.lostBy()
        self.assertIsInstance(error, PeerMisbehaved)
        self.assertEqual(error.code, "not-tls")
        self.assertEqual(self.left(), b" HTTP/1.0\r\n\r\n")

    def test_recordTooLong(self) -> None:
        """A record that is too long is refused at its header."""
        self.connect()
        self.transport.resumeProducing()
        self.far.sendall(struct.pack("!BHH", 23, 0x0303, 2**14 + 257))
        self.assertEqual(self.lostBy().code, "record-overflow")

    def test_reactorsError(self) -> None:
        """If the reactor cannot wait for the socket the protocol is told, once."""
        self.connect()
        self.transport.resumeProducing()
        self.transport.connectionLost(Failure(OSError("poll")))
        self.transport.connectionLost(Failure(OSError("again")))
        self.assertEqual(self.lostBy().reason, "the connection broke: poll")


class ConnectionTests(_UpcallTestCase):
    """Whether there is still a connection."""

    def refusal(self) -> PeerClosed:
        """
        Ask when there is none any more.

        @return: the reason.
        """
        error = self.assertRaises(PeerClosed, self.transport.requireConnection)
        assert isinstance(error, PeerClosed)
        return error

    def test_connected(self) -> None:
        """A connection is one, whatever has come on it, and nothing is read from it."""
        self.transport.requireConnection()
        self.far.sendall(RECORDS[0])
        self.transport.requireConnection()
        self.assertEqual(self.left(), RECORDS[0])

    def test_closedByThePeer(self) -> None:
        """A peer that has closed is gone, whatever it sent before."""
        self.far.sendall(RECORDS[0])
        self.far.close()
        error = self.refusal()
        self.assertEqual(error.code, "connection-closed")
        self.assertIn("the peer has closed it", error.reason)

    def test_reset(self) -> None:
        """A connection that was reset is lost."""
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        self.assertEqual(self.refusal().code, "connection-lost")

    def test_closedByTheKernel(self) -> None:
        """A consumer that does not wait any more has shut its connection down."""
        self.near.shutdown(socket.SHUT_RDWR)
        error = self.refusal()
        self.assertEqual(error.code, "connection-closed")
        self.assertIn("the kernel has closed it", error.reason)

    def test_notTCP(self) -> None:
        """What is no TCP connection is refused elsewhere."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        self.adopt(near).requireConnection()


class UpcallTransportPeekTests(_UpcallTestCase):
    """How L{UpcallTransport} looks at a record without taking it."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[bytes | None] = []
        self.connect()

    def peek(self) -> None:
        """Look at the next record, for a second."""
        self.transport.peekRecord(1.0, self.seen.append)

    def assertSeen(self, *seen: bytes | None) -> None:
        """Check what was seen, once, and that nothing is waited for any more."""
        self.assertEqual(self.seen, list(seen))
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))
        self.assertEqual(self.protocol.records, [])

    def test_there(self) -> None:
        """A record that is there is seen at once, and stays there with what is behind it."""
        self.far.sendall(RECORDS[2] * 2)
        self.peek()
        self.assertSeen(RECORDS[2])
        self.assertEqual(self.left(), RECORDS[2] * 2)

    def test_skipped(self) -> None:
        """What has been seen can be taken, and nothing behind it."""
        self.far.sendall(RECORDS[2] + b"next")
        self.peek()
        self.transport.skip(len(RECORDS[2]))
        self.assertEqual(self.left(), b"next")

    def test_later(self) -> None:
        """A record that comes later is waited for."""
        self.peek()
        self.reactor.settle()
        self.assertEqual((self.seen, self.reactor.readers), ([], [self.transport]))
        self.far.sendall(RECORDS[2])
        self.reactor.settle()
        self.assertSeen(RECORDS[2])
        self.assertEqual(self.left(), RECORDS[2])

    def test_inParts(self) -> None:
        """A record in parts is waited for, but the reactor is not asked about the rest."""
        self.peek()
        for part in (RECORDS[2][:1], RECORDS[2][1:4], RECORDS[2][4:5], RECORDS[2][5:8]):
            self.far.sendall(part)
            self.reactor.turn(0.002)
            self.reactor.turn(0.002)
            self.assertEqual((self.seen, self.reactor.readers), ([], []))
        self.far.sendall(RECORDS[2][8:] + b"next")
        self.reactor.turn(0.002)
        self.reactor.turn(0.002)
        self.assertSeen(RECORDS[2])
        self.assertEqual(self.left(), RECORDS[2] + b"next")

    def test_nothing(self) -> None:
        """If nothing comes in time, that is told."""
        self.peek()
        self.reactor.turn(0.999)
        self.assertEqual(self.seen, [])
        self.reactor.turn(0.002)
        self.assertSeen(None)

    def test_partOnly(self) -> None:
        """A part of a record is none, and is left to others."""
        self.far.sendall(RECORDS[2][:-1])
        self.peek()
        self.assertEqual((self.seen, self.reactor.readers), ([], []))
        for _turn in range(600):
            self.reactor.turn(0.002)
        self.assertSeen(None)
        self.assertEqual(self.left(), RECORDS[2][:-1])

    def test_otherRecords(self) -> None:
        """A record without protection, and what is too long to be one, are not looked at."""
        for data in (RECORDS[0], b"GET / HTTP/1.0", struct.pack("!BHH", 23, 0x0303, 2**14 + 257)):
            near, far = connectedPair()
            self.addCleanup(near.close)
            self.addCleanup(far.close)
            self.transport = self.adopt(near)
            self.connect()
            far.sendall(data)
            self.peek()
            self.reactor.settle()
            self.assertSeen(None)
            self.seen.clear()
            self.assertEqual(near.recv(100), data)

    def test_end(self) -> None:
        """The end of the connection is not told as lost: the kernel will find it, too."""
        self.peek()
        self.far.close()
        self.reactor.settle()
        self.assertSeen(None)
        self.assertEqual(self.protocol.lost, [])

    def test_reset(self) -> None:
        """A connection that breaks meanwhile is lost."""
        self.peek()
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        self.assertEqual(self.lostBy().code, "connection-lost")
        self.assertSeen()

    def test_stopped(self) -> None:
        """Who does not want to wait any more is told nothing."""
        for stop in (self.transport.stopProducing, self.transport.restore):
            self.peek()
            stop()
            self.far.sendall(RECORDS[2])
            self.reactor.turn(2.0)
            self.assertSeen()
            self.transport.skip(len(RECORDS[2]))


class UpcallTransportWriteTests(_UpcallTestCase):
    """How L{UpcallTransport} writes."""

    def setUp(self) -> None:
        super().setUp()
        self.flushed: list[bool] = []

    def whenFlushed(self) -> None:
        """Wait for everything to be sent."""
        self.transport.whenFlushed(lambda: self.flushed.append(True))

    def receive(self, length: int) -> bytes:
        """
        Read at the peer while the reactor takes its turns.

        @param length: how many octets to read.
        @return: the octets.
        """
        data = b""
        while len(data) < length:
            self.reactor.settle()
            data += self.far.recv(65536)
        return data

    def test_small(self) -> None:
        """What the socket has room for is sent at once."""
        self.connect()
        self.transport.write(b"one")
        self.transport.writeSequence([b"two", b"three"])
        self.assertEqual(self.reactor.writers, [])
        self.assertEqual(self.receive(11), b"onetwothree")

    def test_flushedAlready(self) -> None:
        """Nothing left to send is told at once, and once."""
        self.connect()
        self.transport.write(b"one")
        self.whenFlushed()
        self.assertEqual(self.flushed, [True])
        self.transport.write(b"two")
        self.reactor.settle()
        self.assertEqual(self.flushed, [True])

    def test_big(self) -> None:
        """What the socket has no room for is sent in order as it gets room, and then flushed."""
        self.connect()
        data = os.urandom(8 * 2**20)
        self.transport.write(data)
        self.transport.write(b"behind")
        self.whenFlushed()
        self.assertEqual((self.flushed, self.reactor.writers), ([], [self.transport]))
        self.assertEqual(self.receive(len(data) + 6), data + b"behind")
        self.reactor.settle()
        self.assertEqual((self.flushed, self.reactor.writers), ([True], []))

    def test_brokenAtOnce(self) -> None:
        """A connection that is broken when something is written is told as lost, once."""
        self.connect()
        self.near.shutdown(socket.SHUT_WR)
        self.transport.write(b"data")
        self.whenFlushed()
        error = self.lostBy()
        self.assertIsInstance(error, PeerClosed)
        self.assertEqual(error.code, "connection-lost")
        self.assertIn(os.strerror(errno.EPIPE), error.reason)

    def test_brokenLater(self) -> None:
        """A connection that breaks while something waits to be sent is told as lost."""
        self.connect()
        self.transport.write(bytes(8 * 2**20))
        self.whenFlushed()
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        self.assertEqual(self.lostBy().code, "connection-lost")
        self.assertEqual(self.flushed, [])


class UpcallTransportLoanTests(_UpcallTestCase):
    """What L{UpcallTransport} leaves of the socket that it was lent."""

    def noDelay(self) -> int:
        """
        Look at the option.

        @return: C{TCP_NODELAY} as the consumer sees it.
        """
        return self.near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    def test_noDelay(self) -> None:
        """C{TCP_NODELAY} is set for the handshake, and is then as it was."""
        for before in (0, 1):
            self.near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, before)
            transport = self.adopt(self.near)
            transport.connect(_Collector())
            self.assertEqual(self.noDelay(), 1)
            transport.restore()
            self.assertEqual(self.noDelay(), before)

    def test_noDelayRefused(self) -> None:
        """A socket that does not take the option serves all the same, and nothing is to restore."""

        class Stubborn(socket.socket):
            def setsockopt(self, *arguments: object) -> None:
                raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

        descriptor = os.dup(self.near.fileno())
        transport = UpcallTransport(
            self.reactor, descriptor, lambda number: Stubborn(fileno=number)
        )
        self.addCleanup(transport.close)
        protocol = _Collector()
        transport.connect(protocol)
        transport.resumeProducing()
        self.far.sendall(RECORDS[0])
        self.reactor.settle()
        transport.restore()
        self.assertEqual(protocol.records, [RECORDS[0]])

    def test_restoreOnce(self) -> None:
        """What the consumer sets after the handshake is not undone."""
        self.connect()
        self.transport.restore()
        self.near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport.restore()
        self.assertEqual(self.noDelay(), 1)

    def test_restoreWithoutConnect(self) -> None:
        """A socket that was never prepared has nothing to restore."""
        self.transport.restore()
        self.assertEqual(self.noDelay(), 0)

    def test_restoreLetsGo(self) -> None:
        """After it is restored nothing waits for the socket, and nobody is told anything."""
        self.connect()
        self.transport.resumeProducing()
        self.transport.write(bytes(8 * 2**20))
        self.assertEqual(self.reactor.readers, [self.transport])
        self.assertEqual(self.reactor.writers, [self.transport])
        self.transport.restore()
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([], []))
        self.transport.connectionLost(Failure(OSError("late")))
        self.assertEqual(self.protocol.lost, [])

    def test_recordAfterRestore(self) -> None:
        """A record that is read when nobody wants it any more is nobody's."""
        self.connect()
        self.transport.restore()
        self.far.sendall(RECORDS[0])
        self.assertEqual(self.left(), RECORDS[0])
        self.transport.doRead()
        self.assertEqual(self.protocol.records, [])

    def test_statusFlags(self) -> None:
        """A blocking socket stays one, a socket that does not block too; neither blocks us."""
        for blocking in (True, False):
            near, far = connectedPair()
            with near, far:
                near.setblocking(blocking)
                flags = fcntl.fcntl(near, fcntl.F_GETFL)
                transport = self.adopt(near)
                transport.connect(_Collector())
                transport.resumeProducing()
                transport.write(bytes(8 * 2**20))
                self.assertEqual(fcntl.fcntl(near, fcntl.F_GETFL), flags)
                transport.restore()
                transport.close()
                self.assertEqual(fcntl.fcntl(near, fcntl.F_GETFL), flags)

    def test_close(self) -> None:
        """Closing our descriptor ends nothing: the consumer goes on with the connection."""
        self.connect()
        self.transport.write(b"handshake")
        descriptor = self.transport.fileno()
        self.transport.restore()
        self.transport.close()
        self.transport.close()
        self.assertEqual(self.transport.fileno(), -1)
        self.assertRaises(OSError, os.fstat, descriptor)
        self.near.sendall(b" and more")
        self.assertEqual(self.far.recv(18, socket.MSG_WAITALL), b"handshake and more")
        self.far.sendall(b"answer")
        self.assertEqual(self.near.recv(100), b"answer")

    def test_socket(self) -> None:
        """The socket to be programmed is the lent one."""
        self.assertEqual(self.transport.socket.fileno(), self.transport.fileno())
        self.assertEqual(self.transport.socket.getpeername(), self.near.getpeername())

    def test_notTCP(self) -> None:
        """Another kind of socket is refused before anything is done with it."""
        near, far = socket.socketpair()
        with near, far:
            transport = self.adopt(near)
            error = self.assertRaises(RequestUnsupported, transport.requireTCP)
            self.assertEqual(error.code, "not-tcp")
            self.assertEqual(
                error.reason, "expected a TCP connection (IP protocol 6), found protocol 0"
            )
            transport.restore()
        self.assertIsNone(self.protocol.transport)

    def test_noSocket(self) -> None:
        """A descriptor of something else is an error, and stays the caller's."""
        readable, writable = os.pipe()
        self.assertRaises(OSError, UpcallTransport, self.reactor, readable)
        os.close(readable)
        os.close(writable)


class UpcallTransportAddressTests(_UpcallTestCase):
    """How L{UpcallTransport} names both ends."""

    def test_ipv4(self) -> None:
        """An IPv4 connection has IPv4 addresses."""
        self.assertEqual(self.transport.getPeer(), IPv4Address("TCP", *self.far.getsockname()))
        self.assertEqual(self.transport.getHost(), IPv4Address("TCP", *self.near.getsockname()))

    def test_plainValues(self) -> None:
        """Any address that the system gives is known; a mapped one is an IPv4 address."""
        for name, expected in (
            (("192.0.2.1", 2049), "192.0.2.1"),
            (("2001:db8::1", 2049, 0, 0), "2001:db8::1"),
            (("fe80::1", 2049, 0, 2), "fe80::1"),
            (("::ffff:192.0.2.1", 2049, 0, 0), "192.0.2.1"),
        ):
            self.assertEqual(_endpoint(name), Endpoint(ipaddress.ip_address(expected), 2049))

    def test_otherNames(self) -> None:
        """What is no IP address is refused: a Unix socket has a path."""
        for name in (("", 1), ("/run/socket", 1)):
            self.assertRaises(ValueError, _endpoint, name)
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        self.assertRaises(ValueError, self.adopt(near).peer)

    def test_gone(self) -> None:
        """A connection that is gone has no peer."""
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.far.close()
        self.connect()
        self.transport.resumeProducing()
        self.lostBy()
        self.assertRaises(OSError, self.transport.getPeer)

    def test_ipv6(self) -> None:
        """IPv6 has IPv6 addresses; IPv4 on an IPv6 socket has IPv4 addresses all the same."""
        transport = UpcallTransport(self.reactor, os.dup(self.near.fileno()), _named)
        self.addCleanup(transport.close)
        self.assertEqual(transport.getPeer(), IPv6Address("TCP", "2001:db8::2", 700))
        self.assertEqual(transport.getHost(), IPv4Address("TCP", "192.0.2.1", 2049))
