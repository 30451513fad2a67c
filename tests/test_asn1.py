"""Tests for L{ktlsagent.protocols.asn1}."""

from __future__ import annotations

from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.protocols.asn1 import decodeText, elements, objectIdentifier, onlyElement
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


class ElementTests(SynchronousTestCase):
    """Tests for L{elements} and L{onlyElement}."""

    def test_elements(self) -> None:
        """Elements are cut where they end, whatever is in them."""
        parts = [encode(tag, b"x" * size) for tag in (2, 0x82, 0xA0) for size in (0, 127, 128, 256)]
        found = elements(b"".join(parts))
        self.assertEqual([one.encoded for one in found], parts)
        self.assertEqual([len(one.content) for one in found], [0, 127, 128, 256] * 3)
        self.assertEqual(list(elements(b"")), [])

    def test_noElements(self) -> None:
        """What is no DER is an error: cut off, longer than it has to be, or with a long tag."""
        for encoded in (
            *(
                b"\x02",
                b"\x02\x01",
                b"\x02\x80",
                b"\x02\x81",
                b"\x02\x81\x01a",
                b"\x02\x82\x00\x81",
            ),
            *(b"\x1f\x02\x00", b"\xbf\x21\x00", b"\x30\x80\x00\x00", b"\x02\xff" + b"\xff" * 127),
        ):
            self.assertRaises(ValueError, elements, encoded)
            self.assertRaises(ValueError, elements, b"\x05\x00" + encoded)

    def test_only(self) -> None:
        """There is one element, with the tag that is expected."""
        self.assertEqual(onlyElement(b"\x02\x01a", 2), b"a")
        for encoded in (b"", b"\x02\x01a\x05\x00", b"\x03\x01a"):
            self.assertRaises(ValueError, onlyElement, encoded, 2)

    @patient
    @given(st.binary(max_size=40))
    def test_whole(self, encoded: bytes) -> None:
        """What is cut is all that was there."""
        try:
            found = elements(encoded)
        except ValueError:
            return
        self.assertEqual(b"".join(one.encoded for one in found), encoded)
        for one in found:
            self.assertEqual(encode(one.tag, one.content), one.encoded)


class ObjectIdentifierTests(SynchronousTestCase):
    """Tests for L{objectIdentifier}."""

    def test_known(self) -> None:
        """Numbers of any length are read, with the first two in one."""
        for digits, text in (
            ("2a864886f70d010101", "1.2.840.113549.1.1.1"),
            ("551d11", "2.5.29.17"),
            ("883703", "2.999.3"),
            ("00", "0.0"),
            ("27", "0.39"),
            ("28", "1.0"),
            ("4f", "1.39"),
            ("50", "2.0"),
            ("2affffffff7f", "1.2.34359738367"),
        ):
            self.assertEqual(objectIdentifier(bytes.fromhex(digits)), text)

    def test_wrong(self) -> None:
        """What is cut off, empty or padded is none."""
        for digits in ("", "80", "2a80", "2a86", "8001", "2a8001", "2a03808001"):
            self.assertRaises(ValueError, objectIdentifier, bytes.fromhex(digits))

    @patient
    @given(
        st.integers(0, 2),
        st.integers(0, 39),
        st.lists(st.integers(0, 2**40), max_size=6),
    )
    def test_any(self, first: int, second: int, others: list[int]) -> None:
        """They are what the library reads."""
        text = ".".join(map(str, (first, second, *others)))
        oid = x509.ObjectIdentifier(text)
        encoded = x509.Name([x509.NameAttribute(oid, "a")]).public_bytes()
        # A sequence of sets of sequences of a type and a value.
        attribute = onlyElement(onlyElement(onlyElement(encoded, 0x30), 0x31), 0x30)
        self.assertEqual(objectIdentifier(elements(attribute)[0].content), text)
