"""
How long NVMe/TCP takes to connect with TLS, with several queues for each controller.

Host and target are one, and so is their agent: it serves both ends of every queue.  The
agents take turns; each is started anew, as controllers connect again in the machine's own
network, where only one agent can be.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Final

from tests.kernel.bench.guest import accounts
from tests.kernel.bench.guest.contenders import WAYS, Contender, Setting, Way
from tests.kernel.bench.guest.load import median
from tests.kernel.bench.guest.rates import rotated
from tests.kernel.guest import nvme
from tests.kernel.guest.agents import KTLSAGENT, Process
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.waiting import Unexpected
from tests.kernel.guest.warm import WarmProcess

_OPTIONS: Final = ("--duplicate-connect", "--nr-write-queues=1", "--nr-poll-queues=1")
_QUEUES: Final = 4
"""As many as a machine with one processor can have, the administrative one included."""


class _NoCertificates(Setting):
    """The keys are in the kernel's keyring."""

    def configuration(self, way: Way) -> str:
        """
        Write the configuration.

        @param way: for which agent.
        @return: the file's text.
        """
        return "[debug]\nloglevel=0\n"


class _Contender(Contender):
    """An agent in a session of its own; ktlsagent is started at once, see L{WarmProcess}."""

    def __init__(self, contender: str, host: Host) -> None:
        super().__init__(contender, host, _NoCertificates(), nvme.OWN_SESSION)

    def _start(self, prefix: Sequence[str], log: BinaryIO) -> Process:
        if self.kind != KTLSAGENT:
            return super()._start(prefix, log)
        arguments = ["--nodaemon", "--pidfile=", self.kind, "--config"]
        process = WarmProcess(self.host, [*arguments, str(self.configurationFile)], log)
        self.account.add(process.pid)
        *scheduled, priority = WAYS[self.contender].prefix
        subprocess.run([*scheduled, "--pid", priority, str(process.pid)], check=True)
        return process


def onMachine(lab: Lab, *, agents: list[str], counts: list[int], number: int) -> None:
    """
    Connect, and connect again: one round.

    @param lab: the stage.
    @param agents: which.
    @param counts: how many controllers at once.
    @param number: the round's.
    """
    accounts.prepare()
    host = nvme.oneHost(lab)
    lab.closing(nvme.Target(host))
    nvme.generate()
    lab.facts["rounds"] = samples = []
    for contender in rotated(agents, number):
        agent = _Contender(contender, host)
        lab.agents.append(agent)
        agent.waitUntilListening()
        # What is done once, is done now, and not while it is measured.
        nvme.Controller(host, *_OPTIONS).disconnect()
        for count in counts:
            found = _measure(agent, host, count)
            samples.append({"agent": contender, "round": number, "controllers": count, **found})
        agent.stop()


def _connect(host: Host) -> nvme.Controller | None:
    """
    Connect a controller.

    @param host: host and target.
    @return: the controller; L{None} if the kernel has given up.
    """
    try:
        return nvme.Controller(host, *_OPTIONS)
    except nvme.ConnectRefused:
        return None


def _measure(agent: Contender, host: Host, count: int) -> dict[str, Any]:
    """
    Connect controllers at once, and reset one after the other.

    @param agent: the agent at both ends.
    @param host: host and target.
    @param count: how many controllers.
    @return: what was measured.
    """
    with agent.account.measuring() as measured, ThreadPoolExecutor(count) as pool:
        began = time.monotonic()
        tried = list(pool.map(lambda _place: _connect(host), range(count)))
        connected = time.monotonic() - began
    controllers = [controller for controller in tried if controller is not None]
    resets = [seconds for seconds in map(_reset, controllers) if seconds is not None]
    short = sum(controller.attribute("queue_count") != str(_QUEUES) for controller in controllers)
    for controller in controllers:
        controller.disconnect()
    return {
        "connected": round(connected, 3),
        "each": round(median([each.seconds for each in controllers]), 3) if controllers else None,
        "reset": round(median(resets), 3) if resets else None,
        "cpu": round(measured.cost.seconds / count, 3),
        "refused": count - len(controllers),
        "broken": max(short, len(controllers) - len(resets)),
    }


def _reset(controller: nvme.Controller) -> float | None:
    """
    Have a controller connect anew.

    @param controller: which.
    @return: how long that took; L{None} if it was not there again in good time.
    """
    began = time.monotonic()
    controller.reset()
    try:
        controller.waitUntilLive()
    except Unexpected:
        return None
    return time.monotonic() - began
