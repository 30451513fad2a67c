"""Tests of L{ktlsagent.protocols.engine} and its parts, against itself, C{ssl} and bare OpenSSL."""

from __future__ import annotations

import errno
import gc
import hashlib
import ssl
import traceback
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL, crypto

from ktlsagent.errors import (
    HandshakeError,
    NotYet,
    PeerAlert,
    PeerMisbehaved,
    PeerRejected,
    RequestRefused,
    SessionUnusable,
    statusOf,
)
from ktlsagent.protocols import openssl
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.interfaces import EngineState, Judge, TLSParameters
from ktlsagent.protocols.psk import SHA256, PreSharedKey
from ktlsagent.protocols.record import AlertDescription, plainAlert
from ktlsagent.protocols.session import Demand, Role
from ktlsagent.protocols.verification import (
    CHAIN_ERRORS,
    V_CRL_HAS_EXPIRED,
    V_UNABLE_TO_GET_CRL,
    describeSubject,
)
from tests.support import certificates
from tests.support.certificates import Credentials
from tests.support.engines import GROUPS, EngineTestCase, accept
from tests.support.modelktls import ModelKTLS
from tests.support.properties import patient
from tests.support.tlspeers import (
    OpenSSLPeer,
    StdlibPeer,
    converse,
    pair,
    records,
    stdlibContext,
)

APPLICATION_DATA = 23
HANDSHAKE = 22
ALERT = 21
NEW_SESSION_TICKET = 4

GROUP_NAMES = {"P-256": "secp256r1", "P-384": "secp384r1", "X25519": "x25519"}
"""What OpenSSL calls them afterwards."""

SECOND = timedelta(seconds=1)

NEW_CLOCK = SSL.OPENSSL_VERSION_NUMBER >= 0x40000000
"""Whether OpenSSL lets certificates be good until the last second."""

HELLO_RETRY_REQUEST = hashlib.sha256(b"HelloRetryRequest").digest()
"""The random of a HelloRetryRequest (RFC 8446, section 4.1.3)."""


def makeContext(
    own: Credentials | None = None,
    *,
    suites: Sequence[str] = tuple(CIPHER_SUITES),
    groups: Sequence[str] = (),
    store: crypto.X509Store | None = None,
    tolerated: frozenset[int] = frozenset(),
    certificateRequired: bool = False,
) -> TLSContext:
    """Make a context that trusts the lab's CA."""
    return TLSContext(
        store=certificates.authority().store() if store is None else store,
        own=() if own is None else (own.own(),),
        suites=suites,
        groups=groups,
        tolerated=tolerated,
        certificateRequired=certificateRequired,
    )


def makeClient(
    own: Credentials | None = None,
    *,
    context: TLSContext | None = None,
    serverName: str | None = certificates.SERVER_HOST,
    judge: Judge = accept,
) -> TLSEngine:
    """Make a client's engine."""
    return TLSEngine(TLSParameters(Role.CLIENT, context or makeContext(own), serverName, judge))


def makeServer(
    own: Credentials | None = None, *, context: TLSContext | None = None, judge: Judge = accept
) -> TLSEngine:
    """Make a server's engine, with a good certificate if no other is given."""
    context = context or makeContext(own or certificates.server())
    return TLSEngine(TLSParameters(Role.SERVER, context, None, judge))


class EngineAgainstEngineTests(EngineTestCase):
    """Two engines make a session."""

    def test_suites(self) -> None:
        """Every suite gives both ends the same keys, with the suite's lengths."""
        for name, suite in CIPHER_SUITES.items():
            client = makeClient(context=makeContext(suites=(name,)))
            server = makeServer()
            pair(client, server)
            session = self.assertMatch(client, server)
            self.assertEqual(session.suite, suite)
            self.assertEqual(len(session.transmit.keys.key), suite.keyLength)
            self.assertEqual(len(session.transmit.keys.iv), 12)

    def test_suitePreference(self) -> None:
        """The client's most wanted suite is taken."""
        client = makeClient(
            context=makeContext(suites=("TLS_AES_128_CCM_SHA256", "TLS_AES_256_GCM_SHA384"))
        )
        server = makeServer()
        pair(client, server)
        self.assertEqual(self.assertMatch(client, server).suite.name, "TLS_AES_128_CCM_SHA256")

    def test_groups(self) -> None:
        """Every group works and is named, if the library can tell."""
        for group in GROUPS:
            client = makeClient(context=makeContext(groups=(group,)))
            server = makeServer()
            pair(client, server)
            found = self.assertMatch(client, server).group
            self.assertIn(found, (GROUP_NAMES.get(group, group), None))

    def test_noCommonSuite(self) -> None:
        """Without a common suite there is no session, and the alert says why."""
        client = makeClient(context=makeContext(suites=("TLS_AES_128_GCM_SHA256",)))
        server = makeServer(
            context=makeContext(certificates.server(), suites=("TLS_AES_256_GCM_SHA384",))
        )
        pair(client, server)
        error = self.failure(server)
        self.assertIsInstance(error, PeerMisbehaved)
        self.assertEqual(error.code, "handshake-failure")
        self.assertIn("no shared cipher", error.reason)
        self.assertEqual(server.alertSent, 40)
        self.assertEqual(self.failure(client).code, "alert-handshake-failure")

    def test_mutual(self) -> None:
        """Both ends have the other's certificate, as presented and as verified."""
        client = makeClient(certificates.client())
        server = makeServer()
        pair(client, server)
        self.assertMatch(client, server)
        seen = self.session(server).peerCertificate
        self.assertEqual(seen, certificates.client().certificate)
        self.assertEqual(server.presentedCertificate, seen)
        seen = self.session(client).peerCertificate
        self.assertEqual(seen, certificates.server().certificate)
        self.assertEqual(client.presentedCertificate, seen)

    def test_clientWithoutCertificate(self) -> None:
        """A client's certificate is asked for, but need not be there: policy decides."""
        client, server = makeClient(), makeServer()
        pair(client, server)
        self.assertMatch(client, server)
        self.assertIsNone(self.session(server).peerCertificate)
        self.assertEqual(self.session(server).peerChain, ())
        self.assertIsNone(server.presentedCertificate)

    def test_certificateRequired(self) -> None:
        """A context may insist on a certificate; a client without one is told so."""
        context = makeContext(certificates.server(), certificateRequired=True)
        client, server = makeClient(), makeServer(context=context)
        pair(client, server)
        error = self.failure(server)
        self.assertIsInstance(error, PeerRejected)
        self.assertEqual(error.code, "certificate-required")
        self.assertEqual(server.alertSent, 116)
        client, server = makeClient(certificates.client()), makeServer(context=context)
        pair(client, server)
        self.assertMatch(client, server)

    def test_intermediateAuthorities(self) -> None:
        """The CA certificates below the root are sent along, and the chain is the verified one."""
        client, server = makeClient(certificates.chained()), makeServer(certificates.chained())
        pair(client, server)
        self.assertMatch(client, server)
        chain = (
            certificates.chained().certificate,
            certificates.intermediateAuthority().certificate,
            certificates.authority().certificate,
        )
        for engine in (client, server):
            self.assertEqual(self.session(engine).peerChain, chain)

    def test_whatIsNotOfTheChain(self) -> None:
        """A certificate that was sent and does not belong to the chain is not in it."""
        own = certificates.server()
        own = Credentials(own.certificate, own.key, (certificates.otherAuthority().certificate,))
        client, server = makeClient(), makeServer(own)
        pair(client, server)
        chain = (own.certificate, certificates.authority().certificate)
        self.assertEqual(self.session(client).peerChain, chain)

    def test_sharedContext(self) -> None:
        """Many handshakes share one context and get different keys."""
        clientContext, serverContext = makeContext(), makeContext(certificates.server())
        engines = [
            (makeClient(context=clientContext), makeServer(context=serverContext))
            for _number in range(3)
        ]
        keys = set()
        for client, server in engines:
            pair(client, server)
            keys.add(self.assertMatch(client, server).transmit.keys.key)
        self.assertEqual(len(keys), 3)

    def test_helloRetryRequest(self) -> None:
        """A client whose key share is of no use is asked for another one, if we may choose."""
        if not GROUPS:
            self.assertRaises(ValueError, makeContext, groups=("P-256",))
            return
        client = makeClient(context=makeContext(groups=("X25519", "P-256")))
        server = makeServer(context=makeContext(certificates.server(), groups=("P-256",)))
        _toServer, toClient = pair(client, server)
        self.assertEqual(toClient[0][11:43], HELLO_RETRY_REQUEST)
        self.assertMatch(client, server)


