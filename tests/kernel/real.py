"""
What holds of the fakes, on a real kernel: run as root, in a network namespace in
which no agent listens, by C{python3 -m twisted.trial tests.kernel.real}.
"""

from __future__ import annotations

import os
import socket
import time

import keyutils
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.interfaces import IKernelTLS, IKeyrings, INetlinkSocket
from ktlsagent.keyrings import Keyrings, RequestKeyrings
from ktlsagent.ktls import KernelTLS
from ktlsagent.ledger import Ledger
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.netlinksocket import NETLINK_GENERIC, NetlinkSocket
from tests.support import keyringstests, ktlstests, netlinktests


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

    def test_forked(self) -> None:
        """
        A process that was forked off has no links, and can make them again if the
        keyring is as those of the kernel are, C{.nvme} for one.
        """
        ring = self.addKeyring("kernel's")
        keyutils.set_perm(ring, keyutils.KEY_POS_ALL | keyutils.KEY_USR_ALL)
        self.addKey(ring, b"key", b"payload")
        requests = RequestKeyrings(Keyrings(), Ledger())
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
