"""C{twistd ktlsagent}: options, composition, signals and exit status."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.application.service import IServiceMaker
from twisted.internet import reactor as _installed
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import eventAsText
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

import ktlsagent
from ktlsagent import tap
from ktlsagent.clocks import followsWallClock
from ktlsagent.errors import AgentError, StartError
from ktlsagent.processes.workers import WorkersService
from ktlsagent.service import AgentService
from tests.support.agent import AgentTestCase

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
        # It is the reactor of the tests as well.
        self.patch(reactor, "seconds", reactor.seconds)

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

    def callWhenRunning(self, callable: object) -> None:  # noqa: A002 - the interface's name
        """The signals stay as they are."""

    def stop(self) -> None:
        self.stopped += 1


class ProgramTests(AgentTestCase):
    """
    The agent as a program.

    @ivar running: the program's agent.
    """

    running: AgentService

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
        program._stop()
        self.assertEqual(reactor.stopped, 1)
        self.successResultOf(program.stopService())
        self.assertFalse(program._agent.running)
        program._stop()
        self.assertEqual(reactor.stopped, 1)

    def test_cannotStart(self) -> None:
        """A reason not to start is logged and ends the program with a failure."""
        program, _reactor = self.program()
        self.kernelTLS.unavailable = StartError("no kTLS here")
        error = self.assertRaises(SystemExit, program.startService)
        self.assertEqual(error.code, 1)
        self.assertTrue(any("no kTLS here" in (eventAsText(e) or "") for e in self.events))

    def test_reload(self) -> None:
        """SIGHUP reloads."""
        program, _reactor = self.program()
        program.startService()
        program._reload()
        self.reactor.settle()
        self.assertTrue(any("reloading" in (eventAsText(e) or "") for e in self.events))

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
        self.keepSignals()
        program, reactor = self.program()
        program.startService()
        ready = program._agent.listener()
        kept: list[int] = []
        self.patch(tap, "_startAgain", kept.append)
        self.patch(atexit, "register", lambda call, *arguments: call(*arguments))
        program._restart()
        self.assertEqual(reactor.stopped, 1)
        self.assertTrue(os.path.sameopenfile(ready, kept[0]))
        self.successResultOf(program.stopService())
        os.close(kept[0])
        self.assertEqual(signal.getsignal(signal.SIGUSR2), signal.SIG_IGN)
        program._restart()
        self.assertEqual((reactor.stopped, len(kept)), (1, 1))

    def test_renew(self) -> None:
        """A lost token starts the program again, once, and not within its first seconds."""
        self.keepSignals()
        self.patch(atexit, "register", lambda _call, descriptor: os.close(descriptor))
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

    def leave(self, fork: Callable[[object, float], bool]) -> tuple[Deferred[None], list[object]]:
        """
        End a program at once with a request in flight.

        @param fork: what L{tap.forkOff} does.
        @return: fires when the program ends, and what was to be called at its end.
        """
        self.keepSignals()
        called: list[object] = []
        self.patch(atexit, "register", lambda call, *_arguments: called.append(call))
        self.patch(atexit, "unregister", lambda call: called.append(("not", call)))
        self.patch(tap, "forkOff", fork)
        program, reactor = self.program()
        program.startService()
        self.serve()
        self.reactor.settle()
        for signalled in program._stopAtOnce, program._stopAtOnce, program._reload:
            signalled()
            program.running = False
        self.assertEqual((reactor.stopped, called), (1, [tap._exitAtOnce]))
        self.patch(tap, "_exitAtOnce", lambda: called.append("exited"))
        self.assertEqual(self.logged("reloading"), [])
        self.agents.remove(self.running)
        return program.stopService(), called

    def test_leaves(self) -> None:
        """SIGQUIT ends the program at once, and what is in flight is not answered by it."""
        stopped, called = self.leave(lambda _reactor, _seconds: False)
        self.successResultOf(stopped)
        self.assertEqual((len(called), self.kernel.sockets), (1, []))
        self.reactor.advance(5)
        (upcall,) = self.kernel.upcalls
        self.assertEqual(upcall.answers, [])
        self.kernel.upcalls.clear()

    def test_finishes(self) -> None:
        """The new process answers what is in flight, and then ends without clearing up."""
        waits: list[float] = []

        def fork(_reactor: object, seconds: float) -> bool:
            waits.append(seconds)
            return True

        stopped, called = self.leave(fork)
        self.assertEqual(waits, [4.5])
        self.assertNoResult(stopped)
        self.assertEqual(called[1], ("not", tap._startAgain))
        self.assertEqual(len(called), 3)
        self.reactor.advance(5)
        self.successResultOf(stopped)
        self.assertEqual(called[3:], ["exited"])
        self.assertEqual(len(self.logged("finishes what is in flight")), 1)

    def test_cannotLeave(self) -> None:
        """If there can be no new process, the program ends when it has answered all."""

        def fork(_reactor: object, _seconds: float) -> bool:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

        stopped, called = self.leave(fork)
        self.assertNoResult(stopped)
        self.assertEqual(len(self.logged("expected a process for what is in flight")), 1)
        self.reactor.advance(5)
        self.successResultOf(stopped)
        self.assertEqual(len(called), 1)

    def test_nothingToLeave(self) -> None:
        """Nobody forks if nothing is in flight, or threads may wait for a token."""
        self.patch(tap, "forkOff", lambda _reactor, _seconds: self.fail("forked"))
        self.patch(atexit, "register", lambda *_arguments: None)
        for used in False, True:
            program, _reactor = self.program()
            program.startService()
            self.running._tokens.used = used
            if used:
                self.serve()
                self.reactor.settle()
            program._stopAtOnce()
            self.agents.remove(self.running)
            stopped = program.stopService()
            self.reactor.advance(5)
            self.successResultOf(stopped)

    def test_restartLeaves(self) -> None:
        """The process that finishes what is in flight does not keep READY open."""
        self.keepSignals()
        kept: list[int] = []
        self.patch(atexit, "register", lambda _call, *arguments: kept.extend(arguments))
        self.patch(tap, "_exitAtOnce", lambda: None)
        self.patch(tap, "forkOff", lambda _reactor, _seconds: True)
        program, _reactor = self.program()
        program.startService()
        self.serve()
        self.reactor.settle()
        program._restart()
        self.agents.remove(self.running)
        stopped = program.stopService()
        self.assertRaises(OSError, os.fstat, kept[0])
        self.reactor.advance(5)
        self.successResultOf(stopped)

    def keepSignals(self) -> None:
        """Handle signals as before when the test is over."""
        for number in (signal.SIGUSR2, signal.SIGHUP):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

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
        """An agent that cannot go on stops the program, whose exit status tells."""
        program, reactor = self.program()
        program.startService()
        program._fatal(AgentError("no netlink"))
        atexit.unregister(tap._exitWithFailure)
        self.assertEqual(reactor.stopped, 1)

    def test_tokens(self) -> None:
        """A program that has used tokens ends before they can hold it up; a failure stays one."""
        registered: list[object] = []
        self.patch(atexit, "register", registered.append)
        for used, failed, expected in (
            (False, False, []),
            (True, False, [tap._exitAtOnce]),
            (True, True, [tap._exitWithFailure]),
        ):
            program, _reactor = self.program()
            program.startService()
            self.running._tokens.used = used
            if failed:
                program._fatal(AgentError("no netlink"))
            self.agents.remove(self.running)
            self.successResultOf(program.stopService())
            self.assertEqual(registered, expected)
            registered.clear()


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
        path = Path(self.mktempFolder()) / "config"
        path.write_text("[authenticate.client]\nx509.trustore=/a\nx509.crl=b\n")
        ended = self.twistd("--config", str(path.absolute()))
        self.assertEqual(ended.returncode, 1)
        self.assertIn("x509.trustore", ended.stderr)
        self.assertIn("x509.crl", ended.stderr)
        self.assertNotIn("Traceback", ended.stderr)


class ExitTests(SynchronousTestCase):
    """The exit status."""

    SCRIPT = """
