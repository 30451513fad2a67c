"""A generic netlink socket, a new one or one that another process has opened, and its reader."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ktlsagent.interfaces import INetlinkSocket

NETLINK_GENERIC = 16
"""The netlink protocol of all families that have no number of their own."""

KERNEL = 0
"""The kernel's netlink port, which no process can have."""

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
    """
    A real generic netlink socket, by default a new one of the current network namespace.

    It is connected to the kernel, which then refuses what another process sends to its
    port (C{netlink_getsockbyportid} in C{net/netlink/af_netlink.c}): nobody can fill the
    buffer that an answer needs.  What is sent to a multicast group still comes.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """
        @param descriptor: an open socket's, which is ours from now on.
        @raise OSError: if there is none to be had, or it is another kind of socket.
        """
        if descriptor is not None:
            self._socket = _inherited(descriptor)
            self._socket.connect((KERNEL, 0))
            return
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            NETLINK_GENERIC,
        )
        # This gives it a port as well.
        self._socket.connect((KERNEL, 0))
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)

    def fileno(self) -> int:
        """See L{INetlinkSocket}."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """See L{INetlinkSocket}."""
        self._socket.send(data)

    def receive(self) -> tuple[bytes, int]:
        """See L{INetlinkSocket}."""
        data, (sender, _groups) = self._socket.recvfrom(_RECEIVE_SIZE)
        return data, sender

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


@implementer(IReadDescriptor)
class NetlinkReader:
    """Tells when something comes on a netlink socket, or if nothing can any more."""

    def __init__(
        self, descriptor: int, readable: Callable[[], None], lost: Callable[[Failure], None]
    ) -> None:
        """
        @param descriptor: the socket's.
        @param readable: called whenever something has come.
        @param lost: told why the reactor does not wait for it any more.
        """
        self._descriptor = descriptor
        self._readable = readable
        self._lost = lost

    def fileno(self) -> int:
        """See L{IReadDescriptor}."""
        return self._descriptor

    def logPrefix(self) -> str:
        """See L{IReadDescriptor}."""
        return "netlink"

    def doRead(self) -> None:
        """See L{IReadDescriptor}."""
        self._readable()

    def connectionLost(self, reason: Failure) -> None:
        """See L{IReadDescriptor}."""
        self._lost(reason)


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
