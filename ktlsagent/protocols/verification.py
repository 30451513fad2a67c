"""
From OpenSSL's verdict on a chain to ours: a stable code, words that say what
was expected and what was found, and the error from which OpenSSL takes the
alert.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ktlsagent.errors import PeerRejected
from ktlsagent.protocols.openssl import verifyErrorText
from ktlsagent.texts import NAME, cut

V_OK = 0
V_UNSPECIFIED = 1
V_UNABLE_TO_GET_CRL = 3
V_CERT_NOT_YET_VALID = 9
V_CERT_HAS_EXPIRED = 10
V_CRL_NOT_YET_VALID = 11
V_CRL_HAS_EXPIRED = 12
V_CERT_REJECTED = 28
V_APPLICATION_VERIFICATION = 50
V_HOSTNAME_MISMATCH = 62
"""C{X509_V_ERR_*} of C{openssl/x509_vfy.h}, as far as we choose them."""

CHAIN_ERRORS = frozenset({2, 18, 19, 20, 21})
"""
The C{X509_V_ERR_*} of a chain that does not lead to a CA of the trust store:
what is passed over where a certificate is known without any CA.
"""

CRL_ERRORS = frozenset({3, 8, 11, 12, 33, 36, 44})
"""
The C{X509_V_ERR_*} of a CRL that is not there or cannot be used.  None of them
says that a certificate is revoked.
"""

LATE_ERRORS = frozenset({42, 43, 47, 48, 49, 51, 52, 53})
"""
The C{X509_V_ERR_*} of policies and name constraints, which OpenSSL looks at when it
has found nothing else and the judge was asked.
"""

UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""
What C{cryptography} raises at a certificate that OpenSSL can read and it
cannot: a peer decides what is in its names, its extensions and its key.
"""

CERTIFICATE_INVALID = "certificate-invalid"
"""The code of what has no code of its own."""

_UNREADABLE = "(unreadable)"
_UNKNOWN_CA = "unknown-ca"
_SELF_SIGNED = "self-signed"
_WEAK = "weak-certificate"

_CODES = {
    2: _UNKNOWN_CA,
    V_UNABLE_TO_GET_CRL: "crl-missing",
    7: "bad-signature",
    8: "bad-signature",
    V_CERT_NOT_YET_VALID: "certificate-not-yet-valid",
    V_CERT_HAS_EXPIRED: "certificate-expired",
    V_CRL_NOT_YET_VALID: "crl-not-yet-valid",
    V_CRL_HAS_EXPIRED: "crl-expired",
    18: _SELF_SIGNED,
    19: _UNKNOWN_CA,
    20: _UNKNOWN_CA,
    21: _UNKNOWN_CA,
    23: "certificate-revoked",
    26: "wrong-key-purpose",
    66: _WEAK,
    67: _WEAK,
    68: _WEAK,
}

_CRL_FLAWS = {
    V_UNABLE_TO_GET_CRL: "none; add it to x509.crl",
    V_CRL_NOT_YET_VALID: "one whose time has not come; look at the clocks",
    V_CRL_HAS_EXPIRED: "one that has expired; put the CA's newest one in its place",
}

_ALERT_ERRORS = {V_CERT_NOT_YET_VALID: V_CERT_HAS_EXPIRED}
"""
OpenSSL answers a certificate that is not yet valid with C{bad_certificate};
RFC 8446, section 6.2, has C{certificate_expired} for one that is "expired or
not currently valid".
"""


def describeName(name: x509.Name) -> str:
    """
    Render a distinguished name for people.

    @param name: a subject or an issuer.
    @return: its RFC 4514 text, or the beginning of that, or C{(empty)}.
    """
    text = ""
    for part in _parts(name):
        text += part
        if len(text) > NAME:
            break
    return cut(text, NAME) or "(empty)"


def _parts(name: x509.Name) -> Iterator[str]:
    """Render a name bit by bit: there may be thousands of attributes in it."""
    for place, relative in enumerate(reversed(name.rdns)):
        for number, attribute in enumerate(relative):
            separator = "+" if number else "," if place else ""
            yield separator + attribute.rfc4514_string()


def describeSubject(certificate: x509.Certificate) -> str:
    """
    Render a certificate's subject for people, whatever a peer has put there.

    @param certificate: any certificate.
    @return: the subject, or C{(unreadable)}.
    """
    try:
        return describeName(certificate.subject)
    except UNREADABLE:
        return _UNREADABLE


def describeIssuer(certificate: x509.Certificate) -> str:
    """
    Render a certificate's issuer for people, whatever a peer has put there.

    @param certificate: any certificate.
    @return: the issuer, or C{(unreadable)}.
    """
    try:
        return describeName(certificate.issuer)
    except UNREADABLE:
        return _UNREADABLE


def describeCertificate(certificate: x509.Certificate, depth: int, peer: str) -> str:
    """
    Say which certificate of a chain is meant.

    @param certificate: the certificate.
    @param depth: its place; 0 is the peer's own.
    @param peer: C{client} or C{server}.
    @return: the words.
    """
    which = f"the {peer}'s certificate" if depth == 0 else f"the CA certificate at depth {depth}"
    return f"{which} ({describeSubject(certificate)})"


def chainError(number: int, depth: int, certificate: x509.Certificate, peer: str) -> PeerRejected:
    """
    Put an error of the path validation into words.

    @param number: the C{X509_V_ERR_*}, not 0.
    @param depth: which certificate it is about; 0 is the peer's own.
    @param certificate: that certificate.
    @param peer: C{client} or C{server}.
    @return: the refusal.
    """
    which = describeCertificate(certificate, depth, peer)
    issuer = describeIssuer(certificate)
    anchored = "expected a chain to a CA of the trust store, found"
    code = _CODES.get(number, CERTIFICATE_INVALID)
    if number == V_CERT_HAS_EXPIRED:
        words = f"{which} expired at {_when(certificate.not_valid_after_utc)}"
    elif number == V_CERT_NOT_YET_VALID:
        words = f"{which} is not valid before {_when(certificate.not_valid_before_utc)}"
    elif number in _CRL_FLAWS:
        words = f"expected a current CRL of {issuer}, which issued {which}, found "
        words += _CRL_FLAWS[number]
    elif code == _UNKNOWN_CA:
        words = f"{anchored} {which} issued by {issuer}"
    elif code == _SELF_SIGNED:
        words = f"{anchored} {which} signed by itself"
    else:
        words = f"{which}, issued by {issuer}: {verifyErrorText(number)}"
    return PeerRejected(code, words)


def _when(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def alertError(number: int) -> int:
    """
    Choose the error from which OpenSSL takes the alert.

    @param number: the C{X509_V_ERR_*} that was found.
    @return: the one to report to OpenSSL.
    """
    return _ALERT_ERRORS.get(number, number)
