"""
Tests of L{ktlsagent.protocols.handshakefamily} against octets made by hand
after C{include/uapi/linux/handshake.h} and C{net/handshake/tlshd.c}.
"""

from __future__ import annotations

import errno
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import NetlinkError
from ktlsagent.protocols.handshakefamily import (
    BASE_DONE_ATTRIBUTES,
    AuthMode,
    HandshakeRequest,
    MessageType,
    encodeAccept,
    encodeDone,
    findHeld,
    knownDoneAttributes,
    parseAccept,
    sendableTags,
)
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


class RequestTests(SynchronousTestCase):
    """Tests of L{parseAccept}."""

    def test_nfsClient(self) -> None:
        """A mount with C{xprtsec=mtls} has a name and wants certificates."""
        self.assertEqual(
            parseAccept(reply(*NFS_CLIENT)),
            HandshakeRequest(9, MessageType.CLIENTHELLO, AuthMode.X509, peerName=b"server.lab"),
        )

    def test_anonymousNFSClient(self) -> None:
        """A mount with C{xprtsec=tls} wants no certificate of ours."""
        request = parseAccept(
            reply(
                s32(SOCKFD, 9),
                u32(MESSAGE_TYPE, 1),
                attribute(PEERNAME, b"10.0.0.2\0"),
                u32(AUTH_MODE, 1),
            )
        )
        self.assertEqual(
            request,
            HandshakeRequest(9, MessageType.CLIENTHELLO, AuthMode.UNAUTH, peerName=b"10.0.0.2"),
        )

    def test_nfsClientWithKeys(self) -> None:
        """A mount with C{cert_serial=} and C{privkey_serial=} has a nest of both."""
        nest = attribute(CERTIFICATE, s32(X509_CERT, 77) + s32(X509_PRIVKEY, 78))
        request = parseAccept(reply(*NFS_CLIENT, nest))
        self.assertEqual((request.certificate, request.privateKey), (77, 78))

    def test_nestWithoutItsFlag(self) -> None:
        """A nest is one without NLA_F_NESTED as well."""
        nest = attribute(7, s32(X509_CERT, 77) + s32(X509_PRIVKEY, 78))
        request = parseAccept(reply(*NFS_CLIENT, nest))
        self.assertEqual((request.certificate, request.privateKey), (77, 78))

    def test_halfANest(self) -> None:
        """One serial without the other, or a serial of 0, is no serial."""
        request = parseAccept(reply(*NFS_CLIENT, attribute(CERTIFICATE, s32(X509_CERT, 77))))
        self.assertEqual((request.certificate, request.privateKey), (77, None))
        request = parseAccept(
            reply(*NFS_CLIENT, attribute(CERTIFICATE, s32(X509_CERT, 0) + s32(X509_PRIVKEY, 5)))
        )
        self.assertEqual((request.certificate, request.privateKey), (None, 5))
        request = parseAccept(reply(*NFS_CLIENT, attribute(CERTIFICATE, b"")))
        self.assertEqual((request.certificate, request.privateKey), (None, None))

    def test_nfsServer(self) -> None:
        """A server says nothing but that it wants certificates."""
        self.assertEqual(
            parseAccept(reply(s32(SOCKFD, 0), u32(MESSAGE_TYPE, 2), u32(AUTH_MODE, 3))),
            HandshakeRequest(0, MessageType.SERVERHELLO, AuthMode.X509),
        )

    def test_nvmeHost(self) -> None:
        """An NVMe host has a deadline, a keyring and one identity."""
        self.assertEqual(
            parseAccept(reply(*NVME_HOST)),
            HandshakeRequest(
                11,
                MessageType.CLIENTHELLO,
                AuthMode.PSK,
                timeoutMilliseconds=10000,
                peerIdentities=(0x2A5DAC73,),
                keyring=0x1F2E3D4C,
            ),
        )

    def test_nvmeTarget(self) -> None:
        """An NVMe target's one identity is 0; keyring serials are unsigned."""
        self.assertEqual(
            parseAccept(
                reply(
                    s32(SOCKFD, 12),
                    u32(MESSAGE_TYPE, 2),
                    u32(TIMEOUT, 10000),
                    u32(KEYRING, 0xFFFFFFFE),
                    u32(AUTH_MODE, 2),
                    u32(PEER_IDENTITY, 0),
                )
            ),
            HandshakeRequest(
                12,
                MessageType.SERVERHELLO,
                AuthMode.PSK,
                timeoutMilliseconds=10000,
                peerIdentities=(0,),
                keyring=0xFFFFFFFE,
            ),
        )

    def test_severalIdentities(self) -> None:
        """Identities are repeated, and keep their order."""
        request = parseAccept(reply(*NVME_HOST, *(u32(PEER_IDENTITY, n) for n in (3, 1, 2))))
        self.assertEqual(request.peerIdentities, (0x2A5DAC73, 3, 1, 2))

    def test_unknownAttributes(self) -> None:
        """Attributes of future kernels are skipped; two series claim number 10."""
        unknown = (u32(10, 1), attribute(11, b"x"), attribute(0x8000 | 200, u32(1, 9)))
        self.assertEqual(
            parseAccept(reply(*unknown, *NFS_CLIENT, *unknown)), parseAccept(reply(*NFS_CLIENT))
        )

    def test_unknownNumbers(self) -> None:
        """Message types and modes of future kernels are kept, for the policy to refuse."""
        request = parseAccept(reply(s32(SOCKFD, 9), u32(MESSAGE_TYPE, 3), u32(AUTH_MODE, 4)))
        self.assertEqual((request.messageType, request.authMode), (3, 4))

    def test_missingNumbers(self) -> None:
        """Without type and mode both are 0, which is C{UNSPEC}."""
        self.assertEqual(parseAccept(reply(s32(SOCKFD, 9))), HandshakeRequest(9, 0, 0))

    def test_peerNameIsNotUTF8(self) -> None:
        """A name is octets: nobody says that an operator typed UTF-8."""
        request = parseAccept(reply(s32(SOCKFD, 9), attribute(PEERNAME, b"b\xfccher\0")))
        self.assertEqual(request.peerName, b"b\xfccher")

    def test_peerNameWithoutNul(self) -> None:
        """A name need not end in NUL, and may be empty."""
        request = parseAccept(reply(s32(SOCKFD, 9), attribute(PEERNAME, b"abcd")))
        self.assertEqual(request.peerName, b"abcd")
        request = parseAccept(reply(s32(SOCKFD, 9), attribute(PEERNAME, b"\0")))
        self.assertEqual(request.peerName, b"")


