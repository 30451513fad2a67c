"""Tests for L{ktlsagent.readysocket}."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

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
        self.environment(LISTEN_PID="1", LISTEN_FDS="1", LISTEN_FDNAMES="ready")
        self.assertIsNone(readysocket.inherited())


class NotifyTests(EnvironmentTestCase):
    """Tests for L{readysocket.notify} and L{readysocket.hold}."""

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
        readysocket.hold(0)

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

    def test_hold(self) -> None:
        """The socket is given to systemd, which is not to poll it, in place of the last one."""
        manager = self.manager(f"\0ktlsagent-test-{os.getpid()}")
        held = os.memfd_create("held")
        self.addCleanup(os.close, held)
        readysocket.hold(held)
        self.assertEqual(manager.recv(100), b"FDSTOREREMOVE=1\nFDNAME=ready")
        data, (received,), _flags, _address = socket.recv_fds(manager, 100, 2)
        self.addCleanup(os.close, received)
        self.assertEqual(data, b"FDSTORE=1\nFDNAME=ready\nFDPOLL=0")
        self.assertTrue(os.path.sameopenfile(held, received))


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
