"""What holds of the process keyring, on the fake as on a real kernel."""

from __future__ import annotations

import errno

from zope.interface.verify import verifyObject

from ktlsagent.interfaces import IKeyrings
from tests.support.mixin import TestsMixin


class KeyringsTestsMixin(TestsMixin):
    """Tests of one process keyring."""

    def makeKeyrings(self) -> IKeyrings:
        """
        Make what is tested.

        @return: the process keyring under test.
        """
        raise NotImplementedError

    def link(self) -> int:
        """
        Link something new into the process keyring, as the kernel does.

        @return: its serial.
        """
        raise NotImplementedError

    def test_interface(self) -> None:
        """It provides what the agent counts on."""
        verifyObject(IKeyrings, self.makeKeyrings())

    def test_create(self) -> None:
        """Creating the process keyring leaves nothing in it, and may be done again."""
        keyrings = self.makeKeyrings()
        keyrings.createProcessKeyring()
        before = list(keyrings.linked())
        keyrings.createProcessKeyring()
        self.assertEqual(list(keyrings.linked()), before)

    def test_createKeeps(self) -> None:
        """Creating the process keyring again keeps what is linked."""
        keyrings = self.makeKeyrings()
        keyrings.createProcessKeyring()
        serial = self.link()
        keyrings.createProcessKeyring()
        self.assertIn(serial, keyrings.linked())
        keyrings.unlink(serial)

    def test_unlink(self) -> None:
        """Only what is unlinked goes, and it goes once."""
        keyrings = self.makeKeyrings()
        keyrings.createProcessKeyring()
        first, second = self.link(), self.link()
        keyrings.unlink(first)
        self.assertNotIn(first, keyrings.linked())
        self.assertIn(second, keyrings.linked())
        error = self.assertRaises(OSError, keyrings.unlink, first)
        self.assertIn(error.errno, (errno.ENOENT, errno.ENOKEY))
        keyrings.unlink(second)
        self.assertNotIn(second, keyrings.linked())
