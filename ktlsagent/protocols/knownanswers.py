"""
Known-answer test of OpenSSL's path validation: chains that a right OpenSSL refuses and
a broken one has accepted.  What an OpenSSL is called says little about what was mended
in it, so it is asked for its verdicts.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from OpenSSL import SSL, crypto

from ktlsagent.errors import StartError
from ktlsagent.protocols.knownchains import CERTIFICATES

ROOT: Final = "root"

KNOWN_ANSWERS: Final = (
    ("uriColon", "constrained", "a URI outside the name constraints of its CA, with ':' in it"),
    ("uriUser", "constrained", "a URI outside the name constraints of its CA, with '@' in it"),
    ("host", "constrained", "a DNS name that the name constraints of its CA exclude"),
    ("address", "constrained", "an address that the name constraints of its CA exclude"),
    ("policyTwice", "policies", "a policy twice, below a CA that demands policies"),
    ("below", "noAuthority", "an issuer that is no CA"),
)
"""Certificates that are to be refused, who has issued them, and what is wrong with them."""

_AT: Final = datetime(2031, 1, 1)  # noqa: DTZ001 - as pyOpenSSL wants it, in UTC
"""When they are judged; they are valid from 2026 to 2035."""

Accepts = Callable[[crypto.X509, Sequence[crypto.X509], crypto.X509], bool]
"""Says whether a trust anchor, intermediate certificates and one more make a valid path."""


def accepts(
    anchor: crypto.X509, intermediates: Sequence[crypto.X509], certificate: crypto.X509
) -> bool:
    """
    Have OpenSSL validate a path, with the flags that peers' paths are validated with.

    @param anchor: the trust anchor.
    @param intermediates: the CA certificates.
    @param certificate: the certificate at the end.
    @return: whether the path is valid.
    """
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.POLICY_CHECK)
    store.add_cert(anchor)
    store.set_time(_AT)
    try:
        crypto.X509StoreContext(store, certificate, intermediates).verify_certificate()
    except crypto.X509StoreContextError:
        return False
    return True


def load(name: str) -> crypto.X509:
    """
    Load one of the certificates.

    @param name: its name.
    @return: the certificate.
    """
    return crypto.load_certificate(crypto.FILETYPE_ASN1, b64decode(CERTIFICATES[name]))


def requireKnownAnswers(verify: Accepts = accepts) -> None:
    """
    Make sure that OpenSSL refuses what is to be refused.  It takes a few milliseconds.

    @param verify: has OpenSSL validate a path.
    @raise StartError: if it accepts anything; it says what, and what to do.
    """
    loaded = {name: load(name) for name in CERTIFICATES}
    for name, issuer, flaw in KNOWN_ANSWERS:
        if verify(loaded[ROOT], [loaded[issuer]], loaded[name]):
            version = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode()
            raise StartError(
                f"expected an OpenSSL that refuses a certificate with {flaw}, found that "
                f"{version} accepts it, so that peers could claim names that are not theirs; "
                "install a newer one: with pip it is part of the package cryptography, else "
                "it is your distribution's"
            )
