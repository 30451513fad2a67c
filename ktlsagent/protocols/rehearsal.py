"""
Proof that a private key can do what a handshake asks of it, before a peer does.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rehearsal")])
_BEGIN, _END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_READ_SIZE = 2**16
_MOST_TURNS = 5
"""More than a handshake has flights."""


def rehearse(key: crypto.PKey, certificate: crypto.X509 | None = None) -> None:
    """
    Run a TLS 1.3 handshake in memory that a private key signs.  A key may have no
    signature scheme of TLS 1.3.  One outside the process may have been found and still
    not sign: its PIN is asked for by then only, or its token has no signatures as TLS
    1.3 wants them.

    @param key: the key.
    @param certificate: its certificate; without one there is one for the occasion.
    @raise SSL.Error: if it does not sign.
    @raise crypto.Error: if it cannot tell its public key.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.use_certificate(certificate or crypto.X509.from_cryptography(_certificate(key)))
    context.use_privatekey(key)
    server = SSL.Connection(context)
    server.set_accept_state()
    # It looks at no certificate, but at the signature.
    client = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    client.set_connect_state()
    for _turn in range(_MOST_TURNS):
        for end, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                end.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(end.bio_read(_READ_SIZE))


def _certificate(key: crypto.PKey) -> x509.Certificate:
    """Certify a key by another one that nobody will see again."""
    # The way round by PEM makes the public key one that needs no token.
    publicKey = serialization.load_pem_public_key(crypto.dump_publickey(crypto.FILETYPE_PEM, key))
    builder = x509.CertificateBuilder(
        _NAME,
        _NAME,
        publicKey,  # type: ignore[arg-type]
        x509.random_serial_number(),
        _BEGIN,
        _END,
    )
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
