"""Tests for L{ktlsagent.processes.template}, with processes."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

import ktlsagent
from ktlsagent.processes.template import Template
from tests.support.agent import openDescriptors

ROOT = Path(ktlsagent.__file__).parents[1]

SCRIPT = """
import os, signal, sys
from twisted.internet import reactor
from ktlsagent.processes import worker
from ktlsagent.processes.channel import Channel
from ktlsagent.processes.slot import Slot
from ktlsagent.processes.template import Template

slot = Slot.make()
os.pwrite(slot.memory, b"the slot", 2048)
before = os.memfd_create("before")


class Child(worker.Worker):
    def connectionMade(self):
        names = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{fd}")}
        self.say("up", f"{os.getpid()} {os.pread(self.memory, 8, 2048).decode()} "
            f"{[name for name in names if 'before' in name]} {signal.getsignal(signal.SIGCHLD)!r} "
            f"{signal.getsignal(signal.SIGHUP)!r} "
            f"{signal.getsignal(signal.SIGQUIT)!r}".encode())

    def heard(self, word, value):
        if word == "exit":
            os._exit(int(value))
        super().heard(word, value)


def run(channel, memory, bell, inherited=None):
    Child.memory = memory
    worker.Worker = Child
    worker.run(channel, memory, bell)


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


def failed(number, error):
    print("failed", number, error.strerror, flush=True)


awaited = ["closed", "ended"] * 2


def oneLess():
    awaited.pop()
    if not awaited:
        template.stop()
        reactor.stop()


def lost():
    print("lost", flush=True)
    reactor.stop()


template = Template(reactor, run, ended, failed, lost)
template.start()
for number in (1, 2):
    channel = Parent(f"worker {number}")
    template.spawn(number, channel, (slot.memory, slot.bell))
    if sys.argv[1] == "stop":
        channel.say("stop")
    elif sys.argv[1] == "exit":
        channel.say("exit", b"%d" % number)
if sys.argv[1] == "lost":
    os.kill(template._pid, signal.SIGKILL)
reactor.run()
try:
    template.spawn(3, Parent("none"), (slot.memory, slot.bell))
except OSError as error:
    print(error.strerror)
"""


LATER = """
import errno, os, resource, signal, sys
from twisted.internet import reactor
from ktlsagent.processes import template as module, worker
from ktlsagent.processes.channel import Channel
from ktlsagent.processes.slot import Slot
from ktlsagent.processes.template import Template

what = sys.argv[1]
slot = Slot.make()
fork, serve = os.fork, module._serve
forks = 0


class Parent(Channel):
    def __init__(self, name):
        self.name = name
        self.pid = 0

    def heard(self, word, value):
        print(self.name, word, flush=True)
        if word == "pid":
            self.pid = int(value)
            begun(self)

    def connectionLost(self, reason):
        print(self.name, "closed", flush=True)
        closed(self)


def begun(channel):
    if what == "anew" and channel is first:
        os.kill(template._pid, signal.SIGKILL)
    elif what == "anew":
        os.kill(first.pid, 0)
        first.say("stop")
    elif what == "hangs":
        os.kill(template._pid, signal.SIGSTOP)
        stopped(template._pid, 100)
        template.stop()


def stopped(pid, left):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        print("no template", flush=True)
        first.say("stop")
    else:
        assert left, "it has not ended"
        reactor.callLater(0.05, stopped, pid, left - 1)


def closed(channel):
    if what == "anew" and channel is first:
        second.say("stop")
    elif what == "hangs":
        reactor.stop()


def lost():
    global second
    print("lost", flush=True)
    template.startAnew()
    second = spawn(2)


def ended(number, status):
    print("ended", number, os.waitstatus_to_exitcode(status), flush=True)
    template.stop()
    reactor.callLater(0.1, reactor.stop)


def failed(number, error):
    print("failed", number, errno.errorcode[error.errno], flush=True)
    global forks
    forks += 1
    if forks == 2:
        template.stop()
        reactor.callLater(0.1, reactor.stop)
    else:
        spawn(2)


