"""The names of the network namespace that this process is in."""

from __future__ import annotations

import os

_OWN = "/proc/self/ns/net"
_NAMED = "/run/netns"


def namespaceNames(own: str = _OWN, named: str = _NAMED) -> frozenset[str]:
    """
    Find out by which names the network namespace is known: its inode number,
    as C{lsns} shows it, and those that C{ip netns} has given it.

    @param own: the link to the namespace.
    @param named: the directory with the names.
    @return: the names; empty if the system does not tell.
    """
    try:
        identity = os.stat(own)
    except OSError:
        return frozenset()
    names = {str(identity.st_ino)}
    try:
        entries = list(os.scandir(named))
    except OSError:
        entries = []
    for entry in entries:
        try:
            if os.path.samestat(os.stat(entry.path), identity):
                names.add(entry.name)
        except OSError:
            continue
    return frozenset(names)
