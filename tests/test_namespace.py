"""Tests for L{ktlsagent.namespace}."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.namespace import namespaceNames


class NamespaceNamesTests(SynchronousTestCase):
    """Tests for L{namespaceNames}."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        self.named = folder / "netns"
        self.named.mkdir(parents=True)
        self.own = folder / "own"
        self.own.touch()
        self.inode = str(os.stat(self.own).st_ino)

    def names(self) -> frozenset[str]:
        """
        Look at the test's folder.

        @return: the names.
        """
        return namespaceNames(str(self.own), str(self.named))

    def test_unnamed(self) -> None:
        """A namespace without a name has its inode number, with other ones beside it or not."""
        (self.named / "other").touch()
        self.assertEqual(self.names(), {self.inode})
        (self.named / "other").unlink()
        self.named.rmdir()
        self.assertEqual(self.names(), {self.inode})

    def test_named(self) -> None:
        """A namespace has all names that lead to it; a name that leads nowhere is none."""
        os.link(self.own, self.named / "blue")
        os.link(self.own, self.named / "green")
        (self.named / "gone").symlink_to(self.named / "nothing")
        self.assertEqual(self.names(), {self.inode, "blue", "green"})

    def test_unknown(self) -> None:
        """A system that does not show namespaces leaves ours without a name."""
        self.own.unlink()
        self.assertEqual(self.names(), frozenset())

    def test_real(self) -> None:
        """This process is in a namespace whose number the kernel tells."""
        link = os.readlink("/proc/self/ns/net")
        self.assertIn(link.removeprefix("net:[").removesuffix("]"), namespaceNames())
