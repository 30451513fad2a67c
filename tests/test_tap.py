"""C{twistd ktlsagent}: options, composition, signals and exit status."""

from __future__ import annotations

import atexit
import errno
import io
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Application, IServiceMaker, MultiService
from twisted.internet import reactor as _installed
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, eventAsText
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase, TestCase

import ktlsagent
from ktlsagent import readysocket, signals, tap
from ktlsagent.clocks import followsWallClock
from ktlsagent.errors import AgentError, StartError
from ktlsagent.processes.standardlog import StandardLog
from ktlsagent.processes.workers import WorkersService
from ktlsagent.service import AgentService
from tests.support.agent import AgentTestCase
from tests.support.folder import ownFolder

reactor = cast(Any, _installed)

ROOT = Path(ktlsagent.__file__).parents[1]

TWISTD = "from twisted.scripts.twistd import run; run()"


class OptionsTests(SynchronousTestCase):
    """The command line."""

    def test_defaults(self) -> None:
        """Without options the configuration is searched for."""
        options = tap.Options()
        options.parseOptions([])
        self.assertEqual(dict(options), {"config": None})

    def test_config(self) -> None:
        """A configuration can be named, long and short."""
        for arguments in (["--config", "/a/file"], ["-c", "/a/file"]):
            options = tap.Options()
            options.parseOptions(arguments)
            self.assertEqual(options["config"], "/a/file")

    def test_unknownOption(self) -> None:
        """An option that does not exist is an error."""
        self.assertRaises(UsageError, tap.Options().parseOptions, ["--nonsense"])

    def test_plugin(self) -> None:
        """The program twistd finds the agent, and where its options are."""
        found = [plugin for plugin in getPlugins(IServiceMaker) if plugin.tapname == "ktlsagent"]
        self.assertEqual([getattr(plugin, "module", None) for plugin in found], ["ktlsagent.tap"])


class MakeServiceTests(SynchronousTestCase):
    """Putting the agent together."""

    def setUp(self) -> None:
        # They are the reactor and the signals of the tests as well.
        self.patch(reactor, "seconds", reactor.seconds)
        self.patch(signals, "remember", lambda: None)

    def test_badConfiguration(self) -> None:
        """A configuration that cannot be used ends the program, with its mistakes."""
        options = tap.Options()
        options.parseOptions(["--config", "/missing/file"])
        error = self.assertRaises(SystemExit, tap.makeService, options)
        self.assertIn("/missing/file", str(error.code))

    def test_service(self) -> None:
        """The result is the program's service, not yet running."""
        self.assertIsInstance(self.service("[debug]\nloglevel=0\n"), tap.ProgramService)

    def test_clock(self) -> None:
        """The reactor does not follow the wall clock any more."""
        self.assertTrue(followsWallClock(reactor))
        self.service("")
        self.assertFalse(followsWallClock(reactor))

    def test_tooLateForTheClock(self) -> None:
        """If others have scheduled something by the wall clock that is said."""
        call = reactor.callLater(60, self.fail)
        self.addCleanup(call.cancel)
        error = self.assertRaises(SystemExit, self.service, "")
        self.assertIn("ktlsagent cannot start: expected to set the reactor's clock", str(error))

    def test_workers(self) -> None:
        """With one worker there is one process; by default there are as many as processors."""
        alone = self.service("[ktlsagent]\nworkers=1\n")
        self.assertIsInstance(alone._agent, AgentService)
        several = self.service("[ktlsagent]\nworkers=3\n")
        self.assertIsInstance(several._agent, WorkersService)
        for processors, kind in ({0}, AgentService), ({0, 5}, WorkersService):
            self.patch(os, "sched_getaffinity", lambda _pid, found=processors: found)
            for text in "", "[ktlsagent]\nworkers=auto\n":
                self.assertIsInstance(self.service(text)._agent, kind)

    def test_log(self) -> None:
        """Twistd's log on standard output is ours, and any other its own."""
        for ours, arguments in (
            (True, ["-n"]),
            (True, ["-n", "--logfile=-"]),
            (False, []),
            (False, ["-n", "--logfile=a.log"]),
            (False, ["-n", "--syslog"]),
            (False, ["-n", "--logger=twisted.logger.textFileLogObserver"]),
        ):
            path = self.mktemp()
            Path(path).write_text("[ktlsagent]\nworkers=2\n")
            twistd = ServerOptions()
            twistd.parseOptions([*arguments, "ktlsagent", "--config", path])
            service = cast(tap.ProgramService, tap.makeService(twistd.subOptions))
            application = Application("ktlsagent")
            service.setServiceParent(application)
            observer = cast(Any, application).getComponent(ILogObserver)
            self.assertEqual(isinstance(observer, StandardLog), ours, arguments)
            self.assertEqual(cast(Any, service._agent)._relayed, not ours)

    def test_otherParent(self) -> None:
        """A parent that is no application logs as it likes."""
        service = self.service("")
        service.setServiceParent(MultiService())

    def service(self, text: str) -> tap.ProgramService:
        """
        Make the program's service.

        @param text: the configuration.
        @return: the service.
        """
        path = self.mktemp()
        Path(path).write_text(text)
        options = tap.Options()
        options.parseOptions(["--config", path])
        service = tap.makeService(options)
        assert isinstance(service, tap.ProgramService)
        return service


