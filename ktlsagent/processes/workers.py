"""
The agent as several processes: the parent, which keeps the socket for READY open,
reads the configuration first, watches its files and logs for all; and the workers,
each an agent of its own, which the parent starts, and starts again when they die.

What a dead worker had accepted nobody else can answer; the kernel's own time limit
ends it.  What had not been accepted yet the other workers take.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger, eventFromJSON, globalLogPublisher
from twisted.python.failure import Failure

from ktlsagent.config import AgentConfig
from ktlsagent.configured import Configured
from ktlsagent.errors import AgentError, StartError
from ktlsagent.interfaces import IAgentReactor, IHandshakeKernel, IKernelTLS, IKeyrings
from ktlsagent.keyrings import Keyrings
from ktlsagent.ktls import KernelTLS
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.processes.channel import Channel, encodeConfig
from ktlsagent.processes.template import Template
from ktlsagent.processes.worker import run
from ktlsagent.service import sayReady

_SHORTEST_DELAY = 0.1
_LONGEST_DELAY = 10.0
"""How long a worker that died is waited with; twice as long each time that it dies early."""

_GOOD_SECONDS = 10.0
"""After what time a worker's death is not an early one."""

_ALONE_SECONDS = 30.0
"""
How long mounts may wait for a worker; after that they had better fail at once.  One
that is a program of its own may take 10 s to start where all have to at the same time.
"""

_STOP_SECONDS = 12.0
"""How long a worker may take to stop: a request's longest deadline, and some more."""


class ITemplate(Protocol):
    """What is used of L{Template}."""

    def start(self) -> None:
        """Fork it off."""

    def spawn(self, number: int, protocol: Any, ready: int) -> None:  # noqa: ANN401
        """Start a worker."""

    def stop(self) -> None:
        """End it."""


class WorkerChannel(Channel):
    """
    The parent's end of a worker's channel.

    @ivar place: which of the workers it is, from 1 on.
    @ivar pid: its process, once it is up.
    @ivar since: when it was started.
    @ivar renewing: whether it has asked for a new one in its place.
    """

    def __init__(self, parent: WorkersService, place: int, since: float) -> None:
        """
        @param parent: is told of everything.
        @param place: which of the workers it is.
        @param since: the time.
        """
        self.place = place
        self.pid: int | None = None
        self.since = since
        self.renewing = False
        self._parent = parent

    def heard(self, word: str, value: bytes) -> None:
        """
        Hear what the worker says.

        @param word: what about.
        @param value: the rest.
        """
        if word == "log":
            self._relay(value.decode())
        elif word == "up":
            self.pid = int(value)
            self._parent.workerUp(self)
        elif word == "failed":
            self._parent.workerFailed()
        elif word == "loaded":
            self._parent.workerLoaded(self, used=value == b"yes")
        elif word == "renew":
            self._parent.workerRenews(self)

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002
        """
        The worker has closed its end, or is dead.

        @param reason: why.
        """
        self._parent.workerGone(self)

    def _relay(self, text: str) -> None:
        """Log an event of the worker's as if it were ours, but say whose it is."""
        event = eventFromJSON(text)
        system = f"{event['log_namespace']}#{event['log_level'].name}"
        event["log_system"] = f"{system} worker={self.place}"
        event["worker"] = self.place
        globalLogPublisher(event)


