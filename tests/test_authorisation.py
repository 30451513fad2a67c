"""Tests for L{ktlsagent.peers.authorisation}."""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import PeerRejected
from ktlsagent.peers.authorisation import Access, judgeAccess, parseRule
from ktlsagent.peers.presented import Presented
from tests.support import certificates
from tests.support.properties import patient
from tests.support.unreadable import unreadableNames, withIssuer, withNames, withSubject

ADDRESS = ipaddress.ip_address("10.0.0.5")
NOBODY = None


def access(
    allow: Sequence[str] = (), deny: Sequence[str] = (), *, addressInCertificate: bool = False
) -> Access:
    """
    Make rules on who may come in.

    @param allow: the rules to allow.
    @param deny: the rules to deny.
    @param addressInCertificate: whether the peer's address has to be in its
        certificate.
    @return: the rules.
    """
    return Access([*map(parseRule, allow)], [*map(parseRule, deny)], addressInCertificate)


def client(*hosts: str, addresses: Sequence[str] = ()) -> x509.Certificate:
    """
    Make a certificate.

    @param hosts: its DNS-IDs.
    @param addresses: its IP-IDs.
    @return: the certificate.
    """
    issued = certificates.authority().issue("client", hosts=hosts, addresses=addresses)
    return issued.certificate


def tagged(certificate: x509.Certificate | None, *tags: str, unknown: str = "") -> Presented:
    """
    Make a peer.

    @param certificate: its certificate.
    @param tags: the tags of its session.
    @param unknown: one of which nobody can tell whether it gets it.
    @return: the peer.
    """
    return Presented(
        certificate,
        certificates.authority().certificate,
        lambda _peer: {**dict.fromkeys(tags, True), unknown: None},
    )


class RuleTests(SynchronousTestCase):
    """Tests for L{parseRule}."""

    def test_values(self) -> None:
        """A rule is a value: two of the same text are equal, and show it."""
        rule = parseRule("dns:*.lab")
        self.assertEqual(rule.text, "dns:*.lab")
        self.assertEqual(rule, parseRule("dns:*.lab"))
        self.assertEqual(hash(rule), hash(parseRule("dns:*.lab")))
        self.assertNotEqual(rule, parseRule("dns:a.lab"))
        self.assertEqual(repr(rule), "Rule(text='dns:*.lab')")

    def test_noRule(self) -> None:
        """What is no rule is an error with words."""
        error = self.assertRaises(ValueError, parseRule, "lab")
        self.assertRegex(str(error), "^expected dns:, .* or tag: .*, found 'lab'$")


class AccessTestCase(SynchronousTestCase):
    """What the tests of judgements have in common."""

    def judge(
        self,
        rules: Access,
        certificate: x509.Certificate | None,
        *tags: str,
        address: ipaddress.IPv4Address | ipaddress.IPv6Address | None = ADDRESS,
    ) -> str | None:
        """
        Judge a peer.

        @param rules: the rules.
        @param certificate: its certificate.
        @param tags: the tags of its session.
        @param address: its address.
        @return: the code of the refusal, C{None} if there is none.
        """
        self.verdict = judgeAccess(rules, tagged(certificate, *tags), address)
        if self.verdict is None:
            return None
        self.assertIsInstance(self.verdict, PeerRejected)
        self.assertTrue(self.verdict.reason.startswith("expected "))
        self.assertIn(", found ", self.verdict.reason)
        self.assertTrue(self.verdict.reason.isprintable())
        return self.verdict.code

    def reason(self) -> str:
        """
        Take the last refusal apart.

        @return: its words.
        """
        assert self.verdict is not None
        return self.verdict.reason


