"""Strings of ASN.1, strictly as DER has them (X.690, sections 8 and 10)."""

from __future__ import annotations

import re

_PRINTABLE_STRING = b"\x13"
_CODECS = {b"\x0c": "utf-8", _PRINTABLE_STRING: "ascii", b"\x16": "ascii"}
"""Of UTF8String, PrintableString and IA5String."""

_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")
_LONG_FORM = 0x80


def decodeText(encoded: bytes) -> str | None:
    """
    Decode a UTF8String, a PrintableString or an IA5String.

    @param encoded: what should be one, and nothing else.
    @return: its text, C{None} if it is anything else.
    """
    tag, first = encoded[:1], encoded[1:2]
    start = 2 + (first[0] - _LONG_FORM if first > bytes([_LONG_FORM]) else 0)
    content = encoded[start:]
    if tag not in _CODECS or encoded[1:start] != _length(len(content)):
        return None
    try:
        text = content.decode(_CODECS[tag])
    except UnicodeDecodeError:
        return None
    return None if tag == _PRINTABLE_STRING and not _PRINTABLE.fullmatch(text) else text


def _length(octets: int) -> bytes:
    """Encode a length in the only way that DER allows."""
    if octets < _LONG_FORM:
        return bytes([octets])
    number = octets.to_bytes((octets.bit_length() + 7) // 8, "big")
    return bytes([_LONG_FORM + len(number)]) + number
