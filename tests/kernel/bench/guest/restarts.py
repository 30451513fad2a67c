"""What becomes of mounts while the agent of both ends is stopped, killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tests.kernel.bench import outcomes
from tests.kernel.bench.guest.contenders import WAYS, Setting, Way
from tests.kernel.guest.agents import KTLSAGENT
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.manager import Manager
from tests.kernel.guest.scenarios.restarting import Mounting
from tests.kernel.guest.waiting import Unexpected, until

_TIMES: Final = 8
_PAUSE: Final = 1.0
"""How long an agent runs before it is stopped again."""

_MOUNT_SECONDS: Final = 45.0
"""
How long a mount is waited for after each restart.  Where its handshake was lost with the
agent, the kernel waits for 10 s before it asks again.
"""

_RESTART_SECONDS: Final = 0.1
"""C{RestartSec=} of ktlsagent's unit; tlshd's has no C{Restart=}, and gets the same here."""


_OWN_GROUP: Final = ("setsid",)
"""What is begun with this has a process group of its own, with all its children."""


class Kept:
    """
    An agent that is started again and again.

    @ivar agent: the present one.
    """

    def __init__(self, lab: Lab, host: Host, kind: str) -> None:
        """
        Start it.

        @param lab: the stage.
        @param host: where.
        @param kind: which.
        """
        self._lab = lab
        self._host = host
        self._way: Way = WAYS[kind]
        self._manager = Manager() if kind == KTLSAGENT else None
        self._start()

    def _start(self) -> None:
        """Start it as systemd would."""
        manager = self._manager
        prefix = _OWN_GROUP if manager is None else manager.prefix()
        self.agent = self._lab.agent(
            self._host,
            self._way.kind,
            Setting().configuration(self._way),
            (*self._way.prefix, *prefix),
            descriptors=() if manager is None else manager.held,
        )
        if manager is None:
            self.agent.waitUntilListening()
        else:
            manager.waitUntilReady()

    def _stop(self) -> None:
        """Ask it to end; tlshd's unit has all its processes asked, ktlsagent's the first one."""
        if self._manager is None:
            os.killpg(self.agent.process.pid, signal.SIGTERM)
        self.agent.stop()

    def restart(self) -> None:
        """Do what C{systemctl restart} does."""
        self._stop()
        self._start()

    def replace(self) -> None:
        """Have it become its own successor."""
        self.agent.restartInPlace()

    def kill(self) -> None:
        """End it without a warning, and start another."""
        if self._manager is None:
            # When the first process has ended, systemd ends what is left of the unit.
            os.killpg(self.agent.process.pid, signal.SIGKILL)
        self.agent.kill()
        time.sleep(_RESTART_SECONDS)
        self._start()

    def close(self) -> None:
        """End it for good."""
        self._stop()
        if self._manager is not None:
            self._manager.close()


DEEDS: Final[dict[str, Callable[[Kept], None]]] = {
    "restart": Kept.restart,
    "exec in place": Kept.replace,
    "SIGKILL": Kept.kill,
}


def mounting(lab: Lab, *, turns: list[tuple[str, str]], rounds: int) -> None:
    """
    Start agents anew while somebody mounts all the time, with each agent in turn.

    @param lab: the stage.
    @param turns: the agents, and in which way.
    @param rounds: how many times.
    """
    hosts: dict[str, Host] = {}
    for kind, _way in turns:
        if kind not in hosts:
            hosts[kind] = lab.host(kind)
            hosts[kind].addAddresses("lo", ["10.0.0.1/32"])
            lab.server(hosts[kind], "mtls")
    lab.facts["rounds"] = [
        {"agent": kind, "way": way, "round": number} | _measure(lab, hosts[kind], kind, way)
        for number in range(rounds)
        for kind, way in turns
    ]


def _seen(somebody: Mounting) -> int:
    """
    Count what became of mounts.

    @param somebody: who makes them.
    @return: how many succeeded or failed.
    """
    return len(somebody.seconds) + len(somebody.failures)


def _moreThan(seen: int, somebody: Mounting) -> bool:
    """Say whether there are more of these."""
    return _seen(somebody) > seen


def _measure(lab: Lab, host: Host, kind: str, way: str) -> dict[str, Any]:
    """
    Start one agent anew, so many times.

    @param lab: the stage.
    @param host: where.
    @param kind: which.
    @param way: in which way.
    @return: what became of the mounts.
    """
    kept = Kept(lab, host, kind)
    somebody = Mounting(host)
    away: list[float] = []
    try:
        for _ in range(_TIMES):
            time.sleep(_PAUSE)
            seen, began = _seen(somebody), time.monotonic()
            DEEDS[way](kept)
            away.append(time.monotonic() - began)
            with contextlib.suppress(Unexpected):
                until(partial(_moreThan, seen, somebody), "a mount", _MOUNT_SECONDS)
    finally:
        somebody.end()
        kept.close()
    return outcomes.ofMounting(somebody.seconds, somebody.failures, away)