class SeveralCertificatesTests(EngineTestCase):
    """A context has certificates with keys of several types."""

    def own(self) -> dict[str, OwnCertificate]:
        """Make a certificate for each type of key; half of them have an intermediate CA."""
        direct, chained = certificates.authority(), certificates.intermediateAuthority()
        own = {
            "ecdsa_secp256r1_sha256": certificates.chained().own(),
            "rsa_pss_rsae_sha256": direct.issueFor(certificates.rsaKey()),
            "ed25519": chained.issueFor(certificates.ed25519Key()),
        }
        mldsaKey = certificates.mldsaKey()
        if mldsaKey is not None:
            own["mldsa65"] = direct.issueFor(mldsaKey)
        return own

    def content(self, *chain: crypto.X509) -> list[bytes]:
        """Turn a chain into something that can be compared."""
        return [crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate) for certificate in chain]

    def test_server(self) -> None:
        """A server shows the certificate that its client can verify, with its own chain."""
        own = self.own()
        context = TLSContext(
            store=certificates.authority().store(),
            own=tuple(own.values()),
            suites=tuple(CIPHER_SUITES),
            groups=(),
        )
        for algorithm, expected in own.items():
            server = makeServer(context=context)
            peer = OpenSSLPeer("client", signatureAlgorithms=(algorithm,))
            converse(server, peer)
            self.session(server)
            shown = peer.connection.get_peer_cert_chain() or ()
            self.assertEqual(self.content(*shown), self.content(*expected.chain), algorithm)

    def test_client(self) -> None:
        """So does a client, and its server verifies each of them up to the root."""
        clientContext = TLSContext(
            store=certificates.authority().store(),
            own=tuple(self.own().values()),
            suites=tuple(CIPHER_SUITES),
            groups=(),
        )
        for algorithm, expected in self.own().items():
            # The server's own certificate has to be of the only type that it takes.
            serverContext = TLSContext(
                store=certificates.authority().store(),
                own=(expected,),
                suites=tuple(CIPHER_SUITES),
                groups=(),
                signatureAlgorithms=(algorithm,),
            )
            client, server = makeClient(context=clientContext), makeServer(context=serverContext)
            pair(client, server)
            self.assertMatch(client, server)
            chain = self.session(server).peerChain
            self.assertEqual(chain[-1], certificates.authority().certificate)
            self.assertEqual(len(chain), len(expected.chain) + 1)
            self.assertEqual(
                chain[0].public_key_algorithm_oid,
                expected.chain[0].to_cryptography().public_key_algorithm_oid,
            )


class EndTests(EngineTestCase):
    """What an engine is when it is over."""

    def test_recordAfterCompletion(self) -> None:
        """A record behind the last one is the kernel's, not ours."""
        client, server = makeClient(), makeServer()
        pair(client, server)
        for engine in (client, server):
            self.session(engine)
            self.assertRaises(ValueError, engine.receiveRecord, bytes.fromhex("1703030001ff"))

    def test_recordAfterFailure(self) -> None:
        """An engine that has failed stays so."""
        server = makeServer()
        server.start()
        server.receiveRecord(bytes.fromhex("1703030001ff"))
        error = self.failure(server)
        self.assertRaises(ValueError, server.receiveRecord, bytes.fromhex("140303000101"))
        self.assertIs(self.failure(server), error)

    def test_engineIsFreed(self) -> None:
        """An engine that is over is freed without the garbage collector's help."""
        gc.disable()
        self.addCleanup(gc.enable)
        client, server = makeClient(), makeServer()
        pair(client, server)
        gone = [weakref.ref(client), weakref.ref(server)]
        del client, server
        self.assertEqual([reference() for reference in gone], [None, None])

    def test_failedEngineIsFreed(self) -> None:
        """So is one that has failed."""
        gc.disable()
        self.addCleanup(gc.enable)
        server = makeServer()
        server.receiveRecord(bytes.fromhex("1703030001ff"))
        self.failure(server)
        gone = weakref.ref(server)
        del server
        self.assertIsNone(gone())


