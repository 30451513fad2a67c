"""Tests for L{ktlsagent.peers.names}."""

from __future__ import annotations

import ipaddress

from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import PeerRejected, RequestRefused
from ktlsagent.peers.generalnames import DNS, EMAIL, IP, OTHER_NAME, URI
from ktlsagent.peers.names import ReferenceName, judgeName, referenceName
from ktlsagent.protocols.asn1 import encode
from tests.support import certificates
from tests.support.properties import patient
from tests.support.unreadable import rawNames, unreadableNames

SRV = encode(6, bytes.fromhex("2b06010505070807")) + b"\xa0\x02"
"""An SRV-ID (RFC 4985), without its value."""


class ReferenceNameTests(SynchronousTestCase):
    """Tests for L{referenceName}."""

    def refused(self, name: bytes) -> str:
        """
        Read a name that is none.

        @param name: the name.
        @return: the words of the error.
        """
        error: RequestRefused = self.assertRaises(RequestRefused, referenceName, name)
        self.assertEqual(error.code, "bad-name")
        self.assertIn(f"expected a DNS name or an address of the peer, found {name!r}", str(error))
        return error.reason

    def test_dnsNames(self) -> None:
        """A DNS name is sent as it is, without the dot of the root."""
        for name, text in (
            (b"server.lab", "server.lab"),
            (b"server", "server"),
            (b"Server.LAB.", "Server.LAB"),
            (b"under_score.lab", "under_score.lab"),
            (b"a-b.lab", "a-b.lab"),
            (b"3com.lab", "3com.lab"),
            (b"xn--mller-kva.lab", "xn--mller-kva.lab"),
            (b"a" * 63 + b".lab", "a" * 63 + ".lab"),
            (b".".join([b"a" * 62] * 4) + b".x", ".".join(["a" * 62] * 4) + ".x"),
        ):
            self.assertEqual(referenceName(name), ReferenceName(text, None))
            self.assertEqual(referenceName(name).serverName, text)

    def test_internationalNames(self) -> None:
        """Any other letters are sent as A-labels (RFC 5891)."""
        for name, text in (
            ("m\u00fcller.lab", "xn--mller-kva.lab"),
            ("M\u00dcLLER.lab.", "xn--mller-kva.lab"),
            ("\u4f8b\u3048.lab", "xn--r8jz45g.lab"),
            ("a\u3002lab", "a.lab"),
        ):
            self.assertEqual(referenceName(name.encode()), ReferenceName(text, None))

    def test_addresses(self) -> None:
        """An address is one with brackets, a zone or a dot behind it too; it is never sent."""
        for name, address in (
            (b"10.0.0.2", "10.0.0.2"),
            (b"10.0.0.2.", "10.0.0.2"),
            (b"[10.0.0.2]", "10.0.0.2"),
            (b"fd00::2", "fd00::2"),
            (b"[fd00::2]", "fd00::2"),
            (b"FD00:0:0::2", "fd00::2"),
            (b"fe80::2%eth0", "fe80::2"),
            (b"[fe80::2%3]", "fe80::2"),
        ):
            reference = referenceName(name)
            self.assertEqual(reference.address, ipaddress.ip_address(address))
            self.assertIsNone(reference.serverName)

    def test_noNames(self) -> None:
        """What is neither is refused, with what was found."""
        for name in (
            b"",
            b".",
            b"a..b",
            b".lab",
            b"*.lab",
            b"a b",
            b"a/b",
            b"host:2049",
            b"a\x00b",
            b"a\nb",
            b"%eth0",
            b"[[fd00::2]]",
            b"a" * 64,
            b".".join([b"a" * 62] * 4) + b".xx",
        ):
            self.assertIn("not a host name", self.refused(name))

    def test_noInternationalNames(self) -> None:
        """What cannot be made A-labels of is refused."""
        for name in (
            "\u3002",
            "-\u00fc.lab",
            "\u00fc_x.lab",
            "\u00fc" * 70,
            "\u0661",
            "a\u00fc..b",
        ):
            self.refused(name.encode())

    def test_noText(self) -> None:
        """What is no UTF-8 is refused."""
        self.refused(b"server\xff.lab")

    @patient
    @given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
    @example(b"xn--")
    @example("\u00df".encode())
    @example(b"1.2.3.4%")
    def test_onlyRefusals(self, name: bytes) -> None:
        """Whatever the name is, no other error escapes, and what is sent can be sent."""
        try:
            reference = referenceName(name)
        except RequestRefused:
            return
        if reference.serverName is not None:
            self.assertTrue(0 < len(reference.serverName.encode("ascii")) <= 253)
        verdict = judgeName(reference, [certificates.client().certificate])
        self.assertTrue(verdict is None or verdict.code == "name-mismatch")


