"""Tests for L{ktlsagent.peers.tags}."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import ConfigError
from ktlsagent.peers.presented import Presented
from ktlsagent.peers.tagfilters import FILTER_TYPES
from ktlsagent.peers.tags import TagSet, loadTags
from ktlsagent.safefiles import SAFE
from tests.support.anycertificate import (
    alternatives,
    anyCertificate,
    purposes,
    unreadable,
    usages,
)
from tests.support.properties import patient
from tests.support.unreadable import unreadableNames, withIssuer, withSubject

FILTERS = """\
filters:
  lab: {type: x509.tbs.subject, pattern: "*,O=Lab,*"}
  host:
    type: x509.extension.subjectAltName.dNSName
    pattern: "*.example.org"
  signs: {type: x509.extension.keyUsage, purpose: [digitalSignature, cRLSign]}
  client: {type: x509.extension.extendedKeyUsage, purpose: [clientAuth]}
  self: {type: x509.derived.selfSigned}
"""

EVERY_TYPE = {
    "x509.cert.signatureAlgorithm": "pattern: '*'",
    "x509.tbs.version": "pattern: '*'",
    "x509.tbs.serialNumber": "pattern: '*'",
    "x509.tbs.issuer": "pattern: '*'",
    "x509.tbs.validity.notBefore": "pattern: 2000-01-01 00:00:00",
    "x509.tbs.validity.notAfter": "pattern: 2100-01-01 00:00:00",
    "x509.tbs.subject": "pattern: '*'",
    "x509.extension.keyUsage": "purpose: [digitalSignature]",
    "x509.extension.extendedKeyUsage": "purpose: [clientAuth]",
    "x509.extension.subjectAltName.dNSName": "pattern: '*'",
    "x509.extension.subjectAltName.iPAddress": "pattern: 0.0.0.0/0",
    "x509.extension.subjectAltName.uniformResourceIdentifier": "pattern: '*'",
    "x509.extension.subjectAltName.rfc822Name": "pattern: '*@*'",
    "x509.extension.subjectAltName.otherName": "pattern: 1.2.3.4=*",
    "x509.derived.fingerprint": "pattern: '*'",
    "x509.derived.selfSigned": "",
}
"""A filter of each type."""


class TagsTestCase(SynchronousTestCase):
    """Has a directory for files."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)

    def load(self, **files: str) -> TagSet:
        """
        Write files and read all that are there.

        @param files: their texts, by names that go before C{.yml}.
        @return: the tags.
        """
        for name, text in files.items():
            (self.directory / f"{name}.yml").write_text(text)
        return loadTags(str(self.directory))

    def refused(self) -> list[str]:
        """
        Read files with mistakes.

        @return: the mistakes in words, without the directory.
        """
        error = self.assertRaises(ConfigError, loadTags, str(self.directory))
        for mistake in error.mistakes:
            self.assertTrue(mistake.expected and mistake.found and mistake.advice)
        return str(error).replace(f"{self.directory}/", "").split("\n")


