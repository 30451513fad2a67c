"""
What a certificate says, as texts that tlshd's session tags can be matched with:
rendered as GnuTLS, and so tlshd, renders it.

A certificate may be anybody's.  What cannot be read raises whatever exception that
gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from ktlsagent.peers.presented import unescaped


def versionOf(certificate: x509.Certificate) -> Sequence[str]:
    """
    Say which version a certificate has.

    @param certificate: the certificate.
    @return: the version as people count it, C{3} mostly.
    """
    return [str(certificate.version.value + 1)]


def serialNumberOf(certificate: x509.Certificate) -> Sequence[str]:
    """
    Render the serial number.

    @param certificate: the certificate.
    @return: its octets as they are encoded, the one that is there only for the
        sign among them, in lower-case hexadecimal.
    """
    number = certificate.serial_number
    length = max(number, ~number).bit_length() // 8 + 1
    return [number.to_bytes(length, "big", signed=True).hex()]


def fingerprintsOf(encoded: bytes) -> Sequence[str]:
    """
    Render the fingerprints.

    @param encoded: the certificate in DER.
    @return: those by SHA-256 and SHA-1, in lower-case hexadecimal.
    """
    # tlshd's files may have either.
    return [
        hashlib.new(name, encoded, usedforsecurity=False).hexdigest() for name in ("sha256", "sha1")
    ]


def algorithmsOf(certificate: x509.Certificate) -> Sequence[str]:
    """
    Name the algorithm that the certificate is signed with.

    @param certificate: the certificate.
    @return: its OID, and its name if it has one.
    """
    oid = certificate.signature_algorithm_oid.dotted_string
    if oid in _ALGORITHMS:
        return [oid, _ALGORITHMS[oid]]
    # With others there is no telling whether the library knows the hash.
    algorithm = certificate.signature_hash_algorithm if oid == _RSA_PSS else None
    return [oid] if algorithm is None else [oid, f"RSA-PSS-{algorithm.name.upper()}"]


_RSA_PSS: Final = "1.2.840.113549.1.1.10"

_ALGORITHMS: Final = {
    "1.2.840.113549.1.1.4": "RSA-MD5",
    "1.2.840.113549.1.1.5": "RSA-SHA1",
    "1.2.840.113549.1.1.14": "RSA-SHA224",
    "1.2.840.113549.1.1.11": "RSA-SHA256",
    "1.2.840.113549.1.1.12": "RSA-SHA384",
    "1.2.840.113549.1.1.13": "RSA-SHA512",
    "2.16.840.1.101.3.4.3.13": "RSA-SHA3-224",
    "2.16.840.1.101.3.4.3.14": "RSA-SHA3-256",
    "2.16.840.1.101.3.4.3.15": "RSA-SHA3-384",
    "2.16.840.1.101.3.4.3.16": "RSA-SHA3-512",
    "1.2.840.10045.4.1": "ECDSA-SHA1",
    "1.2.840.10045.4.3.1": "ECDSA-SHA224",
    "1.2.840.10045.4.3.2": "ECDSA-SHA256",
    "1.2.840.10045.4.3.3": "ECDSA-SHA384",
    "1.2.840.10045.4.3.4": "ECDSA-SHA512",
    "2.16.840.1.101.3.4.3.9": "ECDSA-SHA3-224",
    "2.16.840.1.101.3.4.3.10": "ECDSA-SHA3-256",
    "2.16.840.1.101.3.4.3.11": "ECDSA-SHA3-384",
    "2.16.840.1.101.3.4.3.12": "ECDSA-SHA3-512",
    "1.3.101.112": "EdDSA-Ed25519",
    "1.3.101.113": "EdDSA-Ed448",
    "2.16.840.1.101.3.4.3.17": "ML-DSA-44",
    "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
    "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
}


def nameTexts(name: x509.Name) -> Sequence[str]:
    """
    Render a distinguished name.

    @param name: a subject or an issuer.
    @return: its RFC 4514 text as our log has it, and as GnuTLS has it, who names
        more attributes; both as L{unescaped} makes them.
    """
    return [unescaped(name.rfc4514_string()), unescaped(name.rfc4514_string(_ATTRIBUTES))]


_ATTRIBUTES: Final = {
    NameOID.BUSINESS_CATEGORY: "businessCategory",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.EMAIL_ADDRESS: "EMAIL",
    NameOID.GENERATION_QUALIFIER: "generationQualifier",
    NameOID.GIVEN_NAME: "givenName",
    NameOID.INITIALS: "initials",
    NameOID.JURISDICTION_COUNTRY_NAME: "jurisdictionOfIncorporationCountryName",
    NameOID.JURISDICTION_LOCALITY_NAME: "jurisdictionOfIncorporationLocalityName",
    NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME: "jurisdictionOfIncorporationStateOrProvinceName",
    NameOID.POSTAL_CODE: "postalCode",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.STREET_ADDRESS: "street",
    NameOID.SURNAME: "surName",
    NameOID.TITLE: "title",
}
