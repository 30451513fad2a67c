"""Tests for L{ktlsagent.credentials.pem}."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.credentials import pem
from tests.support import certificates
from tests.support.folder import block
from tests.support.properties import patient


class BlocksTests(SynchronousTestCase):
    """The blocks of a file."""

    def test_explained(self) -> None:
        """Text around the blocks is left out, and a key with headers is a block as well."""
        data = (
            b"# our CA - the old one\n" + block("CERTIFICATE", b"1") + b"subject=CN=x\r\n"
            b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n"
            b"\nAA==\n-----END RSA PRIVATE KEY-----"
        )
        self.assertEqual(
            [label for label, _ in pem.blocks(data)], ["CERTIFICATE", "RSA PRIVATE KEY"]
        )

    def test_noPEM(self) -> None:
        """Where there is no block none is found."""
        self.assertEqual(pem.blocks(b""), [])
        self.assertEqual(pem.blocks(b"\x30\x03\x02\x01\x00"), [])

    def test_half(self) -> None:
        """Half a block is refused wherever it is: the file is not complete."""
        whole = block("X509 CRL", b"1")
        half = whole[: len(whole) // 2]
        for data in (half, whole + half, half + whole, whole.replace(b"END X509", b"END X510")):
            error = self.assertRaises(ValueError, pem.blocks, data)
            self.assertEqual(str(error), "a PEM block without its end")

    @patient
    @given(st.binary())
    def test_anything(self, data: bytes) -> None:
        """Whatever is in a file, it is read or refused."""
        with contextlib.suppress(ValueError):
            pem.decode(data, pem.CERTIFICATE)


class DecodeTests(SynchronousTestCase):
    """Values of one kind."""

    @patient
    @given(st.lists(st.tuples(st.sampled_from(["CERTIFICATE", "X509 CRL", "X"]), st.binary())))
    def test_chosen(self, contents: list[tuple[str, bytes]]) -> None:
        """The values with the right labels are found, in order."""
        data = b"".join(block(label, content) for label, content in contents)
        expected = [content for label, content in contents if label == "CERTIFICATE"]
        self.assertEqual(pem.decode(data, pem.CERTIFICATE), expected)

    def test_der(self) -> None:
        """A file without PEM that may be DER is one value."""
        der = certificates.authority().revocationList().public_bytes(certificates.DER)
        self.assertEqual(pem.decode(der, pem.CRL), [der])

    def test_neither(self) -> None:
        """A file of anything else has no value."""
        self.assertEqual(pem.decode(b"hello", pem.CRL), [])

    def test_broken(self) -> None:
        """A block that is not in base64 is refused."""
        data = b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"
        error = self.assertRaises(ValueError, pem.decode, data, pem.CERTIFICATE)
        self.assertIn("a broken PEM block (", str(error))

    def test_trusted(self) -> None:
        """OpenSSL's form of a certificate has a meaning that would get lost: it is refused."""
        data = block("CERTIFICATE", b"1") + block("TRUSTED CERTIFICATE", b"2")
        error = self.assertRaises(ValueError, pem.decode, data, pem.CERTIFICATE)
        self.assertEqual(str(error), "a TRUSTED CERTIFICATE, which is OpenSSL's own form,")
