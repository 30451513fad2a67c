"""Tests for L{ktlsagent.peers.rules}."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.peers.generalnames import DNS
from ktlsagent.peers.presented import Presented, Unreadable
from ktlsagent.peers.rules import parseTest
from ktlsagent.peers.signedcontent import contentDigest, keyDigest, otherForms
from tests.support import certificates
from tests.support.anycertificate import anyCertificate
from tests.support.patterns import reference
from tests.support.properties import patient
from tests.support.unreadable import rawNames, unreadableNames, withIssuer, withSubject

UPN = "1.3.6.1.4.1.311.20.2.3"
"""A user principal name, as directories write it."""

Attributes = Sequence[tuple[str, str]]
Answer = bool | None
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def peer(*names: x509.GeneralName, attributes: Attributes = (), common: str = "") -> Presented:
    """
    Make a peer.

    @param names: the names in its certificate.
    @param attributes: OIDs and values of its subject.
    @param common: its common name.
    @return: the peer.
    """
    issued = certificates.authority().issue(
        common,
        names=names,
        attributes=[
            x509.NameAttribute(x509.ObjectIdentifier(oid), value) for oid, value in attributes
        ],
    )
    return Presented(issued.certificate)


def address(text: str) -> x509.IPAddress:
    """
    Make a name of an address or a network.

    @param text: the address.
    @return: the name.
    """
    number = ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text)
    return x509.IPAddress(number)


class RuleTestCase(SynchronousTestCase):
    """What the tests of all kinds have in common."""

    def answers(self, expected: Answer, presented: Presented, *rules: str) -> None:
        """
        Expect the same answer of several rules.

        @param expected: the answer.
        @param presented: the peer.
        @param rules: the rules.
        """
        for rule in rules:
            self.assertIs(parseTest(rule)(presented), expected, f"{rule}: {presented.describe()}")

    def wrong(self, expected: str, *rules: str) -> None:
        """
        Expect that texts are no rules.

        @param expected: what should have been there, in words.
        @param rules: the texts.
        """
        for rule in rules:
            error = self.assertRaises(ValueError, parseTest, rule)
            self.assertIn(f"expected {expected}", str(error))
            self.assertIn(", found ", str(error))


class SyntaxTests(RuleTestCase):
    """Tests for what is no rule."""

    def test_noKind(self) -> None:
        """A rule begins with a known kind, and has something behind it."""
        self.wrong(
            "dns:, ip:, ", "", ":", "dns", "dns:", "DNS:a", "a.lab", "other:a", "dns.CN:a", "tag:"
        )
        self.wrong("dns:, ip:, ", "subject:", "subject.CN:", "names.CN:a", "san:dns:a")

    def test_found(self) -> None:
        """The error has what was found."""
        error = self.assertRaises(ValueError, parseTest, "dsn:a.lab")
        self.assertIn("found 'dsn:a.lab'", str(error))


class DNSTests(RuleTestCase):
    """Tests for C{dns:}."""

    def test_name(self) -> None:
        """Any of the names may match, whatever the case on either side, and as a whole."""
        presented = peer(x509.DNSName("other.lab"), x509.DNSName("Client.lab"))
        self.answers(True, presented, "dns:client.lab", "dns:CLIENT.Lab", "dns:cl?ent.*")
        self.answers(False, presented, "dns:client", "dns:lab", "dns:a.client.lab", "dns:client.la")

    def test_oneLabel(self) -> None:
        """A star stays in one label, as a wildcard in a certificate would."""
        presented = peer(x509.DNSName("a.example.org"))
        self.answers(True, presented, "dns:*.example.org", "dns:*.*.*", "dns:a.ex*e.org")
        self.answers(
            False, presented, "dns:*", "dns:*.org", "dns:*.*.example.org", "dns:a?example.org"
        )

    def test_wildcardOfCertificate(self) -> None:
        """A wildcard is not expanded: it is allowed by its own text, and denied by what fits it."""
        presented = peer(x509.DNSName("*.Example.org"))
        self.answers(True, presented, "dns:*.example.org")
        self.answers(None, presented, "dns:*.*.org", "dns:?.example.org", "dns:a.example.org")
        self.answers(False, presented, "dns:a.b.example.org", "dns:*", "dns:*.other.org")

    def test_wildcardsThatCover(self) -> None:
        """Nobody can tell of a rule and a wildcard if there is a host for which both stand."""
        for name, covered, others in (
            (
                "*.cluster.example.org",
                ("laptop7.cluster.example.org", "l*.cluster.example.org", "*.*.example.org"),
                ("laptop7.example.org", "a.laptop7.cluster.example.org", "cluster.example.org"),
            ),
            (
                "l*.lab",
                ("laptop7.lab", "?aptop7.lab", "*7.lab", "l.lab"),
                ("x.lab", "?.x", "xl*.lab"),
            ),
            ("*7.lab", ("laptop7.lab", "l*.lab", "?.lab", "7.lab"), ("laptop8.lab", "*8.lab")),
            (
                "l*7.lab",
                ("laptop7.lab", "l7.lab", "l?7.lab"),
                ("l.lab", "7.lab", "?.lab", "*8.lab"),
            ),
            ("a.*.lab", ("a.b.lab", "*.b.lab", "?.?.lab"), ("b.b.lab", "a.lab", "a.b.c.lab")),
            ("*.*.lab", ("a.b.lab", "*.b.lab"), ("a.lab", "a.b.c.lab")),
            ("*", ("a", "?"), ("a.b", "*.b")),
            ("*.lab.", ("a.lab", "*.lab"), ("a.b.lab", "a.lax")),
            ("a..lab", ("a.*.lab",), ("a.b.lab", "a.lab")),
        ):
            presented = peer(x509.DNSName(name), x509.DNSName("other.example"))
            self.answers(None, presented, *(f"dns:{rule}" for rule in covered))
            self.answers(False, presented, *(f"dns:{rule}" for rule in others))
            self.answers(True, presented, "dns:other.example", "dns:OTHER.*")

    def test_oddNames(self) -> None:
        """Of what is not the name of a host nobody can tell, unless another name is meant."""
        for odd in (
            *("\u212aing.lab", "l\u0131nux.lab", "m\u00fcller.lab", "\uff4b\uff49\uff4e\uff47.lab"),
            *(
                " king.lab",
                "king.lab ",
                "king.lab\n",
                "king.lab\x00",
                "king.lab\x00.lab",
                "k ing.lab",
            ),
        ):
            presented = Presented(rawNames((DNS, odd.encode()), (DNS, b"A.lab")))
            self.answers(None, presented, "dns:king.lab", "dns:*.lax", "dns:b")
            self.answers(True, presented, "dns:a.lab", "dns:*.lab")

    @patient
    @given(
        st.lists(st.text("ab*?", min_size=1, max_size=4), min_size=1, max_size=3),
        st.lists(st.text("ab*", min_size=1, max_size=4), min_size=1, max_size=3),
        st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3),
    )
    def test_anyWildcards(self, rule: list[str], name: list[str], host: list[str]) -> None:
        """A host that both match is never missed."""
        if any(len(host) != len(one) or not all(map(reference, one, host)) for one in (rule, name)):
            return
        presented = peer(x509.DNSName(".".join(name)))
        self.assertIsNot(parseTest(f"dns:{'.'.join(rule)}")(presented), False)

    def test_doubtful(self) -> None:
        """A name with an empty label or a dot at the end is allowed by nothing, but denied."""
        self.answers(None, peer(x509.DNSName("a.lab.")), "dns:a.lab", "dns:*.lab")
        self.answers(None, peer(x509.DNSName(".lab")), "dns:*.lab")
        self.answers(False, peer(x509.DNSName("a.lab.")), "dns:b.lab", "dns:*")
        self.answers(True, peer(x509.DNSName("a.lab."), x509.DNSName("a.lab")), "dns:a.lab")

    def test_otherKinds(self) -> None:
        """No other kind of name is looked at, the common name least of all."""
        presented = peer(x509.RFC822Name("client.lab"), common="client.lab")
        self.answers(False, presented, "dns:client.lab", "dns:*.*")

    def test_noName(self) -> None:
        """A pattern that no name could match is an error."""
        self.wrong(
            "the name of a host",
            "dns:a..b",
            "dns:.a",
            "dns:a.",
            "dns: a",
            "dns:a b",
            "dns:m\u00fcller.lab",
            "dns:\u212a.lab",
            "dns:a/b",
            "dns:a\n",
        )

    @patient
    @given(
        st.lists(st.text("abAB*?-", min_size=1, max_size=4), min_size=1, max_size=4),
        st.lists(
            st.lists(st.text("abAB-", min_size=1, max_size=4), min_size=1, max_size=4),
            min_size=1,
            max_size=4,
        ),
    )
    @example(["*"], [["a", "b"]])
    @example(["*", "b"], [["a", "a", "b"], ["a", "b"]])
    def test_asDefined(self, pattern: list[str], names: list[list[str]]) -> None:
        """A pattern matches if some name has as many labels, each matching its own."""
        expected = any(
            len(pattern) == len(labels)
            and all(
                reference(piece.lower(), label.lower())
                for piece, label in zip(pattern, labels, strict=True)
            )
            for labels in names
        )
        presented = peer(*(x509.DNSName(".".join(labels)) for labels in names))
        self.answers(expected, presented, f"dns:{'.'.join(pattern)}")


class IPTests(RuleTestCase):
    """Tests for C{ip:}."""

    def test_networks(self) -> None:
        """An address is in a network, which may be one address."""
        presented = peer(address("10.0.0.5"), address("fd00::5"))
        self.answers(True, presented, "ip:10.0.0.5", "ip:10.0.0.0/24", "ip:10.0.0.0/255.0.0.0")
        self.answers(True, presented, "ip:0.0.0.0/0", "ip:fd00::5", "ip:fd00::/8", "ip:::/0")
        self.answers(
            False, presented, "ip:10.0.0.6", "ip:10.0.1.0/24", "ip:fd00::6", "ip:fe80::/10"
        )

    def test_mapped(self) -> None:
        """An IPv6 address that stands for one of IPv4 is neither: nobody can tell what is meant."""
        presented = peer(address("::ffff:10.0.0.5"))
        self.answers(None, presented, "ip:10.0.0.5", "ip:10.0.0.0/8", "ip:::/0", "ip:11.0.0.0/8")
        both = peer(address("::ffff:10.0.0.5"), address("10.0.0.6"))
        self.answers(True, both, "ip:10.0.0.6", "ip:10.0.0.0/8")
        self.answers(None, both, "ip:10.0.0.5")
        self.wrong(
            "the IPv4 address or network itself",
            *("ip:::ffff:10.0.0.5", "ip:::ffff:10.0.0.0/104", "ip:::ffff:0.0.0.0/96"),
        )

    def test_versions(self) -> None:
        """No IPv6 address is in an IPv4 network."""
        self.answers(False, peer(address("::a00:5")), "ip:10.0.0.5", "ip:0.0.0.0/0")

    def test_networkInCertificate(self) -> None:
        """A network in a certificate is no address: it is allowed by nothing, but denied."""
        presented = peer(address("10.0.0.0/8"))
        self.answers(None, presented, "ip:10.0.0.0/8", "ip:10.0.0.1", "ip:fd00::1")
        self.answers(True, peer(address("10.0.0.0/8"), address("10.0.0.1")), "ip:10.0.0.1")

    def test_otherKinds(self) -> None:
        """An address that is a name of a host is none."""
        self.answers(False, peer(x509.DNSName("10.0.0.5")), "ip:10.0.0.5")

    def test_noNetwork(self) -> None:
        """What is no network is an error, and so is one with host bits or a zone."""
        self.wrong("an address or a network", "ip:a", "ip:10.0.0.1/8", "ip:10.*", "ip:10.0.0.0/33")
        self.wrong("an address or a network without a zone", "ip:fe80::1%eth0", "ip:fe80::%1/64")

    @patient
    @given(
        st.lists(st.ip_addresses(), min_size=1, max_size=4),
        st.none() | st.ip_addresses(),
        st.integers(0, 128),
    )
    def test_asDefined(
        self,
        addresses: list[IPAddress],
        other: IPAddress | None,
        length: int,
    ) -> None:
        """An address is in a network exactly if it begins with its bits."""
        base = other or addresses[0]
        assume(length <= base.max_prefixlen)
        network = ipaddress.ip_network(f"{base}/{length}", strict=False)
        for one in (*addresses, network[0]):
            assume(not isinstance(one, ipaddress.IPv6Address) or one.ipv4_mapped is None)
        expected = any(one in network for one in addresses)
        presented = peer(*map(x509.IPAddress, addresses))
        self.answers(expected, presented, f"ip:{network}")


class URITests(RuleTestCase):
    """Tests for C{uri:}."""

    def uri(self, text: str) -> Presented:
        """
        Make a peer with a URI.

        @param text: the URI.
        @return: the peer.
        """
        return peer(x509.UniformResourceIdentifier(text))

    def test_spiffe(self) -> None:
        """A SPIFFE ID is matched with its trust domain, and a star also stands for slashes."""
        presented = self.uri("spiffe://example.org/ns/storage/sa/client")
        self.answers(
            True,
            presented,
            "uri:spiffe://example.org/ns/storage/sa/client",
            "uri:spiffe://example.org/ns/storage/*",
            "uri:spiffe://example.org/*",
            "uri:spiffe://example.*/ns/*/client",
            "uri:spiffe://*/ns/storage/sa/?lient",
            "uri:spiffe:*",
            "uri:*:*",
            "uri:*://example.org/*",
        )
        self.answers(
            False,
            presented,
            "uri:spiffe://example.org",
            "uri:spiffe://example.org/",
            "uri:spiffe://example.org/ns/other/*",
            "uri:spiffe://example.com/*",
            "uri:https://example.org/*",
            "uri:https:*",
            "uri:spiffe:/*",
            "uri:spiffe:ns/storage/sa/client",
        )

    def test_trustDomain(self) -> None:
        """No star of the trust domain reaches behind it, and none behind it into it."""
        for text in (
            "spiffe://evil.com/x.example.org/ns/a",
            "spiffe://evil.com/.example.org/ns/a",
            "spiffe://evil.com?.example.org/ns/a",
            "spiffe://evil.com#.example.org/ns/a",
            "spiffe://evil.com:80.example.org/ns/a",
            "spiffe://x.example.org@evil.com/ns/a",
            "spiffe://user@x.example.org/ns/a",
            "spiffe://example.org/ns/a",
            "spiffe:x.example.org/ns/a",
            "spiffe:///x.example.org/ns/a",
        ):
            self.answers(False, self.uri(text), "uri:spiffe://*.example.org/ns/*")
            self.answers(False, self.uri(text), "uri:spiffe://????????.example.org/ns/*")
        self.answers(
            True, self.uri("spiffe://a.b.example.org/ns/a"), "uri:spiffe://*.example.org/ns/*"
        )
        self.answers(False, self.uri("spiffe://evil.com/x"), "uri:spiffe://example.org*")

    def test_case(self) -> None:
        """The case of scheme and authority does not count, that of the rest does."""
        presented = self.uri("SPIFFE://Example.org/Ns/A")
        self.answers(True, presented, "uri:spiffe://example.org/Ns/A", "uri:Spiffe://EXAMPLE.*/N*")
        self.answers(False, presented, "uri:spiffe://example.org/ns/a", "uri:spiffe://*/n*")

    def test_others(self) -> None:
        """Ports, queries and URIs without an authority are matched as they are."""
        self.answers(True, self.uri("https://a.lab:8443/x?y=z#f"), "uri:https://*:8443/x?y=*")
        self.answers(
            False, self.uri("https://a.lab:8443/x"), "uri:https://*/x", "uri:https://a.*/x"
        )
        presented = self.uri("urn:uuid:f81d4fae-7dec-11d0")
        self.answers(True, presented, "uri:urn:uuid:f81d4fae-*", "uri:URN:*", "uri:u?n:uuid:*")
        self.answers(False, presented, "uri:urn:UUID:*", "uri:urn://*", "uri:urn:uuid:")
        self.answers(False, self.uri("spiffe/a:b"), "uri:spiffe:*", "uri:*:*")
        self.answers(False, self.uri("spiffe://a/%6es"), "uri:spiffe://a/ns")

    def test_noURI(self) -> None:
        """A pattern without a scheme, or whose host could be anywhere, is an error."""
        self.wrong(
            "SCHEME:*, SCHEME://HOST/PATH",
            "uri:*",
            "uri:example.org",
            "uri://example.org/",
            "uri:/a:b",
            "uri:spiffe:*example.org/a",
            "uri:spiffe:?/a",
            "uri:spiffe://m\u00fcller/a",
            "uri:spiffe://a/b c",
            "uri:spiffe://a/\n",
            "uri:spiffe://a/b\n",
        )
        self.answers(True, self.uri("urn:"), "uri:urn:")


class EmailTests(RuleTestCase):
    """Tests for C{email:}."""

    def test_address(self) -> None:
        """The case of the domain does not count, that of the local part does."""
        presented = peer(x509.RFC822Name("Root@Example.org"))
        self.answers(True, presented, "email:Root@example.org", "email:*@EXAMPLE.org")
        self.answers(True, presented, "email:R??t@*", "email:Root@*.org")
        self.answers(False, presented, "email:root@example.org", "email:Root@example.com")

    def test_domain(self) -> None:
        """The domain is what is behind the last at sign, and no star reaches over that."""
        presented = peer(x509.RFC822Name('"a@example.org"@evil.com'))
        self.answers(False, presented, "email:*@example.org*", "email:*a@*")
        self.answers(True, presented, "email:*@evil.com", 'email:"a@example.org"@*')
        self.answers(False, peer(x509.RFC822Name("example.org")), "email:*@*")

    def test_noAddress(self) -> None:
        """A pattern without both parts is an error."""
        self.wrong("LOCAL@DOMAIN", "email:*", "email:example.org", "email:@a", "email:a@")
        self.wrong("LOCAL@DOMAIN", "email:m\u00fcller@lab", "email:a@b c")


class OtherNameTests(RuleTestCase):
    """Tests for C{othername:}."""

    def other(self, encoded: bytes, oid: str = UPN) -> x509.OtherName:
        """
        Make an otherName.

        @param encoded: its value.
        @param oid: its type.
        @return: the name.
        """
        return x509.OtherName(x509.ObjectIdentifier(oid), encoded)

    def test_text(self) -> None:
        """A string of each of the three types is matched, its case included."""
        for tag in (0x0C, 0x13, 0x16):
            presented = peer(self.other(bytes([tag, 5]) + b"bob.x"))
            self.answers(True, presented, f"othername:{UPN}=bob.x", f"othername:{UPN}=b*.?")
            self.answers(False, presented, f"othername:{UPN}=Bob.x", f"othername:{UPN}=bob")
            self.answers(False, presented, "othername:1.2.3=bob.x", "dns:bob.x", "email:*@*")

    def test_anyLetters(self) -> None:
        """Letters beyond ASCII, and an equals sign, stand for themselves."""
        presented = peer(self.other(b"\x0c\x08a=m\xc3\xbcllr"))
        self.answers(True, presented, f"othername:{UPN}=a=m\u00fcllr", f"othername:{UPN}=a=m?ll*")

    def test_unreadable(self) -> None:
        """What is no text is allowed by nothing, but denied by each rule on its type."""
        for encoded in (b"\x05\x00", b"\x13\x01*", b"\x0c\x01\xff", b"\x1e\x02\x00b"):
            presented = peer(self.other(encoded))
            self.answers(None, presented, f"othername:{UPN}=bob", f"othername:{UPN}=*")
            self.answers(False, presented, "othername:1.2.3=*")

    def test_severalNames(self) -> None:
        """One that matches is enough, whatever else there is."""
        presented = peer(self.other(b"\x05\x00"), self.other(b"\x0c\x03bob"))
        self.answers(True, presented, f"othername:{UPN}=bob")
        self.answers(None, presented, f"othername:{UPN}=eve")

    def test_noOtherName(self) -> None:
        """A rule without an OID or a pattern is an error."""
        self.wrong("OID=PATTERN", f"othername:{UPN}", f"othername:{UPN}=", "othername:UPN=a")
        self.wrong("OID=PATTERN", "othername:=a", "othername:1.=a", "othername:9.9.9=a")

    @patient
    @given(st.binary(min_size=2, max_size=30), st.text("ab*?", min_size=1, max_size=5))
    def test_neverRaises(self, encoded: bytes, pattern: str) -> None:
        """Whatever the value is, there is an answer, and a text matches as defined."""
        presented = peer(self.other(bytes([0x0C, len(encoded)]) + encoded))
        try:
            expected: bool | None = reference(pattern, encoded.decode())
        except UnicodeDecodeError:
            expected = None
        self.answers(expected, presented, f"othername:{UPN}={pattern}")


class NameTests(RuleTestCase):
    """Tests for C{subject:}, C{issuer:}, and their attributes."""

    def test_attribute(self) -> None:
        """Any of several values may match; their case counts, that of the short name does not."""
        presented = peer(
            attributes=[("2.5.4.10", "Example, Inc."), ("2.5.4.11", "a"), ("2.5.4.11", "Storage")],
            common="client.lab",
        )
        self.answers(True, presented, "subject.CN:client.lab", "subject.cn:*.lab")
        self.answers(True, presented, "subject.OU:a", "subject.OU:Stor?ge", "subject.2.5.4.11:S*")
        self.answers(True, presented, "subject.O:Example, Inc.", "issuer.CN:Lab CA")
        self.answers(False, presented, "subject.UID:*", "issuer.OU:a", "issuer.CN:client.lab")

    def test_everyShortName(self) -> None:
        """The short names are those of RFC 4514, section 3."""
        for name, oid in (
            ("CN", "2.5.4.3"),
            ("L", "2.5.4.7"),
            ("ST", "2.5.4.8"),
            ("O", "2.5.4.10"),
            ("OU", "2.5.4.11"),
            ("C", "2.5.4.6"),
            ("STREET", "2.5.4.9"),
            ("DC", "0.9.2342.19200300.100.1.25"),
            ("UID", "0.9.2342.19200300.100.1.1"),
        ):
            presented = peer(attributes=[(oid, "xy")])
            self.answers(True, presented, f"subject.{name}:xy", f"subject.{oid}:xy")
            self.answers(False, presented, f"subject.{name}:x")

    def test_noText(self) -> None:
        """A value that is no text is allowed by nothing, but denied by rules on it."""
        identifier = x509.NameAttribute(
            x509.NameOID.X500_UNIQUE_IDENTIFIER, b"\x00\x01", x509.name._ASN1Type.BitString
        )
        issued = certificates.authority().issue("a", attributes=[identifier])  # type: ignore[list-item]
        presented = Presented(issued.certificate)
        self.answers(None, presented, "subject.2.5.4.45:*")
        self.answers(True, presented, "subject.CN:a", "subject:CN=a,2.5.4.45=#0001")

    def test_wholeName(self) -> None:
        """The whole name is matched as RFC 4514 writes it, the most specific part first."""
        presented = peer(attributes=[("2.5.4.10", "Example"), ("2.5.4.11", "a")], common="b")
        self.answers(True, presented, "subject:CN=b,OU=a,O=Example", "subject:*,O=Example")
        self.answers(True, presented, "subject:*", "issuer:CN=Lab CA", "issuer:CN=*")
        self.answers(False, presented, "subject:O=Example,OU=a,CN=b", "subject:CN=b", "issuer:O=*")
        self.answers(False, presented, "subject:cn=b,OU=a,O=Example", "issuer:CN=b,OU=a,O=Example")
        self.answers(False, peer(x509.DNSName("a")), "subject:CN=*")

    def test_escapes(self) -> None:
        """A separator in a value is no separator: nobody gets an attribute by its common name."""
        for name in ("eve,O=Example", "eve+O=Example", "eve\\,O=Example"):
            presented = peer(common=name)
            self.answers(False, presented, "subject:CN=*,O=Example", "subject:CN=*+O=Example")
            self.answers(False, presented, "subject:CN=eve?O=Example,*", "subject.O:Example")
            self.answers(True, presented, "subject:CN=eve*O=Example", f"subject.CN:{name}")
        self.answers(True, peer(common="a,b"), "subject:CN=a\\,b", "subject:CN=a?b")
        self.answers(False, peer(common="a,b"), "subject:CN=a,b", "subject:CN=a??b")

    def test_noName(self) -> None:
        """An attribute that is not known, and a name without any, are errors."""
        self.wrong("CN, L, ST, O, OU, C, STREET, DC, UID or a dotted OID", "subject.XY:a")
        self.wrong("CN, L, ST, ", "issuer.:a", "subject.commonName:a", "subject.2.:a")
        self.wrong("a name as in RFC 4514", "subject:client.lab", "issuer:Lab CA")


class OtherRuleTests(RuleTestCase):
    """Tests for C{fingerprint:}, C{tag:}, and what all rules do alike."""

    def test_fingerprint(self) -> None:
        """Neither case nor colons count."""
        issued = certificates.client()
        presented = Presented(issued.certificate, certificates.authority().certificate)
        digits = issued.fingerprint
        pairs = ":".join(digits[place : place + 2] for place in range(0, 64, 2))
        self.answers(True, presented, f"fingerprint:{digits}", f"fingerprint:{pairs.upper()}")
        other = certificates.server().fingerprint
        self.answers(False, presented, f"fingerprint:{other}")

    def test_otherForm(self) -> None:
        """A certificate is not the other form of itself, but nobody can tell which was meant."""
        issued, authority = certificates.client(), certificates.authority().certificate
        (form,) = otherForms(issued.certificate, authority) or ()
        other = x509.load_der_x509_certificate(form)
        shown, hidden = (
            f"fingerprint:{one.fingerprint(hashes.SHA256()).hex()}"
            for one in (issued.certificate, other)
        )
        self.answers(True, Presented(issued.certificate, authority), shown)
        self.answers(None, Presented(issued.certificate, authority), hidden)
        self.answers(True, Presented(other, authority), hidden)
        self.answers(None, Presented(other, authority), shown)

    def test_formsThatNobodyKnows(self) -> None:
        """Of a certificate that nobody has verified only its own fingerprint is known."""
        issued = certificates.client()
        self.answers(True, Presented(issued.certificate), f"fingerprint:{issued.fingerprint}")
        other = certificates.server().fingerprint
        self.answers(None, Presented(issued.certificate), f"fingerprint:{other}")

    def test_signedContent(self) -> None:
        """All forms of a certificate have one content, one key and one number, and no others."""
        authority = certificates.authority()
        issued, another = authority.issue("a"), authority.issue("a")
        number = issued.certificate.serial_number
        rules = (
            f"content:{contentDigest(issued.certificate).hex()}",
            f"key:{keyDigest(issued.certificate).hex().upper()}",
            f"serial:{number:x},CN=Lab CA",
            f"serial:{number:X},CN=Lab*",
        )
        (form,) = otherForms(issued.certificate, authority.certificate) or ()
        for certificate in (issued.certificate, x509.load_der_x509_certificate(form)):
            self.answers(True, Presented(certificate), *rules)
            self.answers(
                False,
                Presented(certificate),
                f"serial:{number:x},CN=Lab",
                f"serial:{number + 1:x},CN=Lab CA",
            )
        self.answers(False, Presented(another.certificate), *rules)
        self.answers(False, Presented(None), *rules)

    def test_serial(self) -> None:
        """A number may have zeroes before it, colons in it and a sign, as OpenSSL shows it."""
        for number, texts in (
            (0xAB12, ("ab12", "AB12", "AB:12", "00ab12", "00:ab:12", "0AB12")),
            (1, ("1", "01", "00:01")),
        ):
            presented = Presented(anyCertificate(serial=number))
            for text in texts:
                self.answers(True, presented, f"serial:{text},CN=Lab CA,O=Lab,C=DE")
                self.answers(False, presented, f"serial:-{text},CN=Lab CA,O=Lab,C=DE")

    def test_unreadableIssuer(self) -> None:
        """If the issuer cannot be read, a rule about it is told only by another number."""
        presented = Presented(withIssuer(b"\x14\x06\xff\xfe\x00\x1b.x"))
        assert presented.certificate is not None
        number = presented.certificate.serial_number
        self.assertRaises(Unreadable, parseTest(f"serial:{number:x},CN=*"), presented)
        self.answers(False, presented, f"serial:{number + 1:x},CN=*")

    def test_noDigest(self) -> None:
        """A digest has 64 digits, and a number has an issuer."""
        for kind in ("content", "key"):
            self.wrong("a SHA-256 digest of 64", f"{kind}:ab", f"{kind}:sha256:{'a' * 64}")
        for text in (
            "1",
            "1,",
            ",CN=a",
            "1 ,CN=a",
            "0x1,CN=a",
            "*,CN=a",
            f"{'1' * 200},CN=a",
        ):
            self.wrong("a serial number in hexadecimal, a comma", f"serial:{text}")
        self.wrong("a name as in RFC 4514", "serial:1,Lab CA")

    def test_noFingerprint(self) -> None:
        """A fingerprint has 64 digits."""
        digits = certificates.client().fingerprint
        self.wrong(
            "a SHA-256 fingerprint of 64",
            f"fingerprint:{digits[1:]}",
            f"fingerprint:{digits}0",
            f"fingerprint:{digits[1:]}g",
            "fingerprint:*",
            "fingerprint:" + "\u0661" * 64,
        )

    def test_tag(self) -> None:
        """A tag is there by its name, exactly, or nobody knows; a certificate is not needed."""
        tags = {"blue": True, "a_b-1": True, "green": False, "maybe": None}
        for presented in (
            Presented(certificates.client().certificate, tagsOf=lambda _peer: tags),
            Presented(None, tagsOf=lambda _peer: tags),
        ):
            self.answers(True, presented, "tag:blue", "tag:a_b-1")
            self.answers(False, presented, "tag:red", "tag:Blue", "tag:blu", "tag:green")
            self.answers(None, presented, "tag:maybe")

    def test_noTag(self) -> None:
        """The name of a tag has no wildcards."""
        self.wrong("a tag's name", "tag:b*", "tag:a b", f"tag:{'a' * 256}", "tag:\u00fc")

    def test_nobody(self) -> None:
        """No other rule is about who has shown no certificate."""
        digits = certificates.client().fingerprint
        self.answers(
            False,
            Presented(None),
            "dns:*",
            "ip:0.0.0.0/0",
            "ip:::/0",
            "uri:*:*",
            "email:*@*",
            f"othername:{UPN}=*",
            "subject:*",
            "issuer:*",
            "subject.CN:*",
            "issuer.CN:*",
            f"fingerprint:{digits}",
            f"content:{digits}",
            f"key:{digits}",
            "serial:1,*",
            "tag:a",
        )

    def test_unreadable(self) -> None:
        """A rule raises if what it looks at cannot be read, and does not look at the rest."""
        aboutNames = ("dns:a", "ip:::1", "uri:a:*", "email:a@b", f"othername:{UPN}=a")
        for certificate in unreadableNames():
            presented = Presented(certificate)
            for rule in aboutNames:
                self.assertRaises(Unreadable, parseTest(rule), presented)
            self.answers(True, presented, "subject.CN:client.lab", "subject:CN=client.lab")
        presented = Presented(withSubject(b"\x14\x08\xff\xfe\x00\x1b.lab"))
        for rule in ("subject:*", "subject.CN:*", "subject.O:*"):
            self.assertRaises(Unreadable, parseTest(rule), presented)
        self.answers(True, presented, "issuer.CN:Lab CA")
        presented = Presented(withIssuer(b"\x14\x06\xff\xfe\x00\x1b.x"))
        for rule in ("issuer:*", "issuer.CN:*"):
            self.assertRaises(Unreadable, parseTest(rule), presented)
        self.answers(True, presented, "subject.CN:host.lab")

    @patient
    @given(
        st.sampled_from(
            (
                *("dns:", "ip:", "uri:", "email:", "othername:", "othername:1.2=", "subject:"),
                *("subject.CN:", "issuer.", "fingerprint:", "tag:", "key:", "serial:", ""),
            )
        ),
        st.text(max_size=20) | st.text("a1.:/@=*?%", max_size=20),
    )
    @example("uri:", "a:")
    @example("ip:", "1.2.3.4%1")
    def test_anyText(self, kind: str, text: str) -> None:
        """Whatever a rule looks like, it is refused by words or has an answer."""
        try:
            test = parseTest(kind + text)
        except ValueError as error:
            self.assertRegex(str(error), r"\Aexpected (?s:.+), found (?s:.+)")
            return
        certificate, authority = certificates.server().certificate, certificates.authority()
        answer = test(Presented(certificate, authority.certificate))
        self.assertIn(answer, (True, False))
