"""Tests for L{ktlsagent.credentials.crls}."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from hypothesis import given
from OpenSSL import crypto

from ktlsagent.credentials.crls import RevocationList, addCRLs, readCRLs
from ktlsagent.credentials.files import Files
from ktlsagent.errors import Mistake
from ktlsagent.profiles import CRLScope, Tolerated, Trust
from tests.support import certificates
from tests.support.certificates import DAY, DER, NOW, PEM, CertificateAuthority, point
from tests.support.folder import FolderTestCase
from tests.support.properties import changes, patient

REVOKED = 23
EXPIRED = 12
MISSING = 3
OTHER_SCOPE = 44
"""C{X509_V_ERR_*} of C{openssl/x509_vfy.h}."""


def withoutEnd(crl: x509.CertificateRevocationList) -> bytes:
    """
    Take the time of the next update out of a CRL, whose signature is no longer good then.

    @param crl: a CRL of less than 256 octets.
    @return: the CRL without it, in DER.
    """
    assert crl.next_update_utc is not None
    end = b"\x17\x0d" + f"{crl.next_update_utc:%y%m%d%H%M%SZ}".encode()
    content = crl.tbs_certlist_bytes
    outer = crl.public_bytes(DER)
    return _sequence(_sequence(_content(content).replace(end, b"")) + outer.partition(content)[2])


def _content(sequence: bytes) -> bytes:
    return sequence[2:] if sequence[1] < 0x80 else sequence[3:]


def _sequence(content: bytes) -> bytes:
    length = bytes([len(content)] if len(content) < 0x80 else [0x81, len(content)])
    return b"\x30" + length + content


class _CRLTestCase(FolderTestCase):
    """Has a directory, a CA, and a client that it revokes in some CRLs."""

    def setUp(self) -> None:
        super().setUp()
        self.files = Files()
        self.authority = certificates.authority()
        self.client = certificates.client()

    def read(
        self,
        *crls: x509.CertificateRevocationList | bytes,
        tolerated: frozenset[Tolerated] = frozenset(),
        now: datetime = NOW,
    ) -> Sequence[tuple[str, RevocationList]]:
        """
        Read CRLs from a file each.

        @param crls: the CRLs, some of them in the form in which they are to be written.
        @param tolerated: what is no refusal.
        @param now: the time of day.
        @return: those that count.
        """
        paths = tuple(
            self.write(f"{number}.crl", crl if isinstance(crl, bytes) else crl.public_bytes(PEM))
            for number, crl in enumerate(crls)
        )
        trust = Trust(crls=paths, tolerated=tolerated)
        self.files = Files()
        return readCRLs(self.files, "profile.a", trust, now)

    def names(self, *crls: x509.CertificateRevocationList, now: datetime = NOW) -> list[str]:
        """
        Read CRLs from a file each.

        @param crls: the CRLs.
        @param now: the time of day.
        @return: the names of those that count.
        """
        return [one.name for _file, one in self.read(*crls, now=now)]

    def mistake(self, content: bytes) -> Mistake:
        """
        Read CRLs with a mistake.

        @param content: what is in their file.
        @return: the mistake.
        """
        self.read(content)
        (mistake,) = self.files.mistakes
        self.assertEqual((mistake.section, mistake.key), ("profile.a", "x509.crl"))
        return mistake


class ReadCRLsTests(_CRLTestCase):
    """Where CRLs come from, and what they say."""

    def test_forms(self) -> None:
        """A file has one CRL in DER, or one or more in PEM."""
        one = certificates.authority().revocationList(self.client, number=5)
        other = certificates.otherAuthority().revocationList()
        found = self.read(one.public_bytes(DER), one.public_bytes(PEM) + other.public_bytes(PEM))
        self.assertEqual(len(found), 2)
        key = one.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert key.key_identifier is not None
        says = {crl.name: crl.says for _file, crl in found}
        name = f"CN=Lab CA, key {key.key_identifier.hex()}"
        self.assertEqual(set(says), {name, "CN=Other CA"})
        self.assertEqual(says[name].number, 5)
        self.assertEqual(says[name].thisUpdate, NOW - DAY)
        self.assertEqual(says[name].serials, {self.client.certificate.serial_number})
        self.assertIsNone(says["CN=Other CA"].number)

    def test_directory(self) -> None:
        """Of a directory the files with the usual names are read, and those of openssl rehash."""
        one, other = certificates.authority(), certificates.otherAuthority()
        self.write("a.crl", one.revocationList().public_bytes(DER))
        self.write("0a1b2c3d.r0", other.revocationList().public_bytes(PEM))
        self.write("ca.pem", one.certificate.public_bytes(PEM))
        self.write("0a1b2c3d.0", b"?")
        found = readCRLs(self.files, "profile.a", Trust(crls=(self.directory,)), NOW)
        self.assertEqual([os.path.basename(path) for path, _crl in found], ["0a1b2c3d.r0", "a.crl"])
        self.assertEqual(self.files.mistakes, [])

    def test_none(self) -> None:
        """A file without a CRL is a mistake, and so is one with something else."""
        for content in (b"", b"hello", self.authority.certificate.public_bytes(PEM)):
            mistake = self.mistake(content)
            self.assertEqual(
                mistake.expected, "a file of CRLs in PEM or DER, or a directory with such files"
            )
            self.assertEqual(mistake.found, f"none in {os.path.join(self.directory, '0.crl')}")

    def test_broken(self) -> None:
        """Of a file with a broken CRL, or half of one, none is used."""
        pem = self.authority.revocationList().public_bytes(PEM)
        self.assertIn("without its end", self.mistake(pem + pem[:100]).found)
        broken = pem.replace(b"CRL-----\nM", b"CRL-----\nA")
        self.assertIn("a CRL that cannot be used (", self.mistake(pem + broken).found)

    @patient
    @given(changes)
    def test_anyChange(self, made: list[tuple[int, int]]) -> None:
        """Whatever has happened to the octets of a CRL, it is read or refused."""
        der = bytearray(
            self.authority.revocationList(
                self.client, number=1, critical=[point("http://a/1")]
            ).public_bytes(DER)
        )
        for place, octet in made:
            der[place % len(der)] = octet
        for path, one in self.read(bytes(der)):
            one.expiry(path)

    def test_incomplete(self) -> None:
        """What OpenSSL would leave out without a word is refused."""
        for words, extension in (
            ("delta CRL, only complete ones can be used", x509.DeltaCRLIndicator(1)),
            ("indirect CRL, with certificates of other issuers", point(indirect=True)),
            (
                "CRL for some reasons of revocation only",
                point(reasons=frozenset({x509.ReasonFlags.key_compromise})),
            ),
            ("CRL of attribute certificates", point(attributesOnly=True)),
            (
                "the critical extension 1.2.3.4, which is not known",
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
            ),
        ):
            crl = self.authority.revocationList(self.client, critical=[extension])
            self.assertIn(f"{words}) in ", self.mistake(crl.public_bytes(PEM)).found)

    def test_withoutEnd(self) -> None:
        """A CRL has to say until when it is good, unless that does not matter."""
        crl = withoutEnd(self.authority.revocationList())
        mistake = self.mistake(crl)
        self.assertEqual(mistake.expected, "CRLs that say until when they are good (nextUpdate)")
        self.assertIn("the CRL of CN=Lab CA in ", mistake.found)
        ((path, one),) = self.read(crl, tolerated=frozenset({Tolerated.EXPIRED}))
        self.assertEqual(self.files.mistakes, [])
        self.assertIsNone(one.expiry(path))

    def test_expiry(self) -> None:
        """It is known until when a CRL is good; that it has ended is no mistake."""
        ((path, one),) = self.read(self.authority.revocationList(nextUpdate=NOW - DAY))
        self.assertEqual(self.files.mistakes, [])
        expiry = one.expiry(path)
        assert expiry is not None
        self.assertEqual((expiry.what, expiry.path), ("the CRL of CN=Lab CA", path))
        self.assertEqual((expiry.notBefore, expiry.notAfter), (NOW - 2 * DAY, NOW - DAY))


class NewestTests(_CRLTestCase):
    """Of the CRLs of an issuer the newest counts."""

    def test_later(self) -> None:
        """The one that was made last counts, even if it has ended and another has not."""
        old = self.authority.revocationList(thisUpdate=NOW - 9 * DAY)
        new = self.authority.revocationList(self.client, nextUpdate=NOW - DAY)
        for crls in ((old, new), (new, old)):
            ((_path, found),) = self.read(*crls)
            self.assertEqual(found.crl, new)

    def test_sameSecond(self) -> None:
        """Of those that were made in the same second the one with the highest number counts."""
        one = self.authority.revocationList(number=1)
        two = self.authority.revocationList(self.client, number=2)
        for crls in ((one, two), (two, one)):
            ((_path, found),) = self.read(*crls)
            self.assertEqual(found.says.number, 2)

    def test_notYet(self) -> None:
        """One that begins later counts as well, for then."""
        now = self.authority.revocationList()
        later = self.authority.revocationList(self.client, thisUpdate=NOW + DAY)
        found = [crl.crl for _path, crl in self.read(later, now)]
        self.assertEqual(found, [now, later])
        ((_path, only),) = self.read(now, later, now=NOW + 2 * DAY)
        self.assertEqual(only.crl, later)

    def test_different(self) -> None:
        """CRLs of other keys, or about other certificates, stand beside each other."""
        named = self.authority.revocationList(number=1)
        otherKey = CertificateAuthority("Lab CA").revocationList(number=1)
        found = self.names(
            named,
            otherKey,
            self.authority.revocationList(),
            self.authority.revocationList(critical=[point(userOnly=True)]),
            self.authority.revocationList(critical=[point("http://a/1", caOnly=True)]),
        )
        self.assertEqual(found[:2], [*self.names(named), *self.names(otherKey)])
        self.assertEqual(
            found[2:],
            [
                "CN=Lab CA",
                "CN=Lab CA, user certificates",
                "CN=Lab CA, CA certificates, http://a/1",
            ],
        )

    def test_keyWithoutIdentifier(self) -> None:
        """Where a CRL names its key by a certificate, it is the issuer's CRL."""
        issuer = [x509.DirectoryName(self.authority.certificate.subject)]
        named = x509.AuthorityKeyIdentifier(None, issuer, self.authority.certificate.serial_number)
        self.assertEqual(self.names(self.authority.revocationList(critical=[named])), ["CN=Lab CA"])


