"""
kTLS: the keys of a session into the kernel (C{Documentation/networking/tls.rst}).

Which suites the running kernel takes is tried once, at start.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from zope.interface import implementer

from ktlsagent.errors import HandshakeError, PeerLeft, SessionUnusable, StartError
from ktlsagent.interfaces import IKernelTLS
from ktlsagent.protocols.cryptoinfo import (
    CIPHER_SUITES,
    HEADER,
    IV_LENGTH,
    TLS_1_3,
    CipherSuite,
    packCryptoInfo,
)
from ktlsagent.protocols.keyschedule import TrafficKeys
from ktlsagent.protocols.session import Direction, EstablishedSession

_TCP_ULP = 31
_SOL_TLS = 282
_TLS_TX = 1
_TLS_RX = 2

_ADVICE = {
    errno.ENOENT: "the kernel lacks kTLS or the cipher: load the module tls, CONFIG_TLS",
    errno.EEXIST: "somebody else has attached kTLS already",
    errno.EINVAL: "the kernel does not know the cipher",
}


@implementer(IKernelTLS)
class KernelTLS:
    """The running kernel's kTLS."""

    def probe(self) -> frozenset[str]:
        """See L{IKernelTLS}."""
        taken = set()
        refusal = "nothing tried"
        for suite in CIPHER_SUITES.values():
            try:
                with _loopbackConnection() as connection:
                    self.install(connection, _trialSession(suite))
            except HandshakeError as error:
                refusal = error.reason
            except OSError as error:
                raise StartError(
                    f"expected a TCP connection over loopback to try kTLS on, found {error}; "
                    "set up the interface lo"
                ) from error
            else:
                taken.add(suite.name)
        if not taken:
            raise StartError(f"this kernel cannot take over TLS sessions: {refusal}")
        return frozenset(taken)

    def install(self, connection: socket.socket, session: EstablishedSession) -> None:
        """See L{IKernelTLS}."""
        step = "TCP_ULP"
        try:
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_ULP, b"tls")
            for step, option, direction in (  # noqa: B007 - named when it is refused
                ("TLS_TX", _TLS_TX, session.transmit),
                ("TLS_RX", _TLS_RX, session.receive),
            ):
                info = packCryptoInfo(session.suite, direction.keys, direction.sequence)
                connection.setsockopt(_SOL_TLS, option, info)
            for step, option in (("TLS_TX", _TLS_TX), ("TLS_RX", _TLS_RX)):
                installed = connection.getsockopt(_SOL_TLS, option, HEADER.size)
                _requireInstalled(step, session.suite, installed)
        except OSError as error:
            number = error.errno or errno.EIO
            if number == errno.ENOTCONN:
                raise PeerLeft(
                    "closed-after-handshake",
                    "expected a connection that outlasts the handshake, found that the peer, or "
                    "the kernel, closed it as soon as the handshake was over",
                ) from error
            raise SessionUnusable(
                "ktls-refused",
                f"expected the kernel to take {session.suite.name} by {step}, found "
                f"{errno.errorcode.get(number, number)}: {_ADVICE.get(number, error.strerror)}",
            ) from error


def _requireInstalled(step: str, suite: CipherSuite, installed: bytes) -> None:
    """Believe in kTLS only what the kernel itself says."""
    if installed != HEADER.pack(TLS_1_3, suite.cipher):
        raise SessionUnusable(
            "ktls-mismatch",
            f"expected {step} with TLS 1.3 and cipher {suite.cipher}, found {installed.hex()}",
        )


@contextmanager
def _loopbackConnection() -> Iterator[socket.socket]:
    """Connect a TCP socket to one of our own, for the time of a trial."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _address = listener.accept()
        with near, far:
            yield near


def _trialSession(suite: CipherSuite) -> EstablishedSession:
    """Make a session of zeros, which no peer has."""
    direction = Direction(TrafficKeys(bytes(suite.keyLength), bytes(IV_LENGTH)), 0)
    return EstablishedSession(suite, None, (), transmit=direction, receive=direction)
