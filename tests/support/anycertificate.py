"""Certificates that say whatever a test wants; nobody has signed them but themselves."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

BEGINNING = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
"""When the certificates become valid."""

END = datetime(2027, 6, 1, 12, 0, 0, tzinfo=UTC)
"""When they end."""


@functools.cache
def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def name(text: str) -> x509.Name:
    """
    Make a distinguished name.

    @param text: its RFC 4514 text.
    @return: the name.
    """
    return x509.Name.from_rfc4514_string(text)


def anyBuilder(
    key: CertificatePublicKeyTypes,
    *extensions: x509.ExtensionType,
    subject: x509.Name | str = "CN=client.lab,O=Lab,C=DE",
    issuer: x509.Name | str = "CN=Lab CA,O=Lab,C=DE",
    serial: int = 0x1234,
    notBefore: datetime = BEGINNING,
    notAfter: datetime = END,
) -> x509.CertificateBuilder:
    """
    Begin a certificate.

    @param key: whose it is.
    @param extensions: its extensions.
    @param subject: its subject, or the RFC 4514 text of it.
    @param issuer: its issuer, likewise.
    @param serial: its serial number.
    @param notBefore: when it becomes valid.
    @param notAfter: when it ends.
    @return: what only has to be signed.
    """
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject) if isinstance(subject, str) else subject)
        .issuer_name(name(issuer) if isinstance(issuer, str) else issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(notBefore)
        .not_valid_after(notAfter)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder


def anyCertificate(
    *extensions: x509.ExtensionType,
    algorithm: hashes.SHA256 | hashes.SHA3_256 | None = None,
    **about: Any,
) -> x509.Certificate:
    """
    Make a certificate.

    @param extensions: its extensions.
    @param algorithm: the hash that is signed; by default SHA-256.
    @param about: what else L{anyBuilder} takes.
    @return: the certificate.
    """
    builder = anyBuilder(_key().public_key(), *extensions, **about)
    return builder.sign(_key(), algorithm or hashes.SHA256())


def alternatives(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    """
    Make the extension of alternative names.

    @param names: the names.
    @return: the extension.
    """
    return x509.SubjectAlternativeName(names)


def otherName(oid: str, value: bytes) -> x509.OtherName:
    """
    Make a name of a kind that X.509 does not know.

    @param oid: the kind.
    @param value: the name in DER.
    @return: the name.
    """
    return x509.OtherName(ObjectIdentifier(oid), value)


def purposes(*oids: str) -> x509.ExtendedKeyUsage:
    """
    Make the extension of key purposes.

    @param oids: the purposes.
    @return: the extension.
    """
    return x509.ExtendedKeyUsage([ObjectIdentifier(oid) for oid in oids])


_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def usages(*names: str) -> x509.KeyUsage:
    """
    Make the extension of key usages.

    @param names: those that are set, as cryptography calls them.
    @return: the extension.
    """
    return x509.KeyUsage(**{usage: usage in names for usage in _KEY_USAGES})


def unreadable(
    oid: ObjectIdentifier = ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
) -> x509.UnrecognizedExtension:
    """
    Make an extension that cannot be read.

    @param oid: what it claims to be.
    @return: the extension.
    """
    return x509.UnrecognizedExtension(oid, b"\x30\x03\x82\x01")
