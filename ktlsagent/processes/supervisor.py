"""
Keeps workers at work: starts them, and starts others when they die, hang or ask for
it; tells them what to do, and sees them end.  Every wait has an end.

What a dead worker had accepted nobody else can answer; the kernel's own time limit
ends it.  What had not been accepted yet the other workers take.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ktlsagent.config import AgentConfig
from ktlsagent.credentials.contexts import ProfileSet
from ktlsagent.errors import AgentError, StartError
from ktlsagent.processes.backoff import GOOD_SECONDS, BackOff
from ktlsagent.processes.channel import encodeConfig
from ktlsagent.processes.dispatcher import Dispatcher
from ktlsagent.processes.slot import Slot
from ktlsagent.processes.template import ITemplate, Template
from ktlsagent.processes.worker import run
from ktlsagent.processes.workerchannel import WorkerChannel

_ALONE_SECONDS: Final = 30.0
"""
How long mounts may wait for a worker; after that they had better fail at once.  One
that is a program of its own may take 10 s to start where all have to at the same time.
"""

_START_SECONDS: Final = 60.0
"""How long a worker may take to start before another one is tried."""

_STOP_SECONDS: Final = 12.0
"""
How long a worker may take to stop, if no request has a later deadline: as long as a
request of NFS, and some more; it may not even be up.
"""

_SPARE_SECONDS: Final = 2.0
"""How long it may take after its last deadline."""

_LAST_SECONDS: Final = 2.0
"""How long the end of a worker that was killed is waited for, and word of how one ended."""


class Supervisor:
    """
    Keeps a number of workers at work.

    @ivar dispatcher: gives them requests.
    @ivar output: what is their standard output, if not ours.
    """

    log = Logger()

    def __init__(  # noqa: PLR0913 - the seams are for tests
        self,
        reactor: IReactorTime,
        number: int,
        *,
        configFor: Callable[[int], AgentConfig],
        allUp: Callable[[], None],
        giveUp: Callable[[AgentError], None],
        template: Callable[..., ITemplate] = Template,
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        """
        @param reactor: the reactor.
        @param number: how many workers there are to be.
        @param configFor: says what the worker at a place uses.
        @param allUp: called once, when all of them are at work.
        @param giveUp: told why there is no going on; the caller has to call L{stop}.
        @param template: makes what starts workers.
        @param kill: sends a signal.
        """
        self.dispatcher = Dispatcher(reactor, len(os.sched_getaffinity(0)))
        self.output: int | None = None
        self._reactor = reactor
        self._number = number
        self._configFor = configFor
        self._allUp = allUp
        self._giveUp = giveUp
        self._template = template(reactor, run, self._ended, self._failed, self._templateLost)
        self._kill = kill
        self._numbers = count(1)
        self._channels: dict[int, WorkerChannel] = {}
        self._backOff = BackOff(reactor)
        self._calls: set[IDelayedCall] = set()
        self._alone: IDelayedCall | None = None
        self._running = False
        self._wereUp = False
        self._inherited = True
        self._templateSince = 0.0
        self._stopped: Deferred[None] | None = None

    def prepare(self, inherited: ProfileSet | None = None) -> None:
        """
        Make ready to start workers, before there is anything that they must not inherit.

        @param inherited: what is in use, if workers may have it without reading it themselves.
        @raise StartError: if that cannot be.
        """
        self._templateSince = self._reactor.seconds()
        try:
            self._template.start(self.output, inherited)
        except OSError as error:
            raise StartError(
                f"expected to fork a process, found {error}; raise TasksMax or LimitNOFILE"
            ) from error

    def start(self) -> None:
        """Start the workers."""
        self._running = True
        self._reckon()
        for place in range(1, self._number + 1):
            self._spawn(place)

    def reload(self) -> None:
        """Have all workers use what is configured now; they have to read it."""
        self._inherited = False
        for channel in self._channels.values():
            self._load(channel)

    def stop(self) -> Deferred[None]:
        """
        Have all workers finish what they have begun, and end.

        @return: fires when they have ended, or do not even if they are killed.
        """
        self._running = False
        for call in [*self._calls, *filter(None, [self._alone])]:
            call.cancel()
        self._calls.clear()
        self._alone = None
        self.dispatcher.stop()
        # It has nothing to do any more.
        self._template.stop()
        for channel in [*self._channels.values()]:
            if channel.gone:
                self._forget(channel)
            else:
                channel.say("stop")
                channel.limit(self._patience(), self._hangs)
        self._stopped = Deferred() if self._channels else succeed(None)
        return self._stopped

    def secondsLeft(self) -> float:
        """
        @return: after how long the workers have ended that are told to stop now.
        """
        return self._patience() + _LAST_SECONDS

    def workerUp(self, channel: WorkerChannel) -> None:
        """
        A worker is at work.

        @param channel: which.
        """
        if not self._running or channel.leaving:
            return
        channel.up = True
        channel.limit()
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None
        self.log.info("worker {place} is up: process {pid}", place=channel.place, pid=channel.pid)
        self.dispatcher.add(channel.slot)
        if not self._wereUp and self._up() == self._number:
            self._wereUp = True
            self._allUp()

    def workerFailed(self, channel: WorkerChannel) -> None:
        """
        A worker cannot start, and has said why.  If it is of the first ones, we cannot.

        @param channel: which.
        """
        channel.leaving = True
        if self._running and not self._wereUp:
            self._giveUp(StartError("expected all workers to start, found one that cannot"))

    def workerLoaded(self, channel: WorkerChannel, *, used: bool) -> None:
        """
        A worker has read a configuration that we had found good.

        @param channel: which.
        @param used: whether it does so, too.
        """
        if not used:
            self.log.error(
                "worker {place} goes on with what it had read before, unlike the parent: the "
                "files have changed meanwhile; reload again",
                place=channel.place,
            )

    def workerRenews(self, channel: WorkerChannel) -> None:
        """
        A token can be used by a new worker only: have it replaced, but not all the time.

        @param channel: which.
        """
        if self._running and not channel.renewing:
            channel.renewing = True
            left = max(0.0, channel.since + GOOD_SECONDS - self._reactor.seconds())
            self.log.warn(
                "a token can be used by a new process only: another worker {place} starts in "
                "{seconds} s",
                place=channel.place,
                seconds=round(left, 1),
            )
            self._later(left, lambda: self._renew(channel))

    def workerGone(self, channel: WorkerChannel) -> None:
        """
        A worker has said its last.

        @param channel: which.
        """
        if channel not in self._channels.values():
            # It could not be started.
            return
        channel.gone, channel.up = True, False
        self.dispatcher.remove(channel.slot)
        self._reckon()
        if channel.ending is not None or not self._running:
            self._over(channel)
        else:
            channel.limit(_LAST_SECONDS, self._over)

    def _patience(self) -> float:
        """Say for how long workers that are told to stop now are waited for."""
        latest = max((channel.slot.latest for channel in self._channels.values()), default=0)
        return max(_STOP_SECONDS, latest + _SPARE_SECONDS - self._reactor.seconds())

    def _spawn(self, place: int) -> None:
        """Start a worker."""
        number = next(self._numbers)
        try:
            slot = Slot.make()
            channel = WorkerChannel(self, place, slot, self._reactor)
            try:
                self._template.spawn(number, channel, (slot.memory, slot.bell))
            except OSError:
                slot.close()
                raise
        except OSError as error:
            self._cannotStart(place, error)
            return
        self._channels[number] = channel
        self.dispatcher.expect(slot)
        channel.limit(_START_SECONDS, self._hangs)
        self._load(channel)

    def _load(self, channel: WorkerChannel) -> None:
        word = "use" if self._inherited else "load"
        channel.say(word, encodeConfig(self._configFor(channel.place)))

    def _renew(self, channel: WorkerChannel) -> None:
        """End a worker in whose place there is to be a new one."""
        if not channel.gone:
            channel.leaving = True
            self.dispatcher.remove(channel.slot)
            channel.say("stop")
            channel.limit(self._patience(), self._hangs)

    def _ended(self, number: int, status: int) -> None:
        """The template says how a worker has ended."""
        channel = self._channels.get(number)
        if channel is not None:
            channel.ended(status)
            if channel.gone:
                self._over(channel)
            else:
                channel.limit(_LAST_SECONDS, WorkerChannel.abort)

    def _failed(self, number: int, error: OSError) -> None:
        """The template says that there is no worker of that number, whose channel is closed."""
        channel = self._channels.get(number)
        if channel is not None:
            self._forget(channel)
            self._cannotStart(channel.place, error)

    def _over(self, channel: WorkerChannel) -> None:
        """A worker has ended; unless that was asked for, another takes its place."""
        self._forget(channel)
        if not self._running:
            return
        place = channel.place
        if channel.renewing and channel.well:
            self._spawn(place)
            return
        delay = self._backOff.pause(place, channel.since)
        self.log.error(
            "worker {place} {ended}: what it had accepted is lost, and ended by the kernel when "
            "its time is over; another one starts in {delay} s",
            place=place,
            ended=channel.ending or "ended, nobody knows how",
            delay=delay,
        )
        self._later(delay, lambda: self._spawn(place))

    def _forget(self, channel: WorkerChannel) -> None:
        """Keep nothing of a worker."""
        channel.limit()
        self._channels = {n: other for n, other in self._channels.items() if other is not channel}
        self.dispatcher.remove(channel.slot)
        channel.slot.close()
        if self._stopped is not None and not self._channels:
            self._stopped.callback(None)

    def _cannotStart(self, place: int, error: OSError) -> None:
        """There is no worker: try again, later and later."""
        delay = self._backOff.pause(place, self._reactor.seconds())
        self.log.error(
            "worker {place} cannot be started: {error}; raise LimitNOFILE or TasksMax; the next "
            "try is in {delay} s",
            place=place,
            error=error,
            delay=delay,
        )
        if self._running:
            self._later(delay, lambda: self._spawn(place))

    def _hangs(self, channel: WorkerChannel) -> None:
        """End what does not start or does not end by itself, and then do not wait for it."""
        self.log.error(
            "worker {place} does not {what}: killed",
            place=channel.place,
            what="end" if channel.up or channel.leaving or not self._running else "start",
        )
        if channel.pid is not None:
            with suppress(ProcessLookupError):
                self._kill(channel.pid, signal.SIGKILL)
        elif self._running:
            # Nobody has begun to be a worker: it is the template that hangs.
            self._template.stop()
            self._templateLost()
        channel.limit(_LAST_SECONDS, WorkerChannel.abort)

    def _later(self, delay: float, do: Callable[[], None]) -> None:
        """Do something later, unless everything is to end by then."""

        def doIt() -> None:
            self._calls.discard(call)
            do()

        call = self._reactor.callLater(delay, doIt)
        self._calls.add(call)

    def _up(self) -> int:
        return sum(channel.up for channel in self._channels.values())

    def _reckon(self) -> None:
        """Count down while nobody accepts requests."""
        if self._running and self._alone is None and not self._up():
            self._alone = self._reactor.callLater(_ALONE_SECONDS, self._nobody)

    def _nobody(self) -> None:
        self._alone = None
        self._giveUp(StartError(f"expected a worker to be up, found none for {_ALONE_SECONDS} s"))

    def _templateLost(self) -> None:
        """Nobody starts workers any more, or says how they ended: make it anew."""
        for channel in self._channels.values():
            channel.ending = channel.ending or "ended, nobody knows how"
        if self._running:
            delay = self._backOff.pause(0, self._templateSince)
            self.log.error(
                "the process that starts workers has ended: the workers go on, and it is made "
                "anew in {delay} s",
                delay=delay,
            )
            self._later(delay, self._newTemplate)

    def _newTemplate(self) -> None:
        self._templateSince = self._reactor.seconds()
        try:
            self._template.startAnew(self.output)
        except OSError as error:
            self.log.error("expected to start a process, found {error}", error=error)
            self._templateLost()
