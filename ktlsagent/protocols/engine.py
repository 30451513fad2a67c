"""
The TLS 1.3 handshake as a pure machine: records in, octets to send out, and
at the end an L{EstablishedSession} or a L{HandshakeError}.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol, cast

from cryptography import x509
from OpenSSL import SSL

from ktlsagent.errors import (
    HandshakeError,
    PeerAlert,
    PeerMisbehaved,
    PeerRejected,
    SessionUnusable,
)
from ktlsagent.protocols import failures, openssl
from ktlsagent.protocols.context import SUNRPC, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES, IV_LENGTH, CipherSuite
from ktlsagent.protocols.keyschedule import (
    CLIENT_TRAFFIC_SECRET,
    SERVER_TRAFFIC_SECRET,
    TrafficKeys,
    parseKeyLogLine,
    trafficKeys,
)
from ktlsagent.protocols.psk import HelloReader, PreSharedKey, identityText
from ktlsagent.protocols.record import (
    AlertDescription,
    ContentType,
    openedAlert,
    openedRecord,
    plainAlert,
    sealedAlert,
    splitRecords,
)
from ktlsagent.protocols.session import Demand, Direction, EstablishedSession, Role
from ktlsagent.protocols.tickets import Held, Issued, Proof, readTicket
from ktlsagent.protocols.verification import (
    CERTIFICATE_INVALID,
    CHAIN_ERRORS,
    CRL_ERRORS,
    V_APPLICATION_VERIFICATION,
    V_CERT_REJECTED,
    V_HOSTNAME_MISMATCH,
    V_OK,
    alertError,
    chainError,
)

_READ_SIZE = 2**16
_SESSION_CONTEXT_LENGTH = 32

_TLS_1_3 = "TLSv1.3"

Judge = Callable[[Sequence[x509.Certificate]], "PeerRejected | None"]
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
    """What drives a handshake: a L{TLSEngine}, or something in front of one."""

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

    def alerted(self, *, received: bool, description: int) -> None:
        """Note an alert."""


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

    B{Resumption.}  OpenSSL asks nobody about the peer of a session that is
    resumed.  So the chain that the peer has shown in the full handshake is
    judged again before a ticket is offered, or taken; a ticket that does not
    pass is left out, and the full handshake that takes place instead finds out
    whether the peer is to be refused.

    @ivar state: what may be asked now.
    @ivar preSharedKey: the key that both sides have to have, if so; forgotten
        at the end.
    @ivar identities: the PSK identities that are in play.
    @ivar slow: whether a step may wait for somebody outside the process, who
        signs.  A step runs in any thread, but no two at a time.
    @ivar error: why it failed, once it has.
    @ivar session: what came out, once it is complete.
    @ivar presentedCertificate: the peer's own certificate, as soon as it has
        been looked at, whatever the verdict.
    @ivar alertSent: the alert that we sent, if we did.
    @ivar alertReceived: the alert that the peer sent, if it did.
    """

    def __init__(self, parameters: TLSParameters) -> None:
        """
        @param parameters: how to run the handshake.
        """
        self.state = EngineState.NEED_RECORD
        self.error: HandshakeError | None = None
        self.session: EstablishedSession | None = None
        self.presentedCertificate: x509.Certificate | None = None
        self.alertSent: int | None = None
        self.alertReceived: int | None = None
        self._role = parameters.role
        self._judgePeer = parameters.judge
        self._refusal = parameters.refusal
        self.preSharedKey = parameters.preSharedKey
        self.identities: Sequence[bytes] = (
            () if self.preSharedKey is None else (self.preSharedKey.identity,)
        )
        self.slow = parameters.context.slow
        self._keyLog: dict[bytes, bytes] = {}
        self._ownKeysInUse = False
        self._sent = 0
        self._tickets = parameters.context.tickets
        self._server = parameters.server
        self._resuming: TLSContext | None = None
        self._sessionContext: bytes | None = None
        self._proof: Proof | None = None
        self._alpn = parameters.context.alpn
        self._tolerated = parameters.context.tolerated
        self._anchored = True
        self._peerChain: tuple[x509.Certificate, ...] = ()
        self._verdict: HandshakeError | None = None
        self._failure: Exception | None = None
        if self._role is Role.CLIENT:
            self._connection = parameters.context.connection(self)
            if parameters.serverName is not None:
                self._connection.set_tlsext_host_name(parameters.serverName.encode("ascii"))
            self._connection.set_connect_state()
            self._offerTicket()
        else:
            if self._tickets is not None:
                self._resuming = parameters.context
                # No session has this one yet: none is resumed.
                self._sessionContext = secrets.token_bytes(_SESSION_CONTEXT_LENGTH)
            self._connection = parameters.context.connection(self, self._sessionContext)
            self._connection.set_accept_state()

    def start(self) -> bytes:
        """
        Begin.

        @return: what to send: a client's ClientHello, nothing for a server.
        """
        return self._step()

    def receiveRecord(self, record: bytes) -> bytes:
        """
        Take the peer's next record.

        @param record: exactly one record, header included.
        @return: what to send; possibly nothing.
        @raise ValueError: if the handshake is over: no record after the one
            that completes it is ours to read.
        """
        if self.state is not EngineState.NEED_RECORD:
            raise ValueError("a record after the end of the handshake")
        if self._refusal is not None:
            self._fail(self._refusal)
            self.alertSent = AlertDescription.INTERNAL_ERROR
            return plainAlert(AlertDescription.INTERNAL_ERROR)
        if self._resuming is not None:
            self._redeemTicket(self._resuming, record)
        self._connection.bio_write(record)
        return self._step()

    @property
    def awaitsTicket(self) -> bool:
        """Whether, once it is complete, the peer's next record is worth a look."""
        return (
            self.session is not None
            and self._role is Role.CLIENT
            and self._server is not None
            and self._tickets is not None
            and self._tickets.wants(self._server)
        )

    def takeTicket(self, record: bytes) -> bool:
        """
        Look at the record behind the one that completed the handshake.

        @param record: exactly one record, header included.
        @return: whether it was a ticket: then it counts as read, and is not to
            be given to anybody else.  Any other record is left to the kernel.
        """
        session, tickets = self.session, self._tickets
        if session is None or tickets is None:
            return False
        keys, sequence = session.receive.keys, session.receive.sequence
        try:
            ticket = readTicket(*openedRecord(record, session.suite, keys, sequence))
            self._connection.bio_write(record)
            self._connection.recv(1)
        except (ValueError, SSL.Error) as error:
            if not isinstance(error, SSL.WantReadError):
                return False
        resumable = cast("SSL.Session", self._connection.get_session())
        # Else OpenSSL takes the session for one that has failed.
        self._connection.set_shutdown(SSL.SENT_SHUTDOWN)
        proof = self._proof or tickets.proof(session.peerChain)
        tickets.hold(self._server, Held(tickets.limited(proof, ticket.lifetime), resumable))
        self.session = replace(session, receive=Direction(keys, sequence + 1))
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

    def keyLogged(self, line: bytes) -> None:
        """
        Keep the lines of the application traffic secrets (called by the context).

        @param line: a line of the key log.
        """
        label = line.partition(b" ")[0]
        if label in (CLIENT_TRAFFIC_SECRET, SERVER_TRAFFIC_SECRET):
            self._keyLog[label] = line

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

    def judge(self, chain: Sequence[x509.Certificate], error: int, depth: int) -> int:
        """
        Judge the peer's chain (called by the context).

        @param chain: the certificates, the peer's own first.
        @param error: what OpenSSL found, an C{X509_V_ERR_*}; 0 if it found
            nothing up to the end.
        @param depth: which certificate the error is about.
        @return: 0 to go on, or the C{X509_V_ERR_*} that OpenSSL makes an alert of.
        """
        self.presentedCertificate = chain[0]
        if self.preSharedKey is not None:
            self._verdict = failures.keyIgnored(self._role.peer)
            return V_APPLICATION_VERIFICATION
        if self._passesOver(error, depth, isAnchor=0 < depth == len(chain) - 1):
            return V_OK
        if error != V_OK:
            self._verdict = chainError(error, depth, chain[depth], self._role.peer)
            return alertError(error)
        self._peerChain = tuple(chain if self._anchored else chain[:1])
        self._verdict = self._judgePeer(self._peerChain)
        return V_OK if self._verdict is None else V_HOSTNAME_MISMATCH

    def _stillGood(self, proof: Proof) -> bool:
        """Judge again who has been judged in the handshake of a session."""
        return not proof.chain or self._judgePeer(proof.chain) is None

    def _offerTicket(self) -> None:
        """As a client, offer a ticket of the server, if there is one."""
        held = None if self._tickets is None else self._tickets.take(self._server)
        if held is not None and self._stillGood(held.proof):
            self._proof = held.proof
            self._connection.set_session(held.session)

    def _redeemTicket(self, context: TLSContext, hello: bytes) -> None:
        """As a server, see whether the ClientHello offers a ticket that we take."""
        self._resuming = None
        try:
            # One that takes several records gets a full handshake.
            offered = HelloReader().feed(hello) or ()
        except PeerMisbehaved:
            # OpenSSL says that better.
            return
        issued = None if self._tickets is None else self._tickets.redeem(offered)
        if issued is not None and self._stillGood(issued.proof):
            self._proof, self._sessionContext = issued.proof, issued.sessionContext
            self._connection.set_app_data(None)
            self._connection = context.connection(self, self._sessionContext)
            self._connection.set_accept_state()

    def _passesOver(self, error: int, depth: int, *, isAnchor: bool) -> bool:
        """Say whether an error is none for us."""
        if error in self._tolerated:
            self._anchored = self._anchored and error not in CHAIN_ERRORS
            return True
        # OpenSSL looks a trust anchor up as well if the whole chain is looked up.
        # It is trusted whatever its issuer says (RFC 5280, section 6.1), which
        # is mostly nobody that OpenSSL knows.
        if isAnchor and error in CRL_ERRORS:
            return True
        # Nobody vouches for CA certificates that lead to no CA that is trusted:
        # what is wrong with them does not matter.
        return depth > 0 and not self._anchored

    def noProtocol(self, offered: Sequence[bytes]) -> None:
        """
        Note that a client offers other protocols than ours (called by the context).

        @param offered: the protocols.
        """
        self._verdict = failures.otherProtocolsOffered(offered)

    def unreadable(self, reason: Exception) -> int:
        """
        Refuse a certificate that OpenSSL can read, but we cannot (called by the context).

        @param reason: what is wrong with it.
        @return: the C{X509_V_ERR_*} that OpenSSL makes an alert of.
        """
        self._verdict = PeerRejected(
            CERTIFICATE_INVALID,
            f"expected certificates from the {self._role.peer} that can be read, found {reason}",
        )
        return V_CERT_REJECTED

    def callbackFailed(self, failure: Exception) -> None:
        """
        Keep an exception that must not leave a callback (called by the context).

        @param failure: the exception; it is raised from the current step.
        """
        self._failure = failure

    def _step(self) -> bytes:
        try:
            return self._advance()
        except SSL.Error as error:
            reason, output = self._explain(error), self._output()
        except HandshakeError as error:
            reason, output = error, b""
        alert = failures.ALERTS.get(reason.code)
        if alert is not None:
            self.alertSent, output = alert, self._alert(alert)
        self._fail(reason)
        return output

    def _alert(self, alert: AlertDescription) -> bytes:
        """Build an alert as the peer expects it now."""
        if not self._ownKeysInUse:
            # As OpenSSL does it, a client says nothing under its handshake keys
            # before the server's Finished.
            return plainAlert(alert)
        suite = CIPHER_SUITES[self._connection.get_cipher_name() or ""]
        return sealedAlert(alert, suite, self._keys(suite, own=True), self._sent)

    def _advance(self) -> bytes:
        """Let OpenSSL do what it can, and take what it has to say."""
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return self._flight()
        self._settlePeer()
        output = self._firstTicket() if self._role is Role.SERVER else self._flight()
        self._complete()
        return output

    def _settlePeer(self) -> None:
        """Make sure that it is known who the peer is, and that this was judged."""
        used = openssl.usedPreSharedKey(self._connection)
        shown = self._connection.get_peer_certificate()
        if used and self._proof is not None:
            self._peerChain = self._proof.chain
            self.presentedCertificate = next(iter(self._peerChain), None)
            judged = (shown and shown.to_cryptography()) == self.presentedCertificate
        else:
            self._proof = None
            judged = (shown is None) is (self._peerChain == ())
        if not judged:
            raise SessionUnusable(
                "not-judged",
                f"expected to judge the certificate of the {self._role.peer}, found a session "
                "without",
            )
        if (self.preSharedKey is not None or self._proof is not None) is not used:
            raise SessionUnusable(
                "psk-not-used",
                f"expected a session by the pre-shared key that the {self._role.peer} was asked "
                "for, found one by other means",
            )

    def _flight(self) -> bytes:
        """Take what OpenSSL wants to send, and count what goes under our application keys."""
        output = self._output()
        if self._ownKeysInUse:
            self._sent += len(splitRecords(output))
        # A server's keys come into use behind its Finished, which is the last
        # of the flight in whose step they were logged; so do a client's.
        elif self._label(own=True) in self._keyLog:
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
        records = splitRecords(self._output())
        for record in records:
            if record[0] != ContentType.APPLICATION_DATA:
                raise SessionUnusable(
                    "unexpected-output",
                    "expected nothing but tickets behind the client's Finished, "
                    f"found a record of type {record[0]}",
                )
        if self._tickets is None or self._sessionContext is None or not records:
            return b""
        suite = self._suite()
        try:
            keys = self._keys(suite, own=True)
            ticket = readTicket(*openedRecord(records[0], suite, keys, self._sent))
        except ValueError:
            # It did not fit into one record.
            return b""
        proof = self._proof or self._tickets.proof(self._peerChain)
        self._tickets.issue(ticket.identity, Issued(proof, self._sessionContext))
        self._sent += 1
        return records[0]

    def _complete(self) -> None:
        """Turn the finished handshake into a session."""
        connection, suite = self._connection, self._suite()
        key = self.preSharedKey
        self.session = EstablishedSession(
            suite=suite,
            group=openssl.groupName(connection),
            peerChain=self._peerChain,
            keySerial=None if key is None else key.serial,
            alpn=connection.get_alpn_proto_negotiated().decode() or None,
            resumed=self._proof is not None,
            transmit=Direction(self._keys(suite, own=True), self._sent),
            # The peer's keys come into use behind the record that completes
            # the handshake, and no record is taken after that one.
            receive=Direction(self._keys(suite, own=False), 0),
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

    def _keys(self, suite: CipherSuite, *, own: bool) -> TrafficKeys:
        """Derive the keys of one direction from the key log."""
        try:
            _label, secret = parseKeyLogLine(self._keyLog[self._label(own=own)])
        except (KeyError, ValueError):
            raise SessionUnusable(
                "no-traffic-secret",
                "expected the application traffic secrets of both directions in the key log, "
                "found them missing or unreadable",
            ) from None
        return trafficKeys(suite.hash, secret, suite.keyLength, IV_LENGTH)

    def _label(self, *, own: bool) -> bytes:
        """Name the traffic secret of our sending or receiving direction."""
        ours = (self._role is Role.CLIENT) is own
        return CLIENT_TRAFFIC_SECRET if ours else SERVER_TRAFFIC_SECRET

    def _explain(self, error: SSL.Error) -> HandshakeError:
        """Say why OpenSSL gave up: our verdict, else the peer's alert, else what it says itself."""
        if self._failure is not None:
            raise self._failure
        if self._verdict is not None:
            return self._verdict
        peer = self._role.peer
        if self.alertReceived is not None:
            return failures.refusedByPeer(self.alertReceived, peer)
        detail = openssl.errorWords(error)
        if self.slow and openssl.isProvidersFailure(error):
            return failures.tokenFailed(detail)
        return self._explainAlert(peer, detail)

    def _explainAlert(self, peer: str, detail: str) -> HandshakeError:
        """Say what OpenSSL has found wrong with what the peer sends."""
        if self.alertSent == AlertDescription.PROTOCOL_VERSION:
            return failures.noTLS13(peer, detail)
        if self.alertSent == AlertDescription.CERTIFICATE_REQUIRED:
            return failures.noCertificate()
        offers = self._role is Role.CLIENT and self._alpn is not Demand.OFF
        if offers and failures.BAD_EXTENSION in detail:
            # All that OpenSSL says about a protocol that was not offered.
            return failures.otherProtocolSelected(
                f"another protocol or a malformed extension ({detail})"
            )
        if self.preSharedKey is not None and failures.WRONG_BINDER in detail:
            return failures.wrongKey(self.preSharedKey, peer)
        return failures.misbehaviour(self.alertSent, peer, detail)

    def _fail(self, error: HandshakeError) -> None:
        self.error = error
        self._finish(EngineState.FAILED)

    def _finish(self, state: EngineState) -> None:
        """End the handshake, forget its secrets and untie the engine from its connection."""
        self.state = state
        self._keyLog.clear()
        self.preSharedKey = None
        self._connection.set_app_data(None)

    def _output(self) -> bytes:
        """Take all that OpenSSL has written."""
        output = b""
        while True:
            try:
                output += self._connection.bio_read(_READ_SIZE)
            except SSL.WantReadError:
                return output
