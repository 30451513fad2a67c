"""
Generic netlink as far as the agent needs it: the control family's questions
and answers, and the kernel's refusals with their extended ACK texts.

The message classes are pyroute2's; this module turns them into values.
"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink import (
    CTRL_CMD_GETFAMILY,
    CTRL_CMD_GETPOLICY,
    GENL_ID_CTRL,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    ctrlmsg,
    genlmsg,
)

from ktlsagent.errors import NetlinkError

HEADER = struct.Struct("=IHHII")
"""C{struct nlmsghdr}: length, type, flags, sequence, port."""

GENERIC_HEADER = struct.Struct("=BBH")
"""C{struct genlmsghdr}: command, version, reserved."""

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NL_ATTR_TYPE_STRING = 11
NL_ATTR_TYPE_NUL_STRING = 12
"""C{include/uapi/linux/netlink.h}."""

_ATTRIBUTE = struct.Struct("=HH")
_EXT_ACK_MESSAGE = 1
_EXT_ACK_OFFSET = 2
_EXT_ACK_MISSING_TYPE = 5
_TYPE_MASK = 0x3FFF
_CTRL_ARRAYS = frozenset({6, 7})
"""C{CTRL_ATTR_OPS} and C{CTRL_ATTR_MCAST_GROUPS}, whose nests are numbered nests."""

_ERROR = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Message:
    """
    One netlink message, not yet looked into.

    @ivar type: C{nlmsg_type}: a family's id, L{NLMSG_ERROR} or L{NLMSG_DONE}.
    @ivar flags: C{nlmsg_flags}.
    @ivar sequence: C{nlmsg_seq}: the request's, in an answer.
    @ivar port: C{nlmsg_pid}: the port that asked, in an answer.
    @ivar data: the whole message, header included.
    """

    type: int
    flags: int
    sequence: int
    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Family:
    """
    What the control family says about a generic netlink family.

    @ivar id: its message type.
    @ivar groups: its multicast groups, by name.
    """

    id: int
    groups: dict[str, int]


@contextmanager
def malformed(what: str) -> Iterator[None]:
    """
    Turn whatever goes wrong in the decoding of a message into one error.

    @param what: what is decoded, in words.
    @return: a context manager that raises L{NetlinkError} for any exception.
    """
    try:
        yield
    except NetlinkError:
        raise
    except Exception as error:
        raise NetlinkError(what, errno.EBADMSG, f"malformed: {error!r}") from error


def splitMessages(data: bytes) -> list[Message]:
    """
    Cut a datagram into its messages.

    @param data: what one C{recv} on a netlink socket gave.
    @return: the messages; the last one may lack its padding.
    @raise NetlinkError: if the lengths do not add up, as in a datagram that was cut off.
    """
    messages = []
    while data:
        if len(data) < HEADER.size:
            raise NetlinkError("netlink message", errno.EBADMSG, "shorter than its header")
        length, kind, flags, sequence, port = HEADER.unpack_from(data)
        if not HEADER.size <= length <= len(data):
            raise NetlinkError("netlink message", errno.EBADMSG, f"a length of {length}")
        messages.append(Message(kind, flags, sequence, port, data[:length]))
        data = data[_aligned(length) :]
    return messages


def errorOf(message: Message, operation: str) -> NetlinkError | None:
    """
    Read an L{NLMSG_ERROR} or a dump's L{NLMSG_DONE}.

    @param message: a message of one of these types.
    @param operation: what was asked, in words, for the error's text.
    @return: the refusal, with the extended ACK's words; C{None} for an ACK.
    @raise NetlinkError: if the message is malformed.
    """
    with malformed(operation):
        (number,) = _ERROR.unpack_from(message.data, HEADER.size)
        if number >= 0:
            return None
        tail = HEADER.size + _ERROR.size
        if message.type == NLMSG_ERROR:
            echoed = HEADER.unpack_from(message.data, tail)[0]
            tail += HEADER.size if message.flags & NLM_F_CAPPED else _aligned(echoed)
        detail = ""
        if message.flags & NLM_F_ACK_TLVS:
            detail = _extendedAck(message.data[tail:])
        return NetlinkError(operation, -number, detail)


def _extendedAck(data: bytes) -> str:
    """Put the extended ACK's attributes into words."""
    words = []
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        payload, kind = data[_ATTRIBUTE.size : length], kind & _TYPE_MASK
        if kind == _EXT_ACK_MESSAGE:
            words.append(payload.rstrip(b"\x00").decode("utf-8", "replace"))
        elif kind == _EXT_ACK_OFFSET:
            words.append(f"at octet {int.from_bytes(payload, sys.byteorder)}")
        elif kind == _EXT_ACK_MISSING_TYPE:
            words.append(f"attribute {int.from_bytes(payload, sys.byteorder)} is missing")
        data = data[_aligned(length) :]
    return ", ".join(words)


