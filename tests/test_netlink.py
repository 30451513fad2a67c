"""Tests for L{ktlsagent.netlink}."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import struct
from collections.abc import Callable
from itertools import count

from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import MalformedRequest, NetlinkError, OutOfDescriptors, StartError
from ktlsagent.interfaces import INetlinkSocket
from ktlsagent.netlink import HandshakeNetlink
from ktlsagent.netlinksocket import NetlinkSocket
from ktlsagent.protocols.handshakefamily import HandshakeRequest
from tests.support import netlinktests
from tests.support.fakekernel import (
    ATTRIBUTE_HEADER,
    CLIENTHELLO,
    CTRL_CMD_GETFAMILY,
    FAMILY_ID,
    FORGER,
    GENL_HEADER,
    GENL_ID_CTRL,
    NL_ATTR_TYPE_U32,
    NLMSG_DONE,
    NLMSG_ERROR,
    NLMSG_HEADER,
    PSK,
    TAG,
    X509,
    FakeHandshakeKernel,
    FakeNetlinkSocket,
    FakeUpcall,
    attribute,
    netlinkMessage,
    string,
    u32,
)


def _instead(datagram: bytes, kind: int, payload: bytes, flags: int = 0) -> bytes:
    """Build another answer in place of one."""
    _length, _kind, _flags, sequence, port = NLMSG_HEADER.unpack_from(datagram)
    return netlinkMessage(kind, flags, sequence, port, payload)


def _refusal(datagram: bytes, number: int) -> bytes:
    """Build a refusal in place of an answer."""
    payload = struct.pack("=i", -number) + bytes(NLMSG_HEADER.size)
    return _instead(datagram, NLMSG_ERROR, payload, 0x100)


class _FakeKernelTestCase(SynchronousTestCase):
    """Has a fake of the kernel's side."""

    def setUp(self) -> None:
        self.fake = FakeHandshakeKernel()
        self.addCleanup(self.fake.close)

    def openSocket(self) -> INetlinkSocket:
        return self.fake.socket()

    def handOver(self, opened: INetlinkSocket) -> int:
        return opened.fileno()

    def forge(self, datagram: bytes, port: int = 0) -> None:
        self.fake.forge(datagram, port)

    def makeKernel(self, inherited: int | None = None) -> HandshakeNetlink:
        return HandshakeNetlink(
            self.fake.socket, self.fake.listenersFile, self.fake.adopt, inherited
        )


class FakeHandshakeKernelTests(_FakeKernelTestCase, netlinktests.HandshakeKernelTestsMixin):
    """The fake does what a real kernel does (L{tests.kernel.real} has the other half)."""


class FakeTaggingKernelTests(_FakeKernelTestCase, netlinktests.HandshakeKernelTestsMixin):
    """A kernel that takes session tags does the same."""

    def setUp(self) -> None:
        super().setUp()
        self.fake.takeTags()


