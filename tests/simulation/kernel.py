"""The fake kernel with consumers that give up, refusals, and a memory for every DONE."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.choices import Choices
from tests.simulation.ktlssocket import Identity, KernelSides
from tests.support.fakekernel import SERVERHELLO, FakeHandshakeKernel, FakeUpcall, Refusal

_SERVER_SECONDS = 5.0
_CLIENT_SECONDS = 10.0
"""How long nfsd and the NFS client wait for their agent."""


@dataclass(frozen=True)
class Attempt:
    """
    One DONE.

    @ivar status: what it says.
    @ivar at: when it was sent.
    @ivar withKeys: whether both directions had keys then.
    """

    status: int
    at: float
    withKeys: bool


@dataclass(eq=False)
class Asked:
    """
    One request from its consumer's side.

    @ivar upcall: the request.
    @ivar since: when it was announced.
    @ivar until: when its consumer gives up.
    @ivar identity: the consumer's socket.
    @ivar attempts: every DONE for it, also those that were refused.
    @ivar cancelled: whether the consumer has given up, and when.
    @ivar timedOut: whether it did so because its time was over.
    @ivar acceptedAt: when it was accepted.
    """

    upcall: FakeUpcall
    since: float
    until: float
    identity: Identity
    attempts: list[Attempt]
    cancelled: float | None = None
    timedOut: bool = False
    acceptedAt: float | None = None


class RandomKernel(FakeHandshakeKernel):
    """
    The handshake family, with a life of its own.

    @ivar asked: all requests, in their order.
    @ivar strangers: how many DONEs named a descriptor that is no request's.
    """

    def __init__(
        self,
        choices: Choices,
        sides: KernelSides,
        seconds: Callable[[], float],
        linkKeyring: Callable[[int], None],
    ) -> None:
        """
        @param choices: the schedule's.
        @param sides: kTLS of all sockets.
        @param seconds: the time.
        @param linkKeyring: links a keyring into the process keyring.
        """
        super().__init__(linkKeyring)
        self.asked: list[Asked] = []
        self.strangers = 0
        self._choices = choices
        self._sides = sides
        self._seconds = seconds

    def note(self, upcall: FakeUpcall, messageType: int, timeoutMilliseconds: int) -> Asked:
        """
        Remember a request that has just been submitted.

        @param upcall: the request.
        @param messageType: which side it asks for.
        @param timeoutMilliseconds: its timeout, 0 for the consumer's own.
        @return: what is known of it.
        """
        allowed = _SERVER_SECONDS if messageType == SERVERHELLO else _CLIENT_SECONDS
        if timeoutMilliseconds:
            allowed = timeoutMilliseconds / 1000
        now = self._seconds()
        asked = Asked(upcall, now, now + allowed, upcall.identity, [])
        self.asked.append(asked)
        return asked

    def cancel(self, asked: Asked, *, timedOut: bool = False) -> None:
        """
        Give a request up (C{handshake_req_cancel}).

        @param asked: the request.
        @param timedOut: whether because its time is over.
        """
        if asked.cancelled is None and not asked.upcall.answers:
            asked.cancelled, asked.timedOut = self._seconds(), timedOut
            if asked.upcall in self.pending:
                self.pending.remove(asked.upcall)

    def passTime(self) -> None:
        """Have consumers give up who have waited long enough."""
        for asked in self.asked:
            if self._seconds() >= asked.until:
                self.cancel(asked, timedOut=True)

    def _accept(self, attributes: dict[int, bytes]) -> bytes:
        if not self.pending:
            raise Refusal(errno.EAGAIN)
        oldest = self.pending[0]
        if self._choices.fails("ACCEPT"):
            # The request is ended, and nobody has its descriptor.
            self.pending.popleft().answers.append((errno.EIO, ()))
            raise Refusal(self._choices.one((errno.EMFILE, errno.ENOMEM, errno.EACCES)))
        reply = super()._accept(attributes)
        self._of(oldest).acceptedAt = self._seconds()
        return reply

    def _done(self, attributes: list[tuple[int, bytes]]) -> None:
        values = dict(attributes)
        try:
            upcall = self._find(struct.unpack("=i", values[2])[0])
        except Refusal:
            self.strangers += 1
            raise
        asked = self._of(upcall)
        side = self._sides.find(asked.identity)
        withKeys = side is not None and None not in (side.transmit, side.receive)
        status = struct.unpack("=I", values[1])[0] if 1 in values else errno.EIO
        asked.attempts.append(Attempt(status, self._seconds(), withKeys))
        if asked.cancelled is not None:
            raise Refusal(errno.EBUSY)
        super()._done(attributes)

    def _of(self, upcall: FakeUpcall) -> Asked:
        return next(asked for asked in self.asked if asked.upcall is upcall)
