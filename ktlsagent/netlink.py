"""
The agent's two netlink sockets: one on which only READY comes, one on which
ACCEPT and DONE are asked and answered at once.

They are apart because a reply to ACCEPT that does not fit into a receive
buffer kills its request: READY must never fill that buffer.

Only the kernel is believed.  Who may administer the network namespace, which can be
the root of a container, can send to its netlink sockets: what comes from a port that is
not the kernel's is dropped before anybody looks into it.
"""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from twisted.logger import Logger
from zope.interface import implementer

from ktlsagent.errors import MalformedRequest, NetlinkError, OutOfDescriptors, StartError
from ktlsagent.interfaces import IHandshakeKernel, INetlinkSocket
from ktlsagent.netlinksocket import KERNEL, NETLINK_GENERIC, NetlinkSocket
from ktlsagent.protocols.handshakefamily import (
    BASE_DONE_ATTRIBUTES,
    FAMILY_NAME,
    GROUP_NAME,
    DoneAttribute,
    HandshakeCommand,
    HandshakeRequest,
    findHeld,
    knownDoneAttributes,
    sendableTags,
)
from ktlsagent.protocols.netlink import (
    NLMSG_DONE,
    NLMSG_ERROR,
    Family,
    Message,
    errorOf,
    getFamily,
    getPolicy,
    parseFamily,
    parsePolicy,
    splitMessages,
)
from ktlsagent.protocols.quickmessages import encodeAccept, encodeDone, parseAccept

_GROUPS_IN_PROC = 32

_MOST_AT_ONCE = 512
"""How many datagrams are read before others get their turn, who may send however fast."""

_SEQUENCES = 2**32

_NO_FAMILY = (
    "this kernel has no 'handshake' netlink family: expected Linux 6.5 or newer with "
    "CONFIG_NET_HANDSHAKE (it comes with CONFIG_SUNRPC or NVMe/TCP TLS), found none; "
    "boot such a kernel"
)


_NOT_ADOPTED = (
    "the socket for READY that was handed over is not used: expected {expected}, found {found}; a "
    "new one is opened, and mounts that began before it may fail"
)


