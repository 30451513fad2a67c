"""
Starts ktlsagent from a process that has imported it already.

Importing takes an emulated machine several seconds, nearly all of what a scenario
takes.  The agent gets a process of its own by fork, with nothing but its modules from
the one before: the host's namespaces, a session keyring of its own, and no descriptors.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import keyutils
from twisted.internet import epollreactor
from twisted.scripts import twistd

from ktlsagent import tap
from tests.kernel.guest.agents import Agent, Process
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab

_PRELOADED: Final = (epollreactor, tap)
"""What twistd imports when it starts; none of these installs a reactor."""

_NAMESPACES: Final = ("net", "uts", "mnt")
_PAUSE: Final = 0.01


class WarmProcess:
    """
    A forked process, with what is used of L{subprocess.Popen}.

    @ivar pid: its PID.
    @ivar returncode: how it ended, once that is known.
    """

    def __init__(self, host: Host, arguments: Sequence[str], log: BinaryIO) -> None:
        """
        Fork, and run twistd there.

        @param host: where.
        @param arguments: of twistd.
        @param log: where its output goes.
        """
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(host, arguments, log)

    def poll(self) -> int | None:
        """
        Look whether it has ended.

        @return: how; L{None} if it has not.
        """
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait until it has ended.

        @param timeout: how many seconds.
        @return: how it ended.
        @raise subprocess.TimeoutExpired: if it does not.
        """
        started = time.monotonic()
        while (status := self.poll()) is None:
            if timeout is not None and time.monotonic() - started > timeout:
                raise subprocess.TimeoutExpired("ktlsagent", timeout)
            time.sleep(_PAUSE)
        return status

    def send_signal(self, number: int) -> None:
        """
        Send a signal, if it runs.

        @param number: which.
        """
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a warning."""
        self.send_signal(signal.SIGKILL)


class WarmAgent(Agent):
    """ktlsagent, started at once, in a session of its own."""

    def _start(self, prefix: Sequence[str], log: BinaryIO) -> Process:
        arguments = ["--nodaemon", "--pidfile=", self.kind, "--config"]
        return WarmProcess(self.host, [*arguments, str(self.configurationFile)], log)


Lab.plainAgent = WarmAgent


def _run(host: Host, arguments: Sequence[str], log: BinaryIO) -> None:
    """
    Become the agent; does not return.

    @param host: where.
    @param arguments: of twistd.
    @param log: where its output goes.
    """
    status = 1
    try:
        for name in _NAMESPACES:
            with Path(f"/proc/{host.pid}/ns/{name}").open() as namespace:
                os.setns(namespace.fileno())  # type: ignore[attr-defined,unused-ignore]
        keyutils.join_session_keyring()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/tmp")
        sys.argv = ["twistd3", *arguments]
        twistd.run()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it must not get out of here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Forked from a program with an end of its own: only this is like an end.
        atexit._run_exitfuncs()
        os._exit(status)
