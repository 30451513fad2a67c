"""Tests for L{ktlsagent.config.peers}."""

from __future__ import annotations

import base64
import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st

from ktlsagent.config.keyfile import Entry
from ktlsagent.config.peers import readNetworks, readPins, readPorts, readRules, readTags
from ktlsagent.peers.authorisation import parseRule
from tests.support.readers import ReaderTestCase

DIGEST = bytes(range(32))


class NetworkTests(ReaderTestCase):
    """Tests for addresses and networks."""

    def test_networks(self) -> None:
        """Addresses and networks of both versions can be mixed."""
        self.assertEqual(
            readNetworks(self.entry("192.0.2.7; 192.0.2.0/24;2001:db8::/32;::1;0.0.0.0/0;::/0")),
            (
                ipaddress.IPv4Network("192.0.2.7/32"),
                ipaddress.IPv4Network("192.0.2.0/24"),
                ipaddress.IPv6Network("2001:db8::/32"),
                ipaddress.IPv6Network("::1/128"),
                ipaddress.IPv4Network("0.0.0.0/0"),
                ipaddress.IPv6Network("::/0"),
            ),
        )

    def test_hostBits(self) -> None:
        """An address with the length of its network may be meant as either."""
        for value, advice in (
            ("192.0.2.7/24", "write 192.0.2.0/24 for the network or 192.0.2.7 for the address"),
            (
                "2001:db8::7/32",
                "write 2001:db8::/32 for the network or 2001:db8::7 for the address",
            ),
        ):
            self.assertEqual(self.mistake(readNetworks, value).advice, advice)

    def test_wrong(self) -> None:
        """What is no address, or one that no connection has, is refused."""
        for value, advice in (
            ("example.org", "write them like"),
            ("192.0.2", "write them like"),
            ("192.0.2.0/33", "write them like"),
            ("192.0.2.0/", "write them like"),
            ("[::1]", "write them like"),
            ("fe80::1%eth0", "remove the zone"),
            ("fe80::%eth0/64", "remove the zone"),
            ("::ffff:192.0.2.7", "the IPv4 address"),
            ("::ffff:0:0/96", "the IPv4 address"),
        ):
            mistake = self.mistake(readNetworks, value)
            self.assertIn(advice, mistake.advice)
            self.assertIn(value, mistake.found)

    def test_none(self) -> None:
        """No network at all is refused: it would be a profile for nothing or for all."""
        self.mistake(readNetworks, "")


class PortTests(ReaderTestCase):
    """Tests for ports."""

    def test_ports(self) -> None:
        """Ports and ranges, both ends of which are in them."""
        self.assertEqual(
            readPorts(self.entry("2049;600-1023; 1 - 1 ;65535")),
            (range(2049, 2050), range(600, 1024), range(1, 2), range(65535, 65536)),
        )

    def test_wrong(self) -> None:
        """What is no port, and a range without one, is refused."""
        for value in ("0", "65536", "0-5", "5-4", "1-65536", "-1", "nfs", "1-", "1-2-3", "1" * 9):
            self.assertEqual(self.mistake(readPorts, value).found, repr(value))
        self.mistake(readPorts, "")


class PinTests(ReaderTestCase):
    """Tests for pins."""

    def test_pins(self) -> None:
        """A pin is written in either of two ways."""
        other = bytes(32)
        encoded = base64.b64encode(other).decode()
        pins = readPins(self.entry(f"sha256:{DIGEST.hex()};sha256:{encoded}"))
        self.assertEqual(pins, {DIGEST, other})
        self.assertEqual(readPins(self.entry(f"sha256:{DIGEST.hex().upper()}")), {DIGEST})
        self.assertEqual(readPins(self.entry("none")), frozenset())

    def test_wrong(self) -> None:
        """What is no SHA-256 digest is refused, with the way to get one."""
        encoded = base64.b64encode(DIGEST).decode()
        for value in (
            DIGEST.hex(),
            encoded,
            f"sha256//{encoded}",
            f"sha1:{DIGEST.hex()}",
            f"sha256:{DIGEST.hex()[2:]}",
            f"sha256:{encoded[:-1]}",
            f"sha256:{encoded[:20]}-{encoded[21:]}",
            f"sha256:{DIGEST.hex()} x",
            "sha256:",
        ):
            self.assertIn("openssl dgst -sha256", self.mistake(readPins, value).advice)
        self.mistake(readPins, "")
        self.mistake(readPins, f"none;sha256:{DIGEST.hex()}")

    @settings(deadline=None)
    @given(st.binary(min_size=32, max_size=32))
    def test_anyDigest(self, digest: bytes) -> None:
        """Any digest is read in both ways."""
        for text in (digest.hex(), base64.b64encode(digest).decode()):
            self.assertEqual(readPins(self.entry(f"sha256:{text}")), {digest})


class RuleTests(ReaderTestCase):
    """Tests for lists of authorisation rules."""

    def read(self, entry: Entry) -> object:
        """
        Read a list of rules, for which C{any} stands if there is none.

        @param entry: the entry.
        @return: the rules.
        """
        return readRules(entry, "any")

    def test_rules(self) -> None:
        """Rules are read one by one, after their escapes have been replaced."""
        self.assertEqual(
            self.read(self.entry(r"dns:*.example.org;issuer:CN=a\\,b\;c;")),
            (parseRule("dns:*.example.org"), parseRule(r"issuer:CN=a\,b;c")),
        )
        self.assertEqual(self.read(self.entry("any")), ())

    def test_wrong(self) -> None:
        """A rule that cannot be read is refused with the words of what reads it."""
        error = self.assertRaises(ValueError, parseRule, "example.org")
        mistake = self.mistake(self.read, "dns:a;example.org")
        self.assertEqual(mistake.found, f"one that cannot be read ({error})")
        self.assertEqual(mistake.expected, "rules, or any")
        self.assertEqual(self.mistake(self.read, "dns:a;dns:a").found, "'dns:a' 2 times")
        self.mistake(self.read, "")


class TagTests(ReaderTestCase):
    """Tests for names of session tags."""

    def test_tags(self) -> None:
        """Tags are listed, or all or none of them are given."""
        for value, tags in (
            ("lab;A-b_1", ("lab", "A-b_1")),
            ("all", None),
            ("all;", None),
            ("none", ()),
        ):
            self.assertEqual(readTags(self.entry(value)), tags)

    def test_wrong(self) -> None:
        """What tlshd has no tags of is refused."""
        for value in ("a b", "a.b", "é", "a" * 256):
            self.assertIn("directory of tags", self.mistake(readTags, value).advice)
        self.mistake(readTags, "")
