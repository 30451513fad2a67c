"""
Tests for L{ktlsagent.peers.certificatetexts}.  What GnuTLS makes of these certificates was
asked of C{gnutls_x509_crt_get_dn3}, C{gnutls_x509_crt_get_serial} and
C{gnutls_sign_get_name} of GnuTLS 3.7.9; only the names of ML-DSA are newer.
"""

from __future__ import annotations

import functools
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, padding, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.peers.certificatetexts import (
    algorithmsOf,
    fingerprintsOf,
    nameTexts,
    serialNumberOf,
    versionOf,
)
from ktlsagent.peers.presented import unescaped
from tests.support.anycertificate import anyBuilder, anyCertificate
from tests.support.properties import patient


@functools.cache
def _rsaKey() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class FieldTests(SynchronousTestCase):
    """Tests for all but the names."""

    def test_version(self) -> None:
        """Versions are counted from 1, though they are encoded from 0."""
        self.assertEqual(versionOf(anyCertificate()), ["3"])

    def test_serialNumber(self) -> None:
        """An octet for the sign is shown as it is encoded."""
        for number, text in (
            (1, "01"),
            (0x7F, "7f"),
            (0x80, "0080"),
            (0x1234, "1234"),
            (0x80FF, "0080ff"),
            (1 << 158, "40" + 19 * "00"),
        ):
            self.assertEqual(serialNumberOf(anyCertificate(serial=number)), [text])

    def test_negativeSerialNumber(self) -> None:
        """A serial number may be negative, though it must not (RFC 5280, section 4.1.2.2)."""
        content = anyCertificate(serial=0x7AB5).public_bytes(serialization.Encoding.DER)
        encoded = b"\x02\x02\x7a\xb5"
        self.assertEqual(content.count(encoded), 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            negative = content.replace(encoded, b"\x02\x02\xfa\xb5")
            certificate = x509.load_der_x509_certificate(negative)
            self.assertEqual(serialNumberOf(certificate), ["fab5"])

    def test_fingerprints(self) -> None:
        """There are two fingerprints."""
        certificate = anyCertificate()
        self.assertEqual(
            fingerprintsOf(certificate.public_bytes(serialization.Encoding.DER)),
            [
                certificate.fingerprint(hashes.SHA256()).hex(),
                certificate.fingerprint(hashes.SHA1()).hex(),
            ],
        )

    def test_algorithms(self) -> None:
        """Algorithms have their OIDs, and the names that GnuTLS gives them."""
        builder = anyBuilder(_rsaKey().public_key())
        for certificate, texts in (
            (anyCertificate(), ["1.2.840.10045.4.3.2", "ECDSA-SHA256"]),
            (
                anyCertificate(algorithm=hashes.SHA3_256()),
                ["2.16.840.1.101.3.4.3.10", "ECDSA-SHA3-256"],
            ),
            (builder.sign(_rsaKey(), hashes.SHA512()), ["1.2.840.113549.1.1.13", "RSA-SHA512"]),
        ):
            self.assertEqual(algorithmsOf(certificate), texts)

    def test_pss(self) -> None:
        """RSA-PSS has one OID, and its hash is in the name."""
        builder = anyBuilder(_rsaKey().public_key())
        for algorithm, name in (
            (hashes.SHA256(), "RSA-PSS-SHA256"),
            (hashes.SHA384(), "RSA-PSS-SHA384"),
        ):
            scheme = padding.PSS(padding.MGF1(algorithm), algorithm.digest_size)
            certificate = builder.sign(_rsaKey(), algorithm, rsa_padding=scheme)
            self.assertEqual(algorithmsOf(certificate), ["1.2.840.113549.1.1.10", name])

    def test_edwards(self) -> None:
        """Algorithms without a hash have names, too."""
        for key, texts in (
            (ed25519.Ed25519PrivateKey.generate(), ["1.3.101.112", "EdDSA-Ed25519"]),
            (ed448.Ed448PrivateKey.generate(), ["1.3.101.113", "EdDSA-Ed448"]),
        ):
            certificate = anyBuilder(key.public_key()).sign(key, None)
            self.assertEqual(algorithmsOf(certificate), texts)

    def test_algorithmWithoutName(self) -> None:
        """An algorithm that has no name has its OID: here 1.2.840.10045.4.3.127."""
        known = bytes.fromhex("06082a8648ce3d040302")
        content = anyCertificate().public_bytes(serialization.Encoding.DER)
        unknown = content.replace(known, known[:-1] + b"\x7f")
        certificate = x509.load_der_x509_certificate(unknown)
        self.assertEqual(algorithmsOf(certificate), ["1.2.840.10045.4.3.127"])


class NameTests(SynchronousTestCase):
    """Tests for L{nameTexts}."""

    def test_attributes(self) -> None:
        """Attributes that RFC 4514 does not name have their OIDs, or GnuTLS's names."""
        for oid, ours, theirs in (
            (NameOID.COMMON_NAME, "CN", "CN"),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, "OU", "OU"),
            (NameOID.DOMAIN_COMPONENT, "DC", "DC"),
            (NameOID.USER_ID, "UID", "UID"),
            (NameOID.STREET_ADDRESS, "STREET", "street"),
            (NameOID.EMAIL_ADDRESS, "1.2.840.113549.1.9.1", "EMAIL"),
            (NameOID.SERIAL_NUMBER, "2.5.4.5", "serialNumber"),
            (NameOID.SURNAME, "2.5.4.4", "surName"),
            (NameOID.GIVEN_NAME, "2.5.4.42", "givenName"),
            (NameOID.TITLE, "2.5.4.12", "title"),
            (NameOID.INITIALS, "2.5.4.43", "initials"),
            (NameOID.PSEUDONYM, "2.5.4.65", "pseudonym"),
            (NameOID.DN_QUALIFIER, "2.5.4.46", "dnQualifier"),
            (NameOID.GENERATION_QUALIFIER, "2.5.4.44", "generationQualifier"),
            (NameOID.POSTAL_CODE, "2.5.4.17", "postalCode"),
            (NameOID.BUSINESS_CATEGORY, "2.5.4.15", "businessCategory"),
            (
                NameOID.JURISDICTION_STATE_OR_PROVINCE_NAME,
                "1.3.6.1.4.1.311.60.2.1.2",
                "jurisdictionOfIncorporationStateOrProvinceName",
            ),
            (ObjectIdentifier("1.2.3.4"), "1.2.3.4", "1.2.3.4"),
        ):
            name = x509.Name([x509.NameAttribute(oid, "x")])
            self.assertEqual(nameTexts(name), [f"{ours}=x", f"{theirs}=x"])

    def test_order(self) -> None:
        """The most special attribute comes first, and one of several parts is one."""
        name = x509.Name(
            [
                x509.RelativeDistinguishedName(
                    [
                        x509.NameAttribute(NameOID.COMMON_NAME, "b"),
                        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "a"),
                    ]
                ),
                x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE")]),
            ]
        )
        self.assertEqual(nameTexts(name), ["C=DE,CN=b+OU=a"] * 2)
        self.assertEqual(nameTexts(x509.Name([])), ["", ""])

    def test_escapes(self) -> None:
        """What is special in a name is escaped as GnuTLS does."""
        value = 'A, B+C"D<E>;F\\G=H'
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, value),
                x509.NameAttribute(NameOID.COMMON_NAME, " #lead "),
            ]
        )
        text = unescaped('CN=\\ #lead\\ ,O=A\\, B\\+C\\"D\\<E\\>\\;F\\\\G=H')
        self.assertEqual(nameTexts(name), [text, text])

    @patient
    @given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=40), max_size=4))
    def test_noSeparatorInValues(self, values: list[str]) -> None:
        """Whatever the values are, there is a comma only between attributes."""
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, value) for value in values])
        for text in nameTexts(name):
            self.assertEqual(text.count(","), max(len(values) - 1, 0))
            self.assertNotIn("\\", text)
            self.assertNotIn("+", text)
