"""
The transport over a socket that the kernel has lent: it reads one record at a
time, never shuts the connection down, and gives the socket back as it was.

Twisted's own transports do none of that: they read ahead, and closing one
closes the kernel's connection.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, IWriteDescriptor
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ktlsagent.errors import HandshakeError, PeerClosed, RequestUnsupported
from ktlsagent.interfaces import IAgentReactor
from ktlsagent.profiles import Address, Endpoint
from ktlsagent.protocols.handshake import IRecordTransport
from ktlsagent.protocols.record import (
    HEADER_LENGTH,
    MAXIMUM_FRAGMENT,
    RecordReader,
    wholeRecord,
)

_ESTABLISHED = 1
"""C{TCP_ESTABLISHED} (C{include/net/tcp_states.h}), in the first octet of C{TCP_INFO}."""

_CLOSED = {
    7: ("connection-lost", "it broke"),
    8: ("connection-closed", "the peer has closed it"),
}
"""C{TCP_CLOSE} and C{TCP_CLOSE_WAIT}: what the code and the words are."""

_NO_WAIT = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

_PEEK_AGAIN_SECONDS = 0.002
"""
When to look again at a record of which a part is there.  The reactor cannot wait for
the rest, as what has been looked at can still be read.
"""

Peeked = Callable[[bytes | None], None]

Adopt = Callable[[int], socket.socket]
"""Makes a socket of a descriptor, which becomes the socket's."""


def adoptSocket(descriptor: int) -> socket.socket:
    """
    Make a socket of a descriptor.

    @param descriptor: an open socket's; it becomes the result's.
    @return: the socket.
    @raise OSError: if it is no socket; the descriptor is then still the caller's.
    """
    # Python is not to ask for a type that nobody looks at.
    return socket.socket(type=socket.SOCK_STREAM, fileno=descriptor)


