"""Tests for L{ktlsagent.keyrings}."""

from __future__ import annotations

import errno
import itertools

import keyutils
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent import keyrings
from ktlsagent.errors import StartError
from ktlsagent.interfaces import IKeyrings
from ktlsagent.keyrings import Keyrings, RequestKeyrings
from ktlsagent.ledger import Ledger
from tests.support import keyringstests
from tests.support.fakekeyrings import FakeKeyrings


class FakeKeyringsTests(keyringstests.KeyringsTestsMixin, SynchronousTestCase):
    """The fake does what a real kernel does (L{tests.kernel.real} has the other half)."""

    def setUp(self) -> None:
        self.fake = FakeKeyrings()
        self.serials = itertools.count(1)

    def makeKeyrings(self) -> IKeyrings:
        return self.fake

    def link(self) -> int:
        serial = next(self.serials)
        self.fake.link(serial)
        return serial

    def test_linkedTwice(self) -> None:
        """A second link to the same keyring takes the place of the first."""
        self.fake.link(7)
        self.fake.link(7)
        self.assertEqual(self.fake.linked(), [7])

    def test_refusals(self) -> None:
        """The fake refuses what the test wants it to refuse."""
        self.fake.unavailable = StartError("a test")
        self.assertRaises(StartError, self.fake.createProcessKeyring)
        self.assertFalse(self.fake.created)
        self.fake.link(7)
        self.fake.unlinkError = errno.EACCES
        self.assertRaises(PermissionError, self.fake.unlink, 7)


class _KernelKeys:
    """
    Stands in for libkeyutils: one process keyring in memory.

    @ivar error: an errno that every call gives.
    """

    KEY_SPEC_PROCESS_KEYRING = keyutils.KEY_SPEC_PROCESS_KEYRING
    Error = keyutils.Error

    def __init__(self) -> None:
        self.error: int | None = None
        self.serials = itertools.count(0x12345678)
        self.names: dict[bytes, int] = {}

    def add_key(self, name: bytes, value: bytes, keyring: int) -> int:
        self._check(keyring)
        return self.names.setdefault(name, next(self.serials))

    def unlink(self, key: int, keyring: int) -> None:
        self._check(keyring)
        if key not in self.names.values():
            raise keyutils.Error(errno.ENOENT, "No such file or directory")
        self.names = {name: serial for name, serial in self.names.items() if serial != key}

    def read_key(self, keyring: int) -> bytes:
        self._check(keyring)
        return b"".join(keyrings._SERIAL.pack(serial) for serial in self.names.values())

    def _check(self, keyring: int) -> None:
        assert keyring == -2
        if self.error is not None:
            raise keyutils.Error(self.error, "a test")


class KeyringsTests(keyringstests.KeyringsTestsMixin, SynchronousTestCase):
    """Tests for L{Keyrings} over a stand-in for libkeyutils, which not every sandbox allows."""

    def setUp(self) -> None:
        self.keys = _KernelKeys()
        self.patch(keyrings, "keyutils", self.keys)
        self.names = itertools.count()

    def makeKeyrings(self) -> IKeyrings:
        return Keyrings()

    def link(self) -> int:
        return self.keys.add_key(b"%d" % next(self.names), b"1", -2)

    def test_notAllowed(self) -> None:
        """Without keyctl(2) the error says what has to be allowed."""
        self.keys.error = errno.EPERM
        error = self.assertRaises(StartError, Keyrings().createProcessKeyring)
        self.assertIn("expected a process keyring, found ", str(error))
        self.assertIn("a sandbox has to allow keyctl(2)", str(error))

    def test_unlinkRefused(self) -> None:
        """What libkeyutils says becomes an C{OSError} of the same errno."""
        self.keys.error = errno.EACCES
        error = self.assertRaises(PermissionError, Keyrings().unlink, 7)
        self.assertEqual((error.errno, error.strerror), (errno.EACCES, "a test"))


class RequestKeyringsTests(SynchronousTestCase):
    """Tests for L{RequestKeyrings}."""

    def setUp(self) -> None:
        self.fake = FakeKeyrings()
        self.ledger = Ledger()
        self.requests = RequestKeyrings(self.fake, self.ledger)

    def hold(self, serial: int) -> None:
        """
        Have a request hold a keyring that the kernel has linked.

        @param serial: the keyring.
        """
        self.fake.link(serial)
        self.requests.hold(serial)

    def test_one(self) -> None:
        """A request's keyring is unlinked after it."""
        self.hold(7)
        self.assertEqual(self.ledger.keyLinks, 1)
        self.requests.release(7)
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (0, []))

    def test_shared(self) -> None:
        """A keyring that several requests share stays until the last of them ends."""
        self.hold(7)
        self.hold(7)
        self.assertEqual(self.ledger.keyLinks, 1)
        self.requests.release(7)
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (1, [7]))
        self.requests.release(7)
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (0, []))

    def test_different(self) -> None:
        """Different keyrings do not touch each other."""
        self.hold(7)
        self.hold(8)
        self.assertEqual(self.ledger.keyLinks, 2)
        self.requests.release(7)
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (1, [8]))

    def test_again(self) -> None:
        """A keyring can be held again after it was released."""
        for _round in range(2):
            self.hold(7)
            self.requests.release(7)
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (0, []))

    def test_unlinkFails(self) -> None:
        """A link that cannot be taken out is not counted on: the agent does not hold it."""
        self.hold(7)
        self.fake.unlinkError = errno.EACCES
        self.assertRaises(OSError, self.requests.release, 7)
        self.assertEqual(self.ledger.keyLinks, 0)
