"""A fake of kTLS: it remembers what it was given, and the connection stays as it is."""

from __future__ import annotations

import socket
from collections.abc import Callable

from zope.interface import implementer

from ktlsagent.errors import PeerLeft, SessionUnusable, StartError
from ktlsagent.interfaces import IKernelTLS
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.protocols.session import EstablishedSession

_TCP_ESTABLISHED = 1


@implementer(IKernelTLS)
class FakeKernelTLS:
    """
    A kernel that takes every session, unless the test wants otherwise.

    @ivar suites: the cipher suites that it takes.
    @ivar refusal: what L{install} raises.
    @ivar unavailable: what L{probe} raises.
    @ivar meanwhile: what the peer does before L{install} has begun.
    @ivar installed: sockets and the sessions that they were given.
    """

    def __init__(self, suites: frozenset[str] = frozenset(CIPHER_SUITES)) -> None:
        """
        @param suites: the cipher suites that it takes.
        """
        self.suites = suites
        self.refusal: Exception | None = None
        self.unavailable: StartError | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        self.installed: list[tuple[socket.socket, EstablishedSession]] = []

    @property
    def sessions(self) -> list[EstablishedSession]:
        """The sessions that were given, in their order."""
        return [session for _connection, session in self.installed]

    def probe(self) -> frozenset[str]:
        if self.unavailable is not None:
            raise self.unavailable
        return self.suites

    def install(self, connection: socket.socket, session: EstablishedSession) -> None:
        self.meanwhile()
        if self.refusal is not None:
            raise self.refusal
        # C{tls_init} of C{net/tls/tls_main.c} wants an established connection.
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state != _TCP_ESTABLISHED:
            raise PeerLeft("closed-after-handshake", f"expected TCP_ESTABLISHED, found {state}")
        if any(known is connection for known, _session in self.installed):
            raise SessionUnusable("ktls-refused", "expected no kTLS yet, found EEXIST")
        if session.suite.name not in self.suites:
            raise SessionUnusable("ktls-refused", f"expected a suite of {sorted(self.suites)}")
        self.installed.append((connection, session))
