"""
Handshakes that must fail, and how: the errno of mount(2), the alert that the
peer sees, and the line with the code that the operator reads.
"""

from __future__ import annotations

import contextlib
import signal
import ssl
import time

from ktlsagent.protocols.record import AlertDescription
from tests.kernel.guest import peers
from tests.kernel.guest.agents import HandshakeLine, configuration
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.leavers import leaveEarly
from tests.kernel.guest.nfs import refusal
from tests.kernel.guest.sections import identity, roles
from tests.kernel.guest.waiting import Unexpected, expect, until


def _expectLine(lab: Lab, line: HandshakeLine, code: str, sent: str, status: str) -> None:
    """
    Check the line of the side that refuses.

    @param lab: the stage; its facts get the line.
    @param line: the line.
    @param code: the expected code.
    @param sent: the expected alert.
    @param status: what the kernel has to be told.
    """
    lab.facts["line"] = dict(line.fields)
    expect("outcome", line.outcome, "failed")
    for name, wanted in (("code", code), ("alert-sent", sent), ("status", status)):
        expect(f"{name} in the log", line.fields[name], wanted)


def serverCertificate(lab: Lab, flaw: str, server: str, code: str, alert: str) -> None:
    """
    The client refuses the server's certificate.

    @param lab: the stage.
    @param flaw: what is wrong with it.
    @param server: what the mount command names.
    @param code: the code in the client's log.
    @param alert: the alert that the server gets.
    """
    serverHost, clientHost = lab.twoHosts()
    serverAgent = lab.agent(serverHost, text=configuration(server=f"server-{flaw}"))
    clientAgent = lab.agent(clientHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    expect("mount", refusal(clientHost, "4.2", "mtls", server), "EACCES")
    _expectLine(lab, clientAgent.waitForHandshake(), code, alert, "EACCES")
    seen = serverAgent.waitForHandshake()
    expect("outcome at the server", seen.outcome, "failed")
    expect("alert seen by the server", seen.fields["alert-received"], alert)


def clientCertificate(lab: Lab, flaw: str, code: str, alert: str) -> None:
    """
    The server refuses the client's certificate.

    @param lab: the stage.
    @param flaw: what is wrong with it.
    @param code: the code in the server's log.
    @param alert: the alert that a client gets.
    """
    serverHost, clientHost = lab.twoHosts()
    serverAgent = lab.agent(serverHost)
    lab.agent(clientHost, text=configuration(client=f"client-{flaw}"))
    lab.listening()
    lab.server(serverHost, "mtls")
    expect("mount", refusal(clientHost, "4.2", "mtls"), "EACCES")
    _expectLine(lab, serverAgent.waitForHandshake(), code, alert, "EACCES")
    peer = lab.closing(peers.RpcClient(clientHost))
    ending = ""
    try:
        peer.startTls(f"client-{flaw}")
        ending = peer.ending()
    except peers.PeerGone as gone:
        ending = str(gone)
    expect("alert seen by a user-space client", ending, alert)


def noClientCertificate(lab: Lab, version: str) -> None:
    """
    A client without a certificate asks for an export that demands one.

    @param lab: the stage.
    @param version: of NFS.
    """
    serverHost, clientHost = lab.twoHosts()
    serverAgent = lab.agent(serverHost)
    lab.agent(clientHost, text=configuration(client=None))
    lab.listening()
    lab.server(serverHost, "mtls")
    lab.facts["xprtsec=tls"] = refusal(clientHost, version, "tls")
    expect("mount with xprtsec=tls", lab.facts["xprtsec=tls"], "EACCES", "EPERM")
    # The handshake is good: it is the export that the session is not good for.
    expect("handshake", serverAgent.waitForHandshake().outcome, "ok")


def noCertificateConfigured(lab: Lab) -> None:
    """
    A client is to show a certificate and has none.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    lab.agent(serverHost)
    clientAgent = lab.agent(clientHost, text=configuration(client=None))
    lab.listening()
    lab.server(serverHost, "mtls")
    expect("mount", refusal(clientHost, "4.2", "mtls"), "EACCES")
    _expectLine(lab, clientAgent.waitForHandshake(), "no-certificate", "-", "EACCES")


def certificateWithoutKey(lab: Lab) -> None:
    """
    A configuration that names a certificate but no key: refused at the start,
    and at a reload, which keeps the old one.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    bad = "\n".join(
        line for line in configuration().splitlines() if not line.startswith("x509.private_key")
    )
    refused = lab.agent(serverHost, text=bad + "\n")
    status = refused.waitUntilEnded()
    if status == 0 or "x509.private_key" not in refused.log():
        raise Unexpected(f"expected a refusal that names x509.private_key, found status {status}")
    lab.facts["exit status"] = status
    agent = lab.agent(serverHost)
    lab.agent(clientHost)
    lab.listening(*lab.agents[1:])
    agent.configurationFile.write_text(bad + "\n")
    agent.process.send_signal(signal.SIGHUP)
    until(lambda: "x509.private_key" in agent.log(), "the reload is refused")
    lab.server(serverHost, "mtls")
    with lab.mounted(clientHost, "4.2", "mtls"):
        expect("handshake with the old configuration", agent.waitForHandshake().outcome, "ok")


def expiredOfOurs(lab: Lab) -> None:
    """
    A certificate of our own whose time is over: refused at the start, and when its
    file changes, which keeps the old one; accepted if the configuration says so.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    expired = identity("server-expired")
    refused = lab.agent(serverHost, text=roles({}, expired))
    status = refused.waitUntilEnded()
    if status == 0 or "which ended" not in refused.log():
        raise Unexpected(f"expected a refusal for the certificate's end, found status {status}")
    lab.facts["at the start"] = refused.log().splitlines()[-1]
    agent = lab.agent(serverHost, text=roles({}, identity("server")))
    lab.listening(agent)
    said = agent.reload(roles({}, expired))
    expect("refused reload", "reload refused" in said and "which ended" in said, True)
    lab.server(serverHost, "mtls")
    expect("client of the old certificate", peers.outcome(clientHost), "ok")
    agent.nextHandshake().expect("ok")
    said = agent.reload(roles({}, {**expired, "own_expired": "accept"}))
    expect("refusal of what is to be accepted", "refused" in said, False)
    lab.facts["warning"] = [line for line in agent.log().splitlines() if "ended" in line][-1]


_SERVERS = {
    # It refuses our ClientHello, with an alert of its own.
    "tls-1.2": lambda: peers.serveCalls(peers.tlsContext("server", server=True, tls12=True)),
    "plain-text": lambda: peers.answerInClear,
    "closes": lambda: peers.closeInHandshake,
    "stalls": lambda: peers.stallInHandshake,
    "refuses-at-once": lambda: leaveEarly(AlertDescription.ACCESS_DENIED),
    "closes-at-once": leaveEarly,
}


def badServer(lab: Lab, *, kind: str, number: str, code: str, alert: str, status: str) -> None:
    """
    The kernel's client meets a bad server.

    @param lab: the stage.
    @param kind: in which way bad.
    @param number: the name of mount(2)'s errno, or several with C{or} between them.
    @param code: the code in the log.
    @param alert: the alert that the server gets.
    @param status: what the kernel is told.
    """
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(clientHost)
    lab.listening()
    server = lab.closing(peers.RpcServer(serverHost, _SERVERS[kind]()))
    started = time.monotonic()
    options = ["server.lab", f"port={peers.PORT}", "timeo=30", "retrans=0"]
    found = refusal(clientHost, "4.2", "mtls", *options)
    lab.facts["mount-s"] = round(time.monotonic() - started, 2)
    expect("mount", found, *number.split(" or "))
    _expectLine(lab, agent.waitForHandshake(), code, alert, status)
    lab.facts["connections"] = len(server.visits)
    lab.facts["ending"] = until(lambda: server.visits[0].ending, "the server sees the end")


def serverWithoutTls(lab: Lab) -> None:
    """
    The kernel's client meets a server that knows no TLS; nobody is asked.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(clientHost)
    lab.listening()
    lab.closing(peers.RpcServer(serverHost, peers.knowNoTls))
    options = ["server.lab", f"port={peers.PORT}", "timeo=30", "retrans=0"]
    found = refusal(clientHost, "4.2", "mtls", *options)
    lab.facts["mount"] = found
    expect("mount", found != "mounted", True)
    expect("handshakes", agent.handshakes(), [])


def badClient(lab: Lab, kind: str, code: str, alert: str, status: str) -> None:
    """
    The kernel's server meets a bad client.

    @param lab: the stage.
    @param kind: in which way bad.
    @param code: the code in the log.
    @param alert: the alert that the client gets.
    @param status: what the kernel is told.
    """
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(serverHost)
    lab.listening()
    lab.server(serverHost, "mtls")
    peer = lab.closing(peers.RpcClient(clientHost))
    started = time.monotonic()
    if kind == "closes":
        peer.close()
    elif kind == "plain-text":
        peer.stream.send(peers.rpcCall(2))
        lab.facts["received"] = _firstOctets(peer)
    elif kind == "stalls":
        lab.facts["ending"] = peer.ending()
        lab.facts["nfsd-closed-after-s"] = round(time.monotonic() - started, 2)
    else:
        with contextlib.suppress(ssl.SSLError):
            try:
                peer.startTls(tls12=True)
            except peers.PeerGone as gone:
                lab.facts["ending"] = str(gone)
        expect("alert seen by the client", lab.facts.get("ending"), alert)
    _expectLine(lab, agent.waitForHandshake(), code, alert, status)
    # The server is as good as new for the next one.
    after = lab.closing(peers.RpcClient(clientHost))
    after.startTls()
    after.call(3)


def _firstOctets(peer: peers.RpcClient) -> str:
    """
    Receive what the other side says in clear.

    @param peer: the client.
    @return: octets in hexadecimal; empty if it only closes.
    """
    try:
        return peer.stream.receive().hex(" ")
    except (peers.PeerGone, OSError):
        return ""
