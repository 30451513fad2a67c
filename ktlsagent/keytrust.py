"""
Whose keys are believed in.

A key is what its owner makes of it, and whoever else may change it.  So it has to be
root's or our own user's, and nobody else may have a right that leads to a change
(C{security/keys/permission.c}):

    - C{write} and C{setattr} are changes.
    - C{link} lets them link it into a keyring of their own.  Then they are its possessors,
      who have all that its owner has left to possessors: as a rule everything.
    - C{search} lets them join a keyring by its name, as their session keyring
      (C{find_keyring_by_name}), which makes possessors of them, too.  A key that is no
      keyring cannot be joined.

To see a key, and to read it, changes nothing.
"""

from __future__ import annotations

import os
from typing import Final

from ktlsagent.interfaces import KeyDescription

KEYRING: Final = "keyring"
"""The type of keyrings."""

_ROOT: Final = 0
_NOBODY: Final = 65534
"""Who the kernel says owns what belongs to somebody outside of our user namespace."""

_OTHERS_SHIFTS: Final = {"its group": 8, "anybody": 0}
"""Where the rights of those stand who are neither possessor nor owner."""

_CHANGES: Final = {"write": 0x04, "link": 0x10, "set its attributes": 0x20}
_SEARCH: Final = {"search": 0x08}


def flawOf(described: KeyDescription) -> str | None:
    """
    Say why a key or a keyring is not to be believed in.

    @param described: what the kernel says about it.
    @return: what was found, in words; C{None} if nothing stands against it.
    """
    own = {_ROOT, os.geteuid()} - {_NOBODY}
    if described.uid not in own:
        return f"that it belongs to the user {described.uid}"
    changes = _CHANGES | (_SEARCH if described.type == KEYRING else {})
    for who, shift in _OTHERS_SHIFTS.items():
        rights = [word for word, bit in changes.items() if described.permissions >> shift & bit]
        if rights:
            return f"that {who} may {', '.join(rights)}"
    return None


def isKeyring(described: KeyDescription, name: str | None = None) -> bool:
    """
    Say whether something is a keyring that is believed in.

    @param described: what the kernel says about it.
    @param name: the name that it has to have, if any.
    @return: whether it is.
    """
    named = name is None or described.description == name.encode()
    return described.type == KEYRING and named and flawOf(described) is None
