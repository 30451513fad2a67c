"""Tests for L{ktlsagent.keytrust}."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.interfaces import KeyDescription
from ktlsagent.keytrust import flawOf, isKeyring
from tests.support.keyringstests import LINK, NEW, READ, SEARCH, SETATTR, VIEW, WRITE
from tests.support.properties import patient

_HARMLESS = VIEW | READ


class FlawTests(SynchronousTestCase):
    """Tests for L{flawOf}."""

    def setUp(self) -> None:
        self.patch(os, "geteuid", lambda: 4711)

    def flaw(self, kind: str = "psk", uid: int = 0, permissions: int = NEW) -> str | None:
        """Look at a key."""
        return flawOf(KeyDescription(kind, b"key", uid, permissions))

    def test_owners(self) -> None:
        """A key is root's or our own user's."""
        for uid in (0, 4711):
            self.assertIsNone(self.flaw(uid=uid))
        for uid in (1, 4712, 65534, 2**32 - 1):
            self.assertEqual(self.flaw(uid=uid), f"that it belongs to the user {uid}")

    def test_nobody(self) -> None:
        """Who is nobody has no keys: they may be anybody's outside of our user namespace."""
        self.patch(os, "geteuid", lambda: 65534)
        self.assertIsNotNone(self.flaw(uid=65534))
        self.assertIsNone(self.flaw(uid=0))

    def test_ofTheKernel(self) -> None:
        """The kernel's keyrings, and keys as tools make them, have no flaw."""
        for permissions in (0x1F1F0000, 0x1F030000, 0x0F0B0000, 0x3F3F0000, NEW, 0):
            for kind in ("keyring", "psk", "user"):
                self.assertIsNone(self.flaw(kind, permissions=permissions))

    def test_words(self) -> None:
        """All that others may do is named."""
        self.assertEqual(
            self.flaw("keyring", permissions=0x3F3F003F),
            "that anybody may write, link, set its attributes, search",
        )
        self.assertEqual(self.flaw(permissions=0x3F3F0400), "that its group may write")

    @patient
    @given(st.sampled_from(["keyring", "user", "psk"]), st.integers(0, 2**32 - 1))
    def test_rights(self, kind: str, permissions: int) -> None:
        """Whatever owner and possessor may do, others may change nothing."""
        changes = WRITE | LINK | SETATTR | (SEARCH if kind == "keyring" else 0)
        self.assertEqual(
            self.flaw(kind, permissions=permissions) is None,
            not permissions & (changes << 8 | changes),
        )

    def test_harmless(self) -> None:
        """Others may see and read it."""
        self.assertIsNone(self.flaw("keyring", permissions=NEW | _HARMLESS << 8 | _HARMLESS))


class IsKeyringTests(SynchronousTestCase):
    """Tests for L{isKeyring}."""

    def test_all(self) -> None:
        """Type, name and owner have to be right, each."""
        good = KeyDescription("keyring", "m\u00fcll".encode(), 0, NEW)
        self.assertTrue(isKeyring(good, "m\u00fcll"))
        self.assertTrue(isKeyring(good))
        for other in (
            KeyDescription("user", good.description, 0, NEW),
            KeyDescription("keyring", b"mull", 0, NEW),
            KeyDescription("keyring", good.description + b" ", 0, NEW),
            KeyDescription("keyring", good.description, os.geteuid() + 1, NEW),
            KeyDescription("keyring", good.description, 0, NEW | WRITE),
        ):
            self.assertFalse(isKeyring(other, "m\u00fcll"), other)
