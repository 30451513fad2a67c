"""
What a handshake is told and what drives it: the parameters of one, and what may be
asked of its engine.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from cryptography import x509

from ktlsagent.errors import HandshakeError, PeerAlert, PeerRejected
from ktlsagent.protocols.context import TLSContext
from ktlsagent.protocols.psk import PreSharedKey
from ktlsagent.protocols.session import EstablishedSession, Role

Judge = Callable[[Sequence[x509.Certificate]], PeerRejected | None]
"""
Says why the peer is refused, although its chain is good; or C{None}.  The chain
is the one that was verified: the peer's own certificate first, the root last.
It is the peer's own certificate alone if the context does not ask for CAs.
"""


@dataclass(frozen=True, slots=True)
class TLSParameters:
    """
    How one handshake is to be run.

    @ivar role: which side we are.
    @ivar context: what it shares with others.
    @ivar serverName: the name to send in C{server_name}, for a client.
    @ivar judge: the verdict on the peer's chain; with a pre-shared key none is
        accepted.  It is asked in mid-handshake, because the alert has to leave
        before the session is up.
    @ivar preSharedKey: the key that both sides have to have.
    @ivar server: whose tickets a client may use, if the context has any.
    @ivar refusal: why a server will not serve anybody, if so.  Its clients
        are told by an alert: one whose connection is only closed tries again
        for minutes.
    """

    role: Role
    context: TLSContext
    serverName: str | None
    judge: Judge
    refusal: HandshakeError | None = None
    preSharedKey: PreSharedKey | None = None
    server: Hashable = None


class EngineState(Enum):
    """What may be asked of an engine now."""

    NEED_RECORD = "need record"
    COMPLETE = "complete"
    FAILED = "failed"


class Engine(Protocol):
    """
    What runs a handshake: a L{TLSEngine<ktlsagent.protocols.engine.TLSEngine>}, or
    something in front of one.
    """

    @property
    def state(self) -> EngineState:
        """What may be asked now."""

    @property
    def error(self) -> HandshakeError | None:
        """Why it failed, once it has."""

    @property
    def session(self) -> EstablishedSession | None:
        """What came out, once it is complete."""

    @property
    def alertSent(self) -> int | None:
        """The alert that we sent, if we did."""

    @property
    def alertReceived(self) -> int | None:
        """The alert that the peer sent, if it did."""

    @property
    def presentedCertificate(self) -> x509.Certificate | None:
        """The peer's own certificate, whatever the verdict."""

    @property
    def identities(self) -> Sequence[bytes]:
        """The PSK identities that are in play."""

    @property
    def slow(self) -> bool:
        """Whether a step may wait for somebody outside the process, who signs."""

    @property
    def awaitsTicket(self) -> bool:
        """Whether, once it is complete, the peer's next record is worth a look."""

    def start(self) -> bytes:
        """Begin; the result is to be sent."""

    def receiveRecord(self, record: bytes) -> bytes:
        """Take the peer's next record; the result is to be sent."""

    def takeTicket(self, record: bytes) -> bool:
        """Look at the record behind the handshake; the result is whether it was a ticket."""

    def refusalIn(self, record: bytes) -> PeerAlert | None:
        """Look at the record behind the handshake; the result is the alert that it is."""

    def giveUp(self, error: HandshakeError) -> bytes:
        """End the handshake for a reason from outside; the result is to be sent."""
