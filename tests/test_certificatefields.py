"""Tests for L{ktlsagent.peers.certificatefields}."""

from __future__ import annotations

import contextlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.peers.certificatefields import (
    extensionOf,
    fieldsOf,
    keyPurposesOf,
    keyUsagesOf,
)
from ktlsagent.protocols.asn1 import elements, encode, onlyElement
from tests.support.anycertificate import anyCertificate, purposes, usages
from tests.support.properties import patient


def extension(kind: str, content: bytes) -> x509.UnrecognizedExtension:
    """
    Make an extension.

    @param kind: which.
    @param content: what is in it.
    @return: the extension.
    """
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(kind), content)


def oid(text: str) -> bytes:
    """
    Encode an object identifier.

    @param text: it, beginning with C{1.2} or C{2.5} and without long numbers.
    @return: its encoding.
    """
    first, second, *others = map(int, text.split("."))
    return encode(6, bytes([40 * first + second, *others]))


class FieldsTests(SynchronousTestCase):
    """Tests for L{fieldsOf} and L{extensionOf}."""

    def test_fields(self) -> None:
        """Subject and issuer are where they belong."""
        certificate = anyCertificate(purposes("1.2.3"))
        fields = fieldsOf(certificate)
        self.assertEqual(fields[0].content, b"\x12\x34")
        self.assertEqual(fields[2].encoded, certificate.issuer.public_bytes())
        self.assertEqual(fields[4].encoded, certificate.subject.public_bytes())
        self.assertEqual(len(fields), 7)

    def test_extension(self) -> None:
        """An extension is found among others, whatever is in them, critical or not."""
        odd = extension("1.2.3", b"\xff\xff")
        empty = extension("2.5.29.17", b"")
        certificate = anyCertificate(odd, empty, usages("crl_sign"))
        self.assertEqual(extensionOf(certificate, oid("1.2.3")), b"\xff\xff")
        self.assertEqual(extensionOf(certificate, oid("2.5.29.17")), b"")
        self.assertIsNone(extensionOf(certificate, oid("1.2.4")))
        self.assertIsNone(extensionOf(anyCertificate(), oid("1.2.3")))
        self.assertEqual(keyUsagesOf(certificate), {6})

    def test_uniqueIdentifiers(self) -> None:
        """An extension is also found behind what nobody uses."""
        certificate = anyCertificate(extension("1.2.3", b"\x05"))
        tbs, *others = elements(onlyElement(certificate.public_bytes(Encoding.DER), 0x30))
        *fields, extensions = (field.encoded for field in elements(tbs.content))
        content = b"".join([*fields, encode(0x81, b"\x00a"), encode(0x82, b"\x00b"), extensions])
        whole = encode(0x30, content) + b"".join(other.encoded for other in others)
        changed = x509.load_der_x509_certificate(encode(0x30, whole))
        self.assertEqual(len(fieldsOf(changed)), 9)
        self.assertEqual(extensionOf(changed, oid("1.2.3")), b"\x05")

    def test_twice(self) -> None:
        """What is there twice is not there, and nothing else is spoilt by it."""
        certificate = anyCertificate(*(extension(f"1.2.3.{last}", b"\x05") for last in (5, 6, 7)))
        encoded = certificate.public_bytes(Encoding.DER)
        five, six = (bytes([6, 3, 0x2A, 3, last]) for last in (5, 6))
        self.assertIn(six, encoded)
        changed = x509.load_der_x509_certificate(encoded.replace(six, five))
        self.assertRaises(ValueError, extensionOf, changed, oid("1.2.3.5"))
        self.assertEqual(extensionOf(changed, oid("1.2.3.7")), b"\x05")


class KeyUsageTests(SynchronousTestCase):
    """Tests for L{keyUsagesOf} and L{keyPurposesOf}."""

    def test_usages(self) -> None:
        """The bits that are set are found."""
        for content, expected in (
            (b"\x03\x02\x07\x80", {0}),
            (b"\x03\x02\x01\x86", {0, 5, 6}),
            (b"\x03\x03\x07\x08\x80", {4, 8}),
            (b"\x03\x03\x07\x00\x80", {8}),
            (b"\x03\x01\x00", set()),
            (b"\x03\x02\x00\xff", {0, 1, 2, 3, 4, 5, 6, 7}),
        ):
            self.assertEqual(keyUsagesOf(anyCertificate(extension("2.5.29.15", content))), expected)
        self.assertIsNone(keyUsagesOf(anyCertificate()))

    def test_purposes(self) -> None:
        """Purposes are found in their order."""
        certificate = anyCertificate(purposes("1.3.6.1.5.5.7.3.33", "2.5.29.37.0", "2.999.3"))
        self.assertEqual(
            keyPurposesOf(certificate), ["1.3.6.1.5.5.7.3.33", "2.5.29.37.0", "2.999.3"]
        )
        self.assertIsNone(keyPurposesOf(anyCertificate()))

    def test_unreadable(self) -> None:
        """What cannot be read is an error."""
        for content in (b"", b"\x03\x00", b"\x03\x01\x07", b"\x03\x02\x08\x80", b"\x04\x01\x00"):
            certificate = anyCertificate(extension("2.5.29.15", content))
            self.assertRaises(ValueError, keyUsagesOf, certificate)
        for content in (
            *(b"", b"\x30\x02\x06\x00", b"\x30\x03\x06\x01\x80", b"\x06\x01\x2a"),
            b"\x30\x03\x04\x01\x2a",
        ):
            certificate = anyCertificate(extension("2.5.29.37", content))
            self.assertRaises(ValueError, keyPurposesOf, certificate)

    @patient
    @given(st.binary(max_size=30))
    def test_anyContent(self, content: bytes) -> None:
        """Whatever is in there, no other error comes of it."""
        for kind, read in (("2.5.29.15", keyUsagesOf), ("2.5.29.37", keyPurposesOf)):
            with contextlib.suppress(ValueError):
                read(anyCertificate(extension(kind, content)))
