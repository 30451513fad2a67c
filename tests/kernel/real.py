"""
What holds of the fakes, on a real kernel: run as root, in a network namespace in
which no agent listens, by C{python3 -m twisted.trial tests.kernel.real}.
"""

from __future__ import annotations

import itertools

import keyutils
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.interfaces import IKernelTLS, IKeyrings, INetlinkSocket
from ktlsagent.keyrings import Keyrings
from ktlsagent.ktls import KernelTLS
from ktlsagent.netlink import HandshakeNetlink, NetlinkSocket
from tests.support import keyringstests, ktlstests, netlinktests


class RealHandshakeKernelTests(netlinktests.HandshakeKernelTestsMixin, SynchronousTestCase):
    """Tests for L{HandshakeNetlink}."""

    def openSocket(self) -> INetlinkSocket:
        return NetlinkSocket()

    def makeKernel(self) -> HandshakeNetlink:
        return HandshakeNetlink()


class RealKernelTLSTests(ktlstests.KernelTLSTestsMixin, SynchronousTestCase):
    """Tests for L{KernelTLS}."""

    def makeKernelTLS(self) -> IKernelTLS:
        return KernelTLS()


class RealKeyringsTests(keyringstests.KeyringsTestsMixin, SynchronousTestCase):
    """Tests for L{Keyrings}."""

    def setUp(self) -> None:
        self.names = itertools.count()

    def makeKeyrings(self) -> IKeyrings:
        return Keyrings()

    def link(self) -> int:
        name = b"ktlsagent-test-%d" % next(self.names)
        serial: int = keyutils.add_key(name, b"1", keyutils.KEY_SPEC_PROCESS_KEYRING)
        return serial