class HandshakeNetlinkStartTests(_FakeKernelTestCase):
    """Tests for L{HandshakeNetlink} on kernels where something is missing."""

    def openingFails(self) -> str:
        """
        Try to open the family.

        @return: the words of the error.
        """
        error = self.assertRaises(StartError, self.makeKernel().open)
        self.assertEqual(self.fake.sockets, [])
        return str(error)

    def test_noFamily(self) -> None:
        """Without the family the error says which kernel would have it."""
        self.fake.hasFamily = False
        self.assertIn("expected Linux 6.5 or newer with CONFIG_NET_HANDSHAKE", self.openingFails())

    def test_familyRefused(self) -> None:
        """Any other refusal to describe the family is passed on."""
        self.fake.filter = lambda datagrams: [_refusal(datagrams[0], errno.ENOMEM)]
        self.assertIn("expected the handshake family, found GETFAMILY: ENOMEM", self.openingFails())

    def test_familyMalformed(self) -> None:
        """A description of the family without its id is no answer."""
        head = GENL_HEADER.pack(1, 2, 0)
        self.fake.filter = lambda datagrams: [_instead(datagrams[0], GENL_ID_CTRL, head)]
        self.assertIn("found GETFAMILY: EBADMSG: malformed", self.openingFails())

    def test_brokenLengths(self) -> None:
        """A datagram that is no netlink message is no answer."""
        self.fake.filter = lambda _datagrams: [b"\x01\x02\x03"]
        self.assertIn("shorter than its header", self.openingFails())

    def test_noAnswer(self) -> None:
        """A kernel that does not answer is not waited for."""
        self.fake.filter = lambda _datagrams: []
        self.assertIn("GETFAMILY: EPROTO: the kernel did not answer", self.openingFails())

    def test_noNetlink(self) -> None:
        """A sandbox without netlink is named as what it is."""
        self.fake.openError = errno.EAFNOSUPPORT
        self.assertIn("allow the address family AF_NETLINK", self.openingFails())

    def test_noGroup(self) -> None:
        """A family without the group of handshake agents cannot be listened to."""
        del self.fake.groups["tlshd"]
        kernel = self.makeKernel()
        kernel.open()
        error = self.assertRaises(StartError, kernel.listen)
        self.assertIn("expected the multicast group 'tlshd'", str(error))
        self.assertIn("['none']", str(error))
        self.assertEqual(self.fake.sockets, [])

    def test_noGroupsAtAll(self) -> None:
        """A family without any group cannot be listened to either."""
        self.fake.groups.clear()
        kernel = self.makeKernel()
        kernel.open()
        self.assertIn("found []", str(self.assertRaises(StartError, kernel.listen)))

    def test_joinRefused(self) -> None:
        """A group that cannot be joined ends the start, and nothing stays open."""
        kernel = self.makeKernel()
        kernel.open()
        self.fake.groups["tlshd"] += 1
        self.assertRaises(StartError, kernel.listen)
        self.assertEqual(self.fake.sockets, [])

    def inheriting(self, opened: FakeNetlinkSocket) -> str:
        """
        Listen with a socket that has been open before.

        @param opened: the socket.
        @return: what was said about it.
        """
        kernel = self.makeKernel(opened.fileno())
        self.addCleanup(kernel.close)
        kernel.open()
        with capturedLogs() as events:
            kernel.listen()
        self.assertNotEqual(kernel.fileno(), opened.fileno())
        return "\n".join(eventAsText(event) for event in events)

    def opened(self) -> FakeNetlinkSocket:
        """
        Open a socket that would do, but for what the test changes.

        @return: the socket.
        """
        self.fake.socket().join(self.fake.groups["tlshd"])
        return self.fake.sockets[-1]

    def test_inheritedFromElsewhere(self) -> None:
        """A socket of another network namespace is not used."""
        opened = self.opened()
        opened.cookie += 1
        self.assertIn("found one of another network namespace", self.inheriting(opened))
        self.assertNotIn(opened, self.fake.sockets)

    def test_inheritedOfAnotherBoot(self) -> None:
        """A socket of which the kernel says nothing is not used."""
        opened = self.opened()
        opened.cookie = -1
        self.assertIn("found one that tells nothing", self.inheriting(opened))

    def test_groupBeyondTheList(self) -> None:
        """A group that the kernel's list has no room for cannot be looked up in it."""
        self.fake.groups["tlshd"] = 33
        kernel = self.makeKernel()
        kernel.open()
        self.addCleanup(kernel.close)
        kernel.listen()
        self.assertEqual(list(kernel.otherListeners()), [])

    def test_staleAnswers(self) -> None:
        """Answers to earlier questions are skipped, and those to other ports."""

        def add(datagrams: list[bytes]) -> list[bytes]:
            _length, _kind, _flags, sequence, port = NLMSG_HEADER.unpack_from(datagrams[0])
            numbers = ((sequence - 1) % 2**32, port), (sequence, port + 1), (sequence, 0)
            stale = b"".join(
                netlinkMessage(GENL_ID_CTRL, 0, number, asker, GENL_HEADER.pack(3, 1, 0))
                for number, asker in numbers
            )
            return [stale, *(stale + each for each in datagrams), stale]

        self.fake.filter = add
        kernel = self.makeKernel()
        kernel.open()
        self.addCleanup(kernel.close)
        self.fake.filter = list
        kernel.listen()
        self.assertIsNone(kernel.accept())


