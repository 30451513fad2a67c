"""Keys that are pinned: alone, to encrypt without an authority, or beside a chain."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.kernel.guest import peers
from tests.kernel.guest.certificates import CLIENT, SERVER, Authority, loaded
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import readFile, refusal, writeFile
from tests.kernel.guest.sections import identity, roles, section
from tests.kernel.guest.waiting import expect

_NONE: Final = {"x509.truststore": "none"}
_ALERT: Final = "bad_certificate"


def _pin(*names: str) -> dict[str, str]:
    """
    Write the key that pins certificates' keys.

    @param names: the certificates.
    @return: the key of a section.
    """
    pins = []
    for name in names:
        key = loaded(name).public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        pins.append(f"sha256:{base64.b64encode(hashlib.sha256(spki).digest()).decode()}")
    return {"spki_pins": ";".join(pins)}


def alone(lab: Lab) -> None:
    """
    Pins alone: certificates that are self-signed or for another name are good if
    their keys are pinned, and no others are; their time counts all the same.

    @param lab: the stage.
    """
    serverHost, clientHost = lab.twoHosts()
    nobody = Authority("nobody")
    nobody.issue("server-pinned", SERVER, subject="x", names=("x.lab",))
    anybody = section("authenticate.server", identity("server-pinned"))
    clients = _pin("client-self-signed", "client-expired")
    serverAgent = lab.agent(serverHost, text=anybody)
    client = {**identity("client-self-signed"), **_NONE}
    pinned = section("authenticate.client", client, _pin("server", "server-pinned"))
    clientAgent = lab.agent(clientHost, text=pinned)
    lab.listening()
    lab.server(serverHost, "tls:mtls")
    pinning = section("authenticate.server", identity("server-pinned"), _NONE, clients)
    for security, text, subject in (("tls", anybody, "-"), ("mtls", pinning, "CN=client.lab")):
        serverAgent.reload(text)
        with lab.mounted(clientHost, "3", security) as mount:
            written = writeFile(mount.path / "data", 1)
            expect("SHA-256", readFile(mount.path / "data"), written)
            clientAgent.nextHandshake().expect("ok", subject="CN=x")
            serverAgent.nextHandshake().expect("ok", subject=subject)
    alert = peers.outcome(clientHost, None)
    expect("alert for a client without a certificate", alert, "certificate_required")
    serverAgent.nextHandshake().expect("failed", code="certificate-required")
    alert = peers.outcome(clientHost, "client-expired")
    expect("alert for a pinned client whose time is over", alert, "certificate_expired")
    serverAgent.nextHandshake().expect("failed", code="certificate-expired")
    alert = peers.outcome(clientHost, "client")
    refused = serverAgent.nextHandshake()
    lab.facts["a client that is not pinned"] = refused.fields["reason"]
    refused.expect("failed", code="pin-mismatch", alert_sent=_ALERT, status="EACCES")
    expect("alert for a client that is not pinned", alert, _ALERT)
    clientAgent.reload(section("authenticate.client", client, _pin("server")))
    expect("mount from who is not pinned", refusal(clientHost, "3", "tls"), "EACCES")
    clientAgent.nextHandshake().expect("failed", code="pin-mismatch", alert_sent=_ALERT)


def besideChain(lab: Lab) -> None:
    """
    Pins beside an authority: both have to be right.

    @param lab: the stage.
    """
    first, second = Authority("pinning"), Authority("second")
    first.issue("server-pinning", SERVER)
    first.issue("client-pinned", CLIENT)
    first.issue("client-unpinned", CLIENT)
    second.issue("client-second", CLIENT)
    serverHost, clientHost = lab.twoHosts()
    pins = _pin("client-pinned", "client-second")
    agent = lab.agent(serverHost, text=roles({}, {**identity("server-pinning"), **pins}, "pinning"))
    lab.listening()
    lab.server(serverHost, "mtls")
    for name, code in (
        ("client-pinned", "-"),
        ("client-unpinned", "pin-mismatch"),
        ("client-second", "unknown-ca"),
    ):
        alert = peers.outcome(clientHost, name)
        line = agent.nextHandshake()
        expect(f"{name}: refused", alert != "ok", code != "-")
        if code != "-":
            line.expect("failed", code=code, alert_sent=alert)
            lab.facts[name] = line.fields["reason"]
