"""Sessions that are resumed: that they work, and what they save."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.kernel.guest import ktls
from tests.kernel.guest.agents import KTLSAGENT, Agent
from tests.kernel.guest.certificates import SERVER, Authority, certificate
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.nfs import readFile, writeFile
from tests.kernel.guest.sections import identity, roles, section
from tests.kernel.guest.tokens import Tokens
from tests.kernel.guest.waiting import expect

_CONNECTIONS: Final = 16
_ROUNDS: Final = 5
_SIGNING_SECONDS: Final = 0.05
"""What a TPM that is a chip takes for a signature, and swtpm does not."""

_CPU_NANOSECONDS: Final = 0
"""The first field of /proc/PID/schedstat."""


def _agents(
    lab: Lab,
    hosts: tuple[Host, Host],
    own: Mapping[str, str],
    resumption: str,
    *,
    prefix: Sequence[str] = (),
    authorities: Sequence[str] = (),
) -> list[Agent]:
    """
    Start an agent for each end.

    @param lab: the stage.
    @param hosts: where server and client are.
    @param own: the keys that name the server's certificate.
    @param resumption: the key's value.
    @param prefix: the beginning of the command of the server's agent.
    @param authorities: who else is trusted but the lab's authority.
    @return: the server's agent and the client's.
    """
    trusted = ";".join(certificate(name) for name in ("ca", *authorities))
    common = {"x509.truststore": trusted, "resumption": resumption}
    made = [
        lab.agent(hosts[0], text=section("authenticate.server", common, own), prefix=prefix),
        lab.agent(hosts[1], text=section("authenticate.client", common, identity("client"))),
    ]
    lab.listening(*made)
    return made


def mounts(lab: Lab, security: str) -> None:
    """
    The second mount resumes the session of the first, the third one that of the
    second; after a reload there is a full handshake.  Data goes both ways each time.

    @param lab: the stage.
    @param security: C{xprtsec}.
    """
    hosts = lab.twoHosts()
    agents = _agents(lab, hosts, identity("server"), "on")
    lab.server(hosts[0], security)
    before = [ktls.statistics(host)["TlsDecryptError"] for host in hosts]
    written = None
    for resumed in ("", "yes", "yes", "reload"):
        if resumed == "reload":
            for agent in agents:
                agent.reload()
        # NFS 3, which makes no connection to a data server.
        with lab.mounted(hosts[1], "3", security) as mount:
            if written is not None:
                expect("SHA-256 of what was read back", readFile(mount.path / "data"), written)
            written = writeFile(mount.path / "data", 4)
        for agent in agents:
            agent.nextHandshake().expect("ok", resumed=resumed.removeprefix("reload"))
    after = [ktls.statistics(host)["TlsDecryptError"] for host in hosts]
    expect("TlsDecryptError", after, before)
    lab.recordHandshakes()


def withTlshd(lab: Lab, server: str, client: str) -> None:
    """
    Ktlsagent wants resumption and its peer knows nothing of it: a server's ticket is
    in nobody's way, and a client does not wait for one for long.

    @param lab: the stage.
    @param server: the server's agent.
    @param client: the client's agent.
    """
    hosts = lab.twoHosts()
    before = [ktls.statistics(host)["TlsDecryptError"] for host in hosts]
    for host, kind in zip(hosts, (server, client), strict=True):
        on = {"resumption": "on"} if kind == KTLSAGENT else {}
        text = roles({**identity("client"), **on}, {**identity("server"), **on})
        lab.agent(host, kind, text)
    lab.listening()
    lab.server(hosts[0], "mtls")
    for _ in range(2):
        with lab.mounted(hosts[1], "3", "mtls") as mount:
            written = writeFile(mount.path / "data", 4)
            expect("SHA-256", readFile(mount.path / "data"), written)
        for agent in lab.agents:
            if agent.kind == KTLSAGENT:
                agent.nextHandshake().expect("ok", resumed="")
    after = [ktls.statistics(host)["TlsDecryptError"] for host in hosts]
    expect("TlsDecryptError", after, before)
    lab.recordHandshakes()


def _identity(lab: Lab, key: str) -> tuple[dict[str, str], Sequence[str]]:
    """
    Make the server's certificate.

    @param lab: the stage.
    @param key: C{ec}, C{rsa}, C{ml-dsa}, C{tpm-ec}, C{tpm-rsa} or C{slow-tpm-ec}.
    @return: the keys that name it, and the beginning of its agent's command.
    """
    slow, tpm, kind = key.rpartition("tpm-")
    if not tpm:
        return identity(Authority("cost").issue("server-cost", SERVER, key=key)), ()
    tokens = lab.closing(Tokens())
    tokens.startTPM()
    path = str(tokens.tpmKey("server", kind.upper()))
    file = tokens.certify("server-tpm", path, SERVER.names)
    prefix = tokens.prefixWithDevice(_SIGNING_SECONDS) if slow else tokens.prefix()
    return {"x509.certificate": file, "x509.private_key": path}, prefix


def _processorMilliseconds(agent: Agent) -> float:
    """
    Say how long an agent has been on the processor, all threads together.

    @param agent: the agent.
    @return: milliseconds.
    """
    tasks = Path(f"/proc/{agent.process.pid}/task").iterdir()
    spent = [int((task / "schedstat").read_text().split()[_CPU_NANOSECONDS]) for task in tasks]
    return sum(spent) / 1e6


def _look(path: Path) -> None:
    """
    Ask the server for a file that is not there.

    @param path: the file.
    """
    with contextlib.suppress(FileNotFoundError):
        os.stat(path)


def _round(lab: Lab, client: Host, agents: Sequence[Agent]) -> dict[str, Any]:
    """
    Have a mount make all its connections, all but the first at once.

    @param lab: the stage.
    @param client: where to mount.
    @param agents: the server's agent and the client's.
    @return: what that took.
    """
    seen = [len(agent.handshakes()) for agent in agents]
    processor = [_processorMilliseconds(agent) for agent in agents]
    started = time.monotonic()
    option = f"nconnect={_CONNECTIONS}"
    with lab.mounted(client, "3", "mtls", "server.lab", option, "noac") as mount:
        with ThreadPoolExecutor(2 * _CONNECTIONS) as pool:
            paths = [mount.path / f"none-{number}" for number in range(4 * _CONNECTIONS)]
            list(pool.map(_look, paths))
        milliseconds = (time.monotonic() - started) * 1000
        for agent, count in zip(agents, seen, strict=True):
            wanted = count + _CONNECTIONS
            agent.waitForHandshake(wanted)
        spent = [
            (_processorMilliseconds(agent) - before) / _CONNECTIONS
            for agent, before in zip(agents, processor, strict=True)
        ]
    lines = agents[1].handshakes()[seen[1] :]
    return {
        "ms": milliseconds,
        "server-cpu-ms": spent[0],
        "client-cpu-ms": spent[1],
        "client-took-ms": median(line.milliseconds for line in lines),
        "resumed": sum(line.fields.get("resumed") == "yes" for line in lines),
    }


def cost(lab: Lab, key: str) -> None:
    """
    The sixteen connections of a mount, full and resumed, with both agents on the
    same processor.

    @param lab: the stage.
    @param key: the kind of the server's key.
    """
    own, prefix = _identity(lab, key)
    authorities = () if prefix else ("cost",)
    server, client = lab.twoHosts()
    lab.server(server, "mtls")
    for name, resumption in (("full", "off"), ("resumed", "on")):
        agents = _agents(
            lab, (server, client), own, resumption, prefix=prefix, authorities=authorities
        )
        # The first round has no tickets yet.
        rounds = [_round(lab, client, agents) for _ in range(_ROUNDS + 1)][1:]
        for what in rounds[0]:
            values = [round(one[what], 2) for one in rounds]
            lab.facts[f"{name} {what}"] = {"median": median(values), "least": min(values)}
        for agent in agents:
            agent.stop()