class JudgeTests(SynchronousTestCase):
    """Tests for L{judgeName}."""

    def judge(self, name: str, *hosts: str, addresses: tuple[str, ...] = ()) -> PeerRejected | None:
        """
        Judge a certificate.

        @param name: the name that was asked for.
        @param hosts: the certificate's DNS-IDs.
        @param addresses: its IP-IDs.
        @return: the verdict.
        """
        presented = certificates.authority().issue("server.lab", hosts=hosts, addresses=addresses)
        return judgeName(referenceName(name.encode()), [presented.certificate])

    def mismatch(self, verdict: PeerRejected | None) -> str:
        """
        Take a refusal for the wrong name apart.

        @param verdict: the verdict.
        @return: its words.
        """
        assert verdict is not None
        self.assertEqual(verdict.code, "name-mismatch")
        return verdict.reason

    def test_name(self) -> None:
        """A certificate for the name is good, whatever the case, beside any others."""
        for name in ("server.lab", "SERVER.lab", "server.lab.", "[server.lab]"):
            self.assertIsNone(self.judge(name, "other.lab", "Server.Lab"))

    def test_wrongName(self) -> None:
        """The refusal has what was expected and all that was found."""
        verdict = self.judge("server.lab", "other.lab", addresses=("10.0.0.2", "fd00::2"))
        self.assertEqual(
            self.mismatch(verdict),
            "expected a certificate for DNS:server.lab, found one for DNS:other.lab, "
            "IP:10.0.0.2, IP:fd00::2",
        )

    def test_wildcard(self) -> None:
        """A wildcard stands for one label on the left, and only for a whole one."""
        self.assertIsNone(self.judge("a.server.lab", "*.server.lab"))
        for name in ("server.lab", "a.b.server.lab"):
            self.mismatch(self.judge(name, "*.server.lab"))
        for pattern in ("*", "a.*.lab", "*.*.lab", "a*.server.lab"):
            self.mismatch(self.judge("a.server.lab", pattern))

    def test_address(self) -> None:
        """A certificate for the address is good, however it is written."""
        for name in ("10.0.0.2", "[fd00::2]", "fd00:0::2", "fd00::2%eth0"):
            self.assertIsNone(self.judge(name, addresses=("10.0.0.2", "fd00::2")))

    def test_wrongAddress(self) -> None:
        """An address is looked for among the IP-IDs only."""
        verdict = self.judge("10.0.0.3", "server.lab", addresses=("10.0.0.2",))
        self.assertEqual(
            self.mismatch(verdict),
            "expected a certificate for IP:10.0.0.3, found one for DNS:server.lab, IP:10.0.0.2",
        )
        self.mismatch(self.judge("fd00::3%eth0", addresses=("fd00::2",)))

    def test_underscore(self) -> None:
        """A name with an underscore, as it is found in the field, is compared like any other."""
        self.assertIsNone(self.judge("my_server.lab", "my_server.lab"))

    def test_international(self) -> None:
        """A name with other letters is compared by its A-labels."""
        self.assertIsNone(self.judge("m\u00fcller.lab", "xn--mller-kva.lab"))

    def test_commonNameOnly(self) -> None:
        """The common name is no name of a server (RFC 9525, section 2)."""
        for name in ("server.lab", "10.0.0.2"):
            self.assertIn("found one for no subjectAltName", self.mismatch(self.judge(name)))

    def test_otherNamesOnly(self) -> None:
        """A certificate with names of other kinds says so."""
        key = certificates.server().key
        names = x509.SubjectAlternativeName([x509.RFC822Name("root@server.lab")])
        certificate = self.sign(names)
        verdict = judgeName(referenceName(b"server.lab"), [certificate])
        self.assertIn("neither DNS nor IP names", self.mismatch(verdict))
        self.assertEqual(certificate.public_key(), key.public_key())

    def test_manyNames(self) -> None:
        """Of very many names the first are listed, and not all are put into words."""
        hosts = [f"host{number}.example.org" for number in range(6500)]
        reason = self.mismatch(self.judge("server.lab", *hosts, addresses=("10.0.0.2",)))
        self.assertIn("found one for DNS:host0.example.org, DNS:host1.example.org, ", reason)
        self.assertTrue(reason.endswith(" more"), reason)
        self.assertLess(len(reason), 600)
        reason = self.mismatch(self.judge("server.lab", "a" * 90_000))
        self.assertTrue(reason.endswith(f"DNS:{'a' * 146}..."), reason)

    def test_unreadable(self) -> None:
        """A certificate whose names cannot be read is refused, and nothing else happens."""
        for certificate in unreadableNames():
            for name in (b"server.lab", b"10.0.0.2"):
                words = self.mismatch(judgeName(referenceName(name), [certificate]))
                self.assertIn("found one for names that cannot be read (", words)

    def test_besides(self) -> None:
        """No entry spoils one that is asked for, whatever is in it."""
        good = ((DNS, b"Server.lab"), (DNS, b"*.wild.lab"), (IP, b"\x0a\x00\x00\x02"))
        for odd in (
            *((DNS, content) for content in (b"10.0.0.2", b"*.lab", b"*", b"a.*.lab", b"*.*.lab")),
            *((DNS, content) for content in (b"", b"12345", b"a..b", b"*..lab", b"\xff", b"\x00")),
            *((DNS, content) for content in (b"1" * 5000, b" server.lab", b"*server*.lab", b"::1")),
            *((IP, content) for content in (b"", b"\x0a", b"\x0a\x00\x00\x02\xff\xff\xff\xff")),
            *((URI, content) for content in (b"urn:uuid:f81d4fae", b"https://h:8443/", b"", b"a")),
            *((URI, content) for content in (b"\xff", b"https://*.lab", b":::", b"1.2.3.4:5")),
            *((OTHER_NAME, content) for content in (b"", SRV + b"\x05\x00", SRV + b"\x16\x01\xff")),
            *((tag, b"\x30") for tag in (EMAIL, 0x88, 0xA3, 0xA4, 0xA5, 0x8A)),
        ):
            for names in ((odd, *good), (*good, odd)):
                certificate = rawNames(*names)
                for name in ("server.lab", "SERVER.LAB", "a.wild.lab", "10.0.0.2"):
                    self.assertIsNone(judgeName(referenceName(name.encode()), [certificate]), odd)
                for name in ("other.lab", "lab", "10.0.0.3", "fd00::2", "x"):
                    self.mismatch(judgeName(referenceName(name.encode()), [certificate]))

    def test_asTheyAre(self) -> None:
        """Nothing is taken off a name before it is compared."""
        for name in (
            *(b" server.lab", b"server.lab ", b"server.lab\n", b"\rserver.lab", b"server.lab\t"),
            *(
                b"\x0bserver.lab",
                b"server.lab\x00",
                b"server.lab.",
                b".server.lab",
                b"server.lab\x1f",
            ),
            *(
                b" *.lab.example",
                b"*.lab.example ",
                b"\xc2\xa0server.lab",
                b"\xef\xbb\xbfserver.lab",
            ),
        ):
            certificate = rawNames((DNS, name))
            for reference in (b"server.lab", b"a.lab.example"):
                self.mismatch(judgeName(referenceName(reference), [certificate]))

    def test_said(self) -> None:
        """The names that could not be compared are told apart."""
        certificate = rawNames((DNS, b"*.lab"), (DNS, b"a.lab"), (IP, b"\x01"), (DNS, b" b.lab\n"))
        for name, odd in (("b.lab", "DNS:*.lab, DNS: b.lab\\n"), ("10.0.0.1", "IP:\\x01")):
            words = self.mismatch(judgeName(referenceName(name.encode()), [certificate]))
            everything = "DNS:*.lab, DNS:a.lab, IP:\\x01, DNS: b.lab\\n"
            self.assertTrue(
                words.endswith(f"found one for {everything}; of these it cannot be {odd}"), words
            )

    @patient
    @given(st.lists(st.tuples(st.sampled_from((DNS, IP, URI, EMAIL)), st.binary(max_size=20))))
    @example([(DNS, b"server.lab\n")])
    def test_anyNames(self, names: list[tuple[int, bytes]]) -> None:
        """Whatever the others are, the name has to be there, and is enough."""
        for name, entry in (
            ("server.lab", (DNS, b"server.lab")),
            ("::1", (IP, bytes(15) + b"\x01")),
        ):
            reference = referenceName(name.encode())
            self.assertIsNone(judgeName(reference, [rawNames(*names, entry)]))
            if entry not in names:
                self.mismatch(judgeName(reference, [rawNames(*names)]))

    def sign(self, *extensions: x509.ExtensionType) -> x509.Certificate:
        """
        Make a certificate that signs itself.

        @param extensions: its extensions.
        @return: the certificate.
        """
        credentials = certificates.server()
        good = credentials.certificate
        builder = (
            x509.CertificateBuilder()
            .subject_name(good.subject)
            .issuer_name(good.issuer)
            .public_key(good.public_key())
            .serial_number(1)
            .not_valid_before(good.not_valid_before_utc)
            .not_valid_after(good.not_valid_after_utc)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(credentials.key, good.signature_hash_algorithm)  # type: ignore[arg-type]
