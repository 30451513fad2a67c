"""DER, read strictly (X.690, sections 8 and 10): its elements, and some kinds of strings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

_UTF8_STRING = 0x0C
_PRINTABLE_STRING = 0x13
_IA5_STRING = 0x16
_CODECS = {_UTF8_STRING: "utf-8", _PRINTABLE_STRING: "ascii", _IA5_STRING: "ascii"}

_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")
_LONG_FORM = 0x80
_LONG_TAG = 0x1F
_MORE = 0x80

_PADDED = re.compile(rb"(?:\A|[\x00-\x7f])\x80")
"""Finds a number of an OBJECT IDENTIFIER that begins with zeroes."""


class Element(NamedTuple):
    """
    An element.

    @ivar tag: its identifier octet, with class and form.
    @ivar content: what is in it.
    @ivar encoded: all of it.
    """

    tag: int
    content: bytes
    encoded: bytes


def elements(encoded: bytes) -> Sequence[Element]:
    """
    Cut elements that follow each other.

    @param encoded: the elements, and nothing else.
    @return: the elements.
    @raise ValueError: if it is no DER, or has a tag number of more than 30.
    """
    found = []
    start, size = 0, len(encoded)
    while start < size:
        begin, end = _content(encoded, start)
        found.append(Element(encoded[start], encoded[begin:end], encoded[start:end]))
        start = end
    return found


def onlyElement(encoded: bytes, tag: int) -> bytes:
    """
    Get what is in an element.

    @param encoded: the element, and nothing else.
    @param tag: its identifier octet.
    @return: its content.
    @raise ValueError: if it is anything else.
    """
    found = elements(encoded)
    if len(found) != 1 or found[0].tag != tag:
        raise ValueError(f"expected one ASN.1 element with the tag {tag:#04x}, found another")
    return found[0].content


def encode(tag: int, content: bytes) -> bytes:
    """
    Encode an element.

    @param tag: its identifier octet.
    @param content: what is in it.
    @return: its encoding in DER.
    """
    return bytes([tag]) + _length(len(content)) + content


def objectIdentifier(content: bytes) -> str:
    """
    Decode what is in an OBJECT IDENTIFIER (X.690, section 8.19).

    @param content: its content.
    @return: its numbers with dots between them.
    @raise ValueError: if it is none.
    """
    if not content or content[-1] & _MORE or _PADDED.search(content):
        raise ValueError("expected an OBJECT IDENTIFIER, found something else")
    numbers = []
    number = 0
    for octet in content:
        number = number << 7 | octet & ~_MORE
        if not octet & _MORE:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def decodeText(encoded: bytes) -> str | None:
    """
    Decode a UTF8String, a PrintableString or an IA5String.

    @param encoded: what should be one, and nothing else.
    @return: its text, C{None} if it is anything else.
    """
    try:
        (element,) = elements(encoded)
        text = element.content.decode(_CODECS[element.tag])
    except (ValueError, KeyError):
        return None
    return None if element.tag == _PRINTABLE_STRING and not _PRINTABLE.fullmatch(text) else text


def _content(encoded: bytes, start: int) -> tuple[int, int]:
    """Find where the content of the element begins and ends that begins at some place."""
    length = encoded[start + 1 : start + 2]
    begin = start + 2
    octets = length[0] if length else _LONG_FORM
    if octets >= _LONG_FORM:
        begin += octets - _LONG_FORM
        length = encoded[start + 1 : begin]
        octets = int.from_bytes(length[1:], "big")
        if length != _length(octets):
            raise ValueError("expected a length in DER, found something else")
    end = begin + octets
    if encoded[start] & _LONG_TAG == _LONG_TAG or end > len(encoded):
        raise ValueError("expected ASN.1 in DER, found something else")
    return begin, end


def _length(octets: int) -> bytes:
    """Encode a length in the only way that DER allows."""
    if octets < _LONG_FORM:
        return bytes([octets])
    number = octets.to_bytes((octets.bit_length() + 7) // 8, "big")
    return bytes([_LONG_FORM + len(number)]) + number