class RecordingReactor(Clock):
    """
    What L{tap.ProgramService} asks of a reactor.

    @ivar stopped: how often it was stopped.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped = 0

    def callWhenRunning(self, callable: object, *arguments: object) -> None:  # noqa: A002 - the interface's name
        """The signals stay as they are."""

    def callFromThread(self, callable: Callable[..., object], *arguments: object) -> None:  # noqa: A002 - the interface's name
        self.callLater(0, callable, *arguments)

    def stop(self) -> None:
        self.stopped += 1


class ProgramTests(AgentTestCase):
    """
    The agent as a program.

    @ivar running: the program's agent.
    """

    running: AgentService

    def setUp(self) -> None:
        super().setUp()
        self.patch(signals, "obey", lambda _handle: None)
        self.patch(signals, "keep", lambda: None)
        self.ends: list[Callable[[], object]] = []
        self.patch(atexit, "register", self.ends.append)

    def signal(self, program: tap.ProgramService, *numbers: int) -> None:
        """
        Send signals.

        @param program: whom to.
        @param numbers: the signals, all of which come in one turn of the reactor.
        """
        for number in numbers:
            program._signalled(number)
        program._reactor.advance(0)

    def exit(self) -> list[Any]:
        """
        Let the process of a program end.

        @return: the exit status, or the descriptor that another program was started with.
        """
        ended: list[Any] = []
        self.patch(os, "_exit", ended.append)
        self.patch(readysocket, "replaceProcess", lambda ready: ended.append(("again", ready)))
        while self.ends:
            self.ends.pop()()
        return ended

    def program(self) -> tuple[tap.ProgramService, RecordingReactor]:
        """
        Make a program whose agent runs on fakes.

        @return: the program and its reactor.
        """
        reactor = RecordingReactor()
        path = self.folder / "config"
        path.write_text("")
        program = tap.ProgramService(reactor, str(path))
        self.running = self.agent(
            self.configuration(), up=program._tellSystemd, renew=program._renew
        )
        program._agent = self.running
        return program, reactor

    def test_startAndStop(self) -> None:
        """The agent starts and stops with the program."""
        program, reactor = self.program()
        program.startService()
        self.assertTrue(program._agent.running)
        self.signal(program, signal.SIGTERM, signal.SIGTERM)
        self.assertEqual(reactor.stopped, 1)
        self.successResultOf(program.stopService())
        self.assertFalse(program._agent.running)
        self.signal(program, signal.SIGTERM)
        self.assertEqual((reactor.stopped, self.exit()), (1, []))

    def test_cannotStart(self) -> None:
        """A reason not to start is logged and ends the program with a failure."""
        program, _reactor = self.program()
        self.kernelTLS.unavailable = StartError("no kTLS here")
        error = self.assertRaises(SystemExit, program.startService)
        self.assertEqual(error.code, 1)
        self.assertTrue(any("no kTLS here" in (eventAsText(e) or "") for e in self.events))

    def test_reload(self) -> None:
        """SIGHUP reloads, as long as the agent is not to stop."""
        program, _reactor = self.program()
        program.startService()
        self.signal(program, signal.SIGHUP)
        self.reactor.settle()
        self.assertEqual(len(self.logged("reloading")), 1)
        self.signal(program, signal.SIGTERM, signal.SIGHUP)
        self.assertEqual(len(self.logged("reloading")), 1)

    def test_bugInReload(self) -> None:
        """A bug in a reload is logged, and the agent lives on."""
        program, _reactor = self.program()
        program.startService()
        program._agent._configured._reread = lambda: 1  # type: ignore[assignment]
        program._reload()
        self.reactor.settle()
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertTrue(program._agent.running)

    def test_restart(self) -> None:
        """SIGUSR2 stops the agent, and leaves the socket of READY open for its successor."""
        program, reactor = self.program()
        program.startService()
        ready = os.fstat(program._agent.listener())
        self.signal(program, signal.SIGUSR2, signal.SIGUSR2, signal.SIGHUP)
        self.assertEqual(reactor.stopped, 1)
        self.successResultOf(program.stopService())
        self.signal(program, signal.SIGUSR2)
        ((again, kept),) = self.exit()
        self.assertEqual((again, reactor.stopped), ("again", 1))
        self.assertTrue(os.path.samestat(ready, os.fstat(kept)))
        os.close(kept)

    def test_stopWins(self) -> None:
        """
        An order to stop wins over a start again, be it before or after that, or in
        the middle of it; the socket is not kept open for anybody then.
        """
        again = signal.SIGUSR2
        for stop in signal.SIGTERM, signal.SIGINT, signal.SIGQUIT:
            for before, meanwhile, after in (
                ((stop, again), (), ()),
                ((again, stop), (), ()),
                ((again,), (stop,), ()),
                ((again,), (stop, again), ()),
                ((again,), (again,), (stop,)),
            ):
                program, _reactor = self.program()
                program.startService()
                self.signal(program, *before)
                self.agents.remove(self.running)
                self.successResultOf(program.stopService())
                self.signal(program, *meanwhile)
                kept = program._ready
                for number in after:
                    # The reactor does not run any more.
                    program._signalled(number)
                ended = self.exit()
                expected = [] if before == (stop, again) and stop != signal.SIGQUIT else [0]
                self.assertEqual(ended, expected, (before, meanwhile, after))
                if kept is not None:
                    os.close(kept)
                self.assertEqual(kept is None, not after)

    def test_restartFails(self) -> None:
        """If the agent cannot start again it goes on, and can be told to another time."""
        program, reactor = self.program()
        program.startService()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        with self.somethingMissing("Too many open files"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
            program._renewing = True
            self.signal(program, signal.SIGUSR2)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            self.assertFalse(program._renewing)
        with self.somethingMissing("/missing/python"):
            self.patch(sys, "executable", "/missing/python").patch()
            self.signal(program, signal.SIGUSR2)
        self.assertEqual((reactor.stopped, self.ends, program._agent.running), (0, [], True))
        self.signal(program, signal.SIGHUP)
        self.reactor.settle()
        self.assertEqual(len(self.logged("reloading")), 1)
        _upcall, client = self.serve()
        self.run_(client)
        self.assertEqual(len(self.handshakes()), 1)

    @contextmanager
    def somethingMissing(self, what: str) -> Iterator[None]:
        """Check that it is said once why the agent cannot start again."""
        self.events.clear()
        yield
        (line,) = self.logged("going on as before")
        self.assertIn(what, line)

    def test_restartFailsInTheEnd(self) -> None:
        """If the interpreter vanishes at the last moment, that is said, and is a failure."""
        program, _reactor = self.program()
        program.startService()
        self.signal(program, signal.SIGUSR2)
        self.successResultOf(program.stopService())
        ended: list[int] = []
        self.patch(os, "_exit", ended.append)
        self.patch(sys, "executable", "/missing/python")
        said = io.StringIO()
        self.patch(sys, "stderr", said)
        self.patch(os, "dup2", lambda *_arguments: 3)
        self.patch(os, "set_inheritable", lambda *_arguments: None)
        self.patch(os, "environ", {})
        (end,) = self.ends
        end()
        self.assertEqual(ended, [1])
        self.assertIn("expected to start again", said.getvalue())
        program._leaveReady()

    def test_renew(self) -> None:
        """A lost token starts the program again, once, and not within its first seconds."""
        for age, wait in ((3, 7), (60, 0)):
            program, reactor = self.program()
            program.startService()
            reactor.advance(age)
            program._renew()
            program._renew()
            (call,) = reactor.getDelayedCalls()
            self.assertEqual(call.getTime() - reactor.seconds(), wait)
            self.assertEqual(reactor.stopped, 0)
            reactor.advance(wait)
            self.assertEqual(reactor.stopped, 1)
            self.agents.remove(self.running)
            self.successResultOf(program.stopService())
            program._leaveReady()

    def test_stoppedWhileStarting(self) -> None:
        """An order to stop ends a start at once, unless requests may have been accepted."""
        exits: list[int] = []
        self.patch(os, "_exit", exits.append)
        program, reactor = self.program()
        self.signal(program, signal.SIGTERM)
        self.assertEqual(exits, [0])
        program, reactor = self.program()
        self.running._up = lambda: program._signalled(signal.SIGTERM)
        program.startService()
        self.assertEqual((exits, reactor.stopped), ([0], 0))
        reactor.advance(0)
        self.assertEqual(reactor.stopped, 1)

    def test_toldWhileStarting(self) -> None:
        """What else comes while the agent starts is done when it has."""
        for number in signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2:
            program, reactor = self.program()
            program._signalled(number)
            program.startService()
            reactor.advance(0)
            self.assertEqual(len(self.logged("reloading")), number == signal.SIGHUP)
            self.assertEqual(reactor.stopped, number == signal.SIGUSR2)
            self.events.clear()
            program._leaveReady()

    def leave(
        self, fork: Callable[[object, float], bool]
    ) -> tuple[tap.ProgramService, Deferred[None]]:
        """
        End a program at once with a request in flight.

        @param fork: what L{tap.forkOff} does.
        @return: the program, and what fires when it ends.
        """
        self.patch(tap, "forkOff", fork)
        program, reactor = self.program()
        program.startService()
        self.serve()
        self.reactor.settle()
        self.signal(program, signal.SIGQUIT, signal.SIGQUIT, signal.SIGHUP)
        self.assertEqual(reactor.stopped, 1)
        self.assertEqual(self.logged("reloading"), [])
        self.agents.remove(self.running)
        return program, program.stopService()

    def test_leaves(self) -> None:
        """SIGQUIT ends the program at once, and what is in flight is not answered by it."""
        _program, stopped = self.leave(lambda _reactor, _seconds: False)
        self.successResultOf(stopped)
        self.assertEqual((self.exit(), self.kernel.sockets), ([0], []))
        self.reactor.advance(5)
        (upcall,) = self.kernel.upcalls
        self.assertEqual(upcall.answers, [])
        self.kernel.upcalls.clear()

    def test_finishes(self) -> None:
        """
        The new process answers what is in flight, and then ends without clearing up,
        whatever it is told meanwhile.
        """
        waits: list[float] = []

        def fork(_reactor: object, seconds: float) -> bool:
            waits.append(seconds)
            return True

        program, stopped = self.leave(fork)
        self.assertEqual(waits, [4.5])
        ended: list[int] = []
        self.patch(os, "_exit", ended.append)
        self.assertNoResult(stopped)
        self.signal(program, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR2, signal.SIGHUP)
        self.assertNoResult(stopped)
        self.reactor.advance(5)
        self.successResultOf(stopped)
        self.assertEqual(ended, [0])
        self.assertEqual(len(self.logged("finishes what is in flight")), 1)

    def test_cannotLeave(self) -> None:
        """If there can be no new process, the program ends when it has answered all."""

        def fork(_reactor: object, _seconds: float) -> bool:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        _program, stopped = self.leave(fork)
        self.assertNoResult(stopped)
        self.assertEqual(len(self.logged("expected a process for what is in flight")), 1)
        self.reactor.advance(5)
        self.successResultOf(stopped)
        self.assertEqual(self.exit(), [0])

    def test_nothingToLeave(self) -> None:
        """Nobody forks if nothing is in flight, or threads may wait for a token."""
        self.patch(tap, "forkOff", lambda _reactor, _seconds: self.fail("forked"))
        for used in False, True:
            program, _reactor = self.program()
            program.startService()
            self.running._tokens.used = used
            if used:
                self.serve()
                self.reactor.settle()
            self.signal(program, signal.SIGQUIT)
            self.agents.remove(self.running)
            stopped = program.stopService()
            self.reactor.advance(5)
            self.successResultOf(stopped)

    def test_restartLeaves(self) -> None:
        """The process that finishes what is in flight does not keep READY open."""
        self.patch(os, "_exit", lambda _status: None)
        self.patch(tap, "forkOff", lambda _reactor, _seconds: True)
        program, _reactor = self.program()
        program.startService()
        self.serve()
        self.reactor.settle()
        self.signal(program, signal.SIGUSR2)
        kept = program._ready
        assert kept is not None
        self.agents.remove(self.running)
        stopped = program.stopService()
        self.assertRaises(OSError, os.fstat, kept)
        self.reactor.advance(5)
        self.successResultOf(stopped)

    def test_saysThatItIsReady(self) -> None:
        """The service manager is told of the start, and gets the socket."""
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(manager.close)
        manager.bind(f"\0ktlsagent-test-{os.getpid()}")
        self.patch(os, "environ", {"NOTIFY_SOCKET": f"@ktlsagent-test-{os.getpid()}"})
        program, _reactor = self.program()
        program.startService()
        said = [manager.recv(100) for _ in range(3)]
        self.assertEqual([text.split(b"=")[0] for text in said[:2]], [b"FDSTOREREMOVE", b"FDSTORE"])
        self.assertEqual(said[2], b"READY=1")

    def test_systemdIsDeaf(self) -> None:
        """An agent that cannot tell systemd works all the same, and says so."""
        self.patch(os, "environ", {"NOTIFY_SOCKET": "/missing/socket"})
        program, _reactor = self.program()
        program.startService()
        self.assertTrue(program._agent.running)
        self.assertTrue(any("NOTIFY_SOCKET" in (eventAsText(e) or "") for e in self.events))

    def test_fatal(self) -> None:
        """
        An agent that cannot go on stops the program, whose exit status tells; that stays
        so if it is told to stop, or to start again, then.
        """
        for number in None, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR2:
            program, reactor = self.program()
            program.startService()
            program._fatal(AgentError("no netlink"))
            self.signal(program, *filter(None, [number]))
            self.agents.remove(self.running)
            self.successResultOf(program.stopService())
            self.assertEqual((reactor.stopped, self.exit()), (1, [1]))

    def test_tokens(self) -> None:
        """A program that has used tokens ends before they can hold it up; a failure stays one."""
        for used, failed, expected in ((False, False, []), (True, False, [0]), (True, True, [1])):
            program, _reactor = self.program()
            program.startService()
            self.running._tokens.used = used
            if failed:
                program._fatal(AgentError("no netlink"))
            self.agents.remove(self.running)
            self.successResultOf(program.stopService())
            self.assertEqual(self.exit(), expected)


class ProcessTests(TestCase):
    """The real program, as far as it comes without the kernel's part."""

    def twistd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        Run C{twistd ktlsagent}.

        @param arguments: its arguments.
        @return: what became of it.
        """
        return subprocess.run(
            [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "ktlsagent", *arguments],
            cwd=self.mktempFolder(),
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def mktempFolder(self) -> str:
        """
        Make a folder to run in.

        @return: its path.
        """
        path = Path(self.mktemp())
        path.mkdir(parents=True)
        return str(path)

    def test_version(self) -> None:
        """--version prints ours."""
        ended = self.twistd("--version")
        self.assertEqual(
            (ended.returncode, ended.stdout), (0, f"ktlsagent {ktlsagent.__version__}\n")
        )

    def test_help(self) -> None:
        """--help says what it is for."""
        ended = self.twistd("--help")
        self.assertEqual(ended.returncode, 0)
        self.assertIn("--config", ended.stdout)
        self.assertIn("NFS", ended.stdout)

    def test_badConfiguration(self) -> None:
        """Mistakes in the configuration are listed, without a traceback."""
        path = ownFolder(self) / "config"
        path.write_text("[authenticate.client]\nx509.trustore=/a\nx509.crl=b\n")
        ended = self.twistd("--config", str(path))
        self.assertEqual(ended.returncode, 1)
        self.assertIn("x509.trustore", ended.stderr)
        self.assertIn("x509.crl", ended.stderr)
        self.assertNotIn("Traceback", ended.stderr)


class ExitTests(SynchronousTestCase):
    """
    Signals and the exit status of a real process, whose agent does nothing.

    It says what happens to it; and sends itself signals where the test wants it, the
    first time that it is there, and SIGTERM when it has run for a while.
    """

    SCRIPT = """
