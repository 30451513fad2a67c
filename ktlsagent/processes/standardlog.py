"""
The log on standard output: an observer that never blocks and never grows without a
bound, whether anybody reads or not.  Several processes may write to the same one.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEventAsClassicLogText
from zope.interface import implementer

from ktlsagent.texts import cut, printable

Write = Callable[[bytes], int]
"""Writes octets without blocking, and says how many; raises C{OSError} if there is no room."""

Format = Callable[[LogEvent], bytes | None]
"""Turns an event into a line with its end, or C{None} if there is nothing to say."""

LINE: Final = 4096
"""
Octets of a line with its end, C{PIPE_BUF}: so many are written at once or not at all, and
those of several processes do not get between each other (pipe(7)).
"""

MOST_LINES: Final = 10_000
MOST_OCTETS: Final = 2**20
"""What is kept for a reader that is slow."""

_SHORTEST_SECONDS: Final = 0.01
_LONGEST_SECONDS: Final = 0.5
"""How long a reader is waited for; twice as long each time that it has read nothing."""

_FULL: Final = frozenset((errno.EAGAIN, errno.EWOULDBLOCK))
_END: Final = b"..."


@implementer(ILogObserver)
class StandardLog:
    """
    Log observer that writes each event with one system call.  What nobody reads is kept
    up to a bound; what comes after that is dropped and counted, and the count is told at
    its place when there is room again.

    Events may come from any thread, and from a handler of a signal.  After a fork the
    child has nothing to write of what was kept before.
    """

    def __init__(self, reactor: Any, write: Write, form: Format) -> None:  # noqa: ANN401 - no type
        """
        @param reactor: tries again later.
        @param write: writes.
        @param form: makes lines of events.
        """
        self._reactor = reactor
        self._write = write
        self._form = form
        self._lines: deque[bytes] = deque()
        self._octets = 0
        self._dropped = 0
        self._reason = ""
        self._writing = False
        self._waiting = False
        self._delay = _SHORTEST_SECONDS
        self._lock = threading.RLock()
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(reference()))

    def __call__(self, event: LogEvent) -> None:
        """
        Write an event.

        @param event: the event.
        """
        line = self._form(event)
        if line is not None:
            with self._lock:
                self._keep(line)
                self._drain()

    def _keep(self, line: bytes) -> None:
        """Put a line behind those that wait, if there is room for it."""
        if len(self._lines) >= MOST_LINES or self._octets + len(line) > MOST_OCTETS:
            self._dropped += 1
            return
        self._tellDropped()
        self._append(line)

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._octets += len(line)

    def _tellDropped(self) -> None:
        """Say how much is missing here."""
        if self._dropped:
            line = self._form(
                {
                    "log_format": "{count} lines were dropped because {reason}",
                    "log_level": LogLevel.warn,
                    "log_namespace": f"{__name__}.{type(self).__name__}",
                    "log_time": time.time(),
                    "count": self._dropped,
                    "reason": self._reason,
                }
            )
            self._dropped = 0
            if line is not None:
                self._append(line)

    def _drain(self) -> None:
        """Write what there is room for now, and come back for the rest."""
        if self._writing:
            # A signal has come while we were writing; whoever writes goes on with this.
            return
        self._writing = True
        try:
            while self._lines:
                self._take(self._write(self._lines[0]))
                if not self._lines:
                    self._tellDropped()
        except OSError as error:
            self._reason = (
                "nobody read the log"
                if error.errno in _FULL
                else f"the log could not be written: {error.strerror}"
            )
            if not self._waiting:
                self._waiting = True
                self._reactor.callFromThread(self._reactor.callLater, self._delay, self._again)
        finally:
            self._writing = False

    def _take(self, count: int) -> None:
        """Take off what has been written."""
        self._delay = _SHORTEST_SECONDS
        line = self._lines.popleft()
        self._octets -= count
        if count < len(line):
            self._lines.appendleft(line[count:])

    def _again(self) -> None:
        with self._lock:
            self._waiting = False
            self._delay = min(2 * self._delay, _LONGEST_SECONDS)
            self._drain()

    def forget(self) -> None:
        """Keep nothing: this is another process, and what was kept is still the first one's."""
        self._lock = threading.RLock()
        self._writing = False
        self._lines.clear()
        self._octets = self._dropped = 0


def _forget(log: StandardLog | None) -> None:
    if log is not None:
        log.forget()


def standardLog(reactor: Any, form: Format | None = None) -> StandardLog:  # noqa: ANN401 - no type
    """
    Make the observer of a process for its standard output.

    @param reactor: the reactor.
    @param form: makes lines of events, by default for people.
    @return: the observer.
    """
    output = sys.__stdout__
    # Without standard output its number may be that of something else by now.
    write: Write = len if output is None else writerFor(output.fileno())
    return StandardLog(reactor, write, form or asText)


def writerFor(descriptor: int) -> Write:
    """
    Find out how to write to a descriptor without ever blocking.  Its flags stay as they
    are: others, the shell that has started us for one, share them.

    @param descriptor: the descriptor, which stays open.
    @return: what writes to it.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        # It belongs to the observer from here on, the journal's connection as well.
        connection = socket.socket(fileno=os.dup(descriptor))
        return lambda data: connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            # Opened once more, a pipe or a terminal has flags of its own.
            own = os.open(
                f"/proc/self/fd/{descriptor}",
                os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
            )
        except OSError:
            return lambda data: _writeIfReady(descriptor, data)
        return lambda data: os.write(own, data)
    return lambda data: os.write(descriptor, data)


def _writeIfReady(descriptor: int, data: bytes) -> int:
    """
    Write to what may not be opened once more.  A pipe that is ready takes C{PIPE_BUF}
    octets, if nobody else writes in between.
    """
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return os.write(descriptor, data)


def asText(event: LogEvent) -> bytes | None:
    """
    Make a line for people, as Twisted's own observers do; but of what would move a
    cursor or end a line the escapes are left, and of a long one the beginning.

    @param event: the event.
    @return: the line; those that belong to it begin with a tab.
    """
    text = formatEventAsClassicLogText(event)
    if text is None:
        return None
    text = "\n\t".join(printable(line) for line in text.rstrip("\n").split("\n\t"))
    data = text.encode()
    if len(data) >= LINE:
        room = LINE - len(_END) - 1
        data = cut(text, len(data[:room].decode(errors="ignore"))).encode()
    return data + b"\n"
