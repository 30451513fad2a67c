"""
A connected socket that refuses what a seed makes it refuse, and kTLS on it: a double
of each step of L{ktlsagent.ktls.KernelTLS}.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import Any

from tests.simulation.choices import Choices
from tests.support.modelktls import ModelDirection

TCP_ULP = 31
SOL_TLS = 282
TLS_TX = 1
TLS_RX = 2
"""C{include/uapi/linux/tcp.h} and C{tls.h}."""

_TCP_ESTABLISHED = 1

Identity = tuple[int, int]
"""Device and inode of a socket."""


@dataclass
class KernelSide:
    """
    What the kernel knows of TLS on one socket.

    @ivar transmit: the keys for sending, once they are installed.
    @ivar receive: the keys for receiving, once they are installed.
    """

    transmit: ModelDirection | None = None
    receive: ModelDirection | None = None


class KernelSides:
    """kTLS of all sockets, by their identity."""

    def __init__(self) -> None:
        self._sides: dict[Identity, KernelSide] = {}

    def find(self, identity: Identity) -> KernelSide | None:
        """
        Find a socket's.

        @param identity: the socket.
        @return: what is known; C{None} without the upper layer protocol C{tls}.
        """
        return self._sides.get(identity)

    def attach(self, identity: Identity) -> None:
        """
        Attach the upper layer protocol C{tls} to a socket.

        @param identity: the socket.
        @raise OSError: if that was done before.
        """
        if identity in self._sides:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._sides[identity] = KernelSide()


class ScriptedSocket(socket.socket):
    """A socket of a request, in the hands of a schedule."""

    def __init__(self, descriptor: int, choices: Choices, sides: KernelSides) -> None:
        """
        @param descriptor: an open socket's; it becomes this object's.
        @param choices: the schedule's.
        @param sides: where kTLS is kept.
        """
        super().__init__(type=socket.SOCK_STREAM, fileno=descriptor)
        self._choices = choices
        self._sides = sides
        self._infos: dict[int, bytes] = {}

    def send(self, data: Any, flags: int = 0, /) -> int:
        self._perhaps("send", errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS)
        if self._choices.fails("send later"):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if self._choices.fails("short send"):
            data = data[: self._choices.number(1, len(data))]
        return super().send(data, flags)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        self._perhaps("recv", errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENOMEM)
        if self._choices.fails("recv later"):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if self._choices.fails("short recv"):
            size = self._choices.number(1, size)
        return super().recv(size, flags)

    def setsockopt(self, level: int, option: int, value: Any, /) -> None:  # type: ignore[override]
        if (level, option) == (socket.IPPROTO_TCP, TCP_ULP):
            self._perhaps("TCP_ULP", errno.ENOENT, errno.ENOMEM)
            if super().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_ESTABLISHED:
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            self._sides.attach(self._identity())
        elif level == SOL_TLS:
            side = self._side()
            if option == TLS_TX:
                self._perhaps("TLS_TX", errno.EINVAL, errno.ENOMEM)
                side.transmit = ModelDirection(value)
            elif option == TLS_RX:
                self._perhaps("TLS_RX", errno.EINVAL, errno.ENOMEM)
                side.receive = ModelDirection(value)
            else:
                raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
            self._infos[option] = bytes(value)
        else:
            self._perhaps("setsockopt", errno.ENOBUFS, errno.EINVAL)
            super().setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, size: int = 0, /) -> Any:
        if level == SOL_TLS:
            self._side()
            self._perhaps("getsockopt TLS", errno.EBUSY, errno.EINVAL)
            if self._choices.fails("other TLS"):
                return bytes(size)
            return self._infos[option][:size]
        self._perhaps("getsockopt", errno.ENOBUFS)
        return (
            super().getsockopt(level, option, size) if size else super().getsockopt(level, option)
        )

    def _identity(self) -> Identity:
        status = os.fstat(self.fileno())
        return status.st_dev, status.st_ino

    def _side(self) -> KernelSide:
        side = self._sides.find(self._identity())
        if side is None:
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
        return side

    def _perhaps(self, kind: str, *numbers: int) -> None:
        """Fail, if that is what happens now."""
        if self._choices.fails(kind):
            number = self._choices.one(numbers)
            raise OSError(number, os.strerror(number))
