"""
What a profile asks of a peer's chain besides that it is valid: strength, key
purposes, pins.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from ktlsagent.errors import PeerRejected
from ktlsagent.profiles import Trust
from ktlsagent.protocols.session import Demand, Role
from ktlsagent.protocols.verification import UNREADABLE, describeCertificate

_RSA = {"1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10"}
"""C{rsaEncryption} and C{id-RSASSA-PSS} (RFC 8017, appendix C)."""

_SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
_CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
_RPC_TLS_CLIENT = "1.3.6.1.5.5.7.3.33"
_RPC_TLS_SERVER = "1.3.6.1.5.5.7.3.34"

_PURPOSE_NAMES = {
    _SERVER_AUTH: "serverAuth",
    _CLIENT_AUTH: "clientAuth",
    _RPC_TLS_CLIENT: "id-kp-rpcTLSClient",
    _RPC_TLS_SERVER: "id-kp-rpcTLSServer",
    "2.5.29.37.0": "anyExtendedKeyUsage",
}
"""Key purposes of RFC 5280, section 4.2.1.12, and RFC 9289, section 8.3."""

_EXPECTED_PURPOSES = {
    (Role.SERVER, Demand.OFF): (_SERVER_AUTH,),
    (Role.SERVER, Demand.ACCEPT): (_SERVER_AUTH, _RPC_TLS_SERVER),
    (Role.SERVER, Demand.REQUIRE): (_RPC_TLS_SERVER,),
    (Role.CLIENT, Demand.OFF): (_CLIENT_AUTH,),
    (Role.CLIENT, Demand.ACCEPT): (_CLIENT_AUTH, _RPC_TLS_CLIENT),
    (Role.CLIENT, Demand.REQUIRE): (_RPC_TLS_CLIENT,),
}
"""Which purposes are good for a peer, by its role and the wish for those of RPC-with-TLS."""

_VERSION = 0xA0
"""The tag of a certificate's version in DER."""

_LONG_FORM = 0x80
"""What a length begins with that takes more than one octet in DER."""

_Extension = TypeVar("_Extension", x509.ExtendedKeyUsage, x509.KeyUsage)


@dataclass(frozen=True, slots=True)
class _Facts:
    """
    What the rules want to know about a certificate.

    @ivar which: the certificate, in words.
    @ivar rsaBits: the length of its key, if that is RSA.
    @ivar brokenHash: the name of its signature's hash, if that is broken.
    @ivar purposes: its key purposes, C{None} if it is for any.
    @ivar signs: whether its key usage has signatures.
    """

    which: str
    rsaBits: int | None
    brokenHash: str | None
    purposes: Sequence[str] | None
    signs: bool


def judgeChain(chain: Sequence[x509.Certificate], role: Role, trust: Trust) -> PeerRejected | None:
    """
    Judge a peer's chain.

    @param chain: the chain as it was verified: the peer's own certificate
        first, the root last.  If no CA is trusted, only the first counts.
    @param role: our own role.
    @param trust: what is asked for.
    @return: the refusal, or C{None}.
    """
    peer = Role.SERVER if role is Role.CLIENT else Role.CLIENT
    facts = []
    for depth, certificate in enumerate(chain if trust.stores else chain[:1]):
        try:
            facts.append(_read(certificate, depth, peer))
        except UNREADABLE as error:
            which = describeCertificate(certificate, depth, peer.value)
            return PeerRejected(
                "certificate-invalid", f"expected to be able to read {which}, found {error!r}"
            )
    return (
        _judgeStrength(facts, trust)
        or _judgePurposes(facts, _EXPECTED_PURPOSES[peer, trust.rpcPurpose], trust.rpcPurpose)
        or _judgePin(chain[0], facts[0].which, trust.pins)
    )


def pinOf(certificate: x509.Certificate) -> bytes:
    """
    Compute what a certificate's key is pinned by.

    @param certificate: any certificate.
    @return: the SHA-256 digest of its C{SubjectPublicKeyInfo}.
    """
    # Not by way of public_key(): older libraries cannot read all keys that OpenSSL can.
    content = certificate.tbs_certificate_bytes
    header, _end = _lengths(content)
    elements = list(_elements(content[header:]))
    # RFC 5280, section 4.1: version (which may be missing), serialNumber, signature,
    # issuer, validity, subject, subjectPublicKeyInfo.
    return hashlib.sha256(elements[6 if elements[0][0] == _VERSION else 5]).digest()


