"""How long an agent takes from its start to the first handshake, and what it holds then."""

from __future__ import annotations

from collections.abc import Callable

from tests.kernel.bench.guest import accounts, load, native
from tests.kernel.bench.guest.contenders import Contender, Setting
from tests.kernel.guest.lab import Lab


def onLab(lab: Lab, *, agents: list[str], rounds: int) -> None:
    """
    Start agents on the lab's kernel.

    @param lab: the stage.
    @param agents: which.
    @param rounds: how many times.
    """
    accounts.prepare()
    hosts = {}
    for kind in agents:
        hosts[kind] = lab.host(kind)
        hosts[kind].addAddresses("lo", ["10.0.0.1/32"])
        lab.server(hosts[kind], "tls:mtls")
    _startAll(lab, agents, rounds, lambda kind: Contender(kind, hosts[kind], Setting()))


def onHost(lab: Lab, *, agents: list[str], rounds: int) -> None:
    """
    Start agents on this machine's kernel.

    @param lab: the stage.
    @param agents: which.
    @param rounds: how many times.
    """
    accounts.prepare()
    upcalls = native.Upcalls(lab, agents)
    _startAll(lab, agents, rounds, lambda kind: upcalls.start(kind, Setting()))


def _startAll(lab: Lab, agents: list[str], rounds: int, start: Callable[[str], Contender]) -> None:
    """
    Start agents in turn, again and again.

    @param lab: the stage.
    @param agents: which.
    @param rounds: how many times; there is one more, that is not looked at, which reads
        the files into memory.
    @param start: starts one.
    """
    samples = []
    for number in range(-1, rounds):
        for kind in agents:
            agent = start(kind)
            lab.agents.append(agent)
            first = load.run(agent.host, "-un100000", port=agent.port)
            sample = {"agent": kind, "round": number, **agent.resident()}
            sample["served"] = round(first.at[0] - agent.began, 4)
            agent.stop()
            if number >= 0:
                samples.append(sample)
    lab.facts["rounds"] = samples
