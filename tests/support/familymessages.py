"""Messages of the family C{handshake}, made by hand after C{include/uapi/linux/handshake.h}."""

from __future__ import annotations

import struct

from ktlsagent.protocols.netlink import Message

FAMILY = 28

# HANDSHAKE_A_ACCEPT_*
SOCKFD = 1
MESSAGE_TYPE = 3
TIMEOUT = 4
AUTH_MODE = 5
PEER_IDENTITY = 6
CERTIFICATE = 0x8007
"""With NLA_F_NESTED, as C{nla_nest_start} sets it."""
PEERNAME = 8
KEYRING = 9

# HANDSHAKE_A_X509_*
X509_CERT = 1
X509_PRIVKEY = 2


def attribute(kind: int, payload: bytes) -> bytes:
    """Build a C{struct nlattr} with its payload and padding."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def u32(kind: int, value: int) -> bytes:
    """Build a C{u32} attribute."""
    return attribute(kind, struct.pack("=I", value))


def s32(kind: int, value: int) -> bytes:
    """Build an C{s32} attribute."""
    return attribute(kind, struct.pack("=i", value))


def reply(*attributes: bytes) -> Message:
    """Build a reply to ACCEPT: HANDSHAKE_CMD_ACCEPT is 2, the family's version 1."""
    body = struct.pack("=BBH", 2, 1, 0) + b"".join(attributes)
    data = struct.pack("=IHHII", 16 + len(body), FAMILY, 0, 5, 4711) + body
    return Message(FAMILY, 0, 5, 4711, data)


NFS_CLIENT = (
    s32(SOCKFD, 9),
    u32(MESSAGE_TYPE, 1),
    attribute(PEERNAME, b"server.lab\0"),
    u32(AUTH_MODE, 3),
)

NVME_HOST = (
    s32(SOCKFD, 11),
    u32(MESSAGE_TYPE, 1),
    u32(TIMEOUT, 10000),
    u32(KEYRING, 0x1F2E3D4C),
    u32(AUTH_MODE, 2),
    u32(PEER_IDENTITY, 0x2A5DAC73),
)
