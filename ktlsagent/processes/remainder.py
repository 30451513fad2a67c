"""
The remainder: a process that is forked off when the program ends, and finishes
what is in flight, so that nobody who comes after has to wait for it.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from contextlib import suppress
from typing import Any

_SPARE_SECONDS = 5
"""How much longer than it has to a remainder may take before it is ended by force."""

_OTHERS: list[object] = []
"""What is the remainder's from now on; it must not be finalized here, too."""


def forkOff(reactor: Any, seconds: float) -> bool:  # noqa: ANN401 - it has no type
    """
    Fork, and leave all that the reactor waits for to the new process, which is
    nobody's child that somebody would have to wait for.

    The one that returns false has nothing left but to end, and must not by
    clearing up.  There must be no thread that is needed any more.

    @param reactor: the reactor, which does not run anything until this returns.
    @param seconds: for how long there is something to wait for at the most.
    @return: whether this is the new process.
    @raise OSError: if there cannot be one; all is as before then.
    """
    readers, writers = reactor.getReaders(), reactor.getWriters()
    # The two share what the kernel waits with (epoll): what the one removes
    # later is removed for the other, too.
    reactor.removeAll()
    try:
        new = _fork(math.ceil(seconds) + _SPARE_SECONDS)
    except OSError:
        _wait(reactor, readers, writers)
        raise
    if new:
        _wait(reactor, readers, writers)
    else:
        _OTHERS.extend((*readers, *writers))
    return new


def _fork(seconds: int) -> bool:
    """Fork twice: whoever adopts the second one waits for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        status = 0
        # Nobody has to be waited for if whoever started us has SIGCHLD ignored.
        with suppress(ChildProcessError):
            _pid, status = os.waitpid(child, 0)
        if status:
            error = os.waitstatus_to_exitcode(status)
            raise OSError(error, os.strerror(error))
        return False
    _endFirst()
    # Whatever may go wrong in a copy of a process, it does not stay for ever.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    return True


def _endFirst() -> None:
    """Fork once more, and return in the child only."""
    status = 0
    try:
        child = os.fork()
    except OSError as error:
        status = error.errno or 1
    else:
        if not child:
            return
    os._exit(status)


def _wait(reactor: Any, readers: list[Any], writers: list[Any]) -> None:  # noqa: ANN401
    """Have the reactor wait for all again."""
    for reader in readers:
        reactor.addReader(reader)
    for writer in writers:
        reactor.addWriter(writer)
