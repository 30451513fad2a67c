"""A reactor whose turns are as unlucky as a seed makes them."""

from __future__ import annotations

import select
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from ktlsagent.sockets import UpcallTransport
from tests.simulation.choices import Choices
from tests.support.reactor import TurnReactor

_DISCONNECTED = select.POLLHUP | select.POLLERR | select.POLLNVAL
"""What a reactor takes for the end of a connection if nothing can be read any more."""

_LONGEST_TURN_SECONDS = 0.2
"""How much time passes inside a turn at the most: less than the margin before a deadline."""


class RandomReactor(TurnReactor):
    """
    A reactor that serves what is ready in any order, tells of ends and errors as a
    polling reactor does, and lets time pass while it works.

    @ivar escaped: the exceptions that left a call or a descriptor.
    """

    def __init__(self, choices: Choices) -> None:
        """
        @param choices: the schedule's.
        """
        super().__init__()
        self.escaped: list[Failure] = []
        self._choices = choices

    def nextCall(self) -> float | None:
        """
        Find out when the next delayed call is due.

        @return: the time; C{None} if there is none.
        """
        return min((call.getTime() for call in self.getDelayedCalls()), default=None)

    def ready(self) -> bool:
        """
        Say whether a descriptor is ready, so that a reactor would not wait.

        @return: whether there is one.
        """
        return bool(self._poll())

    def turn(self, seconds: float = 0.0) -> bool:
        """See L{TurnReactor.turn}."""
        self.rightNow += seconds
        latest = self.rightNow + _LONGEST_TURN_SECONDS
        due = [call for call in self.calls if call.getTime() <= self.rightNow]
        for call in sorted(self._choices.shuffled(due), key=lambda call: call.getTime()):
            if call.active():
                self.calls.remove(call)
                call.called = 1
                try:
                    call.func(*call.args, **call.kw)
                except Exception:  # noqa: BLE001 - a reactor logs it and goes on
                    self.escaped.append(Failure())
                self._passTime(latest)
        events = self._poll()
        self._serveAll(events, latest)
        return bool(due or events)

    def _serveAll(self, events: list[tuple[int, int]], latest: float) -> None:
        # Not in turn: that frame is kept by exceptions that some versions of Twisted hold.
        for descriptor, event in self._choices.shuffled(events):
            for selectable in self._waiting(descriptor):
                self._serve(selectable, event)
                self._passTime(latest)

    def _passTime(self, latest: float) -> None:
        if self._choices.fails("slow turn"):
            self.rightNow = min(latest, self.rightNow + self._choices.seconds(0.1))

    def _poll(self) -> list[tuple[int, int]]:
        """Ask what is ready, without waiting."""
        wanted: dict[int, int] = {}
        for reader in self.readers:
            wanted[reader.fileno()] = wanted.get(reader.fileno(), 0) | select.POLLIN
        for writer in self.writers:
            wanted[writer.fileno()] = wanted.get(writer.fileno(), 0) | select.POLLOUT
        poll = select.poll()
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        return poll.poll(0)

    def _waiting(self, descriptor: int) -> list[Any]:
        """Find who waits for a descriptor: it may be somebody else by now, or nobody."""
        found: list[Any] = []
        for selectable in (*self.readers, *self.writers):
            if selectable.fileno() == descriptor and selectable not in found:
                found.append(selectable)
        return found

    def _serve(self, selectable: Any, event: int) -> None:
        """Do what C{PosixReactorBase} does about an event."""
        why: BaseException | None = None
        if event & _DISCONNECTED and not event & select.POLLIN:
            why = ConnectionLost()
        else:
            try:
                if isinstance(selectable, UpcallTransport) and self._choices.fails("doRead"):
                    raise MemoryError  # noqa: TRY301 - as anything in it may
                if event & select.POLLIN and selectable in self.readers:
                    selectable.doRead()
                if event & select.POLLOUT and selectable in self.writers:
                    selectable.doWrite()
            except MemoryError as error:
                why = error
            except Exception as error:  # noqa: BLE001 - a reactor logs it and disconnects
                self.escaped.append(Failure())
                why = error
        if why is not None:
            self.removeReader(selectable)
            self.removeWriter(selectable)
            selectable.connectionLost(Failure(why))
            # Its traceback has this frame, which would keep it and all that it knows.
            why = None