class MalformedTests(SynchronousTestCase):
    """Tests of L{parseAccept} and L{findHeld} with replies that cannot be read."""

    def assertMalformed(self, message: Message, descriptor: int | None) -> None:
        """Check that a reply is malformed, and which descriptor is found in it."""
        error = self.assertRaises(NetlinkError, parseAccept, message)
        self.assertEqual(error.errno, errno.EBADMSG)
        self.assertIn("ACCEPT", str(error))
        self.assertEqual(findHeld(message)[0], descriptor)

    def test_withoutDescriptor(self) -> None:
        """A reply without a descriptor is none."""
        self.assertMalformed(reply(*NFS_CLIENT[1:]), None)
        self.assertMalformed(reply(), None)

    def test_shortAttribute(self) -> None:
        """The descriptor is found beside a number that is too short."""
        self.assertMalformed(reply(s32(SOCKFD, 9), attribute(AUTH_MODE, b"")), 9)
        self.assertMalformed(reply(s32(SOCKFD, 9), attribute(PEER_IDENTITY, b"")), 9)

    def test_attributeWithoutLength(self) -> None:
        """What is behind an attribute with a length that cannot be is nobody's descriptor."""
        for broken in (bytes(4), bytes(8), struct.pack("=HHI", 999, 3, 1)):
            self.assertEqual(findHeld(reply(broken, s32(SOCKFD, 9))), (None, None))
            self.assertEqual(findHeld(reply(s32(SOCKFD, 9), broken, u32(KEYRING, 5))), (9, None))

    def test_inAName(self) -> None:
        """What looks like a descriptor in a name is none."""
        name = attribute(PEERNAME, b"abcd" + s32(SOCKFD, 3) + u32(KEYRING, 4))
        self.assertEqual(findHeld(reply(name, attribute(AUTH_MODE, b""))), (None, None))
        self.assertEqual(findHeld(reply(s32(SOCKFD, 9), name, u32(KEYRING, 5))), (9, 5))

    def test_keyring(self) -> None:
        """The keyring is found; 0 is none, and there is no sign."""
        message = reply(s32(SOCKFD, 9), u32(KEYRING, 0xFFFFFFFE), attribute(AUTH_MODE, b""))
        self.assertMalformed(message, 9)
        self.assertEqual(findHeld(message), (9, 0xFFFFFFFE))
        self.assertEqual(findHeld(reply(s32(SOCKFD, 9), u32(KEYRING, 0))), (9, None))

    def test_shortDescriptor(self) -> None:
        """Half a descriptor is none."""
        self.assertEqual(findHeld(reply(attribute(SOCKFD, b""))), (None, None))
        self.assertEqual(findHeld(reply(attribute(SOCKFD, b"123456"))), (None, None))

    def test_negativeDescriptor(self) -> None:
        """A descriptor is signed, as the kernel writes it, but one below 0 is none."""
        self.assertMalformed(reply(s32(SOCKFD, -1), u32(AUTH_MODE, 1)), None)

    def test_readableReplies(self) -> None:
        """The search finds in a good reply what the decoder finds."""
        for attributes in (NFS_CLIENT, NVME_HOST, NFS_CLIENT[::-1]):
            message = reply(*attributes)
            request = parseAccept(message)
            self.assertEqual(findHeld(message), (request.descriptor, request.keyring))

    def test_everyTruncation(self) -> None:
        """Wherever a reply is cut behind its descriptor, the descriptor is found."""
        whole = reply(*NVME_HOST).data
        for end in range(16, len(whole)):
            message = Message(FAMILY, 0, 5, 4711, struct.pack("=I", end) + whole[4:end])
            self.assertEqual(findHeld(message)[0], 11 if end >= 28 else None)
            try:
                self.assertEqual(parseAccept(message).descriptor, 11)
            except NetlinkError as error:
                self.assertEqual(error.errno, errno.EBADMSG)

    @patient
    @given(st.binary(max_size=120))
    def test_anyOctets(self, attributes: bytes) -> None:
        """Whatever the attributes, only L{NetlinkError} is raised, and the search ends."""
        message = reply(attributes)
        for held in findHeld(message):
            self.assertIsInstance(held, int | None)
        self.checkTypes(message)

    @patient
    @given(st.data())
    def test_anyChange(self, data: st.DataObject) -> None:
        """Whatever is changed in a good reply, only L{NetlinkError} is raised."""
        nest = attribute(CERTIFICATE, s32(X509_CERT, 77) + s32(X509_PRIVKEY, 78))
        octets = bytearray(reply(*NVME_HOST, *NFS_CLIENT[2:], nest).data)
        for position in data.draw(st.lists(st.integers(16, len(octets) - 1), max_size=6)):
            octets[position] = data.draw(st.integers(0, 255))
        self.checkTypes(Message(FAMILY, 0, 5, 4711, bytes(octets)))

    def checkTypes(self, message: Message) -> None:
        """Check that what can be read has the types that are promised."""
        try:
            request = parseAccept(message)
        except NetlinkError:
            return
        self.assertIsInstance(request.descriptor, int)
        self.assertIsInstance(request.messageType, int)
        self.assertIsInstance(request.authMode, int)
        self.assertIsInstance(request.timeoutMilliseconds, int | None)
        self.assertIsInstance(request.peerName, bytes | None)
        self.assertTrue(all(isinstance(serial, int) for serial in request.peerIdentities))
        self.assertIsInstance(request.certificate, int | None)
        self.assertIsInstance(request.privateKey, int | None)
        self.assertIsInstance(request.keyring, int | None)


