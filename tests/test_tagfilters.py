"""Tests for L{ktlsagent.peers.tagfilters}."""

from __future__ import annotations

import ipaddress
import time
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha1, sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config.values import Wrong
from ktlsagent.peers.presented import Presented, Unreadable, plainAddress
from ktlsagent.peers.signedcontent import otherForms
from ktlsagent.peers.tagfilters import FILTER_TYPES
from tests.support.anycertificate import (
    BEGINNING,
    END,
    alternatives,
    anyCertificate,
    otherName,
    purposes,
    unreadable,
    usages,
)
from tests.support.properties import patient
from tests.support.unreadable import rawNames

ALTERNATIVE = "x509.extension.subjectAltName"

UPN = "1.3.6.1.4.1.311.20.2.3"
"""A kind of other names: Microsoft's C{userPrincipalName}."""


class FilterTestCase(SynchronousTestCase):
    """Puts filters to certificates."""

    def matches(self, kind: str, parameter: str, certificate: x509.Certificate) -> bool | None:
        """
        Say whether a filter matches.

        @param kind: its type.
        @param parameter: its pattern, or one of its purposes.
        @param certificate: what it looks at.
        @return: whether it matches, C{None} if it cannot say.
        """
        try:
            return FILTER_TYPES[kind].read(parameter)(Presented(certificate, certificate))
        except (ValueError, Unreadable):
            return None

    def check(
        self, kind: str, certificate: x509.Certificate, good: tuple[str, ...], bad: tuple[str, ...]
    ) -> None:
        """
        Check which parameters match a certificate.

        @param kind: the type of filter.
        @param certificate: the certificate.
        @param good: those that match.
        @param bad: those that do not.
        """
        for parameter in good:
            self.assertTrue(self.matches(kind, parameter, certificate), parameter)
        for parameter in bad:
            self.assertIs(self.matches(kind, parameter, certificate), False, parameter)

    def refused(self, kind: str, parameter: str) -> tuple[str, str, str]:
        """
        Read a parameter that is none.

        @param kind: the type of filter.
        @param parameter: the parameter.
        @return: what was expected, what was found, and what to do.
        """
        error = self.assertRaises(Wrong, FILTER_TYPES[kind].read, parameter)
        words: tuple[str, str, str] = error.words
        self.assertTrue(all(words), words)
        return words


class TypeTests(SynchronousTestCase):
    """Tests for L{FILTER_TYPES}."""

    def test_keys(self) -> None:
        """Most types have a pattern, some a list of purposes, and one nothing."""
        others = {kind: value.key for kind, value in FILTER_TYPES.items() if value.key != "pattern"}
        self.assertEqual(
            others,
            {
                "x509.extension.keyUsage": "purpose",
                "x509.extension.extendedKeyUsage": "purpose",
                "x509.derived.selfSigned": "",
            },
        )
        self.assertEqual(len(FILTER_TYPES), 16)


