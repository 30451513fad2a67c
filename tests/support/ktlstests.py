"""What holds of kTLS, on the fake as on a real kernel."""

from __future__ import annotations

import os
import socket

from zope.interface.verify import verifyObject

from ktlsagent.errors import HandshakeError, PeerLeft, SessionUnusable
from ktlsagent.interfaces import IKernelTLS
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES, IV_LENGTH, CipherSuite
from ktlsagent.protocols.keyschedule import TrafficKeys
from ktlsagent.protocols.session import Direction, EstablishedSession
from tests.support.mixin import TestsMixin

_CLOSED = 7
"""C{TCP_CLOSE} (C{include/net/tcp_states.h})."""


def makeSessions(
    suite: CipherSuite, sequence: int = 0
) -> tuple[EstablishedSession, EstablishedSession]:
    """
    Make both sides of a session with fresh keys.

    @param suite: its cipher suite.
    @param sequence: the number of the next record in one direction.
    @return: the sessions; what one transmits, the other receives.
    """
    directions = [
        Direction(TrafficKeys(os.urandom(suite.keyLength), os.urandom(IV_LENGTH)), number)
        for number in (sequence, 0)
    ]
    return (
        EstablishedSession(suite, None, (), transmit=directions[0], receive=directions[1]),
        EstablishedSession(suite, None, (), transmit=directions[1], receive=directions[0]),
    )


def connectedPair() -> tuple[socket.socket, socket.socket]:
    """
    Connect two TCP sockets over loopback.

    @return: both ends, which block at most ten seconds.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), 10)
        far, _address = listener.accept()
    far.settimeout(10)
    return near, far


class KernelTLSTestsMixin(TestsMixin):
    """Tests over loopback."""

    def makeKernelTLS(self) -> IKernelTLS:
        """
        Make what is tested.

        @return: the kTLS of the kernel under test.
        """
        raise NotImplementedError

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """
        Connect two sockets.

        @return: both ends, closed at the end of the test.
        """
        near, far = connectedPair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        return near, far

    def assertClosed(self, connection: socket.socket) -> None:
        """
        Install a session where there is no connection.

        @param connection: on what.
        """
        near, _far = makeSessions(CIPHER_SUITES["TLS_AES_128_GCM_SHA256"])
        error: HandshakeError = self.assertRaises(
            PeerLeft, self.makeKernelTLS().install, connection, near
        )
        self.assertEqual(error.code, "closed-after-handshake")

    def test_interface(self) -> None:
        """It provides what the agent counts on."""
        verifyObject(IKernelTLS, self.makeKernelTLS())

    def test_probe(self) -> None:
        """All four suites of TLS 1.3 are found, and found again."""
        kernelTLS = self.makeKernelTLS()
        self.assertEqual(kernelTLS.probe(), frozenset(CIPHER_SUITES))
        self.assertEqual(kernelTLS.probe(), frozenset(CIPHER_SUITES))

    def test_install(self) -> None:
        """What one end sends, the other end reads, with every suite and from any number on."""
        for suite in CIPHER_SUITES.values():
            for sequence in (0, 2, 2**32 + 5):
                near, far = self.pair()
                sessions = makeSessions(suite, sequence)
                for end, session in zip((near, far), sessions, strict=True):
                    self.makeKernelTLS().install(end, session)
                near.sendall(b"from near")
                self.assertEqual(far.recv(100), b"from near")
                far.sendall(b"from far")
                self.assertEqual(near.recv(100), b"from far")

    def test_notConnected(self) -> None:
        """A socket without a connection is refused as closed."""
        with socket.socket() as connection:
            self.assertClosed(connection)

    def test_closedByPeer(self) -> None:
        """A connection that the peer has closed is refused, and its last octets can be read."""
        near, far = self.pair()
        far.sendall(b"last")
        far.close()
        self.assertEqual(near.recv(5, socket.MSG_WAITALL | socket.MSG_PEEK), b"last")
        self.assertClosed(near)
        self.assertEqual(near.recv(5), b"last")

    def test_resetByPeer(self) -> None:
        """That also holds if it has closed without having read everything."""
        near, far = self.pair()
        far.sendall(b"last")
        far.close()
        self.assertEqual(near.recv(5, socket.MSG_WAITALL | socket.MSG_PEEK), b"last")
        near.sendall(b"a call")
        self.assertEqual(near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0], _CLOSED)
        self.assertClosed(near)
        self.assertEqual(near.recv(5), b"last")

    def test_twice(self) -> None:
        """A socket takes one session."""
        kernelTLS = self.makeKernelTLS()
        near, _far = self.pair()
        session, _other = makeSessions(CIPHER_SUITES["TLS_AES_256_GCM_SHA384"])
        kernelTLS.install(near, session)
        error = self.assertRaises(SessionUnusable, kernelTLS.install, near, session)
        self.assertEqual(error.code, "ktls-refused")
        self.assertIn("EEXIST", error.reason)