class PeerTests(EngineTestCase):
    """An engine and a peer that shares no code with it; then the model of kTLS goes on."""

    def talk(
        self, engine: TLSEngine, peer: StdlibPeer | OpenSSLPeer, unread: list[bytes]
    ) -> list[int]:
        """
        Let the model of kTLS read what is unread, then talk in both directions.

        @return: the handshake messages among the unread.
        """
        kernel = ModelKTLS(self.session(engine))
        messages = []
        for record in unread:
            kind, content = kernel.receive.open(record)
            self.assertEqual(kind, HANDSHAKE)
            while content:
                messages.append(content[0])
                content = content[4 + int.from_bytes(content[1:4], "big") :]
        for number in range(3):
            question, answer = b"question %d" % number, b"answer %d" % number * 100
            self.assertEqual(peer.receive(kernel.transmit.seal(question)), question)
            self.assertEqual(kernel.receive.open(peer.send(answer)), (APPLICATION_DATA, answer))
        return messages

    def test_clientOfStdlib(self) -> None:
        """A client goes on with C{ssl}'s server, with every suite that it has."""
        context = stdlibContext("server", own=certificates.server())
        context.num_tickets = 0
        for name in list(CIPHER_SUITES)[:3]:
            client = makeClient(context=makeContext(suites=(name,)))
            peer = StdlibPeer(context)
            unread = converse(client, peer)
            self.assertEqual(unread, [])
            self.assertEqual(self.talk(client, peer, unread), [])
            self.assertEqual(peer.tls.cipher()[0], name)  # type: ignore[index]

    def test_clientOfStdlibWithTickets(self) -> None:
        """Tickets behind the end of the handshake are left to the kernel, with number 0."""
        context = stdlibContext("server", own=certificates.server())
        context.num_tickets = 2
        client = makeClient()
        peer = StdlibPeer(context)
        unread = converse(client, peer)
        self.assertEqual(self.talk(client, peer, unread), [NEW_SESSION_TICKET] * 2)

    def test_serverOfStdlib(self) -> None:
        """A server goes on with C{ssl}'s client, with every suite that it has, from number 0."""
        context = stdlibContext("client", trusted=certificates.authority())
        context.check_hostname = True
        for name in list(CIPHER_SUITES)[:3]:
            server = makeServer(context=makeContext(certificates.server(), suites=(name,)))
            peer = StdlibPeer(context, certificates.SERVER_HOST)
            unread = converse(server, peer)
            self.assertEqual(self.session(server).transmit.sequence, 0)
            self.assertEqual(unread, [])
            self.assertEqual(self.talk(server, peer, unread), [])
            self.assertEqual(peer.tls.cipher()[0], name)  # type: ignore[index]
            session = peer.tls.session
            self.assertFalse(session is not None and session.has_ticket)

    def test_ticketsAreWithheld(self) -> None:
        """A server has nothing to say to the client's last flight: its tickets never leave it."""
        server, peer = makeServer(), StdlibPeer(stdlibContext("client"))
        (hello,) = records(peer.feed(server.start()))
        flight = server.receiveRecord(hello)
        self.assertTrue(flight)
        answers = [server.receiveRecord(record) for record in records(peer.feed(flight))]
        self.assertIs(server.state, EngineState.COMPLETE)
        self.assertEqual(b"".join(answers), b"")

    def test_everySuite(self) -> None:
        """Both roles go on with bare OpenSSL for all four suites, which C{ssl} has not."""
        for name in CIPHER_SUITES:
            peer = OpenSSLPeer("server", certificates.server(), suites=(name,))
            client = makeClient()
            self.talk(client, peer, converse(client, peer))
            self.assertEqual(self.session(client).suite.name, name)
            peer = OpenSSLPeer("client", suites=(name,))
            server = makeServer()
            self.talk(server, peer, converse(server, peer))
            self.assertEqual(self.session(server).suite.name, name)

    def test_mutualAsServer(self) -> None:
        """A server has the certificate of C{ssl}'s client."""
        context = stdlibContext(
            "client", own=certificates.client(), trusted=certificates.authority()
        )
        server, peer = makeServer(), StdlibPeer(context)
        self.talk(server, peer, converse(server, peer))
        self.assertEqual(self.session(server).peerCertificate, certificates.client().certificate)

    def test_mutualAsClient(self) -> None:
        """C{ssl}'s server has our certificate, if we have one."""
        context = stdlibContext(
            "server", own=certificates.server(), trusted=certificates.authority()
        )
        client, peer = makeClient(certificates.client()), StdlibPeer(context)
        self.talk(client, peer, converse(client, peer))
        self.assertEqual(
            peer.tls.getpeercert(binary_form=True),
            crypto.dump_certificate(crypto.FILETYPE_ASN1, certificates.client().own().chain[0]),
        )

    def test_helloRetryRequest(self) -> None:
        """A client whose own key shares are of no use follows a HelloRetryRequest."""
        context = stdlibContext("server", own=certificates.server())
        context.set_ecdh_curve("prime256v1")
        client, peer = makeClient(), StdlibPeer(context)
        retry = peer.feed(client.start())
        self.assertEqual(retry[11:43], HELLO_RETRY_REQUEST)
        toPeer = b"".join(client.receiveRecord(record) for record in records(retry))
        flight = records(peer.feed(toPeer))
        toPeer = b""
        while client.state is EngineState.NEED_RECORD:
            toPeer += client.receiveRecord(flight.pop(0))
        self.talk(client, peer, flight + records(peer.feed(toPeer)))
        self.assertIn(self.session(client).group, ("secp256r1", None))

    def test_serverName(self) -> None:
        """The server's name is sent, if there is one."""
        for name in (certificates.SERVER_HOST, None):
            names: list[str | None] = []
            context = stdlibContext("server", own=certificates.server())
            context.sni_callback = lambda _tls, sent, _context, names=names: names.append(sent)
            client, peer = makeClient(serverName=name), StdlibPeer(context)
            converse(client, peer)
            self.session(client)
            self.assertEqual(names, [name])

    def test_clientIsDoneBeforeTheServerHasJudgedIt(self) -> None:
        """A client's session is no proof that it was accepted: the refusal comes later."""
        context = stdlibContext(
            "server", own=certificates.server(), trusted=certificates.authority()
        )
        client, peer = makeClient(), StdlibPeer(context)
        unread = converse(client, peer)
        kernel = ModelKTLS(self.session(client))
        self.assertIsNotNone(peer.error)
        # Fatal, certificate_required (RFC 8446, section 6).
        self.assertEqual(kernel.receive.open(unread[0]), (ALERT, bytes((2, 116))))

    def test_wrongSequence(self) -> None:
        """The peer does not take a record with another number: the model is no yes-man."""
        context = stdlibContext("client", trusted=certificates.authority())
        server, peer = makeServer(), StdlibPeer(context)
        converse(server, peer)
        kernel = ModelKTLS(self.session(server))
        kernel.transmit.sequence = 2
        self.assertRaises(ssl.SSLError, peer.receive, kernel.transmit.seal(b"late"))