class PatternTests(FilterTestCase):
    """Tests for the types whose pattern is matched with a text."""

    def test_signatureAlgorithm(self) -> None:
        """An algorithm is known by its name and by its OID."""
        self.check(
            "x509.cert.signatureAlgorithm",
            anyCertificate(),
            ("ECDSA-SHA256", "ECDSA-*", "1.2.840.10045.4.3.2", "*"),
            ("ecdsa-sha256", "RSA-*", "ECDSA", "1.2.840.10045.4.3"),
        )

    def test_version(self) -> None:
        """A version is a number."""
        self.check("x509.tbs.version", anyCertificate(), ("3", "?"), ("2", "1"))
        for pattern in ("v3", "3.0", "3 ", "\u0663"):
            self.refused("x509.tbs.version", pattern)

    def test_serialNumber(self) -> None:
        """A serial number is in lower case, with all its octets."""
        certificate = anyCertificate(serial=0xAB12)
        self.check("x509.tbs.serialNumber", certificate, ("00ab12", "*ab12"), ("ab12", "0ab12"))
        for pattern in ("00AB12", "00:ab:12", "0xab12"):
            self.assertIn("lower case", self.refused("x509.tbs.serialNumber", pattern)[2])

    def test_fingerprint(self) -> None:
        """A fingerprint is that by SHA-256 or by SHA-1."""
        certificate = anyCertificate()
        long, short = (
            certificate.fingerprint(algorithm).hex()
            for algorithm in (hashes.SHA256(), hashes.SHA1())
        )
        kind = "x509.derived.fingerprint"
        self.check(kind, certificate, (long, short, f"{long[:8]}*"), (long[1:], "00", short[:-1]))
        for pattern in (long.upper(), f"{long[:2]}:{long[2:]}"):
            self.refused(kind, pattern)

    def test_fingerprintOfAnotherForm(self) -> None:
        """Whether a certificate is meant by the fingerprint of its other form, nobody can tell."""
        certificate = anyCertificate()
        (form,) = otherForms(certificate, certificate) or ()
        kind = "x509.derived.fingerprint"
        for text in (sha256(form).hexdigest(), sha1(form).hexdigest()):
            for pattern in (text, f"{text[:12]}*", f"*{text[-12:]}"):
                test = FILTER_TYPES[kind].read(pattern)
                self.assertIsNone(test(Presented(certificate, certificate)))
                self.assertIs(
                    test(Presented(x509.load_der_x509_certificate(form), certificate)), True
                )
                # Nobody has verified it: any fingerprint could be its other one.
                self.assertIsNone(test(Presented(certificate)))
        self.assertIs(FILTER_TYPES[kind].read("00")(Presented(certificate, certificate)), False)

    def test_names(self) -> None:
        """Issuer and subject are texts with the most special attribute first."""
        certificate = anyCertificate(subject="CN=a,OU=b,O=c,C=DE", issuer="CN=CA,O=d")
        self.check(
            "x509.tbs.subject",
            certificate,
            ("CN=a,OU=b,O=c,C=DE", "CN=a,*", "*,OU=b,*", "*,C=DE", "CN=?,*"),
            ("CN=A,*", "CN=a", "C=DE,*", "O=c", "*,O=d"),
        )
        self.check("x509.tbs.issuer", certificate, ("CN=CA,O=d", "*,O=d"), ("CN=a,*", "*,O=c*"))

    def test_escapedComma(self) -> None:
        """Who may choose a common name is in no other organization for it."""
        certificate = anyCertificate(
            subject=x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Guests"),
                    x509.NameAttribute(NameOID.COMMON_NAME, "eve,O=Staff,OU=x"),
                ]
            )
        )
        self.check(
            "x509.tbs.subject",
            certificate,
            ("*,O=Guests", "CN=eve\\,O=Staff\\,OU=x,O=Guests", "CN=eve\\,*", "CN=eve?O=Staff*"),
            ("*,O=Staff,*", "*,O=Staff*", "CN=eve,*", "CN=eve??O=Staff*"),
        )

    def test_wrongEscapes(self) -> None:
        """A backslash that escapes nothing would match nothing."""
        for pattern in ("CN=a\\*", "CN=\\a", "CN=a\\", "CN=a\\?"):
            self.assertIn("backslash", self.refused("x509.tbs.subject", pattern)[0])
        self.check("x509.tbs.subject", anyCertificate(subject="CN=a\\\\b"), ("CN=a\\\\b",), ())

    def test_attributesOfGnuTLS(self) -> None:
        """An attribute may have the name that it has in tlshd's files, or in our log."""
        subject = x509.Name([x509.NameAttribute(NameOID.EMAIL_ADDRESS, "a@b.c")])
        good = ("EMAIL=a@b.c", "1.2.840.113549.1.9.1=a@b.c")
        self.check("x509.tbs.subject", anyCertificate(subject=subject), good, ("E=a@b.c",))

    def test_noPatterns(self) -> None:
        """A pattern has something in it, and all of it can be seen."""
        for pattern in ("", "a\nb", "a\x00", "\u200ba"):
            words = self.refused("x509.tbs.subject", pattern)
            self.assertEqual(words[0], "a pattern")

    def test_wildcards(self) -> None:
        """A pattern has no more than 16 wildcards."""
        certificate = anyCertificate(subject="CN=" + 16 * "a")
        self.check("x509.tbs.subject", certificate, ("CN=" + 16 * "?", "CN=" + 15 * "a*" + "a"), ())
        for pattern in (17 * "*", 9 * "*?"):
            expected, found, _advice = self.refused("x509.tbs.subject", pattern)
            self.assertIn("at most 16", expected)
            self.assertIn(str(len(pattern)), found)

    def test_longNames(self) -> None:
        """A long name does not take long, whatever the pattern."""
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, 60 * "a")] * 100
        certificate = anyCertificate(subject=x509.Name(names))
        test = FILTER_TYPES["x509.tbs.subject"].read(15 * "*a" + "*b")
        started = time.monotonic()
        self.assertIs(test(Presented(certificate)), False)
        self.assertLess(time.monotonic() - started, 2)


