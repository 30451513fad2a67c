"""Processes that may administer the agent's network namespace, and forge what the kernel says."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.kernel.guest import forger
from tests.kernel.guest.agents import Agent, configuration
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import readFile, writeFile
from tests.kernel.guest.waiting import Unexpected, expect

_NOBODY: Final = "65534"

_NET_ADMIN: Final = (
    *("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"),
    *("--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"),
    "--bounding-set=-all,+net_admin",
)


_NETLINK_GENERIC: Final = "16"

_REFUSED: Final = ["ECONNREFUSED"]

_MOST_WARNINGS: Final = 2
"""Once a minute, and mounts take seconds."""


class TenantHost(Host):
    """
    A host with a network namespace that belongs to a user namespace of nobody's.

    @ivar tenant: the process that is root there.
    """

    namespaces = ("--mount", "--uts")
    # NFS is not to be had in such a namespace.
    hold = "ip link set lo up; echo up; exec sleep infinity"

    def __init__(self, name: str) -> None:
        """
        @param name: its name.
        """
        self.tenant = subprocess.Popen(
            [
                *("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"),
                *("unshare", "--user", "--map-root-user", "--net"),
                *("sh", "-c", self.hold),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self.tenant.stdout is not None
        expect("what the tenant says", self.tenant.stdout.readline(), b"up\n")
        self.pid = self.tenant.pid
        with self.network():
            super().__init__(name)

    def entering(self) -> list[str]:
        """
        Say how to become the tenant.

        @return: the beginning of a command.
        """
        return ["nsenter", f"--target={self.tenant.pid}", "--user", "--net", "--"]

    def close(self) -> None:
        """End everything that runs here, the tenant as well."""
        super().close()
        self.tenant.kill()
        self.tenant.wait()
        if self.tenant.stdout is not None:
            self.tenant.stdout.close()


def _sockets(agent: Agent) -> tuple[int, set[int]]:
    """
    Find the netlink sockets of an agent and its workers.

    @param agent: the agent.
    @return: the groups that they are in, a bit for each, and their ports.
    """
    groups, ports = 0, set()
    for pid in (agent.process.pid, *agent.workers.values()):
        directory = Path(f"/proc/{pid}")
        held = {os.readlink(path) for path in (directory / "fd").iterdir()}
        for row in (directory / "net/netlink").read_text().splitlines()[1:]:
            _pointer, protocol, port, joined, *_rest, inode = row.split()
            if protocol == _NETLINK_GENERIC and f"socket:[{inode}]" in held:
                groups |= int(joined, 16)
                ports.add(int(port))
    return groups, ports


@contextlib.contextmanager
def _forging(lab: Lab, agent: Agent, command: Sequence[str]) -> Iterator[None]:
    """
    Have somebody forge as fast as can be, and wait until the agent has noticed.

    @param lab: the stage.
    @param agent: the agent.
    @param command: the beginning of the command.
    """
    groups, ports = _sockets(agent)
    lab.facts["ports"] = len(ports)
    with subprocess.Popen(
        [*command, "python3", forger.__file__, str(groups), *map(str, ports)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as forging:
        try:
            assert forging.stdout is not None
            found = json.loads(forging.stdout.readline())
            lab.facts["forged"] = found
            expect("what comes of what is sent to a port", list(found["to a port"]), _REFUSED)
            if not found["to the group"].get("sent"):
                raise Unexpected("expected that the agents' group can be sent to")
            agent.waitForLog("not the kernel's")
            yield
            expect("the forger's end", forging.poll(), None)
        finally:
            forging.kill()


def tenantsRoot(lab: Lab) -> None:
    """
    The root of a user namespace, to which the agent's network namespace belongs, forges;
    the agent goes on, and says it.

    @param lab: the stage.
    """
    host = lab.host("tenant", TenantHost)
    assert isinstance(host, TenantHost)
    agent = lab.agent(host)
    lab.listening()
    with _forging(lab, agent, host.entering()):
        time.sleep(1.0)
        expect("the agent's end", agent.process.poll(), None)
    agent.stop()


def whileMounting(lab: Lab, workers: str) -> None:
    """
    While somebody with CAP_NET_ADMIN and nothing else forges, mounts are served.

    @param lab: the stage.
    @param workers: how many workers the agent has.
    """
    host = lab.oneHost()
    agent = lab.agent(host, text=configuration(workers=workers))
    lab.listening()
    lab.server(host, "mtls")
    with _forging(lab, agent, host.command(*_NET_ADMIN)):
        for _time in range(3):
            with lab.mounted(host, "4.2", "mtls") as mount:
                lab.facts.setdefault("mount-s", []).append(round(mount.seconds, 2))
                written = writeFile(mount.path / "data", 1)
                expect("SHA-256", readFile(mount.path / "data"), written)
    expect("outcomes", {line.outcome for line in agent.handshakes()}, {"ok"})
    warnings = agent.log().count("not the kernel's")
    if warnings > _MOST_WARNINGS * int(workers):
        raise Unexpected(f"expected a warning now and then, found {warnings}")
