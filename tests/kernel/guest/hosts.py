"""
Hosts of the lab: network namespaces with mount and host names of their own.

A host is held by one sleeping process; commands enter its namespaces, and its
files are seen through that process's C{/proc} directory.  Handshake requests are
per network namespace, so every host needs an agent of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

_HOLD: Final = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/export /run/mnt /run/rpc_pipefs /run/rpcbind
mount -t tmpfs -o size=1G tmpfs /run/export
mount -t tmpfs tmpfs /var/lib/nfs
cd /var/lib/nfs
mkdir sm sm.bak rpc_pipefs v4recovery nfsdcltrack nfsdcld
touch etab rmtab xtab state
mount -t rpc_pipefs rpc /run/rpc_pipefs
ip link set lo up
echo up
exec sleep infinity
"""


class CommandFailed(Exception):
    """A command of the lab itself failed; the message has its output."""


class Host:
    """
    One host.

    @ivar name: its name, as in C{server} of C{server.lab}.
    @ivar pid: the process that holds its namespaces.
    """

    namespaces: tuple[str, ...] = ("--net", "--mount", "--uts")
    hold = _HOLD

    def __init__(self, name: str) -> None:
        """
        @param name: its name.
        """
        self.name = name
        self._holder = subprocess.Popen(
            ["unshare", *self.namespaces, "--propagation", "private", "sh", "-c", self.hold],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self.pid = self._holder.pid
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"up\n":
            raise CommandFailed(f"the namespaces of host {name} could not be made")

    def path(self, path: str) -> Path:
        """
        Say where one of its files is found from outside.

        @param path: absolute path on the host.
        @return: absolute path here.
        """
        return Path(f"/proc/{self.pid}/root{path}")

    def command(self, *arguments: str) -> list[str]:
        """
        Turn a command into one that enters this host.

        @param arguments: the command.
        @return: the command to start.
        """
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--uts", "--", *arguments]

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """
        Run a command that may fail.

        @param arguments: the command.
        @return: how it ended.
        """
        return subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def call(self, *arguments: str) -> str:
        """
        Run a command that must not fail.

        @param arguments: the command.
        @return: its standard output.
        @raise CommandFailed: if it does.
        """
        done = self.attempt(*arguments)
        if done.returncode:
            raise CommandFailed(
                f"{self.name}: {' '.join(arguments)}: status {done.returncode}: {done.stderr}"
            )
        return done.stdout

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """
        Start a process on this host.

        @param arguments: the command.
        @param options: for L{subprocess.Popen}.
        @return: the process, whose PID is the command's own.
        """
        return subprocess.Popen(
            self.command(*arguments), stdin=subprocess.DEVNULL, close_fds=True, **options
        )

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Make the calling thread open its sockets in this host's network."""
        if sys.version_info < (3, 12):
            raise RuntimeError("the guest's Python has to know setns")
        with Path("/proc/thread-self/ns/net").open() as own:
            with Path(f"/proc/{self.pid}/ns/net").open() as other:
                os.setns(other.fileno(), os.CLONE_NEWNET)
            try:
                yield
            finally:
                os.setns(own.fileno(), os.CLONE_NEWNET)

    def addAddresses(self, device: str, addresses: Sequence[str]) -> None:
        """
        Give a network device its addresses and bring it up.

        @param device: the device.
        @param addresses: addresses with prefix lengths.
        """
        self.call("ip", "link", "set", device, "up")
        for address in addresses:
            extra = ["nodad"] if ":" in address else []
            self.call("ip", "address", "add", address, "dev", device, *extra)

    def processes(self) -> list[int]:
        """
        List the processes in its network, without the one that holds it.

        @return: their PIDs.
        """
        own = os.stat(f"/proc/{self.pid}/ns/net").st_ino
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/net").st_ino == own and int(name) != self.pid:
                    found.append(int(name))
        return [pid for pid in found if pid != os.getpid()]

    def close(self) -> None:
        """End everything that runs here, and the host."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()


def connect(one: Host, other: Host, network: int = 0) -> None:
    """
    Lay a cable between two hosts.

    @param one: gets the addresses C{10.0.0.1} and C{fd00::1}.
    @param other: gets the addresses C{10.0.0.2} and C{fd00::2}.
    @param network: the third octet of the addresses.
    """
    device = f"eth{network}"
    one.call(
        *("ip", "link", "add", device, "type", "veth"),
        *("peer", "name", device, "netns", str(other.pid)),
    )
    for host, number in ((one, 1), (other, 2)):
        host.addAddresses(device, [f"10.0.{network}.{number}/24", f"fd00:0:{network}::{number}/64"])
