"""Tests for L{ktlsagent.processes.workers}: the parent, with workers that are none."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from ktlsagent import configured
from ktlsagent.config import AgentConfig
from ktlsagent.credentials.contexts import ProfileSet
from ktlsagent.errors import ConfigError, StartError
from ktlsagent.processes.channel import decodeConfig
from ktlsagent.processes.workerlog import asJSON
from ktlsagent.processes.workers import WorkersService
from ktlsagent.profiles import Match, Profile, Trust
from ktlsagent.protocols.session import Role
from tests.support import certificates
from tests.support.brokenopenssl import acceptAll
from tests.support.workers import WorkersTestCase


class StartTests(WorkersTestCase):
    """Starting."""

    def test_start(self) -> None:
        """All workers get the configuration, when READY is joined."""
        parent = self.begin(3)
        self.assertEqual(len(self.template.workers), 3)
        self.assertGreaterEqual(parent.listener(), 0)
        for worker in self.template.workers:
            place, line = worker.told()
            self.assertRegex(place, b"^place [123]$")
            self.assertEqual(line[:4], b"use ")
            used = parent._configured.config
            found = decodeConfig(line[4:])
            self.assertEqual(found.profiles, used.profiles)

    def test_inherited(self) -> None:
        """What the parent has read the workers have without reading it."""
        parent = self.begin()
        self.assertIs(self.template.inherited, parent._configured.profiles)

    def test_tokens(self) -> None:
        """If keys are in tokens, every worker makes its own of what the files say."""
        self.patch(ProfileSet, "late", lambda _profiles: [None])
        self.begin()
        self.assertTrue(self.template.running)
        self.assertIsNone(self.template.inherited)

    def test_bounds(self) -> None:
        """The workers share what all together may have, and the parent says that."""
        config = self.configuration(certificates.server(), mostHandshakes=11, mostPerPeer=2)
        parent = self.parent(config, 3)
        parent.startService()
        self.addCleanup(self.end, parent)
        self.allUp()
        lines = [worker.told()[1] for worker in self.template.workers]
        shares = [decodeConfig(line.removeprefix(b"use ")) for line in lines]
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

    def test_cannotFork(self) -> None:
        """If there can be no template there is no agent."""
        parent = self.parent(self.configuration())
        self.template.broken = True
        error = self.assertRaises(StartError, parent.startService)
        self.assertIn("TasksMax", str(error))

    def test_brokenOpenSSL(self) -> None:
        """With an OpenSSL that is known to be broken no worker is started."""
        self.patch(configured, "requireKnownAnswers", acceptAll)
        parent = self.parent(self.configuration(certificates.server()))
        self.assertRaises(StartError, parent.startService)
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


class ReadyTests(WorkersTestCase):
    """READY."""

    def announce(self, number: int) -> None:
        """
        Have the kernel ask for handshakes.

        @param number: how many.
        """
        for _request in range(number):
            self.kernel.announce()
        self.reactor.turn()

    def tokens(self) -> list[int]:
        """
        Say how many tokens each worker has.

        @return: the numbers.
        """
        return [worker.slot.outstanding for worker in self.template.workers]

    def test_shared(self) -> None:
        """Each READY is one worker's."""
        self.begin(3)
        self.allUp()
        self.announce(1)
        self.assertEqual(sorted(self.tokens()), [0, 0, 1])
        self.announce(5)
        self.assertEqual(self.tokens(), [2, 2, 2])

    def test_beforeTheyAreUp(self) -> None:
        """What is announced before there is anybody waits."""
        self.begin()
        self.announce(2)
        self.template.workers[1].up()
        self.assertEqual(self.tokens(), [0, 2])

    def test_times(self) -> None:
        """Who gets a request knows when its READY was read, also if that was before it started."""
        self.begin()
        self.reactor.advance(1)
        self.announce(1)
        self.reactor.advance(1)
        for worker in self.template.workers:
            worker.announcements.begin()
            self.assertEqual(worker.announcements.announced(5.0), 1.0)
            worker.announcements.settled(0)
        self.allUp()
        self.template.workers[0].take()
        self.announce(1)
        first = self.template.workers[0].announcements
        self.assertEqual((first.due(), first.announced(5.0)), (1, 2.0))

    def test_lost(self) -> None:
        """After ENOBUFS all look for what waits."""
        self.begin()
        self.allUp()
        self.kernel.loseHints()
        self.reactor.turn()
        self.assertEqual(self.tokens(), [25, 25])
        self.assertEqual(len(self.said("READY notifications were lost")), 1)

    def test_full(self) -> None:
        """What one has no room for another gets; what nobody has, who has room first."""
        self.begin()
        self.allUp()
        first, second = self.template.workers
        self.announce(2)
        for worker, expected in ((first, [0, 2]), (second, [0, 0])):
            worker.announcements.settled(worker.announcements.due())
            self.assertEqual(self.tokens(), expected)
        first.announcements.room()
        self.assertEqual(self.tokens(), [2, 0])

    def test_dies(self) -> None:
        """What a dead one had not taken another gets."""
        self.begin()
        self.allUp()
        self.announce(2)
        self.template.kill(self.template.workers[0])
        self.assertEqual(self.tokens()[1], 2)

    def test_hangs(self) -> None:
        """What a hanging one does not take another gets."""
        self.begin()
        self.allUp()
        self.announce(2)
        self.template.workers[1].take()
        self.reactor.pump([0.05] * 2)
        self.assertEqual(self.tokens(), [1, 1])

    def test_renewed(self) -> None:
        """One that is to end gets nothing any more, and others what it has."""
        self.begin()
        self.allUp()
        self.reactor.advance(20)
        self.announce(2)
        self.template.workers[0].say(b"renew")
        self.reactor.advance(0)
        self.assertEqual(self.tokens(), [1, 2])
        self.announce(1)
        self.assertEqual(self.tokens(), [1, 3])

    def test_broken(self) -> None:
        """Without READY there is no going on."""
        self.begin()
        self.allUp()
        self.kernel.readError = errno.EBADF
        self.announce(1)
        self.assertEqual(len(self.fatal), 1)

    def test_reactorIsDeaf(self) -> None:
        """If the reactor does not wait for READY, there is no going on either."""
        parent = self.begin()
        (reader,) = self.reactor.getReaders()
        parent._ready.read = lambda: 1 // 0  # type: ignore[method-assign]
        self.kernel.announce()
        self.assertRaises(ZeroDivisionError, reader.doRead)
        reader.connectionLost(Failure(ZeroDivisionError()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.fatal), 1)