def _lengths(content: bytes) -> tuple[int, int]:
    """Measure the header and the whole of the first element of DER (X.690, section 8.1)."""
    length = content[1]
    if length < _LONG_FORM:
        return 2, 2 + length
    header = 2 + length - _LONG_FORM
    return header, header + int.from_bytes(content[2:header], "big")


def _elements(content: bytes) -> Iterator[bytes]:
    """Cut well-formed DER into its elements."""
    while content:
        _header, end = _lengths(content)
        yield content[:end]
        content = content[end:]


@functools.lru_cache(maxsize=1024)
def _read(certificate: x509.Certificate, depth: int, peer: Role) -> _Facts:
    """Read what the rules want to know; it raises all kinds of things, and takes its time."""
    key = (
        certificate.public_key()
        if certificate.public_key_algorithm_oid.dotted_string in _RSA
        else None
    )
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        # It is newer than our library.
        algorithm = None
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    usage = _extension(certificate, x509.KeyUsage)
    return _Facts(
        describeCertificate(certificate, depth, peer.value),
        key.key_size if isinstance(key, rsa.RSAPublicKey) else None,
        algorithm.name if isinstance(algorithm, (hashes.MD5, hashes.SHA1)) else None,
        None if purposes is None else [purpose.dotted_string for purpose in purposes],
        usage is None or usage.digital_signature,
    )


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _judgeStrength(facts: Sequence[_Facts], trust: Trust) -> PeerRejected | None:
    """Look for keys and signatures that are too weak."""
    for one in facts:
        if one.rsaBits is not None and one.rsaBits < trust.rsaBits:
            return PeerRejected(
                "weak-certificate",
                f"expected RSA keys of at least {trust.rsaBits} bits, found one of {one.rsaBits} "
                f"in {one.which}",
            )
    # A trust anchor is trusted because it is known, not because of its signature.
    for one in facts[:-1] if trust.stores else facts:
        if one.brokenHash is not None:
            return PeerRejected(
                "weak-certificate",
                f"expected signatures without MD5 and SHA-1, found {one.brokenHash} in that of "
                f"{one.which}",
            )
    return None


def _judgePurposes(
    facts: Sequence[_Facts], expected: Sequence[str], wish: Demand
) -> PeerRejected | None:
    """
    Look for a purpose that the peer and all its CAs have.  A certificate that
    names none is for any, except for the peer's own if those of RPC-with-TLS
    have to be there.  C{anyExtendedKeyUsage} is not one of them, as in OpenSSL.
    """
    for one in facts:
        if one.purposes is None and (wish is not Demand.REQUIRE or one is not facts[0]):
            continue
        found = one.purposes or []
        left = [purpose for purpose in expected if purpose in found]
        if not left:
            return PeerRejected(
                "wrong-key-purpose",
                f"expected {one.which} to be for {_purposeNames(expected)}, found "
                + (f"one for {_purposeNames(found)}" if found else "no key purposes in it"),
            )
        expected = left
    if not facts[0].signs:
        return PeerRejected(
            "wrong-key-purpose",
            f"expected {facts[0].which} to be for signatures, found a key usage without "
            "digitalSignature",
        )
    return None


def _purposeNames(purposes: Sequence[str]) -> str:
    return " or ".join(_PURPOSE_NAMES.get(purpose, purpose) for purpose in purposes)


def _judgePin(
    certificate: x509.Certificate, which: str, pins: frozenset[bytes]
) -> PeerRejected | None:
    """Compare the peer's own key with those that are known."""
    if not pins:
        return None
    found = pinOf(certificate)
    if found in pins:
        return None
    text = base64.b64encode(found).decode()
    return PeerRejected(
        "pin-mismatch",
        f"expected a pinned key in {which}, found sha256:{text}; if that is the right one, "
        "add it to spki_pins",
    )
