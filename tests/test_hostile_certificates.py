"""
What becomes of certificates that OpenSSL can read and we cannot: any peer can
send one, so it is refused like any other, with an alert, and is no bug.
"""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import PeerRejected
from ktlsagent.protocols.context import OwnCertificate, TLSContext
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.interfaces import TLSParameters
from ktlsagent.protocols.psk import SHA256, PreSharedKey
from ktlsagent.protocols.record import AlertDescription
from ktlsagent.protocols.session import Role
from ktlsagent.protocols.verification import describeIssuer, describeSubject
from tests.support import certificates
from tests.support.tlspeers import pair

PLAIN = b"\x0c\x0cstranger.lab"
"""The common name as a UTF8String."""

TELETEX = b"\x14\x0c\xff\xfe\x00\x1bnger.lab"
"""Something else as a TeletexString."""

PRINTABLE = b"\x13\x0c\xff\xfe\x00\x1bnger.lab"
"""The same as a PrintableString, which it is not."""

BITS = b"\x03\x0c\x00tranger.lab"
"""Something as a BIT STRING, which no common name is."""

UNKNOWN = b"\x0d\x0cstranger.lab"
"""Something of a type that names do not have."""

HOSTILE = (TELETEX, PRINTABLE, BITS, UNKNOWN)


class HostileCertificateTests(SynchronousTestCase):
    """Tests for handshakes with peers whose certificates have names that cannot be read."""

    def engine(self, role: Role, *own: OwnCertificate) -> TLSEngine:
        """
        Make one side of a handshake.

        @param role: which side.
        @param own: its certificate, if it has one.
        @return: the engine.
        """
        store = certificates.authority().store()
        context = TLSContext(store=store, own=own, suites=tuple(CIPHER_SUITES), groups=())
        return TLSEngine(TLSParameters(role, context, None, lambda _chain: None))

    def hostile(self, name: bytes) -> OwnCertificate:
        """
        Make a certificate whose subject cannot be read.

        @param name: its common name, as it is encoded.
        @return: the certificate; nobody has signed it as it is.
        """
        good = certificates.ofOtherAuthority()
        content = good.certificate.public_bytes(serialization.Encoding.DER)
        hostile = content.replace(PLAIN, name, 1)
        self.assertNotEqual(hostile, content)
        return OwnCertificate(
            (crypto.load_certificate(crypto.FILETYPE_ASN1, hostile),), good.own().key
        )

    def test_server(self) -> None:
        """A server with such a certificate is refused by an alert."""
        for name in HOSTILE:
            client = self.engine(Role.CLIENT)
            pair(client, self.engine(Role.SERVER, self.hostile(name)))
            self.refused(client)

    def test_serverInsteadOfAKey(self) -> None:
        """So is a server that should use a pre-shared key and sends such a certificate."""
        key = PreSharedKey(b"client", b"k" * 32, SHA256, 7)
        for name in HOSTILE:
            context = TLSContext(role=Role.CLIENT, suites=("TLS_AES_128_GCM_SHA256",), groups=())
            client = TLSEngine(
                TLSParameters(Role.CLIENT, context, None, lambda _chain: None, preSharedKey=key)
            )
            pair(client, self.engine(Role.SERVER, self.hostile(name)))
            assert client.error is not None
            # It depends on the library whether it gets as far as the verdict.
            self.assertIn(
                (client.error.code, client.alertSent),
                (
                    ("psk-ignored", AlertDescription.HANDSHAKE_FAILURE),
                    ("certificate-invalid", AlertDescription.BAD_CERTIFICATE),
                ),
            )

    def test_client(self) -> None:
        """A client with such a certificate is refused by an alert."""
        for name in HOSTILE:
            server = self.engine(Role.SERVER, certificates.server().own())
            pair(self.engine(Role.CLIENT, self.hostile(name)), server)
            self.refused(server)

    def refused(self, engine: TLSEngine) -> None:
        """
        Expect that an engine refused its peer.

        @param engine: the engine.
        """
        assert isinstance(engine.error, PeerRejected)
        self.assertIn(engine.error.code, ("unknown-ca", "certificate-invalid"))
        self.assertIn(
            engine.alertSent, (AlertDescription.UNKNOWN_CA, AlertDescription.BAD_CERTIFICATE)
        )

    def test_described(self) -> None:
        """A name that cannot be read is shown as that."""
        for name in (TELETEX, BITS, UNKNOWN):
            (certificate,) = self.hostile(name).chain
            self.assertEqual(describeSubject(certificate.to_cryptography()), "(unreadable)")
            self.assertEqual(describeIssuer(certificate.to_cryptography()), "CN=Other CA")
        content = certificates.ofOtherAuthority().certificate.public_bytes(
            serialization.Encoding.DER
        )
        encoded = b"\x0c\x08Other CA"
        swapped = content.replace(encoded, b"\x14\x08\xff\xfe\x00\x1b CA!", 1)
        other = crypto.load_certificate(crypto.FILETYPE_ASN1, swapped).to_cryptography()
        self.assertEqual(describeIssuer(other), "(unreadable)")