class RefusedCertificateTests(EngineTestCase):
    """A peer's certificate is refused: with a code, words, and the right alert."""

    def refuseServer(
        self, own: Credentials, store: crypto.X509Store | None = None
    ) -> tuple[HandshakeError, TLSEngine]:
        """Let a client look at a server's certificate."""
        context = stdlibContext("server", own=own)
        client, peer = makeClient(context=makeContext(store=store)), StdlibPeer(context)
        converse(client, peer)
        error = self.failure(client)
        self.assertIsInstance(error, PeerRejected)
        self.assertEqual(statusOf(error), errno.EACCES)
        self.assertEqual(client.presentedCertificate, own.certificate)
        self.assertIsNone(client.alertReceived)
        self.assertFalse(peer.complete)
        return error, client

    def refuseClient(self, own: Credentials) -> tuple[HandshakeError, TLSEngine]:
        """Let a server look at a client's certificate."""
        context = stdlibContext("client", own=own)
        server, peer = makeServer(), StdlibPeer(context)
        converse(server, peer)
        error = self.failure(server)
        self.assertIsInstance(error, PeerRejected)
        self.assertEqual(server.presentedCertificate, own.certificate)
        # The client was complete already; it learns from its next read.
        self.assertRaises(ssl.SSLError, peer.tls.read)
        return error, server

    def check(
        self,
        own: Credentials,
        code: str,
        words: str,
        alert: int,
        refuse: Callable[[Credentials], tuple[HandshakeError, TLSEngine]],
    ) -> None:
        """Check code, words and alert of a refusal."""
        error, engine = refuse(own)
        self.assertEqual(error.code, code)
        self.assertIn(words, error.reason)
        self.assertEqual(engine.alertSent, alert)

    def test_expired(self) -> None:
        """An expired certificate is answered with certificate_expired."""
        for refuse, who in ((self.refuseServer, "server"), (self.refuseClient, "client")):
            words = f"the {who}'s certificate (CN=expired.lab) expired at "
            self.check(certificates.expired(), "certificate-expired", words, 45, refuse)

    def test_notYetValid(self) -> None:
        """So is one that is not yet valid (RFC 8446, section 6.2)."""
        for refuse, who in ((self.refuseServer, "server"), (self.refuseClient, "client")):
            words = f"the {who}'s certificate (CN=early.lab) is not valid before "
            self.check(certificates.notYetValid(), "certificate-not-yet-valid", words, 45, refuse)

    def test_unknownAuthority(self) -> None:
        """A certificate of an unknown CA is answered with unknown_ca."""
        for refuse in (self.refuseServer, self.refuseClient):
            own = certificates.ofOtherAuthority()
            self.check(own, "unknown-ca", "(CN=stranger.lab) issued by CN=Other CA", 48, refuse)

    def test_selfSigned(self) -> None:
        """So is a certificate that nobody else has signed."""
        for refuse in (self.refuseServer, self.refuseClient):
            own = certificates.selfSigned()
            self.check(own, "self-signed", "(CN=self.lab) signed by itself", 48, refuse)

    def test_onlyOurFileIsSent(self) -> None:
        """No CA of the trust store is sent with a certificate whose file has none."""
        for own, length in ((certificates.server(), 1), (certificates.chained(), 2)):
            peer = OpenSSLPeer("client")
            converse(makeServer(own), peer)
            self.assertEqual(len(peer.connection.get_peer_cert_chain() or ()), length)

    def test_missingIntermediate(self) -> None:
        """So is one whose issuer was not sent along."""
        own = certificates.chained()
        own = Credentials(own.certificate, own.key)
        for refuse in (self.refuseServer, self.refuseClient):
            self.check(own, "unknown-ca", "issued by CN=Lab Issuing CA", 48, refuse)

    def test_wrongPurpose(self) -> None:
        """A client's certificate is none for a server, nor the other way round."""
        for refuse, own in (
            (self.refuseServer, certificates.clientOnly()),
            (self.refuseClient, certificates.serverOnly()),
        ):
            self.check(own, "wrong-key-purpose", "purpose", 43, refuse)

    def test_expiredAuthority(self) -> None:
        """An error above the peer's certificate is said to be there."""
        issuer = certificates.CertificateAuthority(
            "Old CA",
            certificates.authority(),
            notBefore=certificates.NOW - 9 * certificates.DAY,
            notAfter=certificates.NOW - certificates.DAY,
        )
        context = stdlibContext("server", own=issuer.issue("server.lab", hosts=("server.lab",)))
        client = makeClient()
        converse(client, StdlibPeer(context))
        error = self.failure(client)
        self.assertEqual(error.code, "certificate-expired")
        self.assertIn("the CA certificate at depth 1 (CN=Old CA) expired", error.reason)
        self.assertEqual(client.alertSent, 45)
        presented = client.presentedCertificate
        if presented is None:
            raise self.failureException("no certificate")
        self.assertEqual(describeSubject(presented), "CN=server.lab")

    def judgeAt(self, own: Credentials, store: crypto.X509Store, when: datetime) -> str:
        """Let a client look at a server's certificate at some time of day."""
        store.set_time(when)
        client = makeClient(context=makeContext(store=store))
        converse(client, StdlibPeer(stdlibContext("server", own=own)))
        return "good" if client.session is not None else self.failure(client).code

    def test_validity(self) -> None:
        """
        A certificate is good from the first second to the last (RFC 5280,
        section 4.1.2.5); before version 4, OpenSSL takes the last for too late.
        """
        own = certificates.authority().issue(
            "server.lab",
            notBefore=certificates.NOW - 60 * SECOND,
            notAfter=certificates.NOW + 60 * SECOND,
        )
        for seconds, verdict in (
            (-61, "certificate-not-yet-valid"),
            (-60, "good"),
            (59, "good"),
            (60, "good" if NEW_CLOCK else "certificate-expired"),
            (61, "certificate-expired"),
        ):
            when = certificates.NOW + seconds * SECOND
            self.assertEqual(
                self.judgeAt(own, certificates.authority().store(), when), verdict, seconds
            )

    def test_revocationListsTime(self) -> None:
        """It is the same with a CRL, from its last update to its next (section 5.1.2)."""
        authority = certificates.CertificateAuthority(
            "Busy CA", notBefore=certificates.NOW - 9 * certificates.DAY
        )
        own = authority.issue("server.lab", notBefore=certificates.NOW - 9 * certificates.DAY)
        revoked = authority.revocationList(nextUpdate=certificates.NOW + certificates.DAY)
        for when, verdict in (
            (revoked.last_update_utc - SECOND, "crl-not-yet-valid"),
            (revoked.last_update_utc, "good"),
            (certificates.NOW + certificates.DAY - SECOND, "good"),
            (certificates.NOW + certificates.DAY, "good" if NEW_CLOCK else "crl-expired"),
            (certificates.NOW + certificates.DAY + SECOND, "crl-expired"),
        ):
            store = authority.store()
            store.add_crl(revoked)
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
            self.assertEqual(self.judgeAt(own, store, when), verdict, when)

    def test_revoked(self) -> None:
        """A revoked certificate is answered with certificate_revoked."""
        own = certificates.server()
        store = certificates.authority().store()
        store.add_crl(certificates.authority().revocationList(own))
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
        error, client = self.refuseServer(own, store)
        self.assertEqual(error.code, "certificate-revoked")
        self.assertIn("(CN=server.lab)", error.reason)
        self.assertEqual(client.alertSent, 44)

    def test_expiredRevocationList(self) -> None:
        """A CRL that is too old refuses what it would have allowed."""
        store = certificates.authority().store()
        store.add_crl(
            certificates.authority().revocationList(nextUpdate=certificates.NOW - certificates.DAY)
        )
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
        error, _client = self.refuseServer(certificates.server(), store)
        self.assertEqual(error.code, "crl-expired")

    def test_missingRevocationList(self) -> None:
        """So does one that is not there."""
        store = certificates.authority().store()
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
        error, _client = self.refuseServer(certificates.server(), store)
        self.assertEqual(error.code, "crl-missing")

    def test_anchorIsNotLookedUp(self) -> None:
        """
        If the whole chain is looked up, a trust anchor that is no root needs no
        CRL of its issuer; what is below it is looked up as ever.
        """
        issuing = certificates.intermediateAuthority()
        own = certificates.chained()
        for lists, code in (
            ([issuing.revocationList()], ""),
            ([issuing.revocationList(), certificates.authority().revocationList()], ""),
            ([issuing.revocationList(own)], "certificate-revoked"),
            ([], "crl-missing"),
        ):
            store = issuing.store()
            for revoked in lists:
                store.add_crl(revoked)
            for flag in ("PARTIAL_CHAIN", "CRL_CHECK", "CRL_CHECK_ALL"):
                store.set_flags(getattr(crypto.X509StoreFlags, flag))
            client = makeClient(context=makeContext(store=store))
            converse(client, StdlibPeer(stdlibContext("server", own=own)))
            self.assertEqual("" if client.error is None else client.error.code, code)


class ToleratedTests(EngineTestCase):
    """Some errors are no refusal, if the context says so."""

    def connect(
        self, own: Credentials, store: crypto.X509Store, tolerated: frozenset[int]
    ) -> TLSEngine:
        """Let a client that tolerates some errors look at a server's certificate."""
        client = makeClient(context=makeContext(store=store, tolerated=tolerated))
        converse(client, StdlibPeer(stdlibContext("server", own=own)))
        return client

    def looksUp(self, *lists: x509.CertificateRevocationList) -> crypto.X509Store:
        """Make a store that asks for CRLs."""
        store = certificates.authority().store()
        for revoked in lists:
            store.add_crl(revoked)
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
        return store

    def test_missingRevocationList(self) -> None:
        """A CRL that is not there may be none that is needed; the chain stays what it is."""
        client = self.connect(
            certificates.server(), self.looksUp(), frozenset({V_UNABLE_TO_GET_CRL})
        )
        chain = (certificates.server().certificate, certificates.authority().certificate)
        self.assertEqual(self.session(client).peerChain, chain)

    def test_expiredRevocationList(self) -> None:
        """An expired CRL may count; what it has revoked is refused all the same."""
        old = certificates.NOW - certificates.DAY
        server = certificates.server()
        lists = [
            certificates.authority().revocationList(*revoked, nextUpdate=old)
            for revoked in ([], [server])
        ]
        tolerated = frozenset({V_CRL_HAS_EXPIRED})
        self.session(self.connect(server, self.looksUp(lists[0]), tolerated))
        client = self.connect(server, self.looksUp(lists[1]), tolerated)
        self.assertEqual(self.failure(client).code, "certificate-revoked")

    def test_onlyWhatIsNamed(self) -> None:
        """One does not stand for the other."""
        client = self.connect(certificates.server(), self.looksUp(), frozenset({V_CRL_HAS_EXPIRED}))
        self.assertEqual(self.failure(client).code, "crl-missing")

    def test_noChain(self) -> None:
        """If chains need not lead anywhere, the judge sees the peer's own certificate alone."""
        oldAuthority = certificates.CertificateAuthority(
            "Old CA",
            certificates.authority(),
            notBefore=certificates.NOW - 9 * certificates.DAY,
            notAfter=certificates.NOW - certificates.DAY,
        )
        withRoot = certificates.server()
        withRoot = Credentials(
            withRoot.certificate, withRoot.key, (certificates.authority().certificate,)
        )
        for own in (
            certificates.selfSigned(),
            certificates.server(),
            certificates.chained(),
            withRoot,
            oldAuthority.issue("server.lab"),
        ):
            for flags in (0, crypto.X509StoreFlags.PARTIAL_CHAIN):
                store = crypto.X509Store()
                store.set_flags(flags)
                client = self.connect(own, store, CHAIN_ERRORS)
                self.assertEqual(self.session(client).peerChain, (own.certificate,))

    def test_noChainButDates(self) -> None:
        """All else that is wrong with the peer's own certificate is still wrong."""
        for own, code, alert in (
            (certificates.expired(), "certificate-expired", 45),
            (certificates.notYetValid(), "certificate-not-yet-valid", 45),
            (certificates.clientOnly(), "wrong-key-purpose", 43),
        ):
            for flags in (0, crypto.X509StoreFlags.PARTIAL_CHAIN):
                store = crypto.X509Store()
                store.set_flags(flags)
                client = self.connect(own, store, CHAIN_ERRORS)
                self.assertEqual(self.failure(client).code, code)
                self.assertEqual(client.alertSent, alert)

    def test_noChainButSignature(self) -> None:
        """So is a signature that is not its issuer's, if that is sent along."""
        own = certificates.server()
        forged = own.certificate.public_bytes(serialization.Encoding.DER)
        forged = forged[:-1] + bytes((forged[-1] ^ 1,))
        own = Credentials(
            x509.load_der_x509_certificate(forged), own.key, (certificates.authority().certificate,)
        )
        client = self.connect(own, crypto.X509Store(), CHAIN_ERRORS)
        self.assertEqual(self.failure(client).code, "bad-signature")