@implementer(IHandshakeKernel)
class HandshakeNetlink:
    """The kernel's C{handshake} family over two netlink sockets."""

    log = Logger()

    def __init__(
        self,
        openSocket: Callable[[], INetlinkSocket] = NetlinkSocket,
        listenersFile: str = "/proc/net/netlink",
        adoptSocket: Callable[[int], INetlinkSocket] = NetlinkSocket,
        inherited: int | None = None,
    ) -> None:
        """
        @param openSocket: makes the sockets.
        @param listenersFile: where the kernel lists netlink sockets.
        @param adoptSocket: makes a socket of a descriptor that is open.
        @param inherited: the descriptor of a socket for READY that was open
            before; the first L{listen} uses it, or closes it and says why not.
        """
        self._openSocket = openSocket
        self._listenersFile = listenersFile
        self._adoptSocket = adoptSocket
        self._inherited = inherited
        self.foreign = 0
        self.foreigner = KERNEL
        # Nobody else is to know what an answer looks like.
        self._sequence = itertools.count(int.from_bytes(os.urandom(4), sys.byteorder))
        self._family = Family(0, {})
        self._doneAttributes: frozenset[int] = BASE_DONE_ATTRIBUTES
        self._left = False
        self._ready: INetlinkSocket | None = None
        self._command: INetlinkSocket | None = None

    def open(self) -> None:
        """See L{IHandshakeKernel}."""
        with self._starting():
            self._command = self._openSocket()
            self._left = False
            self._family = self._getFamily()
            self._doneAttributes = self._getDoneAttributes()

    def listen(self) -> None:
        """See L{IHandshakeKernel}."""
        with self._starting():
            if GROUP_NAME not in self._family.groups:
                raise StartError(
                    f"expected the multicast group {GROUP_NAME!r} in the kernel's handshake "
                    f"family, found {sorted(self._family.groups)}; boot a newer kernel"
                )
            group = self._family.groups[GROUP_NAME]
            self._ready = self._adopt(group)
            if self._ready is None:
                self._ready = self._openSocket()
                self._ready.join(group)

    def _adopt(self, group: int) -> INetlinkSocket | None:
        """Use the socket that was open before, if it is what we would open."""
        descriptor, self._inherited = self._inherited, None
        if descriptor is None:
            return None
        expected = "a netlink socket of this network namespace in the handshake agents' group"
        try:
            adopted = self._adoptSocket(descriptor)
        except OSError as error:
            self.log.warn(_NOT_ADOPTED, expected=expected, found=str(error))
            return None
        try:
            if group not in adopted.groups():
                found = f"one that is not in the group {group}"
            elif adopted.namespace() != self._opened(self._command).namespace():
                found = "one of another network namespace"
            else:
                return adopted
        except OSError as error:
            found = f"one that tells nothing: {error}"
        adopted.close()
        self.log.warn(_NOT_ADOPTED, expected=expected, found=found)
        return None

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Make one kind of error of all that can go wrong, and leave nothing open."""
        try:
            yield
        except StartError:
            self.close()
            raise
        except NetlinkError as error:
            self.close()
            raise StartError(
                f"expected answers about the handshake family, found {error}"
            ) from error
        except OSError as error:
            self.close()
            raise StartError(
                f"expected to open generic netlink sockets, found {error}; "
                "allow the address family AF_NETLINK"
            ) from error

    def fileno(self) -> int:
        """See L{IHandshakeKernel}."""
        return self._opened(self._ready).fileno()

    def readReady(self) -> int | None:
        """See L{IHandshakeKernel}."""
        ready = self._opened(self._ready)
        announced, lost = 0, False
        for _ in range(_MOST_AT_ONCE):
            try:
                announced += self._receive(ready) is not None
            except BlockingIOError:
                break
            except OSError as error:
                # The socket has to be emptied all the same, or the kernel
                # goes on to drop what it announces.
                if error.errno != errno.ENOBUFS:
                    raise NetlinkError("READY", error.errno or errno.EIO) from error
                lost = True
        return None if lost else announced

    def commandDescriptor(self) -> int:
        """See L{IHandshakeKernel}."""
        return self._opened(self._command).fileno()

    def discardStrays(self) -> int:
        """See L{IHandshakeKernel}."""
        strays = 0
        with suppress(OSError):
            for _ in range(_MOST_AT_ONCE):
                strays += self._receive(self._opened(self._command)) is not None
        return strays

    def accept(self) -> HandshakeRequest | None:
        """See L{IHandshakeKernel}."""
        if self._left:
            raise NetlinkError("ACCEPT", errno.EBADF, "the agent takes no more requests")
        spare = self._spareDescriptor()
        sequence = self._nextSequence()
        try:
            reply = self._ask(encodeAccept(self._family.id, sequence), sequence, "ACCEPT")[0]
            if reply.type != NLMSG_ERROR:
                return _readRequest(reply)
            refusal = errorOf(reply, "ACCEPT")
        except NetlinkError:
            self._refuseUnread(spare)
            raise
        if refusal is None:
            self._refuseUnread(spare)
            raise NetlinkError("ACCEPT", errno.EBADMSG, "an ACK in place of a reply")
        if refusal.errno == errno.EAGAIN:
            return None
        try:
            raise refusal
        finally:
            # Else the exception and this frame would hold each other, and what called this.
            del refusal

    def requireRoom(self) -> None:
        """See L{IHandshakeKernel}."""
        self._spareDescriptor()

    def done(
        self,
        descriptor: int,
        status: int,
        remoteAuth: Sequence[int] = (),
        tags: Sequence[str] = (),
    ) -> Sequence[str]:
        """See L{IHandshakeKernel}."""
        if DoneAttribute.REMOTE_AUTH not in self._doneAttributes:
            remoteAuth = ()
        if status or DoneAttribute.TAG not in self._doneAttributes:
            tags = ()
        sent = sendableTags(tags)
        sequence = self._nextSequence()
        request = encodeDone(
            self._family.id,
            sequence,
            descriptor=descriptor,
            status=status,
            remoteAuth=remoteAuth,
            tags=sent,
        )
        refusal = errorOf(self._ask(request, sequence, "DONE")[0], "DONE")
        try:
            if refusal is not None:
                raise refusal
        finally:
            # Else the exception and this frame would hold each other, and what called this.
            del refusal
        return [tag for tag in tags if tag not in sent]

    def otherListeners(self) -> Sequence[int]:
        """See L{IHandshakeKernel}."""
        own = self._opened(self._ready).portId()
        group = self._family.groups[GROUP_NAME]
        if group > _GROUPS_IN_PROC:
            return []
        others = []
        with open(self._listenersFile, encoding="ascii") as lines:
            next(lines)
            for line in lines:
                _pointer, protocol, port, groups, *_rest = line.split()
                listens = int(groups, 16) >> (group - 1) & 1
                if int(protocol) == NETLINK_GENERIC and listens and int(port) != own:
                    others.append(int(port))
        return others

    def leave(self) -> None:
        """See L{IHandshakeKernel}."""
        self._left = True
        if self._ready is not None:
            self._ready.close()
            self._ready = None

    def close(self) -> None:
        """See L{IHandshakeKernel}."""
        self.leave()
        if self._command is not None:
            self._command.close()
            self._command = None

    def _getFamily(self) -> Family:
        """Resolve the family, which a kernel without the option does not have."""
        sequence = self._nextSequence()
        reply = self._ask(getFamily(FAMILY_NAME, sequence), sequence, "GETFAMILY")[0]
        if reply.type == NLMSG_ERROR:
            refusal = errorOf(reply, "GETFAMILY")
            if refusal is not None and refusal.errno == errno.ENOENT:
                raise StartError(_NO_FAMILY)
            raise StartError(f"expected the handshake family, found {refusal}; see dmesg")
        return parseFamily(reply)

    def _getDoneAttributes(self) -> frozenset[int]:
        """Learn which attributes DONE takes; a kernel that cannot tell takes the oldest."""
        sequence = self._nextSequence()
        request = getPolicy(self._family.id, HandshakeCommand.DONE, sequence)
        *replies, end = self._ask(request, sequence, "GETPOLICY", dump=True)
        if errorOf(end, "GETPOLICY") is not None:
            return BASE_DONE_ATTRIBUTES
        return knownDoneAttributes(parsePolicy(replies, HandshakeCommand.DONE))

    def _ask(
        self, request: bytes, sequence: int, operation: str, *, dump: bool = False
    ) -> list[Message]:
        """
        Send a request and take its answer, which the kernel has ready when
        C{send} returns.  Whatever is before it is passed over.

        @return: the answer; for a dump all its messages, the last of which is
            its end or an error.
        """
        command = self._opened(self._command)
        asked = sequence, command.portId()
        answers: list[Message] = []
        found: NetlinkError | None = None
        try:
            command.send(request)
        except OSError as error:
            raise NetlinkError(operation, error.errno or errno.EIO) from error
        try:
            for _ in range(_MOST_AT_ONCE):
                try:
                    messages = splitMessages(self._receive(command) or b"")
                except BlockingIOError:
                    break
                except OSError as error:
                    found = NetlinkError(operation, error.errno or errno.EIO)
                    continue
                except NetlinkError as error:
                    found = error
                    continue
                for message in messages:
                    if (message.sequence, message.port) != asked:
                        continue
                    answers.append(message)
                    if not dump or message.type in (NLMSG_ERROR, NLMSG_DONE):
                        return answers
            raise found or NetlinkError(operation, errno.EPROTO, "the kernel did not answer")
        finally:
            # As in C{done}.
            del found

    def _nextSequence(self) -> int:
        return next(self._sequence) % _SEQUENCES

    def _receive(self, opened: INetlinkSocket) -> bytes | None:
        """
        Take a datagram.

        @return: its octets; C{None} if it was not the kernel's.
        @raise OSError: as L{INetlinkSocket.receive}.
        """
        data, sender = opened.receive()
        if sender == KERNEL:
            return data
        self.foreign += 1
        self.foreigner = sender
        return None

    def _spareDescriptor(self) -> int:
        """
        Ask for a request only if there is room for its socket: the kernel
        ends one that it cannot deliver with EIO.

        @return: the lowest number that is free.
        """
        try:
            spare = os.dup(self.commandDescriptor())
        except OSError as error:
            raise OutOfDescriptors(
                f"expected room for one more descriptor, found {error}; raise LimitNOFILE"
            ) from error
        os.close(spare)
        return spare

    def _refuseUnread(self, spare: int) -> None:
        """
        Answer a request that was handed over in a reply from which its descriptor is
        not to be learned: unless a thread was faster, it is the lowest that was free.
        The kernel takes no answer for anything that is not a request's socket.
        """
        with suppress(NetlinkError):
            self.done(spare, errno.EIO)
            os.close(spare)

    @staticmethod
    def _opened(opened: INetlinkSocket | None) -> INetlinkSocket:
        if opened is None:
            raise NetlinkError("handshake family", errno.EBADF, "the sockets are not open")
        return opened


def _readRequest(reply: Message) -> HandshakeRequest:
    """Read a reply to ACCEPT, or find out at least what it has given us."""
    try:
        return parseAccept(reply)
    except NetlinkError as error:
        descriptor, keyring = findHeld(reply)
        if descriptor is None:
            raise
        raise MalformedRequest(descriptor, str(error), keyring) from error
