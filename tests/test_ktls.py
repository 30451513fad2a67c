"""Tests for L{ktlsagent.ktls}."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import PeerLeft, SessionUnusable, StartError
from ktlsagent.interfaces import IKernelTLS
from ktlsagent.ktls import KernelTLS
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.keyschedule import TrafficKeys
from ktlsagent.protocols.session import Direction, EstablishedSession
from tests.support import ktlstests
from tests.support.fakektls import FakeKernelTLS

SOL_TCP = 6
TCP_ULP = 31
SOL_TLS = 282
TLS_TX = 1
TLS_RX = 2

GCM_256 = "TLS_AES_256_GCM_SHA384"


class FakeKernelTLSTests(ktlstests.KernelTLSTestsMixin, SynchronousTestCase):
    """The fake does what a real kernel does (L{tests.kernel.real} has the other half)."""

    def setUp(self) -> None:
        self.fake = FakeKernelTLS()

    def makeKernelTLS(self) -> IKernelTLS:
        return self.fake

    def test_refusals(self) -> None:
        """The fake refuses what the test wants it to refuse."""
        near, _far = self.pair()
        session, _other = ktlstests.makeSessions(CIPHER_SUITES[GCM_256])
        self.fake.suites = frozenset({"TLS_AES_128_GCM_SHA256"})
        self.assertRaises(SessionUnusable, self.fake.install, near, session)
        self.fake.refusal = SessionUnusable("ktls-mismatch", "a test")
        self.assertRaises(SessionUnusable, self.fake.install, near, session)
        self.fake.unavailable = StartError("a test")
        self.assertRaises(StartError, self.fake.probe)
        self.assertEqual(self.fake.sessions, [])


class _OptionSocket:
    """
    Stands in for a socket: it notes its options.

    @ivar calls: what was called, in order.
    @ivar errors: errnos by level and option.
    @ivar readBack: what C{getsockopt} gives by option, if not what was set.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int, object]] = []
        self.errors: dict[tuple[str, int, int], int | None] = {}
        self.readBack: dict[int, bytes] = {}
        self._set: dict[int, bytes] = {}

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self._note("set", level, option, value)
        self._set[option] = value

    def getsockopt(self, level: int, option: int, length: int) -> bytes:
        self._note("get", level, option, length)
        return self.readBack.get(option, self._set[option])[:length]

    def _note(self, what: str, level: int, option: int, value: object) -> None:
        self.calls.append((what, level, option, value))
        if (what, level, option) in self.errors:
            number = self.errors[what, level, option]
            if number is None:
                raise OSError("no number")
            raise OSError(number, os.strerror(number))


