"""
The messages of every handshake, made and read without pyroute2's classes, which
would take a tenth of its processor time.

L{ktlsagent.protocols.handshakefamily} is the reference: what it has encoded once is
sent again with other numbers in it, and what is not plain here is left to it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ktlsagent.protocols import handshakefamily
from ktlsagent.protocols.handshakefamily import HandshakeRequest
from ktlsagent.protocols.netlink import GENERIC_HEADER, HEADER, Message

_SEQUENCE: Final = 8
"""Where C{nlmsg_seq} is in C{struct nlmsghdr}."""

_ATTRIBUTES: Final = HEADER.size + GENERIC_HEADER.size
_ATTRIBUTE: Final = struct.Struct("=HH")
_U32: Final = struct.Struct("=I")
_S32: Final = struct.Struct("=i")
_NUMBER: Final = _ATTRIBUTE.size + _U32.size
"""How long an attribute is that is a number."""

_STATUS_AT: Final = _ATTRIBUTES + _ATTRIBUTE.size
_SOCKFD_AT: Final = _STATUS_AT + _NUMBER
_REMOTE_AUTH_AT: Final = _SOCKFD_AT + _NUMBER
"""Where the numbers are in DONE."""

_NO_DESCRIPTOR: Final = 2**31
"""What no descriptor reaches."""

_SOCKFD: Final = 1
_MESSAGE_TYPE: Final = 3
_TIMEOUT: Final = 4
_AUTH_MODE: Final = 5
_PEERNAME: Final = 8
_KEYRING: Final = 9
_NUMBERS: Final = frozenset((_SOCKFD, _MESSAGE_TYPE, _TIMEOUT, _AUTH_MODE, _KEYRING))
"""C{HANDSHAKE_A_ACCEPT_*}."""


def encodeAccept(family: int, sequence: int) -> bytes:
    """
    Ask for the oldest pending request.

    @param family: the family's id.
    @param sequence: a number to find the reply by.
    @return: the octets to send.
    """
    message = bytearray(_accept(family))
    _U32.pack_into(message, _SEQUENCE, sequence)
    return bytes(message)


@lru_cache(maxsize=1)
def _accept(family: int) -> bytes:
    """Encode it once."""
    return handshakefamily.encodeAccept(family, 0)


def parseAccept(message: Message) -> HandshakeRequest:
    """
    Read the reply to ACCEPT.  Attributes that are not known are skipped.

    @param message: the family's message.
    @return: the request.
    @raise NetlinkError: if the message is malformed or has no descriptor.
    """
    return _plainRequest(message.data) or handshakefamily.parseAccept(message)


def _plainRequest(data: bytes) -> HandshakeRequest | None:
    """
    Read a request of numbers and a name, as those for NFS are.

    @return: the request; C{None} if there is anything else in it, anything twice, or
        anything of another length.
    """
    found: dict[int, int] = {}
    name = None
    at, end = _ATTRIBUTES, len(data)
    while at + _NUMBER <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        value = at + _ATTRIBUTE.size
        if kind in _NUMBERS and length == _NUMBER and kind not in found:
            (found[kind],) = _U32.unpack_from(data, value)
        elif kind == _PEERNAME and _ATTRIBUTE.size < length <= end - at and name is None:
            name = data[value : at + length].rstrip(b"\x00")
        else:
            return None
        at += (length + 3) & ~3
    descriptor = found.get(_SOCKFD, _NO_DESCRIPTOR)
    if at != end or descriptor >= _NO_DESCRIPTOR:
        return None
    return HandshakeRequest(
        descriptor,
        found.get(_MESSAGE_TYPE, 0),
        found.get(_AUTH_MODE, 0),
        timeoutMilliseconds=found.get(_TIMEOUT) or None,
        peerName=name,
        keyring=found.get(_KEYRING) or None,
    )


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
    @param tags: session tags, as L{handshakefamily.sendableTags} gives them.
    @return: the octets to send.
    """
    if tags or len(remoteAuth) > 1:
        return handshakefamily.encodeDone(
            family,
            sequence,
            descriptor=descriptor,
            status=status,
            remoteAuth=remoteAuth,
            tags=tags,
        )
    message = bytearray(_done(family, len(remoteAuth)))
    _U32.pack_into(message, _SEQUENCE, sequence)
    _U32.pack_into(message, _STATUS_AT, status)
    _S32.pack_into(message, _SOCKFD_AT, descriptor)
    for serial in remoteAuth:
        _U32.pack_into(message, _REMOTE_AUTH_AT, serial)
    return bytes(message)


@lru_cache(maxsize=2)
def _done(family: int, serials: int) -> bytes:
    """Encode it once without, and once with a serial."""
    return handshakefamily.encodeDone(family, 0, descriptor=0, status=0, remoteAuth=(0,) * serials)
