"""
The socket for READY, which outlives the process: while it is open somewhere the
kernel has a listener, mounts wait instead of failing, and their hints wait in it.

systemd holds it over a restart or a crash and hands it to the next process.  A
process that replaces itself hands it to itself in the same way.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from twisted.python.systemd import ListenFDs

_NAME = "ready"
_FIRST_DESCRIPTOR = 3
"""C{SD_LISTEN_FDS_START}."""


def inherited() -> int | None:
    """
    Find the socket among what this process was started with, once: the
    environment does not tell it afterwards.

    @return: its descriptor, which the caller owns from now on; C{None} if
        there is none.
    """
    return ListenFDs.fromEnvironment().inheritedNamedDescriptors().get(_NAME)


def hold(descriptor: int) -> None:
    """
    Have systemd hold the socket, in the place of the one that it holds.

    Nobody reads it while it is held, so that it may be full: not being polled
    keeps systemd from taking that for an error.

    @param descriptor: its descriptor.
    @raise OSError: if systemd is there and cannot be told.
    """
    notify("FDSTOREREMOVE=1", f"FDNAME={_NAME}")
    notify("FDSTORE=1", f"FDNAME={_NAME}", "FDPOLL=0", descriptors=[descriptor])


def notify(*assignments: str, descriptors: Sequence[int] = ()) -> None:
    """
    Tell systemd something (C{sd_notify(3)}), if it wants to be told.

    @param assignments: what.
    @param descriptors: what it gets.
    @raise OSError: if it cannot be told at once.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if address is None:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.connect(address)
        if descriptors:
            socket.send_fds(manager, ["\n".join(assignments).encode()], descriptors)
        else:
            manager.send("\n".join(assignments).encode())


def replaceProcess(descriptor: int) -> NoReturn:
    """
    Become a new process of the same command, and with it of whatever is
    installed now.

    @param descriptor: the socket's, which the new one inherits.
    @raise OSError: if that cannot be.
    """
    os.dup2(descriptor, _FIRST_DESCRIPTOR)
    os.set_inheritable(_FIRST_DESCRIPTOR, True)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=_NAME)
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the same one
