"""Session tags: which clients get which, and what depends on them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tests.kernel.guest import peers
from tests.kernel.guest.certificates import (
    CLIENT,
    RPC_PURPOSES,
    SERVER,
    TLS_PURPOSES,
    Authority,
    replaceFile,
)
from tests.kernel.guest.lab import LOGS, Lab
from tests.kernel.guest.sections import identity, roles, section
from tests.kernel.guest.waiting import expect

_DIRECTORY: Final = LOGS.parent / "tags.d"

_TAGS: Final = """\
filters:
  staffName:
    type: x509.tbs.subject
    pattern: "CN=staff*"
  signsOnly:
    type: x509.extension.keyUsage
    purpose:
      - digitalSignature
  fromLab:
    type: x509.tbs.issuer
    pattern: "CN=lab tags"
  namedInLab:
    type: x509.extension.subjectAltName.dNSName
    pattern: "*.lab"
  forRpc:
    type: x509.extension.extendedKeyUsage
    purpose:
      - rpcTLSClient
  sinceLongAgo:
    type: x509.tbs.validity.notBefore
    pattern: 2020-01-01 00:00:00
tags:
  staff:
    filter:
      - staffName
      - fromLab
  visitor:
    filter:
      - not staffName
  signer:
    filter:
      - signsOnly
  machine:
    filter:
      - namedInLab
      - forRpc
      - sinceLongAgo
  ancient:
    filter:
      - not sinceLongAgo
"""


def tags(lab: Lab) -> None:
    """
    Tags are found, logged, and let a client in; a broken file leaves them as they were.

    @param lab: the stage.
    """
    ca = Authority("tags")
    ca.issue("server-tags", SERVER)
    for name in ("staff", "guest"):
        ca.issue(f"client-{name}", CLIENT, subject=f"{name}.lab")
    purposes = (*TLS_PURPOSES, *RPC_PURPOSES)
    ca.issue("client-machine", CLIENT, subject="machine.lab", purposes=purposes)
    _DIRECTORY.mkdir(exist_ok=True)
    file = _DIRECTORY / "lab.yml"
    replaceFile(file, _TAGS.encode())
    directory = section("ktlsagent", {"tags_directory": str(_DIRECTORY)})
    serverHost, clientHost = lab.twoHosts()
    own = identity("server-tags")
    agent = lab.agent(serverHost, text=roles({}, own, "tags") + directory)
    lab.agent(clientHost, text=roles(identity("client-staff"), {}, "tags"))
    lab.listening()
    lab.server(serverHost, "tls:mtls")
    with lab.mounted(clientHost, "4.2", "mtls"):
        agent.nextHandshake().expect("ok", tags="signer,staff")
    for shown, found in (
        ("client-guest", "signer,visitor"),
        ("client-machine", "machine,signer,visitor"),
        (None, ""),
    ):
        expect("handshake", peers.outcome(clientHost, shown), "ok")
        agent.nextHandshake().expect("ok", tags=found)
    agent.reload(roles({}, {**own, "allow": "tag:staff"}, "tags") + directory)
    _staffOnly(lab, Path(file))
    since = len(agent.log())
    replaceFile(file, _TAGS.replace("not staffName", "not stafName").encode())
    said = agent.waitForLog("change of files refused", since)
    lab.facts["a broken file"] = said.splitlines()[-1]
    _staffOnly(lab, Path(file))


def _staffOnly(lab: Lab, file: Path) -> None:
    """
    Check who is let in.

    @param lab: the stage.
    @param file: with the tags.
    """
    host = lab.hosts[1]
    expect(f"staff by {file}", peers.outcome(host, "client-staff"), "ok")
    lab.agents[0].nextHandshake().expect("ok", tags="signer,staff")
    expect(f"guest by {file}", peers.outcome(host, "client-guest"), "access_denied")
    lab.agents[0].nextHandshake().expect("failed", code="not-allowed")
