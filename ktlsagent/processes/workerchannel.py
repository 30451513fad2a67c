"""The parent's end of the channel to a worker, and what the parent knows of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Protocol, cast

from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.python.failure import Failure

from ktlsagent.processes.channel import Channel
from ktlsagent.processes.dispatcher import Dispatcher
from ktlsagent.processes.slot import Slot


class ISupervisor(Protocol):
    """
    Who is told what a worker says.

    @ivar dispatcher: gives requests to workers.
    @ivar output: what is their standard output, if not ours.
    """

    dispatcher: Dispatcher
    output: int | None

    def workerUp(self, channel: WorkerChannel) -> None:
        """It is at work."""

    def workerFailed(self, channel: WorkerChannel) -> None:
        """It cannot start."""

    def workerLoaded(self, channel: WorkerChannel, *, used: bool) -> None:
        """It has read a configuration."""

    def workerRenews(self, channel: WorkerChannel) -> None:
        """It asks for another one in its place."""

    def workerGone(self, channel: WorkerChannel) -> None:
        """It has closed its end."""


class WorkerChannel(Channel):
    """
    The parent's end of a worker's channel.

    @ivar place: which of the workers it is, from 1 on.
    @ivar slot: what it shares with the parent.
    @ivar since: when it was started.
    @ivar pid: its process, once that is known.
    @ivar up: whether it is at work.
    @ivar leaving: whether it is about to end.
    @ivar renewing: whether it has asked for a new one in its place.
    @ivar gone: whether it has closed its end, and so has ended.
    @ivar ending: how it has ended, in words, once that is known.
    @ivar well: whether it has ended as it should.
    """

    def __init__(
        self, supervisor: ISupervisor, place: int, slot: Slot, clock: IReactorTime
    ) -> None:
        """
        @param supervisor: is told of everything.
        @param place: which of the workers it is.
        @param slot: what it shares with the parent.
        @param clock: the reactor.
        """
        self.place = place
        self.slot = slot
        self.since = clock.seconds()
        self.pid: int | None = None
        self.up = self.leaving = self.renewing = self.gone = self.well = False
        self.ending: str | None = None
        self._supervisor = supervisor
        self._clock = clock
        self._limit: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Tell it which one it is, and whether we log for it."""
        relayed = b" relayed" if self._supervisor.output is not None else b""
        self.say("place", b"%d%s" % (self.place, relayed))

    def heard(self, word: str, value: bytes) -> None:
        """
        Hear what the worker says.

        @param word: what about.
        @param value: the rest.
        """
        if word == "pid":
            self.pid = int(value)
        elif word == "up":
            self._supervisor.workerUp(self)
        elif word == "failed":
            self._supervisor.workerFailed(self)
        elif word == "back":
            self._supervisor.dispatcher.back(self.slot)
        elif word == "room":
            self._supervisor.dispatcher.room()
        elif word == "loaded":
            self._supervisor.workerLoaded(self, used=value == b"yes")
        elif word == "renew":
            self._supervisor.workerRenews(self)

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002
        """
        The worker has closed its end, or is dead.

        @param reason: why.
        """
        self._supervisor.workerGone(self)

    def ended(self, status: int) -> None:
        """
        Note how it has ended.

        @param status: as C{waitpid} says it.
        """
        code = os.waitstatus_to_exitcode(status)
        self.well = code == 0
        self.ending = (
            f"ended with status {code}"
            if code >= 0
            else f"was killed by {signal.Signals(-code).name}"
        )

    def limit(
        self, seconds: float = 0, late: Callable[[WorkerChannel], None] | None = None
    ) -> None:
        """
        Set an end to the wait for what comes next, in place of the one before.

        @param seconds: how long it may take.
        @param late: called if it takes longer; C{None}: it may take any time.
        """
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        self._limit = None
        if late is not None:
            self._limit = self._clock.callLater(seconds, late, self)

    def abort(self) -> None:
        """Wait for it no longer, whatever it does."""
        if self.transport is not None:
            cast(ITCPTransport, self.transport).abortConnection()
