"""One schedule: an agent or two, a kernel with consumers, peers, and what happens to them."""

from __future__ import annotations

import gc
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast
from weakref import ref

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from ktlsagent.ktls import KernelTLS
from ktlsagent.ledger import Ledger
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.service import AgentService
from tests.simulation.choices import Choices
from tests.simulation.kernel import Asked, RandomKernel
from tests.simulation.ktlssocket import KernelSides, ScriptedSocket
from tests.simulation.materials import Materials
from tests.simulation.peers import RandomPeer
from tests.simulation.reactor import RandomReactor
from tests.support.agent import connectedPair
from tests.support.fakekernel import CLIENTHELLO, PSK, SERVERHELLO, UNAUTH, X509
from tests.support.fakekeyrings import FakeKeyrings

_STEPS = (20, 120)
_REQUESTS = (1, 8)
_STEP_SECONDS = (0.0, 0.0, 0.001, 0.01, 0.1, 1.0)
_END_SECONDS = 40.0
"""After what time all that was asked must be over, whatever its timeout."""

_TIMEOUTS = (0, 0, 0, 1000, 3000, 20000)
"""C{HANDSHAKE_A_ACCEPT_TIMEOUT} of requests, in milliseconds; 0 for none."""


class _Kernels(KernelTLS):
    """The real L{KernelTLS} on sockets of schedules; there is no kernel to be probed."""

    def probe(self) -> frozenset[str]:
        return frozenset(CIPHER_SUITES)


@dataclass(eq=False)
class Conversation:
    """
    A request and who is at the other end.

    @ivar asked: the request.
    @ivar consumer: the consumer's socket.
    @ivar peer: the peer; C{None} if the other end is a request as well.
    """

    asked: Asked
    consumer: socket.socket
    peer: RandomPeer | None


