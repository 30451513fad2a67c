"""Requests that are served by different profiles, in one agent or on one client."""

from __future__ import annotations

import os
from typing import Final

from tests.kernel.guest import peers
from tests.kernel.guest.certificates import CLIENT, SERVER, Authority, certificate
from tests.kernel.guest.hosts import connect
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import readFile, refusal, writeFile
from tests.kernel.guest.sections import identity, roles, section
from tests.kernel.guest.waiting import expect

_BLUE: Final = "10.0.1.1"
_PROFILE: Final = "profile.blue"
_TRUST_BLUE: Final = {"x509.truststore": certificate("blue")}
_TRUST_RED: Final = {"x509.truststore": certificate("ca")}


def _issue() -> None:
    """Make an authority, blue, beside the lab's usual one, red, and what it issues."""
    blue = Authority("blue")
    blue.issue("server-blue", SERVER, subject="blue.lab", names=("blue.lab", _BLUE))
    blue.issue("client-blue", CLIENT, subject="client.blue.lab", names=("client.blue.lab",))


def _client(trust: dict[str, str], shown: str, **match: str) -> str:
    """
    Write a client's configuration: red is the default, blue a profile.

    @param trust: whom the profile trusts.
    @param shown: the profile's certificate.
    @param match: which requests the profile is for.
    @return: the text.
    """
    chosen = section(_PROFILE, {"role": "client", **match}, trust, identity(shown))
    return chosen + roles(identity("client"), {})


def byNetwork(lab: Lab) -> None:
    """
    A server with two addresses judges clients by the network that they come from.

    @param lab: the stage.
    """
    _issue()
    server, client = lab.twoHosts()
    connect(server, client, 1)
    match = {"preset": "nfs-server", "local_port": "2049", "peer": "10.0.1.0/24;fd00:0:1::/64"}
    text = section(_PROFILE, match, _TRUST_BLUE, identity("server-blue"))
    serverAgent = lab.agent(server, text=text + roles({}, identity("server")))
    clientAgent = lab.agent(
        client, text=_client(_TRUST_BLUE, "client-blue", peer="10.0.1.0/24", peer_port="2049")
    )
    lab.listening()
    lab.server(server, "mtls")
    for name, profile, subjects in (
        ("server.lab", "authenticate", ("server.lab", "client.lab")),
        ("blue.lab", _PROFILE, ("blue.lab", "client.blue.lab")),
    ):
        with lab.mounted(client, "4.2", "mtls", name):
            for role, agent, subject in zip(
                ("client", "server"), (clientAgent, serverAgent), subjects, strict=True
            ):
                wanted = profile if profile == _PROFILE else f"{profile}.{role}"
                agent.nextHandshake().expect("ok", profile=wanted, subject=f"CN={subject}")
    for shown, address, profile in (
        ("client-blue", "10.0.0.1", "authenticate.server"),
        ("client", _BLUE, _PROFILE),
        ("client", "fd00:0:1::1", _PROFILE),
    ):
        alert = peers.outcome(client, shown, address=address)
        expect(f"alert for {shown} at {address}", alert, "unknown_ca")
        refused = serverAgent.nextHandshake()
        refused.expect("failed", code="unknown-ca", profile=profile, alert_sent="unknown_ca")
        lab.facts[f"{shown} at {address}"] = refused.fields["reason"]
    for shown, address in (("client", "10.0.0.1"), ("client-blue", _BLUE)):
        expect(f"{shown} at {address}", peers.outcome(client, shown, address=address), "ok")


def byName(lab: Lab) -> None:
    """
    One client mounts from two servers that have nothing in common.

    @param lab: the stage.
    """
    _issue()
    red, client = lab.twoHosts()
    blue = lab.host("blue")
    connect(blue, client, 1)
    redAgent = lab.agent(red)
    blueText = roles({}, identity("server-blue"), truststore="blue")
    blueAgent = lab.agent(blue, text=blueText)
    here = str(os.stat(f"/proc/{client.pid}/ns/net").st_ino)
    elsewhere = str(os.stat(f"/proc/{blue.pid}/ns/net").st_ino)
    names = {"name": "*.blue.lab;BLUE.lab", "preset": "nfs-client"}
    right = _client(_TRUST_BLUE, "client-blue", **names, namespace=here)
    clientAgent = lab.agent(client, text=right)
    lab.listening()
    for host in (red, blue):
        lab.server(host, "mtls")
    for name, agent, profile, subject in (
        ("server.lab", redAgent, "authenticate.client", "client.lab"),
        ("blue.lab", blueAgent, _PROFILE, "client.blue.lab"),
    ):
        with lab.mounted(client, "3", "mtls", name) as mount:
            written = writeFile(mount.path / "data", 1)
            expect("SHA-256", readFile(mount.path / "data"), written)
            clientAgent.nextHandshake().expect("ok", profile=profile, subject=f"CN={name}")
            agent.nextHandshake().expect("ok", subject=f"CN={subject}")
    # The right server for a client that shows the wrong certificate.
    clientAgent.reload(_client(_TRUST_BLUE, "client", name="blue.lab"))
    expect("mount with red's certificate", refusal(client, "3", "mtls", "blue.lab"), "EACCES")
    refused = blueAgent.nextHandshake()
    refused.expect("failed", code="unknown-ca", profile="authenticate.server")
    lab.facts["the client says about the server's refusal"] = dict(
        clientAgent.nextHandshake().fields
    )
    # The right certificate for a client that trusts the wrong authority.
    clientAgent.reload(_client(_TRUST_RED, "client-blue", name="blue.lab"))
    for agent in (clientAgent, blueAgent):
        agent.lookPast()
    expect("mount that trusts red", refusal(client, "3", "mtls", "blue.lab"), "EACCES")
    refused = clientAgent.nextHandshake()
    refused.expect("failed", code="unknown-ca", profile=_PROFILE, alert_sent="unknown_ca")
    blueAgent.nextHandshake().expect("failed", alert_received="unknown_ca")
    # A profile for other names, or for another network namespace, leaves the default in charge.
    for other in ({**names, "name": "?.blue.lab"}, {**names, "namespace": elsewhere}):
        clientAgent.reload(_client(_TRUST_BLUE, "client-blue", **other))
        clientAgent.lookPast()
        expect("mount without its profile", refusal(client, "3", "mtls", "blue.lab"), "EACCES")
        refused = clientAgent.nextHandshake()
        refused.expect("failed", code="unknown-ca", profile="authenticate.client")
