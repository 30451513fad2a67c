"""
The story of a request, from ACCEPT to DONE.

    1. The kernel has given us a descriptor; from here on it gets an answer,
       whatever happens.
    2. Policy says how the handshake is to be run, or that it is not.
    3. The handshake runs as a Twisted protocol over the socket, in steps,
       against a deadline.
    4. On top of it sits L{Handover}: when it is connected, the keys go to
       kTLS, and the kernel shows that it has them.
    5. The socket is put back as it was, DONE is sent, the descriptor is
       closed, and one line says what happened.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ktlsagent import policy
from ktlsagent.errors import DeadlineExpired, NetlinkError, statusOf
from ktlsagent.interfaces import IAgentReactor, IHandshakeKernel, IKernelTLS
from ktlsagent.keyrings import RequestKeyrings
from ktlsagent.ledger import Ledger
from ktlsagent.policy import ContextSet
from ktlsagent.protocols.engine import TLSEngine
from ktlsagent.protocols.handshake import HandshakeProtocol
from ktlsagent.protocols.handshakefamily import HandshakeRequest
from ktlsagent.protocols.session import EstablishedSession
from ktlsagent.report import Report
from ktlsagent.sockets import UpcallTransport
from ktlsagent.stepqueue import StepQueue


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
class RequestHandler:
    """
    Serves requests; what they share.

    @ivar reactor: waits for sockets and gives the time.
    @ivar kernel: gets the answers.
    @ivar kernelTLS: gets the keys.
    @ivar keyrings: what requests hold in the process keyring.
    @ivar ledger: where all is written down.
    @ivar steps: when cryptography runs.
    """

    reactor: IAgentReactor
    kernel: IHandshakeKernel
    kernelTLS: IKernelTLS
    keyrings: RequestKeyrings
    ledger: Ledger
    steps: StepQueue

    log: ClassVar = Logger()

    async def handle(self, request: HandshakeRequest, contexts: ContextSet) -> None:
        """
        Serve one request.  Does not raise, and always answers.

        @param request: the kernel's request, just accepted.
        @param contexts: what it is served with.
        """
        report = Report(request, self.reactor.seconds())
        deadline = self.reactor.seconds() + policy.allowedSeconds(request)
        transport = None
        session = None
        status = errno.EIO
        if request.keyring is not None:
            self.keyrings.hold(request.keyring)
        try:
            transport = UpcallTransport(self.reactor, request.descriptor)
            session = await self._handshake(request, contexts, transport, deadline, report)
            status = 0
        except Exception as error:  # noqa: BLE001 - whatever it is, the kernel gets its answer
            status = statusOf(error)
            report.failed(error)
            pause = min(policy.pauseSeconds(request, status), deadline - self.reactor.seconds())
            await self._wait(pause)
        finally:
            self._answer(request, transport, session, status, report)
            report.write(self.log, status, self.reactor.seconds())

    async def _handshake(
        self,
        request: HandshakeRequest,
        contexts: ContextSet,
        transport: UpcallTransport,
        deadline: float,
        report: Report,
    ) -> EstablishedSession:
        """Plan the handshake, run it against its deadline, and have its keys installed."""
        report.connected(transport)
        engine = report.engine = TLSEngine(policy.plan(request, contexts))
        handover = Handover(self.kernelTLS, transport.socket)
        protocol = HandshakeProtocol(engine, handover, lambda step: self.steps.add(deadline, step))
        await self._wait(policy.settleSeconds(request))
        transport.connect(protocol)
        self.ledger.timers += 1
        timer = self.reactor.callLater(
            deadline - self.reactor.seconds(), lambda: protocol.abort(_expired(protocol))
        )
        try:
            session = await handover.finished
        finally:
            self.ledger.timers -= 1
            if timer.active():
                timer.cancel()
        report.session = session
        return session

    async def _wait(self, seconds: float) -> None:
        """Let time pass, if there is any."""
        if seconds > 0:
            self.ledger.timers += 1
            await deferLater(self.reactor, seconds)
            self.ledger.timers -= 1

    def _answer(
        self,
        request: HandshakeRequest,
        transport: UpcallTransport | None,
        session: EstablishedSession | None,
        status: int,
        report: Report,
    ) -> None:
        """Give everything back: the socket as it was, the answer, the descriptor, the keyring."""
        remoteAuth = policy.remoteAuth(session) if session is not None and status == 0 else ()
        try:
            if transport is not None:
                transport.restore()
        except OSError as error:
            report.note(f"the socket's options could not be restored: {error}")
        try:
            self.kernel.done(request.descriptor, status, remoteAuth)
        except NetlinkError as error:
            report.note(f"the kernel did not take the answer: {error}")
        self.ledger.answered += 1
        if transport is not None:
            transport.close()
        else:
            os.close(request.descriptor)
        self.ledger.descriptors -= 1
        if request.keyring is not None:
            try:
                self.keyrings.release(request.keyring)
            except OSError as error:
                report.note(f"keyring {request.keyring} could not be unlinked: {error}")


def _expired(protocol: HandshakeProtocol) -> DeadlineExpired:
    """Say what was waited for when the time was up."""
    found = f"{protocol.records} records from it" if protocol.records else "no record from it"
    return DeadlineExpired(
        "deadline", f"expected the peer to finish within the kernel's deadline, found {found}"
    )