class EvaluationTests(TagsTestCase):
    """Tests for L{TagSet}."""

    def test_tags(self) -> None:
        """A tag is given if all its filters match, and no negated one does."""
        tags = self.load(
            a=FILTERS + "tags:\n"
            "  zlab: {filter: [lab]}\n"
            "  both: {filter: [lab, host]}\n"
            "  lab-only: {filter: [lab, not host]}\n"
            "  stranger: {filter: [not lab]}\n"
            "  nobody: {filter: [not lab, not host, not signs, not client, not self]}\n"
        )
        host = alternatives(x509.DNSName("a.example.org"))
        for certificate, names in (
            (anyCertificate(), ("lab-only", "zlab")),
            (anyCertificate(host), ("both", "zlab")),
            (anyCertificate(host, subject="CN=a"), ("stranger",)),
            (anyCertificate(subject="CN=a"), ("nobody", "stranger")),
        ):
            self.assertEqual(tags.of(Presented(certificate)), names)
        self.assertEqual(tags.names, {"zlab", "both", "lab-only", "stranger", "nobody"})

    def test_purposes(self) -> None:
        """All purposes of a filter have to be there."""
        tags = self.load(a=FILTERS + "tags: {t: {filter: [signs]}, n: {filter: [not signs]}}")
        for extension, names in (
            (usages("digital_signature", "crl_sign", "key_agreement"), ("t",)),
            (usages("digital_signature"), ("n",)),
            (purposes("1.2.3"), ("n",)),
        ):
            self.assertEqual(tags.of(Presented(anyCertificate(extension))), names)

    def test_withoutCertificate(self) -> None:
        """A peer that has shown no certificate gets no tag, negated or not."""
        tags = self.load(
            a=FILTERS + "tags:\n  yes: {filter: [lab]}\n  no: {filter: [not lab, not self]}\n"
        )
        self.assertEqual(tags.of(Presented(None)), ())
        self.assertEqual(tags.verdicts(Presented(None)), {})

    def test_noTags(self) -> None:
        """Without files there is no tag."""
        self.assertEqual(TagSet(), loadTags(str(self.directory)))
        self.assertEqual(TagSet().of(Presented(anyCertificate())), ())
        self.assertEqual((TagSet().names, TagSet().files), (frozenset(), ()))

    def everyType(self) -> TagSet:
        """
        Define two tags for each type of filter: one that needs it and one that
        needs the opposite.

        @return: the tags.
        """
        self.assertEqual(set(EVERY_TYPE), set(FILTER_TYPES))
        filters, tags = ["filters:"], ["tags:"]
        for kind, parameter in EVERY_TYPE.items():
            name = kind.replace(".", "-")
            filters.append(f"  {name}: {{type: {kind}, {parameter}}}")
            tags += [f"  {name}: {{filter: [{name}]}}", f"  no-{name}: {{filter: [not {name}]}}"]
        return self.load(a="\n".join([*filters, *tags]))

    def test_everyType(self) -> None:
        """Every type says yes or no to a certificate that can be read."""
        tags = self.everyType()
        self.assertEqual(len(tags.of(Presented(anyCertificate()))), len(EVERY_TYPE))
        self.assertEqual(
            len(tags.of(Presented(anyCertificate(subject=x509.Name([]))))), len(EVERY_TYPE)
        )

    def test_unreadableExtensions(self) -> None:
        """What cannot be read says neither yes nor no; the rest does."""
        tags = self.everyType()
        for certificate in (*unreadableNames(), anyCertificate(unreadable())):
            given = tags.of(Presented(certificate))
            self.assertEqual([name for name in given if "subjectAltName" in name], [])
            self.assertEqual(len(given), 11)
            verdicts = tags.verdicts(Presented(certificate))
            self.assertEqual(
                {name for name in verdicts if verdicts[name] is None},
                {name for name in verdicts if "subjectAltName" in name},
            )

    def test_unknownAmongOthers(self) -> None:
        """One filter that says no decides; else one that cannot say leaves all open."""
        tags = self.load(
            a=FILTERS + "tags:\n"
            "  maybe: {filter: [host]}\n"
            "  maybe-not: {filter: [not host]}\n"
            "  lab-and-maybe: {filter: [lab, not host]}\n"
            "  maybe-and-lab: {filter: [host, lab]}\n"
            "  never: {filter: [host, not lab]}\n"
            "  never-either: {filter: [self, not signs]}\n"
            "  surely: {filter: [lab, not self]}\n"
        )
        for certificate in (anyCertificate(unreadable()), anyCertificate(unreadable(), usages())):
            verdicts = tags.verdicts(Presented(certificate))
            self.assertEqual(
                verdicts,
                {
                    **dict.fromkeys(("maybe", "maybe-not", "lab-and-maybe", "maybe-and-lab")),
                    **dict.fromkeys(("never", "never-either"), False),
                    "surely": True,
                },
            )
            self.assertEqual(tags.of(Presented(certificate)), ("surely",))

    def test_unknownPartOfAFilter(self) -> None:
        """The same holds for the purposes of one filter, in any order."""
        filters = "filters: {f: {type: x509.extension.keyUsage, purpose: [cRLSign, keyAgreement]}}"
        tags = self.load(a=filters + "\ntags: {t: {filter: [f]}, n: {filter: [not f]}}")
        for extension, expected in (
            (unreadable(ExtensionOID.KEY_USAGE), (None, None)),
            (usages("crl_sign"), (False, True)),
            (usages("key_agreement"), (False, True)),
            (usages("crl_sign", "key_agreement"), (True, False)),
        ):
            verdicts = tags.verdicts(Presented(anyCertificate(extension)))
            self.assertEqual((verdicts["t"], verdicts["n"]), expected)

    def test_unreadableNames(self) -> None:
        """A name that cannot be read is neither equal to another one nor not."""
        tags = self.everyType()
        for certificate, name in (
            (withSubject(b"\x14\x08\xff\xfe\x00\x1b.lab"), "subject"),
            (withIssuer(b"\x14\x06\xff\xfe\x00\x1bCA"), "issuer"),
        ):
            given = tags.of(Presented(certificate))
            self.assertFalse([tag for tag in given if f"tbs-{name}" in tag or "selfS" in tag])
            self.assertEqual(len(given), len(EVERY_TYPE) - 2)

    @patient
    @given(st.data())
    def test_anyOctets(self, data: st.DataObject) -> None:
        """Whatever a certificate holds, a tag and its opposite are never given together."""
        certificate = anyCertificate(
            alternatives(x509.DNSName("a.lab"), x509.RFC822Name("a@b.c")),
            usages("crl_sign"),
            purposes("1.2.3"),
        )
        octets = bytearray(certificate.public_bytes(serialization.Encoding.DER))
        # The length of the signature is not always the same.
        end = len(certificate.tbs_certificate_bytes)
        for position in data.draw(st.lists(st.integers(4, end), max_size=5)):
            octets[position] = data.draw(st.integers(0, 255))
        try:
            changed = x509.load_der_x509_certificate(bytes(octets))
        except Exception:  # noqa: BLE001 - the library refuses it in one of many ways
            return
        peer = Presented(changed)
        given = self._allTags().of(peer)
        self.assertEqual(list(given), sorted(given))
        verdicts = self._allTags().verdicts(peer)
        self.assertEqual(given, tuple(sorted(name for name in verdicts if verdicts[name])))
        for name in verdicts:
            if (opposite := verdicts.get(f"no-{name}", ...)) is not ...:
                self.assertIs(opposite, {True: False, False: True, None: None}[verdicts[name]])

    _tags: TagSet | None = None

    def _allTags(self) -> TagSet:
        """L{everyType}, read once."""
        if self._tags is None:
            self._tags = self.everyType()
        return self._tags

    def test_repr(self) -> None:
        """Only the files are shown."""
        tags = self.load(a=FILTERS)
        self.assertEqual(repr(tags), f"TagSet(files={tags.files!r})")


