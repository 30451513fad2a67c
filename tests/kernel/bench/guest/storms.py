"""What becomes of many connections that are made at once."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.kernel.bench.guest import accounts, load
from tests.kernel.bench.guest.contenders import Contender, Setting
from tests.kernel.bench.guest.rates import rotated
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.waiting import Unexpected, until

_OVERSIZED: Final = "oversized RPC fragment"
"""What nfsd says of a ClientHello that comes where it expects a call: the queue was full."""

_UNLIMITED: Final = Path("/proc/sys/net/core/message_cost")
"""The kernel does not log all of them, unless 0 is written here."""

_SETTLING_SECONDS: Final = 60.0


def onLab(
    lab: Lab, *, agents: list[str], counts: list[int], trust: str, rounds: int, threads: int
) -> None:
    """
    Make connections at once, for each agent in turn.

    @param lab: the stage.
    @param agents: which.
    @param counts: how many connections.
    @param trust: the size of the trust store.
    @param rounds: how many times.
    @param threads: of each NFS server.
    """
    accounts.prepare()
    _UNLIMITED.write_text("0")
    started = {}
    for kind in agents:
        host = lab.host(kind)
        host.addAddresses("lo", ["10.0.0.1/32"])
        lab.server(host, "tls:mtls", threads)
        started[kind] = Contender(kind, host, Setting(trust=trust))
    lab.agents += started.values()
    lab.listening()
    for agent in started.values():
        load.run(agent.host, "-n3", client="ecdsa")
    lab.facts["rounds"] = [
        {"agent": kind, "count": count, "round": number} | _storm(started[kind], count)
        for number in range(rounds)
        for count in counts
        for kind in rotated(agents, number)
    ]


def _storm(agent: Contender, count: int) -> dict[str, Any]:
    """
    Make connections at once, and wait until all is quiet again.

    @param agent: whom they are for.
    @param count: how many.
    @return: what became of them.
    """
    subprocess.run(["dmesg", "--clear"], check=False)
    idle = agent.account.processes()
    with agent.account.measuring() as measured:
        found = load.run(agent.host, f"-n{count}", concurrency=count, client="ecdsa")
    kernel = subprocess.run(["dmesg", "--notime"], capture_output=True, text=True, check=False)
    # tlshd's children may wait for peers that are gone; nothing else has to be waited for.
    with contextlib.suppress(Unexpected):
        until(lambda: agent.account.processes() <= idle, "it rests", _SETTLING_SECONDS)
    load.run(agent.host, "-un1000", client="ecdsa")
    return {
        "succeeded": len(found.at),
        "failed": found.failed,
        "last": round(max(found.at) - found.began, 3) if found.at else None,
        "seconds": round(found.seconds, 3),
        "cpu": round(measured.cost.seconds, 4),
        "memory": measured.cost.memory,
        "processes": measured.cost.processes,
        "oversized": kernel.stdout.count(_OVERSIZED),
    }
