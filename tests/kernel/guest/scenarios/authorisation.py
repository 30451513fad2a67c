"""Clients that are trusted, but not allowed in."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256

from tests.kernel.guest import peers
from tests.kernel.guest.agents import KTLSAGENT
from tests.kernel.guest.certificates import CLIENT, SERVER, Authority, loaded
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import refusal
from tests.kernel.guest.sections import identity, roles
from tests.kernel.guest.waiting import expect

_DENIED: Final = "access_denied"

_USER: Final = "1.3.6.1.4.1.2238.1.1.1"
"""The type of otherName that FreeBSD's NFS over TLS has for users."""

_CLIENTS: Final = {
    "wanted": ("nfs1.lab", "10.0.0.2"),
    "guest": ("guest.lab", "10.0.0.2"),
    "workload": ("URI:spiffe://lab/nfs/reader", "fd00::2"),
    "person": ("email:ann@lab.example", f"othername:{_USER}=ann@lab.example"),
    "banned": ("nfs9.lab", "10.0.0.2"),
    "elsewhere": ("nfs2.lab", "10.9.9.9"),
}
_EVERYBODY: Final = tuple(_CLIENTS)


def _issue() -> None:
    """Make a server, and clients with different names."""
    ca = Authority("access")
    ca.issue("server-access", SERVER)
    for name, names in _CLIENTS.items():
        ca.issue(f"client-{name}", CLIENT, subject=f"{name}.lab", names=names)


def bySan(lab: Lab, client: str) -> None:
    """
    Two clients of the same authority, one allowed and one not, and what each sees.

    @param lab: the stage.
    @param client: the client's agent.
    """
    _issue()
    serverHost, clientHost = lab.twoHosts()
    rule = {"allow": "dns:nfs*.lab"}
    serverAgent = lab.agent(
        serverHost, text=roles({}, {**identity("server-access"), **rule}, "access")
    )
    clientAgent = lab.agent(
        clientHost, client, roles(identity("client-wanted"), identity("server-access"), "access")
    )
    lab.listening()
    lab.server(serverHost, "mtls")
    with lab.mounted(clientHost, "4.2", "mtls"):
        serverAgent.nextHandshake().expect("ok", subject="CN=wanted.lab")
    since = len(clientAgent.log())
    text = roles(identity("client-guest"), identity("server-access"), "access")
    if client == KTLSAGENT:
        clientAgent.reload(text)
    else:
        # It reads its files anew for every handshake, but its configuration only once.
        clientAgent.stop()
        clientAgent = lab.agent(clientHost, client, text)
        lab.listening(clientAgent)
        since = 0
    expect("mount of who is not allowed", refusal(clientHost, "4.2", "mtls"), "EACCES")
    refused = serverAgent.nextHandshake()
    refused.expect(
        "failed", code="not-allowed", subject="CN=guest.lab", alert_sent=_DENIED, status="EACCES"
    )
    lab.facts["the server says"] = refused.fields["reason"]
    lab.facts["the client says"] = clientAgent.log()[since:].splitlines()[-4:]
    expect("alert", peers.outcome(clientHost, "client-guest"), _DENIED)


def refusedBehind(lab: Lab, server: str) -> None:
    """
    A client that waits for a ticket is told instead that it is refused: its log names
    the server's alert.

    @param lab: the stage.
    @param server: the server's agent.
    """
    Authority("unknown").issue("client-unknown", CLIENT)
    serverHost, clientHost = lab.twoHosts()
    lab.agent(serverHost, server)
    own = {**identity("client-unknown"), "resumption": "on"}
    clientAgent = lab.agent(clientHost, text=roles(own, {}))
    lab.listening()
    lab.server(serverHost, "mtls")
    expect("mount", refusal(clientHost, "4.2", "mtls"), "EACCES")
    line = clientAgent.nextHandshake()
    alert = "unknown_ca" if server == KTLSAGENT else _DENIED
    code = f"alert-{alert.replace('_', '-')}"
    line.expect("failed", code=code, alert_received=alert, status="EACCES")
    lab.facts["the client says"] = line.fields["reason"]


