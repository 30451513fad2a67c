"""
What an agent costs, with all its children: a control group for each.

tlshd forks for every handshake and does not wait for its children, so nobody but the
control group knows what those have used.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_ROOT: Final = Path("/sys/fs/cgroup")
_WANTED: Final = "+memory +pids"
_PREFIX: Final = "bench-"
_MICRO: Final = 1e-6

_PAUSE: Final = 0.2
"""Seconds; looking takes a millisecond or so."""


def prepare() -> None:
    """Mount the control groups, and have memory and processes counted where that works."""
    if not (_ROOT / "cgroup.procs").exists():
        subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(_ROOT)], check=True)
    for controller in _WANTED.split():
        # This kernel may not have it, or may use it elsewhere.
        with contextlib.suppress(OSError):
            (_ROOT / "cgroup.subtree_control").write_text(controller)
    for left in _ROOT.glob(f"{_PREFIX}*"):
        # Of a run that was cut off; one that is still used stays.
        with contextlib.suppress(OSError):
            left.rmdir()


@dataclass(frozen=True, slots=True)
class Cost:
    """
    What was used during some work.

    @ivar seconds: processor time.
    @ivar memory: the most memory at any time, in octets; L{None} if that is not counted.
        Program files that were in memory before are not in it.
    @ivar proportional: where that is not counted, the most of L{Account.resident}'s
        C{proportional}, looked at now and then.
    @ivar processes: the most processes and threads at any time; L{None} if not counted.
    """

    seconds: float
    memory: int | None
    proportional: int | None
    processes: int | None


class Account:
    """A control group."""

    def __init__(self) -> None:
        """Make one."""
        self._directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_ROOT))
        self._entered = Path(tempfile.gettempdir()) / f"{self._directory.name}.entered"

    @property
    def prefix(self) -> tuple[str, ...]:
        """
        What begins the command of a process that is to be in it; the time is noted just
        before the command is executed, L{entered}.
        """
        note = f'echo $$ >{self._directory}/cgroup.procs && echo "$EPOCHREALTIME" >{self._entered}'
        return ("bash", "-c", f'{note} && exec "$@"', "bash")

    def add(self, pid: int) -> None:
        """
        Put a process into it that runs already.

        @param pid: the process.
        """
        (self._directory / "cgroup.procs").write_text(str(pid))

    def entered(self) -> float:
        """
        Say when the last process was executed in it.

        @return: the clock (C{CLOCK_MONOTONIC}).
        """
        return float(self._entered.read_text()) - time.time() + time.monotonic()

    def _pids(self) -> list[str]:
        """List its processes."""
        return (self._directory / "cgroup.procs").read_text().split()

    def resident(self) -> dict[str, int]:
        """
        Read how much memory its processes have.

        @return: of all together, in octets, C{resident}, and C{proportional}, where what
            several share counts once; and C{processes}, how many there are.
        """
        totals = dict.fromkeys(("resident", "proportional", "processes"), 0)
        for pid in self._pids():
            # tlshd's children come and go.
            with contextlib.suppress(OSError, KeyError):
                rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
                values = {row.partition(":")[0]: int(row.split()[1]) << 10 for row in rows}
                totals["resident"] += values["Rss"]
                totals["proportional"] += values["Pss"]
                totals["processes"] += 1
        return totals

    def processes(self) -> int:
        """
        Count the processes in it.

        @return: how many.
        """
        return len(self._pids())

    def current(self) -> int | None:
        """
        Read how much memory it has now, without files: its log is one, in memory.

        @return: octets; L{None} if that is not counted.
        """
        try:
            everything = int((self._directory / "memory.current").read_text())
            rows = (self._directory / "memory.stat").read_text().splitlines()
        except OSError:
            return None
        return everything - int(dict(row.split() for row in rows)["file"])

    @property
    def counted(self) -> bool:
        """Whether the kernel counts its memory."""
        return (self._directory / "memory.peak").exists()

    def seconds(self) -> float:
        """
        Read the processor time used so far.

        @return: seconds.
        """
        rows = (self._directory / "cpu.stat").read_text().splitlines()
        return int(dict(row.split() for row in rows)["usage_usec"]) * _MICRO

    def measuring(self) -> Measurement:
        """
        Begin to measure.

        @return: to be used in a C{with} statement.
        """
        return Measurement(self)

    def peak(self, name: str) -> _Peak:
        """
        Begin to look for the most of something.

        @param name: C{memory} or C{pids}.
        @return: what knows it at the end.
        """
        return _Peak(self._directory / f"{name}.peak")

    def close(self) -> None:
        """Take it away; its processes have ended."""
        self._directory.rmdir()


class _Peak:
    """A file that says the most since it was last written to through the same descriptor."""

    def __init__(self, path: Path) -> None:
        """
        @param path: the file, which need not exist.
        """
        try:
            self._file: int | None = os.open(path, os.O_RDWR)
            os.write(self._file, b"reset")
        except FileNotFoundError:
            self._file = None
        except OSError:
            # An older kernel counts from the beginning.
            self._file = os.open(path, os.O_RDONLY)

    def take(self) -> int | None:
        """
        Read it, for the last time.

        @return: the most; L{None} if it is not counted.
        """
        if self._file is None:
            return None
        value = int(os.pread(self._file, 64, 0))
        os.close(self._file)
        return value


class _Watch:
    """Looks again and again how much memory the processes of an account have."""

    def __init__(self, account: Account) -> None:
        """
        Begin to look.

        @param account: whose.
        """
        self._account = account
        self._most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(_PAUSE):
            self._most = max(self._most, self._account.resident()["proportional"])

    def take(self) -> int | None:
        """
        End.

        @return: the most; L{None} if there was no time to look.
        """
        self._ended.set()
        self._thread.join()
        return self._most or None


class Measurement:
    """
    What is used while a C{with} statement runs.

    @ivar cost: the result, when it has run.
    """

    cost: Cost

    def __init__(self, account: Account) -> None:
        """
        @param account: of whom.
        """
        self._account = account

    def __enter__(self) -> Self:
        """
        Begin.

        @return: itself.
        """
        self._memory = self._account.peak("memory")
        self._processes = self._account.peak("pids")
        self._watch = None if self._account.counted else _Watch(self._account)
        self._before = self._account.seconds()
        return self

    def __exit__(self, *_exception: object) -> None:
        """End."""
        seconds = self._account.seconds() - self._before
        seen = None if self._watch is None else self._watch.take()
        self.cost = Cost(seconds, self._memory.take(), seen, self._processes.take())
