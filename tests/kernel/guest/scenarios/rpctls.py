"""What RFC 9289 adds to TLS: the protocol name C{sunrpc} and key purposes of its own."""

from __future__ import annotations

from typing import Final

from tests.kernel.guest import peers
from tests.kernel.guest.agents import KTLSAGENT, Agent
from tests.kernel.guest.certificates import (
    CLIENT,
    RPC_PURPOSES,
    SERVER,
    TLS_PURPOSES,
    Authority,
    certificate,
)
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import refusal
from tests.kernel.guest.opensslpeers import OpensslClient
from tests.kernel.guest.sections import identity, roles
from tests.kernel.guest.waiting import expect, until

_NO_PROTOCOL: Final = "no_application_protocol"
_BAD_PURPOSE: Final = "unsupported_certificate"

_OFFERS: Final = {
    "sunrpc": ("sunrpc",),
    "nothing": (),
    "something else": ("http/1.1",),
    "both": ("http/1.1", "sunrpc"),
}

_SERVER_ALPN: Final = {
    "off": {"sunrpc": "-", "nothing": "-", "something else": "-", "both": "-"},
    "prefer": {
        "sunrpc": "sunrpc",
        "nothing": "-",
        "something else": _NO_PROTOCOL,
        "both": "sunrpc",
    },
    "require": {
        "sunrpc": "sunrpc",
        "nothing": _NO_PROTOCOL,
        "something else": _NO_PROTOCOL,
        "both": "sunrpc",
    },
}
"""What a server selects, by its rule and the client's offer; or the alert it sends."""

_PURPOSES: Final = {
    "tls": TLS_PURPOSES,
    "rpc": RPC_PURPOSES,
    "both": (*TLS_PURPOSES, *RPC_PURPOSES),
    "none": (),
}

_GOOD: Final = {
    "off": ("tls", "both", "none"),
    "accept": ("tls", "rpc", "both", "none"),
    "require": ("rpc", "both"),
}
"""Which key purposes are good, by the rule."""


def _reloaded(agent: Agent, text: str) -> None:
    """
    Give an agent another configuration.

    @param agent: the agent.
    @param text: the configuration.
    """
    said = agent.reload(text)
    expect("refusal of the configuration", "refused" in said, False)


def alpnOfClients(lab: Lab) -> None:
    """
    A server selects C{sunrpc}, does without, or refuses, as its profile says.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(serverHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    for rule, results in _SERVER_ALPN.items():
        _reloaded(agent, roles({}, {**identity("server"), "alpn": rule}))
        for offer, result in results.items():
            what = f"alpn={rule}, offered {offer}"
            alert = result if result == _NO_PROTOCOL else "ok"
            found = peers.outcome(clientHost, alpn=_OFFERS[offer])
            expect(what, found, alert)
            line = agent.nextHandshake()
            if alert == "ok":
                line.expect("ok", alpn=result.strip("-"))
            else:
                line.expect("failed", alert_sent=alert)
                lab.facts[what] = f"{line.fields['code']}: {line.fields['reason']}"
    peer = OpensslClient(clientHost, "-alpn", "http/1.1,sunrpc")
    expect("openssl s_client", (peer.outcome, peer.said("ALPN protocol")), ("ok", "sunrpc"))


def alpnOfServers(lab: Lab) -> None:
    """
    A client offers C{sunrpc} or not, and refuses a server without if it has to.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(clientHost)
    lab.listening()
    lab.server(serverHost, "none")
    for rule, selected in (("off", ""), ("prefer", "sunrpc"), ("require", "sunrpc")):
        _reloaded(agent, roles({**identity("client"), "alpn": rule}, {}))
        for known in (("sunrpc",), ()):
            context = peers.tlsContext("server", server=True, alpn=known)
            server = peers.RpcServer(serverHost, peers.relay(context, serverHost))
            found = refusal(clientHost, "3", "mtls", "server.lab", f"port={peers.PORT}")
            server.close()
            until(lambda: server.visits[0].ending, "the server has seen the end")  # noqa: B023
            what = f"mount with alpn={rule}, the server knows {' '.join(known) or 'nothing'}"
            line = agent.nextHandshake()
            if known or rule != "require":
                expect(what, found, "mounted")
                line.expect("ok", alpn=selected if known else "")
                expect(f"{what}: selected", server.visits[0].alpn or "", selected if known else "")
            else:
                expect(what, found, "EACCES")
                line.expect("failed", alert_sent=_NO_PROTOCOL)
                lab.facts[what] = f"{line.fields['code']}: {line.fields['reason']}"


