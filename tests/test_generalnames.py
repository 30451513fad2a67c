"""Tests for L{ktlsagent.peers.generalnames}."""

from __future__ import annotations

import ipaddress

from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.peers.generalnames import (
    DNS,
    EMAIL,
    IP,
    OTHER_NAME,
    URI,
    Names,
    describe,
    presentedNames,
    readNames,
)
from ktlsagent.protocols.asn1 import Element, encode
from tests.support import certificates
from tests.support.properties import patient
from tests.support.unreadable import rawNames, unreadableNames, withNames

UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
"""A user principal name, as directories write it."""

ODD_HOSTS = (
    *(b" a.lab", b"a.lab ", b"a.lab\n", b"\ta.lab", b"a b.lab", b"a.lab\x00", b"a.lab\x00.b.lab"),
    *(b"\xff", b"\xe2\x84\xaaing.lab", "m\u00fcller.lab".encode(), b"a.lab\x7f", b"a/b", b"a?.lab"),
    *(b"http://a.lab", b"a@b.lab", b"[::1]", b"a.lab:80", b"a,b", b"a%2e.lab"),
)
"""What is no name of a host, whatever is looked for in it."""


class NamesTests(SynchronousTestCase):
    """Tests for L{readNames} and L{Names}."""

    def names(self, *names: x509.GeneralName) -> Names:
        """
        Read the names of a certificate.

        @param names: what it has.
        @return: what is read.
        """
        return readNames(certificates.authority().issue("client.lab", names=names).certificate)

    def test_kinds(self) -> None:
        """Every kind is where it belongs, in the form in which it is compared."""
        names = self.names(
            x509.DNSName("Client.LAB"),
            x509.IPAddress(ipaddress.ip_address("10.0.0.5")),
            x509.UniformResourceIdentifier("SPIFFE://Example.org/NS/a"),
            x509.RFC822Name("Root@Example.org"),
            x509.OtherName(UPN, b"\x0c\x03Bob"),
            x509.OtherName(UPN, b"\x05\x00"),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        )
        self.assertEqual(list(names.dns), ["client.lab"])
        self.assertEqual(list(names.uris), ["spiffe://example.org/NS/a"])
        self.assertEqual(list(names.emails), ["Root@example.org"])
        self.assertEqual(list(names.othersOf(UPN.dotted_string)), ["Bob", None])
        self.assertEqual(list(names.othersOf("1.2.3")), [])
        self.assertTrue(names.hasAddress(4, 0x0A000005, 0x0A000005))
        tags = [name.tag for name in names.presented]
        self.assertEqual(tags, [DNS, IP, URI, EMAIL, OTHER_NAME, OTHER_NAME, 0x88])
        self.assertFalse(names.hasOddHost or names.hasOddAddress or names.hasOddOther)

    def test_patterns(self) -> None:
        """What is not just the name of a host is kept apart."""
        hosts = ("*.lab", "a*.lab", "a..lab", "a.lab.", ".lab", "", ".")
        names = self.names(x509.DNSName("a.lab"), *map(x509.DNSName, hosts))
        self.assertEqual(list(names.dns), ["a.lab"])
        self.assertEqual(tuple(names.patterns), hosts)
        self.assertFalse(names.hasOddHost)

    def test_oddHosts(self) -> None:
        """What has other characters than a host's is no host, and nothing is taken off it."""
        for odd in ODD_HOSTS:
            names = readNames(rawNames((DNS, b"A.lab"), (DNS, odd), (DNS, b"b.lab")))
            self.assertEqual(list(names.dns), ["a.lab", "b.lab"])
            self.assertEqual(list(names.patterns), [])
            self.assertTrue(names.hasOddHost)

    def test_addresses(self) -> None:
        """Addresses are found in ranges that begin or end with them."""
        addresses = ("10.0.0.9", "10.0.0.5", "10.0.0.7", "fd00::1")
        names = self.names(*(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses))
        for last in (5, 7, 9):
            address = 0x0A000000 + last
            self.assertTrue(names.hasAddress(4, address, address))
            self.assertFalse(names.hasAddress(4, address - 1, address - 1))
            self.assertTrue(names.hasAddress(4, address - 1, address))
            self.assertTrue(names.hasAddress(4, address, address + 1))
            self.assertFalse(names.hasAddress(6, address, address))
        self.assertFalse(names.hasAddress(4, 0x0A00000A, 0xFFFFFFFF))
        self.assertTrue(names.hasAddress(6, 0, 2**128 - 1))
        self.assertFalse(names.hasAddress(6, 0, 2**64))
        self.assertFalse(names.hasOddAddress)

    def test_oddAddresses(self) -> None:
        """Networks, other lengths and addresses that stand for others are none, and noticed."""
        for odd in (
            b"\x0a\x00\x00\x01\xff\x00\x00\x00",
            bytes(32),
            b"",
            b"\x0a",
            b"\x0a\x00\x00\x01\x00",
            b"10.0.0.1",
            ipaddress.ip_address("::ffff:10.0.0.1").packed,
        ):
            names = readNames(rawNames((IP, odd), (IP, b"\x0a\x00\x00\x05")))
            self.assertTrue(names.hasOddAddress)
            self.assertEqual(names.addresses, {4: [0x0A000005], 6: []})

    def test_noASCII(self) -> None:
        """URIs and addresses of e-mail in other characters are no text."""
        names = readNames(
            rawNames(
                *((URI, b"A://B\xff"), (URI, b"A://B"), (URI, "\u212a://a".encode())),
                *((EMAIL, b"A@\xc3\x84"), (EMAIL, b"A@B"), (EMAIL, "a@\u212a".encode())),
                *((URI, b""), (EMAIL, b"")),
            )
        )
        self.assertEqual(list(names.uris), [None, "a://b", None, ""])
        self.assertEqual(list(names.emails), [None, "A@b", None, ""])

    def test_oddOthers(self) -> None:
        """An otherName without type or value may be of any type."""
        oid = encode(6, b"\x2a\x03")
        for odd in (b"", oid, encode(6, b"\x2a\x83") + encode(0xA0, b""), b"\x05\x00" * 2):
            names = readNames(
                rawNames((OTHER_NAME, odd), (OTHER_NAME, oid + encode(0xA0, b"\x0c\x01a")))
            )
            self.assertEqual(list(names.othersOf("1.2.3")), ["a", None])
            self.assertEqual(list(names.othersOf("1.2")), [None])
            self.assertTrue(names.hasOddOther)

    def test_others(self) -> None:
        """Kinds that nobody asks for do not matter, whatever is in them."""
        for tag in (0xA3, 0xA4, 0xA5, 0x88, 0x80, 0x89, 0x30, 0xA2):
            for content in (b"", b"\x30\x05", b"\xff" * 40):
                names = readNames(rawNames((tag, content), (DNS, b"a.lab")))
                self.assertEqual(list(names.dns), ["a.lab"])
                self.assertFalse(names.hasOddHost or names.hasOddAddress or names.hasOddOther)

    def test_none(self) -> None:
        """A certificate may have no names, or an empty list of them."""
        for certificate in (certificates.authority().issue("a").certificate, rawNames()):
            names = readNames(certificate)
            self.assertEqual(list(names.presented), [])
            self.assertFalse(names.hasAddress(4, 0, 2**32 - 1))

    def test_unreadable(self) -> None:
        """If it cannot be told where the names are, that is an error."""
        for certificate in unreadableNames():
            self.assertRaises(ValueError, readNames, certificate)

    @patient
    @given(st.binary(max_size=60))
    def test_anyExtension(self, content: bytes) -> None:
        """Whatever the extension holds, nothing but that error comes of it."""
        certificate = withNames(content)
        try:
            names = readNames(certificate)
        except ValueError:
            return
        self.assertEqual(encode(0x30, b"".join(name.encoded for name in names.presented)), content)

    @patient
    @given(st.lists(st.tuples(st.integers(0x80, 0xA8), st.binary(max_size=20)), max_size=5))
    def test_anyNames(self, names: list[tuple[int, bytes]]) -> None:
        """Whatever the names are, each is there, can be described, and spoils no other kind."""
        tags = [(tag & ~0x1F | tag % 9, content) for tag, content in names]
        certificate = rawNames(*tags)
        self.assertEqual([(one.tag, one.content) for one in presentedNames(certificate)], tags)
        found = readNames(certificate)
        for name in found.presented:
            self.assertTrue(describe(name))
        good = ((DNS, b"a.lab"), (IP, b"\x0a\x00\x00\x01"), (URI, b"a:b"), (EMAIL, b"a@b"))
        with_ = readNames(rawNames(*good, *tags))
        self.assertEqual(with_.dns[0], "a.lab")
        self.assertTrue(with_.hasAddress(4, 0x0A000001, 0x0A000001))
        self.assertEqual((with_.uris[0], with_.emails[0]), ("a:b", "a@b"))
        for flag in ("hasOddHost", "hasOddAddress", "hasOddOther"):
            self.assertEqual(getattr(with_, flag), getattr(found, flag))


