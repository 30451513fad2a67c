"""
The socket for READY, which outlives the process: while it is open somewhere the
kernel has a listener, mounts wait instead of failing, and their hints wait in it.

systemd holds it over a restart or a crash and hands it to the next process.  A
process that replaces itself hands it to itself in the same way.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.systemd import ListenFDs

_NAME = "ready"
_FIRST_DESCRIPTOR = 3
"""C{SD_LISTEN_FDS_START}."""

_AGAIN_SECONDS = 0.1
"""When a service manager that has its queue full is told again."""


def inherited() -> int | None:
    """
    Find the socket among what this process was started with, once: the
    environment does not tell it afterwards.

    @return: its descriptor, which the caller owns from now on; C{None} if
        there is none.
    """
    return ListenFDs.fromEnvironment().inheritedNamedDescriptors().get(_NAME)


class Manager:
    """What is told to systemd, without ever waiting for it."""

    def __init__(self, reactor: IReactorTime, failed: Callable[[OSError], None]) -> None:
        """
        @param reactor: gives the time.
        @param failed: told why, once, if something could not be told at all.
        """
        self._reactor = reactor
        self._failed = failed
        self._left: deque[Callable[[], None]] = deque()
        self._error: OSError | None = None
        self._call: IDelayedCall | None = None

    def tell(self, descriptor: int) -> None:
        """
        Have the socket held, in the place of the one that is held, and say that the
        service is ready.  While systemd's queue is full that is tried again.

        Nobody reads the socket while it is held, so that it may be full: not being
        polled keeps systemd from taking that for an error.

        @param descriptor: the socket's, which stays open until L{stop}.
        """
        name = f"FDNAME={_NAME}"
        self._left += (
            partial(notify, "FDSTOREREMOVE=1", name),
            partial(notify, "FDSTORE=1", name, "FDPOLL=0", descriptors=[descriptor]),
            partial(notify, "READY=1"),
        )
        self._tellRest()

    def stop(self) -> None:
        """Tell nothing any more."""
        self._left.clear()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _tellRest(self) -> None:
        self._call = None
        while self._left:
            try:
                self._left[0]()
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                    self._call = self._reactor.callLater(_AGAIN_SECONDS, self._tellRest)
                    return
                self._error = self._error or error
            self._left.popleft()
        if self._error is not None:
            self._failed(self._error)
            self._error = None


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


def requireProgram() -> None:
    """
    See whether the program is still there to be started again.

    @raise OSError: if its interpreter is not.
    """
    mode = os.stat(sys.executable).st_mode
    if not stat.S_ISREG(mode) or not os.access(sys.executable, os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), sys.executable)


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
