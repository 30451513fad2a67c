"""
Sends what only the kernel may say to the handshake agents of the network namespace that
it runs in, without end: C{python3 forger.py GROUPS PORT...}.  It needs CAP_NET_ADMIN there,
and no more.

It prints one line when it has sent everything once: what came of it, as JSON.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import sys

_NETLINK_GENERIC = 16
_HEADER = struct.Struct("=IHHII")
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_FAMILIES = range(16, 40)
"""The family's id is among the first, however many modules have been loaded."""


def _message(kind: int, sequence: int, port: int, payload: bytes) -> bytes:
    """Build a netlink message."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, 0, sequence, port) + payload


def _forgeries(port: int) -> list[bytes]:
    """
    Build READY, replies to ACCEPT that name our descriptors, and refusals.

    @param port: whom they are for.
    @return: the datagrams.
    """
    made = [b"\0", b"\xff" * 64, _HEADER.pack(99, 28, 0, 1, port), bytes(66000)]
    for family in _FAMILIES:
        made.append(_message(family, 0, 0, b"\1\1\0\0" + struct.pack("=HHI", 8, 2, 1)))
        reply = b"".join(struct.pack("=HHI", 8, kind, value) for kind, value in ((1, 0), (3, 2)))
        made += [_message(family, sequence, port, b"\2\1\0\0" + reply) for sequence in range(9)]
    for sequence in range(40):
        for number in (0, -errno.EPERM, -errno.EAGAIN, -errno.EBADF):
            refusal = struct.pack("=i", number) + bytes(_HEADER.size)
            made.append(_message(_NLMSG_ERROR, sequence, port, refusal))
        made.append(_message(_NLMSG_DONE, sequence, port, bytes(4)))
    return made


def _round(
    forger: socket.socket, groups: int, ports: list[int], found: dict[str, dict[str, int]]
) -> None:
    """
    Send everything to everybody.

    @param forger: the socket.
    @param groups: the agents' groups, a bit for each.
    @param ports: the agents' ports.
    @param found: counts what comes of it.
    """
    targets = [("to a port", (port, 0)) for port in ports]
    for what, address in [*targets, ("to the group", (0, groups))]:
        for datagram in _forgeries(address[0]):
            try:
                forger.sendto(datagram, address)
                outcome = "sent"
            except OSError as error:
                outcome = errno.errorcode[error.errno or errno.EIO]
            counts = found.setdefault(what, {})
            counts[outcome] = counts.get(outcome, 0) + 1


def main() -> None:
    """Go on until somebody ends this."""
    found: dict[str, dict[str, int]] = {}
    groups, *ports = map(int, sys.argv[1:])
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC) as forger:
        forger.bind((0, 0))
        _round(forger, groups, ports, found)
        print(json.dumps(found), flush=True)
        while True:
            _round(forger, groups, ports, {})


if __name__ == "__main__":
    main()
