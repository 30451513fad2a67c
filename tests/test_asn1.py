"""Tests for L{ktlsagent.protocols.asn1}."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.protocols.asn1 import decodeText
from tests.support.properties import patient

UTF8, PRINTABLE, IA5 = 0x0C, 0x13, 0x16


def encode(tag: int, content: bytes) -> bytes:
    """
    Encode a string as DER has it.

    @param tag: its type.
    @param content: its octets.
    @return: the encoding.
    """
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    if length < 256:
        return bytes([tag, 0x81, length]) + content
    return bytes([tag, 0x82, length >> 8, length & 255]) + content


class DecodeTextTests(SynchronousTestCase):
    """Tests for L{decodeText}."""

    def test_texts(self) -> None:
        """Each of the three types is decoded with what it may hold."""
        for tag, text in (
            (UTF8, ""),
            (UTF8, "m\u00fcller\x00\n"),
            (IA5, "a@b_*\x7f\x00"),
            (PRINTABLE, "Az09 '()+,-./:=?"),
        ):
            self.assertEqual(decodeText(encode(tag, text.encode())), text)

    def test_known(self) -> None:
        """The encodings of X.690, section 8.23.5.4, and of a longer string are decoded."""
        self.assertEqual(decodeText(b"\x16\x05Jones"), "Jones")
        self.assertEqual(decodeText(b"\x0c\x81\x80" + b"a" * 128), "a" * 128)

    def test_notTheirLetters(self) -> None:
        """What a type may not hold makes it unreadable."""
        for tag, content in (
            (UTF8, b"\xff"),
            (UTF8, b"\xc0\x80"),
            (UTF8, b"\xed\xa0\x80"),
            (IA5, b"\xc3\xbc"),
            (PRINTABLE, b"a@b"),
            (PRINTABLE, b"a*"),
            (PRINTABLE, b"a\n"),
            (PRINTABLE, b"\xc3\xbc"),
        ):
            self.assertIsNone(decodeText(encode(tag, content)), content)

    def test_otherTypes(self) -> None:
        """Nothing else is a text: no other string, no octets, no sequence, no tagged string."""
        for tag in (0x04, 0x05, 0x14, 0x1C, 0x1E, 0x30, 0x2C, 0x8C, 0xAC):
            self.assertIsNone(decodeText(encode(tag, b"abcd")))

    def test_onlyDER(self) -> None:
        """Lengths that are longer than they have to be, or not definite, are not accepted."""
        for encoded in (
            b"\x0c\x81\x01a",
            b"\x0c\x82\x00\x81" + b"a" * 129,
            b"\x0c\x80a\x00\x00",
            b"\x0c\xff" + b"a" * 200,
            b"\x2c\x03\x0c\x01a",
        ):
            self.assertIsNone(decodeText(encoded))

    def test_wrongLengths(self) -> None:
        """A string that is cut off or has something behind it is none."""
        for size in (0, 1, 127, 128, 255, 256, 65535):
            whole = encode(UTF8, b"a" * size)
            self.assertEqual(decodeText(whole), "a" * size)
            self.assertIsNone(decodeText(whole + b"a"))
            for cut in range(min(len(whole), 6)):
                self.assertIsNone(decodeText(whole[:cut]))
            self.assertIsNone(decodeText(whole[:-1]))

    @patient
    @given(
        st.binary(max_size=40)
        | st.builds(encode, st.sampled_from((UTF8, PRINTABLE, IA5)), st.binary(max_size=300))
    )
    @example(b"")
    @example(b"\x0c")
    @example(b"\x0c\x80")
    @example(b"\x0c\x81")
    @example(b"\x13\x00")
    def test_oneEncoding(self, encoded: bytes) -> None:
        """Whatever is decoded is the only encoding of its text."""
        text = decodeText(encoded)
        if text is not None:
            self.assertEqual(encode(encoded[0], text.encode()), encoded)
