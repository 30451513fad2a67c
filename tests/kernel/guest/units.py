"""The agent as the service that C{conf/ktlsagent.service} describes, under a real systemd."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from tests.kernel.guest.agents import Agent, Process
from tests.kernel.guest.waiting import until

_SHIPPED: Final = Path("/srv/ktlsagent/conf/ktlsagent.service")
_UNITS: Final = Path("/run/systemd/system")
_UNIT: Final = "ktlsagent.service"
_STOP_SECONDS: Final = 30.0

_HERE: Final = """
[Service]
ExecStart=
ExecStart=/usr/bin/python3 -P -m ktlsagent --config {configuration}
WorkingDirectory=/tmp
Environment=PYTHONPATH=/tmp/checkout
NetworkNamespacePath=/proc/{host}/ns/net
StandardOutput=append:{log}
StandardError=inherit
"""
"""What is different here: where things are, and that a host is a network namespace."""


def systemctl(*arguments: str) -> str:
    """
    Ask systemd for something.

    @param arguments: what.
    @return: what it says.
    """
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def shown(name: str) -> str:
    """
    Ask for a property of the unit.

    @param name: which.
    @return: its value.
    """
    return systemctl("show", "--value", f"--property={name}", _UNIT)


class _Main:
    """
    The unit's main process, whichever that is.

    @ivar pid: its PID when it was looked at last.
    @ivar returncode: how the unit has ended, once that is known.
    """

    def __init__(self) -> None:
        self.pid = int(shown("MainPID"))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if shown("ActiveState") in ("inactive", "failed"):
            self.returncode = 0 if shown("Result") == "success" else 1
        self.pid = int(shown("MainPID")) or self.pid
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until(lambda: self.poll() is not None, "the unit has ended", timeout or _STOP_SECONDS)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int, /) -> None:
        if number == signal.SIGTERM:
            systemctl("stop", _UNIT)
        else:
            systemctl("kill", "--kill-whom=main", f"--signal={number}", _UNIT)

    def kill(self) -> None:
        systemctl("kill", "--signal=KILL", _UNIT)
        systemctl("stop", _UNIT)


class ManagedAgent(Agent):
    """The agent as a service."""

    def _start(self, prefix: Sequence[str], log: BinaryIO) -> Process:
        """
        Install the unit, and start it.

        @param prefix: nothing here.
        @param log: where its output goes.
        @return: its main process.
        """
        settings = _UNITS / f"{_UNIT}.d"
        settings.mkdir(parents=True, exist_ok=True)
        shutil.copy(_SHIPPED, _UNITS)
        (settings / "here.conf").write_text(
            _HERE.format(configuration=self.configurationFile, host=self.host.pid, log=log.name)
        )
        systemctl("daemon-reload")
        systemctl("start", _UNIT)
        return _Main()

    def restart(self) -> None:
        """Restart it, as an administrator does, but without a limit of how often."""
        systemctl("reset-failed", _UNIT)
        systemctl("restart", _UNIT)

    def killMain(self) -> None:
        """End its main process without a warning, and wait until systemd has a new one."""
        systemctl("reset-failed", _UNIT)
        before = self.starts()
        systemctl("kill", "--kill-whom=main", "--signal=KILL", _UNIT)
        until(lambda: self.starts() > before, "the unit is up again", 60.0)
