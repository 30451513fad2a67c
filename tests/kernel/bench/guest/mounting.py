"""
What clients' agents do for mounts that are made at once, and for mounts with many
connections.

Each client is a host of its own with one of the agents; all mount from the same server,
whose agent is the same for all.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

from tests.kernel.bench import outcomes
from tests.kernel.bench.guest import accounts
from tests.kernel.bench.guest.contenders import FLOOR, Contender, Setting
from tests.kernel.guest.agents import KTLSAGENT, Process
from tests.kernel.guest.hosts import Host, connect
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.waiting import Unexpected

_PROGRAM: Final = "tests.kernel.bench.guest.mounter"
_SLOW: Final = "tests.kernel.bench.guest.slowagent"
_THREADS: Final = 64

_NETWORK: Final = "10.9.0"
"""The server has as many addresses as a client wants connections."""

_ADDRESSES: Final = 64

_MOUNTD: Final = re.compile(r"100005 +3 +tcp +(\d+)")
_CONNECTIONS: Final = 16

_LOOKUPS: Final = 4 * _CONNECTIONS
"""The kernel makes a connection when it first has something to send on it; it uses them in turn."""


class SlowAgent(Contender):
    """A server's ktlsagent that is slow."""

    def __init__(self, host: Host, seconds: float) -> None:
        """
        Start it.

        @param host: where.
        @param seconds: how long it does nothing in each handshake.
        """
        self._seconds = seconds
        super().__init__(KTLSAGENT, host, Setting())

    def _start(self, prefix: Sequence[str], log: BinaryIO) -> Process:
        command = (*prefix, sys.executable, "-m", _SLOW, str(self._seconds))
        options = ("--config", str(self.configurationFile))
        return self.host.start(*command, *options, stdout=log, stderr=log, cwd="/tmp")


def _server(lab: Lab) -> Host:
    """
    Make the server.

    @param lab: the stage.
    @return: its host, which has no agent yet.
    """
    accounts.prepare()
    server = lab.host("server")
    addresses = [f"{_NETWORK}.{number + 1}/32" for number in range(_ADDRESSES)]
    server.addAddresses("lo", addresses)
    lab.server(server, "mtls", _THREADS)
    return server


def _clients(lab: Lab, server: Host, agents: Sequence[str]) -> dict[str, Contender]:
    """
    Start the clients' agents, each on a host of its own.

    @param lab: the stage.
    @param server: their server.
    @param agents: which.
    @return: the agents, by their kinds.
    """
    started = {}
    for number, kind in enumerate(agents):
        client = lab.host(f"client{number}")
        connect(server, client, number)
        client.call("ip", "route", "add", f"{_NETWORK}.0/24", "via", f"10.0.{number}.1")
        started[kind] = Contender(kind, client, Setting())
    lab.agents += started.values()
    lab.listening()
    return started