class ValidityTests(FilterTestCase):
    """Tests for dates, which are those of tlshd's manual and not of its code."""

    def test_notBefore(self) -> None:
        """A certificate matches that became valid at that time or later."""
        self.check(
            "x509.tbs.validity.notBefore",
            anyCertificate(),
            ("2026-06-01 12:00:00", "2026-06-01 11:59:59", "2020-01-01 00:00:00"),
            ("2026-06-01 12:00:01", "2027-01-01 00:00:00"),
        )

    def test_notAfter(self) -> None:
        """A certificate matches that ends at that time or earlier."""
        self.check(
            "x509.tbs.validity.notAfter",
            anyCertificate(),
            ("2027-06-01 12:00:00", "2027-06-01 12:00:01", "2040-01-01 00:00:00"),
            ("2027-06-01 11:59:59", "2027-01-01 00:00:00"),
        )

    def test_offsets(self) -> None:
        """A time is in UTC, unless it has an offset."""
        self.check(
            "x509.tbs.validity.notBefore",
            anyCertificate(),
            (
                "2026-06-01 12:00:00 UTC",
                "2026-06-01 12:00:00Z",
                "2026-06-01 14:00:00+02:00",
                "2026-06-01 14:00:00 +0200",
                "2026-06-01 07:00:00-05:00",
            ),
            ("2026-06-01 14:00:01+02:00", "2026-06-01 12:00:00-00:01"),
        )

    def test_noTimes(self) -> None:
        """Whatever else is written is no time, and nothing may follow it."""
        for text in (
            "",
            "2026-06-01",
            "2026-06-01T12:00:00",
            "2026-06-01 12:00",
            "2026-06-01 12:00:00 CET",
            "2026-06-01 12:00:00 and so on",
            "2026-06-01 12:00:00 +25:00",
            "2026-02-29 12:00:00",
            "2026-06-01 24:00:01",
            "0000-01-01 00:00:00",
            " 2026-06-01 12:00:00",
            "\u0662026-06-01 12:00:00",
            "20260601120000Z",
        ):
            for kind in ("x509.tbs.validity.notBefore", "x509.tbs.validity.notAfter"):
                self.assertIn("a date and a time", self.refused(kind, text)[0])

    @patient
    @given(
        st.datetimes(datetime(1970, 1, 2), datetime(2049, 12, 30), timezones=st.just(UTC)),  # noqa: DTZ001
        st.integers(-1439, 1439),
    )
    def test_anyTime(self, moment: datetime, minutes: int) -> None:
        """Whatever the time and its offset, it is compared as a point in time."""
        zone = timezone(timedelta(minutes=minutes))
        text = moment.replace(microsecond=0).astimezone(zone).isoformat(" ")
        certificate = anyCertificate()
        moment = moment.replace(microsecond=0)
        before = self.matches("x509.tbs.validity.notBefore", text, certificate)
        after = self.matches("x509.tbs.validity.notAfter", text, certificate)
        self.assertEqual((before, after), (moment <= BEGINNING, moment >= END))


class SelfSignedTests(FilterTestCase):
    """Tests for issuers that are their own subjects."""

    def test_selfSigned(self) -> None:
        """Only the names are compared, as texts."""
        kind = "x509.derived.selfSigned"
        same = anyCertificate(subject="CN=a,O=b", issuer="CN=a,O=b")
        self.assertTrue(self.matches(kind, "", same))
        for issuer in ("CN=a,O=c", "O=b,CN=a", "CN=a"):
            certificate = anyCertificate(subject="CN=a,O=b", issuer=issuer)
            self.assertIs(self.matches(kind, "", certificate), False)


