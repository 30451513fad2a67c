"""
The service: it listens for READY, takes every pending request at once, and
sees to it that each is served; it stops without losing one.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ktlsagent import policy
from ktlsagent.announcements import MOST_PENDING, ForeignSenders, Ready
from ktlsagent.banner import sayReady
from ktlsagent.bugs import logBug
from ktlsagent.clocks import warnOfWallClock
from ktlsagent.config import AgentConfig
from ktlsagent.configured import Configured
from ktlsagent.credentials.contexts import ProfileSet
from ktlsagent.credentials.latecontexts import Tokens
from ktlsagent.errors import (
    AgentError,
    MalformedRequest,
    NetlinkError,
    OutOfDescriptors,
    StartError,
)
from ktlsagent.interfaces import (
    IAgentReactor,
    IAnnouncements,
    IHandshakeKernel,
    IKernelTLS,
    IKeyrings,
)
from ktlsagent.keyrings import Keyrings, RequestKeyrings
from ktlsagent.ktls import KernelTLS
from ktlsagent.ledger import Ledger
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.netlinksocket import NetlinkReader
from ktlsagent.protocols.handshakefamily import HandshakeRequest
from ktlsagent.request import Agent, Upcall
from ktlsagent.seldom import Seldom
from ktlsagent.sockets import Adopt, adoptSocket
from ktlsagent.stepqueue import StepQueue
from ktlsagent.texts import FIELD, NAME, cut

_DRAIN_AGAIN_SECONDS = 0.1
"""When to look for requests again if there was no room for one more descriptor."""

_HOPELESS = frozenset((errno.EPERM, errno.EBADF, errno.EPROTO))
"""Refusals of ACCEPT that are about us, not about one request."""

_ACCEPT_ADVICE = {
    errno.EACCES: " (its keyring cannot be linked: that of NVMe needs an agent that runs as root)",
}
"""What to do about the kernel's reason for not handing a request over."""

_ACCEPT_REFUSED = (
    "expected to be allowed to accept handshake requests, found {}; the agent needs "
    "CAP_NET_ADMIN in the initial user namespace: start it as root or give it that capability"
)


