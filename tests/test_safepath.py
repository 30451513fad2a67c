"""
No process of the agent runs code from its working directory, where somebody else may
have put modules with the names of those that are imported.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ktlsagent

ROOT = Path(ktlsagent.__file__).parents[1]

TRAP = "import sys; print('trapped by', __name__, file=sys.__stderr__, flush=True)\n"

HELPER = """
from ktlsagent.credentials import tokenload
from ktlsagent.credentials.tokens import TokenKey
from ktlsagent.errors import HandshakeError
key = TokenKey.fromURI("pkcs11:token=none;object=none", None)
try:
    tokenload._loadElsewhere(key)
except HandshakeError as error:
    print(error.code)
"""
"""Asks a token in another process."""

WORKER = """
import socket
from ktlsagent.credentials import tokenload
tokenload.providers = lambda: ["tpm2"]
from ktlsagent.processes import worker
from ktlsagent.processes.slot import Slot
near, far = socket.socketpair()
slot = Slot.make()
print("a worker begins", flush=True)
worker.run(far.detach(), slot.memory, slot.bell)
"""
"""Becomes a worker that is a program of its own, whose parent goes."""

TEMPLATE = """
import os
from ktlsagent.processes import template, worker
class Reactor:
    def addReader(self, reader):
        pass
parent = template.Template(Reactor(), worker.run, print, print, print)
parent.startAnew()
parent._control.close()
print(os.waitpid(parent._pid, 0)[1], flush=True)
"""
"""Starts a template anew, and lets it end."""

AGAIN = """
import os, sys
from ktlsagent import readysocket
if "LISTEN_PID" in os.environ:
    import json
    sys.exit(print("safe", sys.flags.safe_path, flush=True))
readysocket.replaceProcess(0)
"""
"""Starts again in the same process, as for SIGUSR2."""

TWISTD = """
import sys
from twisted.scripts.twistd import run
sys.exit(run())
"""
"""What the command C{twistd} is."""


class SafePathTests(SynchronousTestCase):
    """Processes that are started in a directory full of traps."""

    def setUp(self) -> None:
        self.traps = Path(self.mktemp()).absolute()
        self.traps.mkdir()

    def lay(self, *more: str) -> None:
        """
        Lay traps with the names of all modules that there are, but not of ours.

        @param more: other names.
        """
        imported = {name.partition(".")[0] for name in sys.modules} - {"ktlsagent", "tests"}
        for name in {*imported, *sys.stdlib_module_names, "readline", "sitecustomize", *more}:
            (self.traps / f"{name}.py").write_text(TRAP)

    def spring(self) -> None:
        """Take away the traps into which Python itself goes for C{-m}, before any program."""
        loaded = self.run_("-P", "-c", "import runpy, sys; print(*sys.modules)").split()
        for name in {name.partition(".")[0] for name in loaded}:
            (self.traps / f"{name}.py").unlink(missing_ok=True)

    def run_(self, *arguments: str, **environment: str) -> str:
        """
        Run Python among the traps.

        @param arguments: its arguments.
        @param environment: more of its environment.
        @return: what it wrote to standard output.
        """
        variables = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment}
        ran = subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, **variables},
            cwd=self.traps,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertNotIn("trapped", ran.stderr)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        return ran.stdout

    def test_theTrapsWork(self) -> None:
        """What is started without care is trapped."""
        self.lay()
        self.assertRaises(self.failureException, self.run_, "-c", "import idna")

    def test_program(self) -> None:
        """C{python3 -m ktlsagent} leaves the directory out before it imports anything itself."""
        self.lay()
        self.spring()
        version = f"ktlsagent {ktlsagent.__version__}\n"
        self.assertEqual(self.run_("-m", "ktlsagent", "--version"), version)

    def test_checkout(self) -> None:
        """In a checkout, which the program itself comes from, what is installed comes first."""
        for name in ("json", "idna", "twisted", "OpenSSL", "ctypes", "pyroute2"):
            (self.traps / f"{name}.py").write_text(TRAP)
        (self.traps / "ktlsagent").symlink_to(ROOT / "ktlsagent")
        self.assertIn("--config", self.run_("-m", "ktlsagent", "--help", PYTHONPATH=""))

    def test_documentedCommand(self) -> None:
        """With C{-P}, as in the unit, or C{PYTHONSAFEPATH} nothing at all comes from there."""
        self.lay("ktlsagent")
        version = f"ktlsagent {ktlsagent.__version__}\n"
        self.assertEqual(self.run_("-P", "-m", "ktlsagent", "--version"), version)
        self.assertEqual(
            self.run_("-m", "ktlsagent", "--version", PYTHONSAFEPATH="1"),
            version,
        )

    def test_twistd(self) -> None:
        """C{twistd} looks beside itself, and not in the directory, its plugins' included."""
        self.lay("ktlsagent")
        (self.traps / "twisted").mkdir()
        (self.traps / "twisted" / "plugins").mkdir()
        (self.traps / "twisted" / "plugins" / "trap.py").write_text(TRAP)
        script = Path(self.mktemp()).absolute()
        script.mkdir()
        (script / "twistd").write_text(TWISTD)
        self.assertIn("--config", self.run_(str(script / "twistd"), "ktlsagent", "--help"))

    def test_tokens(self) -> None:
        """The process that asks a token first comes from where we do."""
        self.lay("ktlsagent")
        self.assertEqual(self.run_("-P", "-c", HELPER), "token-provider\n")

    def test_worker(self) -> None:
        """A worker that is a program of its own does, too."""
        self.lay("ktlsagent")
        self.assertIn("a worker begins", self.run_("-P", "-c", WORKER))

    def test_template(self) -> None:
        """A template of workers that is one does, too."""
        self.lay("ktlsagent")
        self.assertEqual(self.run_("-P", "-c", TEMPLATE), "0\n")

    def test_everyProcess(self) -> None:
        """Whatever else is started with this Python has the option."""
        started = [
            [ast.unparse(element) for element in node.elts[:2]]
            for path in (ROOT / "ktlsagent").rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.List) and node.elts
        ]
        options = [second for first, *second in started if first == "sys.executable"]
        self.assertEqual(options, [["'-P'"]] * 3)

    def test_startedAgain(self) -> None:
        """What starts again in the same process does so with the same care."""
        self.lay("ktlsagent")
        self.assertEqual(self.run_("-P", "-c", AGAIN), "safe True\n")
        # With the environment's care it is the environment that goes on.
        self.assertEqual(self.run_("-c", AGAIN, PYTHONSAFEPATH="1"), "safe True\n")