def forkOnce():
    global forks
    forks += 1
    if forks > 1:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()


def serveWithoutDescriptors(control, run):
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    serve(control, run)


def spawn(number):
    channel = Parent(f"worker {number}")
    template.spawn(number, channel, (slot.memory, slot.bell))
    return channel


template = Template(reactor, worker.run, ended, failed, lost)
if what == "fork":
    os.fork = forkOnce
elif what == "descriptors":
    module._serve = serveWithoutDescriptors
template.start()
forks = 0
first = spawn(1)
reactor.run()
"""


class LaterTests(SynchronousTestCase):
    """What goes wrong with a template later on."""

    def perform(self, what: str) -> list[str]:
        """
        Start a worker, and wait until all has ended.

        @param what: what goes wrong.
        @return: what was printed, sorted.
        """
        ended = subprocess.run(
            [sys.executable, "-c", LATER, what],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ended.stderr, ended.returncode), ("", 0))
        return sorted(ended.stdout.splitlines())

    def test_anew(self) -> None:
        """
        A template that was killed is a program of its own when it is started anew;
        the workers of the former go on until they are told to stop.
        """
        self.assertEqual(
            self.perform("anew"),
            [
                "ended 2 0",
                "lost",
                "worker 1 closed",
                "worker 1 pid",
                "worker 2 closed",
                "worker 2 pid",
            ],
        )

    def test_hangs(self) -> None:
        """A template that hangs does not hold up the stop; its worker goes on until it is told."""
        self.assertEqual(self.perform("hangs"), ["no template", "worker 1 closed", "worker 1 pid"])

    def test_cannotFork(self) -> None:
        """The template goes on if there can be no process, and the parent is told each time."""
        self.assertEqual(
            self.perform("fork"),
            ["failed 1 EAGAIN", "failed 2 EAGAIN", "worker 1 closed", "worker 2 closed"],
        )

    def test_noDescriptors(self) -> None:
        """The same if the template has no room for the worker's descriptors."""
        self.assertEqual(
            self.perform("descriptors"),
            ["failed 1 EMFILE", "failed 2 EMFILE", "worker 1 closed", "worker 2 closed"],
        )


class AdoptingReactor:
    """
    What L{Template.spawn} asks of a reactor.

    @ivar adopted: how many connections it has adopted.
    @ivar refuses: whether it has no descriptor for one more.
    """

    def __init__(self) -> None:
        self.adopted = 0
        self.refuses = False

    def adoptStreamConnection(self, *_arguments: object) -> None:
        if self.refuses:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.adopted += 1


