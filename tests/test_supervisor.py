"""Tests for L{ktlsagent.processes.supervisor}: workers that die, hang, and end."""

from __future__ import annotations

import errno
import os
import signal

from tests.support.workers import WorkersTestCase


class SupervisionTests(WorkersTestCase):
    """Workers that die."""

    def test_another(self) -> None:
        """One that dies is replaced soon, with what is in use, and that is said."""
        self.begin()
        self.allUp()
        self.reactor.advance(100)
        first, second = self.template.workers
        self.template.kill(first)
        self.assertEqual(len(self.said("worker 1 was killed by SIGKILL")), 1)
        self.assertEqual(len(self.template.workers), 2)
        self.reactor.advance(0.1)
        third = self.template.workers[2]
        third.up()
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

    def test_oneDescriptorShort(self) -> None:
        """
        If a worker's number is not known, as its start had failed half way, its end
        ends nobody else.
        """
        self.begin()
        self.allUp()
        self.template.ended(4711, 0)
        self.template.failed(4712, OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
        self.assertEqual((self.fatal, len(self.template.workers)), ([], 2))

    def test_cannotFork(self) -> None:
        """A worker that the template cannot fork is tried again, later and later."""
        self.begin()
        self.allUp()
        self.template.kill(self.template.workers[0])
        for delay in 0.1, 0.2, 0.4:
            self.reactor.advance(delay)
            last = self.template.workers[-1]
            self.template.failed(last.number, OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
            last.close()
        self.assertEqual(len(self.said("worker 1 cannot be started: ")), 3)
        self.reactor.advance(0.8)
        self.assertEqual(len(self.template.workers), 6)
        self.assertEqual(self.fatal, [])

    def test_statusComesLate(self) -> None:
        """It does not matter which comes first: the end of the channel, or how it ended."""
        self.begin()
        self.allUp()
        first, second = self.template.workers
        self.template.ended(first.number, signal.SIGKILL)
        self.assertEqual(self.said("worker 1 was killed"), [])
        first.close()
        second.close()
        self.template.ended(second.number, signal.SIGSEGV)
        self.assertEqual(len(self.said("worker 1 was killed by SIGKILL")), 1)
        self.assertEqual(len(self.said("worker 2 was killed by SIGSEGV")), 1)

    def test_statusDoesNotCome(self) -> None:
        """A worker that nobody tells of is replaced all the same."""
        self.begin()
        self.allUp()
        self.template.workers[0].close()
        self.reactor.advance(2)
        self.assertEqual(len(self.said("worker 1 ended, nobody knows how")), 1)
        self.reactor.advance(0.1)
        self.assertEqual(len(self.template.workers), 3)

    def test_channelStaysOpen(self) -> None:
        """A worker that has ended is not waited for, though its channel is open somewhere."""
        self.begin()
        self.allUp()
        first = self.template.workers[0]
        self.template.ended(first.number, signal.SIGKILL)
        self.reactor.advance(2)
        self.assertTrue(first.transport.aborted)
        first.close()
        self.reactor.advance(0.1)
        self.assertEqual(len(self.template.workers), 3)

    def test_doesNotStart(self) -> None:
        """A worker that hangs while it starts is killed, and another one is tried."""
        self.begin()
        first, second = self.template.workers
        first.up()
        second.begin()
        self.reactor.advance(60)
        self.assertEqual(self.killed, [(1002, signal.SIGKILL)])
        self.assertEqual(len(self.said("worker 2 does not start: killed")), 1)
        self.template.kill(second)
        self.reactor.advance(0.1)
        self.template.workers[2].up()
        self.assertEqual((self.ups, self.fatal), (1, []))

    def test_isNotEvenKilled(self) -> None:
        """A worker that does not end when it is killed does not keep its place."""
        self.begin()
        first, second = self.template.workers
        first.up()
        second.begin()
        self.reactor.pump([60, 2])
        self.assertTrue(second.transport.aborted)
        second.close()
        self.reactor.pump([2, 0.1])
        self.assertEqual(len(self.template.workers), 3)

    def test_failsAndComesUp(self) -> None:
        """A worker that has said that it cannot start gets nothing, whatever it says later."""
        self.begin()
        self.allUp()
        self.template.kill(self.template.workers[0])
        self.reactor.advance(0.1)
        third = self.template.workers[2]
        third.say(b"failed ")
        third.up()
        self.assertEqual(len(self.said("worker 1 is up")), 1)
        for _time in range(4):
            self.serve()
        self.reactor.settle()
        self.assertEqual(third.take(), 0)

    def test_templateLost(self) -> None:
        """The template is made anew when it is lost, and the workers go on."""
        self.begin()
        self.allUp()
        self.template.lose()
        self.assertEqual((self.template.starts, self.fatal), (0, []))
        self.reactor.advance(0.1)
        self.assertEqual((self.template.starts, len(self.template.workers)), (1, 2))
        self.template.workers[0].close()
        self.assertEqual(len(self.said("worker 1 ended, nobody knows how")), 1)
        self.reactor.advance(0.1)
        self.assertEqual(len(self.template.workers), 3)

    def test_templateLostAgainAndAgain(self) -> None:
        """It is tried later and later, up to 10 s; no worker is lost by that."""
        self.begin()
        self.allUp()
        self.template.broken = True
        self.template.lose()
        self.reactor.pump([0.1] * 305)
        self.assertEqual((self.template.starts, self.fatal), (8, []))
        self.template.broken = False
        self.reactor.advance(10)
        self.assertTrue(self.template.running)

    def test_diesWithoutTemplate(self) -> None:
        """A worker that dies while there is no template starts when there is one."""
        self.begin()
        self.allUp()
        first = self.template.workers[0]
        self.template.lose()
        first.close()
        self.reactor.pump([0.1] * 10)
        self.assertEqual(len(self.template.workers), 3)

    def test_templateHangs(self) -> None:
        """If nobody begins to be a worker it is the template that hangs: it is made anew."""
        self.begin()
        self.template.workers[0].up()
        self.reactor.advance(60)
        second = self.template.workers[1]
        self.assertEqual((self.killed, self.template.running), ([], False))
        self.reactor.advance(2)
        self.assertEqual((self.template.running, self.template.starts), (True, 1))
        self.assertTrue(second.transport.aborted)
        second.close()
        self.reactor.advance(0.2)
        self.assertEqual(len(self.template.workers), 3)


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

    def test_killsWhatHasNotStarted(self) -> None:
        """One that hangs in its start is killed as well: its process is known."""
        parent = self.begin()
        for worker in self.template.workers:
            worker.begin()
        stopped = parent.stopService()
        self.reactor.advance(12)
        self.assertEqual(self.killed, [(1001, signal.SIGKILL), (1002, signal.SIGKILL)])
        for worker in self.template.workers:
            worker.close()
        self.successResultOf(stopped)

    def test_waitsNoLonger(self) -> None:
        """One that cannot be killed, or has no process, is not waited for."""
        parent = self.begin()
        self.template.workers[0].begin()
        stopped = parent.stopService()
        self.reactor.pump([12, 2])
        self.assertEqual(self.killed, [(1001, signal.SIGKILL)])
        for worker in self.template.workers:
            self.assertTrue(worker.transport.aborted)
            worker.close()
        self.successResultOf(stopped)

    def test_waitsForLongDeadlines(self) -> None:
        """One with a request of a long deadline is waited for until then, and a little longer."""
        parent = self.begin()
        self.allUp()
        self.template.workers[0].announcements.load(1, 100.2, busy=False, crowded=False)
        stopped = parent.stopService()
        self.assertEqual(parent.secondsLeft(), 105)
        self.reactor.advance(102.9)
        self.assertEqual(self.killed, [])
        self.reactor.advance(0.2)
        self.assertEqual([pid for pid, _number in self.killed], [1001, 1002])
        for worker in self.template.workers:
            worker.close()
        self.successResultOf(stopped)

    def test_diesAndIsStopped(self) -> None:
        """One that is gone when the agent stops, but of whom no word has come, is forgotten."""
        parent = self.begin()
        self.allUp()
        first, second = self.template.workers
        first.close()
        stopped = parent.stopService()
        self.assertEqual(first.told()[2:], [])
        second.close()
        self.successResultOf(stopped)

    def test_lateWords(self) -> None:
        """What comes while the agent stops is no reason to give up."""
        parent = self.begin()
        stopped = parent.stopService()
        self.template.workers[0].say(b"failed")
        self.template.lose()
        self.allUp()
        self.assertEqual((self.fatal, self.ups), ([], 0))
        for worker in self.template.workers:
            worker.close()
        self.successResultOf(stopped)
