"""What is in a ClientHello."""

from __future__ import annotations

_KEY_SHARE = 51
"""C{key_share} (RFC 8446, section 4.2)."""


def extensions(hello: bytes) -> list[tuple[int, bytes]]:
    """
    List the extensions of a ClientHello (RFC 8446, section 4.1.2).

    @param hello: the record that it is in.
    @return: their types and contents, in order.
    """
    at = 5 + 4 + 2 + 32
    for lengthOctets in (1, 2, 1):  # session id, cipher suites, compression methods
        at += lengthOctets + int.from_bytes(hello[at : at + lengthOctets], "big")
    at += 2
    found = []
    while at < len(hello):
        end = at + 4 + int.from_bytes(hello[at + 2 : at + 4], "big")
        found.append((int.from_bytes(hello[at : at + 2], "big"), hello[at + 4 : end]))
        at = end
    return found


def keyShares(hello: bytes) -> list[int]:
    """
    List the groups of the key shares in a ClientHello (RFC 8446, section 4.2.8).

    @param hello: the record that it is in.
    @return: their numbers, in order.
    """
    extension = dict(extensions(hello))[_KEY_SHARE]
    at, groups = 2, []
    while at < len(extension):
        groups.append(int.from_bytes(extension[at : at + 2], "big"))
        at += 4 + int.from_bytes(extension[at + 2 : at + 4], "big")
    return groups
