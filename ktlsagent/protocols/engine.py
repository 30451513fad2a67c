"""
The TLS 1.3 handshake as a pure machine: records in, octets to send out, and
at the end an L{EstablishedSession} or a L{HandshakeError}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cryptography import x509
from OpenSSL import SSL

from ktlsagent.errors import (
    HandshakeError,
    NotYet,
    PeerAlert,
    PeerMisbehaved,
    SessionUnusable,
)
from ktlsagent.protocols import failures, openssl
from ktlsagent.protocols.context import SUNRPC, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES, CipherSuite
from ktlsagent.protocols.examination import Examination
from ktlsagent.protocols.interfaces import EngineState, TLSParameters
from ktlsagent.protocols.psk import HelloGate, identityText
from ktlsagent.protocols.record import (
    AlertDescription,
    ContentType,
    openedAlert,
    plainAlert,
    sealedAlert,
    splitRecords,
)
from ktlsagent.protocols.resumption import Resumption
from ktlsagent.protocols.session import Demand, Direction, EstablishedSession, Role
from ktlsagent.protocols.trafficsecrets import TrafficSecrets

_TLS_1_3 = "TLSv1.3"


class TLSEngine:
    """
    One handshake.

    Call L{start}, then L{receiveRecord} with one record after another while
    L{state} is C{NEED_RECORD}, and send whatever they return, also when the
    handshake failed: that is the alert.

    B{Tickets.}  OpenSSL as a server writes C{NewSessionTicket} records as soon
    as the client's Finished is in.  They are dropped here: nothing in the
    kernel reads them (an NVMe host breaks on them, nfsd's peers need not),
    and as they never leave this process, the sequence number that they would
    have used is still free.  If the context keeps tickets, the first of them
    is sent and counted.

    @ivar state: what may be asked now.
    @ivar peer: what has been found out about the peer.
    @ivar preSharedKey: the key that both sides have to have, if so; forgotten
        at the end.
    @ivar identities: the PSK identities that are in play.
    @ivar slow: whether a step may wait for somebody outside the process, who
        signs.  A step runs in any thread, but no two at a time.
    @ivar error: why it failed, once it has.
    @ivar session: what came out, once it is complete.
    @ivar alertSent: the alert that we sent, if we did.
    @ivar alertReceived: the alert that the peer sent, if it did.
    """

    def __init__(self, parameters: TLSParameters) -> None:
        """
        @param parameters: how to run the handshake.
        """
        context = parameters.context
        self.state = EngineState.NEED_RECORD
        self.error: HandshakeError | None = None
        self.session: EstablishedSession | None = None
        self.alertSent: int | None = None
        self.alertReceived: int | None = None
        self.preSharedKey = parameters.preSharedKey
        self.identities: Sequence[bytes] = (
            () if self.preSharedKey is None else (self.preSharedKey.identity,)
        )
        self.slow = context.slow
        self.peer = Examination(parameters)
        self._role = parameters.role
        self._refusal = parameters.refusal
        self._alpn = context.alpn
        self._secrets = TrafficSecrets(parameters.role)
        self._ownKeysInUse = False
        self._sent = 0
        self._failure: Exception | None = None
        self._resumption = (
            None if context.tickets is None else Resumption(parameters, context.tickets)
        )
        self._redeeming: TLSContext | None = None
        # Who looks for a pre-shared key has looked into the ClientHello.
        server = self._role is Role.SERVER and self.preSharedKey is None
        self._gate = HelloGate() if server else None
        if self._role is Role.CLIENT:
            self._connection = context.connection(self)
            if parameters.serverName is not None:
                self._connection.set_tlsext_host_name(parameters.serverName.encode("ascii"))
            self._connection.set_connect_state()
            if self._resumption is not None:
                self._resumption.offer(self._connection)
        else:
            self._redeeming = None if self._resumption is None else context
            self._accept(context)

    def _accept(self, context: TLSContext) -> None:
        """Make a server's connection."""
        resumption = self._resumption
        sessionContext = None if resumption is None else resumption.sessionContext
        self._connection = context.connection(self, sessionContext)
        self._connection.set_accept_state()

    def start(self) -> bytes:
        """
        Begin.

        @return: what to send: a client's ClientHello, nothing for a server.
        """
        return self._step() if self._role is Role.CLIENT else b""

    def receiveRecord(self, record: bytes) -> bytes:
        """
        Take the peer's next record.

        @param record: exactly one record, header included, or all of those that hold
            the ClientHello.
        @return: what to send; possibly nothing.
        @raise ValueError: if the handshake is over: no record after the one
            that completes it is ours to read.
        """
        if self.state is not EngineState.NEED_RECORD:
            raise ValueError("a record after the end of the handshake")
        if self._refusal is not None:
            self._fail(self._refusal)
            if isinstance(self._refusal, NotYet):
                return b""
            self.alertSent = AlertDescription.INTERNAL_ERROR
            return plainAlert(AlertDescription.INTERNAL_ERROR)
        if self._gate is not None:
            try:
                self._gate.admit(record)
            except PeerMisbehaved as error:
                return self.giveUp(error)
        if self._redeeming is not None:
            self._redeemTicket(self._redeeming, record)
        self._connection.bio_write(record)
        return self._step()

    def giveUp(self, error: HandshakeError) -> bytes:
        """
        End the handshake for a reason that comes from outside: what the peer sends is not
        even a record.

        @param error: the reason.
        @return: what to send: the alert, as the peer expects it now.
        """
        if self.state is not EngineState.NEED_RECORD:
            return b""
        self.alertSent = failures.ALERTS.get(error.code)
        output = b"" if self.alertSent is None else self._alert(self.alertSent)
        self._fail(error)
        return output

    @property
    def awaitsTicket(self) -> bool:
        """Whether, once it is complete, the peer's next record is worth a look."""
        return (
            self.session is not None
            and self._role is Role.CLIENT
            and self._resumption is not None
            and self._resumption.wanted
        )

    def takeTicket(self, record: bytes) -> bool:
        """
        Look at the record behind the one that completed the handshake.

        @param record: exactly one record, header included.
        @return: whether it was a ticket: then it counts as read, and is not to
            be given to anybody else.  Any other record is left to the kernel.
        """
        session, resumption = self.session, self._resumption
        if session is None or resumption is None:
            return False
        if not resumption.take(self._connection, record, session):
            return False
        read = session.receive
        self.session = replace(session, receive=Direction(read.keys, read.sequence + 1))
        return True

    def refusalIn(self, record: bytes) -> PeerAlert | None:
        """
        Look at the record behind the one that completed the handshake: a server
        judges its client when the handshake is complete for the client.

        @param record: exactly one record, header included.
        @return: the peer's refusal, if this is one.
        """
        session = self.session
        if session is None:
            return None
        try:
            alert = openedAlert(
                record, session.suite, session.receive.keys, session.receive.sequence
            )
        except ValueError:
            return None
        if alert == AlertDescription.CLOSE_NOTIFY:
            return None
        self.alertReceived = alert
        return failures.refusedByPeer(alert, self._role.peer)

    @property
    def presentedCertificate(self) -> x509.Certificate | None:
        """The peer's own certificate, as soon as it has been looked at, whatever the verdict."""
        return self.peer.presented

    def keyLogged(self, line: bytes) -> None:
        """
        Keep the lines of the application traffic secrets (called by the context).

        @param line: a line of the key log.
        """
        self._secrets.keep(line)

    def alerted(self, *, received: bool, description: int) -> None:
        """
        Note an alert (called by the context).

        @param received: whether the peer sent it.
        @param description: the alert's number.
        """
        if received:
            self.alertReceived = description
        else:
            self.alertSent = description

    def callbackFailed(self, failure: Exception) -> None:
        """
        Keep an exception that must not leave a callback (called by the context).

        @param failure: the exception; it is raised from the current step.
        """
        self._failure = failure

    def _redeemTicket(self, context: TLSContext, hello: bytes) -> None:
        """Begin again with the session of a ticket, if the ClientHello offers one that we take."""
        self._redeeming = None
        if self._resumption is not None and self._resumption.redeem(hello):
            self._connection.set_app_data(None)
            self._accept(context)

    def _step(self) -> bytes:
        try:
            return self._advance()
        except SSL.Error as error:
            reason, output = self._explain(error), openssl.takeOutput(self._connection)
        except HandshakeError as error:
            reason, output = error, b""
        alert = failures.ALERTS.get(reason.code)
        if alert is not None:
            self.alertSent, output = alert, self._alert(alert)
        elif isinstance(reason, NotYet) and self._role is Role.SERVER:
            # A client that is told gives up, also for files that it has open.  One whose
            # connection is only closed tries again, and the token may be back by then.
            self.alertSent, output = None, b""
        self._fail(reason)
        return output

    def _alert(self, alert: AlertDescription) -> bytes:
        """Build an alert as the peer expects it now."""
        if not self._ownKeysInUse:
            # As OpenSSL does it, a client says nothing under its handshake keys
            # before the server's Finished.
            return plainAlert(alert)
        suite = CIPHER_SUITES[self._connection.get_cipher_name() or ""]
        return sealedAlert(alert, suite, self._secrets.keys(suite, own=True), self._sent)

    def _advance(self) -> bytes:
        """Let OpenSSL do what it can, and take what it has to say."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return self._flight()
        resumption = self._resumption
        proof = None if resumption is None else resumption.proof
        resumed = self.peer.settle(self._connection, proof)
        if resumption is not None and not resumed:
            resumption.proof = None
        output = self._firstTicket() if self._role is Role.SERVER else self._flight()
        self._complete(resumed=resumed)
        return output

    def _flight(self) -> bytes:
        """Take what OpenSSL wants to send, and count what goes under our application keys."""
        output = openssl.takeOutput(self._connection)
        if self._ownKeysInUse:
            self._sent += len(splitRecords(output))
        # A server's keys come into use behind its Finished, which is the last
        # of the flight in whose step they were logged; so do a client's.
        elif self._secrets.ours:
            self._checkProtocol()
            self._ownKeysInUse = True
        return output

    def _checkProtocol(self) -> None:
        """Make sure of what was agreed on by ALPN, before our Finished leaves."""
        selected = self._connection.get_alpn_proto_negotiated()
        if selected not in (b"", SUNRPC):
            raise failures.otherProtocolSelected(identityText(selected))
        if not selected and self._alpn is Demand.REQUIRE:
            raise failures.noProtocol(self._role.peer)

    def _firstTicket(self) -> bytes:
        """
        Take what a server writes behind the client's Finished: tickets, or we do
        not know it.  All are dropped but the first, and that as well without resumption.
        """
        records = splitRecords(openssl.takeOutput(self._connection))
        for record in records:
            if record[0] != ContentType.APPLICATION_DATA:
                raise SessionUnusable(
                    "unexpected-output",
                    "expected nothing but tickets behind the client's Finished, "
                    f"found a record of type {record[0]}",
                )
        if self._resumption is None or not records:
            return b""
        suite = self._suite()
        direction = Direction(self._secrets.keys(suite, own=True), self._sent)
        if not self._resumption.issue(records[0], suite, direction, self.peer.chain):
            return b""
        self._sent += 1
        return records[0]

    def _complete(self, *, resumed: bool) -> None:
        """Turn the finished handshake into a session."""
        connection, suite = self._connection, self._suite()
        key = self.preSharedKey
        self.session = EstablishedSession(
            suite=suite,
            group=openssl.groupName(connection),
            peerChain=self.peer.chain,
            keySerial=None if key is None else key.serial,
            alpn=connection.get_alpn_proto_negotiated().decode() or None,
            resumed=resumed,
            transmit=Direction(self._secrets.keys(suite, own=True), self._sent),
            # The peer's keys come into use behind the record that completes
            # the handshake, and no record is taken after that one.
            receive=Direction(self._secrets.keys(suite, own=False), 0),
        )
        self._finish(EngineState.COMPLETE)

    def _suite(self) -> CipherSuite:
        """Find out what kTLS will have to do."""
        name = self._connection.get_cipher_name()
        suite = CIPHER_SUITES.get(name or "")
        version = self._connection.get_protocol_version_name()
        if suite is None or version != _TLS_1_3:
            raise SessionUnusable(
                "unusable-suite",
                f"expected TLS 1.3 with a cipher suite that kTLS has, found {version} with {name}",
            )
        return suite

    def _explain(self, error: SSL.Error) -> HandshakeError:
        """Say why OpenSSL gave up: our verdict, else the peer's alert, else what it says itself."""
        if self._failure is not None:
            raise self._failure
        if self.peer.refusal is not None:
            return self.peer.refusal
        peer = self._role.peer
        if self.alertReceived is not None:
            return failures.refusedByPeer(self.alertReceived, peer)
        detail = openssl.errorWords(error)
        if self.slow and openssl.isProvidersFailure(error):
            return failures.tokenFailed(detail)
        offers = self._role is Role.CLIENT and self._alpn is not Demand.OFF
        return failures.foundByOpenSSL(
            self.alertSent, peer, detail, offersProtocol=offers, key=self.preSharedKey
        )

    def _fail(self, error: HandshakeError) -> None:
        self.error = error
        self._finish(EngineState.FAILED)

    def _finish(self, state: EngineState) -> None:
        """End the handshake, forget its secrets and untie the engine from its connection."""
        self.state = state
        self._secrets.forget()
        self.preSharedKey = None
        self._connection.set_app_data(None)
