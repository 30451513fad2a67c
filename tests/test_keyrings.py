"""Tests for L{ktlsagent.keyrings}."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, TypeVar

import keyutils
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent import keyrings
from ktlsagent.errors import StartError
from ktlsagent.interfaces import IKeyrings, KeyDescription
from ktlsagent.keyrings import Keyrings, RequestKeyrings
from ktlsagent.ledger import Ledger
from tests.support import keyringstests
from tests.support.fakekeyrings import FakeKeyrings
from tests.support.reactor import HeldThreadPool, TurnReactor

_T = TypeVar("_T")


class FakeKeyringsTests(keyringstests.KeyringsTestsMixin, SynchronousTestCase):
    """The fake does what a real kernel does (L{tests.kernel.real} has the other half)."""

    def setUp(self) -> None:
        self.fake = FakeKeyrings()

    def makeKeyrings(self) -> IKeyrings:
        return self.fake

    def addKeyring(self, name: str) -> int:
        return self.fake.addKeyring(name)

    def addKey(self, keyring: int, description: bytes, payload: bytes) -> int:
        return self.fake.addKey(keyring, description, payload)

    def revoke(self, serial: int) -> None:
        self.fake.spoil(serial, errno.EKEYREVOKED)

    def expire(self, serial: int) -> None:
        self.fake.spoil(serial, errno.EKEYEXPIRED)

    def forbid(self, serial: int) -> None:
        self.fake.forbid(serial)

    def setPermissions(self, serial: int, permissions: int) -> None:
        self.fake.own(serial, 0, permissions)

    def test_possession(self) -> None:
        """A key can be read only while the keyring that it is in is linked."""
        ring = self.fake.addKeyring("ring")
        serial = self.fake.addKey(ring, b"key")
        self.assertRaises(PermissionError, self.fake.read, serial)
        self.fake.link(ring)
        self.fake.read(serial)
        self.fake.unlink(ring)
        self.assertRaises(PermissionError, self.fake.read, serial)

    def test_sameName(self) -> None:
        """A second key of the same name takes the place of the first."""
        ring = self.fake.addKeyring("ring")
        self.fake.addKey(ring, b"key")
        second = self.fake.addKey(ring, b"key")
        self.assertEqual(list(self.fake.keys(ring)), [second])

    def test_refusals(self) -> None:
        """The fake refuses what the test wants it to refuse."""
        self.fake.unavailable = StartError("a test")
        self.assertRaises(StartError, self.fake.createProcessKeyring)
        self.assertFalse(self.fake.created)
        ring = self.fake.addKeyring("ring")
        self.fake.linkError = self.fake.findError = errno.EACCES
        self.assertRaises(PermissionError, self.fake.link, ring)
        self.assertRaises(PermissionError, self.fake.find, ["ring"])
        self.fake.linkAtAccept(7)
        self.fake.unlinkError = errno.EACCES
        self.assertRaises(PermissionError, self.fake.unlink, 7)
        self.fake.forbid(7)
        self.assertRaises(PermissionError, self.fake.keys, 7)


class _KernelKeys:
    """
    Stands in for libkeyutils and C{/proc/keys}, over L{FakeKeyrings}.

    @ivar error: an errno that every call gives.
    """

    KEY_SPEC_PROCESS_KEYRING = keyutils.KEY_SPEC_PROCESS_KEYRING
    Error = keyutils.Error

    def __init__(self, path: str) -> None:
        """
        @param path: where the keys are to be listed.
        """
        self.error: int | None = None
        self.fake = FakeKeyrings()
        self._path = path
        self.write()

    def add_key(self, name: bytes, value: bytes, keyring: int) -> int:
        assert (name, value, keyring) == (b"ktlsagent", b"1", -2)
        return self._call(self.fake.addKeyring, "placeholder")

    def link(self, key: int, keyring: int) -> None:
        assert keyring == -2
        self._call(self.fake.link, key)

    def unlink(self, key: int, keyring: int) -> None:
        assert keyring == -2
        # What createProcessKeyring puts in to make it was never linked here.
        if self._call(self.fake.describe, key).description != b"placeholder":
            self._call(self.fake.unlink, key)

    def describe_key(self, key: int) -> bytes:
        found = self._call(self.fake.describe, key)
        head = b"%s;%d;0;%08x;" % (found.type.encode(), found.uid, found.permissions)
        return head + found.description

    def search(self, keyring: int, description: bytes, destination: int, kind: bytes) -> int | None:
        assert destination == 0
        return self._call(self.fake.search, keyring, kind.decode(), description)

    def read_key(self, key: int) -> bytes:
        if key == -2:
            serials = self.fake.linked()
        elif self._call(self.fake.describe, key).type == "keyring":
            serials = self._call(self.fake.keys, key)
        else:
            return self._call(self.fake.read, key)
        return b"".join(keyrings._SERIAL.pack(serial) for serial in serials)

    def write(self) -> None:
        """List the keys as C{/proc/keys} does."""
        with open(self._path, "wb") as lines:
            for serial, key in self.fake._keys.items():
                flags = b"IR-Q---" if key.error == errno.EKEYREVOKED else b"I--Q---"
                told = key.described
                lines.write(
                    b"%08x %s     1 perm %08x %5d     0 %-9.9s %s: 1\n"
                    % (
                        serial,
                        flags,
                        told.permissions,
                        told.uid,
                        told.type.encode(),
                        told.description,
                    )
                )

    def _call(self, function: Callable[..., _T], *arguments: Any) -> _T:
        if self.error is not None:
            raise keyutils.Error(self.error, "a test")
        try:
            return function(*arguments)
        except OSError as error:
            raise keyutils.Error(*error.args) from error


class KeyringsTests(keyringstests.KeyringsTestsMixin, SynchronousTestCase):
    """Tests for L{Keyrings} over a stand-in for libkeyutils, which not every sandbox allows."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.keys = _KernelKeys(self.path)
        self.patch(keyrings, "keyutils", self.keys)

    def makeKeyrings(self) -> Keyrings:
        return Keyrings(self.path)

    def addKeyring(self, name: str) -> int:
        serial = self.keys.fake.addKeyring(name)
        self.keys.write()
        return serial

    def addKey(self, keyring: int, description: bytes, payload: bytes) -> int:
        serial = self.keys.fake.addKey(keyring, description, payload)
        self.keys.write()
        return serial

    def revoke(self, serial: int) -> None:
        self.keys.fake.spoil(serial, errno.EKEYREVOKED)
        self.keys.write()

    def expire(self, serial: int) -> None:
        self.keys.fake.spoil(serial, errno.EKEYEXPIRED)

    def forbid(self, serial: int) -> None:
        self.keys.fake.forbid(serial)

    def setPermissions(self, serial: int, permissions: int) -> None:
        self.keys.fake.own(serial, 0, permissions)
        self.keys.write()

    def test_notAllowed(self) -> None:
        """Without keyctl(2) the error says what has to be allowed."""
        self.keys.error = errno.EPERM
        error = self.assertRaises(StartError, self.makeKeyrings().createProcessKeyring)
        self.assertIn("expected a process keyring, found ", str(error))
        self.assertIn("a sandbox has to allow keyctl(2)", str(error))

    def test_refused(self) -> None:
        """What libkeyutils says becomes an C{OSError} of the same errno, in the system's words."""
        self.keys.error = errno.EACCES
        keys = self.makeKeyrings()
        for use in (keys.link, keys.unlink, keys.describe, keys.read, keys.keys):
            error = self.assertRaises(PermissionError, use, 7)
            self.assertEqual((error.errno, error.strerror), (errno.EACCES, "Permission denied"))

    def listed(self, *lines: str) -> Keyrings:
        """
        Have some lines in C{/proc/keys}.

        @param lines: the lines.
        @return: what reads them.
        """
        with open(self.path, "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)
        return self.makeKeyrings()

    def test_findAmongLines(self) -> None:
        """Lines of the kernel's are understood: its keyrings, full ones and empty ones."""
        for name, serial in (
            (".nfs", 0x1940F62C),
            (".nvme", 0x2ACE1945),
            ("with: sign", 0x7FFFFFFE),
        ):
            self.keys.fake.addKeyring(name, serial)
        found = self.listed(
            "0e956e07 I--Q---     1 perm 0c030000     0 65534 keyring   .user_reg: 2",
            "1940f62c I------     1 perm 1f030000     0     0 keyring   .nfs: empty",
            "2ace1944 I------    12   4w 0f0b0000     0     0 psk       .nvme: 32",
            "",
            "2ace1945 I------    12 expd 0f0b0000     0     0 keyring   .nvme: 1",
            "7ffffffe I------ 1000000 perm 0f0b0000 1000000     0 keyring   with: sign: 1",
        )
        expected = {".nfs": 0x1940F62C, ".nvme": 0x2ACE1945, "with: sign": 0x7FFFFFFE}
        self.assertEqual(found.find(expected), expected)
        self.assertEqual(found.find((".nvm", ".nvme: 1", "with", "keyring", "psk")), {})

    def test_findForeign(self) -> None:
        """A keyring of another user is not taken for the one of that name."""
        self.patch(os, "geteuid", lambda: 4711)
        foreign, own = self.addKeyring("shared"), self.addKeyring("shared")
        self.keys.fake.own(foreign, 4712)
        for owner in (0, 4711):
            self.keys.fake.own(own, owner)
            self.keys.write()
            self.assertEqual(self.makeKeyrings().find(["shared"]), {"shared": own})
        self.keys.fake.own(own, 4712)
        self.assertEqual(self.makeKeyrings().find(["shared"]), {})

    def test_findNobodys(self) -> None:
        """What belongs to nobody may belong to anybody, even for an agent that is nobody."""
        self.patch(os, "geteuid", lambda: 65534)
        self.keys.fake.own(self.addKeyring("shared"), 65534)
        self.keys.write()
        self.assertEqual(self.makeKeyrings().find(["shared"]), {})

    def test_findForged(self) -> None:
        """
        Whatever a line says, what it is about is asked of the kernel: it may be forged by
        the description of any key, and it may be older than the key.
        """
        line = "%08x I--Q---     1 perm 3f010000     0     0 keyring   backup: 1"
        fake = self.keys.fake
        theirs, other = self.addKeyring("backup"), self.addKeyring("other")
        fake.own(theirs, 4711)
        key = fake.addKey(other, b"backup")
        unseen, revoked = self.addKeyring("backup"), self.addKeyring("backup")
        fake.spoil(unseen, errno.EACCES)
        fake.spoil(revoked, errno.EKEYREVOKED)
        forged = [
            line % serial for serial in (theirs, other, key, unseen, revoked, 4711, 0xFFFFFFFE)
        ]
        self.assertEqual(self.listed(*forged).find(["backup"]), {})
        true = self.addKeyring("backup")
        self.assertEqual(self.listed(*forged, line % true).find(["backup"]), {"backup": true})

    def test_findInside(self) -> None:
        """A line is one that ends as the kernel's do: no other sign makes two of it."""
        ring = self.addKeyring("backup")
        line = f"{ring:08x} I--Q---     1 perm 3f010000     0     0 keyring   backup: 1"
        for before in ("\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", " ", "x"):
            self.assertEqual(self.listed(f"{before}{line}").find(["backup"]), {})
        for behind in ("\r", " ", "\x85", ": 1"):
            self.assertEqual(self.listed(f"{line}{behind}").find(["backup"]), {})

    def test_findNoMore(self) -> None:
        """A list without end is not read to its end."""
        ring = self.addKeyring("backup")
        line = f"{ring:08x} I--Q---     1 perm 3f010000     0     0 keyring   backup: 1"
        long = ["x" * 4095] * (keyrings._MOST_LISTED // 4096)
        self.assertEqual(self.listed(*long[1:], line).find(["backup"]), {"backup": ring})
        self.assertEqual(self.listed(*long, line).find(["backup"]), {})

    def test_noList(self) -> None:
        """Without C{/proc/keys} the error is the system's."""
        self.assertRaises(FileNotFoundError, Keyrings("/nonexistent/keys").find, [".nvme"])


class RestrictionTests(SynchronousTestCase):
    """What an agent that is not root is told."""

    def test_root(self) -> None:
        """Root has no restrictions."""
        self.patch(os, "geteuid", lambda: 0)
        self.assertIsNone(Keyrings().restriction())

    def test_others(self) -> None:
        """Anybody else cannot serve NVMe, and is told so with the user's number."""
        self.patch(os, "geteuid", lambda: 4711)
        restriction = Keyrings().restriction() or ""
        self.assertIn("4711", restriction)
        self.assertIn("NVMe/TCP cannot be served", restriction)


class RequestKeyringsTests(SynchronousTestCase):
    """Tests for L{RequestKeyrings}."""

    def setUp(self) -> None:
        self.fake = FakeKeyrings()
        self.ledger = Ledger()
        self.reactor = TurnReactor()
        self.requests = RequestKeyrings(self.fake, self.ledger, self.reactor)
        self.notes: list[str] = []

    def borrow(self, *names: str) -> list[int]:
        """
        Borrow keyrings for a request.

        @param names: their names.
        @return: their serials.
        """
        borrowed = self.borrowing(*names)
        self.reactor.settle()
        return self.successResultOf(borrowed)

    def borrowing(self, *names: str) -> Deferred[list[int]]:
        """
        Begin to borrow keyrings for a request.

        @param names: their names.
        @return: fires with their serials.
        """
        return Deferred.fromCoroutine(self.requests.borrow(names, self.notes.append))

    def hold(self, serial: int) -> None:
        """
        Have a request hold a keyring that the kernel has linked.

        @param serial: the keyring.
        """
        self.fake.linkAtAccept(serial)
        self.assertEqual(self.requests.hold(serial), serial)

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

    def test_linkAgain(self) -> None:
        """A process that was forked off has the keyrings in use, as far as it may."""
        self.fake.linkAtAccept(6)
        self.fake.spoil(6, errno.EKEYREVOKED)
        for serial in 6, 7:
            self.hold(serial)
        for serial in 6, 7:
            self.fake.unlink(serial)
        self.requests.linkAgain()
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (2, [7]))

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

    def test_borrow(self) -> None:
        """Keyrings are found by name or by serial and linked, and taken out afterwards."""
        rings = [self.fake.addKeyring(name) for name in (".nvme", "more", "other")]
        borrowed = self.borrow(".nvme", str(rings[1]))
        self.assertEqual(borrowed, rings[:2])
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (2, rings[:2]))
        for ring in borrowed:
            self.requests.release(ring)
        self.assertEqual((self.ledger.keyLinks, self.fake.linked(), self.notes), (0, [], []))

    def test_borrowLate(self) -> None:
        """A keyring whose module is loaded late is found when it is there, a second later."""
        self.assertEqual(self.borrow(".nvme"), [])
        ring = self.fake.addKeyring(".nvme")
        self.assertEqual(self.borrow(".nvme"), [])
        self.reactor.advance(1.0)
        self.assertEqual(self.borrow(".nvme"), [ring])

    def test_borrowShared(self) -> None:
        """A keyring that the kernel has linked for one request is shared with another's."""
        ring = self.fake.addKeyring(".nvme")
        self.hold(ring)
        self.fake.linkError = errno.EACCES
        self.assertEqual(self.borrow(".nvme", str(ring)), [ring, ring])
        self.assertEqual(self.ledger.keyLinks, 1)
        for _use in range(2):
            self.requests.release(ring)
            self.assertEqual(self.fake.linked(), [ring])
        self.requests.release(ring)
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (0, []))

    def test_borrowRefused(self) -> None:
        """What cannot be found or linked is left out, and the others are not lost."""
        ring = self.fake.addKeyring("more")
        never = ("4711", "\u00b2", "0", "4294967294", "9" * 99)
        self.assertEqual(self.borrow(*never, str(ring)), [ring])
        self.fake.findError = errno.EACCES
        self.assertEqual(self.borrow(str(ring), ".nvme"), [ring])
        self.fake.linkError = errno.EACCES
        other = self.fake.addKeyring("other")
        self.assertEqual(self.borrow(str(other)), [])
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (1, [ring]))

    def test_borrowForeign(self) -> None:
        """By serial, what is no keyring of ours is left out and said, and is not linked."""
        theirs, open_ = self.fake.addKeyring("theirs"), self.fake.addKeyring("open")
        key = self.fake.addKey(theirs, b"key")
        self.fake.own(theirs, 4711)
        self.fake.own(open_, 0, 0x3F010004)
        self.assertEqual(self.borrow(str(theirs), str(open_), str(key)), [])
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (0, []))
        for note, words in zip(
            self.notes,
            ("belongs to the user 4711", "anybody may write", "a key of the type user"),
            strict=True,
        ):
            self.assertIn(words, note)

    def test_borrowUnseen(self) -> None:
        """One that may be linked and not be seen is left out, and does not stay linked."""
        ring = self.fake.addKeyring("unseen")

        def describe(_serial: int) -> KeyDescription:
            raise PermissionError(errno.EACCES, "a test")

        self.patch(self.fake, "describe", describe)
        self.assertEqual(self.borrow(str(ring)), [])
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (0, []))
        self.assertIsNone(self.requests.name(ring))

    def test_borrowHeldForeign(self) -> None:
        """One that another request holds stays linked for it."""
        self.hold(7)
        self.fake.own(7, 4711)
        self.assertEqual(self.borrow("7"), [])
        self.assertEqual((self.ledger.keyLinks, self.fake.linked()), (1, [7]))

    def test_lookedForOnce(self) -> None:
        """All keys are looked through once, as long as what was found stays what it is."""
        rings = [self.fake.addKeyring(name) for name in (".nvme", "more")]
        for _use in range(3):
            self.assertEqual(self.borrow(".nvme", "more"), rings)
        self.assertEqual(self.fake.searches, 1)

    def test_lookedForAgain(self) -> None:
        """What was found is looked for again when it has become something else."""
        ring = self.fake.addKeyring("more")
        for number, change in enumerate(
            (
                lambda: self.fake.own(ring, 4711),
                lambda: self.fake.spoil(ring, errno.EKEYREVOKED),
                lambda: self.fake.spoil(ring, errno.EACCES),
                lambda: self.fake.forget(ring),
                lambda: self.fake.addKeyring("another of the same serial", ring),
            ),
            1,
        ):
            with self.subTest(number):
                self.assertEqual(self.borrow("more"), [ring])
                self.requests.release(ring)
                change()
                self.reactor.advance(1.0)
                self.assertEqual(self.borrow("more"), [])
                self.fake.forget(self.fake.addKeyring("more", ring))
                self.fake.addKeyring("more", ring)
                self.reactor.advance(1.0)

    def test_lookedForSeldom(self) -> None:
        """For a name that is not there all keys are looked through once in a second."""
        for _request in range(5):
            self.assertEqual(self.borrow("absent"), [])
        self.assertEqual(self.fake.searches, 1)
        self.reactor.advance(1.0)
        self.assertEqual(self.borrow("absent"), [])
        self.assertEqual(self.fake.searches, 2)

    def test_lookedForTogether(self) -> None:
        """Requests that come at once wait for the same look; one for another name has its own."""
        ring = self.fake.addKeyring("more")
        together = [self.borrowing("more") for _request in range(3)]
        absent = self.borrowing("absent")
        self.assertEqual(self.fake.searches, 0)
        self.reactor.settle()
        for one in together:
            self.assertEqual(self.successResultOf(one), [ring])
        self.assertEqual((self.successResultOf(absent), self.fake.searches), ([], 2))

    def test_lookTakesTooLong(self) -> None:
        """A request does not wait long, and the next look comes the later the longer it took."""
        ring = self.fake.addKeyring("more")
        pool = self.reactor.threadPool = HeldThreadPool(self.reactor)
        self.assertEqual(self.fake.searches, 0)
        slow = self.borrowing("more")
        self.assertNoResult(slow)
        self.reactor.advance(keyrings.SEARCH_SECONDS)
        self.assertEqual(self.successResultOf(slow), [])
        pool.release()
        self.reactor.settle()
        self.reactor.advance(19.0)
        self.assertEqual((self.borrow("more"), pool.held), ([], 0))
        self.reactor.advance(1.0)
        again = self.borrowing("more")
        pool.release()
        self.reactor.settle()
        self.assertEqual(self.successResultOf(again), [ring])
