"""Tests for L{ktlsagent.credentials.tokens}."""

from __future__ import annotations

import contextlib
from binascii import a2b_base64

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.credentials import pem
from ktlsagent.credentials.tokens import PKCS11, TPM, TokenKey
from tests.support import certificates
from tests.support.folder import block
from tests.support.properties import patient

URI = "pkcs11:token=lab;object=server;type=private"


def uriIn(key: TokenKey) -> str:
    """
    Read the URI that a key is loaded by.

    @param key: the key.
    @return: the URI.
    """
    ((label, text),) = pem.blocks(key.pem)
    assert label == "PKCS#11 PROVIDER URI"
    return _strings(a2b_base64(text))[1].decode()


def _strings(der: bytes) -> list[bytes]:
    """Take a sequence of strings apart."""
    (sequence,) = _values(der, 0x30)
    first, second = sequence[0], sequence[2 + sequence[1]]
    assert (first, second) == (0x1A, 0x0C)
    return _values(sequence, 0x1A, 0x0C)


def _values(der: bytes, *tags: int) -> list[bytes]:
    values = []
    for tag in tags:
        assert der[0] == tag
        length, begin = der[1], 2
        if length >= 0x80:
            begin += length - 0x80
            length = int.from_bytes(der[2:begin], "big")
        values.append(der[begin : begin + length])
        der = der[begin + length :]
    assert der == b""
    return values


class URITests(SynchronousTestCase):
    """A key by its URI."""

    def test_whole(self) -> None:
        """The URI goes into the kind of PEM that pkcs11-provider reads."""
        key = TokenKey.fromURI(URI, "/etc/pin")
        self.assertEqual((key.name, key.provider, key.pin), (URI, PKCS11, "/etc/pin"))
        # A sequence of a VisibleString and a UTF8String.
        self.assertEqual(
            key.pem,
            b"-----BEGIN PKCS#11 PROVIDER URI-----\n"
            b"MEgaGVBLQ1MjMTEgUHJvdmlkZXIgVVJJIHYxLjAMK3BrY3MxMTp0b2tlbj1sYWI7b2JqZWN0PXNl\n"
            b"cnZlcjt0eXBlPXByaXZhdGU=\n"
            b"-----END PKCS#11 PROVIDER URI-----\n",
        )

    def test_long(self) -> None:
        """A URI of any length can be encoded."""
        for length in (40, 100, 127, 128, 200, 255, 256, 300, 70000):
            uri = f"{URI};id={'%01' * length}"
            self.assertEqual(uriIn(TokenKey.fromURI(uri)), uri)

    def test_private(self) -> None:
        """A URI without a type is of a private key: the public one may be called alike."""
        for uri in ("pkcs11:object=server", "pkcs11:object=server;"):
            self.assertEqual(uriIn(TokenKey.fromURI(uri)), "pkcs11:object=server;type=private", uri)

    def test_token(self) -> None:
        """Keys in the same token are known as such, however the URI is written."""
        uris = (
            "pkcs11:token=lab;serial=1;object=a",
            "pkcs11:id=%01;serial=1;token=lab;type=private",
            "pkcs11:object=a;token=lab",
            "pkcs11:object=a",
        )
        found = [TokenKey.fromURI(uri).token for uri in uris]
        self.assertEqual(found, ["serial=1;token=lab", "serial=1;token=lab", "token=lab", ""])

    def test_query(self) -> None:
        """What is in the query stays there, and out of the name."""
        key = TokenKey.fromURI(URI + "?module-name=secret&x-vendor=1")
        self.assertEqual(uriIn(key), URI + "?module-name=secret&x-vendor=1")
        self.assertEqual(key.name, URI)
        self.assertNotIn("secret", repr(key))

    def test_pinSource(self) -> None:
        """The place of the PIN is ours to look at."""
        for source, path in (
            ("file:/etc/pin", "/etc/pin"),
            ("file:///etc/pin", "/etc/pin"),
            ("/etc/my%20pin", "/etc/my pin"),
        ):
            key = TokenKey.fromURI(f"{URI}?pin-source={source}&module-name=m")
            self.assertEqual((key.pin, uriIn(key)), (path, URI + "?module-name=m"))

    def test_refused(self) -> None:
        """A URI that is none is refused, with words and without what may be a PIN in it."""
        for uri, words in (
            ("pkcs11:object=a b", "characters"),
            ("pkcs11:object=schl\u00fcssel", "characters"),
            ("pkcs12:object=a", "characters"),
            ("pkcs11:object", "name=value"),
            ("pkcs11:object=a%2", "name=value"),
            ("pkcs11:Object=1", "name=value"),
            ("pkcs11:token=lab", "neither object= nor id="),
            ("pkcs11:", "neither object= nor id="),
            ("pkcs11:object=a?pin-value=0815", "pin-value"),
            ("pkcs11:object=a?pin-source=|0815", "no file"),
            ("pkcs11:object=a?pin-source=", "no file"),
        ):
            error = self.assertRaises(ValueError, TokenKey.fromURI, uri)
            self.assertIn(words, str(error), uri)
            self.assertNotIn("0815", str(error))

    def test_twoPINs(self) -> None:
        """A PIN is in one place."""
        error = self.assertRaises(
            ValueError, TokenKey.fromURI, URI + "?pin-source=file:/a", "/etc/pin"
        )
        self.assertIn("token_pin", str(error))

    @patient
    @given(st.text())
    def test_anything(self, text: str) -> None:
        """Whatever is given as a URI, it is taken or refused."""
        with contextlib.suppress(ValueError):
            uri = uriIn(TokenKey.fromURI("pkcs11:object=x;" + text))
            self.assertTrue(uri.isascii())

    def test_equal(self) -> None:
        """The same key with the same PIN is the same, and can be looked up."""
        keys = {TokenKey.fromURI(URI): 1}
        self.assertIn(TokenKey.fromURI(URI), keys)
        self.assertNotIn(TokenKey.fromURI(URI, "/etc/pin"), keys)


class PEMTests(SynchronousTestCase):
    """A key by a file."""

    def test_kinds(self) -> None:
        """Both kinds of files of tokens are known, whatever else is in them."""
        for label, provider in (("TSS2 PRIVATE KEY", TPM), ("PKCS#11 PROVIDER URI", PKCS11)):
            data = b"# ours\n" + block(label)
            key = TokenKey.fromPEM("/etc/key.pem", data, "credential:pin")
            assert key is not None
            self.assertEqual(
                (key.name, key.provider, key.pem, key.pin, key.token),
                ("/etc/key.pem", provider, data, "credential:pin", provider),
            )
            self.assertNotIn("c29t", repr(key))

    def test_others(self) -> None:
        """A file of another kind is not for us."""
        for data in (certificates.server().keyPEM, b"", b"\x30\x00", block("TSS2 KEY BLOB")):
            self.assertIsNone(TokenKey.fromPEM("/etc/key.pem", data))

    def test_half(self) -> None:
        """Half a file is none."""
        self.assertRaises(
            ValueError, TokenKey.fromPEM, "/etc/key.pem", block("TSS2 PRIVATE KEY")[:-10]
        )
