"""Certificates that OpenSSL can read and we cannot, or not as a whole."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ktlsagent.protocols.asn1 import encode
from tests.support import certificates


def withNames(content: bytes) -> x509.Certificate:
    """
    Make a certificate with names that may be unreadable.

    @param content: what its subjectAltName holds.
    @return: the certificate.
    """
    extension = x509.UnrecognizedExtension(x509.OID_SUBJECT_ALTERNATIVE_NAME, content)
    return certificates.authority().issue("client.lab", extensions=[extension]).certificate


def rawNames(*names: tuple[int, bytes]) -> x509.Certificate:
    """
    Make a certificate with names of any octets.

    @param names: the tag and the content of each.
    @return: the certificate.
    """
    return withNames(encode(0x30, b"".join(encode(tag, content) for tag, content in names)))


def unreadableNames() -> list[x509.Certificate]:
    """
    Make certificates whose names cannot be read.

    @return: one with no sequence, with nothing, with a name that is cut off, with a
        length that is not definite, with something behind it, with a tag that no name
        has, and with two subjectAltNames.
    """
    contents = (
        *(b"\x05\x00", b"", b"\x30\x03\x82\x02a", b"\x30\x80\x82\x01a\x00\x00"),
        *(b"\x30\x03\x82\x01a\x00", b"\x30\x03\x9f\x21\x00"),
    )
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
