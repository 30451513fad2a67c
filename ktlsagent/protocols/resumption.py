"""
What a handshake has to do with tickets: the one that it may begin with, and the one
that comes out of it.

OpenSSL asks nobody about the peer of a session that is resumed.  So the chain that the
peer has shown in the full handshake is judged again before a ticket is offered, or
taken; a ticket that does not pass is left out, and the full handshake that takes place
instead finds out whether the peer is to be refused.
"""

from __future__ import annotations

from typing import cast

from cryptography import x509
from OpenSSL import SSL

from ktlsagent.errors import PeerMisbehaved
from ktlsagent.protocols import openssl
from ktlsagent.protocols.cryptoinfo import CipherSuite
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.psk import HelloReader
from ktlsagent.protocols.record import openedRecord
from ktlsagent.protocols.session import Direction, EstablishedSession
from ktlsagent.protocols.tickets import Held, Issued, NewTicket, Proof, Tickets, readTicket


class Resumption:
    """
    The tickets of one handshake.

    @ivar proof: what has been proven about the peer in the handshake whose session is
        to be resumed, C{None} if none is.
    @ivar sessionContext: OpenSSL's session id context, which only a server has.
    """

    def __init__(self, parameters: TLSParameters, tickets: Tickets) -> None:
        """
        @param parameters: how the handshake is to be run.
        @param tickets: the tickets of its context.
        """
        self.proof: Proof | None = None
        # No session has this one yet: none is resumed.
        self.sessionContext = openssl.newSessionContext()
        self._tickets = tickets
        self._judge = parameters.judge
        self._server = parameters.server

    @property
    def wanted(self) -> bool:
        """Whether one more ticket of the server is of use to a client."""
        return self._server is not None and self._tickets.wants(self._server)

    def offer(self, connection: SSL.Connection) -> None:
        """
        As a client, offer a ticket of the server, if there is one.

        @param connection: the connection, which has not sent anything yet.
        """
        held = self._tickets.take(self._server)
        if held is not None and self._stillGood(held.proof):
            self.proof = held.proof
            connection.set_session(held.session)

    def redeem(self, hello: bytes) -> bool:
        """
        As a server, see whether the ClientHello offers a ticket that we take.

        @param hello: the client's first record.
        @return: whether it does: then L{sessionContext} is that of its session.
        """
        try:
            # One that takes several records gets a full handshake.
            offered = HelloReader().feed(hello) or ()
        except PeerMisbehaved:
            # OpenSSL says that better.
            return False
        issued = self._tickets.redeem(offered)
        if issued is None or not self._stillGood(issued.proof):
            return False
        self.proof, self.sessionContext = issued.proof, issued.sessionContext
        return True

    def issue(
        self,
        record: bytes,
        suite: CipherSuite,
        direction: Direction,
        chain: tuple[x509.Certificate, ...],
    ) -> bool:
        """
        As a server, note the ticket that the client gets.

        @param record: the record that OpenSSL has made of it.
        @param suite: the negotiated suite.
        @param direction: what the record is protected by.
        @param chain: the client's certificates.
        @return: whether it may be sent: not if it did not fit into one record.
        """
        try:
            ticket = _read(record, suite, direction)
        except ValueError:
            return False
        proof = self.proof or self._tickets.proof(chain)
        self._tickets.issue(ticket.identity, Issued(proof, self.sessionContext))
        return True

    def take(self, connection: SSL.Connection, record: bytes, session: EstablishedSession) -> bool:
        """
        As a client, keep the server's ticket.

        @param connection: the connection, whose handshake is complete.
        @param record: the record behind the one that completed the handshake.
        @param session: what came out.
        @return: whether it is a ticket.
        """
        try:
            ticket = _read(record, session.suite, session.receive)
            connection.bio_write(record)
            connection.recv(1)
        except (ValueError, SSL.Error) as error:
            if not isinstance(error, SSL.WantReadError):
                return False
        resumable = cast("SSL.Session", connection.get_session())
        # Else OpenSSL takes the session for one that has failed.
        connection.set_shutdown(SSL.SENT_SHUTDOWN)
        proof = self.proof or self._tickets.proof(session.peerChain)
        held = Held(self._tickets.limited(proof, ticket.lifetime), resumable)
        self._tickets.hold(self._server, held)
        return True

    def _stillGood(self, proof: Proof) -> bool:
        """Judge again who has been judged in the handshake of a session."""
        return not proof.certificates or self._judge(proof.chain) is None


def _read(record: bytes, suite: CipherSuite, direction: Direction) -> NewTicket:
    """Read a protected record that should hold a ticket."""
    return readTicket(*openedRecord(record, suite, direction.keys, direction.sequence))
