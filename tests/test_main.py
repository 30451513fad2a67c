"""C{python3 -m ktlsagent}: the same program as C{twistd ktlsagent}."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ktlsagent
from tests.support.folder import ownFolder

ROOT = Path(ktlsagent.__file__).parents[1]

STUBBED = """
import os
import sys
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from ktlsagent import __main__ as program

class Stub(Service):
    def privilegedStartService(self):
        print("privileged", flush=True)
    def startService(self):
        from twisted.internet import reactor
        # Not with print: a signal that comes before that returns could log nothing.
        reactor.callWhenRunning(os.write, 1, b"running\\n")
    def stopService(self):
        from twisted.internet import reactor
        stopped = Deferred()
        reactor.callLater(0, print, "stopped", flush=True)
        reactor.callLater(0, stopped.callback, None)
        return stopped

program.makeService = lambda options: Stub()
program.main()
"""
"""The program with a service that needs no kernel."""

SIGNALLED = """
import os, runpy, signal, sys
number = getattr(signal, sys.argv.pop(1))
signal.pthread_sigmask(signal.SIG_BLOCK, {number})
os.kill(os.getpid(), number)
runpy.run_module("ktlsagent", run_name="__main__")
"""
"""The program with a signal that has come before it."""


TALKATIVE = STUBBED.replace(
    'print("privileged", flush=True)',
    """
from twisted.logger import Logger
for number in range(9000):
    Logger().info("number {number} {filling}", number=number, filling="x" * 200)
sys.__stderr__.write("privileged\\n")
sys.__stderr__.flush()
""".replace("\n", "\n        "),
)
"""The same, but it has a lot to say."""


class MainTests(SynchronousTestCase):
    """The program, in a process of its own."""

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """
        Start Python.

        @param arguments: its arguments.
        @return: the process.
        """
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def run_(self, *arguments: str) -> tuple[int, str, str]:
        """
        Run the program to its end.

        @param arguments: its arguments.
        @return: its exit status, and what it wrote to standard output and error.
        """
        process = self.begin("-m", "ktlsagent", *arguments)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors

    def test_version(self) -> None:
        """--version prints ours."""
        self.assertEqual(self.run_("--version"), (0, f"ktlsagent {ktlsagent.__version__}\n", ""))

    def test_signalledBeforeTheStart(self) -> None:
        """No signal kills the program while it is being loaded; one to stop ends it at once."""
        version = f"ktlsagent {ktlsagent.__version__}\n"
        for name, output in (
            ("SIGHUP", version),
            ("SIGUSR2", version),
            ("SIGUSR1", version),
            ("SIGTERM", ""),
            ("SIGINT", ""),
            ("SIGQUIT", ""),
        ):
            process = self.begin("-c", SIGNALLED, name, "--version")
            self.assertEqual(
                (*process.communicate(timeout=60), process.returncode), (output, "", 0)
            )

    def test_help(self) -> None:
        """--help says how the program is called, and what it is for."""
        status, output, _errors = self.run_("--help")
        self.assertEqual(status, 0)
        self.assertIn("python3 -P -m ktlsagent [--config FILE]", output)
        self.assertIn("NFS", output)

    def test_unknownOption(self) -> None:
        """An option that there is not is named, without a traceback."""
        status, _output, errors = self.run_("--colour")
        self.assertEqual(status, 1)
        self.assertIn("option --colour not recognized", errors)
        self.assertIn("--config", errors)
        self.assertNotIn("Traceback", errors)

    def test_badConfiguration(self) -> None:
        """Mistakes in the configuration are listed, without a traceback."""
        path = ownFolder(self) / "config"
        path.write_text("[authenticate.client]\nx509.trustore=/a\nx509.crl=b\n")
        status, _output, errors = self.run_("--config", str(path))
        self.assertEqual(status, 1)
        self.assertIn("x509.trustore", errors)
        self.assertIn("x509.crl", errors)
        self.assertNotIn("Traceback", errors)

    def test_nobodyReads(self) -> None:
        """If nobody reads its log it goes on, and says what is missing when somebody does."""
        process = self.begin("-c", TALKATIVE)
        assert process.stdout is not None
        assert process.stderr is not None
        self.assertEqual(process.stderr.readline(), "privileged\n")
        line, count = "", 0
        while "lines were dropped because nobody read the log" not in line:
            line = process.stdout.readline()
            count += "] number " in line
        # The program says a thing or two besides.
        self.assertIn(count + int(line.split()[2]), range(9000, 9004))
        process.send_signal(signal.SIGTERM)
        output, _errors = process.communicate(timeout=60)
        self.assertIn("Main loop terminated.", output)

    def test_lives(self) -> None:
        """The service is started, runs, and is stopped before the program ends."""
        process = self.begin("-c", STUBBED)
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].endswith("running\n"):
            lines.append(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
        told = [line.rpartition("] ")[2] for line in [*lines, *output.splitlines(keepends=True)]]
        self.assertEqual(
            [line.strip() for line in told],
            [
                "privileged",
                "running",
                "Received SIGTERM, shutting down.",
                "stopped",
                "Main loop terminated.",
            ],
        )
        self.assertEqual(errors, "")
