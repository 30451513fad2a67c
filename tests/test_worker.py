"""Tests for L{ktlsagent.processes.worker}: the child, on fakes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import deque
from pathlib import Path

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.testing import StringTransport
from twisted.logger import eventAsText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

import ktlsagent
from ktlsagent.config import AgentConfig
from ktlsagent.credentials.loading import loadProfiles
from ktlsagent.errors import AgentError, OutOfDescriptors, StartError
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.processes.channel import encodeConfig
from ktlsagent.processes.slot import Slot
from ktlsagent.processes.worker import Worker, giveWay
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES
from ktlsagent.service import AgentService
from tests.support import certificates
from tests.support.agent import AgentTestCase
from tests.support.fakekernel import SERVERHELLO

ROOT = Path(ktlsagent.__file__).parents[1]


class StoppingReactor:
    """
    What L{Worker} asks of a reactor.

    @ivar stopped: how often it was stopped.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: gives the time.
        """
        self.stopped = 0
        self._clock = clock

    def seconds(self) -> float:
        return self._clock.seconds()

    def stop(self) -> None:
        self.stopped += 1


class WorkerTests(AgentTestCase):
    """Tests for L{Worker}."""

    def setUp(self) -> None:
        self.slot = Slot.make()
        self.addCleanup(self.slot.close)
        super().setUp()
        self.logs: list[tuple[int, bool]] = []
        self.ending = StoppingReactor(self.reactor)
        self.worker = Worker(
            self.ending,
            self.make,
            self.slot,
            lambda place, *, relayed: self.logs.append((place, relayed)),
        )
        self.parent = StringTransport()
        self.worker.makeConnection(self.parent)

    def make(self, *, config: AgentConfig, **arguments: object) -> AgentService:
        """
        Make the worker's agent.

        @param config: its configuration.
        @param arguments: for its constructor.
        @return: the agent.
        """
        return self.agent(config, **arguments)

    def load(self, config: AgentConfig, word: bytes = b"load") -> None:
        """
        Have the worker load a configuration.

        @param config: the configuration.
        @param word: how it is told to.
        """
        self.worker.dataReceived(word + b" " + encodeConfig(config) + b"\n")
        self.reactor.settle()

    def inherit(self, config: AgentConfig) -> None:
        """
        Give the worker what its parent has read, and make the files unusable.

        @param config: what the parent has read.
        """
        self.worker._inherited = loadProfiles(config, frozenset(CIPHER_SUITES))
        (self.folder / "authenticate.server.key").chmod(0o644)

    def give(self, number: int = 1) -> None:
        """
        Give the worker tokens, as its parent does.

        @param number: how many.
        """
        for _token in range(number):
            self.slot.give(self.reactor.seconds())
        self.slot.ring()

    def said(self) -> list[bytes]:
        """
        Find what was said to the parent, and forget it.

        @return: the words.
        """
        lines: list[bytes] = self.parent.value().split(b"\n")[:-1]
        self.parent.clear()
        return lines

    def lost(self) -> None:
        """Close the channel."""
        self.worker.connectionLost(Failure(ConnectionDone()))

    def stopped(self) -> None:
        """The agent has been stopped by the worker: its books are closed."""
        self.agents.clear()

    def test_serves(self) -> None:
        """With a configuration it starts, and serves what the kernel asks."""
        self.load(self.configuration(certificates.server()))
        self.assertEqual(self.said(), [b"up "])
        upcall, client = self.serve()
        self.give()
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_asksOncePerToken(self) -> None:
        """It takes a request for each token, and leaves others to others."""
        self.load(self.configuration(certificates.server()))
        asked = [self.serve() for _request in range(3)]
        self.reactor.settle()
        self.assertEqual(len(self.kernel.pending), 3)
        self.give(2)
        self.run_(*(client for _upcall, client in asked[:2]))
        self.assertEqual([upcall.status for upcall, _client in asked], [0, 0, None])
        self.assertEqual(self.slot.outstanding, 0)

    def test_tokenForNothing(self) -> None:
        """A token for a request that somebody else has taken does no harm."""
        self.load(self.configuration())
        self.give(5)
        self.reactor.settle()
        self.assertEqual((self.slot.outstanding, self.slot.state()[-1]), (0, False))

    def test_takesWhatIsPending(self) -> None:
        """A new worker takes what waits already, without a token."""
        upcall, client = self.serve()
        self.load(self.configuration(certificates.server()))
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_fromReady(self) -> None:
        """The kernel's time for a request runs from its announcement, also in a worker."""
        self.load(self.configuration())
        upcall, _far = self.ask(SERVERHELLO)
        self.reactor.advance(2)
        self.slot.give(self.reactor.seconds() - 2)
        self.slot.ring()
        self.reactor.settle()
        for passes, status in ((2.3, None), (0.3, errno.ETIMEDOUT)):
            self.reactor.turn(passes)
            self.assertEqual(upcall.status, status)

    def test_fromReadyAtTheStart(self) -> None:
        """A new worker knows for how long what it finds has waited."""
        upcall, _far = self.ask(SERVERHELLO)
        self.reactor.advance(2)
        self.slot.foretell([self.reactor.seconds() - 2])
        self.load(self.configuration())
        for passes, status in ((2.3, None), (0.3, errno.ETIMEDOUT)):
            self.reactor.turn(passes)
            self.assertEqual(upcall.status, status)

    def test_looksBetweenSteps(self) -> None:
        """A token is seen between two steps, without a turn of the reactor."""
        self.load(self.configuration(certificates.server()))
        self.serve()
        self.slot.give(self.reactor.seconds())
        self.agents[0]._look()
        self.assertEqual(self.slot.outstanding, 0)
        self.assertEqual(self.kernel.pending, deque())
        self.reactor.turn(4.6)

    def test_tellsItsLoad(self) -> None:
        """The parent knows how many requests are in flight, and until when."""
        self.load(self.configuration())
        self.ask(SERVERHELLO)
        self.give()
        self.reactor.settle()
        self.assertEqual(self.slot.state(), (1, 1, False, False, False))
        self.assertEqual(self.slot.latest, 5)
        self.reactor.turn(4.6)
        self.assertEqual(self.slot.state(), (1, 0, False, False, False))

    def test_noRoom(self) -> None:
        """
        Without a free descriptor it gives its tokens back at once, and tells when it
        has room again.
        """
        self.load(self.configuration(certificates.server()))
        self.said()
        upcall, client = self.serve()
        self.serve()
        self.patch(HandshakeNetlink, "_spareDescriptor", self.refuse)
        self.give(2)
        self.reactor.turn()
        self.assertEqual((self.said(), self.slot.reclaim()), ([b"back "], 2))
        self.assertEqual((self.slot.state()[-1], self.slot.outstanding), (True, 0))
        self.reactor.turn(0.1)
        self.assertEqual(self.said(), [])
        self.patch(HandshakeNetlink, "_spareDescriptor", lambda _kernel: -1)
        self.reactor.turn(0.1)
        self.assertEqual((self.said(), self.slot.state()[-1]), ([b"room "], False))
        self.assertIsNone(upcall.descriptor)
        self.give(2)
        self.run_(client)
        self.assertEqual(upcall.status, 0)
        self.reactor.turn(4.6)

    @staticmethod
    def refuse(_kernel: object) -> None:
        """
        Have no room.

        @param _kernel: the kernel.
        @raise OutOfDescriptors: always.
        """
        raise OutOfDescriptors("no room")

    def test_noRoomAtTheStart(self) -> None:
        """One that cannot take what waits already has all others look for it."""
        self.patch(HandshakeNetlink, "_spareDescriptor", self.refuse)
        self.load(self.configuration())
        self.assertEqual(self.said(), [b"back ", b"up "])
        self.assertEqual(self.slot.reclaim(), 50)
        self.worker.dataReceived(b"stop\n")
        self.agents.clear()

    def test_stopsWithTokens(self) -> None:
        """When it stops it gives back what it has not taken, and takes nothing any more."""
        self.load(self.configuration())
        self.said()
        self.slot.give(self.reactor.seconds())
        self.serve()
        self.worker.dataReceived(b"stop\n")
        self.assertEqual((self.said(), self.slot.reclaim()), ([b"back "], 1))
        self.assertTrue(self.slot.state()[-1])
        self.assertEqual(len(self.kernel.pending), 1)
        self.stopped()

    def test_kernelRefuses(self) -> None:
        """If the kernel does not let it take requests any more, others get its tokens."""
        self.load(self.configuration())
        self.said()
        self.kernel.privileged = False
        self.give(2)
        self.reactor.settle()
        self.assertEqual((self.said(), self.slot.reclaim()), ([b"back "], 2))
        self.lost()
        self.assertEqual((self.ending.stopped, self.worker.status), (1, 1))
        self.stopped()

    def test_leavesTheTalkingToTheParent(self) -> None:
        """What is said about all workers only the parent says; handshakes each says itself."""
        self.load(self.configuration(certificates.server()))
        _upcall, client = self.serve()
        self.give()
        self.run_(client)
        texts = [eventAsText(event) for event in self.events]
        self.assertEqual([text for text in texts if "handshake ok" not in text], [])
        self.assertEqual(len(texts), 1)

    def test_reloads(self) -> None:
        """A second configuration replaces the first."""
        self.load(self.configuration())
        self.said()
        self.load(self.configuration(certificates.server()))
        self.assertEqual(self.said(), [b"loaded yes"])
        upcall, client = self.serve()
        self.give()
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_inherits(self) -> None:
        """It serves with what its parent has read before the fork, and reads no file."""
        config = self.configuration(certificates.server())
        self.inherit(config)
        self.load(config, b"use")
        self.assertEqual(self.said(), [b"up "])
        self.assertIs(self.agents[0]._configured.profiles, self.worker._inherited)
        upcall, client = self.serve()
        self.give()
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_inheritsAndReloads(self) -> None:
        """What was inherited is used at the start only: a reload reads the files."""
        config = self.configuration(certificates.server())
        self.inherit(config)
        self.load(config, b"use")
        self.load(config)
        self.assertEqual(self.said(), [b"up ", b"loaded no"])
        (self.folder / "authenticate.server.key").chmod(0o600)
        self.load(config)
        self.assertEqual(self.said(), [b"loaded yes"])
        self.assertIsNot(self.agents[0]._configured.profiles, self.worker._inherited)

    def test_inheritsWhatIsOld(self) -> None:
        """What was read before the fork is nothing to a worker that is told to read."""
        config = self.configuration(certificates.server())
        self.inherit(config)
        self.load(config)
        self.assertEqual(self.said(), [b"failed "])
        self.lost()

    def test_inheritsNothing(self) -> None:
        """A worker that is a program of its own reads the files, whatever it is told."""
        self.load(self.configuration(certificates.server()), b"use")
        self.assertEqual(self.said(), [b"up "])
        upcall, client = self.serve()
        self.give()
        self.run_(client)
        self.assertEqual(upcall.status, 0)

    def test_refusesToReload(self) -> None:
        """Files that have become bad meanwhile are refused, with the reason."""
        config = self.configuration(certificates.server())
        self.load(config)
        self.said()
        (self.folder / "authenticate.server.key").chmod(0o644)
        self.load(config)
        self.assertEqual(self.said(), [b"loaded no"])
        self.assertTrue(any("reload refused" in (eventAsText(event)) for event in self.events))

    def test_cannotStart(self) -> None:
        """A reason not to start is said and ends the worker with a failure."""
        self.kernelTLS.unavailable = StartError("no kTLS here")
        self.load(self.configuration())
        self.assertEqual(self.said(), [b"failed "])
        self.assertTrue(any("no kTLS here" in eventAsText(event) for event in self.events))
        self.assertTrue(self.parent.disconnecting)
        self.lost()
        self.assertEqual((self.ending.stopped, self.worker.status), (1, 1))

    def test_failsAndIsToldAgain(self) -> None:
        """A worker that could not start does not begin again, and takes nothing, till it ends."""
        self.kernelTLS.unavailable = StartError("no kTLS here")
        self.load(self.configuration())
        self.kernelTLS.unavailable = None
        self.serve()
        self.give()
        self.load(self.configuration(certificates.server()))
        self.assertEqual(self.said(), [b"failed "])
        self.assertEqual(len(self.kernel.pending), 1)
        self.lost()
        self.assertEqual((self.ending.stopped, self.worker.status), (1, 1))

    def test_loadAfterStop(self) -> None:
        """What comes after an order to stop is nothing to begin with, nor to reload."""
        self.worker.dataReceived(b"stop\n")
        self.load(self.configuration())
        self.assertEqual((self.said(), self.agents), ([], []))

    def test_bugInStart(self) -> None:
        """A bug in the start ends the worker with a failure, and the parent hears of it."""
        self.kernelTLS.unavailable = ZeroDivisionError()  # type: ignore[assignment]
        self.load(self.configuration())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.said(), [b"failed "])
        self.lost()
        self.assertEqual((self.ending.stopped, self.worker.status), (1, 1))

    def test_stops(self) -> None:
        """It finishes what it has begun, closes the channel, and ends."""
        self.load(self.configuration(certificates.server()))
        upcall, client = self.serve()
        self.give()
        client.turn()
        self.reactor.turn()
        self.worker.dataReceived(b"stop\n")
        self.assertFalse(self.parent.disconnecting)
        self.run_(client)
        self.assertEqual(upcall.status, 0)
        self.assertTrue(self.parent.disconnecting)
        self.assertEqual(self.ending.stopped, 0)
        self.lost()
        self.assertEqual((self.ending.stopped, self.worker.status), (1, 0))
        self.stopped()

    def test_losesToken(self) -> None:
        """Whose token can be used by a new process only asks the parent for one."""
        self.load(self.configuration())
        self.said()
        renew = self.agents[0]._tokens._renew
        assert renew is not None
        renew()
        self.assertEqual(self.said(), [b"renew "])
        self.assertFalse(self.parent.disconnecting)

    def test_stopsBeforeTheStart(self) -> None:
        """Without a configuration there is nothing to finish."""
        self.worker.dataReceived(b"stop\nstop\n")
        self.assertTrue(self.parent.disconnecting)
        self.lost()
        self.assertEqual(self.ending.stopped, 1)

    def test_parentGone(self) -> None:
        """If the parent goes, it finishes what it has begun, and ends."""
        self.load(self.configuration())
        upcall, _far = self.ask(SERVERHELLO)
        self.give()
        self.run_()
        self.lost()
        self.assertEqual(self.ending.stopped, 0)
        self.reactor.turn(4.6)
        self.assertIsNotNone(upcall.status)
        self.assertEqual((self.ending.stopped, self.worker.status), (1, 0))
        self.stopped()

    def test_parentGoneWhileStopping(self) -> None:
        """A parent that goes while it finishes changes nothing."""
        self.load(self.configuration())
        _upcall, _far = self.ask(SERVERHELLO)
        self.give()
        self.run_()
        self.worker.dataReceived(b"stop\n")
        self.lost()
        self.assertEqual(self.ending.stopped, 0)
        self.reactor.turn(4.6)
        self.assertEqual(self.ending.stopped, 1)
        self.stopped()

    def test_fatal(self) -> None:
        """An agent that cannot go on ends the worker with a failure."""
        self.load(self.configuration())
        self.agents[0]._giveUp(AgentError("no netlink"))
        self.assertTrue(self.parent.disconnecting)
        self.lost()
        self.assertEqual((self.ending.stopped, self.worker.status), (1, 1))
        self.stopped()

    def test_bug(self) -> None:
        """A bug while it reloads is logged, and it lives on."""
        self.load(self.configuration())
        self.agents[0]._configured._reread = lambda: 1  # type: ignore[assignment]
        self.load(self.configuration())
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertTrue(self.agents[0].running)

    def test_logs(self) -> None:
        """It begins to log when it knows which of the workers it is."""
        self.worker.dataReceived(b"place 3\nplace 12 relayed\n")
        self.assertEqual(self.logs, [(3, False), (12, True)])


