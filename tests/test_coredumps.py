"""Tests for L{ktlsagent.coredumps}."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import ktlsagent
from ktlsagent import coredumps, tap
from ktlsagent.credentials import tokenload
from ktlsagent.processes import template, worker

ROOT = Path(ktlsagent.__file__).parents[1]

SCRIPT = """
import ctypes, os, resource
from ktlsagent import coredumps

def show():
    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    print(resource.getrlimit(resource.RLIMIT_CORE), dumpable, flush=True)

resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))
coredumps.forbid()
coredumps.forbid()
show()
if not os.fork():
    show()
    # It can still look at itself.
    os.listdir("/proc/self/fd")
    with open("/proc/self/fd/0"), open("/proc/self/maps"), open("/proc/net/netlink"):
        os._exit(0)
print(os.waitpid(-1, 0)[1])
"""


class ForbidTests(SynchronousTestCase):
    """Tests of L{coredumps.forbid}."""

    def test_forbidden(self) -> None:
        """There is no core dump of the process and of what it forks, for files and for pipes."""
        ran = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((ran.stdout, ran.stderr), ("(0, 0) 0\n(0, 0) 0\n0\n", ""))

    def test_everyProgram(self) -> None:
        """All that the agent executes begins with it, before there is a secret."""

        class Called(Exception):
            """It was called, and nothing else was."""

        def forbid() -> None:
            raise Called

        self.patch(coredumps, "forbid", forbid)
        self.assertRaises(Called, tap.makeService, tap.Options())
        self.assertRaises(Called, worker.be, -1, -1, -1)
        self.assertRaises(Called, template.be, "-1", "", "")
        self.assertRaises(Called, tokenload.answer, {})
