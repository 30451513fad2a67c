"""
The kernel's C{handshake} family (C{include/uapi/linux/handshake.h},
C{Documentation/netlink/specs/handshake.yaml}): READY, ACCEPT and DONE.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pyroute2.netlink import NLM_F_ACK, NLM_F_REQUEST, genlmsg, nla

from ktlsagent.protocols.netlink import (
    GENERIC_HEADER,
    HEADER,
    NL_ATTR_TYPE_NUL_STRING,
    NL_ATTR_TYPE_STRING,
    Message,
    encode,
    malformed,
)

FAMILY_NAME = "handshake"
"""C{HANDSHAKE_FAMILY_NAME}."""

GROUP_NAME = "tlshd"
"""C{HANDSHAKE_MCGRP_TLSHD}: where READY is announced."""

_MOST_TAGS = 64
"""C{HANDSHAKE_MAX_SESSIONTAGS}: of more the kernel takes the first ones."""

_LONGEST_TAG = 255

_NUMBER = struct.Struct("=HHi")
"""A C{struct nlattr} and a number."""

_HEADER_SIZE = 4
_FAMILY_VERSION = 1
_SOCKFD = 1
_KEYRING = 9


class HandshakeCommand(IntEnum):
    """C{HANDSHAKE_CMD_*}."""

    READY = 1
    ACCEPT = 2
    DONE = 3


class HandlerClass(IntEnum):
    """C{HANDSHAKE_HANDLER_CLASS_*}."""

    TLSHD = 1


class MessageType(IntEnum):
    """C{HANDSHAKE_MSG_TYPE_*}: which side of the handshake the kernel wants."""

    CLIENTHELLO = 1
    SERVERHELLO = 2


class AuthMode(IntEnum):
    """C{HANDSHAKE_AUTH_*}."""

    UNAUTH = 1
    PSK = 2
    X509 = 3


class DoneAttribute(IntEnum):
    """C{HANDSHAKE_A_DONE_*}."""

    STATUS = 1
    SOCKFD = 2
    REMOTE_AUTH = 3
    TAG = 4


BASE_DONE_ATTRIBUTES = frozenset(
    {DoneAttribute.STATUS, DoneAttribute.SOCKFD, DoneAttribute.REMOTE_AUTH}
)
"""What every kernel with the family takes in DONE."""


class acceptmsg(genlmsg):  # type: ignore[misc]
    """The ACCEPT request and its reply (C{HANDSHAKE_A_ACCEPT_*})."""

    __slots__ = ()

    nla_map = (
        ("HANDSHAKE_A_ACCEPT_UNSPEC", "none"),
        ("HANDSHAKE_A_ACCEPT_SOCKFD", "int32"),
        ("HANDSHAKE_A_ACCEPT_HANDLER_CLASS", "uint32"),
        ("HANDSHAKE_A_ACCEPT_MESSAGE_TYPE", "uint32"),
        ("HANDSHAKE_A_ACCEPT_TIMEOUT", "uint32"),
        ("HANDSHAKE_A_ACCEPT_AUTH_MODE", "uint32"),
        ("HANDSHAKE_A_ACCEPT_PEER_IDENTITY", "uint32"),
        ("HANDSHAKE_A_ACCEPT_CERTIFICATE", "x509"),
        # Octets, because nothing says that a mount's server name is UTF-8.
        ("HANDSHAKE_A_ACCEPT_PEERNAME", "cdata"),
        ("HANDSHAKE_A_ACCEPT_KEYRING", "uint32"),
    )

    class x509(nla):  # type: ignore[misc]
        """The nest of C{HANDSHAKE_A_X509_*}."""

        __slots__ = ()

        nla_map = (
            ("HANDSHAKE_A_X509_UNSPEC", "none"),
            ("HANDSHAKE_A_X509_CERT", "int32"),
            ("HANDSHAKE_A_X509_PRIVKEY", "int32"),
        )


class donemsg(genlmsg):  # type: ignore[misc]
    """The DONE request (C{HANDSHAKE_A_DONE_*})."""

    __slots__ = ()

    nla_map = (
        ("HANDSHAKE_A_DONE_UNSPEC", "none"),
        ("HANDSHAKE_A_DONE_STATUS", "uint32"),
        ("HANDSHAKE_A_DONE_SOCKFD", "int32"),
        ("HANDSHAKE_A_DONE_REMOTE_AUTH", "uint32"),
        ("HANDSHAKE_A_DONE_TAG", "asciiz"),
    )


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """
    What the kernel asks for: the reply to ACCEPT.

    @ivar descriptor: the socket's descriptor, which is ours from now on.
    @ivar messageType: a L{MessageType}, or a number that is not known yet.
    @ivar authMode: an L{AuthMode}, or a number that is not known yet.
    @ivar timeoutMilliseconds: the consumer's own deadline, if it told.
    @ivar peerName: the name that the operator used for the peer, if any, as
        the kernel had it.
    @ivar peerIdentities: key serials of PSKs.
    @ivar certificate: key serial of the certificate to use, if any.
    @ivar privateKey: key serial of its private key, if any.
    @ivar keyring: serial of the keyring that the kernel linked into our
        process keyring, if any.
    """

    descriptor: int
    messageType: int
    authMode: int
    timeoutMilliseconds: int | None = None
    peerName: bytes | None = None
    peerIdentities: tuple[int, ...] = ()
    certificate: int | None = None
    privateKey: int | None = None
    keyring: int | None = None


def encodeAccept(family: int, sequence: int) -> bytes:
    """
    Ask for the oldest pending request.

    @param family: the family's id.
    @param sequence: a number to find the reply by.
    @return: the octets to send.
    """
    message = acceptmsg()
    message["cmd"] = HandshakeCommand.ACCEPT
    message["version"] = _FAMILY_VERSION
    message["attrs"] = [("HANDSHAKE_A_ACCEPT_HANDLER_CLASS", HandlerClass.TLSHD)]
    return encode(message, family, sequence)


def parseAccept(message: Message) -> HandshakeRequest:
    """
    Read the reply to ACCEPT.  Attributes that are not known are skipped.

    @param message: the family's message.
    @return: the request.
    @raise NetlinkError: if the message is malformed or has no descriptor.
    """
    with malformed("ACCEPT"):
        reply = acceptmsg(message.data)
        reply.decode()
        descriptor = _number(reply, "HANDSHAKE_A_ACCEPT_SOCKFD")
        if descriptor is None or descriptor < 0:
            raise ValueError(f"a descriptor of {descriptor}")
        nest = reply.get_attr("HANDSHAKE_A_ACCEPT_CERTIFICATE") or acceptmsg.x509()
        name = reply.get_attr("HANDSHAKE_A_ACCEPT_PEERNAME")
        identities = reply.get_attrs("HANDSHAKE_A_ACCEPT_PEER_IDENTITY")
        return HandshakeRequest(
            descriptor=descriptor,
            messageType=_number(reply, "HANDSHAKE_A_ACCEPT_MESSAGE_TYPE") or 0,
            authMode=_number(reply, "HANDSHAKE_A_ACCEPT_AUTH_MODE") or 0,
            timeoutMilliseconds=_number(reply, "HANDSHAKE_A_ACCEPT_TIMEOUT") or None,
            peerName=None if name is None else bytes(name).rstrip(b"\x00"),
            peerIdentities=tuple(_requireNumber(serial) for serial in identities),
            certificate=_number(nest, "HANDSHAKE_A_X509_CERT") or None,
            privateKey=_number(nest, "HANDSHAKE_A_X509_PRIVKEY") or None,
            keyring=_number(reply, "HANDSHAKE_A_ACCEPT_KEYRING") or None,
        )


def _number(message: nla, name: str) -> int | None:
    """Get a number from a message or a nest, C{None} if it is not there."""
    value = message.get_attr(name)
    return None if value is None else _requireNumber(value)


def _requireNumber(value: object) -> int:
    """pyroute2 leaves an attribute that it cannot decode as octets."""
    if not isinstance(value, int):
        raise TypeError(f"a number of {value!r}")
    return value


def findHeld(message: Message) -> tuple[int | None, int | None]:
    """
    Find what we were given with a reply to ACCEPT that could not be read otherwise,
    so that it can be answered and given back.

    What is behind an attribute with a length that cannot be is not looked at: a
    descriptor that is not the request's must not be closed.

    @param message: the family's message.
    @return: descriptor and keyring; C{None} for what is not to be found.
    """
    found: dict[int, int] = {}
    data = message.data[HEADER.size + GENERIC_HEADER.size :]
    while len(data) >= _NUMBER.size:
        length, kind, value = _NUMBER.unpack_from(data)
        if not _HEADER_SIZE <= length <= len(data):
            break
        if length == _NUMBER.size:
            found.setdefault(kind, value)
        data = data[(length + 3) & ~3 :]
    descriptor = found.get(_SOCKFD, -1)
    keyring = found.get(_KEYRING, 0) % 2**32
    return descriptor if descriptor >= 0 else None, keyring or None


def knownDoneAttributes(policy: Mapping[int, int]) -> frozenset[DoneAttribute]:
    """
    Say which of the attributes that we know may be in DONE.

    Two series of patches that are not in the kernel yet claim number 4: one for
    session tags, which are strings, and one for the number of a session.

    @param policy: what the kernel says that DONE takes: numbers and types.
    @return: the attributes that are what we take them for.
    """
    strings = (NL_ATTR_TYPE_STRING, NL_ATTR_TYPE_NUL_STRING)
    return frozenset(
        attribute
        for attribute in DoneAttribute
        if attribute in policy
        and (attribute is not DoneAttribute.TAG or policy[attribute] in strings)
    )


def sendableTags(tags: Sequence[str]) -> list[str]:
    """
    Choose the session tags that the kernel takes.  With one that it does not
    take it would refuse the whole answer.

    @param tags: the tags that the peer gets.
    @return: the first of those that have 1 to 255 octets and no NUL.
    """
    sendable = [tag for tag in tags if 0 < len(tag.encode()) <= _LONGEST_TAG and "\0" not in tag]
    return sendable[:_MOST_TAGS]


def encodeDone(  # noqa: PLR0913 - the attributes of DONE
    family: int,
    sequence: int,
    *,
    descriptor: int,
    status: int,
    remoteAuth: Sequence[int] = (),
    tags: Sequence[str] = (),
) -> bytes:
    """
    Answer a request.

    @param family: the family's id.
    @param sequence: a number to find the kernel's answer by.
    @param descriptor: the request's descriptor, still open.
    @param status: 0 or a positive errno.
    @param remoteAuth: what the peer authenticated as: key serials.
    @param tags: session tags, as L{sendableTags} gives them.
    @return: the octets to send.
    """
    message = donemsg()
    message["cmd"] = HandshakeCommand.DONE
    message["version"] = _FAMILY_VERSION
    message["attrs"] = [
        ("HANDSHAKE_A_DONE_STATUS", status),
        ("HANDSHAKE_A_DONE_SOCKFD", descriptor),
        *(("HANDSHAKE_A_DONE_REMOTE_AUTH", serial) for serial in remoteAuth),
        *(("HANDSHAKE_A_DONE_TAG", tag) for tag in tags),
    ]
    return encode(message, family, sequence, NLM_F_REQUEST | NLM_F_ACK)