@implementer(IRecordTransport, IReadDescriptor, IWriteDescriptor)
class UpcallTransport:
    """
    The transport of one request.

    The protocol gets whole records by C{dataReceived}, one for each call of
    L{resumeProducing}.  The descriptor is the caller's: it is closed by
    L{close}, after DONE, and by nothing else.

    The socket's file status flags belong to the kernel's consumer as well
    and are not touched: every call says that it must not wait.
    """

    def __init__(self, reactor: IAgentReactor, descriptor: int, adopt: Adopt = adoptSocket) -> None:
        """
        @param reactor: waits for the socket, and gives the time.
        @param descriptor: the request's descriptor; it becomes this object's.
        @param adopt: makes a socket of it.
        @raise OSError: if it is no socket; it is then still the caller's.
        """
        self._reactor = reactor
        self._socket = adopt(descriptor)
        self._reader = RecordReader()
        self._protocol: Protocol | None = None
        self._output = b""
        self._flushed: Callable[[], None] | None = None
        self._wanted = False
        self._reading = False
        self._writing = False
        self._delayed = False
        self._peeking: Peeked | None = None
        self._peekUntil = 0.0
        self._peekTimer: IDelayedCall | None = None

    @property
    def socket(self) -> socket.socket:
        """The socket itself, to be programmed."""
        return self._socket

    def requireTCP(self) -> None:
        """
        See whether the kernel could run TLS over this at all.

        @raise RequestUnsupported: if this is no TCP connection.
        """
        kind = self._socket.proto
        if kind != socket.IPPROTO_TCP:
            raise RequestUnsupported(
                "not-tcp", f"expected a TCP connection (IP protocol 6), found protocol {kind}"
            )

    def requireConnection(self) -> None:
        """
        See whether there is still a connection, without reading from it.

        kTLS takes no connection that either side has begun to close (C{tls_init},
        C{net/tls/tls_main.c}), so work on one is wasted, whatever it has sent.
        The kernel closes it when it does not wait for us any more.

        @raise PeerClosed: if there is none.
        """
        try:
            state = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        except OSError:
            return
        if state != _ESTABLISHED:
            code, who = _CLOSED.get(state, ("connection-closed", "the kernel has closed it"))
            raise PeerClosed(
                code, f"expected a connection when the handshake's turn came, found that {who}"
            )

    def connect(self, protocol: Protocol) -> None:
        """
        Prepare the socket for a handshake and connect a protocol to it.

        @param protocol: gets the records, and the end if it comes early.
        """
        # Without it the handshake takes longer, no more.
        with suppress(OSError):
            if not self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._delayed = True
        self._protocol = protocol
        protocol.makeConnection(self)

    def restore(self) -> None:
        """
        Let go of the socket: nothing is read or written any more, and its
        options are as they were.
        """
        self.stopProducing()
        self._stopWriting()
        self._protocol = self._flushed = None
        if self._delayed:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            self._delayed = False

    def close(self) -> None:
        """
        Close our descriptor.  The connection goes on: the kernel holds it.
        """
        self._socket.close()

    def fileno(self) -> int:
        """See L{IReadDescriptor}."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See C{ILoggingContext}."""
        return "upcall"

    def resumeProducing(self) -> None:
        """
        Read the next record, now if it is there, else when it comes.
        """
        self._wanted = True
        self._readRecord()

    def stopProducing(self) -> None:
        """
        Read no more.
        """
        self._wanted = False
        self._stopPeeking()

    def peekRecord(self, seconds: float, callback: Peeked) -> None:
        """
        See L{IRecordTransport}.

        @param seconds: how long to wait for it.
        @param callback: called with the record, or with C{None}.
        """
        self._peekUntil = self._reactor.seconds() + seconds
        self._peek(callback)

    def skip(self, length: int) -> None:
        """
        See L{IRecordTransport}.

        @param length: how many octets.
        """
        # They have been looked at, so they are there.
        while length:
            length -= len(self._socket.recv(length, _NO_WAIT))

    def _peek(self, callback: Peeked) -> None:
        """Look whether a record is there, and say so, or wait on."""
        left = self._peekUntil - self._reactor.seconds()
        record = None
        try:
            data = self._socket.recv(HEADER_LENGTH + MAXIMUM_FRAGMENT, _NO_WAIT | socket.MSG_PEEK)
            record = wholeRecord(data)
            # The end of the connection is the kernel's to find, too.
            wait = min(left, _PEEK_AGAIN_SECONDS) if data and record is None else 0.0
        except BlockingIOError:
            wait = left
        except ValueError:
            wait = 0.0
        except OSError as error:
            self._lost(PeerClosed("connection-lost", f"the connection broke: {error}"))
            return
        self._stopPeeking()
        if wait <= 0:
            callback(record)
            return
        self._peekTimer = self._reactor.callLater(wait, self._peek, callback)
        if wait == left:
            self._peeking = callback
            self._startReading()

    def _stopPeeking(self) -> None:
        self._stopReading()
        self._peeking = None
        timer, self._peekTimer = self._peekTimer, None
        if timer is not None and timer.active():
            timer.cancel()

    def doRead(self) -> None:
        """See L{IReadDescriptor}."""
        if self._peeking is not None:
            self._peek(self._peeking)
        elif self._wanted:
            self._readRecord()
        else:
            # Something comes while the protocol is busy: only now is it worth
            # while to tell the reactor that nothing is wanted.
            self._stopReading()

    def _readRecord(self) -> None:
        """Take what is there of the current record, and no octet behind it."""
        record = None
        while record is None:
            try:
                data = self._socket.recv(self._reader.wanted(), _NO_WAIT)
            except BlockingIOError:
                self._startReading()
                return
            except OSError as error:
                self._lost(PeerClosed("connection-lost", f"the connection broke: {error}"))
                return
            if not data:
                self._lost(PeerClosed("connection-closed", "the peer closed the connection"))
                return
            try:
                record = self._reader.feed(data)
            except HandshakeError as error:
                self._lost(error)
                return
        self._wanted = False
        if self._protocol is not None:
            self._protocol.dataReceived(record)

    def write(self, data: bytes) -> None:
        """
        Send data, now if the socket takes it, else when it does.

        @param data: the octets.
        """
        if data:
            self._output += data
            self.doWrite()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See L{ITransport}."""
        self.write(b"".join(data))

    def doWrite(self) -> None:
        """See L{IWriteDescriptor}."""
        try:
            while self._output:
                sent = self._socket.send(self._output, _NO_WAIT)
                self._output = self._output[sent:]
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._reactor.addWriter(self)
            return
        except OSError as error:
            self._output = b""
            self._stopWriting()
            self._lost(PeerClosed("connection-lost", f"the connection broke: {error}"))
            return
        self._stopWriting()
        if self._flushed is not None:
            flushed, self._flushed = self._flushed, None
            flushed()

    def whenFlushed(self, callback: Callable[[], None]) -> None:
        """
        See L{IRecordTransport}.

        @param callback: called when nothing is left to send.
        """
        self._flushed = callback
        if not self._output:
            self.doWrite()

    def loseConnection(self) -> None:
        """See L{ITransport}.  The connection is the kernel's: it is only left alone."""
        self._stopReading()

    def connectionLost(self, reason: Failure) -> None:
        """See L{IReadDescriptor}: the reactor cannot wait for the socket any more."""
        self._lost(PeerClosed("connection-lost", f"the connection broke: {reason.value}"))

    def peer(self) -> Endpoint:
        """
        Say who the peer is.

        @return: the other end of the connection.
        @raise OSError: if there is none any more.
        @raise ValueError: if it has no IP address.
        """
        return _endpoint(self._socket.getpeername())

    def local(self) -> Endpoint:
        """
        Say who we are.

        @return: our end of the connection.
        @raise OSError: if the system does not know.
        @raise ValueError: if it has no IP address.
        """
        return _endpoint(self._socket.getsockname())

    def getPeer(self) -> IPv4Address | IPv6Address:
        """See L{ITransport}."""
        return _twistedAddress(self.peer())

    def getHost(self) -> IPv4Address | IPv6Address:
        """See L{ITransport}."""
        return _twistedAddress(self.local())

    def _startReading(self) -> None:
        if not self._reading:
            self._reading = True
            self._reactor.addReader(self)

    def _stopReading(self) -> None:
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self)

    def _stopWriting(self) -> None:
        if self._writing:
            self._writing = False
            self._reactor.removeWriter(self)

    def _lost(self, error: HandshakeError) -> None:
        self.stopProducing()
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            # Its traceback would hold the protocol until garbage is looked for.
            protocol.connectionLost(Failure(error.with_traceback(None)))


def _endpoint(name: tuple[str, int] | tuple[str, int, int, int]) -> Endpoint:
    """Make an endpoint of a socket's name."""
    host, port = name[:2]
    return Endpoint(_address(host), port)


def _address(host: str) -> Address:
    """Read an address; an IPv4-mapped one is an IPv4 address."""
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _twistedAddress(endpoint: Endpoint) -> IPv4Address | IPv6Address:
    """Make Twisted's address of one end of a connection."""
    kind = IPv4Address if endpoint.address.version == 4 else IPv6Address  # noqa: PLR2004
    return kind("TCP", str(endpoint.address), endpoint.port)
