"""A generic netlink socket: a new one, or one that another process has opened."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from contextlib import suppress

from zope.interface import implementer

from ktlsagent.interfaces import INetlinkSocket

NETLINK_GENERIC = 16
"""The netlink protocol of all families that have no number of their own."""

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_LIST_MEMBERSHIPS = 9
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_SO_RCVBUFFORCE = 33
_SO_NETNS_COOKIE = 71
_COOKIE_SIZE = 8
_MEMBERSHIPS_SIZE = 1024
_READY_BUFFER = 4 * 2**20
_RECEIVE_SIZE = 2**16


@implementer(INetlinkSocket)
class NetlinkSocket:
    """A real generic netlink socket, by default a new one of the current network namespace."""

    def __init__(self, descriptor: int | None = None) -> None:
        """
        @param descriptor: an open socket's, which is ours from now on.
        @raise OSError: if there is none to be had, or it is another kind of socket.
        """
        if descriptor is not None:
            self._socket = _inherited(descriptor)
            return
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            NETLINK_GENERIC,
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)

    def fileno(self) -> int:
        """See L{INetlinkSocket}."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """See L{INetlinkSocket}."""
        self._socket.send(data)

    def receive(self) -> bytes:
        """See L{INetlinkSocket}."""
        return self._socket.recv(_RECEIVE_SIZE)

    def join(self, group: int) -> None:
        """See L{INetlinkSocket}.  The receive buffer is made large first."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _READY_BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _READY_BUFFER)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def groups(self) -> frozenset[int]:
        """See L{INetlinkSocket}."""
        data = self._socket.getsockopt(_SOL_NETLINK, _NETLINK_LIST_MEMBERSHIPS, _MEMBERSHIPS_SIZE)
        words = struct.unpack(f"={len(data) // 4}I", data)
        return frozenset(
            32 * at + bit + 1
            for at, word in enumerate(words)
            for bit in range(32)
            if word >> bit & 1
        )

    def namespace(self) -> int:
        """See L{INetlinkSocket}."""
        data = self._socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, _COOKIE_SIZE)
        return int.from_bytes(data, sys.byteorder)

    def portId(self) -> int:
        """See L{INetlinkSocket}."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        """See L{INetlinkSocket}."""
        self._socket.close()


def _inherited(descriptor: int) -> socket.socket:
    """Make a socket of a descriptor that another process has opened."""
    try:
        inherited = socket.socket(fileno=descriptor)
    except OSError:
        with suppress(OSError):
            os.close(descriptor)
        raise
    if (inherited.family, inherited.proto) != (socket.AF_NETLINK, NETLINK_GENERIC):
        inherited.close()
        raise OSError(errno.EPROTONOSUPPORT, "not a generic netlink socket")
    inherited.setblocking(False)
    inherited.set_inheritable(False)
    return inherited
