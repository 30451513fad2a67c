"""Tests for L{ktlsagent.credentials.truststores}."""

from __future__ import annotations

import os
from collections.abc import Sequence

from OpenSSL import crypto

from ktlsagent.credentials.files import Files
from ktlsagent.credentials.truststores import Anchors, readAnchors
from ktlsagent.profiles import SYSTEM
from tests.support import certificates
from tests.support.certificates import DER, PEM
from tests.support.folder import FolderTestCase


class ReadAnchorsTests(FolderTestCase):
    """Where trust anchors come from."""

    def setUp(self) -> None:
        super().setUp()
        self.files = Files()
        self.one = certificates.authority().certificate
        self.other = certificates.otherAuthority().certificate

    def read(self, *stores: str, system: Sequence[str] = ()) -> dict[str, list[bytes]]:
        """
        Read trust anchors.

        @param stores: where they are.
        @param system: where those of the system may be.
        @return: the anchors by the file's name, in DER.
        """
        found: dict[str, list[bytes]] = {}
        for anchors in self.readAll(*stores, system=system):
            ders = [
                crypto.dump_certificate(crypto.FILETYPE_ASN1, one) for one in anchors.certificates
            ]
            self.assertEqual(list(anchors.ders), ders)
            found[os.path.basename(anchors.path)] = ders
        return found

    def readAll(self, *stores: str, system: Sequence[str] = ()) -> Sequence[Anchors]:
        """
        Read trust anchors.

        @param stores: where they are.
        @param system: where those of the system may be.
        @return: the anchors.
        """
        return readAnchors(self.files, "profile.a", stores, system)

    def mistake(self, content: bytes, name: str = "ca.pem") -> str:
        """
        Read a trust store with a mistake.

        @param content: its content.
        @param name: its name.
        @return: what was found instead of anchors.
        """
        self.files = Files()
        self.assertEqual(self.read(self.write(name, content)), {})
        (mistake,) = self.files.mistakes
        self.assertEqual((mistake.section, mistake.key), ("profile.a", "x509.truststore"))
        self.assertEqual(
            mistake.expected, "a PEM file of CA certificates, or a directory with such files"
        )
        return mistake.found

    def test_bundle(self) -> None:
        """A file may have many certificates, each of which counts once."""
        pems = self.one.public_bytes(PEM) + self.other.public_bytes(PEM)
        ders = [self.one.public_bytes(DER), self.other.public_bytes(DER)]
        self.assertEqual(self.read(self.write("ca.pem", pems + pems)), {"ca.pem": ders})

    def test_severalFiles(self) -> None:
        """A profile may have several files, in DER as well."""
        first = self.write("a.pem", self.one.public_bytes(PEM))
        second = self.write("b.cer", self.other.public_bytes(DER))
        self.assertEqual(
            self.read(first, second),
            {"a.pem": [self.one.public_bytes(DER)], "b.cer": [self.other.public_bytes(DER)]},
        )

    def test_directory(self) -> None:
        """
        In a directory the files with the usual names are read, and those of
        openssl rehash, whose links lead to them.
        """
        self.write("one.crt", self.one.public_bytes(PEM))
        self.write("0a1b2c3d.0", self.other.public_bytes(PEM))
        os.symlink("one.crt", os.path.join(self.directory, "deadbeef.1"))
        self.write("notes.txt", b"nothing")
        crl = certificates.authority().revocationList()
        self.write("crl.pem", crl.public_bytes(PEM))
        self.assertEqual(
            self.read(self.directory),
            {
                "0a1b2c3d.0": [self.other.public_bytes(DER)],
                "deadbeef.1": [self.one.public_bytes(DER)],
            },
        )
        self.assertEqual(self.files.mistakes, [])

    def test_none(self) -> None:
        """An empty file, one with other things, and one with anything else are mistakes."""
        path = os.path.join(self.directory, "ca.pem")
        key = certificates.server().keyPEM
        for content in (b"", b"hello", key):
            self.assertEqual(self.mistake(content), f"none in {path}")

    def test_broken(self) -> None:
        """Of a file that is broken nothing is trusted."""
        pem = self.one.public_bytes(PEM)
        path = os.path.join(self.directory, "ca.pem")
        half = self.mistake(pem + pem[: len(pem) // 2])
        self.assertEqual(half, f"a PEM block without its end in {path}")
        broken = pem.replace(b"CERTIFICATE-----\nMII", b"CERTIFICATE-----\nAAA")
        self.assertIn("a broken one (", self.mistake(broken))
        self.assertIn("a broken one (", self.mistake(b"\x30\x03\x02\x01\x00"))

    def test_system(self) -> None:
        """The system's trust store can be had beside others: the first that exists."""
        path = self.write("system.pem", self.one.public_bytes(PEM))
        other = self.write("other.pem", self.other.public_bytes(PEM))
        found = self.readAll(SYSTEM, other, system=("/nonexistent/a", path, "/nonexistent/b"))
        self.assertEqual(
            [(anchors.path, anchors.ofSystem) for anchors in found], [(path, True), (other, False)]
        )

    def test_noSystem(self) -> None:
        """A system without trust anchors is told where they were looked for."""
        self.assertEqual(self.read(SYSTEM, system=("/nonexistent/a", "/nonexistent/b")), {})
        (mistake,) = self.files.mistakes
        self.assertEqual(mistake.section, "profile.a")
        self.assertEqual(
            mistake.expected, "the system's trust store at /nonexistent/a or /nonexistent/b"
        )
        self.assertEqual(mistake.found, "none of these files")
        self.assertEqual(mistake.advice, "install ca-certificates or set x509.truststore")

    def test_expiries(self) -> None:
        """It is known until when an anchor is good, except for the system's many."""
        path = self.write("ca.pem", self.one.public_bytes(PEM))
        (own,) = self.readAll(path)
        (expiry,) = own.expiries()
        self.assertEqual((expiry.what, expiry.path), ("the trust anchor CN=Lab CA", path))
        self.assertEqual(expiry.notBefore, self.one.not_valid_before_utc)
        self.assertEqual(expiry.notAfter, self.one.not_valid_after_utc)
        (system,) = self.readAll(SYSTEM, system=(path,))
        self.assertEqual(list(system.expiries()), [])

    def test_unreadable(self) -> None:
        """Of an anchor that only OpenSSL can read the end is not known."""
        self.assertEqual(list(Anchors("/ca.pem", [b"?"], []).expiries()), [])
