"""What holds of the kernel's keys and of the process keyring, on the fake as on a real kernel."""

from __future__ import annotations

import errno
import itertools
import os

from zope.interface.verify import verifyObject

from ktlsagent.interfaces import IKeyrings, KeyDescription
from tests.support.mixin import TestsMixin

_NUMBERS = itertools.count()
VIEW, READ, WRITE, SEARCH, LINK, SETATTR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NEW = 0x3F010000
"""The rights in a new key (C{security/keys/key.c})."""

_PAYLOAD = b"\x00\xff secret" * 4


class KeyringsTestsMixin(TestsMixin):
    """Tests of one process keyring, with keys that the test adds."""

    def makeKeyrings(self) -> IKeyrings:
        """
        Make what is tested.

        @return: the process keyring under test.
        """
        raise NotImplementedError

    def addKeyring(self, name: str) -> int:
        """
        Make a keyring that is not linked into the process keyring, but that
        this process may do everything with.

        @param name: its name.
        @return: its serial.
        """
        raise NotImplementedError

    def addKey(self, keyring: int, description: bytes, payload: bytes) -> int:
        """
        Put a key of the type C{user} into a keyring.

        @param keyring: the keyring's serial.
        @param description: its name.
        @param payload: what it holds.
        @return: its serial.
        """
        raise NotImplementedError

    def revoke(self, serial: int) -> None:
        """
        Revoke a key or a keyring.

        @param serial: its serial.
        """
        raise NotImplementedError

    def expire(self, serial: int) -> None:
        """
        Let a key's time end.

        @param serial: its serial.
        """
        raise NotImplementedError

    def forbid(self, serial: int) -> None:
        """
        Take the right to read a key away from everybody.

        @param serial: its serial.
        """
        raise NotImplementedError

    def setPermissions(self, serial: int, permissions: int) -> None:
        """
        Change the rights in a key or a keyring.

        @param serial: its serial.
        @param permissions: the rights of possessor, owner, group and others.
        """
        raise NotImplementedError

    def newName(self) -> str:
        """
        Make up a keyring's name.

        @return: one that no keyring has: a kernel takes its time to forget those that are gone.
        """
        return f"ktlsagent test; with: signs {os.getpid()} {next(_NUMBERS)}"

    def made(self) -> tuple[IKeyrings, int]:
        """
        Make what is tested, with a keyring that is linked.

        @return: the process keyring, and the keyring's serial.
        """
        keyrings = self.makeKeyrings()
        keyrings.createProcessKeyring()
        ring = self.addKeyring(self.newName())
        keyrings.link(ring)
        self.addCleanup(keyrings.unlink, ring)
        return keyrings, ring

    def refused(self, number: int, keyrings: IKeyrings, serial: int) -> None:
        """
        Expect that a key can neither be described nor read nor linked.

        @param number: the errno.
        @param keyrings: the process keyring.
        @param serial: the key.
        """
        for use in (keyrings.describe, keyrings.read, keyrings.link):
            error: OSError = self.assertRaises(OSError, use, serial)
            self.assertEqual(errno.errorcode[error.errno or 0], errno.errorcode[number])

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
        keyrings, ring = self.made()
        keyrings.createProcessKeyring()
        self.assertIn(ring, keyrings.linked())

    def test_linkedOnce(self) -> None:
        """A second link to the same keyring takes the place of the first."""
        keyrings, ring = self.made()
        keyrings.link(ring)
        self.assertEqual(list(keyrings.linked()).count(ring), 1)

    def test_unlink(self) -> None:
        """Only what is unlinked goes, and it goes once."""
        keyrings, first = self.made()
        second = self.addKeyring(self.newName())
        keyrings.link(second)
        keyrings.unlink(second)
        self.assertNotIn(second, keyrings.linked())
        self.assertIn(first, keyrings.linked())
        error = self.assertRaises(OSError, keyrings.unlink, second)
        self.assertIn(error.errno, (errno.ENOENT, errno.ENOKEY))

    def test_find(self) -> None:
        """A keyring is found by its whole name, and nothing else by the same name."""
        keyrings = self.makeKeyrings()
        keyrings.createProcessKeyring()
        name = self.newName()
        self.assertEqual(keyrings.find([name]), {})
        ring = self.addKeyring(name)
        self.assertEqual(keyrings.find([name]), {name: ring})
        self.addKey(ring, b"ktlsagent test: key", _PAYLOAD)
        others = ("ktlsagent test: key", name[:-1], name + " ", " " + name, name + ": 1", "", ".*")
        self.assertEqual(keyrings.find(others), {})

    def test_findSeveral(self) -> None:
        """Several keyrings are found at once; one that is not there is left out."""
        keyrings = self.makeKeyrings()
        keyrings.createProcessKeyring()
        first, second, third = self.newName(), self.newName(), self.newName()
        expected = {first: self.addKeyring(first), third: self.addKeyring(third)}
        self.assertEqual(keyrings.find([first, second, third]), expected)

    def test_findRevoked(self) -> None:
        """A keyring that was revoked is not there any more."""
        keyrings = self.makeKeyrings()
        keyrings.createProcessKeyring()
        name = self.newName()
        self.revoke(self.addKeyring(name))
        self.assertEqual(keyrings.find([name]), {})

    def test_findChangeable(self) -> None:
        """One that others may change is passed over for one of the same name that they may not."""
        keyrings = self.makeKeyrings()
        keyrings.createProcessKeyring()
        for right in (WRITE, SEARCH, LINK, SETATTR):
            for shift in (0, 8):
                name = self.newName()
                ring = self.addKeyring(name)
                self.setPermissions(ring, NEW | right << shift)
                self.assertEqual(keyrings.find([name]), {}, hex(right << shift))
                self.setPermissions(ring, NEW | (VIEW | READ) << shift)
                self.assertEqual(keyrings.find([name]), {name: ring})

    def test_search(self) -> None:
        """A key is found by type and description, in its own keyring alone."""
        keyrings, ring = self.made()
        other = self.addKeyring(self.newName())
        serial = self.addKey(ring, b"a key", _PAYLOAD)
        self.assertEqual(keyrings.search(ring, "user", b"a key"), serial)
        self.assertIsNone(keyrings.search(ring, "keyring", b"a key"))
        for absent in (b"a ke", b"a key ", b"b"):
            self.assertIsNone(keyrings.search(ring, "user", absent))
        self.assertIsNone(keyrings.search(other, "user", b"a key"))

    def test_searchRevoked(self) -> None:
        """A key that is of no use is refused as such, and not as one that is not there."""
        keyrings, ring = self.made()
        self.revoke(self.addKey(ring, b"a key", _PAYLOAD))
        error: OSError = self.assertRaises(OSError, keyrings.search, ring, "user", b"a key")
        self.assertEqual(error.errno, errno.EKEYREVOKED)

    def test_keys(self) -> None:
        """A keyring lists its keys, those that are of no use any more as well."""
        keyrings, ring = self.made()
        self.assertEqual(list(keyrings.keys(ring)), [])
        serials = {self.addKey(ring, b"%d" % number, _PAYLOAD) for number in range(3)}
        self.assertEqual(set(keyrings.keys(ring)), serials)
        self.revoke(min(serials))
        self.assertEqual(set(keyrings.keys(ring)), serials)

    def test_revokedKeyring(self) -> None:
        """A keyring that was revoked cannot be listed."""
        keyrings = self.makeKeyrings()
        keyrings.createProcessKeyring()
        ring = self.addKeyring(self.newName())
        self.revoke(ring)
        error = self.assertRaises(OSError, keyrings.keys, ring)
        self.assertEqual(error.errno, errno.EKEYREVOKED)

    def test_describe(self) -> None:
        """A description is given as it is, whatever is in it."""
        keyrings, ring = self.made()
        for name in (b"NVMe1R01 nqn.host nqn.target dig==", b"a;b;c;d;e;f", b"\xff: \xc3\xa4"):
            serial = self.addKey(ring, name, _PAYLOAD)
            self.assertEqual(keyrings.describe(serial), KeyDescription("user", name, 0, NEW))
        self.assertEqual(keyrings.describe(ring).type, "keyring")

    def test_read(self) -> None:
        """A payload is given as it is."""
        keyrings, ring = self.made()
        self.assertEqual(keyrings.read(self.addKey(ring, b"key", _PAYLOAD)), _PAYLOAD)

    def test_revoked(self) -> None:
        """A revoked key is refused as such."""
        keyrings, ring = self.made()
        serial = self.addKey(ring, b"key", _PAYLOAD)
        self.revoke(serial)
        self.refused(errno.EKEYREVOKED, keyrings, serial)

    def test_expired(self) -> None:
        """A key whose time has ended is refused as such."""
        keyrings, ring = self.made()
        serial = self.addKey(ring, b"key", _PAYLOAD)
        self.expire(serial)
        self.refused(errno.EKEYEXPIRED, keyrings, serial)

    def test_absent(self) -> None:
        """A serial that no key has is refused as such."""
        keyrings, _ring = self.made()
        self.refused(errno.ENOKEY, keyrings, 1)

    def test_forbidden(self) -> None:
        """A key that may not be read can be seen."""
        keyrings, ring = self.made()
        serial = self.addKey(ring, b"key", _PAYLOAD)
        self.forbid(serial)
        described = keyrings.describe(serial)
        self.assertEqual((described.type, described.description), ("user", b"key"))
        error = self.assertRaises(OSError, keyrings.read, serial)
        self.assertEqual(error.errno, errno.EACCES)
