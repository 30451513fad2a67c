"""
The template of the workers: a process forked off when all files have been read, and
before anything else has begun, which does nothing but fork workers.  They share the
memory of all that was imported and read, start in no time, and inherit neither threads
nor a reactor that runs nor anything of a peer.

If it is lost, a program of its own takes its place: by then the parent has threads,
and what they had locked would stay so in a fork.  Its workers go on; new ones read the
files themselves.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any, Final, NoReturn
from typing import Protocol as Structural

from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from ktlsagent import coredumps
from ktlsagent.lean import settle

_ANEW: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ktlsagent import lean; lean.begin(); "
    "from ktlsagent.processes import template; template.be(*sys.argv[2:])"
)

_REAP_SECONDS: Final = 0.05
_MOST_DESCRIPTORS: Final = 8
_MESSAGE_SIZE = 64
_IGNORED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT),
    *(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
)
"""What ends, reloads or rotates the parent may be sent to all; they obey only the parent."""

Run = Callable[..., object]
"""
What a worker does, given the descriptor of its channel, and others; and by the name
C{inherited} what it has of the parent, if there is anything.
"""


class ITemplate(Structural):
    """What L{Template} is to those who want workers."""

    def start(self, output: int | None, inherited: object) -> None:
        """Fork it off."""

    def startAnew(self, output: int | None) -> None:
        """Start it again, as a program of its own."""

    def spawn(self, number: int, protocol: Any, descriptors: Sequence[int]) -> None:  # noqa: ANN401
        """Start a worker."""

    def stop(self) -> None:
        """End it."""


@implementer(IReadDescriptor)
class Template:
    """The parent's end of the template."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - it has no type
        run: Run,
        ended: Callable[[int, int], None],
        failed: Callable[[int, OSError], None],
        lost: Callable[[], None],
    ) -> None:
        """
        @param reactor: the parent's reactor.
        @param run: what each worker does; a function of a module.
        @param ended: told a worker's number and how it ended, as C{waitpid} says it.
        @param failed: told a worker's number and why there is none.
        @param lost: told if the template itself has ended, and has to be started anew.
        """
        self._reactor = reactor
        self._run = run
        self._ended = ended
        self._failed = failed
        self._lost = lost
        self._control: socket.socket | None = None

    def start(self, output: int | None = None, inherited: object = None) -> None:
        """
        Fork it off.  There must be no other thread yet.

        @param output: what is the workers' standard output, if not ours.
        @param inherited: what all workers get without a copy.
        @raise OSError: if there can be no process.
        """
        # A program that has replaced itself may not have waited for its own one.
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        with far:
            try:
                pid = os.fork()
            except OSError:
                near.close()
                raise
            if pid == 0:
                if output is not None:
                    os.dup2(output, 1)
                _template(far, partial(self._run, inherited=inherited), forked=True)
        self._use(near, pid)

    def startAnew(self, output: int | None = None) -> None:
        """
        Start it as a program of its own.

        @param output: as in L{start}.
        @raise OSError: if there can be no process.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        where = (str(far.fileno()), self._run.__module__, self._run.__name__)
        with far:
            try:
                process = subprocess.Popen(  # noqa: S603 - it is this program
                    [sys.executable, "-P", "-c", _ANEW, json.dumps(sys.path), *where],
                    stdout=output,
                    pass_fds=[far.fileno()],
                )
            except OSError:
                near.close()
                raise
        # It is waited for here.
        process.returncode = 0
        self._use(near, process.pid)

    def _use(self, control: socket.socket, pid: int) -> None:
        control.setblocking(False)
        self._control = control
        self._pid = pid
        self._reactor.addReader(self)

    def spawn(self, number: int, protocol: Protocol, descriptors: Sequence[int]) -> None:
        """
        Start a worker.

        @param number: what it is called in C{ended} and C{failed}; never used again.
        @param protocol: gets the channel to it; its end tells that of the worker, too.
        @param descriptors: what it gets copies of.
        @raise OSError: if there are no descriptors or the template has gone.
        """
        if self._control is None:
            raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            factory = Factory.forProtocol(lambda: protocol)
            # Last comes what cannot be undone.  If it fails, the channel is closed with this end.
            self._reactor.adoptStreamConnection(near.fileno(), socket.AF_UNIX, factory)
            passed = [far.fileno(), *descriptors]
            socket.send_fds(self._control, [str(number).encode()], passed)

    def stop(self) -> None:
        """End it, whatever it does; its workers are not affected."""
        if self._control is not None:
            self._reactor.removeReader(self)
            self._control.close()
            self._control = None
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._reap(self._pid)

    def _reap(self, pid: int) -> None:
        """Wait for its end, but do nothing else than wait."""
        with suppress(ChildProcessError):
            if not os.waitpid(pid, os.WNOHANG)[0]:
                self._reactor.callLater(_REAP_SECONDS, self._reap, pid)

    def fileno(self) -> int:
        """See L{IReadDescriptor}."""
        return -1 if self._control is None else self._control.fileno()

    def logPrefix(self) -> str:
        """See L{IReadDescriptor}."""
        return "template"

    def doRead(self) -> None:
        """A worker has ended or cannot be started, or the template has ended."""
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
        word, number, value = data.split()
        if word == b"ended":
            self._ended(int(number), int(value))
        else:
            self._failed(int(number), OSError(int(value), os.strerror(int(value))))

    def connectionLost(self, reason: Failure) -> None:  # noqa: ARG002
        """See L{IReadDescriptor}."""
        self.stop()
        self._lost()


def be(control: str, module: str, name: str) -> NoReturn:
    """
    Be the template, in a program of its own.

    @param control: the descriptor of the socket to the parent.
    @param module: where the function is that a worker runs.
    @param name: its name.
    """
    coredumps.forbid()
    run = getattr(import_module(module), name)
    _template(socket.socket(fileno=int(control)), run, forked=False)


def _template(control: socket.socket, run: Run, *, forked: bool) -> NoReturn:
    """Be the template until the parent has gone."""
    status = 1
    try:
        if forked:
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

    def tell(word: bytes, number: bytes, value: int) -> None:
        with suppress(OSError):
            control.send(b"%s %s %d" % (word, number, value))

    def reap(*_ignored: object) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                tell(b"ended", running.pop(pid), status)

    signal.signal(signal.SIGCHLD, reap)
    while (asked := _receive(control)) is not None:
        number, descriptors, flags = asked
        # Nothing is reaped before it is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        try:
            pid = _fork(complete=not flags & socket.MSG_CTRUNC)
        except OSError as error:
            tell(b"failed", number, error.errno or errno.EAGAIN)
        else:
            if pid == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
                control.close()
                run(*descriptors)
                return
            running[pid] = number
        for descriptor in descriptors:
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _receive(control: socket.socket) -> tuple[bytes, list[int], int] | None:
    """Wait for the parent to ask for a worker; C{None} if it has gone."""
    try:
        number, passed, flags, _address = socket.recv_fds(control, _MESSAGE_SIZE, _MOST_DESCRIPTORS)
    except ConnectionResetError:
        # It has gone without having heard of the last deaths.
        return None
    return (number, passed, flags) if number else None


def _fork(*, complete: bool) -> int:
    """Fork a worker, if its descriptors have come: there may be no room for them here."""
    if not complete:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return os.fork()
