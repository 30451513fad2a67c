"""Workers that are no processes, and a parent of such."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, eventAsText
from twisted.python.failure import Failure

from ktlsagent.config import AgentConfig
from ktlsagent.errors import AgentError
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.processes.slot import Slot, SlotAnnouncements
from ktlsagent.processes.workerchannel import WorkerChannel
from ktlsagent.processes.workers import WorkersService
from tests.support import certificates
from tests.support.agent import AgentTestCase


class AbortingTransport(StringTransport):
    """
    A transport that notes whether it was aborted.

    @ivar aborted: that.
    """

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class FakeWorker:
    """
    A worker that does what the test says.

    @ivar number: its number.
    @ivar slot: its end of what it shares with the parent.
    @ivar announcements: what comes there.
    @ivar transport: what the parent says to it.
    """

    def __init__(
        self, clock: IReactorTime, number: int, channel: WorkerChannel, memory: int, bell: int
    ) -> None:
        """
        @param clock: its reactor.
        @param number: its number.
        @param channel: the parent's end of the channel to it.
        @param memory: the parent's descriptor of the slot's page.
        @param bell: the parent's descriptor of the slot's bell.
        """
        self.number = number
        self.slot = Slot(os.dup(memory), os.dup(bell))
        self.announcements = SlotAnnouncements(
            clock, self.slot, lambda word, value: self.say(word.encode() + b" " + value)
        )
        self.transport = AbortingTransport()
        self._channel = channel
        channel.makeConnection(self.transport)

    def told(self) -> list[bytes]:
        """
        Find what the parent has said, and forget it.

        @return: the lines.
        """
        lines: list[bytes] = self.transport.value().split(b"\n")[:-1]
        self.transport.clear()
        return lines

    def say(self, line: bytes) -> None:
        """
        Say something to the parent.

        @param line: what.
        """
        self._channel.dataReceived(line + b"\n")

    def begin(self) -> None:
        """Say that there is a process."""
        self.say(b"pid %d" % (1000 + self.number))

    def up(self) -> None:
        """Say that it is up."""
        self.begin()
        self.say(b"up ")

    def take(self) -> int | None:
        """
        Take all its tokens.

        @return: how many there were.
        """
        due = self.announcements.due()
        self.announcements.settled(0)
        return due

    def close(self) -> None:
        """Close the channel."""
        self._channel.connectionLost(Failure(ConnectionDone()))

    def forget(self) -> None:
        """Give its end of the slot back."""
        self.slot.close()


class FakeTemplate:
    """
    A template that starts no process.

    @ivar running: whether it was started and not stopped.
    @ivar output: the descriptor of the workers' standard output, if not ours.
    @ivar inherited: what workers get without a copy.
    @ivar starts: how often it was started anew.
    @ivar workers: all workers there ever were.
    @ivar broken: whether nothing can be started.
    """

    def __init__(
        self,
        clock: IReactorTime,
        _run: object,
        ended: Callable[[int, int], None],
        failed: Callable[[int, OSError], None],
        lost: Callable[[], None],
    ) -> None:
        self.running = False
        self._clock = clock
        self.output: int | None = None
        self.inherited: object = None
        self.broken = False
        self.starts = 0
        self.workers: list[FakeWorker] = []
        self.ended = ended
        self.failed = failed
        self._lost = lost

    def start(self, output: int | None, inherited: object) -> None:
        if self.broken:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self.running = True
        self.output = output
        self.inherited = inherited

    def startAnew(self, output: int | None) -> None:
        self.starts += 1
        self.start(output, None)

    def spawn(self, number: int, protocol: Any, descriptors: Sequence[int]) -> None:
        if self.broken or not self.running:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.workers.append(FakeWorker(self._clock, number, protocol, *descriptors))

    def stop(self) -> None:
        self.running = False

    def lose(self) -> None:
        """End the template itself."""
        self.running = False
        self._lost()

    def kill(self, worker: FakeWorker, status: int = signal.SIGKILL) -> None:
        """
        End a worker.

        @param worker: which.
        @param status: how, as C{waitpid} says it.
        """
        worker.close()
        self.ended(worker.number, status)


class WorkersTestCase(AgentTestCase):
    """
    Tests of a parent.

    @ivar template: starts its workers.
    @ivar ups: how often it was said that all are up.
    @ivar fatal: why there is no going on.
    @ivar killed: process ids that got a signal.
    """

    template: FakeTemplate

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "sched_getaffinity", lambda _pid: range(100))
        self.ups = 0
        self.fatal: list[AgentError] = []
        self.killed: list[tuple[int, int]] = []

    def parent(self, config: AgentConfig, number: int = 2, **arguments: Any) -> WorkersService:
        """
        Make a parent.

        @param config: its configuration.
        @param number: how many workers it has.
        @param arguments: more for its constructor.
        @return: the parent, not started.
        """

        def up() -> None:
            self.ups += 1

        def template(*arguments: Any) -> FakeTemplate:
            self.template = FakeTemplate(*arguments)
            self.addCleanup(self._forgetWorkers)
            return self.template

        return WorkersService(
            self.reactor,
            config,
            number,
            up=up,
            fatal=self.fatal.append,
            kernel=HandshakeNetlink(
                self.kernel.socket, self.kernel.listenersFile, self.kernel.adopt
            ),
            kernelTLS=self.kernelTLS,
            keyrings=self.keyrings,
            template=template,
            kill=lambda pid, number: self.killed.append((pid, number)),
            **arguments,
        )

    def begin(self, number: int = 2, **arguments: Any) -> WorkersService:
        """
        Start a parent, whose workers are not up yet.

        @param number: how many workers it has.
        @param arguments: more for its constructor.
        @return: the parent.
        """
        parent = self.parent(self.configuration(certificates.server()), number, **arguments)
        parent.startService()
        self.addCleanup(self.end, parent)
        return parent

    def end(self, parent: WorkersService) -> None:
        """
        Stop a parent, if it runs, and see that nothing is left.

        @param parent: the parent.
        """
        if parent.running:
            stopped = parent.stopService()
            for worker in self.template.workers:
                worker.close()
            self.successResultOf(stopped)
        self.reactor.settle()
        self.assertFalse(self.template.running)
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.kernel.sockets, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def _forgetWorkers(self) -> None:
        for worker in self.template.workers:
            worker.forget()

    def allUp(self) -> None:
        """Say that all workers are up."""
        for worker in self.template.workers:
            worker.up()

    def said(self, part: str) -> list[LogEvent]:
        """
        Find what was logged.

        @param part: a part of the text.
        @return: the events with that part.
        """
        return [event for event in self.events if part in eventAsText(event)]
