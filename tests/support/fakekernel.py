"""
A fake of the kernel's C{handshake} family, octet for octet.

What it does is that of C{net/handshake/netlink.c} and C{net/handshake/tlshd.c};
what it says is built by hand from C{include/uapi/linux/netlink.h},
C{genetlink.h} and C{handshake.h}.

If it is told to, it takes session tags as the series of patches "tls-session-tags",
version 1 of 2026-06-05, which is not in the kernel yet.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from socket import socket as _Socket

from zope.interface import implementer

from ktlsagent.interfaces import INetlinkSocket

NLMSG_HEADER = struct.Struct("=IHHII")
GENL_HEADER = struct.Struct("=BBH")
ATTRIBUTE_HEADER = struct.Struct("=HH")

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_MULTI = 0x2
NLM_F_ACK = 0x4
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
NLMSGERR_ATTR_MISS_TYPE = 5
NLA_F_NESTED = 0x8000

GENL_ID_CTRL = 16
CTRL_CMD_NEWFAMILY = 1
CTRL_CMD_GETFAMILY = 3
CTRL_CMD_GETPOLICY = 10

READY = 1
ACCEPT = 2
DONE = 3

CLIENTHELLO = 1
SERVERHELLO = 2

UNAUTH = 1
PSK = 2
X509 = 3

FORGER = 4711
"""The port of another process."""

FAMILY_ID = 28
TLSHD_GROUP = 7
"""As found on a kernel 7.2; both are dynamic."""

_NONE_GROUP = 6
_NETLINK_ROUTE = 0
_NETLINK_GENERIC = 16
_LISTENERS_HEAD = (
    "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode"
)
NL_ATTR_TYPE_U32 = 4
NL_ATTR_TYPE_S32 = 8
NL_ATTR_TYPE_STRING = 11

TAG = 4
"""C{HANDSHAKE_A_DONE_TAG} of one series of patches; another has a C{u32} there."""

_MAX_TAGS = 10
"""C{HANDSHAKE_A_ACCEPT_MAX_TAGS}, which another series claims as well."""

_POLICIES = {
    ACCEPT: {2: NL_ATTR_TYPE_U32},
    DONE: {1: NL_ATTR_TYPE_U32, 2: NL_ATTR_TYPE_S32, 3: NL_ATTR_TYPE_U32},
}
_HIGHEST_STATUS = 4095
_MAXIMUM_IDENTITIES = 5
_MAXIMUM_TAGS = 64
_LONGEST_TAG = 255


def attribute(kind: int, payload: bytes) -> bytes:
    """
    Build a C{struct nlattr} with its payload and padding.

    @param kind: C{nla_type}.
    @param payload: the payload.
    @return: the octets.
    """
    head = ATTRIBUTE_HEADER.pack(ATTRIBUTE_HEADER.size + len(payload), kind)
    return head + payload + bytes(-len(payload) % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """
    Build an attribute that holds attributes.

    @param kind: C{nla_type}, without its flag.
    @param attributes: what it holds.
    @return: the octets.
    """
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def u32(kind: int, value: int) -> bytes:
    """
    Build an attribute with a 32-bit number, signed or not.

    @param kind: C{nla_type}.
    @param value: the number.
    @return: the octets.
    """
    return attribute(kind, struct.pack("=I", value & 0xFFFFFFFF))


def string(kind: int, text: bytes) -> bytes:
    """
    Build an attribute with a string that ends with a NUL.

    @param kind: C{nla_type}.
    @param text: the string without its NUL.
    @return: the octets.
    """
    return attribute(kind, text + b"\x00")


def netlinkMessage(kind: int, flags: int, sequence: int, port: int, payload: bytes) -> bytes:
    """
    Build a C{struct nlmsghdr} with its payload.

    @param kind: C{nlmsg_type}.
    @param flags: C{nlmsg_flags}.
    @param sequence: C{nlmsg_seq}.
    @param port: C{nlmsg_pid}.
    @param payload: the payload.
    @return: the octets.
    """
    length = NLMSG_HEADER.size + len(payload)
    return NLMSG_HEADER.pack(length, kind, flags, sequence, port) + payload


def readAttributes(data: bytes) -> list[tuple[int, bytes]]:
    """
    Take attributes apart.

    @param data: attributes, one after another.
    @return: their types, without flags, and payloads.
    """
    attributes = []
    while data:
        length, kind = ATTRIBUTE_HEADER.unpack_from(data)
        attributes.append((kind & 0x3FFF, data[ATTRIBUTE_HEADER.size : length]))
        data = data[(length + 3) & ~3 :]
    return attributes


@dataclass(eq=False)
class FakeUpcall:
    """
    A request of the kernel's, from its consumer's side.

    @ivar socket: the consumer's own descriptor of the connection.
    @ivar identity: device and inode of the connection.
    @ivar reply: the attributes of the reply to ACCEPT, without the descriptor.
    @ivar keyring: the keyring to link, 0 for none.
    @ivar descriptor: what the agent was given; C{None} before ACCEPT.
    @ivar answers: status and remote auth of every DONE; the first one counts.
    @ivar tags: the session tags of the peer.
    """

    socket: _Socket
    identity: tuple[int, int]
    reply: bytes
    keyring: int = 0
    descriptor: int | None = None
    answers: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    tags: tuple[str, ...] = ()

    @property
    def status(self) -> int | None:
        """What the consumer was told: 0 or a positive errno; C{None}: nothing yet."""
        return self.answers[0][0] if self.answers else None

    @property
    def remoteAuth(self) -> tuple[int, ...]:
        """Whom the peer authenticated as."""
        return self.answers[0][1] if self.answers else ()


class Refusal(Exception):
    """The kernel refuses a request."""

    def __init__(self, number: int, *details: bytes) -> None:
        """
        @param number: the errno.
        @param details: attributes of the extended ACK.
        """
        super().__init__(os.strerror(number))
        self.number = number
        self.details = details


@implementer(INetlinkSocket)
class FakeNetlinkSocket:
    """
    A netlink socket of L{FakeHandshakeKernel}; its descriptor is real, and
    readable while something is queued.

    Only the kernel can send to its port, as to that of a socket that is connected to
    the kernel; anybody can send to a group that it has joined.

    @ivar joined: the multicast groups that it has joined.
    @ivar cookie: its network namespace; if it is negative, the kernel does not tell.
    """

    def __init__(self, kernel: FakeHandshakeKernel, port: int) -> None:
        """
        @param kernel: what it leads to.
        @param port: its netlink port.
        """
        self.joined: set[int] = set()
        self.cookie = 1
        self._kernel = kernel
        self._port = port
        self._queue: deque[tuple[bytes | None, int]] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._event

    def send(self, data: bytes) -> None:
        self._requireOpen()
        for datagram in self._kernel.answer(data, self._port):
            self.deliver(datagram)

    def receive(self) -> tuple[bytes, int]:
        self._requireOpen()
        if self._kernel.readError is not None:
            raise OSError(self._kernel.readError, os.strerror(self._kernel.readError))
        if not self._queue:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        datagram, sender = self._queue.popleft()
        if not self._queue:
            os.eventfd_read(self._event)
        if datagram is None:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return datagram, sender

    def join(self, group: int) -> None:
        self._requireOpen()
        if group not in self._kernel.groups.values():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.joined.add(group)
        self._kernel.listenersChanged()

    def groups(self) -> frozenset[int]:
        self._requireOpen()
        return frozenset(self.joined)

    def namespace(self) -> int:
        self._requireOpen()
        if self.cookie < 0:
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
        return self.cookie

    def portId(self) -> int:
        self._requireOpen()
        return self._port

    def close(self) -> None:
        if self._event >= 0:
            os.close(self._event)
            self._event = -1
            self._kernel.closed(self)

    def deliver(self, datagram: bytes | None, sender: int = 0) -> None:
        """
        Queue a datagram.

        @param datagram: its octets; C{None} stands for C{ENOBUFS}.
        @param sender: its sender's port; by default the kernel's.
        """
        if not self._queue:
            os.eventfd_write(self._event, 1)
        self._queue.append((datagram, sender))

    def _requireOpen(self) -> None:
        if self._event < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class FakeHandshakeKernel:
    """
    The kernel's handshake family of one network namespace.

    @ivar hasFamily: whether there is the family.
    @ivar privileged: whether the agent may ACCEPT and send DONE.
    @ivar tellsPolicy: whether the kernel knows C{CTRL_CMD_GETPOLICY}.
    @ivar doneAttributes: what DONE takes: numbers and types of attributes.
    @ivar groups: the family's multicast groups.
    @ivar openError: an errno that opening a socket gives.
    @ivar readError: an errno that every receiving gives.
    @ivar filter: changes the datagrams with which a request is answered.
    @ivar sockets: the netlink sockets that are open.
    @ivar pending: requests that nobody has accepted.
    @ivar upcalls: all requests there ever were.
    @ivar listenersFile: the path of a file like C{/proc/net/netlink}.
    """

    def __init__(self, linkKeyring: Callable[[int], None] | None = None) -> None:
        """
        @param linkKeyring: links a keyring into the process keyring.
        """
        self.hasFamily = True
        self.privileged = True
        self.tellsPolicy = True
        self.doneAttributes = dict(_POLICIES[DONE])
        self.groups = {"none": _NONE_GROUP, "tlshd": TLSHD_GROUP}
        self.openError: int | None = None
        self.readError: int | None = None
        self.filter: Callable[[list[bytes]], list[bytes]] = list
        self.sockets: list[FakeNetlinkSocket] = []
        self.pending: deque[FakeUpcall] = deque()
        self.upcalls: list[FakeUpcall] = []
        self._linkKeyring = linkKeyring
        self._port = 1000
        self._listeners = os.memfd_create("listeners", os.MFD_CLOEXEC)
        self.listenersFile = f"/proc/self/fd/{self._listeners}"
        self.listenersChanged()

    def socket(self) -> INetlinkSocket:
        """
        Open a generic netlink socket.

        @return: the socket.
        @raise OSError: if the test wants it.
        """
        if self.openError is not None:
            raise OSError(self.openError, os.strerror(self.openError))
        self._port += 1
        opened = FakeNetlinkSocket(self, self._port)
        self.sockets.append(opened)
        self.listenersChanged()
        return opened

    def adopt(self, descriptor: int) -> INetlinkSocket:
        """
        Make a socket of a descriptor.

        @param descriptor: that of an open one.
        @return: the socket.
        @raise OSError: if it is none of ours.
        """
        for opened in self.sockets:
            if opened.fileno() == descriptor:
                return opened
        raise OSError(errno.EPROTONOSUPPORT, "not a generic netlink socket")

    def takeTags(self) -> None:
        """Take session tags from now on."""
        self.doneAttributes[TAG] = NL_ATTR_TYPE_STRING

    @property
    def takesTags(self) -> bool:
        """Whether session tags are taken."""
        return self.doneAttributes.get(TAG) == NL_ATTR_TYPE_STRING

    def queue(
        self,
        connection: _Socket,
        messageType: int = CLIENTHELLO,
        authMode: int = UNAUTH,
        *,
        peerName: bytes | None = None,
        timeoutMilliseconds: int = 0,
        peerIdentities: Sequence[int] = (),
        certificate: int = 0,
        privateKey: int = 0,
        keyring: int = 0,
        more: bytes = b"",
    ) -> FakeUpcall:
        """
        Submit a request, as C{tls_client_hello_x509} and the like do, and
        announce it.

        @param connection: the consumer's socket; it stays the caller's.
        @param messageType: C{HANDSHAKE_A_ACCEPT_MESSAGE_TYPE}.
        @param authMode: C{HANDSHAKE_A_ACCEPT_AUTH_MODE}.
        @param peerName: C{HANDSHAKE_A_ACCEPT_PEERNAME}.
        @param timeoutMilliseconds: C{HANDSHAKE_A_ACCEPT_TIMEOUT}, 0 for none.
        @param peerIdentities: C{HANDSHAKE_A_ACCEPT_PEER_IDENTITY}.
        @param certificate: C{HANDSHAKE_A_X509_CERT}, 0 for none.
        @param privateKey: C{HANDSHAKE_A_X509_PRIVKEY}, 0 for none.
        @param keyring: C{HANDSHAKE_A_ACCEPT_KEYRING}, 0 for none.
        @param more: attributes of a kernel to come.
        @return: the request.
        """
        reply = u32(3, messageType)
        if peerName is not None:
            reply += string(8, peerName)
        if timeoutMilliseconds:
            reply += u32(4, timeoutMilliseconds)
        if keyring:
            reply += u32(9, keyring)
        reply += u32(5, authMode)
        reply += b"".join(u32(6, serial) for serial in peerIdentities)
        if certificate or privateKey:
            reply += nest(7, u32(1, certificate), u32(2, privateKey))
        identity = _identity(os.fstat(connection.fileno()))
        upcall = FakeUpcall(connection, identity, reply + more, keyring)
        self.pending.append(upcall)
        self.upcalls.append(upcall)
        self.announce()
        return upcall

    def announce(self) -> None:
        """Multicast READY."""
        payload = GENL_HEADER.pack(READY, 1, 0) + u32(2, 1)
        self._multicast(netlinkMessage(FAMILY_ID, 0, 0, 0, payload))

    def loseHints(self) -> None:
        """Drop a READY, as for a receive buffer that is full."""
        self._multicast(None)

    def forge(self, datagram: bytes, port: int = 0) -> None:
        """
        Send something as another process.

        @param datagram: what, at least one octet.
        @param port: whom to; by default all that have joined the group.
        @raise OSError: if that is not possible.
        """
        if port:
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        self._multicast(datagram, FORGER)

    def listenersChanged(self) -> None:
        """Write the file like C{/proc/net/netlink} again."""
        # The kernel's own socket, and another protocol's in a group of the same number.
        listed = [(_NETLINK_GENERIC, 0, 0), (_NETLINK_ROUTE, 4711, 1 << (TLSHD_GROUP - 1))]
        for opened in self.sockets:
            groups = sum(1 << (group - 1) for group in opened.joined) & 0xFFFFFFFF
            listed.append((_NETLINK_GENERIC, opened.portId(), groups))
        lines = [_LISTENERS_HEAD]
        for protocol, port, groups in listed:
            lines.append(
                f"0000000000000000 {protocol:<3} {port:<10} {groups:08x} 0        0        0"
                "     2        0        560     "
            )
        os.ftruncate(self._listeners, 0)
        os.pwrite(self._listeners, "\n".join(lines).encode() + b"\n", 0)

    def closed(self, netlinkSocket: FakeNetlinkSocket) -> None:
        """
        Forget a socket.

        @param netlinkSocket: what has been closed.
        """
        self.sockets.remove(netlinkSocket)
        self.listenersChanged()

    def close(self) -> None:
        """Give back what the fake itself holds."""
        os.close(self._listeners)

    def answer(self, data: bytes, port: int) -> list[bytes]:
        """
        Handle a request.

        @param data: the octets that were sent.
        @param port: the netlink port of their sender.
        @return: the datagrams with which it is answered.
        """
        _length, family, requested, sequence, _port = NLMSG_HEADER.unpack_from(data)
        command = GENL_HEADER.unpack_from(data, NLMSG_HEADER.size)[0]
        attributes = readAttributes(data[NLMSG_HEADER.size + GENL_HEADER.size :])
        try:
            datagrams = [
                netlinkMessage(kind, flags, sequence, port, payload)
                for kind, flags, payload in self._handle(family, command, attributes)
            ]
            if requested & NLM_F_ACK:
                datagrams.append(self._error(data, sequence, port, 0))
        except Refusal as refusal:
            datagrams = [self._error(data, sequence, port, refusal.number, *refusal.details)]
        return self.filter(datagrams)

    @staticmethod
    def _error(data: bytes, sequence: int, port: int, number: int, *details: bytes) -> bytes:
        """Build an ACK or a refusal as for a socket with C{NETLINK_CAP_ACK} and C{_EXT_ACK}."""
        flags = NLM_F_CAPPED | (NLM_F_ACK_TLVS if details else 0)
        payload = struct.pack("=i", -number) + data[: NLMSG_HEADER.size] + b"".join(details)
        return netlinkMessage(NLMSG_ERROR, flags, sequence, port, payload)

    def _handle(
        self, kind: int, command: int, attributes: list[tuple[int, bytes]]
    ) -> list[tuple[int, int, bytes]]:
        """Find the command; the result has each message's type, flags and payload."""
        if kind == GENL_ID_CTRL and command == CTRL_CMD_GETFAMILY:
            return [(GENL_ID_CTRL, 0, self._describeFamily(dict(attributes)))]
        if kind == GENL_ID_CTRL and command == CTRL_CMD_GETPOLICY:
            return self._describePolicy(dict(attributes))
        if kind != FAMILY_ID or not self.hasFamily:
            raise Refusal(errno.ENOENT)
        if command not in _POLICIES:
            raise Refusal(errno.EOPNOTSUPP)
        if not self.privileged:
            raise Refusal(errno.EPERM)
        known = self.doneAttributes if command == DONE else _POLICIES[command]
        for number, payload in attributes:
            _validate(known.get(number), payload)
        if command == ACCEPT:
            return [(FAMILY_ID, 0, self._accept(dict(attributes)))]
        self._done(attributes)
        return []

    def _describeFamily(self, attributes: dict[int, bytes]) -> bytes:
        """C{ctrl_fill_info} of C{net/netlink/genetlink.c}."""
        if not self.hasFamily or attributes.get(2) != b"handshake\x00":
            raise Refusal(errno.ENOENT)
        operations = (nest(at, u32(1, number), u32(2, 0x0B)) for at, number in enumerate((2, 3), 1))
        groups = (
            nest(at, u32(2, number), string(1, name.encode()))
            for at, (name, number) in enumerate(self.groups.items(), 1)
        )
        return (
            GENL_HEADER.pack(CTRL_CMD_NEWFAMILY, 2, 0)
            + string(2, b"handshake")
            + attribute(1, struct.pack("=H", FAMILY_ID))
            + u32(3, 1)
            + u32(4, 0)
            + u32(5, 0)
            + nest(6, *operations)
            + (nest(7, *groups) if self.groups else b"")
        )

    def _describePolicy(self, attributes: dict[int, bytes]) -> list[tuple[int, int, bytes]]:
        """C{ctrl_dumppolicy} of C{net/netlink/genetlink.c}."""
        if not self.tellsPolicy:
            raise Refusal(errno.EOPNOTSUPP)
        (operation,) = struct.unpack("=I", attributes[10])
        head = GENL_HEADER.pack(CTRL_CMD_GETPOLICY, 2, 0) + attribute(1, attributes[1])
        payloads = [nest(9, nest(operation, u32(1, 0)))]
        payloads += [
            nest(8, nest(0, nest(number, u32(1, kind))))
            for number, kind in sorted(self.doneAttributes.items())
        ]
        messages = [(GENL_ID_CTRL, NLM_F_MULTI, head + payload) for payload in payloads]
        return [*messages, (NLMSG_DONE, NLM_F_MULTI, struct.pack("=i", 0))]

    def _accept(self, attributes: dict[int, bytes]) -> bytes:
        """C{handshake_nl_accept_doit}."""
        if 2 not in attributes:
            raise Refusal(errno.EINVAL, u32(NLMSGERR_ATTR_MISS_TYPE, 2))
        if not self.pending:
            raise Refusal(errno.EAGAIN)
        upcall = self.pending.popleft()
        try:
            upcall.descriptor = os.dup(upcall.socket.fileno())
            if upcall.keyring and self._linkKeyring is not None:
                self._linkKeyring(upcall.keyring)
        except OSError as error:
            upcall.answers.append((errno.EIO, ()))
            raise Refusal(error.errno or errno.EIO) from error
        most = u32(_MAX_TAGS, _MAXIMUM_TAGS) if self.takesTags else b""
        return GENL_HEADER.pack(ACCEPT, 1, 0) + u32(1, upcall.descriptor) + most + upcall.reply

    def _done(self, attributes: list[tuple[int, bytes]]) -> None:
        """C{handshake_nl_done_doit} and C{tls_handshake_done}."""
        values = dict(attributes)
        if 2 not in values:
            raise Refusal(errno.EINVAL, u32(NLMSGERR_ATTR_MISS_TYPE, 2))
        status = struct.unpack("=I", values[1])[0] if 1 in values else errno.EIO
        if status > _HIGHEST_STATUS:
            raise Refusal(errno.ERANGE, string(NLMSGERR_ATTR_MSG, b"integer out of range"))
        upcall = self._find(struct.unpack("=i", values[2])[0])
        serials = [struct.unpack("=I", payload)[0] for kind, payload in attributes if kind == 3]
        if not self.takesTags:
            upcall.answers.append((status, tuple(serials[:_MAXIMUM_IDENTITIES])))
            return
        if upcall.answers:
            raise Refusal(errno.EBUSY)
        texts = [payload for kind, payload in attributes if kind == TAG and status == 0]
        tags = [text.removesuffix(b"\x00") for text in texts]
        if any(not tag or b"\x00" in tag for tag in tags):
            upcall.answers.append((errno.EIO, ()))
            raise Refusal(errno.EINVAL)
        upcall.answers.append((status, tuple(serials[:_MAXIMUM_IDENTITIES])))
        upcall.tags = tuple(tag.decode() for tag in tags[:_MAXIMUM_TAGS])

    def _find(self, descriptor: int) -> FakeUpcall:
        """C{sockfd_lookup} and C{handshake_req_hash_lookup}."""
        try:
            found = os.fstat(descriptor)
        except OSError as error:
            raise Refusal(errno.EBADF) from error
        if not stat.S_ISSOCK(found.st_mode):
            raise Refusal(errno.ENOTSOCK)
        for upcall in self.upcalls:
            if upcall.identity == _identity(found):
                return upcall
        raise Refusal(errno.EBUSY)

    def _multicast(self, datagram: bytes | None, sender: int = 0) -> None:
        for opened in self.sockets:
            if self.groups.get("tlshd") in opened.joined:
                opened.deliver(datagram, sender)


def _validate(kind: int | None, payload: bytes) -> None:
    """C{validate_nla} of C{lib/nlattr.c}."""
    if kind is None:
        raise Refusal(errno.EINVAL, string(NLMSGERR_ATTR_MSG, b"Unknown attribute type"))
    if kind == NL_ATTR_TYPE_STRING:
        length = len(payload.removesuffix(b"\x00"))
        if not payload or length > _LONGEST_TAG:
            words = b"Attribute failed policy validation"
            raise Refusal(errno.ERANGE, string(NLMSGERR_ATTR_MSG, words))
    elif len(payload) != struct.calcsize("=I"):
        raise Refusal(errno.EINVAL, string(NLMSGERR_ATTR_MSG, b"invalid attribute length"))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