class KeyUsageTests(FilterTestCase):
    """Tests for key usages."""

    kind = "x509.extension.keyUsage"

    def test_usages(self) -> None:
        """A usage has to be there; each is one of the nine of RFC 5280."""
        for name, attribute in (
            ("digitalSignature", "digital_signature"),
            ("nonRepudiation", "content_commitment"),
            ("keyEncipherment", "key_encipherment"),
            ("dataEncipherment", "data_encipherment"),
            ("keyAgreement", "key_agreement"),
            ("keyCertSign", "key_cert_sign"),
            ("cRLSign", "crl_sign"),
        ):
            for other in ("digital_signature", "crl_sign"):
                certificate = anyCertificate(usages(other))
                self.assertEqual(self.matches(self.kind, name, certificate), other == attribute)
            self.check(self.kind, anyCertificate(usages(attribute)), (name,), ())

    def test_usagesOfAgreement(self) -> None:
        """Two usages mean something only beside that of key agreement."""
        both = ("encipherOnly", "decipherOnly")
        certificate = anyCertificate(usages("key_agreement", "encipher_only"))
        self.check(self.kind, certificate, both[:1], both[1:])
        certificate = anyCertificate(usages("key_agreement", "decipher_only"))
        self.check(self.kind, certificate, both[1:], both[:1])
        self.check(self.kind, anyCertificate(usages("crl_sign")), (), both)

    def test_noUsages(self) -> None:
        """Without the extension there is no usage, though all is allowed then."""
        self.check(self.kind, anyCertificate(), (), ("digitalSignature",))

    def test_unknownUsages(self) -> None:
        """A usage that is not known is probably another one."""
        self.assertIn("did you mean digitalSignature?", self.refused(self.kind, "digitalsignature"))
        self.assertIn("did you mean cRLSign?", self.refused(self.kind, "crlSign"))
        self.refused(self.kind, "")


class PurposeTests(FilterTestCase):
    """Tests for key purposes."""

    kind = "x509.extension.extendedKeyUsage"

    def test_purposes(self) -> None:
        """A purpose has to be there, by its name or its OID."""
        for name, oid in (
            ("serverAuth", "1.3.6.1.5.5.7.3.1"),
            ("clientAuth", "1.3.6.1.5.5.7.3.2"),
            ("codeSigning", "1.3.6.1.5.5.7.3.3"),
            ("emailProtection", "1.3.6.1.5.5.7.3.4"),
            ("timeStamping", "1.3.6.1.5.5.7.3.8"),
            ("OCSPSigning", "1.3.6.1.5.5.7.3.9"),
            ("anyExtendedKeyUsage", "2.5.29.37.0"),
            ("rpcTLSClient", "1.3.6.1.5.5.7.3.33"),
            ("rpcTLSServer", "1.3.6.1.5.5.7.3.34"),
        ):
            certificate = anyCertificate(purposes("1.2.3.4", oid))
            self.check(self.kind, certificate, (name, oid, "1.2.3.4"), ("1.2.3.5", "2.5.29.37"))
            self.check(self.kind, anyCertificate(purposes("1.2.3.4")), (), (name, oid))

    def test_anyPurpose(self) -> None:
        """The purpose that stands for any other one is no other one."""
        certificate = anyCertificate(purposes("2.5.29.37.0"))
        self.check(self.kind, certificate, ("anyExtendedKeyUsage",), ("clientAuth",))

    def test_noPurposes(self) -> None:
        """Without the extension there is no purpose."""
        self.check(self.kind, anyCertificate(), (), ("clientAuth", "anyExtendedKeyUsage"))

    def test_unknownPurposes(self) -> None:
        """What is neither known nor an OID is probably a purpose that is known."""
        self.assertIn("did you mean clientAuth?", self.refused(self.kind, "ClientAuth"))
        for text in ("", "1", "1.2.3.", "1.2.*", "9.9.9"):
            self.refused(self.kind, text)


