"""
What guests of every kind have in common: they are booted when they are first
needed, and run scenarios one after the other.

Requests and results go, a line of JSON each, over the guest's first serial line;
the console only carries what the kernel and the init script say.  Only the
standard library is used here.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.kernel.rootfs import CHECKOUT, Progress, Recipe, rootFileSystem

_PRIVATE_MOUNTS: Final = Path(__file__).with_name("privatemounts.py")

_MOUNTS: Final = """
set -e
mount --bind {root} {root}
mount -o remount,bind,ro {root}
mount -t proc proc {root}/proc
mount --rbind /dev {root}/dev
mount --bind {checkout} {root}/srv/ktlsagent
mount -o remount,bind,ro {root}/srv/ktlsagent
"""


def mounts(root: Path) -> str:
    """
    Write the shell commands that complete a root file system, for L{namespaced}: it is
    read-only, and has this checkout in it.

    @param root: the root file system.
    @return: the commands.
    """
    return _MOUNTS.format(root=shlex.quote(str(root)), checkout=shlex.quote(str(CHECKOUT)))


def namespaced(script: str, *others: str) -> list[str]:
    """
    Say how to run shell commands in mount and PID namespaces of their own, which end
    with them.

    @param script: the commands.
    @param others: further namespaces, as options of unshare(1).
    @return: the command to start.
    """
    # unshare(1) cannot make mounts private where the root is no mount point.
    unshare = ["unshare", "--mount", "--propagation", "unchanged", "--pid", *others]
    return [
        *(*unshare, "--fork", "--kill-child", sys.executable, "-I", str(_PRIVATE_MOUNTS)),
        *("sh", "-c", script),
    ]


class GuestDied(Exception):
    """The guest ended, or did not answer in time; the message has its console."""


class BaseGuest(ABC):
    """
    A booted guest, or one that is booted when it is first needed.

    @cvar bootSeconds: how many seconds it may take to say that it is ready.
    @cvar patience: how many times as long as usual a scenario may take.
    @ivar recipe: what it boots.
    @ivar boots: how many times it was booted.
    """

    bootSeconds = 60.0
    patience = 1

    def __init__(self, recipe: Recipe, progress: Progress, memory: str = "2G") -> None:
        """
        @param recipe: the root file system to boot.
        @param progress: told about each step that takes time.
        @param memory: the guest's memory; what it does not use costs nothing.
        """
        self.recipe = recipe
        self.boots = 0
        self._progress = progress
        self._memory = memory
        self._process: subprocess.Popen[bytes] | None = None
        self._requests = self._results = -1
        self._received = b""
        self._console: Any = None
        atexit.register(self.close)

    def console(self) -> str:
        """
        Return what the guest's console said.

        @return: its last lines.
        """
        if self._console is None:
            return ""
        self._console.seek(0)
        text = self._console.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-80:])

    def boot(self) -> None:
        """
        Boot, unless it runs already.

        @raise tests.kernel.rootfs.LabError: if the root file system cannot be built.
        @raise GuestDied: if it does not come up.
        """
        if self._process is not None:
            return
        root = rootFileSystem(self.recipe, self._progress)
        started = time.monotonic()
        self._console = tempfile.TemporaryFile()  # noqa: SIM115 - kept, for console()
        self._received = b""
        self._process = self._start(root)
        self.boots += 1
        ready = self._receive(self.bootSeconds)
        took = time.monotonic() - started
        self._progress(f"booted Linux {ready['release']} ({self.recipe.name}) in {took:.1f} s")

    def run(self, scenario: str, arguments: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """
        Run one scenario; boot first if need be.

        A guest in which a scenario hung or left something behind is not used again.

        @param scenario: the name of its function, C{module.function}.
        @param arguments: what it is called with.
        @param timeout: how many seconds it may take, before L{patience}.
        @return: C{ok}, C{failure}, C{facts}, C{logs}, C{clean}.
        @raise GuestDied: if the guest did not answer.
        """
        self.boot()
        timeout *= self.patience
        request = {"scenario": scenario, "arguments": dict(arguments), "timeout": timeout}
        os.write(self._requests, json.dumps(request).encode() + b"\n")
        result = self._receive(timeout + 30.0)
        if not result["clean"]:
            self.close()
        return result

    @abstractmethod
    def _start(self, root: Path) -> subprocess.Popen[bytes]:
        """
        Start the guest, and set C{_requests} and C{_results}.

        @param root: what was built of the recipe.
        @return: the process, which ends with this one.
        """

    def _launch(self, command: list[str], *descriptors: int) -> subprocess.Popen[bytes]:
        """
        Start a process that ends with this one and writes to the console's file.

        @param command: the command.
        @param descriptors: what it inherits; closed here.
        @return: the process.
        """
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
            pass_fds=descriptors,
            start_new_session=True,
        )
        for descriptor in descriptors:
            os.close(descriptor)
        return process

    def _receive(self, timeout: float) -> dict[str, Any]:
        """
        Wait for one line of JSON.

        @param timeout: how many seconds to wait.
        @return: its value.
        @raise GuestDied: if none comes.
        """
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._results, selectors.EVENT_READ)
            while b"\n" not in self._received:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._fail(f"did not answer within {timeout:.0f} s")
                try:
                    data = os.read(self._results, 1 << 16)
                except ConnectionResetError:
                    data = b""
                if not data:
                    self._fail("ended")
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        value: dict[str, Any] = json.loads(line)
        return value

    def _fail(self, what: str) -> None:
        """
        Give the guest up.

        @param what: what it did.
        @raise GuestDied: always.
        """
        console = self.console()
        self.close()
        hint = ""
        if re.search("^(unshare|mount|chroot): .*not permitted", console, re.MULTILINE):
            hint = " (it needs real root: CAP_SYS_ADMIN, mount and PID namespaces)"
        raise GuestDied(f"the {self.recipe.name} guest {what}{hint}; its console:\n{console}")

    def close(self) -> None:
        """End the guest, if it runs."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(self._requests)
        os.close(self._results)
