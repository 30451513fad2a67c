"""Certificates that are revoked: who is cut off, when, and by what kind of CRL."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.kernel.guest import peers
from tests.kernel.guest.agents import Agent
from tests.kernel.guest.certificates import (
    CLIENT,
    DIRECTORY,
    SERVER,
    Authority,
    loaded,
    replaceFile,
)
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import refusal
from tests.kernel.guest.sections import identity, roles
from tests.kernel.guest.waiting import Unexpected, expect

_CRL: Final = DIRECTORY / "revoking.crl"
_NEXT: Final = DIRECTORY / "revoking-next.crl"
_LISTS: Final = DIRECTORY / "revoking.d"


def _authority() -> Authority:
    """
    Make an authority with a server and two clients.

    @return: the authority.
    """
    authority = Authority("revoking")
    authority.issue("server-revoking", SERVER)
    authority.issue("client-bad", CLIENT, subject="bad.lab")
    authority.issue("client-good", CLIENT, subject="good.lab")
    return authority


def _text(crl: str | Path, **keys: str) -> str:
    """
    Write the server's configuration.

    @param crl: where the CRLs are.
    @param keys: more keys.
    @return: the text.
    """
    server = {**identity("server-revoking"), "x509.crl": str(crl), **keys}
    return roles({}, server, truststore="revoking")


def _holds(what: str, text: str, *wanted: str) -> None:
    """
    Check that a log says something.

    @param what: about what it is.
    @param text: the log.
    @param wanted: what it has to say.
    @raise Unexpected: if it does not.
    """
    for piece in wanted:
        if piece not in text:
            raise Unexpected(f"{what}: expected {piece!r} in the log, found:\n{text}")


def cutOff(lab: Lab, how: str) -> None:
    """
    A client is revoked, and cut off at its next handshake.

    @param lab: the stage.
    @param how: C{change} of the file, or C{reload} by signal.
    """
    authority = _authority()
    serial = f"{loaded('client-bad').serial_number:x}"
    replaceFile(_CRL, authority.revocations())
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(serverHost, text=_text(_CRL))
    lab.agent(clientHost, text=roles(identity("client-bad"), {}, truststore="revoking"))
    lab.listening()
    lab.server(serverHost, "mtls")
    with lab.mounted(clientHost, "4.2", "mtls"):
        agent.nextHandshake().expect("ok", subject="CN=bad.lab")
    if how == "change":
        since = len(agent.log())
        replaceFile(_CRL, authority.revocations("client-bad"))
        said = agent.waitForLog("change of files: ", since)
    else:
        # Another file, so that nothing but the signal can have been the reason.
        replaceFile(_NEXT, authority.revocations("client-bad"))
        said = agent.reload(_text(_NEXT))
    _holds("the new CRL", said, "1 newly revoked", serial)
    lab.facts["delta"] = said.splitlines()[-1]
    expect("mount of a revoked client", refusal(clientHost, "4.2", "mtls"), "EACCES")
    refused = agent.nextHandshake()
    refused.expect("failed", code="certificate-revoked", alert_sent="certificate_revoked")
    lab.facts["reason"] = refused.fields["reason"]
    _cut(lab, clientHost)
    if how == "change":
        _halfWritten(lab, agent, authority)


def _cut(lab: Lab, host: Host) -> None:
    """
    Check that the revoked client is refused, and the other one is not.

    @param lab: the stage.
    @param host: the clients'.
    """
    expect("alert", peers.outcome(host, "client-bad"), "certificate_revoked")
    expect("the other client", peers.outcome(host, "client-good"), "ok")


def _halfWritten(lab: Lab, agent: Agent, authority: Authority) -> None:
    """
    A CRL that is still being written changes nothing; when it is complete, it does.

    @param lab: the stage.
    @param agent: the server's agent, which watches the CRL's file.
    @param authority: whose CRL it is.
    """
    whole = authority.revocations("client-good")
    since = len(agent.log())
    _CRL.write_bytes(whole[: len(whole) // 2])
    said = agent.waitForLog("change of files refused", since)
    _holds("half a CRL", said, str(_CRL), "stays in use")
    lab.facts["half a CRL"] = said.splitlines()[-1]
    _cut(lab, lab.hosts[1])
    since = len(agent.log())
    with _CRL.open("ab") as file:
        file.write(whole[len(whole) // 2 :])
    said = agent.waitForLog("change of files: ", since)
    _holds("the complete CRL", said, "1 newly revoked", "1 no longer revoked")
    alert = peers.outcome(lab.hosts[1], "client-good")
    expect("alert for who is revoked now", alert, "certificate_revoked")
    expect("who was revoked", peers.outcome(lab.hosts[1], "client-bad"), "ok")


def flaws(lab: Lab) -> None:
    """
    CRLs that are expired or missing refuse everybody, unless the profile says
    otherwise; who is on an expired CRL is revoked all the same.

    @param lab: the stage.
    """
    authority = _authority()
    other = Authority("other-revoking")
    expired = authority.revocations("client-bad", ends=-1)
    _LISTS.mkdir(exist_ok=True)
    replaceFile(_CRL, expired)
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(serverHost, text=_text(_CRL))
    lab.listening()
    lab.server(serverHost, "mtls")
    _refused(lab, agent, "crl-expired", "certificate_expired")
    agent.reload(_text(_CRL, crl_tolerate="missing"))
    _refused(lab, agent, "crl-expired", "certificate_expired")
    agent.reload(_text(_CRL, crl_tolerate="expired"))
    _cut(lab, clientHost)
    # A directory, in which there is only a CRL of somebody else.
    replaceFile(_LISTS / "other.crl", other.revocations())
    agent.reload(_text(_LISTS))
    _refused(lab, agent, "crl-missing", "unknown_ca")
    agent.reload(_text(_LISTS, crl_tolerate="expired"))
    _refused(lab, agent, "crl-missing", "unknown_ca")
    agent.reload(_text(_LISTS, crl_tolerate="missing;expired"))
    expect("client without a CRL", peers.outcome(clientHost, "client-bad"), "ok")
    # Put into the directory, it is found there.
    since = len(agent.log())
    replaceFile(_LISTS / "revoking.crl", authority.revocations("client-bad"))
    agent.waitForLog("change of files: ", since)
    _cut(lab, clientHost)


def _refused(lab: Lab, agent: Agent, code: str, alert: str) -> None:
    """
    Check that a good client is refused.

    @param lab: the stage.
    @param agent: the server's agent.
    @param code: in its log.
    @param alert: that the client gets.
    """
    number = len(agent.handshakes())
    expect(f"alert for {code}", peers.outcome(lab.hosts[1], "client-good"), alert)
    refused = agent.waitForHandshake(number + 1)
    refused.expect("failed", code=code, alert_sent=alert)
    lab.facts[code] = refused.fields["reason"]


def scopes(lab: Lab) -> None:
    """
    A revoked intermediate authority matters if the whole chain is looked up; a
    client, too, looks a server up.

    @param lab: the stage.
    """
    root = _authority()
    middle = Authority("middle", root)
    middle.issue("client-middle", CLIENT, subject="middle.lab")
    crls = root.revocations("middle", "server-revoking") + middle.revocations()
    replaceFile(_CRL, crls)
    serverHost, clientHost = lab.twoHosts()
    agent = lab.agent(serverHost, text=_text(_CRL))
    client = {**identity("client-middle"), "x509.crl": str(_CRL)}
    clientAgent = lab.agent(clientHost, text=roles(client, {}, truststore="revoking"))
    lab.listening()
    lab.server(serverHost, "mtls")
    expect("leaf alone", peers.outcome(clientHost, "client-middle"), "ok")
    agent.nextHandshake().expect("ok", subject="CN=middle.lab")
    agent.reload(_text(_CRL, crl_scope="chain"))
    alert = peers.outcome(clientHost, "client-middle")
    expect("whole chain", alert, "certificate_revoked")
    refused = agent.nextHandshake()
    refused.expect("failed", code="certificate-revoked")
    lab.facts["reason"] = refused.fields["reason"]
    expect("mount from a revoked server", refusal(clientHost, "4.2", "mtls"), "EACCES")
    refused = clientAgent.nextHandshake()
    refused.expect("failed", code="certificate-revoked", alert_sent="certificate_revoked")
    agent.nextHandshake().expect("failed", alert_received="certificate_revoked")
