"""Tests for L{ktlsagent.readysocket}."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import ktlsagent
from ktlsagent import readysocket

ROOT = Path(ktlsagent.__file__).parents[1]


class EnvironmentTestCase(SynchronousTestCase):
    """Tests with an environment of their own."""

    def environment(self, **values: str) -> None:
        """
        Change the environment until the end of the test.

        @param values: what is in it.
        """
        for name, value in values.items():
            self.addCleanup(os.environ.pop, name, None)
            os.environ[name] = value


class InheritedTests(EnvironmentTestCase):
    """Tests for L{readysocket.inherited}."""

    def test_nothing(self) -> None:
        """A process that was started with nothing has none."""
        self.assertIsNone(readysocket.inherited())

    def test_fromSystemd(self) -> None:
        """The descriptor is found by its name, once."""
        self.environment(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="other:ready")
        self.assertEqual(readysocket.inherited(), 4)
        self.assertIsNone(readysocket.inherited())

    def test_forAnother(self) -> None:
        """What a parent was started with is not ours."""
        self.environment(LISTEN_PID=str(os.getppid()), LISTEN_FDS="1", LISTEN_FDNAMES="ready")
        self.assertIsNone(readysocket.inherited())


class NotifyTests(EnvironmentTestCase):
    """Tests for L{readysocket.notify} and L{readysocket.Manager}."""

    def setUp(self) -> None:
        self.reactor = Clock()
        self.failures: list[OSError] = []
        self.held = os.memfd_create("held")
        self.addCleanup(os.close, self.held)

    def tell(self) -> readysocket.Manager:
        """
        Tell systemd that the agent is ready.

        @return: what tells it.
        """
        manager = readysocket.Manager(self.reactor, self.failures.append)
        manager.tell(self.held)
        return manager

    def manager(self, address: str) -> socket.socket:
        """
        Take systemd's place.

        @param address: where to hear.
        @return: where it is heard.
        """
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind(address)
        manager.settimeout(1)
        self.environment(NOTIFY_SOCKET=address.replace("\0", "@"))
        return manager

    def test_nobody(self) -> None:
        """Without systemd nothing is said, and nothing is wrong."""
        readysocket.notify("READY=1")
        self.tell()
        self.assertEqual((self.failures, self.reactor.calls), ([], []))

    def test_path(self) -> None:
        """The address may be a path."""
        manager = self.manager(os.path.relpath(self.mktemp()))
        readysocket.notify("READY=1", "STATUS=well")
        self.assertEqual(manager.recv(100), b"READY=1\nSTATUS=well")

    def test_abstract(self) -> None:
        """The address may be an abstract one."""
        manager = self.manager(f"\0ktlsagent-test-{os.getpid()}")
        readysocket.notify("READY=1")
        self.assertEqual(manager.recv(100), b"READY=1")

    def test_nobodyListens(self) -> None:
        """A manager that has gone is an error."""
        self.manager(address := os.path.relpath(self.mktemp())).close()
        os.unlink(address)
        self.assertRaises(OSError, readysocket.notify, "READY=1")
        self.tell()
        self.assertEqual([error.errno for error in self.failures], [errno.ENOENT])
        self.assertEqual(self.reactor.calls, [])

    def test_ready(self) -> None:
        """The socket is given to systemd, which is not to poll it, in place of the last one."""
        manager = self.manager(f"\0ktlsagent-test-{os.getpid()}")
        self.tell()
        self.check(manager)

    def check(self, manager: socket.socket) -> None:
        """
        Check that all has been told.

        @param manager: where it is heard.
        """
        self.assertEqual(manager.recv(100), b"FDSTOREREMOVE=1\nFDNAME=ready")
        data, (received,), _flags, _address = socket.recv_fds(manager, 100, 2)
        self.addCleanup(os.close, received)
        self.assertEqual(data, b"FDSTORE=1\nFDNAME=ready\nFDPOLL=0")
        self.assertTrue(os.path.sameopenfile(self.held, received))
        self.assertEqual(manager.recv(100), b"READY=1")
        self.assertEqual(self.failures, [])

    def fill(self) -> int:
        """
        Fill systemd's queue.

        @return: with how many datagrams.
        """
        for told in range(100_000):
            try:
                readysocket.notify("STATUS=busy")
            except BlockingIOError:
                return told
        raise AssertionError("a queue without an end")

    def test_queueIsFull(self) -> None:
        """
        While the queue of systemd is full, nothing is lost and nobody waits: what did
        not fit is told later, in its order, wherever that begins.
        """
        for room in range(4):
            manager = self.manager(f"\0ktlsagent-test-{os.getpid()}-{room}")
            for told in range(self.fill()):
                if told < room:
                    manager.recv(100)
            telling = self.tell()
            self.reactor.pump([0.1] * 20)
            self.assertEqual(len(self.reactor.calls), 0 if room == 3 else 1)
            while True:
                self.reactor.advance(0.1)
                if (data := manager.recv(100, socket.MSG_PEEK)) != b"STATUS=busy":
                    break
                manager.recv(100)
            self.assertIn(b"FDSTOREREMOVE", data)
            self.check(manager)
            telling.stop()

    def test_stopped(self) -> None:
        """A socket that is about to be closed is not given to anybody."""
        self.manager(f"\0ktlsagent-test-{os.getpid()}")
        self.fill()
        telling = self.tell()
        telling.stop()
        telling.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_refusals(self) -> None:
        """What systemd does not take does not keep it from hearing that the agent is ready."""
        told: list[str] = []

        def notify(*assignments: str, descriptors: Sequence[int] = ()) -> None:
            if descriptors:
                raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
            told.append(assignments[0])

        self.patch(readysocket, "notify", notify)
        self.tell()
        self.assertEqual(told, ["FDSTOREREMOVE=1", "READY=1"])
        self.assertEqual([error.errno for error in self.failures], [errno.ETOOMANYREFS])


class RequireProgramTests(SynchronousTestCase):
    """Tests for L{readysocket.requireProgram}."""

    def test_there(self) -> None:
        """The interpreter of the tests is there."""
        readysocket.requireProgram()

    def test_gone(self) -> None:
        """One that is not there, not a file or not to be run is said to be so."""
        path = Path(self.mktemp())
        path.mkdir(parents=True)
        (path / "python").write_text("")
        for executable in (path / "missing", path, path / "python"):
            self.patch(sys, "executable", str(executable))
            error = self.assertRaises(OSError, readysocket.requireProgram)
            self.assertIn(str(executable), str(error))


class ReplaceProcessTests(SynchronousTestCase):
    """Tests for L{readysocket.replaceProcess}."""

    SCRIPT = """
import os, sys
from ktlsagent import readysocket
descriptor = readysocket.inherited()
if descriptor is None:
    print(os.getpid(), *sys.argv[1:], flush=True)
    wanted, held, other = int(sys.argv[1]), os.memfd_create("held"), os.memfd_create("other")
    os.write(held, b"the same")
    os.dup2(held, 5, False)
    os.dup2(5 if wanted == 3 else other, 3, False)
    readysocket.replaceProcess(wanted)
else:
    print(os.getpid(), *sys.argv[1:], os.pread(descriptor, 100, 0).decode(), flush=True)
"""

    def replaced(self, descriptor: str) -> None:
        """
        Run a program that replaces itself once.

        @param descriptor: 3 if the socket is to be there already.
        """
        ended = subprocess.run(
            [sys.executable, "-c", self.SCRIPT, descriptor],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        before, after = ended.stdout.splitlines()
        self.assertEqual(after, before + " the same")

    def test_samePlace(self) -> None:
        """The new program has the socket, the same process id and the same arguments."""
        self.replaced("3")

    def test_otherPlace(self) -> None:
        """Whatever else was open in the place of the socket is gone."""
        self.replaced("5")
