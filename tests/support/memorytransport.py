"""A transport in memory, and a protocol to put on top."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from ktlsagent.errors import HandshakeError
from ktlsagent.protocols.handshake import IRecordTransport
from tests.support.tlspeers import StdlibPeer, records

Step = Callable[[], None]


@implementer(IRecordTransport)
class MemoryTransport:
    """
    A transport to a peer in this process, which breaks and blocks when told to.

    @ivar unread: the peer's records that nobody has asked for.
    @ivar written: all that was written.
    @ivar stopped: whether reading was stopped.
    @ivar blocked: whether what is written stays unsent for now.
    @ivar broken: why the next write fails, if it does.
    @ivar silent: whether no record comes, and the wait for one does not end.
    @ivar waited: for how long a record was to be waited for, each time.
    """

    def __init__(self, peer: StdlibPeer | None = None) -> None:
        """
        @param peer: takes what is written; without one nobody does.
        """
        self.unread: list[bytes] = []
        self.written = b""
        self.stopped = False
        self.blocked = False
        self.broken: HandshakeError | None = None
        self.waited: list[float] = []
        self.silent = False
        self._peer = peer
        self._protocol: Protocol | None = None
        self._wanted = False
        self._flushed: Step | None = None

    def connect(self, protocol: Protocol) -> None:
        """Connect a protocol."""
        self._protocol = protocol
        protocol.makeConnection(self)
        if self._peer is not None:
            self.deliver(self._peer.feed(b""))

    def deliver(self, stream: bytes) -> None:
        """Let records arrive; the first one is given out if one is wanted."""
        self.unread.extend(records(stream))
        if self._wanted and self.unread and self._protocol is not None:
            self._wanted = False
            self._protocol.dataReceived(self.unread.pop(0))

    def lose(self, error: HandshakeError) -> None:
        """Fail, as a transport does: once."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connectionLost(Failure(error))

    def flush(self) -> None:
        """Send what is unsent."""
        self.blocked = False
        if self._flushed is not None:
            flushed, self._flushed = self._flushed, None
            flushed()

    def write(self, data: bytes) -> None:
        if data and self.broken is not None:
            self.lose(self.broken)
            return
        self.written += data
        if self._peer is not None:
            self.deliver(self._peer.feed(data))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def whenFlushed(self, callback: Step) -> None:
        self._flushed = callback
        if not self.blocked:
            self.flush()

    def resumeProducing(self) -> None:
        self._wanted = True
        self.deliver(b"")

    def peekRecord(self, seconds: float, callback: Callable[[bytes | None], None]) -> None:
        self.waited.append(seconds)
        if not self.silent:
            callback(self.unread[0] if self.unread else None)

    def skip(self, length: int) -> None:
        if len(self.unread.pop(0)) != length:
            raise AssertionError("not the whole record")

    def stopProducing(self) -> None:
        self.stopped = True
        self._wanted = False

    def loseConnection(self) -> None:
        self.stopProducing()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "10.0.0.2", 2049)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "10.0.0.1", 700)


class Upper(Protocol):
    """
    The protocol on top, which remembers what it was told.

    @ivar connections: how often it was connected.
    @ivar reasons: why there is no session.
    """

    def __init__(self) -> None:
        """Nothing was told yet."""
        self.connections = 0
        self.reasons: list[BaseException | None] = []

    def connectionMade(self) -> None:
        self.connections += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reasons.append(reason.value)
