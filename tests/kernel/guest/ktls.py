"""What the kernel itself says about kTLS: its counters and each socket's session."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

from pyroute2.netlink import nla, nlmsg

from tests.kernel.guest.hosts import Host

CIPHERS: Final = {
    "TLS_AES_128_GCM_SHA256": 51,
    "TLS_AES_256_GCM_SHA384": 52,
    "TLS_AES_128_CCM_SHA256": 53,
    "TLS_CHACHA20_POLY1305_SHA256": 54,
}
"""The kernel's numbers of the suites: C{TLS_CIPHER_*} of C{linux/tls.h}."""

_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST_DUMP: Final = 0x301
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_ESTABLISHED: Final = 1
_WITH_INFO: Final = 1 << 1
"""Asks for C{INET_DIAG_INFO}, and so for what the upper layer has to say."""

_HEADER: Final = struct.Struct("=IHHII")

_VERSIONS: Final = {0x0303: "1.2", 0x0304: "1.3"}
_CONFIGURATIONS: Final = {1: "base", 2: "sw", 3: "hw"}


class _TlsInfo(nla):  # type: ignore[misc]
    """A session, C{TLS_INFO_*} of C{linux/tls.h}."""

    nla_map = (
        ("TLS_INFO_UNSPEC", "none"),
        ("TLS_INFO_VERSION", "uint16"),
        ("TLS_INFO_CIPHER", "uint16"),
        ("TLS_INFO_TXCONF", "uint16"),
        ("TLS_INFO_RXCONF", "uint16"),
    )


class _UlpInfo(nla):  # type: ignore[misc]
    """The upper layer of a socket, C{INET_ULP_INFO_*} of C{linux/inet_diag.h}."""

    nla_map = (
        ("INET_ULP_INFO_UNSPEC", "none"),
        ("INET_ULP_INFO_NAME", "asciiz"),
        ("INET_ULP_INFO_TLS", "tlsInfo"),
    )

    tlsInfo = _TlsInfo


class _SocketMessage(nlmsg):  # type: ignore[misc]
    """C{struct inet_diag_msg} of C{linux/inet_diag.h}, with the attribute asked for."""

    fields = (
        ("idiag_family", "B"),
        ("idiag_state", "B"),
        ("idiag_timer", "B"),
        ("idiag_retrans", "B"),
        ("idiag_sport", ">H"),
        ("idiag_dport", ">H"),
        ("idiag_src", "16s"),
        ("idiag_dst", "16s"),
        ("idiag_if", "I"),
        ("idiag_cookie", "Q"),
        ("idiag_expires", "I"),
        ("idiag_rqueue", "I"),
        ("idiag_wqueue", "I"),
        ("idiag_uid", "I"),
        ("idiag_inode", "I"),
    )

    nla_map = ((19, "INET_DIAG_ULP_INFO", "ulpInfo"),)

    ulpInfo = _UlpInfo


@dataclass(frozen=True, slots=True)
class Session:
    """
    A socket's installed session, read by sock_diag.

    @ivar version: TLS version.
    @ivar suite: the suite's name.
    @ivar transmit: how records are sealed; C{sw} is the kernel's software.
    @ivar receive: how records are opened.
    """

    version: str
    suite: str
    transmit: str
    receive: str

    def __str__(self) -> str:
        return f"TLS {self.version}, {self.suite}, sent {self.transmit}, received {self.receive}"


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
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for message in _dump(host, family):
            ulp = message.get_attr("INET_DIAG_ULP_INFO")
            info = None if ulp is None else ulp.get_attr("INET_ULP_INFO_TLS")
            if info is not None and port in (message["idiag_sport"], message["idiag_dport"]):
                found.append(_session(info))
    return found


def _session(info: Any) -> Session:
    """
    Put a session's numbers into words.

    @param info: the kernel's attribute.
    @return: the session.
    """

    def word(name: str, words: dict[int, str]) -> str:
        number = info.get_attr(f"TLS_INFO_{name}")
        return words.get(number, str(number))

    suites = {number: name for name, number in CIPHERS.items()}
    return Session(
        word("VERSION", _VERSIONS),
        word("CIPHER", suites),
        word("TXCONF", _CONFIGURATIONS),
        word("RXCONF", _CONFIGURATIONS),
    )


def _dump(host: Host, family: int) -> list[Any]:
    """
    List the established TCP sockets of a host.

    @param host: the host.
    @param family: C{AF_INET} or C{AF_INET6}.
    @return: a message for each.
    @raise OSError: if the kernel refuses.
    """
    states = 1 << _ESTABLISHED
    request = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, _WITH_INFO, 0, states)
    size = _HEADER.size + len(request)
    header = _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0)
    with host.network():
        asking = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)
    found: list[Any] = []
    with asking:
        asking.send(header + request)
        while True:
            data = asking.recv(1 << 18)
            while data:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", data, _HEADER.size)[0], "sock_diag")
                message = _SocketMessage(data[:length])
                message.decode()
                found.append(message)
                data = data[(length + 3) & ~3 :]