class Mounter:
    """The program that mounts, on a client."""

    def __init__(self, host: Host, source: str, options: Sequence[str], **job: float) -> None:
        """
        Have it mount.

        @param host: the client.
        @param source: as for L{tests.kernel.bench.guest.mounter.perform}.
        @param options: as there.
        @param job: as there.
        """
        words = json.dumps({"source": source, "options": options, **job})
        self._process = subprocess.Popen(
            host.command(sys.executable, "-m", _PROGRAM, words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def results(self) -> list[outcomes.Result]:
        """
        Wait for what became of the mounts, and then of the files.

        @return: all of them.
        @raise Unexpected: if the program ends.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Unexpected(f"{_PROGRAM} ended with {self._process.wait()}")
        found: list[outcomes.Result] = json.loads(line)
        return found

    def goOn(self) -> None:
        """Have it look for files."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def finish(self) -> None:
        """Wait until it has unmounted."""
        self._process.communicate()


def _costs(measured: accounts.Measurement, count: int) -> dict[str, Any]:
    """
    Say what an agent has used.

    @param measured: during some work.
    @param count: how many handshakes that was.
    @return: what goes into a sample.
    """
    cost = measured.cost
    cpu = round(1e3 * cost.seconds / count, 3)
    return {"cpu": cpu, "memory": cost.memory, "processes": cost.processes}


def atOnce(lab: Lab, *, agents: list[str], counts: list[int], rounds: int, limit: float) -> None:
    """
    Mount from as many addresses at once, and have all of these connect again at once, with
    each agent in turn.

    The server's agent is the one that costs the least, and runs before all others, so that
    it is the clients' agents that are waited for.

    @param lab: the stage.
    @param agents: which.
    @param counts: how many mounts at once.
    @param rounds: how many times.
    @param limit: how many seconds all mounts may take.
    """
    server = _server(lab)
    lab.agents.append(Contender(FLOOR, server, Setting()))
    started = _clients(lab, server, agents)
    found = _MOUNTD.search(server.call("rpcinfo", "-p"))
    if found is None:
        raise Unexpected("expected the port of rpc.mountd, found none")
    # With NFS 4 the kernel finds out that all of these are one server, and closes all
    # connections but one.
    options = [
        f"vers=3,proto=tcp,port=2049,addr={address},xprtsec=mtls,nolock,"
        f"mountaddr={address},mountvers=3,mountproto=tcp,mountport={found[1]}"
        for address in (f"{_NETWORK}.{number + 1}" for number in range(_ADDRESSES))
    ]

    def measure(agent: Contender, count: int) -> list[dict[str, Any]]:
        with agent.account.measuring() as mounting:
            mounter = Mounter(
                agent.host, "server.lab:/run/export", options[:count], lookups=1, limit=limit
            )
            mounts = mounter.results()
        # It closes all its connections.
        server.call("rpc.nfsd", "0")
        server.call("rpc.nfsd", "--nfs-version", "3", str(_THREADS))
        with agent.account.measuring() as connecting:
            mounter.goOn()
            connections = mounter.results()
        mounter.finish()
        return [
            {"when": when, "count": count} | outcomes.ofMounts(results) | _costs(measured, count)
            for when, results, measured in (
                ("mounted", mounts, mounting),
                ("connected again", connections, connecting),
            )
        ]

    for agent in started.values():
        # What is done once, is done now.
        measure(agent, 2)
    lab.facts["rounds"] = [
        {"agent": kind, "round": number} | sample
        for number in range(rounds)
        for count in counts
        for kind in agents
        for sample in measure(started[kind], count)
    ]


def manyConnections(
    lab: Lab, *, agents: list[str], runs: int, seconds: float, limit: float
) -> None:
    """
    Mount with many connections and use them all, with each agent in turn.

    @param lab: the stage.
    @param agents: which.
    @param runs: how many times.
    @param seconds: how long the server's agent does nothing in each handshake.
    @param limit: after how many seconds a run is said to hang.
    """
    server = _server(lab)
    lab.agents.append(SlowAgent(server, seconds))
    started = _clients(lab, server, agents)
    options = f"vers=4.2,proto=tcp,port=2049,addr={_NETWORK}.1,xprtsec=mtls,clientaddr=0.0.0.0,"
    options += f"nconnect={_CONNECTIONS}"

    def measure(agent: Contender) -> dict[str, Any]:
        with agent.account.measuring() as measured:
            mounter = Mounter(agent.host, "server.lab:/", [options], lookups=_LOOKUPS, limit=limit)
            mounts = mounter.results()
            mounter.goOn()
            lookups = mounter.results()
        mounter.finish()
        return outcomes.ofRun(mounts, lookups) | _costs(measured, _CONNECTIONS)

    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in agents}
    for _ in range(runs):
        for kind in agents:
            found[kind].append(measure(started[kind]))
    lab.facts["rounds"] = [
        {"agent": kind, "round": 0} | outcomes.ofRuns(each) for kind, each in found.items()
    ]