class JudgeTests(EngineTestCase):
    """The verdict on a chain that is good."""

    def refuse(self, chain: Sequence[x509.Certificate]) -> PeerRejected:
        """Refuse every certificate."""
        self.judged += chain
        return PeerRejected("name-mismatch", "expected other.lab")

    def setUp(self) -> None:
        """Nothing is judged yet."""
        self.judged: list[x509.Certificate] = []

    def test_clientRefuses(self) -> None:
        """A client's verdict reaches the server as bad_certificate."""
        peer = StdlibPeer(stdlibContext("server", own=certificates.chained()))
        client = makeClient(judge=self.refuse)
        converse(client, peer)
        error = self.failure(client)
        self.assertEqual((error.code, error.reason), ("name-mismatch", "expected other.lab"))
        self.assertEqual(
            self.judged,
            [
                certificates.chained().certificate,
                certificates.intermediateAuthority().certificate,
                certificates.authority().certificate,
            ],
        )
        self.assertEqual(client.presentedCertificate, certificates.chained().certificate)
        self.assertEqual(client.alertSent, 42)
        self.assertFalse(peer.complete)
        self.assertIn("BAD_CERTIFICATE", str(peer.error).upper().replace(" ", "_"))

    def test_serverRefuses(self) -> None:
        """A server's verdict reaches the client as bad_certificate."""
        peer = StdlibPeer(stdlibContext("client", own=certificates.client()))
        server = makeServer(judge=self.refuse)
        converse(server, peer)
        self.assertEqual(self.failure(server).code, "name-mismatch")
        self.assertEqual(server.alertSent, 42)
        error = self.assertRaises(ssl.SSLError, peer.tls.read)
        self.assertIn("BAD_CERTIFICATE", str(error).upper().replace(" ", "_"))

    def deny(self, chain: Sequence[x509.Certificate]) -> PeerRejected:
        """Refuse every certificate for a reason that has an alert of its own."""
        return PeerRejected(self.code, "no")

    def test_serverDenies(self) -> None:
        """A server that denies access says so, under its application keys, with every suite."""
        for name in CIPHER_SUITES:
            for self.code, alert, words in (
                ("denied", 49, "access denied"),
                ("not-allowed", 49, "access denied"),
                ("address-mismatch", 49, "access denied"),
                ("wrong-key-purpose", 43, "unsupported certificate"),
                ("name-mismatch", 42, "bad certificate"),
            ):
                peer = OpenSSLPeer("client", certificates.client(), suites=(name,))
                server = makeServer(judge=self.deny)
                converse(server, peer)
                self.assertEqual(self.failure(server).code, self.code)
                self.assertEqual(server.alertSent, alert)
                self.assertTrue(peer.complete)
                error = self.assertRaises(SSL.Error, peer.connection.recv, 1)
                self.assertIn(words, str(error))

    def test_clientDenies(self) -> None:
        """So does a client."""
        self.code = "denied"
        peer = OpenSSLPeer("server", certificates.server())
        client = makeClient(judge=self.deny)
        converse(client, peer)
        self.assertEqual(client.alertSent, 49)
        self.assertFalse(peer.complete)
        self.assertIn("access denied", str(peer.error))

    def test_clientDeniesLate(self) -> None:
        """It does not matter to a client how often it had to say hello."""
        self.code = "denied"
        context = stdlibContext("server", own=certificates.server())
        context.set_ecdh_curve("prime256v1")
        client, peer = makeClient(judge=self.deny), StdlibPeer(context)
        converse(client, peer)
        self.assertEqual(client.alertSent, 49)
        self.assertIn("ACCESS_DENIED", str(peer.error).upper().replace(" ", "_"))

    def test_badChainIsNotJudged(self) -> None:
        """A certificate whose chain is bad is refused without asking."""
        peer = StdlibPeer(stdlibContext("server", own=certificates.selfSigned()))
        client = makeClient(judge=self.refuse)
        converse(client, peer)
        self.assertEqual(self.failure(client).code, "self-signed")
        self.assertEqual(self.judged, [])

    def test_judgeIsBroken(self) -> None:
        """A bug in the judge accepts nobody, and comes out where it can be reported."""

        def broken(chain: Sequence[x509.Certificate]) -> PeerRejected | None:
            raise ZeroDivisionError("a bug")

        client = makeClient(judge=broken)
        peer = StdlibPeer(stdlibContext("server", own=certificates.server()))
        self.assertRaises(ZeroDivisionError, converse, client, peer)
        self.assertIsNone(client.session)
        self.assertIsNot(client.state, EngineState.COMPLETE)


