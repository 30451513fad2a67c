"""Agents with a log that nobody reads, and clients that have a lot to put into it."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kernel.guest import peers
from tests.kernel.guest.agents import Agent, Process, configuration
from tests.kernel.guest.certificates import certificate, privateKey
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.lab import Lab
from tests.kernel.guest.waiting import Unexpected, expect, until

_CLIENTS: Final = 550
"""So many lines of 2 kB are more than one process keeps."""

_LINE: Final = 4096
_MOST_KILOBYTES: Final = 8192
"""How much a process may grow: what it keeps, and what OpenSSL has had for large certificates."""

_DROPPED: Final = r"(\d+) lines were dropped because nobody read the log"


class UnreadAgent(Agent):
    """An agent whose output is a pipe, which is read when somebody asks for its log."""

    def _start(self, prefix: Sequence[str], log: BinaryIO) -> Process:
        """
        Start its process.

        @param prefix: the beginning of its command.
        @param log: what is kept of its output.
        @return: the process.
        """
        self._near, far = os.pipe()
        os.set_blocking(self._near, False)
        with FileIO(far, "wb") as output:
            return super()._start(prefix, cast(BinaryIO, output))

    def log(self) -> str:
        """
        Read everything that it has written so far.

        @return: all that it has logged.
        """
        with self._log.open("ab") as kept, contextlib.suppress(BlockingIOError):
            while piece := os.read(self._near, 2**16):
                kept.write(piece)
        return super().log()


def _makeHuge(name: str) -> None:
    """
    Make a certificate that no CA has signed, with as much in it as OpenSSL takes.

    @param name: what its files are called.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    unit = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "\x01" * 45_000)
    subject = x509.Name([unit])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    Path(certificate(name)).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    Path(privateKey(name)).write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _resident(host: Host) -> dict[int, int]:
    """
    Measure the agent's processes.

    @param host: where they run.
    @return: their resident memory in kilobytes, by their process ids.
    """
    found = {}
    for pid in host.processes():
        directory = Path(f"/proc/{pid}")
        if b"ktlsagent" in (directory / "cmdline").read_bytes():
            text = (directory / "status").read_text()
            found[pid] = int(re.findall(r"VmRSS:\s+(\d+)", text)[0])
    return found


def hugeCertificates(lab: Lab, workers: str) -> None:
    """
    Nobody reads the log while clients without a trusted certificate come, with certificates
    as large as can be: all are refused at once, others are served, memory stays bounded,
    and when the log is read it says how much is missing.

    @param lab: the stage.
    @param workers: how many workers the agent has.
    """
    serverHost, clientHost = lab.twoHosts()
    _makeHuge("huge")
    agent = lab.agent(serverHost, text=configuration(workers=workers), agentClass=UnreadAgent)
    lab.listening()
    lab.server(serverHost, "mtls")
    number = _CLIENTS * int(workers)
    # What libraries need at the first time.
    outcomes = {peers.outcome(clientHost, "huge") for _time in range(20)}
    before = _resident(serverHost)
    outcomes |= {peers.outcome(clientHost, "huge") for _time in range(number - 20)}
    expect("clients with huge certificates", len(outcomes), 1)
    lab.facts["refusal"] = outcomes.pop()
    expect("client with a good certificate", peers.outcome(clientHost), "ok")
    after = _resident(serverHost)
    lab.facts["grown-kB"] = [after[pid] - size for pid, size in before.items()]
    if max(lab.facts["grown-kB"]) > _MOST_KILOBYTES:
        raise Unexpected(f"expected bounded memory, found {lab.facts}")
    until(lambda: _told(agent) >= number, "the log has all, or says what is missing", 60.0)
    expect("client while the log is read", peers.outcome(clientHost), "ok")
    until(lambda: _told(agent) > number, "the log goes on")
    lines = agent.log().encode().splitlines(keepends=True)
    lab.facts["lines"] = {"longest": max(map(len, lines)), "dropped": _dropped(agent)}
    refused = [line for line in agent.handshakes() if line.outcome == "failed"]
    expect("codes", {line.fields["code"] for line in refused}, {"self-signed"})
    if not _dropped(agent) or max(map(len, lines)) > _LINE:
        raise Unexpected(f"expected short lines, too many of them, found {lab.facts}")


def _dropped(agent: Agent) -> int:
    """
    Say how many lines are missing.

    @param agent: the agent.
    @return: how many it says.
    """
    return sum(map(int, re.findall(_DROPPED, agent.log())))


def _told(agent: Agent) -> int:
    """
    Say how many lines there have been, of those about handshakes and those that are missing.

    @param agent: the agent.
    @return: how many.
    """
    return agent.log().count("] handshake ") + _dropped(agent)