class LogTests(WorkersTestCase):
    """The workers' logs, where twistd logs to something else than standard output."""

    def test_relayed(self) -> None:
        """What the workers write to their standard output the parent logs, to the end."""
        parent = self.begin(relayed=True)
        for worker in self.template.workers:
            self.assertRegex(worker.told()[0], b"^place [12] relayed$")
        assert self.template.output is not None
        output = os.dup(self.template.output)
        event = {"log_format": "handshake {outcome}", "outcome": "failed", "worker": 2}
        line = asJSON({**event, "log_time": 1.0, "log_level": LogLevel.info})
        assert line is not None
        os.write(output, line)
        self.reactor.turn(0.0)
        (event,) = self.said("handshake failed")
        self.assertEqual((event["worker"], event["outcome"]), (2, "failed"))
        stopped = parent.stopService()
        for worker in self.template.workers:
            worker.close()
        self.assertNoResult(stopped)
        os.write(output, line)
        os.close(output)
        self.reactor.settle()
        self.successResultOf(stopped)
        self.assertEqual(len(self.said("handshake failed")), 2)

    def test_relayedFailure(self) -> None:
        """If the parent cannot start nothing is left of it."""
        self.kernelTLS.unavailable = StartError("no kTLS here")
        parent = self.parent(self.configuration(), relayed=True)
        self.assertRaises(StartError, parent.startService)
        self.reactor.settle()
        self.assertEqual(self.reactor.getReaders(), [])


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
        _place, line = self.template.workers[-1].told()
        self.assertEqual(decodeConfig(line.removeprefix(b"load ")), shared)
        self.assertEqual(self.said("goes on with what"), [])

    def test_fileChanged(self) -> None:
        """Once the parent has read the files again, a new worker has to, too."""
        parent = self.begin()
        self.allUp()
        self.assertEqual(self.words(0), b"use")
        parent._configured._filesChanged()
        self.reactor.settle()
        self.assertEqual(self.words(0), b"load")
        self.template.kill(self.template.workers[0])
        self.reactor.advance(0.1)
        self.assertEqual(self.words(-1), b"load")

    def test_refusedReload(self) -> None:
        """As long as nothing else is in use, a new worker has what was read at the start."""
        parent = self.begin()
        self.allUp()
        (self.folder / "authenticate.server.key").chmod(0o644)
        self.assertFalse(self.reload(parent))
        self.template.kill(self.template.workers[0])
        self.reactor.advance(0.1)
        self.assertEqual(self.words(-1), b"use")

    def words(self, index: int) -> bytes:
        """
        Find how a worker was told last what to use.

        @param index: which of all workers.
        @return: the word.
        """
        return self.template.workers[index].told()[-1].partition(b" ")[0]

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
