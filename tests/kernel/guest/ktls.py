"""What the kernel itself says about kTLS: its counters and each socket's session."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from tests.kernel.guest.hosts import Host

CIPHERS: Final = {
    "TLS_AES_256_GCM_SHA384": "aes-gcm-256",
    "TLS_AES_128_GCM_SHA256": "aes-gcm-128",
    "TLS_CHACHA20_POLY1305_SHA256": "chacha20-poly1305",
    "TLS_AES_128_CCM_SHA256": "aes-ccm-128",
}
"""The kernel's names of the suites, as sock_diag's readers print them."""


@dataclass(frozen=True, slots=True)
class Session:
    """
    A socket's installed session, read by sock_diag.

    @ivar version: TLS version.
    @ivar cipher: the kernel's name of the cipher.
    @ivar transmit: how records are sealed; C{sw} is the kernel's software.
    @ivar receive: how records are opened.
    """

    version: str
    cipher: str
    transmit: str
    receive: str


def statistics(host: Host) -> dict[str, int]:
    """
    Read the counters of a host's network.

    @param host: the host.
    @return: C{/proc/net/tls_stat} as a dictionary.
    """
    text = host.call("cat", "/proc/self/net/tls_stat")
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def sessions(host: Host, port: int = 2049) -> list[Session]:
    """
    Read the TLS sessions of a host's connections to or from a port.

    @param host: the host.
    @param port: the server's port.
    @return: one for each connection that has the TLS upper layer.
    """
    text = host.call(
        "ss", "-Htineo", "state", "established", f"( sport = :{port} or dport = :{port} )"
    )
    pattern = re.compile(
        r"tcp-ulp-tls.*?version: (?P<version>\S+) cipher: (?P<cipher>\S+)"
        r".*?rxconf: (?P<rx>\S+) txconf: (?P<tx>\S+)"
    )
    return [
        Session(match["version"], match["cipher"], match["tx"], match["rx"])
        for match in pattern.finditer(text)
    ]
