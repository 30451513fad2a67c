"""
Agents where the kernel cannot be asked: a program, C{upcall}, is the NFS server and
answers for the kernel, and a library, C{stub.so}, leads the agent there.
"""

from __future__ import annotations

import os
import subprocess
from typing import Final

from tests.kernel.bench.guest.contenders import PROGRAMS, Contender, Setting
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab

_FIRST_PORT: Final = 2049


class LocalHost(Host):
    """This machine as a host: commands run as they are."""

    def __init__(self) -> None:
        """Make nothing."""
        self.name = "local"
        self.pid = os.getpid()

    def command(self, *arguments: str) -> list[str]:
        """
        Leave a command as it is.

        @param arguments: the command.
        @return: the command to start.
        """
        return list(arguments)

    def close(self) -> None:
        """End nothing."""


class Upcall:
    """The program that answers for the kernel, and the NFS server, of one agent."""

    def __init__(self, host: Host, port: int) -> None:
        """
        Start it.

        @param host: where.
        @param port: the NFS server's.
        """
        self._process = host.start(
            str(PROGRAMS / "upcall"), str(port), _name(port), stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _name(port: int) -> str:
    """
    Name the Unix socket of the one with some port.

    @param port: the NFS server's.
    @return: a name.
    """
    return f"upcall-{port}"


class NativeContender(Contender):
    """An agent that is led to an L{Upcall}."""

    def _listening(self) -> bool:
        """
        Believe that it listens; the first connections try until it does.

        @return: true.
        """
        return True


class Upcalls:
    """An L{Upcall} for each of some agents."""

    def __init__(self, lab: Lab, agents: list[str]) -> None:
        """
        Start them.

        @param lab: the stage.
        @param agents: which.
        """
        self._lab = lab
        self._host = LocalHost()
        self._ports = dict(zip(agents, range(_FIRST_PORT, _FIRST_PORT + len(agents)), strict=True))
        for port in self._ports.values():
            lab.closing(Upcall(self._host, port))

    def start(self, kind: str, setting: Setting) -> Contender:
        """
        Start an agent.

        @param kind: which.
        @param setting: its configuration.
        @return: it.
        """
        port = self._ports[kind]
        prefix = ("env", f"LD_PRELOAD={PROGRAMS / 'stub.so'}", f"BENCH_UPCALL={_name(port)}")
        agent = NativeContender(kind, self._host, setting, prefix, port)
        # It has to end before the one that answers it.
        self._lab.closing(agent)
        return agent