class World:
    """
    Everything that takes part in a schedule.

    @ivar choices: where chance comes from.
    @ivar reactor: the agents'.
    @ivar kernel: the handshake family.
    @ivar sides: kTLS of all sockets.
    @ivar keyrings: the process keyring.
    @ivar conversations: all requests with their peers.
    @ivar agents: those that run.
    @ivar ledgers: the books of all that ever ran.
    @ivar events: everything that was logged.
    @ivar sockets: those of all requests, as long as anybody keeps them.
    @ivar gaps: when nobody listened: from, until.
    """

    def __init__(self, seed: int, materials: Materials) -> None:
        """
        @param seed: makes all choices.
        @param materials: certificates, keys and configurations.
        """
        self.choices = choices = Choices(seed)
        self.reactor = RandomReactor(choices)
        self.sides = KernelSides()
        self.keyrings = FakeKeyrings()
        self.kernel = RandomKernel(
            choices, self.sides, self.reactor.seconds, self.keyrings.linkAtAccept
        )
        self.conversations: list[Conversation] = []
        self.agents: list[AgentService] = []
        self.stopping: list[Deferred[None]] = []
        self.ledgers: list[Ledger] = []
        self.events: list[LogEvent] = []
        self.sockets: list[ref[ScriptedSocket]] = []
        self.gaps: list[tuple[float, float]] = []
        self.starved = False
        self._materials = materials
        self._deafSince: float | None = 0.0
        self._ring = materials.fill(self.keyrings)
        self._actions: dict[Callable[[], None], float] = {
            self._turn: 12.0,
            self._peersTurn: 12.0,
            self._ask: 2.0,
            self._askBoth: 0.5,
            self._cancel: 0.2,
            self._reload: 0.2,
            self._loseReady: 0.2,
            self._starve: 0.2,
            self._strayDatagram: 0.1,
            self._restart: 0.15,
            self._second: 0.05,
        }
        self._left = choices.number(*_REQUESTS)

    def run(self) -> None:
        """Live the schedule from its beginning to its end."""
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        # What is left is to be found, and not to be cleared away before.
        gc.disable()
        try:
            self._start()
            for _step in range(self.choices.number(*_STEPS)):
                self.choices.weighted(self._actions)()
                self.kernel.passTime()
            self._finish()
        finally:
            gc.enable()
            globalLogPublisher.removeObserver(observer)

    def close(self) -> None:
        """Close what the kernel and the peers hold."""
        for conversation in self.conversations:
            conversation.consumer.close()
            if conversation.peer is not None:
                conversation.peer.close()
        self.kernel.close()

    def _start(self) -> None:
        """Start an agent."""
        agent = AgentService(
            self.reactor,
            self._materials.config,
            reread=self._materials.reread,
            kernel=HandshakeNetlink(self.kernel.socket, self.kernel.listenersFile),
            kernelTLS=_Kernels(),
            keyrings=self.keyrings,
            adopt=self._adopt,
        )
        self.choices.faults, before = False, self.choices.faults
        agent.startService()
        self.choices.faults = before
        self.agents.append(agent)
        self.ledgers.append(agent.ledger)
        if self._deafSince is not None:
            self.gaps.append((self._deafSince, self.reactor.seconds()))
            self._deafSince = None

    def _adopt(self, descriptor: int) -> ScriptedSocket:
        """Make a socket of a request's descriptor, and see later whether anybody keeps it."""
        adopted = ScriptedSocket(descriptor, self.choices, self.sides)
        self.sockets.append(ref(adopted))
        return adopted

    def _stop(self, agent: AgentService) -> None:
        """Stop an agent; its requests go on."""
        self.agents.remove(agent)
        if not self.agents:
            self._deafSince = self.reactor.seconds()
        self.stopping.append(agent.stopService())

    def _restart(self) -> None:
        """Stop an agent, and start another one, at once or in a while."""
        if self.agents:
            self._stop(self.choices.one(self.agents))
            for _turn in range(self.choices.number(0, 5)):
                self._turn()
                self._peersTurn()
                self.kernel.passTime()
        if not self.agents:
            self._start()

    def _second(self) -> None:
        """Start an agent beside others."""
        if len(self.agents) < 2:
            self._start()

    def _turn(self, longest: float | None = None) -> None:
        """Let some time pass, unless a reactor would not wait so long, and take a turn."""
        seconds = self.choices.one(_STEP_SECONDS) if longest is None else longest
        if self.reactor.ready():
            seconds = 0.0
        due = self.reactor.nextCall()
        if due is not None:
            seconds = min(seconds, max(0.0, due - self.reactor.seconds()))
        self.reactor.turn(seconds)

    def _peersTurn(self) -> None:
        """Some of the peers do something."""
        for conversation in self.choices.shuffled(self.conversations):
            if conversation.peer is not None and self.choices.happens(0.7):
                conversation.peer.turn()

    def _ask(self) -> None:
        """A consumer asks for a handshake with a peer."""
        if not self._left:
            return
        self._left -= 1
        near, far = connectedPair()
        if self.choices.happens(0.5):
            mode, messageType, name = X509, SERVERHELLO, None
            context = self._materials.client(self.choices)
        else:
            mode = self.choices.one((UNAUTH, X509))
            messageType = CLIENTHELLO
            name = self.choices.one((b"server.lab", b"server.lab", b"other.lab", b"", None))
            context = self._materials.server(self.choices)
        peer = RandomPeer(far, context, self.choices, server=messageType == CLIENTHELLO, name=None)
        self._submit(near, messageType, mode, peer, name)

    def _askBoth(self) -> None:
        """A host and a target in one kernel ask for a handshake with each other."""
        if not self._left:
            return
        self._left -= 1
        near, far = connectedPair()
        keyring, key = self._ring
        self._submit(near, SERVERHELLO, PSK, None, keyring=keyring)
        self._submit(far, CLIENTHELLO, PSK, None, keyring=keyring, peerIdentities=(key,))

    def _submit(
        self,
        consumer: socket.socket,
        messageType: int,
        mode: int,
        peer: RandomPeer | None,
        name: bytes | None = None,
        **details: object,
    ) -> None:
        timeout = self.choices.one(_TIMEOUTS)
        upcall = self.kernel.queue(
            consumer,
            messageType,
            mode,
            peerName=name,
            timeoutMilliseconds=timeout,
            **details,  # type: ignore[arg-type]
        )
        asked = self.kernel.note(upcall, messageType, timeout)
        self.conversations.append(Conversation(asked, consumer, peer))

    def _cancel(self) -> None:
        """A consumer gives up."""
        if self.kernel.asked and self.choices.faults:
            self.kernel.cancel(self.choices.one(self.kernel.asked))

    def _reload(self) -> None:
        """The configuration is read again, perhaps with files that cannot be used."""
        if self.agents:
            self._materials.change(self.choices)
            Deferred.fromCoroutine(self.choices.one(self.agents).reload())

    def _loseReady(self) -> None:
        """READY is lost."""
        self.kernel.loseHints()

    def _strayDatagram(self) -> None:
        """Something comes on a netlink socket that nobody asked for."""
        self.choices.one(self.kernel.sockets).deliver(
            self.choices.octets(self.choices.number(1, 40))
        )

    def _starve(self) -> None:
        """For some turns there are no more descriptors."""
        with noDescriptors():
            for _turn in range(self.choices.number(1, 4)):
                self._turn()
                self.kernel.passTime()
        self.starved = True

    def _finish(self) -> None:
        """Nothing goes wrong any more: everything comes to its end, and the agents stop."""
        self.choices.faults = False
        if not self.agents:
            self._start()
        end = self.reactor.seconds() + _END_SECONDS
        while self.reactor.seconds() < end and self._busy():
            self._turn(0.05)
            self._everyPeersTurn()
            self.kernel.passTime()
        for agent in list(self.agents):
            self._stop(agent)
        for _turn in range(20):
            self._turn(0.0)

    def _everyPeersTurn(self) -> None:
        for conversation in self.conversations:
            if conversation.peer is not None:
                conversation.peer.turn()

    def _busy(self) -> bool:
        """Whether anybody waits for something."""
        waiting = any(
            not asked.upcall.answers and asked.cancelled is None for asked in self.kernel.asked
        )
        return (
            waiting
            or any(not stopped.called for stopped in self.stopping)
            or any(agent.ledger.inFlight for agent in self.agents)
        )


@contextmanager
def noDescriptors() -> Iterator[None]:
    """
    Take all free descriptors away for a while.

    @return: a context manager.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
