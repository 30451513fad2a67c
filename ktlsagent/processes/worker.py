"""
A worker: an agent in a process of its own, which does what its parent tells it over
their channel.  If the parent goes, it finishes what it has begun.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn, cast

from twisted.internet import default
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger, globalLogPublisher
from twisted.python.failure import Failure

from ktlsagent import coredumps
from ktlsagent.bugs import logBug
from ktlsagent.clocks import makeMonotonic
from ktlsagent.config import AgentConfig
from ktlsagent.credentials import tokenload
from ktlsagent.credentials.contexts import ProfileSet
from ktlsagent.errors import ConfigError, StartError
from ktlsagent.lean import settle
from ktlsagent.processes.channel import Channel, decodeConfig
from ktlsagent.processes.slot import Slot, SlotAnnouncements
from ktlsagent.processes.workerlog import workerLog
from ktlsagent.service import AgentService

_ANEW: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from ktlsagent import lean; lean.begin(); "
    "from ktlsagent.processes import worker; worker.be(*map(int, sys.argv[2:]))"
)

_STALE: list[object] = []
"""What was the parent's; it must not be finalized here."""


def run(channel: int, memory: int, bell: int, inherited: ProfileSet | None = None) -> NoReturn:
    """
    Become a worker, after the fork.

    A provider of OpenSSL for tokens may have connected to its token before the
    fork, and connects but once in a process.  If there is one, the worker is a
    program of its own, which shares nothing with others.

    @param channel: descriptor of the channel to the parent.
    @param memory: descriptor of the slot's page.
    @param bell: descriptor of the slot's bell.
    @param inherited: what the parent had read before the fork.
    """
    # First of all, for whatever comes next may hang.
    os.write(channel, b"pid %d\n" % os.getpid())
    if not tokenload.providers():
        be(channel, memory, bell, inherited)
    for descriptor in (channel, memory, bell):
        os.set_inheritable(descriptor, True)
    arguments = [json.dumps(sys.path), str(channel), str(memory), str(bell)]
    # No module comes from the working directory (-P).
    command = [sys.executable, "-P", "-c", _ANEW, *arguments]
    os.execv(sys.executable, command)  # noqa: S606 - it is this program


def be(channel: int, memory: int, bell: int, inherited: ProfileSet | None = None) -> NoReturn:
    """
    Be a worker, to the end of the process.

    @param channel: descriptor of the channel to the parent.
    @param memory: descriptor of the slot's page.
    @param bell: descriptor of the slot's bell.
    @param inherited: what the parent had read before the fork.
    """
    coredumps.forbid()
    _STALE.append(sys.modules.pop("twisted.internet.reactor", None))
    default.install()
    from twisted.internet import reactor as installed  # noqa: PLC0415 - it has just come into being

    reactor = cast(Any, installed)
    makeMonotonic(reactor)
    giveWay()
    for observer in list(globalLogPublisher._observers):
        _STALE.append(observer)
        globalLogPublisher.removeObserver(observer)

    def logs(place: int, *, relayed: bool) -> None:
        log = workerLog(reactor, place, relayed=relayed)
        globalLogPublisher.addObserver(log)
        # What the reactor itself says when it ends is of no use to anybody.
        reactor.addSystemEventTrigger("after", "shutdown", globalLogPublisher.removeObserver, log)

    slot = Slot(memory, bell)
    worker = Worker(reactor, lambda **seams: AgentService(reactor, **seams), slot, logs, inherited)
    factory = Factory.forProtocol(lambda: worker)
    reactor.adoptStreamConnection(channel, socket.AF_UNIX, factory)
    os.close(channel)
    reactor.run(installSignalHandlers=False)
    os._exit(worker.status)


def giveWay() -> None:
    """
    Let the parent have a processor before any worker, if it is scheduled in real time:
    it wakes up for a moment only, to give somebody a request, and the kernel does not
    keep many.  Workers of its own priority would have theirs for up to 100 ms each.
    """
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        priority = os.sched_getparam(0).sched_priority
        os.sched_setparam(0, os.sched_param(max(1, priority - 1)))


class Worker(Channel):
    """
    The worker's end of the channel.

    @ivar status: the exit status.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - it has no type
        makeAgent: Callable[..., AgentService],
        slot: Slot,
        logs: Callable[..., None],
        inherited: ProfileSet | None = None,
    ) -> None:
        """
        @param reactor: the worker's reactor, which is stopped at the end.
        @param makeAgent: makes the agent, with C{config}, C{reread}, C{fatal}, C{renew},
            C{announcements} and C{profiles}.
        @param slot: what it shares with the parent.
        @param logs: begins to log, given the worker's number and C{relayed}, whether
            the parent logs for it.
        @param inherited: what the parent had read before the fork.
        """
        self.status = 0
        self._reactor = reactor
        self._makeAgent = makeAgent
        self._announcements = SlotAnnouncements(reactor, slot, self.say)
        self._agent: AgentService | None = None
        self._config = AgentConfig()
        self._stopping = False
        self._parentGone = False
        self._closing = False
        self._logs = logs
        self._inherited = inherited

    def heard(self, word: str, value: bytes) -> None:
        """
        Do what the parent says.

        @param word: what to do.
        @param value: with what.
        """
        if word == "stop":
            self._stop()
        elif word == "place":
            number, _, relayed = value.partition(b" ")
            self._logs(int(number), relayed=relayed == b"relayed")
        elif word in ("load", "use") and not self._stopping:
            self._config = decodeConfig(value)
            if self._agent is None:
                self._start(self._inherited if word == "use" else None)
            else:
                self._later(self._reload(self._agent))

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002
        """
        The parent has gone, or it was we who have closed.

        @param reason: why.
        """
        self._parentGone = True
        if self._closing:
            self._reactor.stop()
        else:
            self._stop()

    def _start(self, profiles: ProfileSet | None) -> None:
        self._agent = self._makeAgent(
            config=self._config,
            reread=lambda: self._config,
            fatal=self._fatal,
            renew=lambda: self.say("renew"),
            announcements=self._announcements,
            profiles=profiles,
        )
        try:
            self._agent.startService()
        except (ConfigError, StartError) as error:
            self.log.critical("a worker cannot start: {reason}", reason=str(error))
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - the parent has to hear of it
            logBug(self.log, Failure())
            self._failed(error)
        else:
            settle()
            self.say("up")

    def _failed(self, error: Exception) -> None:
        """Say that there will be no worker, and end."""
        self.say("failed")
        self._fatal(error)

    async def _reload(self, agent: AgentService) -> None:
        self.say("loaded", b"yes" if await agent.reload() else b"no")

    def _fatal(self, _error: Exception) -> None:
        """End with a failure; the reason has been logged."""
        self.status = 1
        self._stop()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._later(self._finish())

    async def _finish(self) -> None:
        """Let the agent finish, and then what the parent has to hear."""
        if self._agent is not None and self._agent.running:
            await self._agent.stopService()
        if self._parentGone or self.transport is None:
            self._reactor.stop()
        else:
            self._closing = True
            self.transport.loseConnection()

    def _later(self, doing: Any) -> None:  # noqa: ANN401 - a coroutine
        Deferred.fromCoroutine(doing).addErrback(lambda failure: logBug(self.log, failure))