import atexit, ctypes, os, signal, sys, threading
from types import SimpleNamespace
first = "LISTEN_PID" not in os.environ
from ktlsagent import signals

def hit(place):
    for wanted in sys.argv[1:] if first else ():
        there, _, names = wanted.partition(":")
        for name in names.split("+") if there == place else ():
            os.kill(os.getpid(), getattr(signal, "SIG" + name))

def say(*words):
    print(*words, flush=True)

def flag(name):
    return name in sys.argv

if flag("early"):
    hit("exec")
    signals.remember()
    hit("import")
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from ktlsagent import tap
from ktlsagent.errors import NetlinkError

class Agent:
    usedTokens = flag("token")
    listens = False

    def __init__(self, inherited):
        self.held = os.memfd_create("held") if inherited is None else inherited
        if inherited is None:
            os.write(self.held, b"again")
        else:
            say(os.pread(self.held, 100, 0).decode(), os.getpid())

    def listener(self):
        if not self.listens:
            raise NetlinkError("READY", 9)
        return self.held

    def startService(self):
        hit("loading")
        self.listens = True
        say("listening")
        hit("listening")
        if not flag("stay"):
            reactor.callLater(0.3, os.kill, os.getpid(), signal.SIGTERM)

    def stopService(self):
        self.listens = False
        hit("stopping")
        stopped = Deferred()
        reactor.callLater(0.2, stopped.callback, None)
        stopped.addCallback(lambda _ignored: say("answered"))
        return stopped if flag("token") or flag("inflight") else succeed(None)

    def secondsLeft(self):
        return 5.0

    async def reload(self):
        say("reloaded")

    def forget(self):
        pass

    def forked(self):
        hit("forked")

