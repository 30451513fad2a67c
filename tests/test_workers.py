"""Tests for L{ktlsagent.processes.workers}: the parent, with a template that is none."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, Logger, LogLevel, eventAsJSON, eventAsText
from twisted.python.failure import Failure

from ktlsagent.config import AgentConfig
from ktlsagent.errors import AgentError, ConfigError, StartError
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.processes.channel import decodeConfig
from ktlsagent.processes.workers import WorkerChannel, WorkersService
from ktlsagent.profiles import Match, Profile, Trust
from ktlsagent.protocols.session import Role
from tests.support import certificates
from tests.support.agent import AgentTestCase


class FakeWorker:
    """
    A worker that does what the test says.

    @ivar number: its number.
    @ivar ready: the descriptor of READY that it got.
    @ivar transport: what the parent says to it.
    """

    def __init__(self, number: int, channel: WorkerChannel, ready: int) -> None:
        """
        @param number: its number.
        @param channel: the parent's end of the channel to it.
        @param ready: the descriptor of READY.
        """
        self.number = number
        self.ready = ready
        self.transport = StringTransport()
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

    def up(self) -> None:
        """Say that it is up."""
        self.say(b"up %d" % (1000 + self.number))

    def close(self) -> None:
        """Close the channel."""
        self._channel.connectionLost(Failure(ConnectionDone()))


class FakeTemplate:
    """
    A template that starts no process.

    @ivar running: whether it was started and not stopped.
    @ivar workers: all workers there ever were.
    @ivar broken: whether nothing can be started.
    @ivar lost: to be called when it has died.
    """

    def __init__(
        self,
        _reactor: object,
        _run: object,
        ended: Callable[[int, int], None],
        lost: Callable[[], None],
    ) -> None:
        self.running = False
        self.broken = False
        self.workers: list[FakeWorker] = []
        self.lost = lost
        self._ended = ended

    def start(self) -> None:
        self.running = True

    def spawn(self, number: int, protocol: Any, ready: int) -> None:
        if self.broken:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.workers.append(FakeWorker(number, protocol, ready))

    def stop(self) -> None:
        self.running = False

    def kill(self, worker: FakeWorker, status: int = signal.SIGKILL) -> None:
        """
        End a worker.

        @param worker: which.
        @param status: how, as C{waitpid} says it.
        """
        worker.close()
        self._ended(worker.number, status)


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
        self.assertEqual(self.kernel.sockets, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

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


class StartTests(WorkersTestCase):
    """Starting."""

    def test_start(self) -> None:
        """All workers get READY, which is joined by then, and the configuration."""
        parent = self.begin(3)
        self.assertEqual(len(self.template.workers), 3)
        for worker in self.template.workers:
            self.assertEqual(worker.ready, parent.listener())
            (line,) = worker.told()
            self.assertEqual(line[:5], b"load ")
            used = parent._configured.config
            found = decodeConfig(line[5:])
            self.assertEqual(found.profiles, used.profiles)

    def test_bounds(self) -> None:
        """The workers share what all together may have, and the parent says that."""
        config = self.configuration(certificates.server(), mostHandshakes=11, mostPerPeer=2)
        parent = self.parent(config, 3)
        parent.startService()
        self.addCleanup(self.end, parent)
        self.allUp()
        lines = [worker.told()[0] for worker in self.template.workers]
        shares = [decodeConfig(line.removeprefix(b"load ")) for line in lines]
        self.assertEqual([share.mostHandshakes for share in shares], [3, 4, 4])
        self.assertEqual([share.mostPerPeer for share in shares], [1, 1, 1])
        self.assertEqual(len(self.said("at most 11 handshakes at once, 2 with one peer")), 1)

    def test_ready(self) -> None:
        """It is said once that the agent is ready: when all workers are up."""
        parent = self.begin()
        first, second = self.template.workers
        first.up()
        self.assertEqual((self.ups, self.said("ready:")), (0, []))
        second.up()
        self.assertEqual((self.ups, len(self.said("; 2 workers"))), (1, 1))
        self.template.kill(first)
        self.reactor.advance(0.1)
        self.template.workers[-1].up()
        self.assertEqual((self.ups, len(self.said("ready:"))), (1, 1))
        self.assertFalse(parent.usedTokens)

    def test_saysWhatIsConfigured(self) -> None:
        """What is configured the parent says, once for all."""
        self.begin(3)
        self.allUp()
        self.assertEqual(len(self.said("profile authenticate.")), 2)

    def test_acceptsNothing(self) -> None:
        """The parent leaves requests and their hints to the workers."""
        self.begin()
        self.allUp()
        upcall, _client = self.serve()
        self.reactor.settle()
        self.assertIsNone(upcall.descriptor)

    def test_badConfiguration(self) -> None:
        """Files that are missing are a reason not to start, and no worker is."""
        config = AgentConfig(
            profiles=(Profile("broken", Match(roles=(Role.CLIENT,)), Trust(("/missing",))),)
        )
        parent = self.parent(config)
        self.assertRaises(ConfigError, parent.startService)
        self.assertEqual((self.template.running, self.template.workers), (False, []))
        self.assertEqual(self.kernel.sockets, [])

    def test_oneCannotStart(self) -> None:
        """If one of the first workers cannot start, the agent cannot."""
        self.begin()
        first, second = self.template.workers
        first.up()
        second.say(b"failed")
        self.assertEqual(len(self.fatal), 1)
        self.assertIsInstance(self.fatal[0], StartError)


class SupervisionTests(WorkersTestCase):
    """Workers that die."""

    def test_another(self) -> None:
        """One that dies is replaced soon, with what is in use, and that is said."""
        parent = self.begin()
        self.allUp()
        self.reactor.advance(100)
        first, second = self.template.workers
        self.template.kill(first)
        self.assertEqual(len(self.said("worker 1 was killed by SIGKILL")), 1)
        self.assertEqual(len(self.template.workers), 2)
        self.reactor.advance(0.1)
        third = self.template.workers[2]
        third.up()
        self.assertEqual(third.ready, parent.listener())
        self.assertEqual(len(self.said("worker 1 is up: process 1003")), 1)
        second.told()
        self.assertEqual(second.told(), [])

    def test_status(self) -> None:
        """How one ended is said, whatever it was."""
        self.begin()
        self.allUp()
        self.template.kill(self.template.workers[0], 1 << 8)
        self.assertEqual(len(self.said("worker 1 ended with status 1")), 1)

    def test_backOff(self) -> None:
        """One that dies again and again is waited with longer and longer, up to 10 s."""
        self.begin()
        self.allUp()
        delays = []
        for _time in range(9):
            self.template.kill(self.template.workers[-1])
            number = len(self.template.workers)
            delay = 0.0
            while len(self.template.workers) == number:
                self.reactor.advance(0.1)
                delay += 0.1
            delays.append(delay)
        expected = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
        for found, wanted in zip(delays, expected, strict=True):
            self.assertApproximates(found, wanted, 0.15)
        self.template.workers[-1].up()
        self.reactor.advance(11)
        self.template.kill(self.template.workers[-1])
        self.reactor.advance(0.1)
        self.assertEqual(len(self.template.workers), 12)

    def test_renewed(self) -> None:
        """One that asks for a new one in its place gets it, but not within its first seconds."""
        self.begin()
        self.allUp()
        first, second = self.template.workers
        for worker in (first, second):
            worker.told()
        self.reactor.advance(4)
        first.say(b"renew")
        first.say(b"renew")
        self.reactor.advance(5.9)
        self.assertEqual(first.told(), [])
        self.reactor.advance(0.1)
        self.assertEqual((first.told(), second.told()), ([b"stop "], []))
        self.template.kill(first, 0)
        self.assertEqual(len(self.template.workers), 3)
        self.template.workers[2].up()
        self.assertEqual(len(self.said("worker 1 is up")), 2)
        self.assertEqual(self.said("is lost, and ended by the kernel"), [])

    def test_diesBeforeItIsRenewed(self) -> None:
        """One that asks for a new one and dies is replaced as any other."""
        self.begin()
        self.allUp()
        self.template.workers[0].say(b"renew")
        self.template.kill(self.template.workers[0])
        self.assertEqual(len(self.said("worker 1 was killed by SIGKILL")), 1)
        self.reactor.advance(20)
        self.assertEqual(len(self.template.workers), 3)

    def test_nobodyIsUp(self) -> None:
        """If none is up for 30 s, mounts had better fail than hang: the agent gives up."""
        self.begin()
        self.allUp()
        for worker in list(self.template.workers):
            self.template.kill(worker)
        self.reactor.pump([0.1] * 295)
        self.assertEqual(self.fatal, [])
        self.reactor.pump([0.1] * 10)
        self.assertEqual(len(self.fatal), 1)

    def test_oneIsEnough(self) -> None:
        """As long as one is up there is no reason to give up."""
        self.begin()
        self.allUp()
        for worker in list(self.template.workers):
            self.template.kill(worker)
        self.reactor.advance(0.1)
        self.template.workers[-1].up()
        self.reactor.advance(40)
        self.assertEqual(self.fatal, [])

    def test_laterFailure(self) -> None:
        """A new worker that cannot start, as files are bad now, is tried again later."""
        self.begin()
        self.allUp()
        self.template.kill(self.template.workers[0])
        self.reactor.advance(0.1)
        self.template.workers[2].say(b"failed")
        self.template.kill(self.template.workers[2], 1 << 8)
        self.assertEqual(self.fatal, [])
        self.reactor.advance(0.2)
        self.assertEqual(len(self.template.workers), 4)

    def test_noDescriptors(self) -> None:
        """A worker that cannot be forked is tried again later."""
        self.begin()
        self.allUp()
        self.template.broken = True
        self.template.kill(self.template.workers[0])
        self.reactor.advance(0.1)
        self.assertEqual(len(self.said("worker 1 cannot be started: ")), 1)
        self.template.broken = False
        self.reactor.advance(10)
        self.assertEqual(len(self.template.workers), 3)

    def test_templateLost(self) -> None:
        """Without the template no worker could be replaced: the agent gives up."""
        self.begin()
        self.allUp()
        self.template.lost()
        self.assertEqual(len(self.fatal), 1)


class LogTests(WorkersTestCase):
    """The one log."""

    def test_relays(self) -> None:
        """What a worker logs is logged as its own, with its place and its time."""
        self.begin()
        events: list[LogEvent] = []
        log = Logger("some.where", observer=events.append)  # type: ignore[arg-type]
        log.error("handshake {outcome}", outcome="failed")
        events[0]["log_time"] = 12.5
        self.template.workers[1].say(b"log " + eventAsJSON(events[0]).encode())
        (event,) = self.said("handshake failed")
        self.assertEqual(
            (event["worker"], event["outcome"], event["log_time"]), (2, "failed", 12.5)
        )
        self.assertEqual(event["log_level"], LogLevel.error)
        text = eventAsText(event, includeTimestamp=False)
        self.assertEqual(text, "[some.where#error worker=2] handshake failed")


class ReloadTests(WorkersTestCase):
    """SIGHUP."""

    def reload(self, parent: WorkersService) -> bool:
        """
        Reload.

        @param parent: the parent.
        @return: whether the workers were told to.
        """
        for worker in self.template.workers:
            worker.told()
        done = Deferred.fromCoroutine(parent.reload())
        self.reactor.settle()
        return self.successResultOf(done)

    def test_allWorkers(self) -> None:
        """A configuration that is good goes to all workers, and to those to come."""
        new = self.configuration(
            certificates.server(), debugLevel=1, mostHandshakes=20, mostPerPeer=6
        )
        shared = replace(new, mostHandshakes=10, mostPerPeer=3)
        parent = self.begin(reread=lambda: new)
        self.allUp()
        self.assertTrue(self.reload(parent))
        for worker in self.template.workers:
            (line,) = worker.told()
            self.assertEqual(decodeConfig(line.removeprefix(b"load ")), shared)
            worker.say(b"loaded yes")
        self.template.kill(self.template.workers[0])
        self.reactor.advance(0.1)
        (line,) = self.template.workers[-1].told()
        self.assertEqual(decodeConfig(line.removeprefix(b"load ")), shared)
        self.assertEqual(self.said("goes on with what"), [])

    def test_mistake(self) -> None:
        """A mistake is found by the parent, and no worker hears of it."""
        parent = self.begin()
        self.allUp()
        (self.folder / "authenticate.server.key").chmod(0o644)
        self.assertFalse(self.reload(parent))
        self.assertEqual([worker.told() for worker in self.template.workers], [[], []])

    def test_refusedByOne(self) -> None:
        """A worker that refuses what the parent has found good is named."""
        parent = self.begin()
        self.allUp()
        self.assertTrue(self.reload(parent))
        self.template.workers[1].say(b"loaded no")
        self.assertEqual(len(self.said("worker 2 goes on with what it had read before")), 1)


class StopTests(WorkersTestCase):
    """SIGTERM."""

    def test_waitsForAll(self) -> None:
        """All workers are told to stop, and READY is kept until they have."""
        parent = self.begin()
        self.allUp()
        stopped = parent.stopService()
        first, second = self.template.workers
        self.assertEqual((first.told()[-1], second.told()[-1]), (b"stop ", b"stop "))
        self.template.kill(first, 0)
        self.assertNoResult(stopped)
        self.assertFalse(self.template.running)
        self.assertGreaterEqual(parent.listener(), 0)
        self.template.kill(second, 0)
        self.successResultOf(stopped)
        self.assertEqual(len(self.template.workers), 2)
        self.assertEqual(self.said("is lost"), [])

    def test_forked(self) -> None:
        """
        If it is another process that waits for the workers, the first one lets go of
        what it has, which is enough.
        """
        parent = self.begin()
        self.allUp()
        stopped = parent.stopService()
        parent.forked()
        self.assertNoResult(stopped)
        parent.forget()
        self.assertEqual(self.kernel.sockets, [])
        for worker in self.template.workers:
            worker.close()
        self.successResultOf(stopped)

    def test_doesNotStartAnother(self) -> None:
        """A worker that is waited with when the agent is stopped does not come any more."""
        parent = self.begin()
        self.allUp()
        for worker in list(self.template.workers):
            self.template.kill(worker)
        self.successResultOf(parent.stopService())
        self.reactor.advance(20)
        self.assertEqual((len(self.template.workers), self.fatal), (2, []))

    def test_killsWhatDoesNotEnd(self) -> None:
        """A worker that does not end within the longest deadline is killed."""
        parent = self.begin()
        self.allUp()
        stopped = parent.stopService()
        self.template.workers[0].close()
        self.reactor.advance(12)
        self.assertEqual(self.killed, [(1002, signal.SIGKILL)])
        self.template.kill(self.template.workers[1])
        self.successResultOf(stopped)

    def test_lateWords(self) -> None:
        """What comes while the agent stops is no reason to give up."""
        parent = self.begin()
        stopped = parent.stopService()
        self.template.workers[0].say(b"failed")
        self.template.lost()
        self.allUp()
        self.assertEqual((self.fatal, self.ups), ([], 0))
        for worker in self.template.workers:
            worker.close()
        self.successResultOf(stopped)
