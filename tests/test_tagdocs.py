"""What docs/tags.md and the sample in conf/ show works, and has the effect that is told."""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA3_256, SHA256
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

import ktlsagent
from ktlsagent.errors import ConfigError
from ktlsagent.peers.presented import Presented
from ktlsagent.peers.tagfilters import FILTER_TYPES
from ktlsagent.peers.tags import TagSet, loadTags
from tests.support.anycertificate import (
    alternatives,
    anyCertificate,
    otherName,
    purposes,
    usages,
)

ROOT = Path(ktlsagent.__file__).parents[1]
_YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
USER = "1.3.6.1.4.1.2238.1.1.1"
CLIENT = "1.3.6.1.5.5.7.3.2"
RPC_CLIENT = "1.3.6.1.5.5.7.3.33"


def _named(name: x509.GeneralName) -> x509.Certificate:
    return anyCertificate(alternatives(name))


def _since(*date: int) -> x509.Certificate:
    year, month, day = date
    return anyCertificate(notBefore=datetime(year, month, day, tzinfo=UTC))


def _until(text: str) -> x509.Certificate:
    return anyCertificate(
        notBefore=datetime(2026, 1, 1, tzinfo=UTC), notAfter=datetime.fromisoformat(text)
    )


def _common(name: str, *others: tuple[Any, str]) -> x509.Certificate:
    attributes = [*others, (NameOID.COMMON_NAME, name)]
    return anyCertificate(
        subject=x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
    )


EXAMPLE = (NameOID.ORGANIZATION_NAME, "Example")

PINNED = anyCertificate()
"""The certificate that one example is about, with its fingerprint put in."""

EFFECTS = {
    "current-staff": (
        (anyCertificate(subject="CN=a,O=Example,C=DE"),),
        (
            anyCertificate(subject="CN=a,O=Example,C=DE", issuer="CN=Example CA 1,C=DE"),
            anyCertificate(subject="CN=a,O=Other,C=DE"),
        ),
    ),
    "engineers": (
        (anyCertificate(subject="CN=a,OU=Engineering,O=Example,C=DE"),),
        (
            anyCertificate(subject="CN=a,OU=Sales,O=Example,C=DE"),
            _common("x,OU=Engineering,O=y", EXAMPLE),
        ),
    ),
    "machines": (
        (anyCertificate(issuer="CN=Example Machine CA,O=Example,C=DE"),),
        (anyCertificate(issuer="CN=Example Machine CA 2,O=Example,C=DE"),),
    ),
    "jane": ((_common("Doe, Jane", EXAMPLE),), (_common("Doe", EXAMPLE),)),
    "by-host": (
        (_named(x509.DNSName("a.example.org")), _named(x509.DNSName("A.b.Example.org"))),
        (_named(x509.DNSName("example.org")), anyCertificate()),
    ),
    "by-address": (
        (_named(x509.IPAddress(ipaddress.ip_address("2001:db8::7"))),),
        (_named(x509.IPAddress(ipaddress.ip_address("2001:db9::7"))),),
    ),
    "by-uri": (
        (_named(x509.UniformResourceIdentifier("spiffe://example.org/ns/prod/sa/nfs")),),
        (_named(x509.UniformResourceIdentifier("spiffe://example.org/ns/test/sa/nfs")),),
    ),
    "by-mail": (
        (_named(x509.RFC822Name("jane@example.org")),),
        (_named(x509.RFC822Name("jane@example.org.invalid")),),
    ),
    "by-user": (
        (_named(otherName(USER, b"\x0c\x10jane@example.org")),),
        (
            _named(otherName(USER, b"\x0c\x10jane@example.com")),
            _named(otherName("1.2.3", b"\x0c\x10jane@example.org")),
        ),
    ),
    "nfs-client": (
        (anyCertificate(purposes(CLIENT, RPC_CLIENT)),),
        (anyCertificate(purposes(CLIENT)), anyCertificate(purposes("2.5.29.37.0"))),
    ),
    "special": (
        (anyCertificate(purposes("1.3.6.1.4.1.32473.1")),),
        (anyCertificate(purposes(CLIENT)),),
    ),
    "signers": (
        (anyCertificate(usages("digital_signature", "content_commitment")),),
        (anyCertificate(usages("digital_signature")),),
    ),
    "renewed": ((_since(2026, 3, 1), _since(2026, 8, 1)), (_since(2026, 2, 28),)),
    "old": ((_since(2026, 2, 28),), (_since(2026, 3, 1), _since(2026, 8, 1))),
    "short": ((_until("2026-12-31 22:59:59+00:00"),), (_until("2026-12-31 23:00:00+00:00"),)),
    "elliptic": ((anyCertificate(),), (anyCertificate(algorithm=SHA3_256()),)),
    "number-1234": ((anyCertificate(serial=0x1234),), (anyCertificate(serial=0x1235),)),
    "pinned": ((PINNED,), (anyCertificate(),)),
    "own-issuer": (
        (anyCertificate(subject="CN=a", issuer="CN=a"),),
        (anyCertificate(subject="CN=a", issuer="CN=b"),),
    ),
}
"""By each tag in docs/tags.md who gets it and who does not."""


