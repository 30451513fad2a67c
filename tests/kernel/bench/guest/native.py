"""
Agents where the kernel cannot be asked: a program, C{upcall}, is the NFS server and
answers for the kernel, and a library, C{stub.so}, leads the agent there.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from typing import Final

from tests.kernel.bench.guest.contenders import PROGRAMS, Contender, Setting
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab

_FIRST_PORT: Final = 2049
_JOIN: Final = struct.pack("=IHHIIBBH", 20, 0xFFF0, 0, 0, 0, 0, 0, 0)
"""C{STUB_JOIN}, see C{stub.h}."""


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
    """
    The program that answers for the kernel, and the NFS server, of one agent.

    @ivar host: where it runs.
    @ivar port: the NFS server's.
    """

    def __init__(self, host: Host, port: int) -> None:
        """
        Start it.

        @param host: where.
        @param port: the NFS server's.
        """
        self.host = host
        self.port = port
        self._process = host.start(
            str(PROGRAMS / "upcall"), str(port), _name(port), stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        os.set_blocking(self._process.stdout.fileno(), False)

    def joined(self) -> list[float]:
        """
        Say when agents have joined the group since this was last asked.

        @return: the clock (C{CLOCK_MONOTONIC}), of each.
        """
        assert self._process.stdout is not None
        return [float(line) for line in (self._process.stdout.read() or b"").splitlines()]

    def join(self) -> socket.socket:
        """
        Join the group, and do nothing else: requests wait until somebody takes them.

        @return: what leaves it by being closed.
        """
        joined = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        joined.connect(f"\0{_name(self.port)}")
        joined.send(_JOIN)
        return joined

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
    """
    An agent that is led to an L{Upcall}.  That, and the client, run beside it on the
    same processors, and would make no more work for an agent that keeps these from them.
    """

    realtime = False

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
        host = LocalHost()
        self._upcalls = {
            contender: lab.closing(Upcall(host, _FIRST_PORT + place))
            for place, contender in enumerate(agents)
        }

    def of(self, contender: str) -> Upcall:
        """
        Find an agent's.

        @param contender: whose.
        @return: it.
        """
        found: Upcall = self._upcalls[contender]
        return found

    def start(self, contender: str, setting: Setting) -> Contender:
        """
        Start an agent.

        @param contender: which.
        @param setting: its configuration.
        @return: it.
        """
        upcall = self.of(contender)
        name = f"BENCH_UPCALL={_name(upcall.port)}"
        prefix = ("env", f"LD_PRELOAD={PROGRAMS / 'stub.so'}", name)
        agent = NativeContender(contender, upcall.host, setting, prefix, upcall.port)
        # It has to end before the one that answers it.
        self._lab.closing(agent)
        return agent
