"""
Texts that others choose, on their way to people: what is in a peer's certificate, what a
local user calls a key.  Only so much of them is formatted as is shown.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

_Item = TypeVar("_Item")

WORD: Final = 150
"""Characters of one of several words."""

NAME: Final = 400
"""Characters of a distinguished name, or of a list: two of them fit into one reason."""

FIELD: Final = 1024
"""Octets of a field of a log line, as it is written."""

_CUT: Final = "..."
"""Stands at the end of what is longer."""

_plain = re.compile(r"[!#-&(-\[\]-~]+").fullmatch
"""Finds what needs no quotes: printable ASCII without space, quotes and backslash."""

_DELICATE: Final = re.compile(r"handshake (?=ok|failed)|\[(?=ktlsagent)|\x7f")
"""
What lines of ours begin with, behind their time; and the one control character that
JSON takes as it is.
"""

_escapeTail = re.compile(r"[xuU]?[0-9a-fA-F]{0,8}").fullmatch
"""Finds what may follow the backslash of an escape, whole or not."""


def cut(text: str, most: int = WORD) -> str:
    """
    Shorten a text.

    @param text: any text.
    @param most: how many of its characters are shown.
    @return: the text, or its beginning and C{...}.
    """
    return text if len(text) <= most else _beginning(text, most) + _CUT


def listed(
    items: Sequence[_Item],
    show: Callable[[_Item], str] = str,
    *,
    length: int = WORD,
    most: int = NAME,
    between: str = ", ",
) -> str:
    """
    List things for people.

    @param items: the things.
    @param show: puts one of them into words; it is not called for those left out.
    @param length: how many characters of each are shown.
    @param most: how many characters all of them may take, with what is between them;
        the first one always has its place.
    @param between: what separates them.
    @return: the first ones, and how many more there are.
    """
    shown: list[str] = []
    for item in items:
        word = cut(show(item), length)
        most -= len(word) + len(between)
        if shown and most < 0:
            break
        shown.append(word)
    if len(shown) < len(items):
        shown.append(f"and {len(items) - len(shown)} more")
    return between.join(shown)


def printable(text: str) -> str:
    """
    Write what would move a terminal's cursor, end a line or turn a text around as
    Python's escapes.

    @param text: any text.
    @return: a text whose characters all can be seen.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def written(value: str) -> str:
    """
    Write a value so that a log line can be taken apart again, whatever is in it: as
    it is, or as a string of JSON in ASCII.  What follows where somebody else cuts the
    line does not look like a line of ours.

    @param value: any text.
    @return: one word in printable ASCII.
    """
    if _plain(value) and not _DELICATE.search(value):
        return value
    return _DELICATE.sub(_escaped, json.dumps(value))


def _escaped(found: re.Match[str]) -> str:
    """Escape the last character, as JSON may do with any."""
    return f"{found[0][:-1]}\\u{ord(found[0][-1]):04x}"


def fitted(value: str, most: int = FIELD) -> str:
    """
    Shorten a value so that it fits into a field.

    @param value: any text.
    @param most: how many octets of L{written} there may be, at least 5.
    @return: the value, or its beginning and C{...}, without lone surrogates.
    """
    # Every character takes one octet at least.
    value = value[: most + 1].encode("utf-8", "backslashreplace").decode()
    if len(written(value)) <= most:
        return value
    kept = bisect_right(
        range(1, len(value)), most, key=lambda count: len(written(value[:count] + _CUT))
    )
    return _beginning(value, kept) + _CUT


def _beginning(text: str, count: int) -> str:
    """Take the beginning of a text, without an escape at its end that may not be whole."""
    kept = text[:count]
    before, backslash, tail = kept.rpartition("\\")
    escapes = (len(before) - len(before.rstrip("\\"))) % 2 == 0
    return before if backslash and escapes and _escapeTail(tail) else kept