class ProtocolTests(EngineTestCase):
    """ALPN: both ends agree on C{sunrpc}, or at least not on anything else."""

    def context(self, alpn: Demand, *, server: bool = False) -> TLSContext:
        """Make a context."""
        return TLSContext(
            store=certificates.authority().store(),
            own=(certificates.server().own(),) if server else (),
            suites=tuple(CIPHER_SUITES),
            groups=(),
            alpn=alpn,
        )

    def asClient(self, alpn: Demand, selects: bytes | None) -> tuple[TLSEngine, OpenSSLPeer]:
        """Let a client talk to a server that selects something, or does not know ALPN."""
        client = makeClient(context=self.context(alpn))
        peer = OpenSSLPeer("server", certificates.server(), selects=selects)
        converse(client, peer)
        return client, peer

    def asServer(self, alpn: Demand, *offered: str) -> tuple[TLSEngine, StdlibPeer]:
        """Let a server talk to a client that offers something, or does not know ALPN."""
        context = stdlibContext("client")
        if offered:
            context.set_alpn_protocols(offered)
        server, peer = makeServer(context=self.context(alpn, server=True)), StdlibPeer(context)
        converse(server, peer)
        return server, peer

    def test_agreed(self) -> None:
        """Two of us agree on sunrpc, unless one does not use ALPN and the other need not."""
        for ours in Demand:
            for theirs in Demand:
                client = makeClient(context=self.context(ours))
                server = makeServer(context=self.context(theirs, server=True))
                pair(client, server)
                if {ours, theirs} == {Demand.OFF, Demand.REQUIRE}:
                    self.assertEqual(
                        {self.failure(client).code, self.failure(server).code},
                        {"alpn-missing", "alert-no-application-protocol"},
                    )
                    continue
                self.assertMatch(client, server)
                expected = None if Demand.OFF in (ours, theirs) else "sunrpc"
                for engine in (client, server):
                    self.assertEqual(self.session(engine).alpn, expected)

    def test_serverSelects(self) -> None:
        """A server selects sunrpc, wherever in the list it is."""
        for offered in (("sunrpc",), ("h2", "sunrpc"), ("sunrpc", "h2")):
            server, peer = self.asServer(Demand.ACCEPT, *offered)
            self.assertEqual(self.session(server).alpn, "sunrpc")
            self.assertEqual(peer.tls.selected_alpn_protocol(), "sunrpc")

    def test_serverTakesOldClients(self) -> None:
        """A client that does not use ALPN is served, if it need not."""
        server, peer = self.asServer(Demand.ACCEPT)
        self.assertIsNone(self.session(server).alpn)
        self.assertTrue(peer.complete)

    def test_serverIgnores(self) -> None:
        """A server that does not use ALPN does not look at what is offered."""
        server, peer = self.asServer(Demand.OFF, "h2")
        self.assertIsNone(self.session(server).alpn)
        self.assertIsNone(peer.tls.selected_alpn_protocol())

    def test_serverRefusesOthers(self) -> None:
        """A client that offers other protocols alone is told so; they are named."""
        for alpn in (Demand.ACCEPT, Demand.REQUIRE):
            server, peer = self.asServer(alpn, "h2", "http/1.1")
            error = self.failure(server)
            self.assertIsInstance(error, PeerMisbehaved)
            self.assertEqual(error.code, "alpn-mismatch")
            self.assertEqual(
                error.reason,
                "expected a client that offers sunrpc by ALPN, found one that offers h2, http/1.1",
            )
            self.assertEqual(statusOf(error), errno.EACCES)
            self.assertEqual(server.alertSent, 120)
            self.assertIn("NO_APPLICATION_PROTOCOL", str(peer.error).upper().replace(" ", "_"))

    def test_serverRequires(self) -> None:
        """A client that does not use ALPN, but has to, is told so before anything else."""
        server, peer = self.asServer(Demand.REQUIRE)
        error = self.failure(server)
        self.assertIsInstance(error, PeerMisbehaved)
        self.assertEqual(
            (error.code, error.reason),
            (
                "alpn-missing",
                "expected a client that agrees on sunrpc by ALPN, found one that does not use ALPN",
            ),
        )
        self.assertEqual(server.alertSent, 120)
        self.assertIn("NO_APPLICATION_PROTOCOL", str(peer.error).upper().replace(" ", "_"))

    def test_namesOfAnyKind(self) -> None:
        """What a client offers may be anything, and a lot; the words stay words."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_alpn_protos([b"\xff\x00", b"x" * 255, *(b"%d" % n for n in range(200))])
        peer = OpenSSLPeer("client")
        peer.connection = SSL.Connection(context)
        peer.connection.set_connect_state()
        server = makeServer(context=self.context(Demand.ACCEPT, server=True))
        converse(server, peer)
        reason = self.failure(server).reason
        self.assertIn("found one that offers \\xff\x00, " + "x" * 255 + ", 0, 1, ", reason)
        self.assertTrue(reason.endswith(", 35, and 164 more"), reason)

    def test_preSharedKeys(self) -> None:
        """It is the same without certificates."""
        key = PreSharedKey(b"client", b"k" * 32, SHA256, 7)
        for theirs in (Demand.OFF, Demand.ACCEPT):
            client, server = (
                TLSEngine(
                    TLSParameters(
                        role,
                        TLSContext(
                            role=role, suites=("TLS_AES_128_GCM_SHA256",), groups=(), alpn=alpn
                        ),
                        None,
                        accept,
                        preSharedKey=key,
                    )
                )
                for role, alpn in ((Role.CLIENT, Demand.REQUIRE), (Role.SERVER, theirs))
            )
            pair(client, server)
            if theirs is Demand.OFF:
                self.assertEqual(self.failure(client).code, "alpn-missing")
                self.assertEqual(self.failure(server).code, "alert-no-application-protocol")
            else:
                self.assertMatch(client, server)
                self.assertEqual(self.session(server).alpn, "sunrpc")

    def test_helloRetryRequest(self) -> None:
        """What is agreed on holds when a client has to say hello twice."""
        for alpn in (Demand.ACCEPT, Demand.REQUIRE):
            for offered in ([b"sunrpc"], []):
                context = SSL.Context(SSL.TLS_METHOD)
                # A group that the server has, but whose key share is not sent at first.
                if not openssl.setGroups(context, ("X25519", "P-256")):
                    return
                if offered:
                    context.set_alpn_protos(offered)
                serverContext = TLSContext(
                    store=certificates.authority().store(),
                    own=(certificates.server().own(),),
                    suites=tuple(CIPHER_SUITES),
                    groups=("P-256",),
                    alpn=alpn,
                )
                peer = OpenSSLPeer("client")
                peer.connection = SSL.Connection(context)
                peer.connection.set_connect_state()
                server = makeServer(context=serverContext)
                converse(server, peer)
                if offered or alpn is Demand.ACCEPT:
                    self.assertEqual(self.session(server).alpn, "sunrpc" if offered else None)
                else:
                    self.assertEqual(self.failure(server).code, "alpn-missing")

    def test_clientOffers(self) -> None:
        """A client offers sunrpc and nothing else, unless it does not use ALPN."""
        # Type 16, a list of one name (RFC 7301, section 3.1).
        extension = bytes.fromhex("00100009000706") + b"sunrpc"
        for alpn in Demand:
            hello = makeClient(context=self.context(alpn)).start()
            self.assertIs(extension in hello, alpn is not Demand.OFF)

    def test_clientAgrees(self) -> None:
        """A client takes a server's selection."""
        client, peer = self.asClient(Demand.REQUIRE, b"sunrpc")
        self.assertEqual(self.session(client).alpn, "sunrpc")
        self.assertTrue(peer.complete)

    def test_clientTakesOldServers(self) -> None:
        """A server that selects nothing is taken, if it need not."""
        for alpn in (Demand.OFF, Demand.ACCEPT):
            client, _peer = self.asClient(alpn, None)
            self.assertIsNone(self.session(client).alpn)

    def test_clientRequires(self) -> None:
        """A server that selects nothing, but has to, learns it before our Finished."""
        client, peer = self.asClient(Demand.REQUIRE, None)
        error = self.failure(client)
        self.assertIsInstance(error, PeerMisbehaved)
        self.assertEqual(error.code, "alpn-missing")
        self.assertIn("a server that agrees on sunrpc by ALPN, found one that", error.reason)
        self.assertEqual(client.alertSent, 120)
        self.assertFalse(peer.complete)
        self.assertIn("no application protocol", str(peer.error))

    def test_clientIsNotAsked(self) -> None:
        """A server that selects what was not offered is refused."""
        for selected in (b"h2", b"sunrpc2", b"sun"):
            client, peer = self.asClient(Demand.ACCEPT, selected)
            error = self.failure(client)
            self.assertIsInstance(error, PeerMisbehaved)
            self.assertEqual(error.code, "alpn-mismatch")
            self.assertIn(
                "expected a server that selects sunrpc by ALPN, or nothing, found another protocol",
                error.reason,
            )
            self.assertEqual(client.alertSent, 120)
            self.assertFalse(peer.complete)

    def test_libraryDoesNotLook(self) -> None:
        """So it is if OpenSSL lets it pass."""
        context = OddContext(
            store=certificates.authority().store(),
            suites=tuple(CIPHER_SUITES),
            groups=(),
            alpn=Demand.ACCEPT,
        )
        context.selected = b"h2"
        client = makeClient(context=context)
        peer = OpenSSLPeer("server", certificates.server())
        converse(client, peer)
        error = self.failure(client)
        self.assertEqual(error.code, "alpn-mismatch")
        self.assertTrue(error.reason.endswith(", found h2"), error.reason)
        self.assertEqual(client.alertSent, 120)
        self.assertFalse(peer.complete)

    def test_otherBadExtension(self) -> None:
        """Without ALPN a malformed extension is just that."""
        client = makeClient(context=self.context(Demand.OFF))
        error = client._explain(SSL.Error([("SSL routines", "", "bad extension")]))
        self.assertEqual(error.code, "internal-error")


