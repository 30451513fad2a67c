"""Tests for L{ktlsagent.processes.remainder}, with processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ktlsagent

ROOT = Path(ktlsagent.__file__).parents[1]

SCRIPT = """
import errno, os, signal, sys
from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol
from ktlsagent.processes import remainder


class InFlight(DatagramProtocol):
    def datagramReceived(self, data, address):
        print(data.decode(), os.getpid() != first, os.getppid() != first, signal.alarm(0) > 3600,
            flush=True)
        os._exit(0)


class Hopeless:
    def __init__(self):
        self.left = forks

    def __call__(self):
        if not self.left:
            raise OSError(errno.EAGAIN, "no more processes")
        self.left -= 1
        return fork()


def leave():
    try:
        new = remainder.forkOff(reactor, 3600.5)
    except OSError as error:
        print("failed", errno.errorcode[error.errno], flush=True)
        new = True
    if new:
        # Afterwards, so that this shows that somebody waits for it.
        reactor.callLater(0.3, peer.transport.write, b"answer", port.getHost().host)
    else:
        print("left", port in reactor.getReaders(), flush=True)
        os._exit(0)


first = os.getpid()
fork, forks = os.fork, int(sys.argv[1])
os.fork = Hopeless()
if sys.argv[2] == "ignored":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
port = reactor.listenUDP(0, InFlight(), "127.0.0.1")
peer = DatagramProtocol()
reactor.listenUDP(0, peer, "127.0.0.1")
peer.transport.connect("127.0.0.1", port.getHost().port)
peer.transport.write = lambda data, _host: peer.transport.socket.send(data)
reactor.callLater(0, leave)
reactor.run()
"""


class ForkOffTests(SynchronousTestCase):
    """Tests for L{remainder.forkOff}."""

    def perform(self, forks: int, children: str = "waited for") -> list[str]:
        """
        Fork a process off while a datagram is awaited.

        @param forks: how many forks succeed in each process.
        @param children: C{ignored} if nobody is told of their ends.
        @return: what was printed, sorted.
        """
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(forks), children],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ended.stderr, ended.returncode), ("", 0))
        return sorted(ended.stdout.splitlines())

    def test_remainder(self) -> None:
        """
        What was awaited is awaited in a process that is nobody's child and ends some
        day; the first one waits for nothing any more.
        """
        self.assertEqual(self.perform(2), ["answer True True True", "left False"])

    def test_nobodyIsTold(self) -> None:
        """It does not matter if the ends of children are not told."""
        self.assertEqual(self.perform(2, "ignored"), ["answer True True True", "left False"])

    def test_cannotFork(self) -> None:
        """If there can be no process, all goes on in the first one."""
        for forks in 0, 1:
            self.assertEqual(
                self.perform(forks), ["answer False True False", "failed EAGAIN"], forks
            )
