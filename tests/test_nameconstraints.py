"""Tests for L{ktlsagent.peers.nameconstraints}."""

from __future__ import annotations

import functools
import ipaddress
import time
from collections.abc import Sequence

from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.peers.generalnames import DNS, EMAIL, IP, OTHER_NAME, URI
from ktlsagent.peers.nameconstraints import judgeNames, whyNot
from ktlsagent.protocols.asn1 import Element, encode
from tests.support import certificates
from tests.support.anycertificate import anyCertificate
from tests.support.properties import patient
from tests.support.unreadable import rawNames, unreadableNames, withNames

Names = Sequence[tuple[int, bytes]]

ATTRIBUTE = "1.2.840.113549.1.9.1"
"""C{emailAddress}."""


def authority(content: bytes, subject: str = "CN=Sub", issuer: str = "CN=Root") -> x509.Certificate:
    """
    Make a CA certificate.

    @param content: what its name constraints hold.
    @param subject: its subject.
    @param issuer: its issuer.
    @return: the certificate.
    """
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.30"), content)
    return anyCertificate(extension, subject=subject, issuer=issuer)


def subtrees(tag: int, bases: Names) -> bytes:
    """
    Encode subtrees.

    @param tag: which.
    @param bases: the tags of the names, and what is in them.
    @return: the subtrees; nothing if there is none.
    """
    content = b"".join(encode(0x30, encode(kind, base)) for kind, base in bases)
    return encode(tag, content) if bases else b""


def constrained(permitted: Names = (), excluded: Names = ()) -> x509.Certificate:
    """
    Make a CA certificate with constraints.

    @param permitted: the bases of the permitted subtrees.
    @param excluded: those of the excluded ones.
    @return: the certificate.
    """
    return authority(
        encode(0x30, subtrees(0xA0, permitted) + subtrees(0xA1, excluded)),
    )


def network(text: str) -> bytes:
    """
    Encode a network.

    @param text: the network.
    @return: address and mask.
    """
    found = ipaddress.ip_network(text)
    return found.network_address.packed + found.netmask.packed


@functools.cache
def root() -> x509.Certificate:
    """
    Make a root.

    @return: always the same.
    """
    return certificates.authority().certificate


