"""
What of a certificate its issuer has signed, and what its holder can change.

A signature is over the C{tbsCertificate} alone (RFC 5280, section 4.1.1.3).  Around
that there is the signature itself, and more than one may be good for the same
content.  With ECDSA, if C{(r, s)} is one, C{(r, n - s)} is another, and no key is
needed to compute it.  So a certificate may have more than one fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ktlsagent.peers.certificatefields import fieldsOf
from ktlsagent.protocols.asn1 import Element, elements, encode, onlyElement

_INTEGER: Final = 0x02
_BIT_STRING: Final = 0x03
_SEQUENCE: Final = 0x30

_MOST_ZEROES: Final = 8
"""A longer run of leading zero octets in a signature is no chance."""


def contentDigest(certificate: x509.Certificate) -> bytes:
    """
    Compute what a certificate's signed content is known by.

    @param certificate: any certificate.
    @return: the SHA-256 digest of its C{tbsCertificate}.
    """
    return hashlib.sha256(certificate.tbs_certificate_bytes).digest()


def keyDigest(certificate: x509.Certificate) -> bytes:
    """
    Compute what a certificate's key is known by, and pinned by.

    @param certificate: any certificate.
    @return: the SHA-256 digest of its C{SubjectPublicKeyInfo}.
    """
    return hashlib.sha256(_keyOf(certificate).encoded).digest()


def otherForms(
    certificate: x509.Certificate, signer: x509.Certificate | None
) -> Sequence[bytes] | None:
    """
    List the other certificates that its holder can make of one: with the same
    content, and signatures that are as good.

    @param certificate: the certificate.
    @param signer: the certificate with the key that it is signed with; C{None} if
        the signature was verified by nobody.
    @return: them, in DER; C{None} if that cannot be told.
    """
    if signer is None:
        return None
    try:
        encoded = certificate.public_bytes(Encoding.DER)
        tbs, algorithm, _signature = elements(onlyElement(encoded, _SEQUENCE))
        if algorithm.encoded != fieldsOf(certificate)[1].encoded:
            return None

        def signed(signature: bytes) -> bytes:
            bits = encode(_BIT_STRING, b"\x00" + signature)
            return encode(_SEQUENCE, tbs.encoded + algorithm.encoded + bits)

        if signed(certificate.signature) != encoded:
            return None
        others = _OTHERS[certificate.signature_algorithm_oid.dotted_string]
        return [signed(one) for one in others(certificate.signature, _keyOf(signer))]
    except (ValueError, KeyError):
        return None


def _keyOf(certificate: x509.Certificate) -> Element:
    # Not by way of public_key(): older libraries cannot read all keys that OpenSSL can.
    return fieldsOf(certificate)[5]


def _negated(signature: bytes, key: Element) -> Sequence[bytes]:
    """The other signature with the same C{r}: that of ECDSA are two (SEC 1, section 4.1.4)."""
    algorithm, _point = elements(key.content)
    _kind, curve = elements(algorithm.content)
    r, s = elements(onlyElement(signature, _SEQUENCE))
    other = _ORDERS[curve.content] - int.from_bytes(s.content, "big")
    # One octet more for the sign, where the first bit is set.
    octets = other.to_bytes(other.bit_length() // 8 + 1, "big")
    return [encode(_SEQUENCE, r.encoded + encode(_INTEGER, octets))]


def _padded(signature: bytes, key: Element) -> Sequence[bytes]:
    """
    The same signature with more or fewer leading zeroes: for RSASSA-PSS OpenSSL
    takes it without them, though it has to be as long as the modulus (RFC 8017,
    section 8.1.2).
    """
    _algorithm, bits = elements(key.content)
    modulus, _exponent = elements(onlyElement(bits.content[1:], _SEQUENCE))
    length = len(modulus.content.lstrip(b"\x00"))
    shortest = signature.lstrip(b"\x00")
    zeroes = length - len(shortest)
    if not 0 <= zeroes <= _MOST_ZEROES:
        raise ValueError(f"expected a signature of {length} octets, found one of {len(signature)}")
    forms = [bytes(number) + shortest for number in range(zeroes + 1)]
    return [form for form in forms if form != signature]


def _none(_signature: bytes, _key: Element) -> Sequence[bytes]:
    """There is no other one."""
    return []


_OTHERS: Final[Mapping[str, Callable[[bytes, Element], Sequence[bytes]]]] = {
    # With MD5, SHA-1, PSS, SHA-2, SHA-3.
    **{f"1.2.840.113549.1.1.{number}": _padded for number in (4, 5, 10, 11, 12, 13, 14)},
    **{f"2.16.840.1.101.3.4.3.{number}": _padded for number in (13, 14, 15, 16)},
    # With SHA-1, SHA-2, SHA-3.
    "1.2.840.10045.4.1": _negated,
    **{f"1.2.840.10045.4.3.{number}": _negated for number in (1, 2, 3, 4)},
    **{f"2.16.840.1.101.3.4.3.{number}": _negated for number in (9, 10, 11, 12)},
    # Ed25519, Ed448, ML-DSA: OpenSSL refuses all encodings but one.
    **dict.fromkeys(("1.3.101.112", "1.3.101.113"), _none),
    **{f"2.16.840.1.101.3.4.3.{number}": _none for number in (17, 18, 19)},
}
"""By a signature algorithm what the other signatures are, given one and the signer's key."""

_ORDERS: Final[Mapping[bytes, int]] = {
    bytes.fromhex(curve): int("".join(order), 16)
    for curve, *order in (
        # secp224r1, secp256r1, secp384r1, secp521r1, secp256k1 (SEC 2).
        ("2b81040021", 28 * "f", "16a2e0b8f03e13dd29455c5c2a3d"),
        (
            "2a8648ce3d030107",
            "ffffffff00000000ffffffffffffffff",
            "bce6faada7179e84f3b9cac2fc632551",
        ),
        ("2b81040022", 48 * "f", "c7634d81f4372ddf581a0db248b0a77aecec196accc52973"),
        (
            *("2b81040023", "1", 65 * "f", "a51868783bf2f966b7fcc0148f709a5d"),
            "03bb5c9b8899c47aebb6fb71e91386409",
        ),
        ("2b8104000a", 31 * "f", "ebaaedce6af48a03bbfd25e8cd0364141"),
        # brainpoolP256r1, brainpoolP384r1, brainpoolP512r1 (RFC 5639).
        (
            *("2b2403030208010107", "a9fb57dba1eea9bc3e660a909d838d71"),
            "8c397aa3b561a6f7901e0e82974856a7",
        ),
        (
            *("2b240303020801010b", "8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b3"),
            "1f166e6cac0425a7cf3ab6af6b7fc3103b883202e9046565",
        ),
        (
            *("2b240303020801010d", "aadd9db8dbe9c48b3fd4e6ae33c9fc07"),
            *("cb308db3b3c9d20ed6639cca70330870", "553e5c414ca92619418661197fac1047"),
            "1db1d381085ddaddb58796829ca90069",
        ),
    )
}
"""The orders of the curves' base points, by what is in the curves' object identifiers."""
