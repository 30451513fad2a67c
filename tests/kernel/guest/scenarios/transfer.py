"""Files written and read over TLS, by every combination of agents."""

from __future__ import annotations

import time

from tests.kernel.guest import ktls
from tests.kernel.guest.agents import KTLSAGENT, configuration
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import readFile, writeFile
from tests.kernel.guest.waiting import PATIENCE, Unexpected, expect


def _expectKtls(host: Host, before: dict[str, int]) -> None:
    """
    Check a host's counters.

    @param host: the host.
    @param before: the counters as they were.
    @raise Unexpected: if a direction did not get kTLS or a record was not understood.
    """
    after = ktls.statistics(host)
    for name in ("TlsTxSw", "TlsRxSw"):
        if after[name] <= before[name]:
            raise Unexpected(f"{host.name}: {name} did not rise: no kTLS in that direction")
    expect(f"{host.name}: TlsDecryptError", after["TlsDecryptError"], before["TlsDecryptError"])


def _expectSessions(host: Host, connections: int, suite: str | None) -> None:
    """
    Check the sessions that sock_diag reports.

    @param host: the host.
    @param connections: how many there have to be.
    @param suite: the suite that they must have, if it matters.
    @raise Unexpected: if they are not as they should be.
    """
    found = ktls.sessions(host)
    if len(found) < connections:
        raise Unexpected(f"{host.name}: expected {connections} TLS sessions, found {found}")
    for session in found:
        expect(
            f"{host.name}: installed session",
            (session.version, session.transmit, session.receive),
            ("1.3", "sw", "sw"),
        )
        if suite is not None:
            expect(f"{host.name}: installed cipher", session.suite, suite)


def _transfer(
    lab: Lab,
    server: Host,
    client: Host,
    *,
    version: str,
    security: str,
    mebibytes: int,
    connections: int = 1,
    suite: str | None = None,
) -> None:
    """
    Write a file, mount again, and read it back.

    @param lab: the stage.
    @param server: where the export is.
    @param client: where it is mounted.
    @param version: of NFS.
    @param security: C{xprtsec}.
    @param mebibytes: size of the file; less, where that takes long.
    @param connections: C{nconnect}.
    @param suite: the suite that has to be negotiated.
    """
    mebibytes = -(-mebibytes // PATIENCE)
    hosts = {server.name: server, client.name: client}.values()
    before = {host.name: ktls.statistics(host) for host in hosts}
    lab.server(server, security)
    options = ["server.lab", f"nconnect={connections}"]
    with lab.mounted(client, version, security, *options) as mount:
        lab.facts["mount-s"] = round(mount.seconds, 3)
        started = time.monotonic()
        written = writeFile(mount.path / "data", mebibytes)
        lab.facts["write-MiB/s"] = round(mebibytes / (time.monotonic() - started), 1)
        for host in hosts:
            _expectSessions(host, connections, suite)
        lab.facts["session"] = str(ktls.sessions(client)[0])
    with lab.mounted(client, version, security, *options) as mount:
        started = time.monotonic()
        found = readFile(mount.path / "data")
        lab.facts["read-MiB/s"] = round(mebibytes / (time.monotonic() - started), 1)
        expect("SHA-256 of what was read back", found, written)
    for host in hosts:
        _expectKtls(host, before[host.name])
    lab.recordHandshakes()


def alone(lab: Lab, version: str, security: str, kind: str = KTLSAGENT) -> None:
    """
    One host, one agent, both roles; 64 MiB, or less where that takes long.

    @param lab: the stage.
    @param version: of NFS.
    @param security: C{xprtsec}.
    @param kind: the agent.
    """
    host = lab.oneHost()
    lab.agent(host, kind)
    lab.listening()
    _transfer(lab, host, host, version=version, security=security, mebibytes=64)


def pair(
    lab: Lab, *, server: str, client: str, version: str, security: str, connections: int = 1
) -> None:
    """
    Two hosts with an agent each.

    @param lab: the stage.
    @param server: the server's agent.
    @param client: the client's agent.
    @param version: of NFS.
    @param security: C{xprtsec}.
    @param connections: C{nconnect}.
    """
    serverHost, clientHost = lab.twoHosts()
    lab.agent(serverHost, server)
    lab.agent(clientHost, client)
    lab.listening()
    _transfer(
        lab,
        serverHost,
        clientHost,
        version=version,
        security=security,
        mebibytes=8,
        connections=connections,
    )


def suite(lab: Lab, suite: str, server: str, client: str, forced: str) -> None:
    """
    One side offers or takes only one suite.

    @param lab: the stage.
    @param suite: the suite.
    @param server: the server's agent.
    @param client: the client's agent.
    @param forced: the side that is limited to the suite.
    """
    serverHost, clientHost = lab.twoHosts()
    for host, kind in ((serverHost, server), (clientHost, client)):
        own = {"suites": suite} if host.name == forced else {}
        lab.agent(host, kind, configuration(**own))
    lab.listening()
    _transfer(lab, serverHost, clientHost, version="4.2", security="mtls", mebibytes=2, suite=suite)
    for agent in lab.agents:
        for line in agent.handshakes():
            expect(f"suite in the log of {agent.name}", line.fields["suite"], suite)


def name(lab: Lab, server: str, version: str) -> None:
    """
    Mount by a name or a literal address.

    @param lab: the stage.
    @param server: what the mount command names.
    @param version: of NFS.
    """
    serverHost, clientHost = lab.twoHosts()
    lab.agent(serverHost)
    agent = lab.agent(clientHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    with lab.mounted(clientHost, version, "mtls", server) as mount:
        written = writeFile(mount.path / "data", 1)
        expect("SHA-256", readFile(mount.path / "data"), written)
    # The second, if there is one, is for a data server, which the kernel names by
    # its address.
    lab.facts["names"] = [line.fields["name"] for line in agent.handshakes()]
    expect("name in the log", lab.facts["names"][0], server.strip("[]"))
    lab.recordHandshakes()
