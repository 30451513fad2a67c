"""READY, the kernel's word that a request waits, as one process reads it, and who forges it."""

from __future__ import annotations

from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ktlsagent.interfaces import IAnnouncements, IHandshakeKernel
from ktlsagent.seldom import Seldom

MOST_PENDING: Final = 50
"""How many requests the kernel holds at the most (C{hn_pending_max})."""


@implementer(IAnnouncements)
class Ready:
    """The announcements of a process that serves all requests itself."""

    log = Logger()

    def __init__(self, clock: IReactorTime, kernel: IHandshakeKernel) -> None:
        """
        @param clock: the reactor.
        @param kernel: where READY comes from.
        """
        self._kernel = kernel
        self._seldom = Seldom(clock, self.log)
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
        return None if self.read() != 0 or missed else 0

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