class JudgeTests(AccessTestCase):
    """Tests for L{judgeAccess} with rules."""

    def test_noRules(self) -> None:
        """Without rules anybody who is trusted comes in, whatever can be read."""
        for certificate in (client("a.lab"), NOBODY, *unreadableNames()):
            self.assertIsNone(self.judge(Access(), certificate, address=None))

    def test_allow(self) -> None:
        """One of the rules to allow has to match."""
        rules = access(["dns:a.lab", "ip:10.0.0.0/8"])
        self.assertIsNone(self.judge(rules, client("a.lab")))
        self.assertIsNone(self.judge(rules, client("b.lab", addresses=["10.1.1.1"])))
        certificate = client("b.lab")
        self.assertEqual(self.judge(rules, certificate), "not-allowed")
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        self.assertEqual(
            self.reason(),
            "expected a certificate that one of the rules allows (dns:a.lab, ip:10.0.0.0/8), "
            f"found subject:CN=client, issuer:CN=Lab CA, fingerprint:{fingerprint}, dns:b.lab",
        )

    def test_deny(self) -> None:
        """None of the rules to deny may match; the first that does is named."""
        rules = access(deny=["dns:a.lab", "dns:*.bad.lab", "dns:*.*.lab"])
        self.assertIsNone(self.judge(rules, client("b.lab")))
        self.assertEqual(self.judge(rules, client("x.bad.lab")), "denied")
        self.assertIn(
            "expected a peer that no rule denies, found that dns:*.bad.lab matches: "
            "subject:CN=client, ",
            self.reason(),
        )
        self.assertIn("dns:x.bad.lab", self.reason())

    def test_denyWins(self) -> None:
        """Whom a rule denies is refused, whoever allows it."""
        rules = access(["dns:*.lab", "subject.CN:client"], ["dns:bad.lab"])
        self.assertIsNone(self.judge(rules, client("good.lab")))
        self.assertEqual(self.judge(rules, client("bad.lab")), "denied")
        self.assertEqual(self.judge(rules, client("good.lab", "bad.lab")), "denied")

    def test_tags(self) -> None:
        """A tag of the session allows and denies like a name."""
        certificate = client("a.lab")
        self.assertIsNone(self.judge(access(["tag:blue"]), certificate, "blue", "red"))
        self.assertEqual(self.judge(access(["tag:blue"]), certificate, "red"), "not-allowed")
        self.assertTrue(self.reason().endswith("dns:a.lab, tag:red"))
        rules = access(["dns:a.lab"], ["tag:red"])
        self.assertEqual(self.judge(rules, certificate, "blue", "red"), "denied")

    def test_uncertainTag(self) -> None:
        """A tag of which nobody can tell whether a peer gets it allows nobody, and denies."""
        peer = tagged(client("a.lab"), "red", unknown="blue")
        for rules, expected in (
            (access(["tag:blue"]), "not-allowed"),
            (access(["tag:blue", "tag:red"]), None),
            (access(deny=["tag:green"]), None),
            (access(deny=["tag:green", "tag:blue"]), "denied"),
            (access(["tag:red"], ["tag:blue"]), "denied"),
        ):
            refusal = judgeAccess(rules, peer, ADDRESS)
            self.assertEqual(refusal and refusal.code, expected)
        assert refusal is not None
        self.assertIn("tag:blue may match, which nobody can tell: subject:", refusal.reason)
        self.assertTrue(refusal.reason.endswith("dns:a.lab, tag:red"))

    def test_uncertain(self) -> None:
        """What can be understood in two ways is not allowed, and is denied."""
        names = (
            (x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"), "othername:1.2.3=a"),
            (x509.DNSName("a.lab."), "dns:a.lab"),
            (x509.DNSName("*.lab"), "dns:?.lab"),
            (x509.IPAddress(ipaddress.ip_network("10.0.0.0/8")), "ip:10.0.0.1"),
        )
        for name, rule in names:
            issued = certificates.authority().issue("client", names=[name], hosts=["b.c.lab"])
            certificate = issued.certificate
            self.assertEqual(self.judge(access([rule]), certificate), "not-allowed")
            self.assertEqual(self.judge(access(deny=[rule]), certificate), "denied")
            self.assertIn(f"{rule} may match, which nobody can tell: ", self.reason())
            self.assertIsNone(self.judge(access([rule, "dns:b.c.lab"]), certificate))

    def test_unreadable(self) -> None:
        """A certificate is refused if a rule has to look at what cannot be read in it."""
        cases = [(certificate, "dns:a.lab", "names that") for certificate in unreadableNames()]
        subject, issuer = b"\x14\x08\xff\xfe\x00\x1b.lab", b"\x14\x06\xff\xfe\x00\x1b.x"
        cases.append((withSubject(subject), "subject.O:x", "subject:(unreadable)"))
        cases.append((withIssuer(issuer), "issuer:CN=x", "issuer:(unreadable)"))
        for certificate, rule, words in cases:
            self.assertEqual(self.judge(access([rule]), certificate), "not-allowed")
            self.assertIn(words, self.reason())
            self.assertEqual(self.judge(access(deny=[rule]), certificate), "denied")
            self.assertIn(f"{rule} may match, which nobody can tell: ", self.reason())
            self.assertIn(words, self.reason())

    def test_unreadableBesides(self) -> None:
        """In any order: what a rule can tell without the rest is told, and the rest is not."""
        for certificate in unreadableNames():
            readable = f"fingerprint:{certificate.fingerprint(hashes.SHA256()).hex()}"
            for rules in ([readable, "dns:a.lab"], ["dns:a.lab", readable]):
                self.assertIsNone(self.judge(access(rules), certificate))
                self.assertEqual(self.judge(access(deny=rules), certificate), "denied")
            for rules in (["tag:a", "dns:a.lab"], ["dns:a.lab", "subject.CN:x"]):
                self.assertEqual(self.judge(access(rules), certificate), "not-allowed")
                self.assertEqual(self.judge(access(deny=rules), certificate), "denied")
            rules = [readable, "tag:a", "subject.CN:a"]
            self.assertIsNone(self.judge(access(rules, ["tag:b", "issuer.CN:a"]), certificate))

    def test_brief(self) -> None:
        """Neither many names nor many rules make the words long."""
        certificate = client(*(f"host{number}.lab" for number in range(1000)))
        rules = access([f"dns:{'a' * 60}.{number}" for number in range(1000)])
        self.assertEqual(self.judge(rules, certificate), "not-allowed")
        self.assertIn("and 996 more), found subject:CN=client", self.reason())
        self.assertTrue(self.reason().endswith("dns:host24.lab, and 975 more"))
        self.assertLess(len(self.reason()), 1024)


class NobodyTests(AccessTestCase):
    """Tests for L{judgeAccess} with a peer that has shown no certificate."""

    def test_allow(self) -> None:
        """Where there are rules to allow, nobody is none that they could allow."""
        for rules in (access(["tag:blue"]), access(["subject:*"]), access(["dns:*"], ["dns:a"])):
            self.assertEqual(self.judge(rules, NOBODY, "blue"), "not-allowed")
            self.assertIn("found no certificate, tag:blue", self.reason())

    def test_deny(self) -> None:
        """No rule to deny is about nobody, but one about tags may be."""
        rules = access(deny=["dns:*", "subject:*", "ip:0.0.0.0/0", "tag:red"])
        self.assertIsNone(self.judge(rules, NOBODY))
        self.assertEqual(self.judge(rules, NOBODY, "red"), "denied")
        self.assertIn("tag:red matches: no certificate, tag:red", self.reason())

    def test_address(self) -> None:
        """Nobody's address is in no certificate."""
        rules = access(addressInCertificate=True)
        self.assertEqual(self.judge(rules, NOBODY), "address-mismatch")
        self.assertIn("ip:10.0.0.5, found no certificate", self.reason())


class AddressTests(AccessTestCase):
    """Tests for L{judgeAccess} with the rule on the peer's address."""

    rules = access(addressInCertificate=True)

    def test_address(self) -> None:
        """The address has to be in the certificate, no matter how the connection has it."""
        certificate = client("a.lab", addresses=["fd00::1", "10.0.0.5"])
        for address in ("10.0.0.5", "::ffff:10.0.0.5", "fd00::1", "fd00::1%eth0"):
            found = ipaddress.ip_address(address)
            self.assertIsNone(self.judge(self.rules, certificate, address=found))

    def test_mapped(self) -> None:
        """A name that stands for an address is not that, and is no way around constraints."""
        certificate = client("a.lab", addresses=["::ffff:10.0.0.5"])
        for address in ("10.0.0.5", "::ffff:10.0.0.5"):
            found = ipaddress.ip_address(address)
            code = self.judge(self.rules, certificate, address=found)
            self.assertEqual(code, "address-mismatch")
        for rule in ("ip:10.0.0.0/8", "ip:::/0"):
            self.assertEqual(self.judge(access([rule]), certificate), "not-allowed")
            self.assertEqual(self.judge(access(deny=[rule]), certificate), "denied")

    def test_otherAddress(self) -> None:
        """With another address it is refused, and both are named."""
        certificate = client("a.lab", "10.0.0.6", addresses=["10.0.0.5"])
        for address, words in (("10.0.0.6", "ip:10.0.0.6"), ("::a00:5", "ip:::a00:5")):
            found = ipaddress.ip_address(address)
            self.assertEqual(self.judge(self.rules, certificate, address=found), "address-mismatch")
            self.assertIn(
                f"expected a certificate for the peer's address, {words}, found subject:CN=client",
                self.reason(),
            )
            self.assertIn("ip:10.0.0.5", self.reason())

    def test_unknownAddress(self) -> None:
        """An address that is not known is in no certificate."""
        certificate = client(addresses=["10.0.0.5", "0.0.0.0"])
        self.assertEqual(self.judge(self.rules, certificate, address=None), "address-mismatch")
        self.assertIn("the peer's address, which is not known, found", self.reason())

    def test_network(self) -> None:
        """A network in the certificate is no address."""
        network = x509.IPAddress(ipaddress.ip_network("10.0.0.0/8"))
        issued = certificates.authority().issue("client", names=[network])
        self.assertEqual(self.judge(self.rules, issued.certificate), "address-mismatch")

    def test_unreadable(self) -> None:
        """A certificate whose names cannot be read is for no address."""
        for certificate in unreadableNames():
            self.assertEqual(self.judge(self.rules, certificate), "address-mismatch")
            self.assertIn("names that cannot be read", self.reason())

    def test_besidesRules(self) -> None:
        """The address is asked for beside what the rules say."""
        certificate = client("a.lab", addresses=["10.0.0.5"])
        rules = access(["dns:a.lab"], ["dns:b.lab"], addressInCertificate=True)
        other = ipaddress.ip_address("10.0.0.6")
        self.assertIsNone(self.judge(rules, certificate))
        self.assertEqual(self.judge(rules, certificate, address=other), "address-mismatch")
        rules = access(["dns:c.lab"], addressInCertificate=True)
        self.assertEqual(self.judge(rules, certificate), "not-allowed")


LABELS = st.text("abAB*", min_size=1, max_size=3)
HOSTS = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
RULES = st.lists(
    st.one_of(
        HOSTS.map("dns:{}".format),
        st.ip_addresses()
        .filter(lambda address: not getattr(address, "ipv4_mapped", None))
        .map("ip:{}".format),
        st.text("ab*?", max_size=3).map("uri:a://b/{}".format),
        st.text("ab*?", max_size=3).map("othername:1.2.3=x{}".format),
        st.text("ab*?", max_size=3).map("subject.CN:c{}".format),
        st.sampled_from(["tag:a", "tag:b", "subject:*", "email:*@*"]),
    ),
    max_size=4,
)
NAMES = st.lists(
    st.one_of(
        HOSTS.map(x509.DNSName),
        st.ip_addresses().map(x509.IPAddress),
        st.text("ab", max_size=3).map(lambda text: x509.UniformResourceIdentifier(f"a://b/{text}")),
        st.binary(max_size=5).map(
            lambda value: x509.OtherName(
                x509.ObjectIdentifier("1.2.3"), bytes([0x0C, len(value)]) + value
            )
        ),
    ),
    max_size=4,
)
CERTIFICATES = st.one_of(
    st.none(),
    st.binary(max_size=20).map(withNames),
    NAMES.map(lambda names: certificates.authority().issue("cab", names=names).certificate),
)


class PropertyTests(SynchronousTestCase):
    """What holds for all rules and all certificates."""

    @patient
    @given(RULES, RULES, st.booleans(), CERTIFICATES, st.none() | st.ip_addresses())
    @example([], ["dns:a"], False, None, None)
    def test_failsClosed(
        self,
        allow: list[str],
        deny: list[str],
        inCertificate: bool,  # noqa: FBT001 - hypothesis gives it
        certificate: x509.Certificate | None,
        address: ipaddress.IPv4Address | ipaddress.IPv6Address | None,
    ) -> None:
        """Nothing raises, deny wins, and whoever comes in is allowed by each condition alone."""

        def judge(rules: Access) -> str | None:
            verdict = judgeAccess(rules, tagged(certificate, "a"), address)
            return None if verdict is None else verdict.code

        code = judge(access(allow, deny, addressInCertificate=inCertificate))
        denied = judge(access(deny=deny))
        allowed = judge(access(allow))
        placed = judge(access(addressInCertificate=inCertificate))
        self.assertIn(denied, (None, "denied"))
        self.assertIn(allowed, (None, "not-allowed"))
        self.assertIn(placed, (None, "address-mismatch"))
        self.assertEqual(code, denied or allowed or placed)
        if deny and denied is None:
            # What no rule to deny is about is allowed by none of the same.
            self.assertEqual(judge(access(deny)), "not-allowed")

    @patient
    @given(HOSTS, HOSTS)
    def test_caseOfHosts(self, pattern: str, host: str) -> None:
        """The case of a host's name never makes a difference."""
        verdicts = {
            judgeAccess(access([f"dns:{rule}"]), Presented(client(name)), None) is None
            for rule in (pattern.lower(), pattern.upper(), pattern.swapcase())
            for name in (host.lower(), host.upper(), host.swapcase())
        }
        self.assertEqual(len(verdicts), 1)

    @patient
    @given(st.lists(st.ip_addresses(), max_size=4), st.ip_addresses())
    def test_addresses(
        self,
        addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address],
        address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    ) -> None:
        """An address is in the certificate exactly if it was put there, and is none but itself."""
        rules = access(addressInCertificate=True)
        for put in ([], [address]):
            everyone = [*addresses, *put]
            plain = {one for one in everyone if not getattr(one, "ipv4_mapped", None)}
            expected = (getattr(address, "ipv4_mapped", None) or address) in plain
            certificate = client("a", addresses=[str(one) for one in everyone])
            verdict = judgeAccess(rules, Presented(certificate), address)
            self.assertIs(verdict is None, expected)

    def test_manyNamesAndRules(self) -> None:
        """Thousands of names and a hundred rules are judged at once."""
        chance = random.Random(4)
        hosts = [f"host{number}.{chance.choice('ab')}.example.org" for number in range(10_000)]
        addresses = [str(ipaddress.IPv4Address(chance.randrange(2**32))) for _ in range(1000)]
        uris = [f"spiffe://example.org/ns/{number}" for number in range(1000)]
        issued = certificates.authority().issue(
            "client",
            hosts=hosts,
            addresses=addresses,
            names=[x509.UniformResourceIdentifier(uri) for uri in uris],
        )
        rules = access(
            [
                *(f"dns:h*t*{number}x.*.example.org" for number in range(40)),
                *(f"dns:host{number}.c.example.org" for number in range(20)),
                *(f"ip:0.0.0.{number}" for number in range(20)),
                *(f"uri:spiffe://example.org/*/x{number}/*" for number in range(20)),
            ]
        )
        started = time.process_time()
        verdict = judgeAccess(rules, Presented(issued.certificate), ADDRESS)
        assert verdict is not None
        self.assertEqual(verdict.code, "not-allowed")
        self.assertLess(time.process_time() - started, 2)

    def test_manyWildcards(self) -> None:
        """So are thousands of wildcards, and labels of nothing but stars."""
        hosts = [f"*.h{number}.example.org" for number in range(5000)]
        issued = certificates.authority().issue("client", hosts=[*hosts, "*" * 50_000 + ".lab."])
        peer = Presented(issued.certificate)
        started = time.process_time()
        rules = [f"dns:x*{number}.h*.example.net" for number in range(50)]
        self.assertIsNone(judgeAccess(access(deny=rules), peer, ADDRESS))
        verdict = judgeAccess(access(deny=[*rules, "dns:a.lab"]), peer, ADDRESS)
        assert verdict is not None
        self.assertIn("dns:a.lab may match", verdict.reason)
        self.assertLess(time.process_time() - started, 4)