class HandshakeNetlinkTests(_FakeKernelTestCase):
    """Tests for L{HandshakeNetlink} with requests, and with a kernel that misbehaves."""

    def setUp(self) -> None:
        super().setUp()
        self.kernel = self.makeKernel()
        self.addCleanup(self.kernel.close)

    def listen(self) -> None:
        """Open the family and listen."""
        self.kernel.open()
        self.kernel.listen()

    def connection(self) -> socket.socket:
        """
        Make a consumer's socket.

        @return: one end of a pair.
        """
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        return near

    def accept(self) -> HandshakeRequest:
        """
        Accept the request that is pending.

        @return: the request, whose descriptor is closed at the end of the test.
        """
        request = self.kernel.accept()
        assert request is not None
        self.addCleanup(os.close, request.descriptor)
        return request

    def readable(self) -> bool:
        """
        Ask the system about the descriptor of READY.

        @return: whether it is readable.
        """
        return bool(select.select([self.kernel.fileno()], [], [], 0)[0])

    def queued(self) -> FakeUpcall:
        """
        Have a request pending.

        @return: the request.
        """
        return self.fake.queue(self.connection())

    def test_ready(self) -> None:
        """READY makes the descriptor readable until it is read."""
        self.listen()
        self.assertFalse(self.readable())
        self.queued()
        self.queued()
        self.assertTrue(self.readable())
        self.assertEqual(self.kernel.readReady(), 2)
        self.assertFalse(self.readable())
        self.assertEqual(self.kernel.readReady(), 0)

    def test_noReadyBeforeListening(self) -> None:
        """A request that was there before us is accepted all the same."""
        self.queued()
        self.listen()
        self.assertFalse(self.readable())
        self.accept()

    def test_readyLost(self) -> None:
        """If READYs were lost, what has come is read to its end."""
        self.listen()
        self.queued()
        self.fake.loseHints()
        self.queued()
        self.assertIsNone(self.kernel.readReady())
        self.assertFalse(self.readable())
        self.assertEqual(self.kernel.readReady(), 0)

    def test_readyFails(self) -> None:
        """Any other error says that the socket is of no use."""
        self.listen()
        self.fake.readError = errno.ENOMEM
        error = self.assertRaises(NetlinkError, self.kernel.readReady)
        self.assertEqual((error.operation, error.errno), ("READY", errno.ENOMEM))

    def test_acceptPlain(self) -> None:
        """The least that a request has is read, and its descriptor is a new one."""
        connection = self.connection()
        self.fake.queue(connection)
        self.listen()
        request = self.accept()
        self.assertEqual(request, HandshakeRequest(request.descriptor, 1, 1))
        self.assertNotEqual(request.descriptor, connection.fileno())
        self.assertTrue(
            os.path.samestat(os.fstat(request.descriptor), os.fstat(connection.fileno()))
        )

    def test_acceptAll(self) -> None:
        """All that a request can have is read, and what is not known is skipped."""
        self.fake.queue(
            self.connection(),
            CLIENTHELLO,
            X509,
            peerName="m\u00fcller.lab".encode(),
            timeoutMilliseconds=10000,
            peerIdentities=[7, 8],
            certificate=11,
            privateKey=12,
            keyring=0x12345678,
            more=u32(10, 1) + string(77, b"to come"),
        )
        self.listen()
        request = self.accept()
        self.assertEqual(
            request,
            HandshakeRequest(
                descriptor=request.descriptor,
                messageType=1,
                authMode=3,
                timeoutMilliseconds=10000,
                peerName="m\u00fcller.lab".encode(),
                peerIdentities=(7, 8),
                certificate=11,
                privateKey=12,
                keyring=0x12345678,
            ),
        )

    def test_acceptTargetsPSK(self) -> None:
        """An NVMe target's request has the identity 0."""
        self.fake.queue(self.connection(), 2, PSK, peerIdentities=[0])
        self.listen()
        self.assertEqual(self.accept().peerIdentities, (0,))

    def test_acceptInOrder(self) -> None:
        """The oldest request comes first, and each one once."""
        upcalls = [self.queued(), self.queued()]
        self.listen()
        accepted = [self.accept().descriptor for _ in upcalls]
        self.assertEqual(accepted, [upcall.descriptor for upcall in upcalls])
        self.assertIsNone(self.kernel.accept())

    def test_notPermitted(self) -> None:
        """Without C{CAP_NET_ADMIN} ACCEPT and DONE are refused."""
        self.listen()
        upcall = self.queued()
        self.fake.privileged = False
        error = self.assertRaises(NetlinkError, self.kernel.accept)
        self.assertEqual((error.operation, error.errno), ("ACCEPT", errno.EPERM))
        descriptor = upcall.socket.fileno()
        error = self.assertRaises(NetlinkError, self.kernel.done, descriptor, 0)
        self.assertEqual((error.operation, error.errno), ("DONE", errno.EPERM))

    def unreadable(self, replace: Callable[[bytes], list[bytes]]) -> NetlinkError:
        """
        Have a reply to ACCEPT replaced by something in which there is no descriptor,
        and check that the request gets an answer all the same.

        @param replace: makes of the reply what comes in its place.
        @return: what L{HandshakeNetlink.accept} said.
        """
        self.listen()
        upcall = self.queued()

        def filter_(datagrams: list[bytes]) -> list[bytes]:
            self.fake.filter = list
            return replace(datagrams[0])

        self.fake.filter = filter_
        error: NetlinkError = self.assertRaises(NetlinkError, self.kernel.accept)
        self.assertEqual(upcall.answers, [(errno.EIO, ())])
        self.assertRaises(OSError, os.fstat, upcall.descriptor)
        self.assertIsNone(self.kernel.accept())
        self.accepted()
        return error

    def accepted(self) -> None:
        """Check that the next request is accepted as if nothing had been."""
        upcall = self.queued()
        self.assertEqual(self.accept().descriptor, upcall.descriptor)

    def test_acknowledgedAccept(self) -> None:
        """An ACK in place of a reply to ACCEPT is no request."""
        error = self.unreadable(lambda reply: [_refusal(reply, 0)])
        self.assertIn("an ACK in place of a reply", str(error))

    def test_cutReply(self) -> None:
        """A reply that is cut off, wherever, is no request, and the request is answered."""
        replies: list[bytes] = []

        def cut(whole: bytes) -> list[bytes]:
            replies.append(whole)
            return [whole[:-1]]

        self.assertEqual(self.unreadable(cut).errno, errno.EBADMSG)
        for end in range(1, len(replies[0])):
            self.kernel.close()
            self.unreadable(lambda whole, end=end: [whole[:end]])  # type: ignore[misc]

    def test_noReply(self) -> None:
        """If nothing comes the request is answered, in case that there was one."""
        self.assertEqual(self.unreadable(lambda _reply: []).errno, errno.EPROTO)

    def test_notOurDescriptor(self) -> None:
        """What a thread has opened where the request's socket was expected stays open."""
        self.listen()
        opened: list[int] = []

        def open_(datagrams: list[bytes]) -> list[bytes]:
            if not opened:
                opened.append(os.dup(self.connection().fileno()))
            return []

        self.fake.filter = open_
        self.assertRaises(NetlinkError, self.kernel.accept)
        os.close(opened[0])

    def test_brokenBeforeReply(self) -> None:
        """What cannot be read before the reply to ACCEPT does not keep it from being read."""
        self.listen()
        for broken in (b"", b"\0", bytes(16), NLMSG_HEADER.pack(99, FAMILY_ID, 0, 0, 0) + bytes(9)):
            self.fake.filter = lambda datagrams, broken=broken: [broken, *datagrams]  # type: ignore[misc]
            self.accepted()

    def test_lostBeforeReply(self) -> None:
        """That something was lost on its way (C{ENOBUFS}) does not lose a reply that has come."""
        self.listen()
        self.fake.sockets[0].deliver(None)
        self.accepted()
        self.fake.sockets[0].deliver(None)
        self.assertIsNone(self.kernel.accept())

    def test_forgedAnswers(self) -> None:
        """Answers of another process are dropped, whatever they say."""
        self.listen()
        descriptor = self.connection().fileno()

        def forge(datagrams: list[bytes]) -> list[bytes]:
            answers = (
                _refusal(datagrams[0], errno.EPERM),
                _refusal(datagrams[0], 0),
                _instead(datagrams[0], FAMILY_ID, GENL_HEADER.pack(2, 1, 0) + u32(1, descriptor)),
                _instead(datagrams[0], NLMSG_DONE, bytes(4)),
            )
            for answer in answers:
                self.fake.sockets[0].deliver(answer, FORGER)
            return datagrams

        self.fake.filter = forge
        upcall = self.queued()
        request = self.accept()
        self.assertEqual(request.descriptor, upcall.descriptor)
        self.kernel.done(request.descriptor, 0)
        self.assertEqual(
            (upcall.status, self.kernel.foreign, self.kernel.foreigner), (0, 8, FORGER)
        )

    def test_sequences(self) -> None:
        """Each question has a number of its own, and the first is another for each agent."""
        firsts = set()
        for _agent in range(3):
            numbers: list[int] = []

            def note(datagrams: list[bytes], numbers: list[int] = numbers) -> list[bytes]:
                numbers.append(NLMSG_HEADER.unpack_from(datagrams[0])[3])
                return datagrams

            self.fake.filter = note
            kernel = self.makeKernel()
            kernel.open()
            kernel.listen()
            kernel.accept()
            kernel.close()
            self.assertEqual(len(set(numbers)), len(numbers))
            firsts.add(numbers[0])
        self.assertGreater(len(firsts), 1)

    def test_lastSequence(self) -> None:
        """Behind the highest number comes 0."""
        self.kernel._sequence = count(2**32 - 1)
        self.listen()
        self.assertIsNone(self.kernel.accept())

    def test_malformedReply(self) -> None:
        """The descriptor of a reply that cannot be read is known, so that it can be answered."""
        upcall = self.fake.queue(self.connection(), more=ATTRIBUTE_HEADER.pack(8, 9))
        self.listen()
        error = self.assertRaises(MalformedRequest, self.kernel.accept)
        self.assertEqual(error.descriptor, upcall.descriptor)
        self.assertIsNone(error.keyring)
        self.assertIn("ACCEPT: EBADMSG: malformed", str(error))
        self.kernel.done(error.descriptor, errno.EIO)
        self.assertEqual(upcall.status, errno.EIO)
        os.close(error.descriptor)

    def test_malformedReplyWithKeyring(self) -> None:
        """The keyring that was linked for it is known as well."""
        self.fake.queue(self.connection(), keyring=4711, more=attribute(6, b""))
        self.listen()
        error = self.assertRaises(MalformedRequest, self.kernel.accept)
        self.assertEqual(error.keyring, 4711)
        os.close(error.descriptor)

    def test_replyWithoutDescriptor(self) -> None:
        """A request is answered also if its reply has no descriptor, or one that is none."""
        for attributes in (u32(3, 1), u32(1, -1) + u32(3, 1), u32(1, -1), b"\0" * 9):
            self.kernel.close()
            payload = GENL_HEADER.pack(2, 1, 0) + attributes
            error = self.unreadable(
                lambda reply, payload=payload: [_instead(reply, FAMILY_ID, payload)]  # type: ignore[misc]
            )
            self.assertEqual(error.errno, errno.EBADMSG)

    def test_answerLost(self) -> None:
        """An answer that cannot be received is an error of its question."""
        self.listen()
        self.fake.readError = errno.ENOBUFS
        error = self.assertRaises(NetlinkError, self.kernel.accept)
        self.assertEqual((error.operation, error.errno), ("ACCEPT", errno.ENOBUFS))

    def test_noSpareDescriptor(self) -> None:
        """Without room for one more descriptor the kernel is not asked."""
        self.listen()
        upcall = self.queued()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            error = self.assertRaises(OutOfDescriptors, self.kernel.accept)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertIn("raise LimitNOFILE", str(error))
        self.assertEqual(list(self.fake.pending), [upcall])
        self.accept()

    def test_kernelOutOfDescriptors(self) -> None:
        """A request that the kernel could not deliver is over; that is the kernel's word."""
        self.listen()
        upcall = self.queued()
        upcall.socket.close()
        error = self.assertRaises(NetlinkError, self.kernel.accept)
        self.assertEqual(error.errno, errno.EBADF)
        self.assertEqual(upcall.status, errno.EIO)

    def test_done(self) -> None:
        """Status and remote auth reach the consumer."""
        upcall = self.queued()
        self.listen()
        self.kernel.done(self.accept().descriptor, 0, (5, 0xFFFFFFFF))
        self.assertEqual((upcall.status, upcall.remoteAuth), (0, (5, 0xFFFFFFFF)))

    def test_doneWithError(self) -> None:
        """The status is a positive errno."""
        upcall = self.queued()
        self.listen()
        self.assertIsNone(upcall.status)
        self.assertEqual(upcall.remoteAuth, ())
        self.kernel.done(self.accept().descriptor, errno.EACCES)
        self.assertEqual((upcall.status, upcall.remoteAuth), (errno.EACCES, ()))

    def test_doneTwice(self) -> None:
        """A second DONE is taken by the kernel, and changes nothing."""
        upcall = self.queued()
        self.listen()
        descriptor = self.accept().descriptor
        self.kernel.done(descriptor, 0)
        self.kernel.done(descriptor, errno.EIO)
        self.assertEqual(upcall.status, 0)

    def test_doneWithoutRemoteAuth(self) -> None:
        """What the kernel's policy does not list is not sent: it would refuse all of DONE."""
        del self.fake.doneAttributes[3]
        upcall = self.queued()
        self.listen()
        self.kernel.done(self.accept().descriptor, 0, (5,))
        self.assertEqual(upcall.answers, [(0, ())])

    def test_unknownAttributeRefused(self) -> None:
        """The fake refuses an attribute that it does not list, as the kernel does."""
        upcall = self.queued()
        self.listen()
        del self.fake.doneAttributes[3]
        descriptor = self.accept().descriptor
        error = self.assertRaises(NetlinkError, self.kernel.done, descriptor, 0, (5,))
        self.assertIn("Unknown attribute type", str(error))
        self.assertEqual(upcall.answers, [])

    def test_policyUnknown(self) -> None:
        """A kernel that cannot tell what DONE takes is taken for the oldest one."""
        self.fake.tellsPolicy = False
        upcall = self.queued()
        self.listen()
        self.kernel.done(self.accept().descriptor, 0, (5,), ("admins",))
        self.assertEqual((upcall.answers, upcall.tags), ([(0, (5,))], ()))

    def test_tags(self) -> None:
        """A kernel that says it takes session tags gets them, in order, and no more than that."""
        self.fake.takeTags()
        upcall = self.queued()
        self.listen()
        cut = self.kernel.done(self.accept().descriptor, 0, (5,), ("b", "a", "x" * 255))
        self.assertEqual(upcall.answers, [(0, (5,))])
        self.assertEqual((upcall.tags, cut), (("b", "a", "x" * 255), []))

    def test_tagsForNobody(self) -> None:
        """A kernel that does not take session tags gets none, which is no loss to report."""
        upcall = self.queued()
        self.listen()
        cut = self.kernel.done(self.accept().descriptor, 0, (), ("admins", "x" * 256))
        self.assertEqual((upcall.answers, upcall.tags, cut), ([(0, ())], (), []))

    def test_otherAttributeOfThatNumber(self) -> None:
        """
        What is a number and not a string is not session tags, but belongs to
        another series of patches: a string there would void the answer.
        """
        self.fake.doneAttributes[TAG] = NL_ATTR_TYPE_U32
        upcall = self.queued()
        self.listen()
        self.kernel.done(self.accept().descriptor, 0, (), ("admins",))
        self.assertEqual((upcall.answers, upcall.tags), ([(0, ())], ()))

    def test_tagsOfRefusedPeer(self) -> None:
        """A peer that is refused has no session tags."""
        self.fake.takeTags()
        upcall = self.queued()
        self.listen()
        cut = self.kernel.done(self.accept().descriptor, errno.EACCES, (), ("admins",))
        self.assertEqual((upcall.answers, upcall.tags, cut), ([(errno.EACCES, ())], (), []))

    def test_tagsThatAreCut(self) -> None:
        """What the kernel would not take, or refuse the answer for, is told to the caller."""
        self.fake.takeTags()
        upcall = self.queued()
        self.listen()
        tags = [f"tag{at}" for at in range(66)]
        bad = ["", "a\0b", "x" * 256, "\u20ac" * 86]
        cut = self.kernel.done(self.accept().descriptor, 0, (), bad + tags)
        self.assertEqual(upcall.tags, tuple(tags[:64]))
        self.assertEqual(cut, bad + tags[64:])

    def test_doneTwiceWithTags(self) -> None:
        """A kernel that takes session tags refuses a second DONE, which changes nothing either."""
        self.fake.takeTags()
        upcall = self.queued()
        self.listen()
        descriptor = self.accept().descriptor
        self.kernel.done(descriptor, 0, (), ("admins",))
        error = self.assertRaises(NetlinkError, self.kernel.done, descriptor, errno.EIO)
        self.assertEqual(error.errno, errno.EBUSY)
        self.assertEqual((upcall.status, upcall.tags), (0, ("admins",)))

    def test_mostTagsNotRead(self) -> None:
        """How many tags the kernel takes is in the reply to ACCEPT, where it is skipped."""
        self.fake.takeTags()
        self.queued()
        self.listen()
        request = self.accept()
        self.assertEqual(request, HandshakeRequest(request.descriptor, 1, 1))