def strength(lab: Lab) -> None:
    """
    Either end refuses an RSA key that is shorter than its profile wants.

    @param lab: the stage.
    """
    ca = Authority("strength")
    ca.issue("server-rsa", SERVER, key="rsa")
    ca.issue("client-rsa", CLIENT, key="rsa")
    serverHost, clientHost = lab.twoHosts()
    own = identity("client-rsa"), identity("server-rsa")
    agents = [lab.agent(host, text=roles(*own, "strength")) for host in (serverHost, clientHost)]
    lab.listening()
    lab.server(serverHost, "mtls")
    with lab.mounted(clientHost, "4.2", "mtls"):
        for agent in agents:
            agent.nextHandshake().expect("ok")
    more = {"rsa_bits": "3072"}
    agents[0].reload(roles(own[0], {**own[1], **more}, "strength"))
    alert = peers.outcome(clientHost, "client-rsa")
    expect("alert for a short key", alert, "bad_certificate")
    line = agents[0].nextHandshake()
    line.expect("failed", code="weak-certificate", alert_sent=alert, status="EACCES")
    lab.facts["the server says"] = line.fields["reason"]
    agents[1].reload(roles({**own[0], **more}, own[1], "strength"))
    expect("mount from a short key", refusal(clientHost, "4.2", "mtls"), "EACCES")
    line = agents[1].nextHandshake()
    line.expect("failed", code="weak-certificate", alert_sent="bad_certificate")


def rules(lab: Lab) -> None:
    """
    Rules of every kind; who is denied stays out whatever else allows him in; and the
    client's address has to be in its certificate if that is asked for.

    @param lab: the stage.
    """
    _issue()
    fingerprint = loaded("client-elsewhere").fingerprint(SHA256()).hex()
    serverHost, clientHost = lab.twoHosts()
    own = identity("server-access")
    agent = lab.agent(serverHost, text=roles({}, own, "access"))
    lab.listening()
    lab.server(serverHost, "mtls")
    nobody: tuple[str, ...] = ()
    for keys, allowed, denied, otherwise in (
        (
            {"allow": "dns:nfs*.lab", "deny": "dns:nfs9.lab"},
            ("wanted", "elsewhere"),
            ("banned",),
            "not-allowed",
        ),
        (
            {"allow": "uri:spiffe://lab/nfs/*;email:*@lab.example"},
            ("workload", "person"),
            nobody,
            "not-allowed",
        ),
        (
            {"allow": "ip:10.9.0.0/16;ip:fd00::/64"},
            ("workload", "elsewhere"),
            nobody,
            "not-allowed",
        ),
        ({"allow": f"othername:{_USER}=*@lab.example"}, ("person",), nobody, "not-allowed"),
        ({"allow": f"fingerprint:{fingerprint}"}, ("elsewhere",), nobody, "not-allowed"),
        ({"allow": "subject.CN:g*", "deny": "issuer.CN:x*"}, ("guest",), nobody, "not-allowed"),
        ({"deny": "issuer.CN:lab access"}, nobody, _EVERYBODY, ""),
        (
            {"client_address": "require", "deny": "dns:guest.*"},
            ("wanted", "banned"),
            ("guest",),
            "address-mismatch",
        ),
    ):
        said = agent.reload(roles({}, {**own, **keys}, "access"))
        expect(f"{keys} refused", "refused" in said, False)
        for name in _EVERYBODY:
            found = peers.outcome(clientHost, f"client-{name}")
            expect(f"{name} with {keys}", found, "ok" if name in allowed else _DENIED)
            line = agent.nextHandshake()
            if name in allowed:
                line.expect("ok", subject=f"CN={name}.lab")
            else:
                code = "denied" if name in denied else otherwise
                line.expect("failed", subject=f"CN={name}.lab", code=code)
                lab.facts[code] = line.fields["reason"]
