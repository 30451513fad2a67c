"""Peers that speak TLS well, badly, slowly or not at all."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress

from tests.simulation.choices import Choices
from tests.support.agent import Peer

BEHAVIOURS = {
    "good": 8.0,
    "eager": 2.0,
    "slow": 2.0,
    "stalls": 1.0,
    "closes": 1.0,
    "resets": 1.0,
    "babbles": 1.0,
}
"""What a peer does, and how often: all but the first three break the handshake off."""

LASTING = ("good", "eager", "slow")
"""Those that may get a session."""

_BREAK_AFTER = 6
"""How many turns a peer that breaks off has the patience for, at the most."""

_LINGER_NOT = struct.pack("ii", 1, 0)


class RandomPeer(Peer):
    """
    A peer in the hands of a schedule.

    @ivar behaviour: one of L{BEHAVIOURS}.
    @ivar early: what it has sent right behind its last flight.
    """

    def __init__(
        self,
        connection: socket.socket,
        context: ssl.SSLContext,
        choices: Choices,
        *,
        server: bool,
        name: str | None,
    ) -> None:
        """
        @param connection: its end of the connection.
        @param context: its TLS settings.
        @param choices: the schedule's.
        @param server: whether it is the server.
        @param name: the server's name, for a client.
        """
        super().__init__(connection, context, server=server, name=name)
        # What it says early is not to be held back.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.behaviour = choices.weighted(BEHAVIOURS)
        self.early = b""
        self._choices = choices
        self._unsent = b""
        self._patience = choices.number(0, _BREAK_AFTER)

    @property
    def lasting(self) -> bool:
        """Whether it has done all that a good peer does."""
        return self.behaviour in LASTING and self.done and not self._unsent

    def turn(self) -> bool:
        """See L{Peer.turn}."""
        if self._connection.fileno() < 0:
            return False
        if self.behaviour not in LASTING:
            if self._patience == 0:
                return self._break()
            self._patience -= 1
        was = self.done
        busy = False
        with suppress(OSError):
            busy = super().turn()
        if self.done and not was and self.behaviour == "eager" and not self.early:
            # In the same segment as its Finished, if it is a client.
            self.early = b"call " + self._choices.octets(20)
            self.tls.write(self.early)
            self.flush()
        return busy

    def flush(self) -> bytes:
        """See L{Peer.flush}.  A slow one sends a part only."""
        self._unsent += self._outgoing.read()
        part = self._unsent
        if self.behaviour == "slow":
            part = part[: self._choices.number(0, 400)]
        if part:
            try:
                part = part[: self._connection.send(part)]
            except BlockingIOError:
                part = b""
            except OSError:
                self._unsent = part = b""
        self._unsent = self._unsent[len(part) :]
        return part

    def say(self, data: bytes) -> None:
        """
        Send something over the session.

        @param data: what.
        """
        self.tls.write(data)
        self._connection.sendall(self._outgoing.read())

    def listen(self) -> bytes:
        """
        Wait for something that comes over the session.

        @return: what.
        """
        self._connection.settimeout(5.0)
        while True:
            try:
                return self.tls.read(2**14)
            except ssl.SSLWantReadError:
                data = self._connection.recv(2**16)
                if not data:
                    raise ConnectionError("closed") from None
                self._incoming.write(data)

    def _break(self) -> bool:
        """Break off, once."""
        if self.behaviour == "stalls":
            return False
        with suppress(OSError):
            if self.behaviour == "babbles":
                self._connection.send(self._choices.octets(self._choices.number(1, 600)))
            elif self.behaviour == "resets":
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        if self.behaviour == "babbles":
            self.behaviour = "stalls"
        else:
            self._connection.close()
        return True