class FakeHandshakeKernelOwnTests(_FakeKernelTestCase):
    """What the fake does with requests that L{HandshakeNetlink} does not send."""

    def ask(self, kind: int, command: int, attributes: bytes) -> tuple[int, bytes]:
        """
        Send a request.

        @param kind: the family's id.
        @param command: the command.
        @param attributes: its attributes.
        @return: the errno of the refusal, and what is behind the header that is echoed.
        """
        payload = GENL_HEADER.pack(command, 1, 0) + attributes
        (reply,) = self.fake.answer(netlinkMessage(kind, 1, 9, 0, payload), 1)
        self.assertEqual(NLMSG_HEADER.unpack_from(reply)[1], NLMSG_ERROR)
        return -struct.unpack_from("=i", reply, 16)[0], reply[36:]

    def test_readyIsNoCommand(self) -> None:
        """READY cannot be sent."""
        self.assertEqual(self.ask(FAMILY_ID, 1, b""), (errno.EOPNOTSUPP, b""))

    def test_otherFamilies(self) -> None:
        """Other families do not exist."""
        self.assertEqual(self.ask(99, 2, b"")[0], errno.ENOENT)
        name = string(2, b"nl80211")
        self.assertEqual(self.ask(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, name)[0], errno.ENOENT)

    def test_missingAttributes(self) -> None:
        """A missing attribute is named by its number only."""
        missing = u32(5, 2)
        self.assertEqual(self.ask(FAMILY_ID, 2, b""), (errno.EINVAL, missing))
        self.assertEqual(self.ask(FAMILY_ID, 3, b""), (errno.EINVAL, missing))

    def done(self, *attributes: bytes) -> tuple[int, FakeUpcall]:
        """
        Answer a request of a kernel that takes session tags.

        @param attributes: what is in DONE beside status and descriptor.
        @return: the errno of the refusal, and the request.
        """
        self.fake.takeTags()
        near, far = socket.socketpair()
        with near, far:
            upcall = self.fake.queue(near)
            number, _words = self.ask(
                FAMILY_ID, 3, u32(1, 0) + u32(2, near.fileno()) + b"".join(attributes)
            )
        return number, upcall

    def test_tagsThatVoidTheAnswer(self) -> None:
        """An empty tag, or one with a NUL in it, makes a failure of a success."""
        for text in (b"\x00", b"a\x00b\x00", b"a\x00b"):
            number, upcall = self.done(attribute(TAG, b"good\x00"), attribute(TAG, text))
            self.assertEqual((number, upcall.status, upcall.tags), (errno.EINVAL, errno.EIO, ()))

    def test_tagsThatAreNone(self) -> None:
        """A tag that is too long or has no octet is refused before anything is done."""
        for text in (b"", b"x" * 256, b"x" * 256 + b"\x00"):
            number, upcall = self.done(attribute(TAG, text))
            self.assertEqual((number, upcall.status), (errno.ERANGE, None))

    def test_numbersThatAreNone(self) -> None:
        """A number has four octets."""
        number, upcall = self.done(attribute(3, b"1"))
        self.assertEqual((number, upcall.status), (errno.EINVAL, None))

    def test_manyTags(self) -> None:
        """Of too many tags the first are taken; the last octet need not be a NUL."""
        self.fake.takeTags()
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        upcall = self.fake.queue(near)
        tags = [f"tag{at}" for at in range(65)]
        payload = GENL_HEADER.pack(3, 1, 0) + u32(1, 0) + u32(2, near.fileno())
        payload += b"".join(attribute(TAG, tag.encode()) for tag in tags)
        self.assertEqual(self.fake.answer(netlinkMessage(FAMILY_ID, 1, 9, 0, payload), 1), [])
        self.assertEqual((upcall.status, upcall.tags), (0, tuple(tags[:64])))

    def test_keyringLinked(self) -> None:
        """A request's keyring is linked at ACCEPT."""
        linked: list[int] = []
        fake = FakeHandshakeKernel(linked.append)
        self.addCleanup(fake.close)
        near, far = socket.socketpair()
        with near, far:
            upcall = fake.queue(near, keyring=4711)
            request = netlinkMessage(FAMILY_ID, 1, 9, 0, GENL_HEADER.pack(2, 1, 0) + u32(2, 1))
            fake.answer(request, 1)
        self.assertEqual(linked, [4711])
        os.close(upcall.descriptor or 0)