class AlternativeNameTests(FilterTestCase):
    """Tests for alternative names."""

    def setUp(self) -> None:
        self.certificate = anyCertificate(
            alternatives(
                x509.DNSName("Client.Example.org"),
                x509.DNSName("*.wild.example"),
                x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
                x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
                x509.UniformResourceIdentifier("spiffe://Example.org/ns/Prod/sa/nfs"),
                x509.RFC822Name("Nobody@Example.org"),
                otherName(UPN, b"\x0c\x05ann@b"),
                otherName("1.2.3.4", b"\x16\x01x"),
                otherName("1.2.3.5", b"\x30\x00"),
                otherName("1.2.3.5", b"\x0c\x01y"),
                x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
                x509.DirectoryName(x509.Name([])),
            )
        )

    def test_dNSName(self) -> None:
        """The name of a host has no case, and wildcards of certificates are what they are."""
        self.check(
            f"{ALTERNATIVE}.dNSName",
            self.certificate,
            ("client.example.org", "CLIENT.example.ORG", "*.example.org", "*.wild.example", "*"),
            ("example.org", "wild.example", "192.0.2.7", "nobody@b"),
        )
        # Hosts that the wildcard may stand for.
        for pattern in ("a.wild.example", "a.b.wild.*", "?x.w*"):
            self.assertIsNone(self.matches(f"{ALTERNATIVE}.dNSName", pattern, self.certificate))
        self.assertIn("xn--", self.refused(f"{ALTERNATIVE}.dNSName", "m\xfcller.example")[2])

    def test_iPAddress(self) -> None:
        """An address is in a network, or is one address."""
        self.check(
            f"{ALTERNATIVE}.iPAddress",
            self.certificate,
            ("192.0.2.7", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "2001:DB8:0::7", "::/0"),
            ("192.0.2.8", "198.51.100.0/24", "::/128", "2001:db8::/126", "2001:db8:1::/48"),
        )
        for text in (
            "",
            "192.0.2.*",
            "192.0.2.7/24",
            "192.0.2",
            "client.example.org",
            "1.2.3.4/33",
        ):
            self.refused(f"{ALTERNATIVE}.iPAddress", text)

    def test_uniformResourceIdentifier(self) -> None:
        """Scheme and host of a URI have no case, the rest has."""
        self.check(
            f"{ALTERNATIVE}.uniformResourceIdentifier",
            self.certificate,
            ("spiffe://example.org/ns/Prod/*", "SPIFFE://EXAMPLE.org/*", "*/sa/nfs"),
            ("spiffe://example.org/ns/prod/*", "spiffe://example.org", "https:*"),
        )

    def test_rfc822Name(self) -> None:
        """The domain of an address of e-mail has no case, the rest has."""
        self.check(
            f"{ALTERNATIVE}.rfc822Name",
            self.certificate,
            ("Nobody@example.org", "*@EXAMPLE.ORG", "N*@*"),
            ("nobody@example.org", "*@example.com"),
        )
        self.refused(f"{ALTERNATIVE}.rfc822Name", "Nobody")

    def test_otherName(self) -> None:
        """Another name has its kind, and is a text."""
        self.check(
            f"{ALTERNATIVE}.otherName",
            self.certificate,
            (f"{UPN}=ann@b", f"{UPN}=*@b", "1.2.3.4=x", "1.2.3.4=*", "1.2.3.5=y"),
            (f"{UPN}=ann@c", f"{UPN}=x", "1.2.3=x", "1.2.3.4.5=*", "1.2.3.4=a=b"),
        )
        for text in ("", "ann@b", "=x", "upn=x", "1.2.3.4", "1.2.3.4=", f"{UPN}={17 * '*'}"):
            self.refused(f"{ALTERNATIVE}.otherName", text)

    def test_otherNameThatIsNoText(self) -> None:
        """What is no text might be any text, unless another one matches."""
        self.assertIsNone(self.matches(f"{ALTERNATIVE}.otherName", "1.2.3.5=z", self.certificate))

    def test_networkInPlaceOfAnAddress(self) -> None:
        """What is a network might be any address in it, unless another one matches."""
        network = x509.IPAddress(ipaddress.ip_network("192.0.2.0/24"))
        address = x509.IPAddress(ipaddress.ip_address("198.51.100.1"))
        try:
            certificate = anyCertificate(alternatives(network, address))
            certificate.extensions  # noqa: B018 - whether it can be read depends on the library
        except ValueError:
            return
        self.check(f"{ALTERNATIVE}.iPAddress", certificate, ("198.51.100.1",), ())
        self.assertIsNone(self.matches(f"{ALTERNATIVE}.iPAddress", "192.0.2.1", certificate))

    def test_none(self) -> None:
        """Without the extension there are no names."""
        for kind, parameter in (
            ("dNSName", "*"),
            ("iPAddress", "0.0.0.0/0"),
            ("uniformResourceIdentifier", "*"),
            ("rfc822Name", "*@*"),
            ("otherName", f"{UPN}=*"),
        ):
            for certificate in (anyCertificate(), anyCertificate(purposes("1.2.3"))):
                self.check(f"{ALTERNATIVE}.{kind}", certificate, (), (parameter,))

    def test_unreadable(self) -> None:
        """An extension that cannot be read says nothing, and the others what they say."""
        names = alternatives(x509.DNSName("a"), x509.IPAddress(ipaddress.ip_address("192.0.2.7")))
        good = {
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME: names,
            ExtensionOID.KEY_USAGE: usages("digital_signature"),
            ExtensionOID.EXTENDED_KEY_USAGE: purposes("1.3.6.1.5.5.7.3.2"),
        }
        asked = (
            (f"{ALTERNATIVE}.dNSName", "*"),
            ("x509.extension.keyUsage", "digitalSignature"),
            ("x509.extension.extendedKeyUsage", "clientAuth"),
            (f"{ALTERNATIVE}.iPAddress", "0.0.0.0/0"),
        )
        for bad in good:
            extensions = [unreadable(oid) if oid == bad else good[oid] for oid in good]
            for certificate in (anyCertificate(*extensions), anyCertificate(*extensions[::-1])):
                for (kind, parameter), oid in zip(asked, (*good, next(iter(good))), strict=True):
                    expected = None if oid == bad else True
                    self.assertIs(self.matches(kind, parameter, certificate), expected)

    def test_oddNames(self) -> None:
        """A name that cannot be compared makes its kind doubtful, and no other one."""
        kinds = (
            ("dNSName", "a", 0x82, b"a"),
            ("rfc822Name", "a@b", 0x81, b"a@b"),
            ("uniformResourceIdentifier", "a:b", 0x86, b"a:b"),
            ("iPAddress", "192.0.2.7", 0x87, bytes((192, 0, 2, 7))),
        )
        for bad, _parameter, tag, _content in kinds:
            odd = (tag, "\u212a".encode())
            for kind, parameter, good, content in kinds:
                name = f"{ALTERNATIVE}.{kind}"
                expected = None if kind == bad else False
                self.assertIs(self.matches(name, parameter, rawNames(odd)), expected)
                self.assertIs(self.matches(name, parameter, rawNames(odd, (good, content))), True)

    def test_nobody(self) -> None:
        """A filter of the certificate itself says nothing about who has shown none."""
        test = FILTER_TYPES["x509.tbs.version"].read("3")
        self.assertRaises(Unreadable, test, Presented(None))

    @patient
    @given(st.ip_addresses(), st.integers(0, 128))
    def test_anyNetwork(
        self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int
    ) -> None:
        """A certificate matches each network that its address is in, and no network beside it."""
        # Of one that stands for an address of IPv4 nobody can tell.
        address = plainAddress(address)
        certificate = anyCertificate(alternatives(x509.IPAddress(address)))
        length = min(length, address.max_prefixlen)
        network = ipaddress.ip_network((address, length), strict=False)
        kind = f"{ALTERNATIVE}.iPAddress"
        self.assertTrue(self.matches(kind, str(network), certificate))
        if length:
            beside = int(network[0]) ^ 1 << (address.max_prefixlen - length)
            other = type(network)((beside, length))
            self.assertFalse(self.matches(kind, str(other), certificate))
