"""Tests for L{ktlsagent.peers.presented}."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping

from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.peers.generalnames import Names
from ktlsagent.peers.presented import (
    Presented,
    Unreadable,
    plainAddress,
    unescaped,
)
from tests.support import certificates
from tests.support.properties import patient
from tests.support.unreadable import unreadableNames, withIssuer, withNames, withSubject

UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
"""A user principal name, as directories write it."""


def tagged(*tags: str) -> Callable[[Presented], Mapping[str, bool | None]]:
    """
    Say which tags a peer gets.

    @param tags: the tags; besides there are others that it does not get.
    @return: what says so.
    """
    return lambda _peer: {**dict.fromkeys(tags, True), "no": False, "maybe": None}


class NamesTests(SynchronousTestCase):
    """Tests for L{Presented.names}."""

    def test_names(self) -> None:
        """They are those of the certificate, read once."""
        presented = Presented(certificates.server().certificate)
        self.assertEqual(list(presented.names.dns), ["server.lab"])
        self.assertIs(presented.names, presented.names)

    def test_none(self) -> None:
        """Who has shown no certificate has no names."""
        self.assertEqual(Presented(None).names, Names())

    def test_unreadable(self) -> None:
        """Names that cannot be read are an error that says so."""
        for certificate in unreadableNames():
            error = self.assertRaises(Unreadable, getattr, Presented(certificate), "names")
            self.assertIn("names that cannot be read (", str(error))

    @patient
    @given(st.binary(max_size=60))
    def test_anyExtension(self, content: bytes) -> None:
        """Whatever the extension holds, nothing but that error comes of it."""
        presented = Presented(withNames(content))
        try:
            presented.names  # noqa: B018 - it is read
        except Unreadable:
            self.assertIn("names that cannot be read", presented.describe())


class CertificateTests(SynchronousTestCase):
    """Tests for the other parts of L{Presented}."""

    def test_subjectAndIssuer(self) -> None:
        """Both have their text and the values of their attributes."""
        issued = certificates.authority().issue(
            "client.lab",
            attributes=[
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Example, Inc."),
                x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "a"),
                x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "b"),
            ],
        )
        presented = Presented(issued.certificate)
        assert presented.subject is not None
        assert presented.issuer is not None
        self.assertEqual(
            presented.subject.text, unescaped("CN=client.lab,OU=b,OU=a,O=Example\\, Inc.")
        )
        self.assertEqual(
            presented.subject.values,
            {"2.5.4.10": ["Example, Inc."], "2.5.4.11": ["a", "b"], "2.5.4.3": ["client.lab"]},
        )
        self.assertEqual(presented.issuer.text, "CN=Lab CA")
        self.assertEqual(presented.issuer.values, {"2.5.4.3": ["Lab CA"]})
        self.assertEqual(presented.fingerprint, issued.fingerprint)

    def test_noText(self) -> None:
        """The value of an attribute that is no text is none."""
        identifier = x509.NameAttribute(
            x509.NameOID.X500_UNIQUE_IDENTIFIER,
            b"\x00\x01",
            x509.name._ASN1Type.BitString,
        )
        issued = certificates.authority().issue("a", attributes=[identifier])  # type: ignore[list-item]
        subject = Presented(issued.certificate).subject
        assert subject is not None
        self.assertEqual(subject.values["2.5.4.45"], [None])

    def test_nobody(self) -> None:
        """Who has shown no certificate presents tags at most."""
        presented = Presented(None, tagsOf=tagged("b", "a"))
        self.assertIsNone(presented.subject)
        self.assertIsNone(presented.issuer)
        self.assertIsNone(presented.fingerprint)
        self.assertEqual(presented.tags, {"a": True, "b": True, "no": False, "maybe": None})
        self.assertEqual(Presented(None).tags, {})
        self.assertEqual(presented.describe(), "no certificate, tag:a, tag:b")
        self.assertEqual(Presented(None).describe(), "no certificate")

    def test_unreadable(self) -> None:
        """A subject or an issuer that cannot be read is an error that says which."""
        presented = Presented(withSubject(b"\x14\x08\xff\xfe\x00\x1b.lab"))
        error = self.assertRaises(Unreadable, getattr, presented, "subject")
        self.assertIn("a subject that cannot be read (", str(error))
        self.assertIsNotNone(presented.issuer)
        self.assertIn("subject:(unreadable), issuer:CN=Lab CA", presented.describe())
        presented = Presented(withIssuer(b"\x14\x06\xff\xfe\x00\x1b.x"))
        error = self.assertRaises(Unreadable, getattr, presented, "issuer")
        self.assertIn("an issuer that cannot be read (", str(error))

    def test_described(self) -> None:
        """All that is presented is listed as rules would name it."""
        issued = certificates.authority().issue(
            "client.lab",
            hosts=("client.lab", "*.lab"),
            addresses=("10.0.0.5", "fd00::5"),
            names=(
                x509.UniformResourceIdentifier("spiffe://example.org/ns/a"),
                x509.RFC822Name("root@example.org"),
                x509.OtherName(UPN, b"\x0c\x03bob"),
                x509.OtherName(UPN, b"\x05\x00"),
                x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
                x509.DirectoryName(issuedName("x")),
                x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")),
            ),
        )
        self.assertEqual(
            Presented(issued.certificate, tagsOf=tagged("blue")).describe(),
            f"subject:CN=client.lab, issuer:CN=Lab CA, fingerprint:{issued.fingerprint}, "
            "dns:client.lab, dns:*.lab, ip:10.0.0.5, ip:fd00::5, uri:spiffe://example.org/ns/a, "
            "email:root@example.org, othername:1.3.6.1.4.1.311.20.2.3=bob, "
            "othername:1.3.6.1.4.1.311.20.2.3=(no text), a registeredID, a directoryName, "
            "ip:10.0.0.0/255.0.0.0, tag:blue",
        )

    def test_describedBriefly(self) -> None:
        """The list stays short and printable, however many and whatever names there are."""
        hosts = ["a" * 200, "b\n\x1b[31m", *(f"host{number}.lab" for number in range(1000))]
        issued = certificates.authority().issue("client.lab", hosts=hosts)
        words = Presented(issued.certificate, tagsOf=tagged(*map(str, range(100)))).describe()
        self.assertTrue(words.isprintable())
        self.assertLess(len(words), 1200)
        self.assertIn(f"dns:{'a' * 146}..., dns:b\\n\\x1b[31m, dns:host0.lab", words)
        self.assertIn(", dns:host14.lab, and 985 more, tag:0", words)
        self.assertTrue(words.endswith("tag:53, and 50 more"), words)


class TextTests(SynchronousTestCase):
    """Tests for the forms in which texts are compared."""

    def test_address(self) -> None:
        """An address loses its zone, and is IPv4 if it is mapped."""
        for address, plain in (
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1%eth0", "10.0.0.1"),
            ("fe80::1%eth0", "fe80::1"),
            ("fe80::1", "fe80::1"),
            ("::10.0.0.1", "::10.0.0.1"),
        ):
            self.assertEqual(
                plainAddress(ipaddress.ip_address(address)), ipaddress.ip_address(plain)
            )

    def test_unescaped(self) -> None:
        """A character with a backslash is one, and is neither the backslash nor itself."""
        text = unescaped("CN=a\\,b\\\\,c\\")
        self.assertEqual(len(text), len("CN=a.b.,c\\"))
        self.assertEqual(text.replace(text[4], ".").replace(text[6], "."), "CN=a.b.,c\\")
        self.assertNotIn(text[4], ",\\")


def issuedName(common: str) -> x509.Name:
    """
    Make a distinguished name.

    @param common: its common name.
    @return: the name.
    """
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