class ReferenceTests(SynchronousTestCase):
    """Tests for L{whyNot}."""

    def why(self, text: str, *chain: x509.Certificate) -> str | None:
        """
        Ask whether CAs may vouch for a name.

        @param text: a DNS name or an address.
        @param chain: the CAs.
        @return: the reason why not.
        """
        try:
            asked = Element(IP, ipaddress.ip_address(text).packed, b"")
        except ValueError:
            asked = Element(DNS, text.encode(), b"")
        return whyNot(asked, [root(), *chain, root()])

    def test_hosts(self) -> None:
        """A host is in the subtree of itself, and of each name that it ends with."""
        for base, inside, outside in (
            (
                "bar.lab",
                ("bar.lab", "a.bar.lab", "a.b.BAR.Lab"),
                ("lab", "xbar.lab", "bar.lab.x"),
            ),
            ("BAR.lab", ("bar.lab",), ("a.lab",)),
            (".bar.lab", ("a.bar.lab", "a.b.bar.lab"), ("bar.lab", "foobar.lab", "a.lab")),
            ("", ("bar.lab", "x"), ()),
            ("lab", ("lab", "a.lab"), ("alab", "lab.x")),
            ("my_bar.lab", ("my_bar.lab", "a.my_bar.lab"), ("mybar.lab",)),
        ):
            permits = constrained(permitted=[(DNS, base.encode())])
            excludes = constrained(excluded=[(DNS, base.encode())])
            for text in inside:
                self.assertIsNone(self.why(text, permits), (base, text))
                self.assertIn("which it excludes", self.why(text, excludes) or "", (base, text))
            for text in outside:
                self.assertIn("while it permits", self.why(text, permits) or "", (base, text))
                self.assertIsNone(self.why(text, excludes), (base, text))

    def test_addresses(self) -> None:
        """An address is in a network of its own version."""
        for base, inside, outside in (
            ("10.0.0.0/8", ("10.0.0.1", "10.255.0.1"), ("11.0.0.1", "::a00:1", "::ffff:10.0.0.1")),
            ("10.0.0.1/32", ("10.0.0.1",), ("10.0.0.2",)),
            ("0.0.0.0/0", ("10.0.0.1",), ("::1",)),
            ("fd00::/8", ("fd00::1",), ("fe00::1", "10.0.0.1")),
            ("::/0", ("::1", "::ffff:10.0.0.1"), ("10.0.0.1",)),
        ):
            permits = constrained(permitted=[(IP, network(base))])
            excludes = constrained(excluded=[(IP, network(base))])
            for text in inside:
                self.assertIsNone(self.why(text, permits), (base, text))
                self.assertIn("which it excludes", self.why(text, excludes) or "", (base, text))
            for text in outside:
                self.assertIn("while it permits", self.why(text, permits) or "", (base, text))
                self.assertIsNone(self.why(text, excludes), (base, text))

    def test_everyAuthority(self) -> None:
        """Every CA of the chain has to permit it, the root too, and the reason names it."""
        free = anyCertificate(subject="CN=Free")
        good = constrained([(DNS, b"lab"), (DNS, b"x")], [(DNS, b"b.lab")])
        bad = constrained(excluded=[(DNS, b"c.lab"), (DNS, b"a.lab")])
        self.assertIsNone(self.why("a.lab", good, free))
        for chain in ((bad,), (good, bad), (free, bad, good), (bad, free)):
            words = self.why("a.lab", *chain)
            depth = chain.index(bad) + 1
            self.assertEqual(
                words, f"dns:a.lab, which it excludes (the CA certificate at depth {depth}, CN=Sub)"
            )
        self.assertIn("while it permits dns:lab, dns:x (the CA", self.why("a.org", good) or "")
        asked = Element(DNS, b"a.lab", b"")
        self.assertIsNotNone(whyNot(asked, [free, bad]))
        # The constraints of the peer's own certificate are about others.
        self.assertIsNone(whyNot(asked, [bad, free]))

    def test_otherKinds(self) -> None:
        """Constraints on other kinds of names do not matter, whatever is in them."""
        others = [(kind, b"\xff") for kind in (URI, EMAIL, OTHER_NAME, 0xA4, 0x88, 0xA3)]
        for kind, text in ((IP, "a.lab"), (DNS, "10.0.0.1")):
            for ca in (constrained([*others, (kind, b"\xff")]), constrained((), others)):
                self.assertIsNone(self.why(text, ca))

    def test_unreadable(self) -> None:
        """Constraints that cannot be read permit nothing."""
        limited = encode(0x30, encode(DNS, b"x") + encode(0x80, b"\x01"))
        for ca in (
            *(
                constrained(excluded=[(DNS, base)])
                for base in (b"*.lab", b"x.", b"..x", b" x", b".")
            ),
            *(
                constrained(excluded=[(DNS, base)])
                for base in (b"\xff", b"x\x00", b"a..b", b"x" * 300)
            ),
            *(
                authority(content)
                for content in (b"", b"\x05\x00", b"\x30\x01", b"\x30\x02\xa2\x00")
            ),
            authority(encode(0x30, encode(0xA0, b"\x05"))),
            authority(encode(0x30, encode(0xA0, b"\x30\x00"))),
            authority(encode(0x30, encode(0xA1, limited))),
        ):
            self.assertIn("constraints that cannot be read (", self.why("a.lab", ca) or "")
        for base in (b"", b"\x0a", bytes(4), bytes(16), bytes(9), bytes(33), bytes(64)):
            for ca in (constrained([(IP, base)]), constrained((), [(IP, base)])):
                self.assertIn("constraints that cannot be read (", self.why("10.0.0.1", ca) or "")

    @patient
    @given(
        st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(".".join),
        st.lists(st.sampled_from("ab"), max_size=4).map(".".join),
        st.booleans(),
    )
    def test_asDefined(self, host: str, base: str, dotted: bool) -> None:  # noqa: FBT001
        """A host is in a subtree if labels can be added on the left of its base to make it."""
        below = host.endswith(f".{base}") or base == ""
        dotted = dotted and base != ""
        expected = below or (host == base and not dotted)
        text = f".{base}".encode() if dotted else base.encode()
        self.assertEqual(self.why(host, constrained([(DNS, text)])) is None, expected)
        self.assertEqual(self.why(host, constrained((), [(DNS, text)])) is not None, expected)


