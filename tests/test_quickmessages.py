"""
Tests of L{ktlsagent.protocols.quickmessages}: whatever the message, it says what
L{ktlsagent.protocols.handshakefamily} says, which is pyroute2's word.
"""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import NetlinkError
from ktlsagent.protocols import handshakefamily, quickmessages
from ktlsagent.protocols.handshakefamily import HandshakeRequest, sendableTags
from ktlsagent.protocols.netlink import Message
from tests.support.familymessages import (
    AUTH_MODE,
    CERTIFICATE,
    FAMILY,
    KEYRING,
    MESSAGE_TYPE,
    NFS_CLIENT,
    NVME_HOST,
    PEER_IDENTITY,
    PEERNAME,
    SOCKFD,
    TIMEOUT,
    X509_CERT,
    X509_PRIVKEY,
    attribute,
    reply,
    s32,
    u32,
)
from tests.support.properties import patient

NFS_SERVER = (s32(SOCKFD, 9), u32(MESSAGE_TYPE, 2), u32(AUTH_MODE, 3))

NUMBERS = st.sampled_from((SOCKFD, MESSAGE_TYPE, TIMEOUT, AUTH_MODE, PEER_IDENTITY, KEYRING))
U32 = st.integers(0, 2**32 - 1)
NAMES = st.binary(max_size=20) | st.sampled_from((b"server.lab\0", b"\0", b"a\0b\0\0", b""))
NESTS = st.builds(
    lambda numbers: attribute(CERTIFICATE, b"".join(s32(*number) for number in numbers)),
    st.lists(st.tuples(st.sampled_from((X509_CERT, X509_PRIVKEY, 3)), st.integers(-9, 9))),
)
ATTRIBUTES = (
    st.builds(u32, NUMBERS, U32)
    | st.builds(attribute, st.just(PEERNAME), NAMES)
    | st.builds(attribute, NUMBERS | st.integers(0, 2**16 - 1), st.binary(max_size=12))
    | NESTS
    | st.binary(max_size=9)
)
REPLIES = st.lists(ATTRIBUTES, max_size=6).map(lambda more: reply(NFS_SERVER[0], *more))

ANSWERS = st.fixed_dictionaries(
    {
        "family": st.integers(16, 2**16 - 1),
        "sequence": U32,
        "descriptor": st.integers(0, 2**31 - 1),
        "status": st.integers(0, 4095),
        "remoteAuth": st.lists(U32, max_size=3),
        "tags": st.lists(st.text(max_size=9), max_size=3).map(sendableTags),
    }
)


def outcome(parse: object, message: Message) -> HandshakeRequest | str:
    """
    Say what a decoder makes of a reply.

    @param parse: the decoder.
    @param message: the reply.
    @return: the request, or the words of the error.
    """
    assert callable(parse)
    try:
        request: HandshakeRequest = parse(message)
    except NetlinkError as error:
        return str(error)
    return request