class AgentService(Service):
    """
    The TLS handshake agent of one network namespace.

    @ivar ledger: what was taken and is owed.
    """

    log = Logger()

    def __init__(  # noqa: PLR0913 - the seams are for tests and for other programs
        self,
        reactor: IAgentReactor,
        config: AgentConfig,
        *,
        reread: Callable[[], AgentConfig] | None = None,
        up: Callable[[], None] | None = None,
        fatal: Callable[[AgentError], None] | None = None,
        kernel: IHandshakeKernel | None = None,
        kernelTLS: IKernelTLS | None = None,
        keyrings: IKeyrings | None = None,
        tokens: Tokens | None = None,
        renew: Callable[[], None] | None = None,
        announcements: IAnnouncements | None = None,
        profiles: ProfileSet | None = None,
        adopt: Adopt = adoptSocket,
    ) -> None:
        """
        @param reactor: the reactor.
        @param config: the configuration.
        @param reread: reads the configuration again, for L{reload}; called in
            a thread.  Without it the same configuration's files are read again.
        @param up: called when the kernel can ask for handshakes.
        @param fatal: told why, once, if the agent cannot go on; without it
            that is only logged.
        @param kernel: the handshake family; by default the running kernel's.
        @param kernelTLS: kTLS; by default the running kernel's.
        @param keyrings: the process keyring; by default this process's.
        @param tokens: the tokens with keys of ours; by default the real ones.
        @param renew: has a new process take our place, when all requests are
            answered; called each time that only a new one can use a token.
        @param announcements: where a parent says that requests wait, if this is
            a worker: the parent listens, watches the files and says what is to
            be said about all.  By default this process does all that.
        @param profiles: what such a parent has made of the files, if they need not be read.
        @param adopt: makes a socket of a request's descriptor.
        """
        self.ledger = Ledger()
        self._reactor = reactor
        self._tokens = tokens or Tokens(reactor, renew=renew)
        self._following = announcements is not None
        self._configured = Configured(
            reactor, config, self._tokens, reread, following=self._following, profiles=profiles
        )
        self._up = up
        self._fatal = fatal
        self._kernel = kernel or HandshakeNetlink()
        self._kernelTLS = kernelTLS or KernelTLS()
        self._keyrings = keyrings or Keyrings()
        self._announcements = announcements or Ready(reactor, self._kernel)
        self._steps = StepQueue(
            reactor,
            lambda: self._configured.bounds,
            self._look,
            self._tellLoad if self._following else _nothing,
        )
        self._agent = Agent(
            reactor,
            self._kernel,
            self._kernelTLS,
            RequestKeyrings(self._keyrings, self.ledger, reactor),
            self._configured,
            self._tokens,
            self.ledger,
            self._steps,
            adopt,
        )
        self._seldom = Seldom(reactor, self.log)
        self._senders = ForeignSenders(reactor, self._kernel)
        self._readers: list[NetlinkReader] = []
        self._drainingAgain: IDelayedCall | None = None
        self._idle: list[Deferred[None]] = []

    @property
    def usedTokens(self) -> bool:
        """Whether the process has to end by C{os._exit}, see L{Tokens.used}."""
        return self._tokens.used

    def startService(self) -> None:
        """
        Read everything, then listen, then take what is pending already.

        @raise ConfigError: if the configuration cannot be used.
        @raise StartError: if the kernel or our privileges do not allow it.
        """
        self._keyrings.createProcessKeyring()
        self._kernel.open()
        try:
            suites = self._kernelTLS.probe()
            self._configured.load(suites)
            self._announcements.begin()
            self._drain(None)
        except NetlinkError as error:
            self._kernel.close()
            raise StartError(_ACCEPT_REFUSED.format(error)) from error
        except AgentError:
            self._kernel.close()
            raise
        warnOfWallClock(self._reactor, self.log)
        Service.startService(self)
        for descriptor, readable in (
            (self._announcements.fileno(), self._heard),
            (self._kernel.commandDescriptor(), self._strays),
        ):
            reader = NetlinkReader(descriptor, readable, self._deaf)
            self._readers.append(reader)
            self._reactor.addReader(reader)
        self._configured.start()
        if not self._following:
            sayReady(self.log, self._kernel, self._keyrings, suites)
        if self._up is not None:
            self._up()

    def stopService(self) -> Deferred[None]:
        """
        Take no more requests, and wait for those in flight; each ends within
        its deadline.

        @return: fires when all have been answered.
        """
        Service.stopService(self)
        self._stopReading()
        self._announcements.end()
        self._configured.stop()
        self._kernel.leave()
        if self.ledger.inFlight:
            self.log.info(
                "stopping: {count} requests are still in flight", count=self.ledger.inFlight
            )
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
        else:
            idle = succeed(None)
        return idle.addCallback(lambda _ignored: self._stopped())

    def secondsLeft(self) -> float:
        """
        @return: after how long everything that is in flight now has been answered.
        """
        return max(0.0, self.ledger.latest - self._reactor.seconds())

    def forked(self) -> None:
        """This is another process now, which stops: it needs the keyrings of what is in flight."""
        self._agent.keyrings.linkAgain()

    def forget(self) -> None:
        """What is in flight is another process's now, which was forked off: answer nothing."""
        self._kernel.close()

    async def reload(self) -> bool:
        """
        Read the configuration and all its files again, and use them for the
        requests to come; or, if anything in them is wrong, go on as before.

        @return: whether the new configuration is in use.
        """
        return await self._configured.reload()

    def listener(self) -> int:
        """
        @return: the descriptor of the socket that READY comes on.
        @raise NetlinkError: if the agent does not listen.
        """
        return self._kernel.fileno()

    def _deaf(self, reason: Failure) -> None:
        """The reactor does not wait for READY any more."""
        logBug(self.log, reason)
        self._giveUp(StartError("expected to wait for READY as long as the service runs"))

    def _heard(self) -> None:
        """Something was said about requests."""
        self._announcements.heard()
        self._ready()

    def _ready(self) -> None:
        """See whether requests wait, and take them if so."""
        try:
            due = self._announcements.due()
            if due != 0:
                self._drain(due)
        except NetlinkError as error:
            self._giveUp(error)
        self._senders.tell()

    def _look(self) -> None:
        """There is more to be done, but requests that have come meanwhile are taken first."""
        if self._readers:
            self._ready()

    def _strays(self) -> None:
        """Something has come that was not an answer, which nobody can need."""
        strays = self._kernel.discardStrays()
        if strays:
            self._seldom.warn(
                "dropped {count} netlink messages that nobody asked for", count=strays
            )
        self._senders.tell()

    def _drain(self, due: int | None) -> None:
        """
        Take requests, before anything is done about one.

        @param due: how many to ask for; C{None}: until nothing is pending.
        @raise NetlinkError: if the kernel does not let us at all.
        """
        taken: list[tuple[HandshakeRequest, float | None]] = []
        try:
            left = self._take(taken, due)
        finally:
            for request, announced in taken:
                self._serve(request, announced)
        self._tellLoad()
        self._announcements.settled(left)

    def _take(self, taken: list[tuple[HandshakeRequest, float | None]], due: int | None) -> int:
        """
        Note requests one by one, and when each was announced; say how many are left
        that there is no room for.
        """
        refused = 0
        while due is None or len(taken) + refused < due:
            try:
                request = self._kernel.accept()
            except OutOfDescriptors as error:
                self._drainLater(error)
                return MOST_PENDING if due is None else due - len(taken) - refused
            except MalformedRequest as error:
                self.log.error("a request cannot be read: {reason}", reason=cut(str(error), NAME))
                request = HandshakeRequest(
                    error.descriptor, messageType=0, authMode=0, keyring=error.keyring
                )
            except NetlinkError as error:
                if error.errno in _HOPELESS:
                    raise
                # The kernel has mostly ended that request with EIO; others may
                # wait behind it.
                refused += 1
                self._announcements.announced(math.inf)
                self.log.error(
                    "the kernel could not hand a request over: {reason}{advice}",
                    reason=cut(str(error), NAME),
                    advice=_ACCEPT_ADVICE.get(error.errno, ""),
                )
                if refused < MOST_PENDING:
                    continue
                self._drainLater(AgentError("too many requests could not be handed over"))
                return MOST_PENDING
            if request is None:
                return 0
            patience = policy.patienceSeconds(request)
            taken.append((request, self._announcements.announced(patience)))
        return 0

    def _drainLater(self, reason: AgentError) -> None:
        """Leave requests to others, or with the kernel for a while."""
        if self._drainingAgain is None:
            self._seldom.warn("no request is accepted for now: {reason}", reason=str(reason))
            self._drainingAgain = self._reactor.callLater(_DRAIN_AGAIN_SECONDS, self._drainAgain)

    def _drainAgain(self) -> None:
        self._drainingAgain = None
        try:
            self._kernel.requireRoom()
        except OutOfDescriptors as error:
            self._drainLater(error)
        else:
            self._announcements.room()
            self._ready()

    def _serve(self, request: HandshakeRequest, announced: float | None) -> None:
        """Start a request's story."""
        self.ledger.accepted += 1
        self.ledger.descriptors += 1
        if self._configured.config.debugLevel:
            self.log.debug("accepted {request}", request=cut(repr(request), FIELD))
        Deferred.fromCoroutine(Upcall(self._agent, request, announced).serve()).addBoth(
            self._served
        )

    def _served(self, result: Failure | None) -> None:
        """A request's story has ended."""
        if isinstance(result, Failure):
            logBug(self.log, result)
        self._tellLoad()
        if not self.ledger.inFlight:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    def _tellLoad(self) -> None:
        """Say how much there is to do."""
        steps, ledger = self._steps, self.ledger
        self._announcements.load(
            ledger.inFlight, ledger.latest, busy=steps.busy, crowded=steps.crowded
        )

    def _giveUp(self, error: AgentError) -> None:
        """The netlink sockets are of no use any more."""
        self.log.critical("the agent cannot go on: {reason}", reason=str(error))
        self._stopReading()
        if self._fatal is not None:
            self._fatal(error)

    def _stopReading(self) -> None:
        """Wait for nothing any more."""
        while self._readers:
            self._reactor.removeReader(self._readers.pop())
        if self._drainingAgain is not None:
            self._drainingAgain.cancel()
            self._drainingAgain = None

    def _stopped(self) -> None:
        self._kernel.close()
        self.log.info("stopped: {ledger}", ledger=str(self.ledger))


def _nothing() -> None:
    """Do nothing: nobody wants to know how much there is to do."""