tap.ProgramService._makeAgent = lambda self, config, **seams: Agent(seams["kernel"]._inherited)
program = tap.ProgramService(reactor, None)
program.log = SimpleNamespace(**dict.fromkeys(("info", "error"), lambda *_ignored, **_more: None))
program.startService()
reactor.callWhenRunning(hit, "running")
reactor.callWhenRunning(say, "running")
if flag("token"):
    threading.Thread(target=ctypes.CDLL(None).pause, daemon=True).start()
if flag("fatal"):
    reactor.callLater(0, program._fatal, None)
reactor.addSystemEventTrigger("before", "shutdown", program.stopService)
replace = tap.readysocket.replaceProcess
def replaceProcess(descriptor):
    hit("replacing")
    replace(descriptor)
tap.readysocket.replaceProcess = replaceProcess
reactor.run()
atexit.register(hit, "exit")
"""

    def start(self, *words: str, before: str = "") -> subprocess.Popen[str]:
        """
        Run the program.

        @param words: what is to happen in it.
        @param before: what it does first.
        @return: the process.
        """
        process = subprocess.Popen(
            [sys.executable, "-c", before + self.SCRIPT, *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def check(self, *expected: tuple[str, str], status: int = 0) -> None:
        """
        Run some programs beside each other, and see what happens.

        @param expected: for each what is done with it, and what it says.
        @param status: how they end.
        """
        running = [(self.start(*words.split()), words, said) for words, said in expected]
        for process, words, said in running:
            output, errors = process.communicate(timeout=60)
            found = output.replace(f" {process.pid}", "").split()
            self.assertEqual((found, process.returncode), (said.split(), status), (words, errors))

    ONCE = "listening running"
    AGAIN = "listening running again listening running"

    def test_stop(self) -> None:
        """SIGTERM ends the program with the status 0, not by the signal; so do others."""
        self.check(
            ("", self.ONCE),
            ("running:QUIT", self.ONCE),
            # A thread that hangs in a library does not keep the program from ending.
            ("token running:TERM", f"{self.ONCE} answered"),
        )

    def test_stopWins(self) -> None:
        """An order to stop that comes at any time after SIGUSR2 wins."""
        self.check(
            ("stay running:USR2+TERM", self.ONCE),
            ("stay running:USR2 stopping:TERM", self.ONCE),
            ("stay token running:USR2 stopping:TERM", f"{self.ONCE} answered"),
            ("stay inflight running:USR2 stopping:INT", f"{self.ONCE} answered"),
            ("stay running:USR2 exit:TERM", self.ONCE),
            ("stay early running:USR2 replacing:TERM", self.ONCE),
            ("stay early running:USR2 replacing:HUP+QUIT", self.ONCE),
        )

    def test_stopBeforeTheStart(self) -> None:
        """It wins before there is anything to be stopped, too, and loses nothing after that."""
        self.check(
            ("stay early import:TERM", ""),
            ("stay early import:HUP+INT", ""),
            ("stay early loading:QUIT", ""),
            ("stay inflight listening:TERM", f"{self.ONCE} answered"),
            ("stay listening:USR2+TERM", self.ONCE),
        )

    def test_toldWhileStarting(self) -> None:
        """What comes before the agent works is done when it does; nothing kills it."""
        self.check(
            ("early import:HUP", f"{self.ONCE} reloaded"),
            ("early loading:HUP", f"{self.ONCE} reloaded"),
            ("listening:USR2", self.AGAIN),
            ("listening:USR1 running:USR1", self.ONCE),
        )

    def test_toldWhileStartingAgain(self) -> None:
        """What comes between two programs in the same process is for the second one."""
        self.check(
            ("early running:USR2 replacing:HUP", f"{self.AGAIN} reloaded"),
            ("early running:USR2 replacing:USR1", self.AGAIN),
            ("running:USR2 replacing:USR2", f"{self.AGAIN} again listening running"),
        )

    def test_restart(self) -> None:
        """
        SIGUSR2 starts the program again in the same process, as often as one likes, and
        SIGQUIT ends it; what is in flight each time is finished by another process.
        """
        process = self.start("inflight", "stay")
        assert process.stdout is not None
        self.assertEqual(
            [process.stdout.readline() for _line in range(2)], ["listening\n", "running\n"]
        )
        for _time in range(3):
            process.send_signal(signal.SIGUSR2)
            lines = sorted(process.stdout.readline() for _line in range(4))
            self.assertEqual(
                lines, [f"again {process.pid}\n", "answered\n", "listening\n", "running\n"]
            )
        process.send_signal(signal.SIGQUIT)
        self.assertEqual(process.wait(30), 0)
        self.assertEqual(process.stdout.read(), "answered\n")

    def test_remainderIsToldToStop(self) -> None:
        """The process that finishes what is in flight does so, and nothing else, whatever comes."""
        self.check(
            *(
                (f"inflight stay running:QUIT forked:{number}", f"{self.ONCE} answered")
                for number in ("TERM+INT", "QUIT", "HUP+USR2")
            )
        )

    def test_cannotRestart(self) -> None:
        """A program that has gone from the disk cannot be started again: it goes on."""
        process = self.start("running:USR2", before="import sys; sys.executable = '/missing'\n")
        output, _errors = process.communicate(timeout=60)
        self.assertEqual((output, process.returncode), ("listening\nrunning\n", 0))

    def test_fatal(self) -> None:
        """What the agent cannot go on after ends the program with a failure."""
        self.check(("stay fatal", self.ONCE), status=1)
