"""
The story of a request, from ACCEPT to DONE.

    1. The kernel has given us a descriptor; from here on it gets an answer,
       whatever happens.
    2. The first profile that matches it is looked for, and policy says how the
       handshake is to be run by it, or that it is not.
    3. It waits for its turn: until others, whose peers have fewer turns than its
       own, have begun.
    4. The handshake runs as a Twisted protocol over the socket, in steps,
       against a deadline.
    5. On top of it sits L{Handover}: when it is connected, the keys go to
       kTLS, and the kernel shows that it has them.
    6. The socket is put back as it was, DONE is sent, the descriptor is
       closed, and one line says what happened.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cryptography import x509
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ktlsagent import policy
from ktlsagent.configured import Configured
from ktlsagent.credentials.contexts import ProfileContexts
from ktlsagent.credentials.latecontexts import LateContexts, Tokens
from ktlsagent.errors import (
    DeadlineExpired,
    KeyUnusable,
    NetlinkError,
    PeerLeft,
    TokenFailed,
    forgetWay,
    statusOf,
)
from ktlsagent.interfaces import IAgentReactor, IHandshakeKernel, IKernelTLS
from ktlsagent.keyrings import RequestKeyrings
from ktlsagent.keys import RequestKeys
from ktlsagent.ledger import Ledger
from ktlsagent.peers.peerrules import remember
from ktlsagent.policy import Served
from ktlsagent.profiles import Endpoint
from ktlsagent.protocols.handshake import HandshakeProtocol
from ktlsagent.protocols.handshakefamily import AuthMode, HandshakeRequest
from ktlsagent.protocols.interfaces import Engine, TLSParameters
from ktlsagent.protocols.pskserver import engineFor
from ktlsagent.protocols.session import EstablishedSession, Role
from ktlsagent.report import Report
from ktlsagent.sockets import Adopt, UpcallTransport, adoptSocket
from ktlsagent.stepqueue import StepQueue, Turn


class Handover(Protocol):
    """
    The protocol on top of the handshake: the kernel.

    @ivar finished: fires with the session when kTLS has its keys, or fails.
    """

    transport: HandshakeProtocol  # type: ignore[assignment]

    def __init__(self, kernelTLS: IKernelTLS, socket: socket.socket) -> None:
        """
        @param kernelTLS: takes the keys.
        @param socket: the socket that they are for.
        """
        self.finished: Deferred[EstablishedSession] = Deferred()
        self._kernelTLS = kernelTLS
        self._socket = socket

    def connectionMade(self) -> None:
        """The session is up: give its keys to the kernel."""
        session = self.transport.session
        try:
            self._kernelTLS.install(self._socket, session)
        except PeerLeft as left:
            self.finished.errback(Failure(self.transport.lastWords() or left))
        except Exception:  # noqa: BLE001 - the story's to tell
            self.finished.errback(Failure())
        else:
            self.finished.callback(session)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """
        There will be no session.

        @param reason: why.
        """
        self.finished.errback(reason)


@dataclass(frozen=True, slots=True)
class Agent:
    """
    What all requests share.

    @ivar reactor: waits for sockets and gives the time.
    @ivar kernel: gets the answers.
    @ivar kernelTLS: gets the keys.
    @ivar keyrings: what requests hold in the process keyring.
    @ivar configured: the configuration in use.
    @ivar tokens: the tokens with keys of ours.
    @ivar ledger: where all is written down.
    @ivar steps: whose turn it is, and when cryptography runs.
    @ivar adopt: makes a socket of a request's descriptor.
    """

    reactor: IAgentReactor
    kernel: IHandshakeKernel
    kernelTLS: IKernelTLS
    keyrings: RequestKeyrings
    configured: Configured
    tokens: Tokens
    ledger: Ledger
    steps: StepQueue
    adopt: Adopt = adoptSocket


class Upcall:
    """One request."""

    log = Logger()

    def __init__(self, agent: Agent, request: HandshakeRequest, announced: float | None) -> None:
        """
        @param agent: what it shares with others.
        @param request: the kernel's request, just accepted.
        @param announced: when READY came for it, if that is known.
        """
        now = agent.reactor.seconds()
        self._agent = agent
        self._request = request
        # A reload in mid-handshake is for the requests to come.
        self._profiles = agent.configured.profiles
        self._deadline = (now if announced is None else announced) + policy.allowedSeconds(request)
        agent.ledger.latest = max(agent.ledger.latest, self._deadline)
        self._report = Report(request, now)
        self._transport: UpcallTransport | None = None
        self._rings: list[int] = []
        self._late: tuple[LateContexts[ProfileContexts], ProfileContexts] | None = None

    async def serve(self) -> None:
        """
        Serve the request.  Does not raise, and always answers.
        """
        status = errno.EIO
        remoteAuth: Sequence[int] = ()
        tags: Sequence[str] = ()
        admitted: Sequence[x509.Certificate] = ()
        keyrings = self._agent.keyrings
        if self._request.keyring is not None:
            self._rings.append(keyrings.hold(self._request.keyring))
        try:
            transport = self._transport = UpcallTransport(
                self._agent.reactor, self._request.descriptor, self._agent.adopt
            )
            peer = self._report.peer = _endpoint(transport.peer)
            transport.requireTCP()
            served = self._choose(transport, peer)
            self._rings += await keyrings.borrow(
                policy.keyringsFor(self._request, self._profiles.keyrings), self._report.note
            )
            keys = RequestKeys(keyrings.keyrings, self._rings, keyrings.seen)
            served = await self._withTokens(served)
            # Who is refused by that does not wait for a turn.
            plan = policy.plan(self._request, served, keys)
            await self._wait(policy.settleSeconds(self._request))
            refused = isinstance(plan, TLSParameters) and plan.refusal is not None
            with self._agent.steps.turn(
                peer and peer.address, self._deadline, refused=refused
            ) as turn:
                await self._comes(turn, transport)
                engine = engineFor(plan)
                # Nobody but the engine keeps it: a pre-shared key may be in it.
                del plan
                session = await self._handshake(engine, transport, turn)
            status, remoteAuth = 0, policy.remoteAuth(session)
            tags = self._report.tags = served.tags(session.peerChain)
            admitted = session.peerChain
        except Exception as error:  # noqa: BLE001 - whatever it is, the kernel gets its answer
            status = statusOf(error)
            self._report.failed(error)
            # An answer that makes its receiver try again at once is held back.
            await self._wait(min(policy.pauseSeconds(self._request, status), self._left()))
        finally:
            self._answer(status, remoteAuth, tags)
            # Events may be kept by whoever observes them: they are the class's, not ours.
            self._report.write(Upcall.log, status, self._agent.reactor.seconds())
        remember(admitted)

    async def _comes(self, turn: Turn, transport: UpcallTransport) -> None:
        """Wait until it is our turn, and see whether that is still of use."""
        with self._untilDeadline(turn.expire):
            await turn.granted
        transport.requireConnection()

    def _choose(self, transport: UpcallTransport, peer: Endpoint | None) -> Served:
        """Find the profile that the request is served by."""
        asked = policy.askedOf(
            self._request,
            local=_endpoint(transport.local),
            peer=peer,
            keyring=self._agent.keyrings.name(self._request.keyring),
            namespaces=self._agent.configured.namespaces,
        )
        served = policy.choose(asked, self._profiles)
        self._report.profile = served.contexts.profile.name
        return served

    async def _withTokens(self, served: Served) -> Served:
        """Wait for the tokens that hold our keys, if there are any."""
        late = served.contexts.late
        named = None not in (self._request.certificate, self._request.privateKey)
        if late is None or named or served.asked.mode != AuthMode.X509:
            return served
        try:
            contexts = await self._agent.tokens.ready(late, self._deadline)
        except KeyUnusable as error:
            if served.asked.role is Role.CLIENT:
                raise
            # Somebody has to mend it: clients are told, so that they do not try again and again.
            forgetWay(error)
            return replace(served, refusal=error)
        self._late = (late, contexts)
        return replace(served, contexts=contexts)

    async def _handshake(
        self, engine: Engine, transport: UpcallTransport, turn: Turn
    ) -> EstablishedSession:
        """Run the handshake against its deadline, and have its keys installed."""
        self._report.engine = engine
        handover = Handover(self._agent.kernelTLS, transport.socket)
        protocol = HandshakeProtocol(engine, handover, turn.run, self._aside)
        try:
            with self._untilDeadline(lambda: protocol.abort(_expired(protocol))):
                transport.connect(protocol)
                session = await handover.finished
        except TokenFailed:
            if self._late is not None:
                self._agent.tokens.forget(*self._late)
            raise
        self._report.session = session
        return session

    def _aside(self, step: Callable[[], bytes]) -> Deferred[bytes]:
        """Run a step for which a token may have to sign."""
        if self._late is None:
            return fail(ValueError("a key outside the process that no token is known for"))
        return self._agent.tokens.run(self._late[0], self._deadline, step)

    @contextmanager
    def _untilDeadline(self, expired: Callable[[], None]) -> Iterator[None]:
        """Have something called if the deadline comes before the end of a block."""
        self._agent.ledger.timers += 1
        timer = self._agent.reactor.callLater(max(0.0, self._left()), expired)
        try:
            yield
        finally:
            self._agent.ledger.timers -= 1
            if timer.active():
                timer.cancel()

    async def _wait(self, seconds: float) -> None:
        """Let time pass, if there is any."""
        if seconds > 0:
            self._agent.ledger.timers += 1
            await deferLater(self._agent.reactor, seconds)
            self._agent.ledger.timers -= 1

    def _left(self) -> float:
        """How many seconds are left until the deadline."""
        return self._deadline - self._agent.reactor.seconds()

    def _answer(self, status: int, remoteAuth: Sequence[int], tags: Sequence[str]) -> None:
        """Give everything back: the socket as it was, the answer, the descriptor, the keyrings."""
        try:
            if self._transport is not None:
                self._transport.restore()
        except OSError as error:
            self._report.note(f"the socket's options could not be restored: {error}")
        try:
            left = self._agent.kernel.done(self._request.descriptor, status, remoteAuth, tags)
            if left:
                self._report.note(f"the kernel takes no more session tags: {', '.join(left)}")
        except NetlinkError as error:
            self._report.note(f"the kernel did not take the answer: {error}")
        self._agent.ledger.answered += 1
        if self._transport is not None:
            self._transport.close()
        else:
            os.close(self._request.descriptor)
        self._agent.ledger.descriptors -= 1
        for ring in self._rings:
            try:
                self._agent.keyrings.release(ring)
            except OSError as error:
                self._report.note(f"keyring {ring} could not be unlinked: {error}")


def _endpoint(ask: Callable[[], Endpoint]) -> Endpoint | None:
    """Ask for one end of the connection; there may be none any more."""
    try:
        return ask()
    except (OSError, ValueError):
        return None


def _expired(protocol: HandshakeProtocol) -> DeadlineExpired:
    """Say what was waited for when the time was up."""
    found = f"{protocol.records} records from it" if protocol.records else "no record from it"
    return DeadlineExpired(
        "deadline", f"expected the peer to finish within the kernel's deadline, found {found}"
    )