class DescribeTests(SynchronousTestCase):
    """Tests for L{describe}."""

    def test_described(self) -> None:
        """Names are written as rules would name them, whatever is in them."""
        oid = encode(6, b"\x2a\x03")
        for tag, content, words in (
            (DNS, b"A.lab", "dns:A.lab"),
            (DNS, b" a\xff\x00", "dns: a\\xff\x00"),
            (IP, b"\x0a\x00\x00\x01", "ip:10.0.0.1"),
            (IP, bytes(15) + b"\x01", "ip:::1"),
            (IP, ipaddress.ip_address("::ffff:10.0.0.1").packed, "ip:::ffff:10.0.0.1"),
            (IP, b"\x0a\x00\x00\x00\xff\x00\x00\x00", "ip:10.0.0.0/255.0.0.0"),
            (IP, b"\x0a\x01\xff", "ip:\n\x01\\xff"),
            (URI, b"a:b", "uri:a:b"),
            (EMAIL, b"a@b", "email:a@b"),
            (OTHER_NAME, oid + encode(0xA0, b"\x0c\x01x"), "othername:1.2.3=x"),
            (OTHER_NAME, oid + encode(0xA0, b"\x05\x00"), "othername:1.2.3=(no text)"),
            (OTHER_NAME, oid, "othername:(unreadable)"),
            (0xA4, b"", "a directoryName"),
            (0x9E, b"", "a name of an unknown kind"),
        ):
            shown = describe(Element(tag, content, b""))
            self.assertEqual(shown.replace("::ffff:a00:1", "::ffff:10.0.0.1"), words)