class KernelTLSInstallTests(SynchronousTestCase):
    """Tests for L{KernelTLS.install}."""

    def setUp(self) -> None:
        self.socket = _OptionSocket()
        self.suite = CIPHER_SUITES[GCM_256]

    def install(self) -> None:
        """Install a session whose octets are all known."""
        session = EstablishedSession(
            self.suite,
            None,
            (),
            transmit=Direction(TrafficKeys(b"K" * self.suite.keyLength, b"saltivoctets"), 3),
            receive=Direction(TrafficKeys(b"k" * self.suite.keyLength, b"SALTIVOCTETS"), 0),
        )
        KernelTLS().install(cast("socket.socket", self.socket), session)

    def refused(self, what: str, level: int, option: int, number: int | None) -> str:
        """
        Let one call fail.

        @param what: C{get} or C{set}.
        @param level: the level.
        @param option: the option.
        @param number: the errno.
        @return: the words of the error.
        """
        self.socket.errors = {(what, level, option): number}
        error: SessionUnusable = self.assertRaises(SessionUnusable, self.install)
        self.assertEqual(error.code, "ktls-refused")
        return error.reason

    def test_order(self) -> None:
        """The upper layer first, then both directions, then both are read back."""
        self.install()
        header = struct.pack("=HH", 0x0304, 52)
        transmit = header + b"ivoctets" + b"K" * 32 + b"salt" + (3).to_bytes(8, "big")
        receive = header + b"IVOCTETS" + b"k" * 32 + b"SALT" + bytes(8)
        self.assertEqual(
            self.socket.calls,
            [
                ("set", SOL_TCP, TCP_ULP, b"tls"),
                ("set", SOL_TLS, TLS_TX, transmit),
                ("set", SOL_TLS, TLS_RX, receive),
                ("get", SOL_TLS, TLS_TX, 4),
                ("get", SOL_TLS, TLS_RX, 4),
            ],
        )

    def test_cipherNumbers(self) -> None:
        """The kernel's numbers of the ciphers are those of C{linux/tls.h}."""
        numbers = {
            "TLS_AES_128_GCM_SHA256": (51, 40),
            "TLS_AES_256_GCM_SHA384": (52, 56),
            "TLS_AES_128_CCM_SHA256": (53, 40),
            "TLS_CHACHA20_POLY1305_SHA256": (54, 56),
        }
        for self.suite in CIPHER_SUITES.values():
            self.socket.calls.clear()
            self.install()
            info = self.socket.calls[1][3]
            assert isinstance(info, bytes)
            self.assertEqual(
                (struct.unpack_from("=HH", info)[1], len(info)), numbers[self.suite.name]
            )

    def test_noUpperLayer(self) -> None:
        """A kernel without kTLS is named as that."""
        reason = self.refused("set", SOL_TCP, TCP_ULP, errno.ENOENT)
        self.assertEqual(
            reason,
            f"expected the kernel to take {GCM_256} by TCP_ULP, found ENOENT: the kernel lacks "
            "kTLS or the cipher: load the module tls, CONFIG_TLS",
        )
        self.assertEqual(len(self.socket.calls), 1)

    def test_notConnected(self) -> None:
        """A connection that has ended is named as that, and is nobody's fault here."""
        self.socket.errors = {("set", SOL_TCP, TCP_ULP): errno.ENOTCONN}
        error = self.assertRaises(PeerLeft, self.install)
        self.assertEqual(error.code, "closed-after-handshake")
        self.assertIn("closed it as soon as the handshake was over", error.reason)

    def test_attachedAlready(self) -> None:
        """A socket with an upper layer is named as that."""
        reason = self.refused("set", SOL_TCP, TCP_ULP, errno.EEXIST)
        self.assertIn("by TCP_ULP, found EEXIST: somebody else has attached kTLS", reason)

    def test_transmitRefused(self) -> None:
        """A cipher that the kernel does not know is found at the first direction."""
        reason = self.refused("set", SOL_TLS, TLS_TX, errno.EINVAL)
        self.assertIn("by TLS_TX, found EINVAL: the kernel does not know the cipher", reason)
        self.assertEqual(len(self.socket.calls), 2)

    def test_receiveRefused(self) -> None:
        """An errno without an advice is put into the system's words."""
        reason = self.refused("set", SOL_TLS, TLS_RX, errno.ENOMEM)
        self.assertIn("by TLS_RX, found ENOMEM: " + os.strerror(errno.ENOMEM), reason)
        self.assertEqual(len(self.socket.calls), 3)

    def test_readBackRefused(self) -> None:
        """What cannot be read back is not believed."""
        reason = self.refused("get", SOL_TLS, TLS_RX, errno.EBUSY)
        self.assertIn("by TLS_RX, found EBUSY", reason)

    def test_unnamedErrors(self) -> None:
        """Errors without a name or a number are refusals as well."""
        self.assertIn("found 4095: ", self.refused("set", SOL_TCP, TCP_ULP, 4095))
        self.assertIn("found EIO", self.refused("set", SOL_TCP, TCP_ULP, None))

    def test_mismatch(self) -> None:
        """What is read back has to be the session, in both directions."""
        for option, name in ((TLS_TX, "TLS_TX"), (TLS_RX, "TLS_RX")):
            for found in (struct.pack("=HH", 0x0303, 52), struct.pack("=HH", 0x0304, 51), b""):
                self.socket.readBack = {option: found}
                error = self.assertRaises(SessionUnusable, self.install)
                self.assertEqual(error.code, "ktls-mismatch")
                self.assertEqual(
                    error.reason,
                    f"expected {name} with TLS 1.3 and cipher 52, found {found.hex()}",
                )


class _ListedKernelTLS(KernelTLS):
    """
    Takes the suites of a list, on any connection.

    @ivar taken: the names of the suites.
    """

    def __init__(self, *taken: str) -> None:
        """
        @param taken: the names of the suites.
        """
        self.taken = taken
        self.peers: list[object] = []

    def install(self, connection: socket.socket, session: EstablishedSession) -> None:
        self.peers.append(connection.getpeername())
        if session.suite.name not in self.taken:
            raise SessionUnusable("ktls-refused", f"no {session.suite.name}")


class KernelTLSProbeTests(SynchronousTestCase):
    """Tests for L{KernelTLS.probe}."""

    def test_some(self) -> None:
        """Each suite is tried on a connection of its own; those that are taken are the result."""
        kernelTLS = _ListedKernelTLS(GCM_256, "TLS_AES_128_CCM_SHA256")
        self.assertEqual(kernelTLS.probe(), {GCM_256, "TLS_AES_128_CCM_SHA256"})
        self.assertEqual(len(set(kernelTLS.peers)), len(CIPHER_SUITES))

    def test_none(self) -> None:
        """Without any suite there is no agent; the error has the last refusal."""
        error = self.assertRaises(StartError, _ListedKernelTLS().probe)
        self.assertEqual(
            str(error),
            "this kernel cannot take over TLS sessions: no TLS_AES_128_CCM_SHA256",
        )

    def test_noLoopback(self) -> None:
        """Without loopback nothing can be tried."""

        def noLoopback(*_arguments: object) -> None:
            raise OSError(errno.EADDRNOTAVAIL, "no such address")

        self.patch(socket, "create_server", noLoopback)
        error = self.assertRaises(StartError, KernelTLS().probe)
        self.assertIn("set up the interface lo", str(error))
