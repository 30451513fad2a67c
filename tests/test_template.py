"""Tests for L{ktlsagent.processes.template}, with processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ktlsagent

ROOT = Path(ktlsagent.__file__).parents[1]

SCRIPT = """
import os, signal, sys
from twisted.internet import reactor
from ktlsagent.processes import worker
from ktlsagent.processes.channel import Channel
from ktlsagent.processes.template import Template

ready = os.memfd_create("ready")
os.write(ready, b"the socket")
before = os.memfd_create("before")


class Child(worker.Worker):
    def connectionMade(self):
        names = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{fd}")}
        self.say("up", f"{os.getpid()} {os.pread(self.ready, 99, 0).decode()} "
            f"{[name for name in names if 'before' in name]} {signal.getsignal(signal.SIGCHLD)!r} "
            f"{signal.getsignal(signal.SIGHUP)!r} "
            f"{signal.getsignal(signal.SIGQUIT)!r}".encode())

    def heard(self, word, value):
        if word == "exit":
            os._exit(int(value))
        super().heard(word, value)


def run(channel, ready):
    Child.ready = ready
    worker.Worker = Child
    worker.run(channel, ready)


class Parent(Channel):
    def __init__(self, name):
        self.name = name

    def heard(self, word, value):
        print(self.name, word, value.decode(), flush=True)

    def connectionLost(self, reason):
        print(self.name, "closed", flush=True)
        oneLess()


def ended(number, status):
    print("ended", number, os.waitstatus_to_exitcode(status), flush=True)
    oneLess()


awaited = ["closed", "ended"] * 2


def oneLess():
    awaited.pop()
    if not awaited:
        template.stop()
        reactor.stop()


def lost():
    print("lost", flush=True)
    reactor.stop()


template = Template(reactor, run, ended, lost)
template.start()
for number in (1, 2):
    channel = Parent(f"worker {number}")
    template.spawn(number, channel, ready)
    if sys.argv[1] == "stop":
        channel.say("stop")
    elif sys.argv[1] == "exit":
        channel.say("exit", b"%d" % number)
if sys.argv[1] == "lost":
    os.kill(template._pid, signal.SIGKILL)
reactor.run()
try:
    template.spawn(3, Parent("none"), ready)
except OSError as error:
    print(error.strerror)
"""


class TemplateTests(SynchronousTestCase):
    """Tests for L{Template}."""

    def perform(self, what: str) -> list[str]:
        """
        Start two workers, and wait until all has ended.

        @param what: what becomes of them.
        @return: what was printed.
        """
        ended = subprocess.run(
            [sys.executable, "-c", SCRIPT, what],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ended.stderr, ended.returncode), ("", 0))
        return ended.stdout.splitlines()

    def test_workers(self) -> None:
        """
        Workers get READY and the parent's signals for reloading and stopping do
        not reach them; of what the parent had open there is nothing.
        """
        lines = self.perform("stop")
        for number in (1, 2):
            (up,) = [line for line in lines if line.startswith(f"worker {number} up")]
            pid, rest = up.removeprefix(f"worker {number} up ").split(" ", 1)
            self.assertNotEqual(int(pid), os.getpid())
            expected = f"{signal.SIG_DFL!r} {signal.SIG_IGN!r} {signal.SIG_IGN!r}"
            self.assertEqual(rest, f"the socket [] {expected}")
            self.assertIn(f"worker {number} closed", lines)

    def test_ends(self) -> None:
        """The parent learns how each ended."""
        lines = self.perform("exit")
        self.assertIn("ended 1 1", lines)
        self.assertIn("ended 2 2", lines)
        self.assertEqual(lines[-1], os.strerror(32))

    def test_lost(self) -> None:
        """The parent learns that the template is dead, after which it starts nothing."""
        lines = self.perform("lost")
        self.assertIn("lost", lines)
        # A worker without a parent logs by itself, and may be the last to do so.
        self.assertIn(os.strerror(32), lines)
