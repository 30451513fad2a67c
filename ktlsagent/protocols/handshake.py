"""
The Twisted protocol of an upcall: it runs the TLS handshake over a transport
that gives it one record at a time, and connects the protocol on top when the
session is up and everything has been sent.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IPullProducer, ITransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from ktlsagent.errors import HandshakeError, PeerAlert, PeerMisbehaved
from ktlsagent.protocols.interfaces import Engine, EngineState
from ktlsagent.protocols.session import EstablishedSession

TICKET_SECONDS = 0.05
"""
How long a client waits for a ticket of its server, which is mostly not there yet
when the handshake is complete.
"""


class IRecordTransport(ITransport, IPullProducer):
    """
    A transport that gives one record for each call of C{resumeProducing}, and
    takes not an octet behind it from the connection.
    """

    def peekRecord(seconds: float, callback: Callable[[bytes | None], None]) -> None:
        """
        Look at the next record and leave it where it is.

        @param seconds: how long to wait for it; 0 if it counts only if it is there.
        @param callback: called with the record, possibly at once; with C{None}
            if none comes, or none that is protected; never if the connection is
            lost before.
        """

    def skip(length: int) -> None:
        """
        Take some octets that have been looked at.

        @param length: how many.
        """

    def whenFlushed(callback: Callable[[], None]) -> None:
        """
        Wait until everything written has been handed to TCP.

        @param callback: called then, possibly at once; never if the
            connection is lost before.
        """


Schedule = Callable[[Callable[[], None]], None]
"""Runs a step of cryptography when its turn comes."""

Aside = Callable[[Callable[[], bytes]], Deferred[bytes]]
"""
Runs a step of cryptography in a thread.  The result fires in the reactor's
thread, with what is to be sent, or with a L{HandshakeError} if that takes too long.
"""


def _nowhere(_step: Callable[[], bytes]) -> Deferred[bytes]:
    return fail(ValueError("there is no thread for a step that may take long"))


class HandshakeProtocol(Protocol):
    """
    TLS 1.3 over an L{ktlsagent.sockets.UpcallTransport}.

    It is itself the transport of the protocol on top, whose
    C{connectionMade} means that the session is up, verified and flushed, and
    whose C{connectionLost} carries the L{HandshakeError} if there is none.
    Either is called once.

    @ivar records: how many records the peer has sent.
    """

    transport: IRecordTransport

    def __init__(
        self, engine: Engine, upper: Protocol, schedule: Schedule, aside: Aside = _nowhere
    ) -> None:
        """
        @param engine: runs the handshake.
        @param upper: the protocol on top.
        @param schedule: when the steps of cryptography may run, after the first.
        @param aside: runs the steps of an engine that is slow.
        """
        self.records = 0
        self._engine = engine
        self._schedule = schedule
        self._aside = aside
        self._upper: Protocol | None = upper

    @property
    def session(self) -> EstablishedSession:
        """The session, for the protocol on top."""
        session = self._engine.session
        if session is None:
            raise ValueError("the handshake is not complete")
        return session

    def lastWords(self) -> PeerAlert | None:
        """
        Look for the reason why the peer has closed a connection whose session is
        up: nobody else does if the kernel does not take the session.

        @return: the peer's alert, if there is one.
        """
        seen: list[bytes | None] = []
        self.transport.peekRecord(0.0, seen.append)
        return next((self._engine.refusalIn(record) for record in seen if record), None)

    def connectionMade(self) -> None:
        """Begin the handshake, at once: it is connected when its turn has come."""
        self._step(self._engine.start)

    def dataReceived(self, record: bytes) -> None:
        """
        Take the peer's next record.

        @param record: one whole record.
        """
        self.records += 1
        self._schedule(lambda: self._step(lambda: self._engine.receiveRecord(record)))

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """
        Give up: the transport has failed.

        @param reason: holds the L{HandshakeError}.
        """
        if self._engine.error is not None:
            # The alert could not be sent; why it was to be sent matters more.
            reason = Failure(self._engine.error)
        elif isinstance(reason.value, PeerMisbehaved):
            self.transport.write(self._engine.giveUp(reason.value))
        self._end(reason)

    def abort(self, error: HandshakeError) -> None:
        """
        Give up.

        @param error: why.
        """
        self.transport.stopProducing()
        self._end(Failure(error))

    def _step(self, step: Callable[[], bytes]) -> None:
        """Run one step of the engine, unless it is all over by now."""
        if self._upper is None:
            return
        if self._engine.slow:
            self._aside(step).addCallback(self._stepped).addErrback(self._end)
            return
        try:
            output = step()
        except Exception:  # noqa: BLE001 - a bug; the request is answered all the same
            self._end(Failure())
        else:
            self._stepped(output)

    def _stepped(self, output: bytes) -> None:
        """Send what a step gave out, and go on from there, unless it is all over by now."""
        if self._upper is None:
            return
        self.transport.write(output)
        if self._upper is None:
            return
        if self._engine.state is EngineState.NEED_RECORD:
            self.transport.resumeProducing()
        elif self._engine.error is not None:
            self._end(Failure(self._engine.error))
        else:
            self.transport.whenFlushed(self._awaitTicket)

    def _awaitTicket(self) -> None:
        """
        Wait a moment for a ticket, if that is wanted.  What else the peer may
        have sent is the kernel's, and stays in the socket.
        """
        if self._engine.awaitsTicket:
            self.transport.peekRecord(TICKET_SECONDS, self._peeked)
        else:
            self._handOver()

    def _peeked(self, record: bytes | None) -> None:
        if record is None:
            self._handOver()
        else:
            self._schedule(lambda: self._takeTicket(record))

    def _takeTicket(self, record: bytes) -> None:
        """
        Take a record out of the socket if it is a ticket, and believe a server that
        refuses us instead, unless it is all over by now.
        """
        if self._upper is None:
            return
        try:
            refusal = self._engine.refusalIn(record)
            if refusal is None and self._engine.takeTicket(record):
                self.transport.skip(len(record))
        except Exception:  # noqa: BLE001 - a bug; the request is answered all the same
            self._end(Failure())
        else:
            if refusal is None:
                self._handOver()
            else:
                self._end(Failure(refusal))

    def _handOver(self) -> None:
        """Connect the protocol on top."""
        upper, self._upper = self._upper, None
        if upper is not None:
            upper.makeConnection(self)

    def _end(self, reason: Failure) -> None:
        """Tell the protocol on top, once, that there will be no session."""
        upper, self._upper = self._upper, None
        if upper is not None:
            upper.connectionLost(reason)
