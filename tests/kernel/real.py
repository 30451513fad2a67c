"""
What holds of the fakes, on a real kernel: run as root, in a network namespace in
which no agent listens, by C{python3 -m twisted.trial tests.kernel.real}.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import keyutils
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.interfaces import IKernelTLS, IKeyrings, INetlinkSocket
from ktlsagent.keyrings import Keyrings, RequestKeyrings
from ktlsagent.ktls import KernelTLS
from ktlsagent.ledger import Ledger
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.netlinksocket import NETLINK_GENERIC, NetlinkSocket
from tests.support import keyringstests, ktlstests, netlinktests
from tests.support.keyringstests import NEW
from tests.support.reactor import TurnReactor


class RealHandshakeKernelTests(netlinktests.HandshakeKernelTestsMixin, SynchronousTestCase):
    """Tests for L{HandshakeNetlink}."""

    def openSocket(self) -> INetlinkSocket:
        return NetlinkSocket()

    def handOver(self, opened: INetlinkSocket) -> int:
        assert isinstance(opened, NetlinkSocket)
        return opened._socket.detach()

    def forge(self, datagram: bytes, port: int = 0) -> None:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as forger:
            forger.bind((0, 0))
            group = 0 if port else 1 << (self.group() - 1)
            forger.sendto(datagram, (port, group))

    def group(self) -> int:
        """
        @return: the number of the agents' group.
        """
        kernel = HandshakeNetlink()
        kernel.open()
        kernel.close()
        return kernel._family.groups["tlshd"]

    def makeKernel(self, inherited: int | None = None) -> HandshakeNetlink:
        return HandshakeNetlink(inherited=inherited)


class RealKernelTLSTests(ktlstests.KernelTLSTestsMixin, SynchronousTestCase):
    """Tests for L{KernelTLS}."""

    def makeKernelTLS(self) -> IKernelTLS:
        return KernelTLS()


_SOMEBODY = 65533
"""Another user."""

_EVERYTHING = 0x3F3F3F3F
"""All rights for everybody."""


def _plant(keyring: int, name: str) -> Sequence[int]:
    """Try every way to put a key into a keyring of somebody else."""
    for attempt in (
        keyutils.join_session_keyring,
        lambda: keyutils.set_perm(keyring, _EVERYTHING),
        lambda: keyutils.link(keyring, keyutils.KEY_SPEC_SESSION_KEYRING),
        lambda: keyutils.add_key(b"planted", b"payload" * 5, keyring),
        lambda: keyutils.join_session_keyring(name.encode()),
        lambda: keyutils.add_key(b"planted", b"payload" * 5, keyring),
    ):
        with contextlib.suppress(keyutils.Error):
            attempt()
    return ()


class RealKeyringsTests(keyringstests.KeyringsTestsMixin, SynchronousTestCase):
    """Tests for L{Keyrings}."""

    def setUp(self) -> None:
        Keyrings().createProcessKeyring()
        # A keyring of the test's own, in which its keyrings are possessed.
        self.home = self.addKeyring("ktlsagent home", keyutils.KEY_SPEC_PROCESS_KEYRING)
        self.addCleanup(keyutils.unlink, self.home, keyutils.KEY_SPEC_PROCESS_KEYRING)

    def makeKeyrings(self) -> IKeyrings:
        return Keyrings()

    def addKeyring(self, name: str, where: int | None = None) -> int:
        keyring = self.home if where is None else where
        serial: int = keyutils.add_key(name.encode(), None, keyring, b"keyring")
        return serial

    def addKey(self, keyring: int, description: bytes, payload: bytes) -> int:
        serial: int = keyutils.add_key(description, payload, keyring)
        return serial

    def revoke(self, serial: int) -> None:
        keyutils.revoke(serial)

    def expire(self, serial: int) -> None:
        keyutils.set_timeout(serial, 1)
        time.sleep(1.1)

    def forbid(self, serial: int) -> None:
        # A possessor who may search may read (keyctl_read_key of security/keys/keyctl.c).
        keyutils.set_perm(serial, keyutils.KEY_USR_VIEW)

    def setPermissions(self, serial: int, permissions: int) -> None:
        keyutils.set_perm(serial, permissions)

    def asSomebody(self, make: Callable[[], Sequence[int]]) -> list[int]:
        """
        Have another user make keys, which stay until the test ends.

        @param make: makes them, and returns their serials.
        @return: their serials.
        """
        results, theirs = os.pipe()
        ours, ends = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(ends)
                os.setgroups([])
                os.setresgid(_SOMEBODY, _SOMEBODY, _SOMEBODY)
                os.setresuid(_SOMEBODY, _SOMEBODY, _SOMEBODY)
                os.write(theirs, b"".join(serial.to_bytes(4, "big") for serial in make()))
                os.close(theirs)
                os.read(ours, 1)
            finally:
                os._exit(0)
        os.close(theirs)
        os.close(ours)

        def end() -> None:
            os.close(ends)
            os.waitpid(child, 0)

        self.addCleanup(end)
        with open(results, "rb") as made:
            return [number for (number,) in struct.iter_unpack(">i", made.read())]

    def test_forged(self) -> None:
        """
        Another user makes a keyring of a name, one that anybody may do everything with, and
        lines in the list of keys that call it and others root's: none of them is found.
        """
        name, other = self.newName(), self.newName()
        innocent = self.addKeyring(other)

        def make() -> list[int]:
            keyring: int = keyutils.add_key(
                name.encode(), None, keyutils.KEY_SPEC_PROCESS_KEYRING, b"keyring"
            )
            serials = [keyring]
            # What the kernel puts behind a description makes the end of the line, or is cut off.
            for number, (serial, end) in enumerate(
                itertools.product((keyring, innocent), ("", ": 1\n", ": empty\nmore"))
            ):
                description = (
                    f"{number}\n{serial:08x} I--Q---     1 perm 3f030000     0     0 "
                    f"keyring   {name}{end}"
                )
                for kind in (b"user", b"keyring"):
                    payload = b"payload" if kind == b"user" else None
                    serials.append(keyutils.add_key(description.encode(), payload, keyring, kind))
            for serial in serials:
                keyutils.set_perm(serial, _EVERYTHING)
            return serials

        keyring, *forgers = self.asSomebody(make)
        keyrings = Keyrings()
        listed = Path("/proc/keys").read_bytes()
        for serial in (keyring, innocent):
            # The forgery is as good as it can be.
            self.assertIn(b"\n%08x I--Q---     1 perm 3f030000     0     0" % serial, listed)
        self.assertEqual(keyrings.find([name]), {})
        self.assertEqual(keyrings.describe(keyring).uid, _SOMEBODY)
        self.assertEqual(keyrings.describe(keyring).permissions, _EVERYTHING)
        requests = RequestKeyrings(keyrings, Ledger(), TurnReactor())
        notes: list[str] = []
        serials = [str(serial) for serial in (keyring, *forgers)]
        borrowing = Deferred.fromCoroutine(requests.borrow(serials, notes.append))
        self.assertEqual(self.successResultOf(borrowing), [])
        self.assertEqual(len(notes), len(serials))
        self.assertNotIn(keyring, keyrings.linked())
        true = self.addKeyring(name)
        self.assertEqual(keyrings.find([name]), {name: true})

    def test_planted(self) -> None:
        """
        Whatever right but view and read others have in a keyring of root's, they get a key
        into it; and it is the keyrings with these rights that are not believed in.
        """
        for right in (
            keyutils.KEY_OTH_WRITE,
            keyutils.KEY_OTH_SEARCH,
            keyutils.KEY_OTH_LINK,
            keyutils.KEY_OTH_SETATTR,
            keyutils.KEY_OTH_VIEW | keyutils.KEY_OTH_READ,
        ):
            name = self.newName()
            keyring = self.addKeyring(name)
            keyutils.set_perm(keyring, NEW | right)
            self.asSomebody(lambda ring=keyring, called=name: _plant(ring, called))  # type: ignore[misc]
            planted = bool(Keyrings().keys(keyring))
            believed = Keyrings().find([name]) == {name: keyring}
            # Attributes are its time, too; its permissions are the owner's alone to set.
            expected = right != keyutils.KEY_OTH_SETATTR and not believed
            self.assertEqual(planted, expected, hex(right))
            self.assertEqual(believed, right == keyutils.KEY_OTH_VIEW | keyutils.KEY_OTH_READ)

    def test_forked(self) -> None:
        """
        A process that was forked off has no links, and can make them again if the
        keyring is as those of the kernel are, C{.nvme} for one.
        """
        ring = self.addKeyring("kernel's")
        keyutils.set_perm(ring, keyutils.KEY_POS_ALL | keyutils.KEY_USR_ALL)
        self.addKey(ring, b"key", b"payload")
        requests = RequestKeyrings(Keyrings(), Ledger(), TurnReactor())
        Keyrings().link(ring)
        requests.hold(ring)
        child = os.fork()
        if not child:
            try:
                Keyrings().createProcessKeyring()
                before = ring in Keyrings().linked()
                requests.linkAgain()
                os._exit(2 * before + (ring in Keyrings().linked()))
            finally:
                os._exit(99)
        _pid, status = os.waitpid(child, 0)
        requests.release(ring)
        self.assertEqual(os.waitstatus_to_exitcode(status), 1)