class LoadTests(TagsTestCase):
    """Tests for L{loadTags}."""

    def test_files(self) -> None:
        """Files that end in .yml or .yaml are read in the order of their names, no others."""
        for name in ("b.yml", "a.yaml", "10.yml", "9.yml"):
            (self.directory / name).write_text("")
        for name in ("c.yml.example", "d.YML", "e", ".f.yml", "yml", "g.json"):
            (self.directory / name).write_text("{")
        (self.directory / "h").mkdir()
        (self.directory / "h" / "i.yml").write_text("{")
        os.symlink("gone", self.directory / ".#b.yml")
        expected = [str(self.directory / name) for name in ("10.yml", "9.yml", "a.yaml", "b.yml")]
        self.assertEqual(list(self.load().files), expected)

    def test_filtersOfOtherFiles(self) -> None:
        """A tag of the first file may name a filter of the last one."""
        tags = self.load(a="tags: {t: {filter: [lab]}}", z=FILTERS)
        self.assertEqual(tags.of(Presented(anyCertificate())), ("t",))

    def test_noDirectory(self) -> None:
        """Without the directory there are no tags."""
        self.assertEqual(loadTags(str(self.directory / "none")), TagSet())

    def test_badDirectory(self) -> None:
        """What is there and no directory that can be read is a mistake."""
        path = self.directory / "file"
        path.write_text("")
        os.symlink("gone", self.directory / "link")
        for name, words in (
            ("file", "not a directory"),
            ("file/none", "not a directory"),
            ("link", "no such file or directory"),
        ):
            error = self.assertRaises(ConfigError, loadTags, str(self.directory / name))
            self.assertEqual(
                str(error),
                f"{self.directory}/{name}: expected a directory that can be read, found {words}; "
                "name another one, or let the agent read it",
            )

    def test_badFiles(self) -> None:
        """Files that cannot be read are mistakes, each of them; none is waited for."""
        (self.directory / "a.yml").mkdir()
        os.symlink("gone", self.directory / "b.yml")
        os.mkfifo(self.directory / "c.yml")
        (self.directory / "d.yml").write_bytes(b"# a\n# \xfc\n")
        (self.directory / "e.yml").write_text("tags: {t: {filter: [lab]}}")
        expected = "expected a file that can be read, found"
        advice = "move away what is no file of tags"
        byte = "expected text in UTF-8, found the byte 0xfc"
        self.assertEqual(
            self.refused(),
            [
                f"a.yml: {expected} is a directory; {advice}",
                f"b.yml: {expected} no such file or directory; {advice}",
                f"c.yml: {expected} not a regular file; {advice}",
                f"d.yml, line 2: {byte}; save the file in UTF-8",
            ],
        )

    def test_othersCanWrite(self) -> None:
        """What others can change is not read: it says who has which tags."""
        path = self.directory / "a.yml"
        path.write_text("tags: {}")
        path.chmod(0o666)
        (line,) = self.refused()
        self.assertIn(f"a.yml: expected {SAFE}, found", line)
        self.assertIn("a.yml with mode 0666, which others can change; chmod go-w", line)

    def test_allOrNothing(self) -> None:
        """One mistake is enough for no tags at all, and all are told, in the order of the files."""
        files = {
            "a": FILTERS + "tags: {t: {filter: [lab, laboratory]}}\n",
            "b": "filters: {\n",
            "c": "filters: {lab: {type: x509.derived.selfSigned}}\ntag: {}\n",
            "d": "tags: {t: {filter: [lab]}}\n",
        }
        self.assertRaises(ConfigError, self.load, **files)
        places = [line.partition(": ")[0] for line in self.refused()]
        self.assertEqual(
            places, ["b.yml, line 2", "c.yml, line 1", "c.yml, line 2", "d.yml, line 1"]
        )
        (self.directory / "b.yml").unlink()
        lines = self.refused()
        self.assertEqual(
            lines[0],
            "a.yml, line 9: tags.t.filter: expected a filter that is defined, found 'laboratory'; "
            "known are lab, host, signs, client, self",
        )
        self.assertEqual(
            lines[1],
            "c.yml, line 1: filters.lab: expected each name once in all files, found it again, "
            "first in a.yml, line 2; rename one of the two",
        )
        self.assertEqual(len(lines), 4)

    def test_pastedKey(self) -> None:
        """Nothing that looks like a key is repeated."""
        key = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"
        self.load()
        for text in (
            f"{key}: x",
            f"filters: {{f: {{type: {key}}}}}",
            f"filters: {{f: {{type: x509.tbs.version, pattern: {key}}}}}",
            f"filters: {{f: {{type: x509.extension.keyUsage, purpose: [{key}]}}}}",
            f"tags: {{t: {{filter: [{key}]}}}}",
        ):
            (self.directory / "a.yml").write_text(text)
            self.assertNotIn(key[:10], "".join(self.refused()))
