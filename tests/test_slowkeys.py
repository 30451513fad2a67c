"""Handshakes with keys outside the process: in threads, and when they do not sign."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ktlsagent.credentials.threadsteps import ThreadSteps, threadPool
from ktlsagent.errors import TokenFailed
from ktlsagent.interfaces import IAgentReactor
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.handshake import HandshakeProtocol
from ktlsagent.protocols.interfaces import EngineState, TLSParameters
from ktlsagent.protocols.openssl import isProvidersFailure
from ktlsagent.protocols.record import AlertDescription
from ktlsagent.protocols.session import Role
from tests.support import certificates
from tests.support.certificates import Credentials
from tests.support.memorytransport import MemoryTransport, Step, Upper
from tests.support.tlspeers import pair, records


def silent(own: Credentials) -> OwnCertificate:
    """
    Take the key's secret half away: it is there, but does not sign.

    @param own: the credentials.
    @return: what is left of them.
    """
    public = own.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return replace(own.own(), key=crypto.load_publickey(crypto.FILETYPE_PEM, public), slow=True)


def context(*own: OwnCertificate) -> TLSContext:
    """
    Make a context that trusts the lab's CA.

    @param own: our certificates.
    @return: the context.
    """
    store = certificates.authority().store()
    return TLSContext(store=store, own=own, suites=tuple(CIPHER_SUITES), groups=())


def engine(role: Role, context: TLSContext) -> TLSEngine:
    """
    Make an engine.

    @param role: our side.
    @param context: what it shares with others.
    @return: the engine, which accepts whoever has a good chain.
    """
    return TLSEngine(TLSParameters(role, context, None, lambda _chain: None))


class SigningTests(SynchronousTestCase):
    """A key that does not sign."""

    def assertFailed(self, engine: TLSEngine, alert: int | None) -> None:
        """Check that an engine's own token is to blame, and what the peer was told."""
        error = engine.error
        assert isinstance(error, TokenFailed)
        self.assertEqual(error.code, "token-failed")
        self.assertIn("EVP lib", error.reason)
        self.assertEqual(engine.alertSent, alert)

    def test_server(self) -> None:
        """A server's client is not told: it may try again."""
        server = engine(Role.SERVER, context(silent(certificates.server())))
        client = engine(Role.CLIENT, context())
        pair(client, server)
        self.assertFailed(server, None)
        self.assertIs(client.state, EngineState.NEED_RECORD)
        self.assertIsNone(client.alertReceived)

    def test_client(self) -> None:
        """A client's server is told."""
        server = engine(Role.SERVER, context(certificates.server().own()))
        client = engine(Role.CLIENT, context(silent(certificates.client())))
        pair(client, server)
        self.assertFailed(client, AlertDescription.INTERNAL_ERROR)
        self.assertEqual(server.alertReceived, AlertDescription.INTERNAL_ERROR)

    def test_slow(self) -> None:
        """An engine is slow if any key of its context is."""
        fast = certificates.server().own()
        self.assertFalse(engine(Role.SERVER, context(fast)).slow)
        self.assertFalse(engine(Role.CLIENT, context()).slow)
        self.assertTrue(engine(Role.SERVER, context(replace(fast, slow=True))).slow)

    def test_causes(self) -> None:
        """What providers say is told from what OpenSSL says about a peer."""
        for words, expected in (
            ([("pkcs11", "", "Invalid Session Handle"), ("SSL routines", "", "EVP lib")], True),
            ([("tpm2", "", "unknown algorithm"), ("SSL routines", "", "no shared cipher")], True),
            ([("digital envelope routines", "", "provider signature failure")], True),
            ([("SSL routines", "", "no shared cipher")], False),
            ([("rsa routines", "", "bad signature"), ("SSL routines", "", "bad signature")], False),
            ([], False),
        ):
            self.assertIs(isProvidersFailure(SSL.Error(words)), expected, words)
        self.assertFalse(isProvidersFailure(SSL.Error()))


class ThreadsTests(TestCase):
    """Real threads."""

    timeout = 60

    def setUp(self) -> None:
        self.reactor = cast(IAgentReactor, reactor)
        self.steps = ThreadSteps(self.reactor, "the token", threadPool("token"))
        self.slow = [
            context(replace(own.own(), slow=True))
            for own in (certificates.client(), certificates.server())
        ]

    def engines(self, contexts: list[TLSContext]) -> Iterator[TLSEngine]:
        """
        Make both ends of a handshake.

        @param contexts: the client's and the server's context.
        @return: the client and the server.
        """
        return map(engine, (Role.CLIENT, Role.SERVER), contexts)

    @inlineCallbacks
    def test_sharedContexts(self) -> Generator[Deferred[Any], Any, None]:
        """Handshakes that share contexts, in threads and out of them, get no others' keys."""
        fast = [context(certificates.client().own()), context(certificates.server().own())]
        ends = [list(self.engines(self.slow)) for _ in range(30)]
        deadline = self.reactor.seconds() + 40
        results = [self.steps.run(deadline, partial(pair, *both)) for both in ends]
        for _handshake in range(30):
            client, server = self.engines(fast)
            pair(client, server)
            ends.append([client, server])
        yield gatherResults(results)
        sent = set()
        for client, server in ends:
            assert client.session is not None
            assert server.session is not None
            # assertEqual would show the keys.
            self.assertTrue(client.session.transmit == server.session.receive)
            self.assertTrue(client.session.receive == server.session.transmit)
            self.assertEqual(server.session.peerCertificate, certificates.client().certificate)
            sent.add(client.session.transmit.keys.key)
        self.assertEqual(len(sent), len(ends))

    @inlineCallbacks
    def test_whoDoesWhat(self) -> Generator[Deferred[Any], Any, None]:
        """The engine runs in threads; what is sent is sent by the reactor's own."""
        server, upper = engine(Role.SERVER, self.slow[1]), Upper()
        client = engine(Role.CLIENT, context())
        connected: Deferred[None] = Deferred()
        upper.connectionMade = lambda: connected.callback(None)  # type: ignore[method-assign]
        here, where = threading.get_ident(), set()

        def aside(step: Any) -> Deferred[bytes]:
            def there() -> bytes:
                where.add(threading.get_ident())
                return cast(bytes, step())

            return self.steps.run(self.reactor.seconds() + 20, there)

        class Transport(MemoryTransport):
            def write(self, data: bytes) -> None:
                assert threading.get_ident() == here
                super().write(data)
                for record in records(data):
                    self.deliver(client.receiveRecord(record))

        def schedule(step: Step) -> None:
            self.reactor.callLater(0, step)

        transport = Transport()
        transport.connect(HandshakeProtocol(server, upper, schedule, aside))
        transport.deliver(client.start())
        yield connected
        self.assertNotIn(here, where)
        self.assertIsNotNone(server.session)
