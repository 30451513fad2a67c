"""
The stage of a scenario: it makes hosts, servers, mounts and agents, collects the
facts that were measured, and clears everything away at the end, agents last, so
that their books are looked at when all is over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from tests.kernel.guest.agents import KTLSAGENT, LOGS, Agent, configuration
from tests.kernel.guest.hosts import Host, connect
from tests.kernel.guest.nfs import Mount, NfsServer
from tests.kernel.guest.waiting import Unexpected

__all__ = ["LOGS", "Lab", "Unexpected"]

_ADDRESSES: Final = ("10.0.0.1/32", "fd00::1/128")


class Lab:
    """
    What a scenario works with.

    @cvar plainAgent: what starts ktlsagent where nothing special is asked for;
        L{tests.kernel.guest.warm} puts its own here when it is imported.
    @ivar facts: what was measured, by name; handed to the host.
    @ivar agents: every agent that was started.
    @ivar hosts: every host that was made.
    """

    plainAgent: ClassVar[type[Agent]] = Agent

    def __init__(self) -> None:
        """Start with nothing."""
        self.facts: dict[str, Any] = {}
        self.agents: list[Agent] = []
        self.hosts: list[Host] = []
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """
        Begin.

        @return: itself.
        """
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """
        Clear away, in this order: mounts and servers, agents, hosts.

        @param kind: the exception's type, if the scenario raised one.
        @param error: the exception.
        @param trace: where it was raised.
        """
        try:
            with self._cleanup:
                pass
            for agent in self.agents:
                if agent.process.returncode is None:
                    agent.stop()
        finally:
            for agent in self.agents:
                if agent.process.poll() is None:
                    agent.kill()
            for host in reversed(self.hosts):
                host.close()

    def host(self, name: str, hostClass: type[Host] = Host) -> Host:
        """
        Make a host.

        @param name: its name.
        @param hostClass: the kind of host.
        @return: the host, without a network.
        """
        made = hostClass(name)
        self.hosts.append(made)
        return made

    def oneHost(self) -> Host:
        """
        Make a host that is its own server.

        @return: the host; it has the server's addresses.
        """
        made = self.host("both")
        made.addAddresses("lo", _ADDRESSES)
        return made

    def twoHosts(self) -> tuple[Host, Host]:
        """
        Make two hosts with a cable between them.

        @return: the server and the client.
        """
        server, client = self.host("server"), self.host("client")
        connect(server, client)
        return server, client

    def agent(
        self,
        host: Host,
        kind: str = KTLSAGENT,
        text: str | None = None,
        prefix: Sequence[str] = (),
        agentClass: type[Agent] | None = None,
        *,
        descriptors: Sequence[int] = (),
    ) -> Agent:
        """
        Start an agent; it is stopped, and its books are looked at, at the end.

        @param host: where.
        @param kind: which.
        @param text: its configuration; the usual one by default.
        @param prefix: the beginning of its command.
        @param agentClass: how it is started, if that matters.
        @param descriptors: what it inherits.
        @return: the agent, which need not listen yet.
        """
        text = configuration() if text is None else text
        if agentClass is None:
            plain = kind == KTLSAGENT and not prefix and not descriptors
            agentClass = self.plainAgent if plain else Agent
        made = agentClass(kind, host, text, prefix, descriptors)
        self.agents.append(made)
        return made

    def listening(self, *agents: Agent) -> None:
        """
        Wait until agents can be asked.

        @param agents: them; all by default.
        """
        for agent in agents or self.agents:
            agent.waitUntilListening()

    def server(self, host: Host, security: str, threads: int = 8) -> NfsServer:
        """
        Start an NFS server; it is stopped at the end.

        @param host: where.
        @param security: the export's C{xprtsec}.
        @param threads: how many threads serve.
        @return: the server.
        """
        made = NfsServer(host, security, threads)
        self._cleanup.callback(made.stop)
        return made

    @contextlib.contextmanager
    def mounted(self, host: Host, version: str, security: str, *rest: str) -> Any:
        """
        Mount, and unmount at the end.

        @param host: as for L{Mount}.
        @param version: as for L{Mount}.
        @param security: as for L{Mount}.
        @param rest: as for L{Mount}.
        @return: the mount.
        """
        mount = Mount(host, version, security, *rest)
        try:
            yield mount
        finally:
            mount.unmount()

    def closing(self, resource: Any) -> Any:
        """
        Close something at the end.

        @param resource: anything with a C{close} method.
        @return: it.
        """
        self._cleanup.callback(resource.close)
        return resource

    def recordHandshakes(self) -> None:
        """Note the times of ktlsagent's successful handshakes as facts."""
        for agent in self.agents:
            times = [line.milliseconds for line in agent.handshakes() if line.outcome == "ok"]
            if times:
                name = f"handshake-ms {agent.host.name}"
                self.facts.setdefault(name, []).extend(times)
