"""Matching of patterns by their definition, slow and plain."""

from __future__ import annotations


def reference(pattern: str, text: str, stop: str = "") -> bool:
    """
    Match as the definition says, a row of a table for each character.

    @param pattern: the pattern.
    @param text: the string.
    @param stop: the characters for which no wildcard stands.
    @return: whether it matches.
    """
    reached = {0}
    for character in pattern:
        if character == "*":
            for place in range(len(text)):
                if place in reached and text[place] not in stop:
                    reached.add(place + 1)
        else:
            reached = {
                place + 1
                for place in reached
                if place < len(text)
                and (text[place] == character or (character == "?" and text[place] not in stop))
            }
    return len(text) in reached
