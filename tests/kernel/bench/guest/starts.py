"""
How long an agent takes from its start until the kernel can ask it, until somebody who
tries again and again has had a handshake, and until somebody has who has waited; and
what it holds then.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Protocol

from ktlsagent.netlink import HandshakeNetlink
from tests.kernel.bench.guest import accounts, load, native
from tests.kernel.bench.guest.contenders import WAYS, Contender, Setting
from tests.kernel.guest.agents import TLSHD
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab

_PAUSE: Final = 0.01
_PENDING_SECONDS: Final = 0.3
"""After this time a request waits; it takes some milliseconds."""

_NETLINK_GENERIC: Final = "16"


class Stage(Protocol):
    """Where agents are started."""

    def start(self, contender: str) -> Contender:
        """Start one."""

    def place(self, contender: str) -> tuple[Host, int]:
        """Say where its NFS server is."""

    def watching(self, contender: str) -> contextlib.AbstractContextManager[list[float]]:
        """Look when it joins the group; the clock is in the list afterwards."""

    def holding(self, contender: str) -> contextlib.AbstractContextManager[Any]:
        """Be in the group oneself, so that requests wait, as systemd is for the unit."""


class OnLab:
    """The lab's kernel."""

    def __init__(self, lab: Lab, agents: list[str]) -> None:
        """
        Make a host with an NFS server for each agent.

        @param lab: the stage.
        @param agents: which.
        """
        self._hosts: dict[str, Host] = {}
        for contender in agents:
            self._hosts[contender] = host = lab.host(contender)
            host.addAddresses("lo", ["10.0.0.1/32"])
            lab.server(host, "tls:mtls")

    def start(self, contender: str) -> Contender:
        """
        Start an agent.

        @param contender: which.
        @return: it.
        """
        return Contender(contender, self._hosts[contender], Setting())

    def place(self, contender: str) -> tuple[Host, int]:
        """
        Say where an agent's NFS server is.

        @param contender: whose.
        @return: host and port.
        """
        return self._hosts[contender], 2049

    @contextlib.contextmanager
    def watching(self, contender: str) -> Iterator[list[float]]:
        """
        Look when an agent joins the group.

        @param contender: which.
        @return: gets the clock.
        """
        sockets = Path(f"/proc/{self._hosts[contender].pid}/net/netlink")

        def members() -> set[str]:
            rows = [row.split() for row in sockets.read_text().splitlines()[1:]]
            return {row[2] for row in rows if row[1] == _NETLINK_GENERIC and int(row[3], 16)}

        # The NFS server's programs listen to families of their own.
        others = members()
        joined: list[float] = []
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(_PAUSE) and not joined:
                if members() - others:
                    joined.append(time.monotonic())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield joined
        finally:
            ended.set()
            thread.join()

    @contextlib.contextmanager
    def holding(self, contender: str) -> Iterator[None]:
        """
        Be in the group.

        @param contender: in whose network.
        """
        kernel = HandshakeNetlink()
        with self._hosts[contender].network():
            kernel.open()
            kernel.listen()
        try:
            yield
        finally:
            kernel.close()


class OnHost:
    """This machine's kernel, and something that answers for it."""

    def __init__(self, lab: Lab, agents: list[str]) -> None:
        """
        Start what answers.

        @param lab: the stage.
        @param agents: for which agents.
        """
        self._upcalls = native.Upcalls(lab, agents)

    def start(self, contender: str) -> Contender:
        """
        Start an agent.

        @param contender: which.
        @return: it.
        """
        return self._upcalls.start(contender, Setting())

    def place(self, contender: str) -> tuple[Host, int]:
        """
        Say where an agent's NFS server is.

        @param contender: whose.
        @return: host and port.
        """
        upcall = self._upcalls.of(contender)
        return upcall.host, upcall.port

    @contextlib.contextmanager
    def watching(self, contender: str) -> Iterator[list[float]]:
        """
        Look when an agent joins the group.

        @param contender: which.
        @return: gets the clock.
        """
        upcall = self._upcalls.of(contender)
        upcall.joined()
        joined: list[float] = []
        yield joined
        joined += upcall.joined()

    def holding(self, contender: str) -> contextlib.AbstractContextManager[Any]:
        """
        Be in the group.

        @param contender: whose.
        @return: closes the socket.
        """
        return contextlib.closing(self._upcalls.of(contender).join())


def onLab(lab: Lab, *, agents: list[str], rounds: int) -> None:
    """
    Start agents on the lab's kernel.

    @param lab: the stage.
    @param agents: which.
    @param rounds: how many times.
    """
    accounts.prepare()
    _startAll(lab, OnLab(lab, agents), agents, rounds)


def onHost(lab: Lab, *, agents: list[str], rounds: int) -> None:
    """
    Start agents on this machine's kernel.

    @param lab: the stage.
    @param agents: which.
    @param rounds: how many times.
    """
    accounts.prepare()
    _startAll(lab, OnHost(lab, agents), agents, rounds)


def _startAll(lab: Lab, stage: Stage, agents: list[str], rounds: int) -> None:
    """
    Start agents in turn, again and again.

    @param lab: the stage.
    @param stage: where.
    @param agents: which.
    @param rounds: how many times; there is one more, that is not looked at, which reads
        the files into memory.
    """
    samples = [
        {"agent": contender, "round": number, **_tries(lab, stage, contender)}
        # tlshd does not look for requests that wait already.
        | (_waits(lab, stage, contender) if WAYS[contender].kind != TLSHD else {})
        for number in range(-1, rounds)
        for contender in agents
    ]
    lab.facts["rounds"] = [sample for sample in samples if sample["round"] >= 0]


def _tries(lab: Lab, stage: Stage, contender: str) -> dict[str, Any]:
    """
    Start an agent for somebody who tries again and again.

    @param lab: the stage.
    @param stage: where.
    @param contender: which.
    @return: what was measured.
    """
    with stage.watching(contender) as joined:
        agent = stage.start(contender)
        lab.agents.append(agent)
        first = load.run(agent.host, "-un100000", port=agent.port)
    found: dict[str, Any] = {"served": round(first.at[0] - agent.began, 4), **agent.resident()}
    if joined:
        found["joined"] = round(joined[-1] - agent.began, 4)
    agent.stop()
    return found


def _waits(lab: Lab, stage: Stage, contender: str) -> dict[str, float]:
    """
    Start an agent for somebody who has waited for it.

    @param lab: the stage.
    @param stage: where.
    @param contender: which.
    @return: when that one had the reply.
    """
    found: list[load.Load] = []

    def wait(host: Host, port: int) -> None:
        # If the kernel gives up waiting before the agent is there, this tries again.
        found.append(load.run(host, "-un1000", port=port))

    with stage.holding(contender):
        host, port = stage.place(contender)
        thread = threading.Thread(target=wait, args=(host, port))
        thread.start()
        time.sleep(_PENDING_SECONDS)
        agent = stage.start(contender)
        lab.agents.append(agent)
        thread.join()
    waited = found[0].at[0] - agent.began
    agent.stop()
    return {"waited": round(waited, 4)}