SCRIPT = """
import ctypes, os, shutil, socket, sys, time
import _ctypes
from ktlsagent.processes import worker
from ktlsagent.processes.slot import Slot

provider = shutil.copy(_ctypes.__file__, sys.argv[1])
ctypes.CDLL(provider)
near, far = socket.socketpair()
slot = Slot.make()
pid = os.fork()
if pid == 0:
    near.close()
    worker.run(far.detach(), slot.memory, slot.bell)
far.close()
print(near.recv(1000) == b"pid %d\\n" % pid)
ours = open("/proc/self/cmdline", "rb").read()
while open(f"/proc/{pid}/cmdline", "rb").read() == ours:
    time.sleep(0.01)
print(open(f"/proc/{pid}/maps").read().count(provider))
near.sendall(b"stop\\n")
print(near.recv(1000), os.waitpid(pid, 0)[1])
"""


class AnewTests(SynchronousTestCase):
    """Workers of a parent that may have connected to a token."""

    def test_anew(self) -> None:
        """
        With a provider for tokens in the process, the worker becomes a program of its
        own, without it, and obeys the parent.
        """
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        path = str((folder / "pkcs11.so").absolute())
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, path],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ended.stdout, ended.stderr), ("True\n0\nb'' 0\n", ""))


CLOCK = """
import os, socket, time
from ktlsagent.processes import worker

def made(reactor, makeAgent, slot, logs, inherited):
    print(reactor.seconds is time.monotonic, flush=True)
    os._exit(0)

worker.Worker = made
slot = worker.Slot.make()
worker.be(socket.socket().detach(), slot.memory, slot.bell)
"""


