"""Tests for L{ktlsagent.credentials.filekinds}."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.credentials.filekinds import OtherKind, lockedKey, otherKind
from tests.support import certificates
from tests.support.certificates import DER, PEM
from tests.support.folder import block
from tests.support.properties import patient

_NONE = serialization.NoEncryption()


class KindTests(SynchronousTestCase):
    """What files are."""

    def setUp(self) -> None:
        self.own = certificates.server()

    def kind(self, data: bytes, *, key: bool = False) -> tuple[str, str]:
        """
        Say what a file is.

        @param data: its content.
        @param key: whether a private key is wanted.
        @return: what it is, and what to do.
        """
        found = otherKind(data, key=key)
        return str(found), found.advice("/a b")

    def request(self) -> x509.CertificateSigningRequest:
        """
        Make a certificate request.

        @return: it.
        """
        name = self.own.certificate.subject
        return x509.CertificateSigningRequestBuilder(name).sign(self.own.key, hashes.SHA256())

    def keyIn(self, encoding: serialization.Encoding, form: serialization.PrivateFormat) -> bytes:
        """
        Write the private key.

        @param encoding: PEM or DER.
        @param form: the form.
        @return: the file.
        """
        return self.own.key.private_bytes(encoding, form, _NONE)

    def test_certificates(self) -> None:
        """What is none of our certificates, in PEM and in DER."""
        key = serialization.PrivateFormat.PKCS8
        crl = certificates.authority().revocationList()
        public = self.own.key.public_key()
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        for words, files in {
            "a private key and no certificate": (self.keyIn(PEM, key), self.keyIn(DER, key)),
            "a certificate request": (
                self.request().public_bytes(PEM),
                self.request().public_bytes(DER),
                self.request().public_bytes(PEM).replace(b" CERTIFICATE", b" NEW CERTIFICATE"),
            ),
            "PKCS#7": (
                pkcs7.serialize_certificates([self.own.certificate], PEM),
                pkcs7.serialize_certificates([self.own.certificate], DER),
            ),
            "PKCS#12": (
                pkcs12.serialize_key_and_certificates(
                    b"x", self.own.key, self.own.certificate, None, _NONE
                ),
            ),
            "a CRL": (crl.public_bytes(PEM), crl.public_bytes(DER)),
            "a public key, which is neither private nor certified": (
                public.public_bytes(PEM, spki),
                public.public_bytes(
                    serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
                ),
                b"ssh-ed25519 AAAA me@here",
            ),
            "an empty file": (b"", b" \n"),
            "text in UTF-16": ("-----BEGIN".encode("utf-16"),),
            "a Java key store": (b"\xfe\xed\xfe\xed\x00\x00\x00\x02",),
            "none": (b"hello", b"\x30\x00", block("DH PARAMETERS"), b"-----BEGIN CERTIFICATE-----"),
        }.items():
            for data in files:
                self.assertEqual(self.kind(data)[0], words)

    def test_keys(self) -> None:
        """What is no private key that OpenSSL reads in PEM."""
        ssh = self.keyIn(PEM, serialization.PrivateFormat.OpenSSH)
        for words, files in {
            "a certificate and no private key": (
                self.own.certificatePEM,
                self.own.certificate.public_bytes(DER),
            ),
            "a private key in DER": (
                self.keyIn(DER, serialization.PrivateFormat.PKCS8),
                self.keyIn(DER, serialization.PrivateFormat.TraditionalOpenSSL),
            ),
            "a private key in OpenSSH's own form": (ssh,),
            "a private key in PuTTY's own form": (b"PuTTY-User-Key-File-3: ssh-ed25519\n",),
            "a certificate request": (self.request().public_bytes(PEM),),
            "none": (block("EC PARAMETERS"),),
        }.items():
            for data in files:
                self.assertEqual(self.kind(data, key=True)[0], words)

    def test_advice(self) -> None:
        """There is a command for each, with the file's name as a shell has it."""
        store = pkcs12.serialize_key_and_certificates(
            b"x", self.own.key, self.own.certificate, None, _NONE
        )
        for key, part in ((False, "-nokeys"), (True, "-nocerts -noenc")):
            self.assertEqual(
                self.kind(store, key=key)[1],
                f"(umask 077; openssl pkcs12 -in '/a b' {part} -out '/a b.pem')",
            )
        self.assertEqual(otherKind(b"hello", key=False).advice("/x"), "")

    def test_commands(self) -> None:
        """The commands make of the files what is wanted."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        locked = self.own.key.private_bytes(
            PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        bundle = pkcs7.serialize_certificates([self.own.certificate], DER)
        inDER = self.keyIn(DER, serialization.PrivateFormat.PKCS8)
        cases: list[tuple[bytes, OtherKind, str, bytes]] = [
            (bundle, otherKind(bundle, key=False), "", b"BEGIN CERTIFICATE"),
            (inDER, otherKind(inDER, key=True), "", b"BEGIN PRIVATE KEY"),
            (locked, lockedKey(), " -passin pass:secret", b"BEGIN PRIVATE KEY"),
        ]
        for number, (data, kind, more, expected) in enumerate(cases):
            path = folder / f"a file {number}"
            path.write_bytes(data)
            command = kind.advice(str(path))
            subprocess.run(command.replace(" -out", f"{more} -out"), shell=True, check=True)
            self.assertIn(expected, Path(f"{path}.pem").read_bytes())

    @patient
    @given(st.binary(), st.sampled_from((True, False)))
    def test_anything(self, data: bytes, key: bool) -> None:  # noqa: FBT001 - given by position
        """Whatever is in a file, it is called something, and nothing of it is quoted."""
        words, _advice = self.kind(data, key=key)
        self.assertTrue(words.isascii())
