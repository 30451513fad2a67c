"""What an agent holds after very many handshakes."""

from __future__ import annotations

import os
from typing import Final

from tests.kernel.bench.guest import accounts, load
from tests.kernel.bench.guest.contenders import Contender, Setting
from tests.kernel.guest.lab import Lab

_CONCURRENCY: Final = 8


def onLab(lab: Lab, *, agents: list[str], handshakes: int, steps: int) -> None:
    """
    Serve many handshakes, and look at the agents now and then.

    @param lab: the stage.
    @param agents: which.
    @param handshakes: how many for each.
    @param steps: how many times to look.
    """
    accounts.prepare()
    started = {}
    for kind in agents:
        host = lab.host(kind)
        host.addAddresses("lo", ["10.0.0.1/32"])
        lab.server(host, "tls:mtls", 64)
        started[kind] = Contender(kind, host, Setting())
    lab.agents += started.values()
    lab.listening()
    samples = []
    for step in range(steps + 1):
        for kind, agent in started.items():
            failed = 0
            if step:
                count = handshakes // steps
                found = load.run(agent.host, f"-n{count}", concurrency=_CONCURRENCY, client="ecdsa")
                failed = sum(found.failed.values())
            samples.append(
                {
                    "agent": kind,
                    "round": 0,
                    "handshakes": handshakes * step // steps,
                    "failures": failed,
                    "descriptors": len(os.listdir(f"/proc/{agent.process.pid}/fd")),
                    "memory": agent.account.current(),
                    **agent.resident(),
                }
            )
    lab.facts["rounds"] = samples
