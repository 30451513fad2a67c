"""
The template of the workers: a process forked off before anything has begun, which
does nothing but fork workers.  They share the memory of all that was imported, start
in no time, and inherit neither threads nor a reactor that runs nor anybody's keys.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ktlsagent.lean import settle

_MESSAGE_SIZE = 64
_IGNORED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT),
    *(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
)
"""What ends, reloads or rotates the parent may be sent to all; they obey only the parent."""

Run = Callable[[int, int], object]
"""What a worker does, given the descriptors of its channel and of READY."""


@implementer(IReadDescriptor)
class Template:
    """The parent's end of the template."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - it has no type
        run: Run,
        ended: Callable[[int, int], None],
        lost: Callable[[], None],
    ) -> None:
        """
        @param reactor: the parent's reactor.
        @param run: what each worker does.
        @param ended: told a worker's number and how it ended, as C{waitpid} says it.
        @param lost: told once if the template itself has ended.
        """
        self._reactor = reactor
        self._run = run
        self._ended = ended
        self._lost = lost
        self._control: socket.socket | None = None
        self._pid = 0

    def start(self) -> None:
        """
        Fork it off.  There must be no other thread yet.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _template(far, self._run)
        far.close()
        near.setblocking(False)
        self._control = near
        self._reactor.addReader(self)

    def spawn(self, number: int, protocol: Protocol, ready: int) -> None:
        """
        Start a worker.

        @param number: what it is called in C{ended}; never used again.
        @param protocol: gets the channel to it.
        @param ready: the descriptor of READY, which it gets a copy of.
        @raise OSError: if there are no descriptors or the template has gone.
        """
        if self._control is None:
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        near, far = socket.socketpair()
        with near, far:
            socket.send_fds(self._control, [str(number).encode()], [far.fileno(), ready])
            near.setblocking(False)
            factory = Factory.forProtocol(lambda: protocol)
            self._reactor.adoptStreamConnection(near.fileno(), socket.AF_UNIX, factory)

    def stop(self) -> None:
        """End it; its workers are not affected."""
        if self._control is not None:
            self._reactor.removeReader(self)
            self._control.close()
            self._control = None
            os.waitpid(self._pid, 0)

    def fileno(self) -> int:
        """See L{IReadDescriptor}."""
        return -1 if self._control is None else self._control.fileno()

    def logPrefix(self) -> str:
        """See L{IReadDescriptor}."""
        return "template"

    def doRead(self) -> None:
        """A worker has ended, or the template."""
        try:
            data = self._control.recv(_MESSAGE_SIZE) if self._control is not None else b""
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.stop()
            self._lost()
            return
        number, status = data.split()
        self._ended(int(number), int(status))

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        """See L{IReadDescriptor}."""
        self.stop()
        self._lost()


def _template(control: socket.socket, run: Run) -> NoReturn:
    """Be the template until the parent has gone."""
    status = 1
    try:
        _letGo(control.fileno())
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        # What is here for good is not to be touched, and so copied, in every worker.
        settle()
        _serve(control, run)
        status = 0
    except BaseException:  # noqa: BLE001 - nothing of the parent's may run here
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def _letGo(kept: int) -> None:
    """
    Hold nothing open that is the parent's.  What was open stays so in name
    only: objects that close it later must not hit another's descriptor.
    """
    signal.set_wakeup_fd(-1)
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, kept, null):
            with suppress(OSError):
                os.fstat(int(name))
                os.dup2(null, int(name), inheritable=False)
    os.close(null)


def _serve(control: socket.socket, run: Run) -> None:
    """Fork whenever the parent asks for it, and tell how those ended."""
    running: dict[int, bytes] = {}

    def reap(*_ignored: object) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                with suppress(OSError):
                    control.send(running.pop(pid) + b" %d" % status)

    signal.signal(signal.SIGCHLD, reap)
    while True:
        try:
            data, descriptors, _flags, _address = socket.recv_fds(control, _MESSAGE_SIZE, 2)
        except ConnectionResetError:
            # The parent has gone without having heard of the last deaths.
            data = b""
        if not data:
            return
        # Nothing is reaped before it is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            control.close()
            run(*descriptors)
            return
        running[pid] = data
        for descriptor in descriptors:
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