class RefusalTests(EngineTestCase):
    """A server that will serve nobody says so."""

    def test_givenUpTwice(self) -> None:
        """What is over has its reason, and says nothing more."""
        refusal = NotYet("no-certificate", "there is none yet")
        server = TLSEngine(TLSParameters(Role.SERVER, makeContext(), None, accept, refusal))
        server.receiveRecord(bytes((22, 3, 1, 0, 1, 1)))
        other = PeerMisbehaved("not-tls", "something else")
        self.assertEqual((server.giveUp(other), server.alertSent), (b"", None))
        self.assertIs(self.failure(server), refusal)

    def test_notYet(self) -> None:
        """Whom we cannot serve yet is told nothing, so that it tries again."""
        refusal = NotYet("no-certificate", "there is none yet")
        server = TLSEngine(TLSParameters(Role.SERVER, makeContext(), None, accept, refusal))
        record = bytes((22, 3, 1, 0, 1, 1))
        self.assertEqual((server.receiveRecord(record), server.alertSent), (b"", None))
        self.assertIs(self.failure(server), refusal)

    def test_refusal(self) -> None:
        """Its first word is an alert, and its error is the one given."""
        refusal = RequestRefused("no-certificate", "there is no certificate")
        server = TLSEngine(TLSParameters(Role.SERVER, makeContext(), None, accept, refusal))
        peer = StdlibPeer(stdlibContext("client"))
        self.assertEqual(converse(server, peer), [])
        self.assertIs(self.failure(server), refusal)
        self.assertEqual(server.alertSent, 80)
        self.assertIn("INTERNAL_ERROR", str(peer.error).upper().replace(" ", "_"))


class RefusedBehindTests(EngineTestCase):
    """A client whose server refuses it when the handshake is complete for the client."""

    def test_certificate(self) -> None:
        """The alert of a server that refuses our certificate is read, whoever it is."""
        client = makeClient(certificates.ofOtherAuthority())
        _toServer, toClient = pair(client, makeServer())
        self.assertIsNone(client.alertReceived)
        self._refused(client, toClient[-1], "alert-unknown-ca", 48)
        context = stdlibContext(
            "server", own=certificates.server(), trusted=certificates.authority()
        )
        client = makeClient(certificates.ofOtherAuthority())
        unread = converse(client, StdlibPeer(context))
        self._refused(client, unread[0], "alert-unknown-ca", 48)

    def test_rule(self) -> None:
        """So is that of one that has let us down by a rule."""

        def deny(_chain: Sequence[x509.Certificate]) -> PeerRejected:
            return PeerRejected("not-allowed", "a test")

        client = makeClient(certificates.client())
        _toServer, toClient = pair(client, makeServer(judge=deny))
        self._refused(client, toClient[-1], "alert-access-denied", 49)

    def _refused(self, client: TLSEngine, record: bytes, code: str, alert: int) -> None:
        """Check what a record behind the handshake is."""
        refusal = client.refusalIn(record)
        if refusal is None:
            raise self.failureException("no refusal")
        self.assertEqual((refusal.code, refusal.alert), (code, alert))
        self.assertEqual(statusOf(refusal), errno.EACCES)
        self.assertIn("the server refused", refusal.reason)
        self.assertEqual(client.alertReceived, alert)
        self.assertEqual(self.session(client).receive.sequence, 0)

    def test_anythingElse(self) -> None:
        """The end in good order, data, tickets, and what is under no key of ours are no refusal."""
        client, server = makeClient(), makeServer()
        pair(client, server)
        session = self.session(server)
        others = [
            ModelKTLS(session).transmit.seal(content, contentType)
            for content, contentType in ((b"\x01\x00", ALERT), (b"\x02\x31", APPLICATION_DATA))
        ]
        others.append(ModelKTLS(session).receive.seal(b"\x02\x31", ALERT))
        others.append(plainAlert(AlertDescription.ACCESS_DENIED))
        for record in others:
            self.assertIsNone(client.refusalIn(record))
        self.assertIsNone(client.alertReceived)

    def test_beforeTheEnd(self) -> None:
        """Before the handshake is complete there is nothing behind it."""
        self.assertIsNone(makeClient().refusalIn(b""))


class MisbehavedPeerTests(EngineTestCase):
    """Peers that do not speak TLS 1.3, or do not want to."""

    def test_oldClient(self) -> None:
        """A client that has only TLS 1.2 is told so."""
        context = stdlibContext("client")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        server, peer = makeServer(), StdlibPeer(context)
        converse(server, peer)
        error = self.failure(server)
        self.assertIsInstance(error, PeerMisbehaved)
        self.assertEqual(error.code, "protocol-version")
        self.assertIn("expected TLS 1.3, found a client that does not offer it", error.reason)
        self.assertEqual(server.alertSent, 70)
        self.assertIn("PROTOCOL_VERSION", str(peer.error).upper().replace(" ", "_"))

    def test_oldServer(self) -> None:
        """A server that has only TLS 1.2 refuses us."""
        context = stdlibContext("server", own=certificates.server())
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        client = makeClient()
        converse(client, StdlibPeer(context))
        error = self.failure(client)
        self.assertEqual(error.code, "alert-protocol-version")
        self.assertEqual(client.alertReceived, 70)

    def test_alertReceived(self) -> None:
        """A client that does not trust us says so, and so do we."""
        context = stdlibContext("client", trusted=certificates.otherAuthority())
        server, peer = makeServer(), StdlibPeer(context)
        converse(server, peer)
        error = self.failure(server)
        if not isinstance(error, PeerAlert):
            raise self.failureException(error)
        self.assertEqual((error.code, error.alert), ("alert-unknown-ca", 48))
        self.assertEqual(error.reason, "the client refused the handshake with the alert unknown_ca")
        self.assertEqual(server.alertReceived, 48)
        self.assertIsNone(server.alertSent)
        self.assertEqual(statusOf(error), errno.EACCES)

    def test_everyAlert(self) -> None:
        """Any fatal alert ends a handshake, also one without a name."""
        for number in (10, 40, 80, 115, 116, 200):
            client = makeClient()
            client.start()
            self.assertEqual(client.receiveRecord(bytes((21, 3, 3, 0, 2, 2, number))), b"")
            error = self.failure(client)
            self.assertIsInstance(error, PeerAlert)
            self.assertEqual(client.alertReceived, number)
            self.assertEqual(statusOf(error), errno.EKEYREJECTED if number == 115 else errno.EACCES)

    def test_closeNotify(self) -> None:
        """A peer that closes in mid-handshake has ended it."""
        client = makeClient()
        client.start()
        client.receiveRecord(bytes.fromhex("15030300020100"))
        error = self.failure(client)
        self.assertEqual(error.code, "alert-close-notify")
        self.assertEqual(statusOf(error), errno.EACCES)

    def test_garbage(self) -> None:
        """Records that make no sense end a handshake with an alert."""
        for record in (
            bytes.fromhex("160303000401000000"),  # an empty ClientHello
            bytes.fromhex("1703030001ff"),  # application data
            bytes.fromhex("16030300040f000000"),  # CertificateVerify
        ):
            server = makeServer()
            self.assertEqual(server.start(), b"")
            output = server.receiveRecord(record)
            error = self.failure(server)
            self.assertIsInstance(error, PeerMisbehaved)
            self.assertTrue(error.reason.startswith("the handshake with the client failed: "))
            self.assertIsNotNone(server.alertSent)
            self.assertEqual(output[0], ALERT)
            self.assertEqual(output[-1], server.alertSent)

    def test_brokenCiphertext(self) -> None:
        """A record that cannot be decrypted is answered with bad_record_mac."""
        client = makeClient()
        peer = StdlibPeer(stdlibContext("server", own=certificates.server()))
        flight = peer.feed(client.start())
        client.receiveRecord(records(flight)[0])
        client.receiveRecord(bytes.fromhex("1703030020") + bytes(32))
        self.assertEqual(self.failure(client).code, "bad-record-mac")
        self.assertEqual(client.alertSent, 20)

    @patient
    @given(st.sampled_from((20, 21, 22, 23)), st.binary(min_size=1, max_size=80), st.booleans())
    def test_anyRecord(self, kind: int, fragment: bytes, asClient: bool) -> None:  # noqa: FBT001
        """Whatever record comes first, the engine waits for more or has failed."""
        engine = makeClient(context=_CLIENT) if asClient else makeServer(context=_SERVER)
        engine.start()
        record = bytes((kind, 3, 3)) + len(fragment).to_bytes(2, "big") + fragment
        engine.receiveRecord(record)
        self.assertIn(engine.state, (EngineState.NEED_RECORD, EngineState.FAILED))
        self.assertEqual(engine.error is None, engine.state is EngineState.NEED_RECORD)
        self.assertIsNone(engine.session)