import atexit
import errno
import os
import sys
from types import SimpleNamespace
from twisted.internet.defer import Deferred
from ktlsagent import tap
from twisted.internet import reactor
program = object.__new__(tap.ProgramService)
program._reactor = reactor
program.running = True
reactor.callWhenRunning(program._handleSignals)
reactor.callWhenRunning(print, "running", flush=True)
if sys.argv[1] == "token":
    import ctypes, threading
    threading.Thread(target=ctypes.CDLL(None).pause, daemon=True).start()
    atexit.register(tap._exitAtOnce)
if sys.argv[1] == "restart":
    held = tap.readysocket.inherited()
    if held is not None:
        print(os.pread(held, 100, 0).decode(), os.getpid(), flush=True)
    else:
        held = os.memfd_create("held")
        os.write(held, b"again")
    program._agent = SimpleNamespace(listener=lambda: held, forget=lambda: None,
        stopService=Deferred, usedTokens=False, secondsLeft=lambda: 1.0,
        forked=lambda: reactor.callLater(0.5, finish))
    program.log = SimpleNamespace(info=lambda *_ignored, **_more: None)
    finish = lambda: (print("finished", os.getpid() != program.pid, flush=True), os._exit(0))
    program.pid = os.getpid()
    program._ready = None
    reactor.addSystemEventTrigger("before", "shutdown", program.stopService)
if sys.argv[1] == "fatal":
    reactor.callLater(0, program._fatal, None)
reactor.run()
"""

    def start(self, how: str, before: str = "") -> subprocess.Popen[str]:
        """
        Run a program that does nothing.

        @param how: C{fatal} if it ends by itself.
        @param before: what it does first.
        @return: the process, which is running.
        """
        process = subprocess.Popen(
            [sys.executable, "-c", before + self.SCRIPT, how],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if before else None,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        self.assertEqual(process.stdout.readline(), "running\n")
        return process

    def test_signal(self) -> None:
        """SIGTERM ends the program with the status 0, not by the signal."""
        process = self.start("signal")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)

    def test_token(self) -> None:
        """A thread that hangs in a library does not keep the program from ending."""
        process = self.start("token")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)

    def test_restart(self) -> None:
        """
        SIGUSR2 starts the program again in the same process, as often as one likes, and
        SIGQUIT ends it; what is in flight each time is finished by another process.
        """
        process = self.start("restart")
        assert process.stdout is not None
        for _time in range(3):
            process.send_signal(signal.SIGUSR2)
            lines = sorted(process.stdout.readline() for _line in range(3))
            self.assertEqual(lines, [f"again {process.pid}\n", "finished True\n", "running\n"])
        process.send_signal(signal.SIGQUIT)
        self.assertEqual(process.wait(30), 0)
        self.assertEqual(process.stdout.read(), "finished True\n")

    def test_cannotRestart(self) -> None:
        """A program that has gone from the disk cannot be started again: that is a failure."""
        process = self.start("restart", "import sys; sys.executable = '/missing'\n")
        process.send_signal(signal.SIGUSR2)
        self.assertEqual(process.wait(30), 1)

    def test_fatal(self) -> None:
        """What the agent cannot go on after ends the program with a failure."""
        self.assertEqual(self.start("fatal").wait(30), 1)
