"""
The agent as several processes: the parent, which reads READY and gives what it
announces to the workers, reads the configuration first, watches its files and logs
for all; and the workers, each an agent of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ktlsagent.announcements import ForeignSenders, Ready
from ktlsagent.banner import sayReady
from ktlsagent.bugs import logBug
from ktlsagent.config import AgentConfig
from ktlsagent.configured import Configured
from ktlsagent.errors import AgentError, NetlinkError, StartError
from ktlsagent.interfaces import IAgentReactor, IHandshakeKernel, IKernelTLS, IKeyrings
from ktlsagent.keyrings import Keyrings
from ktlsagent.ktls import KernelTLS
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.netlinksocket import NetlinkReader
from ktlsagent.processes.supervisor import Supervisor
from ktlsagent.processes.template import ITemplate, Template
from ktlsagent.processes.workerlog import RelayedOutput


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
        relayed: bool = False,
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
        @param relayed: whether the log is somewhere else than on standard output, so
            that workers have to have theirs written here.
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
        self._supervisor = Supervisor(
            reactor,
            number,
            configFor=self._share,
            allUp=self._workersUp,
            giveUp=self._giveUp,
            template=template,
            kill=kill,
        )
        self._ready = Ready(reactor, self._kernel)
        self._senders = ForeignSenders(reactor, self._kernel)
        self._reader: NetlinkReader | None = None
        self._suites: frozenset[str] = frozenset()
        self._relayed = relayed
        self._output: RelayedOutput | None = None

    def startService(self) -> None:
        """
        Read everything, listen, and start the workers.

        @raise ConfigError: if the configuration cannot be used.
        @raise StartError: if the kernel or our privileges do not allow it.
        """
        if self._relayed:
            self._output = RelayedOutput(self._reactor)
            self._supervisor.output = self._output.fileno()
        try:
            self._kernel.open()
            self._suites = self._kernelTLS.probe()
            self._configured.load(self._suites)
            profiles = self._configured.profiles
            # Whoever uses keys in tokens makes what they are used by.
            self._supervisor.prepare(None if profiles.late() else profiles)
            self._ready.begin()
        except AgentError:
            self._kernel.close()
            self._supervisor.stop()
            self._closeOutput()
            raise
        Service.startService(self)
        self._supervisor.start()
        self._reader = NetlinkReader(self._ready.fileno(), self._heard, self._deaf)
        self._reactor.addReader(self._reader)

    def stopService(self) -> Deferred[None]:
        """
        Have all workers finish what they have begun, and end.

        @return: fires when they have ended, or do not even if they are killed.
        """
        Service.stopService(self)
        self._configured.stop()
        self._stopReading()
        return self._supervisor.stop().addCallback(lambda _ignored: self._stopped())

    @property
    def usedTokens(self) -> bool:
        """Whether the process has to end by C{os._exit}: tokens are the workers' alone."""
        return False

    def secondsLeft(self) -> float:
        """
        @return: after how long the workers have ended, whatever they do.
        """
        return self._supervisor.secondsLeft()

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

    def _heard(self) -> None:
        """READY has come: have it taken by whoever has the least to do."""
        try:
            self._supervisor.dispatcher.announce(self._ready.read())
        except NetlinkError as error:
            self._giveUp(error)
        self._senders.tell()

    def _deaf(self, reason: Failure) -> None:
        """The reactor does not wait for READY any more."""
        logBug(self.log, reason)
        self._giveUp(StartError("expected to wait for READY as long as the service runs"))

    def _stopReading(self) -> None:
        if self._reader is not None:
            self._reactor.removeReader(self._reader)
            self._reader = None

    def _stopped(self) -> Deferred[None]:
        self._kernel.close()
        return self._closeOutput()

    def _closeOutput(self) -> Deferred[None]:
        """Hear the workers out, if that is needed."""
        output, self._output = self._output, None
        return succeed(None) if output is None else output.close()

    def _share(self, place: int) -> AgentConfig:
        """Say what a worker uses: the configuration, with its share of what all may have."""
        bounds = self._configured.bounds.share(place, self._number)
        return replace(
            self._configured.config, mostHandshakes=bounds.most, mostPerPeer=bounds.mostPerPeer
        )

    def _workersUp(self) -> None:
        self._configured.start()
        sayReady(self.log, self._kernel, self._keyrings, self._suites, self._number)
        self._allUp()

    def _used(self) -> None:
        """A configuration has been found good: the workers shall use it, too."""
        self._supervisor.reload()

    def _giveUp(self, error: AgentError) -> None:
        self._stopReading()
        if self.running:
            self.log.critical("ktlsagent cannot go on: {reason}", reason=str(error))
            self._fatal(error)