class _TagsTestCase(SynchronousTestCase):
    """Reads tags."""

    def tags(self, text: str) -> TagSet:
        """
        Read tags.

        @param text: the text of their file.
        @return: the tags.
        """
        directory = Path(self.mktemp())
        directory.mkdir(parents=True)
        (directory / "a.yml").write_text(text)
        return loadTags(str(directory))


class DocumentationTests(_TagsTestCase):
    """docs/tags.md"""

    def test_effects(self) -> None:
        """Every example gives every tag in it to whom the text says, and to nobody else."""
        seen: frozenset[str] = frozenset()
        fingerprint = PINNED.fingerprint(SHA256()).hex()
        for text in _YAML.findall((ROOT / "docs" / "tags.md").read_text()):
            tags = self.tags(text.replace("5f0c9a41", fingerprint[:8]))
            seen |= tags.names
            for name in tags.names:
                good, bad = EFFECTS[name]
                self.assertTrue(good and bad)
                for certificate in good:
                    self.assertIn(name, tags.of(Presented(certificate)))
                for certificate in bad:
                    self.assertNotIn(name, tags.of(Presented(certificate)))
        self.assertEqual(seen, set(EFFECTS))

    def test_everyType(self) -> None:
        """Every type of filter has an example, and is named in the text around it."""
        text = (ROOT / "docs" / "tags.md").read_text()
        examples = "".join(_YAML.findall(text))
        around = _YAML.sub("", text)
        for kind in FILTER_TYPES:
            self.assertIn(f"type: {kind}\n", examples)
            self.assertIn(f"`{kind}`", around)

    def test_mistakes(self) -> None:
        """The messages in the text are what one gets."""
        documentation = (ROOT / "docs" / "tags.md").read_text()
        (text,) = re.findall(r"```text\n(.*?)```", documentation, re.DOTALL)
        error = self.assertRaises(
            ConfigError,
            self.tags,
            "filters:\n  staff: {type: x509.tbs.subject,\n    pattern: '*****************'}\n"
            "\n\ntags:\n  engineers:\n    filter:\n      - staf\n",
        )
        places = re.compile("^.*/a.yml", re.MULTILINE)
        self.assertEqual(places.sub("/etc/tlshd/tags.d/a.yml", str(error)) + "\n", text)


class SampleTests(_TagsTestCase):
    """conf/tags.example.yml"""

    def setUp(self) -> None:
        self.text = (ROOT / "conf" / "tags.example.yml").read_text()

    def test_everyType(self) -> None:
        """Every type of filter is in the sample, and every filter in a tag."""
        for kind in FILTER_TYPES:
            self.assertIn(f"type: {kind}\n", self.text)
        definitions, uses = self.text.split("\ntags:\n")
        for name in re.findall(r"^  ([a-z0-9-]+):$", definitions, re.MULTILINE):
            self.assertRegex(uses, rf"- (not )?{name}\n")

    def test_notInTlshd(self) -> None:
        """What tlshd would refuse is marked."""
        paragraphs = self.text.split("\n\n")
        for kind in FILTER_TYPES:
            (paragraph,) = (one for one in paragraphs if f"type: {kind}\n" in f"{one}\n")
            ours = "subjectAltName" in kind or "extendedKeyUsage" in kind
            self.assertEqual("(not in tlshd)" in " ".join(paragraph.split()), ours, kind)

    def test_effect(self) -> None:
        """The sample does what it says."""
        tags = self.tags(self.text)
        engineer = anyCertificate(
            usages("digital_signature"),
            subject="CN=jane,OU=Engineering,O=Example,C=DE",
            issuer="CN=Example Machine CA,O=Example",
            notAfter=datetime(2026, 12, 31, tzinfo=UTC),
        )
        self.assertEqual(tags.of(Presented(engineer)), ("engineers", "modern", "renew-me"))
        lost = anyCertificate(
            subject="CN=jane,OU=Engineering,O=Example,C=DE",
            issuer="CN=Example Machine CA,O=Example",
            serial=0x5E0C11AB,
        )
        self.assertEqual(tags.of(Presented(lost)), ())
        machine = anyCertificate(
            alternatives(
                x509.DNSName("a.example.org"),
                x509.IPAddress(ipaddress.ip_address("192.0.2.9")),
                x509.UniformResourceIdentifier("spiffe://example.org/ns/x/sa/backup"),
                x509.RFC822Name("jane@example.org"),
                otherName(USER, b"\x0c\x10jane@example.org"),
            ),
            purposes(RPC_CLIENT, CLIENT),
        )
        self.assertEqual(tags.of(Presented(machine)), ("backup", "machines", "people"))
        self.assertEqual(tags.of(Presented(None)), ())