def encode(message: genlmsg, kind: int, sequence: int, flags: int = NLM_F_REQUEST) -> bytes:
    """
    Encode a generic netlink request.

    @param message: the message, with its command and attributes.
    @param kind: the family's id.
    @param sequence: a number to find the answer by.
    @param flags: C{NLM_F_*}.
    @return: the octets to send.
    """
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message["header"]["sequence_number"] = sequence
    message.encode()
    return bytes(message.data)


def getFamily(name: str, sequence: int) -> bytes:
    """
    Ask the control family for a family's id and groups.

    @param name: the family's name.
    @param sequence: a number to find the answer by.
    @return: the request.
    """
    message = ctrlmsg()
    message["cmd"] = CTRL_CMD_GETFAMILY
    message["version"] = 1
    message["attrs"] = [("CTRL_ATTR_FAMILY_NAME", name)]
    return encode(message, GENL_ID_CTRL, sequence)


def parseFamily(message: Message) -> Family:
    """
    Read the answer to L{getFamily}.

    @param message: the control family's message.
    @return: the family.
    @raise NetlinkError: if the message is malformed.
    """
    with malformed("GETFAMILY"):
        decoded = _decoded(ctrlmsg, message)
        groups = decoded.get_attr("CTRL_ATTR_MCAST_GROUPS") or []
        return Family(
            id=int(decoded.get_attr("CTRL_ATTR_FAMILY_ID")),
            groups={
                group.get_attr("CTRL_ATTR_MCAST_GRP_NAME"): group.get_attr("CTRL_ATTR_MCAST_GRP_ID")
                for group in groups
            },
        )


def getPolicy(family: int, command: int, sequence: int) -> bytes:
    """
    Ask the control family which attributes a command takes.

    @param family: the family's id.
    @param command: the command's number.
    @param sequence: a number to find the answers by.
    @return: the request for a dump.
    """
    message = ctrlmsg()
    message["cmd"] = CTRL_CMD_GETPOLICY
    message["version"] = 1
    message["attrs"] = [("CTRL_ATTR_FAMILY_ID", family), ("CTRL_ATTR_OP", command)]
    return encode(message, GENL_ID_CTRL, sequence, NLM_F_REQUEST | NLM_F_DUMP)


def parsePolicy(messages: list[Message], command: int) -> dict[int, int]:
    """
    Read the answers to L{getPolicy}.

    @param messages: the dump's messages, without its end.
    @param command: the command that was asked about.
    @return: the numbers of the attributes that the command takes, and the type
        of each (C{NL_ATTR_TYPE_*}), which is 0 if it was not told.
    @raise NetlinkError: if a message is malformed.
    """
    indexes: set[int] = set()
    attributes: dict[int, dict[int, int]] = {}
    with malformed("GETPOLICY"):
        for message in messages:
            decoded = _decoded(ctrlmsg, message)
            for operation in _nested(decoded, "CTRL_ATTR_OP_POLICY"):
                if operation[0] == f"OP({command})":
                    indexes.add(operation[1].get_attr("CTRL_ATTR_POLICY_DO"))
            for policy in _nested(decoded, "CTRL_ATTR_POLICY"):
                index = int(policy[0].removeprefix("POLICY(").removesuffix(")"))
                for attribute in policy[1]["attrs"]:
                    number = int(attribute[0].removeprefix("ATTR(").removesuffix(")"))
                    kind = int(attribute[1].get_attr("NL_POLICY_TYPE_ATTR_TYPE") or 0)
                    attributes.setdefault(index, {})[number] = kind
    return {number: kind for index in indexes for number, kind in attributes.get(index, {}).items()}


def _nested(message: genlmsg, name: str) -> list[Any]:
    """List the attributes in all nests of one name."""
    return [attribute for nest in message.get_attrs(name) for attribute in nest["attrs"]]


def _decoded(kind: type[genlmsg], message: Message) -> genlmsg:
    """Decode a control message with a pyroute2 class."""
    # pyroute2 reads an array whose element has a length of 0 forever.
    for number, payload in _attributes(message.data[HEADER.size + GENERIC_HEADER.size :]):
        if number in _CTRL_ARRAYS:
            list(_attributes(payload))
    decoded = kind(message.data)
    decoded.decode()
    return decoded


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk over attributes, all of which have to be whole."""
    while data:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            raise ValueError(f"an attribute of length {length}")
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3
