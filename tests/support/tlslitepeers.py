"""
Peers with pre-shared keys that share no code with OpenSSL: tlslite-ng, over memory.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.errors import TLSError

_WANTS_READ = 0

TicketKey = bytes
"""What a server of tlslite-ng encrypts its tickets with."""


class _Memory:
    """What looks like a socket that does not block."""

    def __init__(self) -> None:
        self.incoming = b""
        self.outgoing = b""

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise OSError(errno.EWOULDBLOCK, "nothing there")
        taken, self.incoming = self.incoming[:size], self.incoming[size:]
        return taken

    def send(self, data: bytes) -> int:
        self.outgoing += bytes(data)
        return len(data)

    def sendall(self, data: bytes) -> None:
        self.outgoing += bytes(data)

    def close(self) -> None:
        """There is nothing to close."""

    def getsockname(self) -> tuple[str, int]:
        raise OSError(errno.ENOTSOCK, "no socket")

    def setsockopt(self, *arguments: Any) -> None:
        raise OSError(errno.ENOTSOCK, "no socket")

    def fileno(self) -> int:
        raise OSError(errno.ENOTSOCK, "no socket")

    family = socket.AF_INET


class TlslitePeer:
    """
    A peer made of tlslite-ng.

    @ivar complete: whether its handshake is.
    @ivar error: why its handshake failed, if it did.
    """

    def __init__(
        self,
        role: str,
        keys: Sequence[tuple[bytes, bytes, str]] = (),
        *,
        suites: Sequence[str] = ("aes256gcm", "aes128gcm", "chacha20-poly1305", "aes128ccm"),
        groups: Sequence[str] = ("x25519", "secp256r1", "secp384r1"),
        shares: Sequence[str] = ("x25519", "secp256r1"),
        modes: Sequence[str] = ("psk_dhe_ke",),
        tickets: TicketKey | None = None,
    ) -> None:
        """
        @param role: C{client} or C{server}.
        @param keys: the identity, key and hash of each pre-shared key.
        @param suites: its cipher suites, in its own words.
        @param groups: its groups.
        @param shares: the groups for which a client sends a key share.
        @param modes: its modes of pre-shared keys.
        @param tickets: a server's key for tickets, if it sends any.
        """
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = (3, 4)
        settings.cipherNames = list(suites)
        settings.eccCurves = [group for group in groups if not group.startswith("ff")]
        settings.dhGroups = []
        settings.keyShares = list(shares)
        settings.psk_modes = list(modes)
        settings.pskConfigs = [
            (bytearray(identity), bytearray(key), name) for identity, key, name in keys
        ]
        settings.ticketKeys = [] if tickets is None else [bytearray(tickets)]
        self._memory = _Memory()
        self._tls = TLSConnection(self._memory)
        self._tls.closeSocket = False
        if role == "client":
            steps = self._tls.handshakeClientCert(settings=settings, async_=True)
        else:
            steps = self._tls.handshakeServerAsync(settings=settings)
        self._steps: Iterator[int] = steps
        self.complete = False
        self.error: Exception | None = None

    @property
    def suite(self) -> str:
        """The suite's name, as tlslite-ng spells it."""
        return str(self._tls.getCipherName())

    def feed(self, data: bytes) -> bytes:
        """
        Take octets of the other side.

        @param data: the octets, possibly none.
        @return: what to send.
        """
        self._memory.incoming += data
        try:
            while not self.complete and self.error is None:
                if next(self._steps) == _WANTS_READ:
                    break
        except StopIteration:
            self.complete = True
        except (TLSError, OSError) as error:
            self.error = error
        return self._output()

    def send(self, data: bytes) -> bytes:
        """
        Send application data.

        @param data: the data.
        @return: the records.
        """
        for _step in self._tls.writeAsync(bytearray(data)):
            raise AssertionError("memory never blocks")
        return self._output()

    def receive(self, stream: bytes) -> bytes:
        """
        Read application data.

        @param stream: records.
        @return: the data.
        """
        self._memory.incoming += stream
        for result in self._tls.readAsync():
            if result not in (0, 1):
                return bytes(result)
        return b""

    def _output(self) -> bytes:
        written, self._memory.outgoing = self._memory.outgoing, b""
        return written