class ReplyTests(SynchronousTestCase):
    """Tests of L{quickmessages.parseAccept}."""

    def assertAgreed(self, message: Message) -> None:
        """Check that both decoders say the same about a reply."""
        self.assertEqual(
            outcome(quickmessages.parseAccept, message),
            outcome(handshakefamily.parseAccept, message),
        )

    @patient
    @given(REPLIES)
    def test_agreed(self, message: Message) -> None:
        """Both decoders say the same about attributes in any order, number and length."""
        self.assertAgreed(message)

    @patient
    @given(st.data())
    def test_agreedAboutChanges(self, data: st.DataObject) -> None:
        """Both decoders say the same about a good reply with any changes."""
        octets = bytearray(reply(*NFS_CLIENT, u32(TIMEOUT, 7), u32(KEYRING, 0xFFFFFFFE)).data)
        for position in data.draw(st.lists(st.integers(16, len(octets) - 1), max_size=4)):
            octets[position] = data.draw(st.integers(0, 255))
        self.assertAgreed(Message(FAMILY, 0, 5, 4711, bytes(octets)))

    def test_agreedAboutCuts(self) -> None:
        """Both decoders say the same about a good reply wherever it is cut."""
        for attributes in (NFS_SERVER, NFS_CLIENT, NVME_HOST, (s32(SOCKFD, 9), NFS_CLIENT[2])):
            whole = reply(*attributes).data
            for end in range(20, len(whole) + 1):
                cut = struct.pack("=I", end) + whole[4:end]
                self.assertAgreed(Message(FAMILY, 0, 5, 4711, cut))

    def test_repeated(self) -> None:
        """What is there twice counts as pyroute2 counts it: the first one."""
        for again in (s32(SOCKFD, 5), u32(AUTH_MODE, 1), u32(TIMEOUT, 1), u32(KEYRING, 1)):
            self.assertAgreed(reply(*NFS_SERVER, u32(TIMEOUT, 2), u32(KEYRING, 2), again))
        self.assertAgreed(reply(*NFS_CLIENT, attribute(PEERNAME, b"other\0")))

    def test_extremes(self) -> None:
        """A descriptor has a sign; no name is not the same as an empty one."""
        self.assertAgreed(reply(s32(SOCKFD, -1)))
        self.assertAgreed(reply(s32(SOCKFD, 2**31 - 1)))
        self.assertAgreed(reply(u32(AUTH_MODE, 1)))
        self.assertAgreed(reply(s32(SOCKFD, 9), attribute(PEERNAME, b"\0")))
        self.assertAgreed(reply(s32(SOCKFD, 9), attribute(PEERNAME, b"")))
        self.assertAgreed(reply(s32(SOCKFD, 9), u32(TIMEOUT, 0), u32(KEYRING, 0)))

    def test_quick(self) -> None:
        """What NFS asks for is read without pyroute2, and all else with it."""
        asked: list[Message] = []

        def parse(message: Message) -> HandshakeRequest:
            asked.append(message)
            return HandshakeRequest(0, 0, 0)

        self.patch(handshakefamily, "parseAccept", parse)
        self.assertEqual(quickmessages.parseAccept(reply(*NFS_SERVER)).descriptor, 9)
        self.assertEqual(quickmessages.parseAccept(reply(*NFS_CLIENT)).peerName, b"server.lab")
        self.assertEqual(asked, [])
        nest = attribute(CERTIFICATE, s32(X509_CERT, 77))
        left = [reply(*NVME_HOST), reply(*NFS_CLIENT, nest), reply(*NFS_SERVER, u32(10, 1))]
        for message in left:
            quickmessages.parseAccept(message)
        self.assertEqual(asked, left)


class RequestTests(SynchronousTestCase):
    """Tests of L{quickmessages.encodeAccept} and L{quickmessages.encodeDone}."""

    @patient
    @given(st.integers(16, 2**16 - 1), U32)
    def test_accept(self, family: int, sequence: int) -> None:
        """ACCEPT is the same, whatever was asked before."""
        self.assertEqual(
            quickmessages.encodeAccept(family, sequence),
            handshakefamily.encodeAccept(family, sequence),
        )

    @patient
    @given(ANSWERS)
    def test_done(self, answer: dict[str, Any]) -> None:
        """DONE is the same, whatever was answered before."""
        self.assertEqual(quickmessages.encodeDone(**answer), handshakefamily.encodeDone(**answer))

    def test_quick(self) -> None:
        """pyroute2 encodes ACCEPT once, and DONE once without, and once with a serial."""
        quickmessages.encodeAccept(FAMILY, 1)
        for serials in ((), (1,)):
            quickmessages.encodeDone(FAMILY, 2, descriptor=1, status=0, remoteAuth=serials)
        self.patch(handshakefamily, "encode", None)
        quickmessages.encodeAccept(FAMILY, 3)
        for serials in ((), (5,)):
            quickmessages.encodeDone(FAMILY, 4, descriptor=6, status=7, remoteAuth=serials)