class NamesTests(SynchronousTestCase):
    """Tests for L{judgeNames}."""

    def judge(self, certificate: x509.Certificate, *chain: x509.Certificate) -> str | None:
        """
        Judge a chain.

        @param certificate: the peer's own certificate.
        @param chain: those above it.
        @return: the words of the refusal.
        """
        refusal = judgeNames([certificate, *chain, root()], "client")
        if refusal is None:
            return None
        self.assertEqual(refusal.code, "certificate-invalid")
        self.assertTrue(refusal.reason.isprintable())
        return refusal.reason

    def inside(self, kind: int, base: str, *texts: str) -> None:
        """
        Expect that names are in a subtree.

        @param kind: of the names.
        @param base: of the subtree.
        @param texts: the names.
        """
        for text in texts:
            shown = rawNames((DNS, b"a.lab"), (kind, text.encode()))
            ca = constrained([(kind, base.encode())])
            self.assertIsNone(self.judge(shown, ca), (base, text))
            ca = constrained((), [(kind, b"other.lab"), (kind, base.encode())])
            self.assertIn("which it excludes", self.judge(shown, ca) or "", (base, text))

    def outside(self, kind: int, base: str, *texts: str) -> None:
        """
        Expect that names are not in a subtree.

        @param kind: of the names.
        @param base: of the subtree.
        @param texts: the names.
        """
        for text in texts:
            shown = rawNames((kind, text.encode()))
            ca = constrained([(kind, base.encode())])
            self.assertIn("while it permits", self.judge(shown, ca) or "", (base, text))
            ca = constrained((), [(kind, base.encode())])
            self.assertIsNone(self.judge(shown, ca), (base, text))

    def incomparable(self, kind: int, *texts: str) -> None:
        """
        Expect that names cannot be compared with any constraint, but do not matter without.

        @param kind: of the names.
        @param texts: the names.
        """
        for text in texts:
            shown = rawNames((kind, text.encode()))
            for bases in ([(kind, b"x.lab")], [(kind, b"")]):
                for ca in (constrained(bases), constrained((), bases)):
                    words = self.judge(shown, ca) or ""
                    self.assertIn("which cannot be compared with its constraints", words, text)
            self.assertIsNone(self.judge(shown, constrained([(DNS, b"x")], [(IP, bytes(8))])))

    def test_uris(self) -> None:
        """A URI is where its host is."""
        self.inside(URI, "", "spiffe://prod.lab/x", "a://b", "https://u:p@h:1/?#")
        self.inside(URI, "prod.lab", "spiffe://prod.lab", "A://PROD.lab/x", "a://prod.lab:80/x:y@z")
        self.inside(
            URI, "prod.lab", "a://prod.lab?x", "a://prod.lab#x", "a://u@prod.lab/", "a://@prod.lab"
        )
        self.inside(URI, ".lab", "a://prod.lab/", "a://x.prod.lab")
        self.outside(URI, "prod.lab", "a://x.prod.lab/", "a://lab/prod.lab", "a://xprod.lab/")
        self.outside(URI, "prod.lab", "a://x?://prod.lab/", "a://x#@prod.lab", "a://prod.lab@x/")
        self.outside(URI, ".lab", "a://lab/", "a://xlab")

    def test_otherURIs(self) -> None:
        """A URI without a host that has a name is in no subtree, and out of none."""
        self.incomparable(
            URI,
            *("urn:uuid:f8", "", "a", "a:/x.lab", "//x.lab/", "a://", "a:///x.lab", "://x.lab"),
            *(
                "a://10.0.0.1/",
                "a://[::1]/",
                "a://x.lab./",
                "a://x%2elab/",
                "a://x lab/",
                "a://x.lab:y/",
            ),
            *(
                "a://x@y@x.lab/",
                "a://x..lab/",
                "a://\u212a.lab/",
                "a://x.lab/\n",
                "a://*.lab/",
                "a://1/",
            ),
            "a://" + "x." * 200 + "lab/",
        )

    def test_emails(self) -> None:
        """An address of e-mail is in the subtrees of its mailbox and its host."""
        self.inside(EMAIL, "", "root@a.lab", "x@y")
        self.inside(EMAIL, "a.lab", "root@a.lab", "o'brien+x@A.LAB")
        self.inside(EMAIL, ".lab", "root@a.lab", "root@b.a.lab")
        self.inside(EMAIL, "Root@a.lab", "Root@a.lab", "Root@A.lab")
        self.outside(EMAIL, "a.lab", "root@b.a.lab", "root@lab", "a.lab@x", "root@xa.lab")
        self.outside(EMAIL, ".lab", "root@lab", "x@xlab")
        self.outside(EMAIL, "root@a.lab", "roo@a.lab", "xroot@a.lab", "root@b.a.lab")
        self.incomparable(
            EMAIL,
            *(
                "",
                "root",
                "@x.lab",
                "root@",
                '"root"@x.lab',
                "a@b@x.lab",
                "root@x.lab.",
                "ro ot@x.lab",
            ),
            *("root@x.lab\n", "root@[10.0.0.1]", "r\\oot@x.lab", "\u212a@x.lab", "root@\u212a.lab"),
        )

    def test_subject(self) -> None:
        """An address in the subject is one, too."""
        for text in ("a@b.lab", "a"):
            attribute = x509.NameAttribute(x509.ObjectIdentifier(ATTRIBUTE), text)
            shown = anyCertificate(subject=x509.Name([attribute]))
            for ca in (constrained([(EMAIL, b"c.lab")]), constrained((), [(EMAIL, b"")])):
                self.assertIsNotNone(self.judge(shown, ca))
            self.assertIsNone(self.judge(shown, constrained((), [(URI, b"")])))

    def test_unreadableNames(self) -> None:
        """If the names cannot be read, no CA with constraints can vouch for them."""
        for shown in unreadableNames():
            words = self.judge(shown, constrained((), [(URI, b"x")]))
            self.assertIn("found names that cannot be read (", words or "")
            self.assertIsNone(self.judge(shown, anyCertificate(subject="CN=Free")))

    def test_unreadableConstraints(self) -> None:
        """Constraints that cannot be read permit no name of their kind."""
        for content in (b"\x30\x01", encode(0x30, subtrees(0xA1, [(URI, b"http://x")]))):
            words = self.judge(rawNames((URI, b"a://b")), authority(content))
            self.assertIn("found constraints that cannot be read (", words or "")
        shown = rawNames((DNS, b"a.lab"))
        self.assertIsNone(self.judge(shown, constrained([(URI, b"\xff")], [(EMAIL, b"\xff")])))

    def test_intermediates(self) -> None:
        """CA certificates below are judged alike, unless they are the same CA's."""
        ca = constrained((), [(URI, b"")])
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("a://b")])
        below = anyCertificate(names, subject="CN=Below", issuer="CN=Sub")
        same = anyCertificate(names, subject="CN=Sub", issuer="CN=Sub")
        leaf = anyCertificate(subject="CN=leaf", issuer="CN=Below")
        self.assertEqual(
            self.judge(leaf, below, ca),
            "expected names that the CA certificate at depth 2 (CN=Sub) may vouch for in "
            "the CA certificate at depth 1 (CN=Below), found uri:a://b, which it excludes",
        )
        self.assertIsNone(self.judge(leaf, same, ca))
        self.assertIsNone(self.judge(leaf, ca, below))
        # The last one is never excused.
        self.assertIsNotNone(self.judge(same, ca))

    def test_nobody(self) -> None:
        """Where there is no CA there are no constraints."""
        self.assertIsNone(judgeNames([], "client"))
        self.assertIsNone(judgeNames([constrained((), [(URI, b"")])], "client"))

    def test_many(self) -> None:
        """Thousands of names and constraints take no long time."""
        bases = [(URI, b"x%d.lab" % number) for number in range(5000)]
        shown = rawNames(*((URI, b"a://%d.lab/" % number) for number in range(5000)))
        ca = constrained((), bases)
        started = time.process_time()
        self.assertIsNone(self.judge(shown, ca))
        self.assertLess(time.process_time() - started, 2)

    @patient
    @given(st.binary(max_size=60), st.binary(max_size=60))
    def test_anyOctets(self, content: bytes, constraints: bytes) -> None:
        """Whatever is in either extension, nothing is raised."""
        self.judge(withNames(content), authority(constraints))
        self.judge(withNames(content), constrained([(URI, content)], [(EMAIL, constraints)]))
        self.judge(rawNames((URI, content), (EMAIL, content)), constrained((), [(URI, b"")]))
