"""Schedules of chance, and that their checker finds agents that are broken."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.ktls import KernelTLS
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.protocols.session import Direction, EstablishedSession
from ktlsagent.report import Report
from ktlsagent.request import Upcall
from ktlsagent.sockets import UpcallTransport
from tests.simulation.__main__ import live
from tests.simulation.materials import SECRET, Materials

_SCHEDULES = 60
_ENOUGH = 100
"""In how many schedules any broken agent is found out."""


class ScheduleTests(SynchronousTestCase):
    """Many schedules, and broken agents."""

    materials: ClassVar[Materials | None] = None

    def setUp(self) -> None:
        if ScheduleTests.materials is None:
            folder = Path(self.mktemp()).absolute()
            folder.mkdir()
            ScheduleTests.materials = Materials(folder)

    def found(self, schedules: int, words: str = "") -> list[str]:
        """Live some schedules, until there is something that does not hold."""
        assert self.materials is not None
        seen: list[str] = []
        for seed in range(schedules):
            _world, found = live(seed, self.materials)
            # What is logged as an error is judged by the checker.
            self.flushLoggedErrors()
            seen += [f"schedule {seed}: {one}" for one in found]
            if any(words in one for one in found):
                break
        return seen

    def breaks(self, words: str) -> None:
        """See that the checker says something of a broken agent."""
        # What such an agent leaves behind tells of itself when it goes.
        self.addCleanup(gc.collect)
        found = self.found(_ENOUGH, words)
        self.assertTrue(any(words in one for one in found), found)

    def test_nothingIsViolated(self) -> None:
        """Whatever chance does, every request is answered once, and nothing is left behind."""
        self.assertEqual(self.found(_SCHEDULES), [])

    def test_repeatable(self) -> None:
        """A seed makes the same schedule again."""
        assert self.materials is not None
        statuses = []
        for _time in range(2):
            world, _found = live(7, self.materials)
            self.flushLoggedErrors()
            statuses.append([asked.upcall.status for asked in world.kernel.asked])
        self.assertEqual(*statuses)

    def test_answeredTwice(self) -> None:
        """An agent that answers twice is found out."""
        done = HandshakeNetlink.done

        def twice(kernel: HandshakeNetlink, *arguments: Any) -> Sequence[str]:
            done(kernel, *arguments)
            return done(kernel, *arguments)

        self.patch(HandshakeNetlink, "done", twice)
        self.breaks("answered 2 times")

    def test_neverAnswered(self) -> None:
        """An agent that does not answer is found out."""
        self.patch(HandshakeNetlink, "done", lambda *_ignored: ())
        self.breaks("answered 0 times")

    def test_answeredBehindItsEnd(self) -> None:
        """An agent that closes the descriptor before it answers is found out."""
        answer = Upcall._answer

        def closed(upcall: Upcall, *arguments: Any) -> None:
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, upcall._request.descriptor)
            os.close(null)
            answer(upcall, *arguments)

        self.patch(Upcall, "_answer", closed)
        self.breaks("no request's any more")

    def test_successWithoutKeys(self) -> None:
        """An agent that gives the kernel no keys is found out."""
        self.patch(KernelTLS, "install", lambda *_ignored: None)
        self.breaks("kTLS has no keys")

    def test_wrongKeys(self) -> None:
        """An agent that counts its records wrongly is found out."""
        install = KernelTLS.install

        def shifted(kernel: KernelTLS, connection: Any, session: EstablishedSession) -> None:
            sent = session.transmit
            transmit = Direction(sent.keys, sent.sequence + 1)
            install(kernel, connection, replace(session, transmit=transmit))

        self.patch(KernelTLS, "install", shifted)
        self.breaks("keys do not work")

    def test_readAhead(self) -> None:
        """An agent that reads past the handshake is found out."""
        restore = UpcallTransport.restore

        def greedy(transport: UpcallTransport) -> None:
            try:
                transport.socket.recv(2**14)
            except OSError as error:
                self.assertNotEqual(error.errno, errno.EBADF)
            restore(transport)

        self.patch(UpcallTransport, "restore", greedy)
        self.breaks("keys do not work")

    def test_leaks(self) -> None:
        """An agent that keeps a descriptor is found out."""
        close = UpcallTransport.close

        def kept(transport: UpcallTransport) -> None:
            copy = os.dup(transport.fileno())
            self.addCleanup(os.close, copy)
            close(transport)

        self.patch(UpcallTransport, "close", kept)
        self.breaks("descriptors are still open")

    def test_keeps(self) -> None:
        """An agent that keeps what a request was made of is found out."""
        kept: list[Upcall] = []
        answer = Upcall._answer

        def keeping(upcall: Upcall, *arguments: Any) -> None:
            kept.append(upcall)
            answer(upcall, *arguments)

        self.patch(Upcall, "_answer", keeping)
        self.breaks("somebody keeps")

    def test_late(self) -> None:
        """An agent that does not heed deadlines is found out."""
        self.patch(Upcall, "_left", lambda _upcall: 60.0)
        self.breaks("given up by its consumer")

    def test_silent(self) -> None:
        """An agent that does not tell of a request is found out."""
        self.patch(Report, "write", lambda *_ignored: None)
        self.breaks("0 were told of")

    def test_talkative(self) -> None:
        """An agent that logs a key is found out."""
        fields: Callable[..., dict[str, str]] = Report._fields

        def telling(report: Report, *arguments: Any) -> dict[str, str]:
            return {**fields(report, *arguments), "reason": SECRET.hex()}

        self.patch(Report, "_fields", telling)
        self.breaks("pre-shared key was logged")