class PriorityTests(SynchronousTestCase):
    """How a worker is scheduled."""

    def scheduled(self, policy: int, priority: int) -> list[int]:
        """
        Let a worker give way.

        @param policy: how it is scheduled.
        @param priority: with which priority.
        @return: the priorities that it has asked for.
        """
        asked: list[int] = []
        self.patch(os, "sched_getscheduler", lambda _pid: policy)
        self.patch(os, "sched_getparam", lambda _pid: os.sched_param(priority))
        self.patch(os, "sched_setparam", lambda _pid, to: asked.append(to.sched_priority))
        giveWay()
        return asked

    def test_realTime(self) -> None:
        """In real time it has a lower priority than its parent, if there is one."""
        for policy in os.SCHED_RR, os.SCHED_FIFO:
            self.assertEqual(self.scheduled(policy, 2), [1])
            self.assertEqual(self.scheduled(policy, 50), [49])
            self.assertEqual(self.scheduled(policy, 1), [1])

    def test_otherwise(self) -> None:
        """Otherwise nothing is changed."""
        self.assertEqual(self.scheduled(os.SCHED_OTHER, 0), [])


class ClockTests(SynchronousTestCase):
    """The reactor of a worker."""

    def test_monotonic(self) -> None:
        """It does not follow the wall clock."""
        ended = subprocess.run(
            [sys.executable, "-c", CLOCK],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ended.stdout, ended.stderr), ("True\n", ""))
