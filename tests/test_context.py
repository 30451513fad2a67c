"""Tests of L{ktlsagent.protocols.context}; what it is for is in L{tests.test_engine}."""

from __future__ import annotations

import gc
import weakref

from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import PeerRejected
from ktlsagent.protocols import openssl
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.interfaces import EngineState, TLSParameters
from ktlsagent.protocols.psk import SHA256, PreSharedKey
from ktlsagent.protocols.session import Role
from tests.support import certificates
from tests.support.clienthellos import extensions
from tests.support.tlspeers import pair

SUITES = ("TLS_AES_128_GCM_SHA256",)


def makeContext(
    *own: OwnCertificate,
    suites: tuple[str, ...] = SUITES,
    groups: tuple[str, ...] = (),
    signatureAlgorithms: tuple[str, ...] = (),
) -> TLSContext:
    """Make a context that trusts the lab's CA."""
    store = certificates.authority().store()
    return TLSContext(
        store=store,
        own=own,
        suites=suites,
        groups=groups,
        signatureAlgorithms=signatureAlgorithms,
    )


def makeEngine(role: Role, context: TLSContext) -> TLSEngine:
    """Make an engine that accepts whatever has a good chain."""
    return TLSEngine(TLSParameters(role, context, None, lambda _chain: None))


def _judgeNobody(_chain: object) -> PeerRejected | None:
    raise AssertionError("there are no certificates")