def _issue() -> None:
    """Make a server and a client with each selection of key purposes."""
    ca = Authority("rpc")
    for role, wanted in (("server", SERVER), ("client", CLIENT)):
        for name, purposes in _PURPOSES.items():
            ca.issue(f"{role}-for-{name}", wanted, purposes=purposes)


def purposes(lab: Lab) -> None:
    """
    Certificates for TLS, for RPC with TLS, for both, or for anything, by each rule.

    @param lab: the stage.
    """
    _issue()
    serverHost, clientHost = lab.twoHosts()
    agents = [
        lab.agent(serverHost, text=roles({}, identity("server-for-rpc"), "rpc")),
        lab.agent(clientHost, text=roles(identity("client-for-rpc"), {}, "rpc")),
    ]
    lab.listening()
    lab.server(serverHost, "none:mtls")
    for rule, good in _GOOD.items():
        keys = {"rpc_purpose": rule}
        _reloaded(agents[0], roles({}, {**identity("server-for-rpc"), **keys}, "rpc"))
        _reloaded(agents[1], roles({**identity("client-for-rpc"), **keys}, {}, "rpc"))
        for name in _PURPOSES:
            what = f"rpc_purpose={rule}, certificate for {name}"
            found = peers.outcome(clientHost, f"client-for-{name}")
            expect(f"{what}, client", found, "ok" if name in good else _BAD_PURPOSE)
            line = agents[0].nextHandshake()
            line.expect("ok" if name in good else "failed")
            context = peers.tlsContext(f"server-for-{name}", server=True)
            server = peers.RpcServer(serverHost, peers.relay(context, serverHost))
            found = refusal(clientHost, "3", "mtls", "server.lab", f"port={peers.PORT}")
            server.close()
            expect(f"{what}, server", found, "mounted" if name in good else "EACCES")
            seen = agents[1].nextHandshake()
            seen.expect("ok" if name in good else "failed")
            if name not in good:
                for refused in (line, seen):
                    refused.expect("failed", code="wrong-key-purpose", alert_sent=_BAD_PURPOSE)
                    lab.facts[f"{what}, {refused.fields['role']}"] = refused.fields["reason"]
    # OpenSSL itself does not know these purposes, and wants serverAuth.
    options = ("-CAfile", certificate("rpc"), "-verify_return_error")
    peer = OpensslClient(clientHost, *options)
    expect("openssl s_client that verifies", peer.outcome, "no answer")
    expect("what it says", "unsuitable certificate purpose" in peer.output(), True)


def withTlshd(lab: Lab, server: str, client: str) -> None:
    """
    Neither is known to tlshd: it is content with certificates for RPC alone, and is refused
    only where C{sunrpc} is required.

    @param lab: the stage.
    @param server: the server's agent.
    @param client: the client's agent.
    """
    _issue()
    serverHost, clientHost = lab.twoHosts()
    own = identity("client-for-rpc"), identity("server-for-rpc")
    agents = [
        lab.agent(serverHost, server, roles(*own, "rpc")),
        lab.agent(clientHost, client, roles(*own, "rpc")),
    ]
    lab.listening()
    lab.server(serverHost, "mtls")
    ours = next(agent for agent in agents if agent.kind == KTLSAGENT)
    for rule in ("off", "prefer", "require"):
        ours.reload(roles({**own[0], "alpn": rule}, {**own[1], "alpn": rule}, "rpc"))
        found = refusal(clientHost, "4.2", "mtls")
        line = ours.nextHandshake()
        if rule == "require":
            expect("mount with alpn=require", found, "EACCES")
            line.expect("failed", alert_sent=_NO_PROTOCOL)
            lab.facts["alpn=require"] = f"{line.fields['code']}: {line.fields['reason']}"
        else:
            expect(f"mount with alpn={rule}", found, "mounted")
            line.expect("ok", alpn="")
