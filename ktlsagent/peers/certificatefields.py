"""
Fields and extensions of a certificate, each read by itself and strictly: what cannot
be read in one of them does not matter to who looks at another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509

from ktlsagent.protocols.asn1 import Element, elements, objectIdentifier, onlyElement

_BIT_STRING: Final = 0x03
_OBJECT_IDENTIFIER: Final = 0x06
_OCTET_STRING: Final = 0x04
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3

_KEY_USAGE: Final = bytes.fromhex("0603551d0f")
_EXTENDED_KEY_USAGE: Final = bytes.fromhex("0603551d25")

_OCTET: Final = 8


def fieldsOf(certificate: x509.Certificate) -> Sequence[Element]:
    """
    Cut what is signed of a certificate into its fields (RFC 5280, section 4.1).

    @param certificate: any certificate.
    @return: serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo
        and the others, without the version.
    @raise ValueError: if that cannot be done.
    """
    first, *others = elements(onlyElement(certificate.tbs_certificate_bytes, _SEQUENCE))
    return others if first.tag == _VERSION else [first, *others]


def extensionOf(certificate: x509.Certificate, oid: bytes) -> bytes | None:
    """
    Find an extension.

    @param certificate: any certificate.
    @param oid: its object identifier, as it is encoded.
    @return: what is in its OCTET STRING, C{None} if there is no such extension.
    @raise ValueError: if it is there twice, or it cannot be told where it is.
    """
    found = None
    for field in fieldsOf(certificate)[6:]:
        if field.tag != _EXTENSIONS:
            continue
        for extension in elements(onlyElement(field.content, _SEQUENCE)):
            kind, *_critical, value = elements(extension.content)
            if kind.encoded != oid:
                continue
            if found is not None or value.tag != _OCTET_STRING:
                raise ValueError(f"expected the extension {oid.hex()} once, found something else")
            found = value.content
    return found


def keyUsagesOf(certificate: x509.Certificate) -> frozenset[int] | None:
    """
    Read the key usage (RFC 5280, section 4.2.1.3).

    @param certificate: any certificate.
    @return: the numbers of the bits that are set, C{None} if there is no such extension.
    @raise ValueError: if it cannot be read.
    """
    extension = extensionOf(certificate, _KEY_USAGE)
    if extension is None:
        return None
    unused, *octets = onlyElement(extension, _BIT_STRING) or b"\xff"
    count = _OCTET * len(octets) - unused
    if not 0 <= unused < _OCTET or count < 0:
        raise ValueError("expected a BIT STRING, found something else")
    return frozenset(bit for bit in range(count) if octets[bit // 8] & 0x80 >> bit % 8)


def keyPurposesOf(certificate: x509.Certificate) -> Sequence[str] | None:
    """
    Read the extended key usage (RFC 5280, section 4.2.1.12).

    @param certificate: any certificate.
    @return: the OIDs of the purposes, C{None} if there is no such extension.
    @raise ValueError: if it cannot be read.
    """
    extension = extensionOf(certificate, _EXTENDED_KEY_USAGE)
    if extension is None:
        return None
    return [_oid(one) for one in elements(onlyElement(extension, _SEQUENCE))]


def _oid(element: Element) -> str:
    return objectIdentifier(onlyElement(element.encoded, _OBJECT_IDENTIFIER))
