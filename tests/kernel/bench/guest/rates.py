"""
How fast agents serve an NFS server: handshakes per second, how long one takes, and what
it costs.

All agents run and wait while one of them is measured, so that they take turns without
being restarted.  On the lab's kernel each has a network namespace with an NFS server of
its own; on this machine's, an L{Upcall<tests.kernel.bench.guest.native.Upcall>}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.kernel.bench.guest import accounts, load, native
from tests.kernel.bench.guest.contenders import Contender, Setting
from tests.kernel.guest.lab import Lab


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is measured.

    @ivar agents: which.
    @ivar keys: the kind of all keys.
    @ivar trust: the size of the trust store.
    @ivar mutual: whether the client has a certificate.
    @ivar concurrencies: how many connections at a time.
    @ivar rounds: how many times.
    @ivar seconds: how long each time.
    """

    agents: list[str]
    keys: str
    trust: str
    mutual: bool
    concurrencies: list[int]
    rounds: int
    seconds: float

    @property
    def setting(self) -> Setting:
        """What the agents are configured with."""
        return Setting(self.keys, self.trust)

    @property
    def client(self) -> str:
        """The kind of the client's certificate, empty for none."""
        return self.keys if self.mutual else ""


def onLab(lab: Lab, *, threads: int, **plan: Any) -> None:
    """
    Measure with the lab's kernel.

    @param lab: the stage.
    @param threads: of each NFS server.
    @param plan: as for L{Plan}.
    """
    accounts.prepare()
    planned = Plan(**plan)
    started = {}
    for kind in planned.agents:
        host = lab.host(kind)
        host.addAddresses("lo", ["10.0.0.1/32"])
        lab.server(host, "tls:mtls", threads)
        started[kind] = Contender(kind, host, planned.setting)
    lab.agents += started.values()
    lab.listening()
    _measureAll(lab, planned, started)


def onHost(lab: Lab, **plan: Any) -> None:
    """
    Measure with this machine's kernel.

    @param lab: the stage.
    @param plan: as for L{Plan}.
    """
    accounts.prepare()
    planned = Plan(**plan)
    upcalls = native.Upcalls(lab, planned.agents)
    started = {kind: upcalls.start(kind, planned.setting) for kind in planned.agents}
    lab.agents += started.values()
    _measureAll(lab, planned, started)


def _measureAll(lab: Lab, plan: Plan, started: dict[str, Contender]) -> None:
    """
    Measure all agents in turn.

    @param lab: the stage.
    @param plan: what.
    @param started: the agents by their kind.
    """
    for agent in started.values():
        # What is done once, is done now, and not while it is measured.
        load.run(agent.host, "-un1000", client=plan.client, port=agent.port)
        load.run(agent.host, "-n3", client=plan.client, port=agent.port)
    lab.facts["rounds"] = [
        {"agent": kind, "concurrency": concurrency, "round": number}
        | _measure(started[kind], concurrency, plan)
        for number in range(plan.rounds)
        for concurrency in plan.concurrencies
        for kind in rotated(plan.agents, number)
    ]


def rotated(agents: list[str], number: int) -> list[str]:
    """
    Begin each round with another agent.

    @param agents: all.
    @param number: the round's.
    @return: all, in this round's order.
    """
    first = number % len(agents)
    return agents[first:] + agents[:first]


def _measure(agent: Contender, concurrency: int, plan: Plan) -> dict[str, Any]:
    """
    Measure one agent once.

    @param agent: which.
    @param concurrency: how many connections at a time.
    @param plan: for how long, and with which certificate.
    @return: what was found.
    """
    options = ("-n1000000", f"-d{plan.seconds}")
    with agent.account.measuring() as measured:
        found = load.run(
            agent.host, *options, concurrency=concurrency, client=plan.client, port=agent.port
        )
    rate, steady = found.rate(plan.seconds)
    succeeded = len(found.at)
    return {
        "succeeded": succeeded,
        "failed": found.failed,
        "rate": round(rate, 2),
        "p50": round(load.percentile(steady, 0.5), 3) if steady else None,
        "p99": round(load.percentile(steady, 0.99), 3) if steady else None,
        "cpu": round(1e3 * measured.cost.seconds / succeeded, 4) if succeeded else None,
        "clientCpu": round(1e3 * found.clientSeconds / succeeded, 4) if succeeded else None,
        "memory": measured.cost.memory,
        "proportional": measured.cost.proportional,
        "processes": measured.cost.processes,
    }