class NetlinkSocketTests(SynchronousTestCase):
    """Tests for L{NetlinkSocket} against the control family, which every kernel has."""

    def setUp(self) -> None:
        self.socket = NetlinkSocket()
        self.addCleanup(self.socket.close)

    def test_answer(self) -> None:
        """The kernel's answer is there when C{send} returns, for our port."""
        payload = GENL_HEADER.pack(CTRL_CMD_GETFAMILY, 1, 0) + string(2, b"nlctrl")
        self.socket.send(netlinkMessage(GENL_ID_CTRL, 1, 77, 0, payload))
        answer, sender = self.socket.receive()
        self.assertEqual(sender, 0)
        self.assertEqual(NLMSG_HEADER.unpack_from(answer)[3:], (77, self.socket.portId()))
        self.assertIn(string(2, b"nlctrl"), answer)
        self.assertRaises(BlockingIOError, self.socket.receive)

    def test_refusal(self) -> None:
        """A refusal does not echo the request's payload."""
        payload = GENL_HEADER.pack(CTRL_CMD_GETFAMILY, 1, 0) + string(2, b"no-such-name")
        self.socket.send(netlinkMessage(GENL_ID_CTRL, 1, 78, 0, payload))
        answer, _sender = self.socket.receive()
        self.assertEqual(struct.unpack_from("=i", answer, 16), (-errno.ENOENT,))
        self.assertNotIn(b"no-such-name", answer)

    def test_join(self) -> None:
        """The control family's group can be joined, one that does not exist cannot."""
        self.socket.join(GENL_ID_CTRL)
        self.assertRaises(OSError, self.socket.join, 0x7FFFFFF0)

    def test_inherited(self) -> None:
        """A socket that has been open before goes on with its groups, and does not block."""
        self.socket.join(GENL_ID_CTRL)
        descriptor = os.dup(self.socket.fileno())
        os.set_blocking(descriptor, True)
        os.set_inheritable(descriptor, True)
        inherited = NetlinkSocket(descriptor)
        self.addCleanup(inherited.close)
        self.assertEqual(inherited.portId(), self.socket.portId())
        self.assertEqual(inherited.namespace(), self.socket.namespace())
        self.assertEqual(inherited.groups(), {GENL_ID_CTRL})
        self.assertRaises(BlockingIOError, inherited.receive)
        self.assertFalse(os.get_inheritable(descriptor))

    def test_inheritedOfAnotherKind(self) -> None:
        """A socket of another family is refused and closed, anything else refused."""
        other = socket.socket()
        self.assertRaises(OSError, NetlinkSocket, descriptor := other.detach())
        self.assertRaises(OSError, os.fstat, descriptor)
        self.assertRaises(OSError, NetlinkSocket, descriptor)

    def test_descriptor(self) -> None:
        """The descriptor is not inherited, and gone after closing."""
        self.assertFalse(os.get_inheritable(self.socket.fileno()))
        self.socket.close()
        self.assertEqual(self.socket.fileno(), -1)
