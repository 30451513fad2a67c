"""Patterns of names, as tlshd's session tags have them."""

from __future__ import annotations

import functools
import re


def matchesPattern(pattern: str, text: str) -> bool:
    """
    Match a whole string: C{*} stands for any run of characters, C{?} for any
    one, everything else for itself.

    @param pattern: the pattern.
    @param text: the string.
    @return: whether it matches.
    """
    return _compiled(pattern).fullmatch(text) is not None


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(expression(pattern))


def expression(pattern: str, stop: str = "") -> str:
    """
    Write a pattern as a regular expression that never tries anything twice, so
    that no string makes it take longer than the pattern's length times its own.

    @param pattern: the pattern.
    @param stop: the characters for which neither C{*} nor C{?} stands.
    @return: the expression, for C{fullmatch} or as a part of another one.
    """
    one = f"[^{re.escape(stop)}]" if stop else r"[\s\S]"
    first, *others = (
        one.join(re.escape(literal) for literal in piece.split("?"))
        for piece in re.split(r"\*+", pattern)
    )
    if not others:
        return first
    *middle, last = others
    # What stands between two stars is taken where it is found first, and stays
    # there: a later place could only leave less room for what follows.
    found = "".join(f"(?>{one}*?{piece})" for piece in middle)
    return f"{first}{found}{one}*{last}"


def mayOverlap(one: str, other: str) -> bool:
    """
    Say whether there may be a string that both of two patterns match.

    @param one: a pattern.
    @param other: another one.
    @return: false only if there is none; it is not always false then if one has
        more than one C{*} and the other none.
    """
    sides = [(pattern.partition("*")[0], pattern.rpartition("*")[2]) for pattern in (one, other)]
    (head, tail), (otherHead, otherTail) = sides
    for pattern, opposite in ((one, other), (other, one)):
        if "*" not in pattern and len(pattern) < len(opposite.replace("*", "")):
            return False
    return _agree(head, otherHead) and _agree(tail[::-1], otherTail[::-1])


def _agree(one: str, other: str) -> bool:
    """Say whether the beginnings of two strings can be the same."""
    return all(a == b or "?" in (a, b) for a, b in zip(one, other, strict=False))
