"""Certificates that OpenSSL can read and we cannot, or not as a whole."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support import certificates


def withNames(content: bytes) -> x509.Certificate:
    """
    Make a certificate with names that may be unreadable.

    @param content: what its subjectAltName holds.
    @return: the certificate.
    """
    extension = x509.UnrecognizedExtension(x509.OID_SUBJECT_ALTERNATIVE_NAME, content)
    return certificates.authority().issue("client.lab", extensions=[extension]).certificate


def unreadableNames() -> list[x509.Certificate]:
    """
    Make certificates whose names cannot be read.

    @return: one with an x400Address, with an IA5String that is none, with no
        sequence, with an address of no length, and with two subjectAltNames.
    """
    contents = (b"\x30\x02\xa3\x00", b"\x30\x03\x82\x01\xff", b"\x05\x00", b"\x30\x03\x87\x01\x0a")
    extensions = [
        x509.UnrecognizedExtension(x509.ObjectIdentifier(f"2.5.29.{last}"), b"\x30\x03\x82\x01a")
        for last in (17, 99)
    ]
    issued = certificates.authority().issue("client.lab", extensions=extensions).certificate
    content = issued.public_bytes(serialization.Encoding.DER)
    twice = content.replace(b"\x06\x03\x55\x1d\x63", b"\x06\x03\x55\x1d\x11")
    return [*map(withNames, contents), x509.load_der_x509_certificate(twice)]


def withSubject(encoded: bytes) -> x509.Certificate:
    """
    Make a certificate with a subject that may be unreadable.

    @param encoded: the common name, as it is encoded, of 10 octets.
    @return: the certificate; nobody has signed it as it is.
    """
    return _replaced(b"\x0c\x08host.lab", encoded)


def withIssuer(encoded: bytes) -> x509.Certificate:
    """
    Make a certificate with an issuer that may be unreadable.

    @param encoded: the common name, as it is encoded, of 8 octets.
    @return: the certificate; nobody has signed it as it is.
    """
    return _replaced(b"\x0c\x06Lab CA", encoded)


def _replaced(good: bytes, bad: bytes) -> x509.Certificate:
    content = (
        certificates.authority()
        .issue("host.lab")
        .certificate.public_bytes(serialization.Encoding.DER)
    )
    assert len(good) == len(bad)
    assert good in content
    return x509.load_der_x509_certificate(content.replace(good, bad, 1))
