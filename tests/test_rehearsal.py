"""Tests for L{ktlsagent.protocols.rehearsal}."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from OpenSSL import SSL, crypto
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.protocols.rehearsal import rehearse


class RehearsalTests(SynchronousTestCase):
    """Tests for L{rehearse}."""

    def test_kinds(self) -> None:
        """Keys of all kinds that TLS 1.3 has can sign."""
        for key in (
            ec.generate_private_key(ec.SECP256R1()),
            ec.generate_private_key(ec.SECP384R1()),
            rsa.generate_private_key(65537, 2048),
            ed25519.Ed25519PrivateKey.generate(),
        ):
            rehearse(crypto.PKey.from_cryptography_key(key))

    def test_cannotSign(self) -> None:
        """A key that is there but does not sign is found out."""
        whole = ec.generate_private_key(ec.SECP256R1())
        public = whole.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        key = crypto.load_publickey(crypto.FILETYPE_PEM, public)
        # As a token's key, which is not all there either.
        key._only_public = False
        self.assertRaises(SSL.Error, rehearse, key)