class WorkersService(Service):
    """The parent of the workers of one network namespace."""

    log = Logger()

    def __init__(  # noqa: PLR0913 - the seams are for tests
        self,
        reactor: IAgentReactor,
        config: AgentConfig,
        number: int,
        *,
        up: Callable[[], None],
        fatal: Callable[[AgentError], None],
        reread: Callable[[], AgentConfig] | None = None,
        kernel: IHandshakeKernel | None = None,
        kernelTLS: IKernelTLS | None = None,
        keyrings: IKeyrings | None = None,
        template: Callable[..., ITemplate] = Template,
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        """
        @param reactor: the reactor.
        @param config: the configuration.
        @param number: how many workers there are to be.
        @param up: called once, when all of them are at work.
        @param fatal: told why, once, if there is no going on.
        @param reread: reads the configuration again; called in a thread.
        @param kernel: the handshake family, of which no request is accepted here.
        @param kernelTLS: kTLS.
        @param keyrings: the keys.
        @param template: makes what starts workers.
        @param kill: sends a signal.
        """
        self._reactor = reactor
        self._number = number
        self._allUp = up
        self._fatal = fatal
        self._kernel = kernel or HandshakeNetlink()
        self._kernelTLS = kernelTLS or KernelTLS()
        self._keyrings = keyrings or Keyrings()
        self._configured = Configured(reactor, config, None, reread, used=self._used)
        self._template = template(reactor, run, self._ended, self._templateLost)
        self._kill = kill
        self._suites: frozenset[str] = frozenset()
        self._numbers = count(1)
        self._channels: dict[int, WorkerChannel] = {}
        self._open: set[WorkerChannel] = set()
        self._delays: dict[int, float] = {}
        self._calls: set[IDelayedCall] = set()
        self._alone: IDelayedCall | None = None
        self._saidReady = False
        self._gone: Deferred[None] | None = None

    def startService(self) -> None:
        """
        Read everything, listen, and start the workers.

        @raise ConfigError: if the configuration cannot be used.
        @raise StartError: if the kernel or our privileges do not allow it.
        """
        # Before there is anything that workers must not inherit.
        self._template.start()
        try:
            self._kernel.open()
            self._suites = self._kernelTLS.probe()
            self._configured.load(self._suites)
            self._kernel.listen()
        except AgentError:
            self._kernel.close()
            self._template.stop()
            raise
        Service.startService(self)
        self._reckon()
        for place in range(1, self._number + 1):
            self._spawn(place)

    def stopService(self) -> Deferred[None]:
        """
        Have all workers finish what they have begun, and end.

        @return: fires when they have ended.
        """
        Service.stopService(self)
        self._configured.stop()
        for call in [*self._calls, *filter(None, [self._alone])]:
            call.cancel()
        self._calls.clear()
        self._alone = None
        # It has nothing to do any more, and only we can wait for its end.
        self._template.stop()
        for channel in self._open:
            channel.say("stop")
        self._gone = Deferred() if self._open else succeed(None)
        late = self._reactor.callLater(_STOP_SECONDS, self._killAll)
        return self._gone.addCallback(lambda _ignored: self._stopped(late))

    @property
    def usedTokens(self) -> bool:
        """Whether the process has to end by C{os._exit}: tokens are the workers' alone."""
        return False

    def forked(self) -> None:
        """This is another process now, which stops: it hears the workers to their ends."""

    def forget(self) -> None:
        """The workers are another process's now, which was forked off."""
        self._kernel.close()

    async def reload(self) -> bool:
        """
        Read the configuration and all its files again; only if nothing is
        wrong with them the workers do the same.

        @return: whether they were told to.
        """
        return await self._configured.reload()

    def listener(self) -> int:
        """
        @return: the descriptor of the socket that READY comes on.
        @raise NetlinkError: if the agent does not listen.
        """
        return self._kernel.fileno()

    def workerUp(self, channel: WorkerChannel) -> None:
        """
        A worker is at work.

        @param channel: which.
        """
        if self._alone is not None:
            self._alone.cancel()
            self._alone = None
        self.log.info("worker {place} is up: process {pid}", place=channel.place, pid=channel.pid)
        if not self._saidReady and self._up() == self._number and self.running:
            self._saidReady = True
            self._configured.start()
            sayReady(self.log, self._kernel, self._keyrings, self._suites, self._number)
            self._allUp()

    def workerFailed(self) -> None:
        """A worker cannot start, and has said why.  If it is of the first ones, we cannot."""
        if not self._saidReady:
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
        if self.running and not channel.renewing:
            channel.renewing = True
            left = max(0.0, channel.since + _GOOD_SECONDS - self._reactor.seconds())
            self.log.warn(
                "a token can be used by a new process only: another worker {place} starts in "
                "{seconds} s",
                place=channel.place,
                seconds=round(left, 1),
            )
            self._later(left, lambda: channel.say("stop"))

    def workerGone(self, channel: WorkerChannel) -> None:
        """
        A worker has said its last.

        @param channel: which.
        """
        self._open.discard(channel)
        channel.pid = None
        self._reckon()
        if self._gone is not None and not self._open and not self._gone.called:
            self._gone.callback(None)

    def _spawn(self, place: int) -> None:
        """Start a worker."""
        number = next(self._numbers)
        channel = WorkerChannel(self, place, self._reactor.seconds())
        try:
            self._template.spawn(number, channel, self._kernel.fileno())
        except OSError as error:
            self.log.error(
                "worker {place} cannot be started: {error}; raise LimitNOFILE",
                place=place,
                error=error,
            )
            self._later(_LONGEST_DELAY, lambda: self._spawn(place))
            return
        self._channels[number] = channel
        self._open.add(channel)
        self._load(channel)

    def _load(self, channel: WorkerChannel) -> None:
        """Have a worker use the configuration, with its share of what all may have."""
        bounds = self._configured.bounds.share(channel.place, self._number)
        config = replace(
            self._configured.config, mostHandshakes=bounds.most, mostPerPeer=bounds.mostPerPeer
        )
        channel.say("load", encodeConfig(config))

    def _ended(self, number: int, status: int) -> None:
        """A worker has ended; unless that was asked for, another takes its place."""
        channel = self._channels.pop(number)
        if not self.running:
            return
        place = channel.place
        if channel.renewing and status == 0:
            self._spawn(place)
            return
        early = self._reactor.seconds() - channel.since < _GOOD_SECONDS
        delay = min(2 * self._delays.get(place, 0), _LONGEST_DELAY) if early else 0
        self._delays[place] = delay = max(delay, _SHORTEST_DELAY)
        self.log.error(
            "worker {place} {ended}: what it had accepted is lost, and ended by the kernel when "
            "its time is over; another one starts in {delay} s",
            place=place,
            ended=_describe(status),
            delay=delay,
        )
        self._later(delay, lambda: self._spawn(place))

    def _later(self, delay: float, do: Callable[[], None]) -> None:
        """Do something later, unless everything is to end by then."""

        def doIt() -> None:
            self._calls.discard(call)
            do()

        call = self._reactor.callLater(delay, doIt)
        self._calls.add(call)

    def _up(self) -> int:
        return sum(channel.pid is not None for channel in self._open)

    def _reckon(self) -> None:
        """Count down while nobody accepts requests."""
        if self.running and self._alone is None and not self._up():
            self._alone = self._reactor.callLater(_ALONE_SECONDS, self._nobody)

    def _nobody(self) -> None:
        self._alone = None
        self._giveUp(StartError(f"expected a worker to be up, found none for {_ALONE_SECONDS} s"))

    def _used(self) -> None:
        """A configuration has been found good: the workers shall use it, too."""
        for channel in self._open:
            self._load(channel)

    def _templateLost(self) -> None:
        self._giveUp(StartError("expected to be able to start workers, found the template dead"))

    def _giveUp(self, error: AgentError) -> None:
        if self.running:
            self.log.critical("ktlsagent cannot go on: {reason}", reason=str(error))
            self._fatal(error)

    def _killAll(self) -> None:
        """End what does not end by itself."""
        for channel in self._open:
            if channel.pid is not None:
                self.log.error("worker {place} does not end: killed", place=channel.place)
                self._kill(channel.pid, signal.SIGKILL)

    def _stopped(self, late: IDelayedCall) -> None:
        if late.active():
            late.cancel()
        self._kernel.close()


def _describe(status: int) -> str:
    """Say how a process ended."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"ended with status {code}"
    return f"was killed by {signal.Signals(-code).name}"