_CLIENT = makeContext()
_SERVER = makeContext(certificates.server())


class OddConnection(SSL.Connection):
    """A connection that answers as no OpenSSL does that we know."""

    cipher: str | None = None
    """The suite's name to give instead of the real one."""

    appended = b""
    """Octets to append to the output of the step that completes the handshake."""

    unjudged: object = None
    """The peer's certificate, although nobody was asked about it."""

    selected: bytes | None = None
    """What was selected by ALPN, although nobody has offered it."""

    def get_cipher_name(self) -> str | None:
        """Tell the suite's name."""
        return super().get_cipher_name() if self.cipher is None else self.cipher

    def get_alpn_proto_negotiated(self) -> bytes:
        """Tell the protocol."""
        return super().get_alpn_proto_negotiated() if self.selected is None else self.selected

    def get_peer_certificate(self, **options: bool) -> Any:
        """Tell the peer's certificate."""
        return super().get_peer_certificate() or self.unjudged

    def do_handshake(self) -> None:
        """Do a step."""
        super().do_handshake()
        SSL._lib.BIO_write(self._from_ssl, self.appended, len(self.appended))  # type: ignore[attr-defined]


class OddContext(TLSContext):
    """A context whose connections are odd."""

    cipher: str | None = None
    appended = b""
    unjudged: object = None
    selected: bytes | None = None

    def connection(self, engine: TLSEngine, sessionContext: bytes | None = None) -> SSL.Connection:
        """Make a connection."""
        connection = OddConnection(self._context)
        connection.cipher = self.cipher
        connection.appended = self.appended
        connection.unjudged = self.unjudged
        connection.selected = self.selected
        connection.set_app_data(weakref.ref(engine))
        return connection


class ForgetfulEngine(TLSEngine):
    """An engine whose library does not tell a secret, or tells it badly."""

    line: bytes | None = None

    def keyLogged(self, line: bytes) -> None:
        """Pass on another line than the one logged, or none."""
        if self.line is not None:
            super().keyLogged(line.partition(b" ")[0] + self.line)


class UnusableSessionTests(EngineTestCase):
    """A handshake that succeeds, but whose keys cannot be used, has failed."""

    def oddContext(self) -> OddContext:
        """Make a context for odd servers."""
        return OddContext(
            store=certificates.authority().store(),
            own=(certificates.server().own(),),
            suites=tuple(CIPHER_SUITES),
            groups=(),
        )

    def check(self, engine: TLSEngine, code: str) -> HandshakeError:
        """Check that an engine fails at the end."""
        role = "server" if engine._role is Role.CLIENT else "client"
        peer = StdlibPeer(stdlibContext(role, own=certificates.server()))
        converse(engine, peer)
        error = self.failure(engine)
        self.assertIsInstance(error, SessionUnusable)
        self.assertEqual(error.code, code)
        self.assertEqual(statusOf(error), errno.EIO)
        return error

    def test_unknownSuite(self) -> None:
        """A suite that kTLS has not is named."""
        context = self.oddContext()
        context.cipher = "TLS_AES_128_CCM_8_SHA256"
        error = self.check(makeServer(context=context), "unusable-suite")
        self.assertIn("TLSv1.3 with TLS_AES_128_CCM_8_SHA256", error.reason)

    def test_noSuite(self) -> None:
        """So is a suite without a name."""
        context = self.oddContext()
        context.cipher = ""
        self.check(makeServer(context=context), "unusable-suite")

    def test_notJudged(self) -> None:
        """A certificate that OpenSSL took without asking makes no session."""
        context = self.oddContext()
        context.unjudged = certificates.client().own().chain[0]
        server = makeServer(context=context)
        converse(server, StdlibPeer(stdlibContext("client")))
        error = self.failure(server)
        self.assertIsInstance(error, SessionUnusable)
        self.assertEqual(error.code, "not-judged")
        self.assertIn("expected to judge the certificate of the client", error.reason)

    def test_outputThatIsNoTicket(self) -> None:
        """Output of a server's last step that is not encrypted cannot be dropped as a ticket."""
        context = self.oddContext()
        context.appended = bytes.fromhex("15030300020100")
        error = self.check(makeServer(context=context), "unexpected-output")
        self.assertIn("a record of type 21", error.reason)

    def test_secretsMissing(self) -> None:
        """Without a secret there are no keys, in either role."""
        for parameters in (
            TLSParameters(Role.CLIENT, makeContext(), None, accept),
            TLSParameters(Role.SERVER, makeContext(certificates.server()), None, accept),
        ):
            self.check(ForgetfulEngine(parameters), "no-traffic-secret")

    def test_secretsUnreadable(self) -> None:
        """A secret that cannot be read is not shown."""
        engine = ForgetfulEngine(TLSParameters(Role.CLIENT, makeContext(), None, accept))
        engine.line = b" 00 secrecyX"
        error = self.check(engine, "no-traffic-secret")
        self.assertNotIn("secrecyX", "".join(traceback.format_exception(error)))


class ListeningEngine(TLSEngine):
    """An engine that remembers all the secrets that it has heard of."""

    heard: tuple[bytes, ...] = ()

    def keyLogged(self, line: bytes) -> None:
        """Remember the secret."""
        self.heard += (bytes.fromhex(line.split(b" ")[2].decode()),)
        super().keyLogged(line)


class SecrecyTests(EngineTestCase):
    """Nothing secret is in what may be shown of an engine."""

    def assertSilent(self, engine: ListeningEngine) -> None:
        """Search all that may be shown of an engine for secrets."""
        secrets = list(engine.heard)
        shown = [repr(engine), str(engine)]
        # What the test has added is left out.
        contents = {name: value for name, value in vars(engine).items() if name != "heard"}
        shown += [repr(contents), str(contents), repr(engine._secrets), repr(vars(engine._secrets))]
        if engine.session is not None:
            session = engine.session
            shown += [repr(session), str(session), repr(session.transmit), str(session.receive)]
            shown += [repr(session.transmit.keys), f"{session.receive.keys}"]
            for direction in (session.transmit, session.receive):
                secrets += [direction.keys.key, direction.keys.iv]
        if engine.error is not None:
            shown += [repr(engine.error), str(engine.error), repr(vars(engine.error))]
            shown += traceback.format_exception(engine.error)
        self.assertTrue(secrets)
        everything = "\n".join(shown)
        for secret in secrets:
            for form in (secret.hex(), secret.hex().upper(), repr(secret)[2:-1]):
                # assertNotIn would show it.
                self.assertFalse(form in everything, "a secret is shown")
        self.assertEqual(vars(engine._secrets)["_lines"], {})

    def test_complete(self) -> None:
        """After success only the session has the keys, and does not show them."""
        client = ListeningEngine(TLSParameters(Role.CLIENT, makeContext(), None, accept))
        server = ListeningEngine(
            TLSParameters(Role.SERVER, makeContext(certificates.server()), None, accept)
        )
        pair(client, server)
        self.assertMatch(client, server)
        self.assertSilent(client)
        self.assertSilent(server)

    def test_denied(self) -> None:
        """Nor has anybody after an alert of our own under them."""
        server = ListeningEngine(
            TLSParameters(
                Role.SERVER,
                makeContext(certificates.server()),
                None,
                lambda _chain: PeerRejected("denied", "no"),
            )
        )
        pair(makeClient(certificates.client()), server)
        self.assertEqual(self.failure(server).code, "denied")
        self.assertSilent(server)

    def test_failed(self) -> None:
        """After a failure nobody has them."""
        server = ListeningEngine(
            TLSParameters(Role.SERVER, makeContext(certificates.server()), None, accept)
        )
        pair(makeClient(certificates.selfSigned()), server)
        self.assertEqual(self.failure(server).code, "self-signed")
        self.assertSilent(server)

    def test_privateKey(self) -> None:
        """Our own private key is not shown either."""
        own = certificates.server().own()
        self.assertNotIn("key", repr(own).lower().replace("pkey", "key"))