class ContextTests(SynchronousTestCase):
    """Tests of L{TLSContext}."""

    def test_noCompression(self) -> None:
        """Nobody is asked for compressed certificates (RFC 8879)."""
        hello = makeEngine(Role.CLIENT, makeContext()).start()
        types = [number for number, _content in extensions(hello)]
        self.assertIn(43, types)  # supported_versions
        self.assertNotIn(27, types)  # compress_certificate

    def test_hasCertificate(self) -> None:
        """A context knows whether there is a certificate to show."""
        self.assertTrue(makeContext(certificates.server().own()).hasCertificate)
        self.assertFalse(makeContext().hasCertificate)

    def test_preSharedKeys(self) -> None:
        """A context without a trust store is for pre-shared keys, and outlives its maker."""
        key = PreSharedKey(b"client", b"k" * 32, SHA256, 7)
        engines = []
        for role in (Role.CLIENT, Role.SERVER):
            context = TLSContext(role=role, suites=SUITES, groups=())
            self.assertFalse(context.hasCertificate)
            engines.append(
                TLSEngine(TLSParameters(role, context, None, _judgeNobody, preSharedKey=key))
            )
        del context
        gc.collect()
        pair(*engines)
        for engine in engines:
            self.assertIs(engine.state, EngineState.COMPLETE, engine.error)

    def test_unknownSuite(self) -> None:
        """A suite that OpenSSL has not is refused by name."""
        error = self.assertRaises(ValueError, makeContext, suites=("TLS_ROT13",))
        self.assertIn("TLS_ROT13", str(error))

    def test_unknownGroup(self) -> None:
        """So is a group."""
        error = self.assertRaises(ValueError, makeContext, groups=("P-1",))
        self.assertEqual(str(error), "OpenSSL does not take the groups P-1")

    def test_unknownSignatureAlgorithm(self) -> None:
        """So is a signature algorithm."""
        error = self.assertRaises(ValueError, makeContext, signatureAlgorithms=("ed25519", "rot13"))
        self.assertEqual(
            str(error), "OpenSSL does not take the signature algorithms ed25519, rot13"
        )

    def test_signatureAlgorithms(self) -> None:
        """The signature algorithms are the ones asked for, in that order, for either role."""
        names = ("ed25519", "ecdsa_secp256r1_sha256")
        hello = makeEngine(Role.CLIENT, makeContext(signatureAlgorithms=names)).start()
        # signature_algorithms (13), then two of them (RFC 8446, section 4.2.3).
        self.assertIn(bytes.fromhex("000d0006000408070403"), hello)
        server = makeEngine(
            Role.SERVER,
            makeContext(
                certificates.authority().issueFor(certificates.rsaKey()),
                signatureAlgorithms=names,
            ),
        )
        client = makeEngine(Role.CLIENT, makeContext())
        pair(client, server)
        self.assertIs(server.state, EngineState.FAILED)
        self.assertEqual(server.alertSent, 40)

    def test_groups(self) -> None:
        """The groups are the ones asked for, or a context cannot be had."""
        if not openssl.supportedGroups(("P-384",)):
            self.assertRaises(ValueError, makeContext, groups=("P-384",))
            return
        client = makeEngine(Role.CLIENT, makeContext(groups=("P-384",)))
        hello = client.start()
        # supported_groups (10), then one group, secp384r1 (RFC 8446, section 4.2.7).
        self.assertIn(bytes.fromhex("000a000400020018"), hello)

    def test_keyOfAnother(self) -> None:
        """A key that does not belong to the certificate is refused at once."""
        own = OwnCertificate(certificates.server().own().chain, certificates.client().own().key)
        self.assertRaises(SSL.Error, makeContext, own)

    def test_keyOfAnotherType(self) -> None:
        """So is one of another type, even if it belongs to another of our certificates."""
        ecdsa, rsa = (
            certificates.server().own(),
            certificates.authority().issueFor(certificates.rsaKey()),
        )
        mixed = OwnCertificate(ecdsa.chain, rsa.key)
        self.assertRaises(SSL.Error, makeContext, mixed)
        self.assertRaises(SSL.Error, makeContext, mixed, rsa)
        self.assertRaises(SSL.Error, makeContext, rsa, mixed)

    def test_sameType(self) -> None:
        """Two certificates with keys of the same type would be one: they are refused."""
        own = certificates.server().own(), certificates.client().own()
        error = self.assertRaises(ValueError, makeContext, *own)
        self.assertEqual(
            str(error),
            "expected certificates with keys of different types, found the same type in those of "
            "CN=server.lab and CN=client.lab",
        )

    def test_onlyTLS13(self) -> None:
        """A ClientHello offers TLS 1.3 and nothing else (RFC 8446, section 4.2.1)."""
        hello = makeEngine(Role.CLIENT, makeContext()).start()
        self.assertIn(bytes.fromhex("002b0003020304"), hello)

    def test_sharedStore(self) -> None:
        """Contexts share a trust store, and each may go before the others."""
        store = certificates.authority().store()
        own = certificates.server().own()
        contexts = [
            TLSContext(store=store, own=(own,), suites=SUITES, groups=()) for _number in range(3)
        ]
        del store
        while len(contexts) > 1:
            contexts.pop(0)
            gc.collect()
            client = makeEngine(Role.CLIENT, contexts[0])
            server = makeEngine(Role.SERVER, contexts[-1])
            pair(client, server)
            self.assertIs(client.state, EngineState.COMPLETE)

    def test_unreadableCertificate(self) -> None:
        """A certificate that C{cryptography} cannot read is refused as the peer's fault."""
        good = certificates.selfSigned()
        content = good.certificate.public_bytes(serialization.Encoding.DER)
        # The version (RFC 5280, section 4.1.2.1): there is no version 8.
        hostile = content.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020107"), 1)
        self.assertNotEqual(hostile, content)
        chain = (crypto.load_certificate(crypto.FILETYPE_ASN1, hostile),)
        client = makeEngine(Role.CLIENT, makeContext())
        pair(client, makeEngine(Role.SERVER, makeContext(OwnCertificate(chain, good.own().key))))
        self.assertIs(client.state, EngineState.FAILED)
        if not isinstance(client.error, PeerRejected):
            raise self.failureException(client.error)
        self.assertEqual(client.error.code, "certificate-invalid")
        self.assertIn("expected certificates from the server that can be read", str(client.error))
        self.assertEqual(client.alertSent, 42)

    def test_contextIsReplaced(self) -> None:
        """A handshake that is under way goes on when its context is replaced by another."""
        for _number in range(5):
            contexts = [makeContext(), makeContext(certificates.server().own())]
            client = makeEngine(Role.CLIENT, contexts[0])
            server = makeEngine(Role.SERVER, contexts[1])
            gone = [weakref.ref(context) for context in contexts]
            contexts.clear()
            gc.collect()
            self.assertEqual([reference() for reference in gone], [None, None])
            # What takes the place of a callback that was freed too early.
            others = [makeContext() for _other in range(3)]
            pair(client, server)
            self.assertIs(client.state, EngineState.COMPLETE, client.error)
            self.assertIs(server.state, EngineState.COMPLETE, server.error)
            del others