class SpawnTests(SynchronousTestCase):
    """Starts of workers that fail half way."""

    def setUp(self) -> None:
        self.reactor = AdoptingReactor()
        near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        self.far.setblocking(False)
        self.addCleanup(near.close)
        self.addCleanup(self.far.close)
        never: Any = self.fail
        self.template = Template(self.reactor, never, never, never, never)
        self.template._control = near

    def test_cannotAdopt(self) -> None:
        """If the parent has no descriptor for the channel, nothing was asked of the template."""
        before = openDescriptors()
        self.reactor.refuses = True
        self.assertRaises(OSError, self.template.spawn, 1, Protocol(), ())
        self.assertRaises(BlockingIOError, self.far.recv, 1)
        self.assertEqual(openDescriptors(), before)

    def test_cannotSend(self) -> None:
        """If the template does not listen, the parent is not held up, and tries again later."""
        before = openDescriptors()
        sent = 0
        with self.assertRaises(BlockingIOError):
            while True:
                self.template.spawn(1, Protocol(), ())
                sent += 1
        self.assertEqual(self.reactor.adopted, sent + 1)
        self.assertEqual(openDescriptors(), before)

    def test_cannotConnect(self) -> None:
        """If there are no descriptors at all, nothing has happened."""
        before = openDescriptors()

        def refuse(*_arguments: object) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        self.patch(socket, "socketpair", refuse)
        self.assertRaises(OSError, self.template.spawn, 1, Protocol(), ())
        self.assertEqual((self.reactor.adopted, openDescriptors()), (0, before))
        self.assertRaises(OSError, self.template.start)
        self.assertRaises(OSError, self.template.startAnew)

    def test_noProcess(self) -> None:
        """If there can be no process, no descriptor is left."""
        before = openDescriptors()

        def refuse(*_arguments: object, **_named: object) -> int:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        self.patch(os, "fork", refuse)
        self.patch(subprocess, "Popen", refuse)
        self.assertRaises(OSError, self.template.start)
        self.assertRaises(OSError, self.template.startAnew)
        self.assertEqual(openDescriptors(), before)


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
        Workers get their slots and the parent's signals for reloading and stopping do
        not reach them; of what the parent had open there is nothing.
        """
        lines = self.perform("stop")
        for number in (1, 2):
            (up,) = [line for line in lines if line.startswith(f"worker {number} up")]
            pid, rest = up.removeprefix(f"worker {number} up ").split(" ", 1)
            self.assertNotEqual(int(pid), os.getpid())
            expected = f"{signal.SIG_DFL!r} {signal.SIG_IGN!r} {signal.SIG_IGN!r}"
            self.assertEqual(rest, f"the slot [] {expected}")
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


OUTPUT = """
import os, sys
from twisted.internet import reactor
from twisted.internet.protocol import Protocol
from ktlsagent.processes import template as module

near, far = os.pipe()
template = module.Template(reactor, module.tell, None, None, None)
(template.start if sys.argv[1] == "forked" else template.startAnew)(far)
template.spawn(1, Protocol(), ())
os.close(far)
print("worker:", os.read(near, 100).decode(), flush=True)
template.stop()
os._exit(0)
"""


TOLD = """
import os

read = [b"read before"]


def tell(channel, inherited=None):
    os.write(channel, read[0] if inherited is read else b"nothing")
    os._exit(0)
"""

INHERITED = """
import os, signal, told
from twisted.internet import reactor
from twisted.internet.protocol import Protocol
from ktlsagent.processes.template import Template


class Parent(Protocol):
    def dataReceived(self, data):
        print(data.decode(), flush=True)
        if data == b"nothing":
            template.stop()
            reactor.stop()
        else:
            os.kill(template._pid, signal.SIGKILL)


def lost():
    template.startAnew()
    template.spawn(2, Parent(), ())


template = Template(reactor, told.tell, lambda *_ended: None, None, lost)
template.start(None, told.read)
template.spawn(1, Parent(), ())
reactor.run()
"""


class InheritedTests(SynchronousTestCase):
    """What workers have of the parent."""

    def test_inherited(self) -> None:
        """Workers share an object of the parent's, unless the template is a program of its own."""
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "told.py").write_text(TOLD)
        ended = subprocess.run(
            [sys.executable, "-c", INHERITED],
            env={**os.environ, "PYTHONPATH": f"{folder.absolute()}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ended.stdout, ended.stderr), ("read before\nnothing\n", ""))


class OutputTests(SynchronousTestCase):
    """Workers with another standard output than the parent's."""

    def test_output(self) -> None:
        """However the template is started, its workers have the output that was asked for."""
        for how in ("forked", "anew"):
            folder = Path(self.mktemp())
            folder.mkdir()
            (folder / "sitecustomize.py").write_text(
                "import os\n"
                "from ktlsagent.processes import template\n"
                "def tell(channel, inherited=None):\n"
                "    os.write(1, b'hello')\n"
                "    os._exit(0)\n"
                "tell.__module__ = template.__name__\n"
                "template.tell = tell\n"
            )
            ended = subprocess.run(
                [sys.executable, "-c", OUTPUT, how],
                env={**os.environ, "PYTHONPATH": f"{folder.absolute()}{os.pathsep}{ROOT}"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            self.assertEqual((ended.stdout, ended.stderr), ("worker: hello\n", ""))