class AddCRLsTests(_CRLTestCase):
    """Peers are looked up in CRLs."""

    def error(
        self,
        *crls: x509.CertificateRevocationList,
        scope: CRLScope = CRLScope.LEAF,
        client: certificates.Credentials | None = None,
    ) -> int:
        """
        Verify a client's certificate.

        @param crls: the CRLs.
        @param scope: which certificates are looked up.
        @param client: the client; by default the usual one.
        @return: the error that OpenSSL finds, 0 for none.
        """
        store = self.authority.store()
        addCRLs(store, self.read(*crls), scope)
        client = client or self.client
        own = client.own()
        try:
            crypto.X509StoreContext(store, own.chain[0], list(own.chain[1:])).verify_certificate()
        except crypto.X509StoreContextError as error:
            number: int = error.errors[0]
            return number
        return 0

    def test_revoked(self) -> None:
        """Who is revoked is refused, and nobody else."""
        crl = self.authority.revocationList(self.client, number=1)
        self.assertEqual(self.error(crl), REVOKED)
        self.assertEqual(self.error(crl, client=certificates.server()), 0)

    def test_noneOfTheIssuer(self) -> None:
        """Without a CRL of its issuer a certificate is refused."""
        self.assertEqual(self.error(certificates.otherAuthority().revocationList()), MISSING)

    def test_newest(self) -> None:
        """A certificate that only the newest CRL has is revoked, also if others are still good."""
        old = self.authority.revocationList(thisUpdate=NOW - 9 * DAY)
        new = self.authority.revocationList(self.client)
        self.assertEqual(self.error(old, new), REVOKED)
        ended = self.authority.revocationList(nextUpdate=NOW - timedelta(hours=1))
        self.assertEqual(self.error(old, ended), EXPIRED)

    def test_part(self) -> None:
        """A CRL about other certificates is none about this one."""
        crl = self.authority.revocationList(critical=[point(caOnly=True)])
        self.assertEqual(self.error(crl), OTHER_SCOPE)

    def test_scope(self) -> None:
        """The whole chain is looked up only if that is wanted."""
        issuing = certificates.intermediateAuthority()
        chained = certificates.chained()
        below = issuing.revocationList()
        root = self.authority.revocationList(
            certificates.Credentials(issuing.certificate, chained.key)
        )
        self.assertEqual(self.error(below, client=chained), 0)
        self.assertEqual(self.error(below, root, client=chained), 0)
        for crls, expected in (((below,), MISSING), ((below, root), REVOKED)):
            self.assertEqual(self.error(*crls, scope=CRLScope.CHAIN, client=chained), expected)