class EncodeTests(SynchronousTestCase):
    """Tests of L{encodeAccept} and L{encodeDone}."""

    def test_accept(self) -> None:
        """ACCEPT has the handler class tlshd (2: 1) and asks for no ACK."""
        body = struct.pack("=BBH", 2, 1, 0) + u32(2, 1)
        header = struct.pack("=IHHII", 28, FAMILY, 1, 5, 0)
        self.assertEqual(encodeAccept(FAMILY, 5), header + body)

    def test_done(self) -> None:
        """DONE has status and descriptor, and asks for an ACK (NLM_F_REQUEST | NLM_F_ACK: 5)."""
        body = struct.pack("=BBH", 3, 1, 0) + u32(1, errno.EACCES) + s32(2, 9)
        header = struct.pack("=IHHII", 36, FAMILY, 5, 6, 0)
        self.assertEqual(encodeDone(FAMILY, 6, descriptor=9, status=errno.EACCES), header + body)

    def test_remoteAuth(self) -> None:
        """Each serial that the peer authenticated as is an attribute of its own (3)."""
        done = encodeDone(FAMILY, 6, descriptor=9, status=0, remoteAuth=(7, 0xFFFFFFFF))
        body = struct.pack("=BBH", 3, 1, 0) + u32(1, 0) + s32(2, 9) + u32(3, 7)
        body += u32(3, 0xFFFFFFFF)
        self.assertEqual(done, struct.pack("=IHHII", 52, FAMILY, 5, 6, 0) + body)

    def test_tags(self) -> None:
        """Each session tag is a string of its own (4), which ends with a NUL."""
        done = encodeDone(FAMILY, 6, descriptor=9, status=0, remoteAuth=(7,), tags=("abc", "d-_"))
        body = struct.pack("=BBH", 3, 1, 0) + u32(1, 0) + s32(2, 9) + u32(3, 7)
        body += attribute(4, b"abc\0") + attribute(4, b"d-_\0")
        self.assertEqual(done, struct.pack("=IHHII", 60, FAMILY, 5, 6, 0) + body)

    def test_sendableTags(self) -> None:
        """Tags have 1 to 255 octets and no NUL, and there are 64 at most."""
        self.assertEqual(sendableTags(("a", "", "b\0", "x" * 255, "x" * 256)), ["a", "x" * 255])
        self.assertEqual(sendableTags(("\u20ac" * 85, "\u20ac" * 86)), ["\u20ac" * 85])
        many = [str(at) for at in range(70)]
        self.assertEqual(sendableTags(["", *many]), many[:64])
        self.assertEqual(sendableTags(()), [])

    def test_knownAttributes(self) -> None:
        """
        Tags are known by number and type (C{NL_ATTR_TYPE_STRING} is 11,
        C{_NUL_STRING} 12, C{_U32} 4); what we do not know is left out.
        """
        base = {1: 4, 2: 8, 3: 4}
        self.assertEqual(knownDoneAttributes(base), {1, 2, 3})
        self.assertEqual(knownDoneAttributes({1: 0, 2: 0}), {1, 2})
        for kind in (11, 12):
            self.assertEqual(knownDoneAttributes(base | {4: kind, 5: 4}), {1, 2, 3, 4})
        for kind in (0, 4, 10):
            self.assertEqual(knownDoneAttributes(base | {4: kind}), {1, 2, 3})

    def test_baseAttributes(self) -> None:
        """What DONE takes everywhere are the attributes 1 to 3."""
        self.assertEqual(BASE_DONE_ATTRIBUTES, {1, 2, 3})
