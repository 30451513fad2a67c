"""READY, the kernel's word that a request waits, as one process reads it, and who forges it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ktlsagent.interfaces import IAnnouncements, IHandshakeKernel
from ktlsagent.seldom import Seldom

MOST_PENDING: Final = 50
"""How many requests the kernel holds at the most (C{hn_pending_max})."""


class ReadyTimes:
    """
    When requests were announced: the kernel counts their time from READY, but does not
    say in the reply to ACCEPT which READY was theirs.

    These are the times of those announcements whose requests nobody has been seen to take, the
    oldest first: in that order the kernel hands the requests over.  Some have been
    taken by others, or given up; so a time is never too late, but may be too early.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MOST_PENDING)

    def read(self, number: int, now: float) -> None:
        """
        Note announcements that have been read.

        @param number: how many.
        @param now: the time.
        """
        self._times.extend([now] * min(number, MOST_PENDING))

    def take(self, patience: float, now: float) -> float | None:
        """
        Say when a request was announced that has just been taken.

        @param patience: for how many seconds it is pending at the most: what was announced
            longer ago is not this one.
        @param now: the time.
        @return: the time of its announcement; C{None} if that is not known.
        """
        while self._times:
            announced = self._times.popleft()
            if announced + patience > now:
                return announced
        return None

    def keep(self, number: int) -> None:
        """
        Forget the oldest: no more are pending than that.

        @param number: how many.
        """
        while len(self._times) > number:
            self._times.popleft()

    def pending(self) -> Sequence[float]:
        """
        Say when those were announced that nobody has taken.

        @return: the times, the oldest first; they are not to be changed.
        """
        return self._times

    def clear(self) -> None:
        """Nothing is pending: whatever was announced has been taken or given up."""
        self._times.clear()


@implementer(IAnnouncements)
class Ready:
    """The announcements of a process that serves all requests itself."""

    log = Logger()

    def __init__(self, clock: IReactorTime, kernel: IHandshakeKernel) -> None:
        """
        @param clock: the reactor.
        @param kernel: where READY comes from.
        """
        self._clock = clock
        self._kernel = kernel
        self._seldom = Seldom(clock, self.log)
        self._times = ReadyTimes()
        self._missed = False

    def begin(self) -> None:
        """See L{IAnnouncements}."""
        self._kernel.listen()

    def fileno(self) -> int:
        """See L{IAnnouncements}."""
        return self._kernel.fileno()

    def heard(self) -> None:
        """See L{IAnnouncements}: L{due} reads it."""

    def due(self) -> int | None:
        """See L{IAnnouncements}.  One READY is reason enough to ask until nothing is pending."""
        missed, self._missed = self._missed, False
        announced = self.read()
        self._times.read(announced or 0, self._clock.seconds())
        return None if announced != 0 or missed else 0

    def announced(self, patience: float) -> float | None:
        """See L{IAnnouncements}."""
        return self._times.take(patience, self._clock.seconds())

    def read(self) -> int | None:
        """
        Read all that has come.

        @return: how many requests were announced; C{None} if nobody knows.
        @raise NetlinkError: if the socket is of no use any more.
        """
        announced = self._kernel.readReady()
        if announced is None:
            self._seldom.warn(
                "READY notifications were lost (ENOBUFS): more requests came at once than the "
                "socket holds; whatever is pending is taken all the same, but requests may "
                "have been refused; if this comes again, give the agent more of the processor"
            )
        return announced

    def settled(self, left: int) -> None:
        """See L{IAnnouncements}: there is nobody else to ask for what is left."""
        if not left:
            self._times.clear()

    def room(self) -> None:
        """See L{IAnnouncements}."""
        self._missed = True

    def load(self, inFlight: int, latest: float, *, busy: bool, crowded: bool) -> None:
        """See L{IAnnouncements}: it makes no difference."""

    def end(self) -> None:
        """See L{IAnnouncements}."""


class ForeignSenders:
    """Says it if others than the kernel send netlink messages."""

    log = Logger()

    def __init__(self, clock: IReactorTime, kernel: IHandshakeKernel) -> None:
        """
        @param clock: the reactor.
        @param kernel: counts them.
        """
        self._kernel = kernel
        self._seldom = Seldom(clock, self.log)
        self._told = 0

    def tell(self) -> None:
        """Say it if there are more than before."""
        if self._kernel.foreign != self._told:
            self._told = self._kernel.foreign
            self._seldom.warn(
                "dropped netlink messages that are not the kernel's, {count} so far, the last one "
                "from port {port} (mostly a process id): somebody who may administer this "
                "network namespace sends them; look for that process",
                count=self._told,
                port=self._kernel.foreigner,
            )
