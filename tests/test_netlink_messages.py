"""Tests of L{ktlsagent.protocols.netlink}, against what a kernel really sends."""

from __future__ import annotations

import errno
import struct
import sys
from unittest import skipUnless

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import NetlinkError
from ktlsagent.protocols.netlink import (
    NLMSG_DONE,
    NLMSG_ERROR,
    Family,
    Message,
    errorOf,
    getFamily,
    getPolicy,
    malformed,
    parseFamily,
    parsePolicy,
    splitMessages,
)
from tests.support.properties import patient

# What the control family of a Linux kernel (x86_64) answered over a plain
# AF_NETLINK socket; port 30647.

# CTRL_CMD_GETFAMILY of "nlctrl", sequence 7.
FAMILY = bytes.fromhex(
    "880000001000000007000000b7770000010200000b0002006e6c6374726c0000060001001000000008000300"
    "02000000080004000000000008000500000000002c0006001400010008000100030000000800020"
    "00e00000014000200080001000a000000080002000c0000001c000700180001000800020010000000"
    "0b0001006e6f746966790000"
)

# CTRL_CMD_GETFAMILY of "no-such", sequence 8: no extended ACK, request echoed.
ABSENT = bytes.fromhex(
    "340000000200000008000000b7770000feffffff2000000010000100080000000000000003010000"
    "0c0002006e6f2d7375636800"
)

# CTRL_CMD_GETFAMILY with a too long name, sequence 10: NETLINK_EXT_ACK is set
# and NETLINK_CAP_ACK is not, so the request is echoed before the attributes.
REFUSED = bytes.fromhex(
    "88000000020000020a000000b7770000eaffffff30000000100005000a0000000000000003010000"
    "1900020078787878787878787878787878787878787878780000000027000100417474726962757465"
    "206661696c656420706f6c6963792076616c69646174696f6e0000080002001400000014000480080007"
    "000f000000080001000c000000"
)

# The same with NETLINK_CAP_ACK, sequence 13: only the request's header is echoed.
REFUSED_CAPPED = bytes.fromhex(
    "68000000020000030d000000b7770000eaffffff30000000100001000d0000000000000027000100"
    "417474726962757465206661696c656420706f6c6963792076616c69646174696f6e000008000200140000"
    "0014000480080007000f000000080001000c000000"
)

# An ACK under NETLINK_CAP_ACK, sequence 14.
ACK_CAPPED = bytes.fromhex(
    "24000000020000010e000000b77700000000000020000000100005000e00000000000000"
)

# CTRL_CMD_GETPOLICY of "nlctrl", CTRL_CMD_GETPOLICY, sequence 11: two datagrams.
POLICY = bytes.fromhex(
    "2c000000100002000b000000b77700000a0200000600010010000000100009800c00008008000200"
    "0000000048000000100002000b000000b77700000a02000006000100100000002c00088028000080"
    "240001800c00040000000000000000000c000500ffff000000000000080001000300000038000000"
    "100002000b000000b77700000a02000006000100100000001c0008801800008014000280080007000f"
    "000000080001000c00000048000000100002000b000000b77700000a02000006000100100000002c00"
    "08802800008024000a800c00040000000000000000000c000500ffffffff000000000800010004000000"
)
POLICY_END = bytes.fromhex("14000000030002000b000000b777000000000000")

# CTRL_CMD_GETPOLICY of "nlctrl", CTRL_CMD_GETFAMILY, sequence 15.
GETFAMILY_POLICY = bytes.fromhex(
    "34000000100002000f000000b77700000a0200000600010010000000180009801400038008000100"
    "00000000080002000000000048000000100002000f000000b77700000a0200000600010010000000"
    "2c00088028000080240001800c00040000000000000000000c000500ffff00000000000008000100"
    "0300000038000000100002000f000000b77700000a02000006000100100000001c00088018000080"
    "14000280080007000f000000080001000c000000"
)

# CTRL_CMD_GETPOLICY for a command that does not exist, sequence 16.
POLICY_REFUSED = bytes.fromhex(
    "400000000200000210000000b7770000feffffff240000001000010310000000000000000a010000"
    "060001001000000008000a0063000000080002001c000000"
)

only = skipUnless(sys.byteorder == "little", "the captures are of a little-endian machine")


def message(data: bytes) -> Message:
    """Take the one message of a datagram."""
    (single,) = splitMessages(data)
    return single


@only
class SplitMessagesTests(SynchronousTestCase):
    """Tests of L{splitMessages}."""

    def test_one(self) -> None:
        """A datagram with one message gives that message."""
        self.assertEqual(splitMessages(FAMILY), [Message(16, 0, 7, 30647, FAMILY)])

    def test_several(self) -> None:
        """The parts of a dump come out one by one."""
        messages = splitMessages(POLICY + POLICY_END)
        self.assertEqual([len(part.data) for part in messages], [44, 72, 56, 72, 20])
        self.assertEqual([part.type for part in messages], [16, 16, 16, 16, NLMSG_DONE])
        self.assertEqual({part.sequence for part in messages}, {11})
        self.assertEqual({part.flags for part in messages}, {2})

    def test_padding(self) -> None:
        """A message whose length is not a multiple of four is followed by padding."""
        odd = struct.pack("=IHHII", 17, 9, 0, 1, 0) + b"x"
        self.assertEqual(
            [part.data for part in splitMessages(odd + bytes(3) + ACK_CAPPED)], [odd, ACK_CAPPED]
        )
        self.assertEqual([part.data for part in splitMessages(odd)], [odd])

    def test_nothing(self) -> None:
        """An empty datagram has no messages."""
        self.assertEqual(splitMessages(b""), [])

    def test_everyTruncation(self) -> None:
        """A cut datagram is refused."""
        for end in range(1, len(ABSENT)):
            error = self.assertRaises(NetlinkError, splitMessages, ABSENT[:end])
            self.assertEqual(error.errno, errno.EBADMSG)

    def test_tooShortLength(self) -> None:
        """A length that does not cover the header would never end."""
        error = self.assertRaises(NetlinkError, splitMessages, bytes(16))
        self.assertIn("a length of 0", str(error))

    @patient
    @given(st.binary(max_size=100))
    def test_anyOctets(self, data: bytes) -> None:
        """Whatever comes, only L{NetlinkError} is raised."""
        try:
            messages = splitMessages(data)
        except NetlinkError:
            return
        self.assertLessEqual(sum(len(part.data) for part in messages), len(data))


@only
class ErrorTests(SynchronousTestCase):
    """Tests of L{errorOf}."""

    def refusal(self, data: bytes) -> NetlinkError:
        """Read a refusal."""
        error = errorOf(message(data), "ask")
        if error is None:
            raise self.failureException("no refusal")
        return error

    def test_withoutWords(self) -> None:
        """A refusal without an extended ACK has the operation and the errno's name."""
        error = self.refusal(ABSENT)
        self.assertEqual(error.errno, errno.ENOENT)
        self.assertEqual(str(error), "ask: ENOENT")

    def test_uncapped(self) -> None:
        """The extended ACK is found behind an echoed request."""
        error = self.refusal(REFUSED)
        self.assertEqual(error.errno, errno.EINVAL)
        self.assertEqual(str(error), "ask: EINVAL: Attribute failed policy validation, at octet 20")

    def test_capped(self) -> None:
        """The extended ACK is found behind an echoed header."""
        self.assertEqual(
            str(self.refusal(REFUSED_CAPPED)),
            "ask: EINVAL: Attribute failed policy validation, at octet 20",
        )

    def test_offsetOnly(self) -> None:
        """An extended ACK without words is shown as well."""
        self.assertEqual(str(self.refusal(POLICY_REFUSED)), "ask: ENOENT: at octet 28")

    def test_missingAttribute(self) -> None:
        """A missing attribute is named (NLMSGERR_ATTR_MISS_TYPE, 5)."""
        data = struct.pack("=IHHIIi", 44, NLMSG_ERROR, 0x300, 1, 0, -errno.EINVAL)
        data += struct.pack("=IHHII", 28, 28, 5, 1, 0) + struct.pack("=HHI", 8, 5, 2)
        self.assertEqual(str(self.refusal(data)), "ask: EINVAL: attribute 2 is missing")

    def test_wordsAreNotUTF8(self) -> None:
        """Words in no known encoding do not get in the way."""
        data = struct.pack("=IHHIIi", 44, NLMSG_ERROR, 0x300, 1, 0, -errno.EINVAL)
        data += struct.pack("=IHHII", 28, 28, 5, 1, 0) + struct.pack("=HH", 7, 1) + b"a\xff\0\0"
        self.assertEqual(str(self.refusal(data)), "ask: EINVAL: a\N{REPLACEMENT CHARACTER}")

    def test_attributeWithoutLength(self) -> None:
        """An attribute of length 0 ends the words, not the agent."""
        data = struct.pack("=IHHIIi", 44, NLMSG_ERROR, 0x300, 1, 0, -errno.EINVAL)
        data += struct.pack("=IHHII", 28, 28, 5, 1, 0) + bytes(8)
        self.assertEqual(str(self.refusal(data)), "ask: EINVAL")

    def test_numberWithoutName(self) -> None:
        """An errno that has no name here is shown as a number; ENOTSUPP is one."""
        data = struct.pack("=IHHIIi", 36, NLMSG_ERROR, 0x100, 1, 0, -524) + bytes(16)
        error = self.refusal(data)
        self.assertEqual((error.errno, str(error)), (524, "ask: 524"))

    def test_acknowledgements(self) -> None:
        """An ACK and a dump's end are no refusals."""
        self.assertIsNone(errorOf(message(ACK_CAPPED), "ask"))
        self.assertIsNone(errorOf(message(POLICY_END), "ask"))

    def test_dumpThatFails(self) -> None:
        """A dump's end may carry an error; its extended ACK follows at once."""
        data = struct.pack("=IHHIIi", 28, NLMSG_DONE, 0x202, 1, 0, -errno.EINTR)
        data += struct.pack("=HHI", 8, 2, 16)
        self.assertEqual(str(self.refusal(data)), "ask: EINTR: at octet 16")

    def test_truncated(self) -> None:
        """A refusal without a number, or without the echo, is malformed."""
        for length in (16, 19, 20, 35):
            data = length.to_bytes(4, "little") + ABSENT[4:length]
            error = self.assertRaises(NetlinkError, errorOf, message(data), "ask")
            self.assertEqual(error.errno, errno.EBADMSG)

    @patient
    @given(st.sampled_from((NLMSG_ERROR, NLMSG_DONE)), st.integers(0, 0xFFFF), st.binary())
    def test_anyOctets(self, kind: int, flags: int, payload: bytes) -> None:
        """Whatever comes, it is an ACK, a refusal or malformed, and the number is positive."""
        data = struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload
        try:
            error = errorOf(Message(kind, flags, 1, 0, data), "ask")
        except NetlinkError as failure:
            error = failure
        if error is not None:
            self.assertGreater(error.errno, 0)


@only
class FamilyTests(SynchronousTestCase):
    """Tests of L{getFamily} and L{parseFamily}."""

    def test_request(self) -> None:
        """The request is the one that the capture answers."""
        self.assertEqual(
            getFamily("nlctrl", 7).hex(),
            "20000000100001000700000000000000"  # nlmsghdr
            "03010000"  # genlmsghdr
            "0b0002006e6c6374726c0000",  # CTRL_ATTR_FAMILY_NAME
        )

    def test_answer(self) -> None:
        """Id and groups are those in the capture."""
        self.assertEqual(parseFamily(message(FAMILY)), Family(16, {"notify": 16}))

    def test_withoutGroups(self) -> None:
        """A family may have no groups."""
        data = struct.pack("=I", 108) + FAMILY[4:108]
        self.assertEqual(parseFamily(message(data)), Family(16, {}))

    def test_withoutId(self) -> None:
        """A family without an id is malformed."""
        data = struct.pack("=I", 32) + FAMILY[4:32]
        error = self.assertRaises(NetlinkError, parseFamily, message(data))
        self.assertEqual(error.errno, errno.EBADMSG)

    def test_everyTruncation(self) -> None:
        """A cut answer is malformed, or the family as far as it is known."""
        for end in range(16, len(FAMILY)):
            data = struct.pack("=I", end) + FAMILY[4:end]
            try:
                self.assertEqual(parseFamily(message(data)).id, 16)
            except NetlinkError as error:
                self.assertEqual(error.errno, errno.EBADMSG)

    def test_arrayElementWithoutLength(self) -> None:
        """A group or an operation of length 0 would never end."""
        for start in (64, 112):  # of the arrays' first elements
            data = FAMILY[:start] + bytes(2) + FAMILY[start + 2 :]
            error = self.assertRaises(NetlinkError, parseFamily, message(data))
            self.assertIn("an attribute of length 0", str(error))

    @patient
    @given(st.data())
    def test_anyOctets(self, data: st.DataObject) -> None:
        """Whatever is in the answer, only L{NetlinkError} is raised."""
        octets = bytearray(FAMILY)
        for position in data.draw(st.lists(st.integers(16, len(octets) - 1), max_size=8)):
            octets[position] = data.draw(st.integers(0, 255))
        try:
            family = parseFamily(message(bytes(octets)))
        except NetlinkError:
            return
        self.assertIsInstance(family.id, int)


@only
class PolicyTests(SynchronousTestCase):
    """Tests of L{getPolicy} and L{parsePolicy}."""

    def test_request(self) -> None:
        """The request is the one that the capture answers."""
        self.assertEqual(
            getPolicy(16, 10, 11).hex(),
            "24000000100001030b00000000000000"  # nlmsghdr
            "0a010000"  # genlmsghdr
            "0600010010000000"  # CTRL_ATTR_FAMILY_ID
            "08000a000a000000",  # CTRL_ATTR_OP
        )

    def test_dump(self) -> None:
        """A command that is only a dump, as GETPOLICY itself, has no policy that matters here."""
        self.assertEqual(parsePolicy(splitMessages(POLICY), 10), {})

    def test_doPolicy(self) -> None:
        """
        The attributes of a command that is no dump are found by its policy's
        index, and each has its type: C{NL_ATTR_TYPE_U16} and C{_NUL_STRING}.
        """
        self.assertEqual(parsePolicy(splitMessages(GETFAMILY_POLICY), 3), {1: 3, 2: 12})

    def test_typeIsMissing(self) -> None:
        """An attribute whose type was not told is listed all the same."""
        kind = bytes.fromhex("0800010003000000")
        self.assertIn(kind, GETFAMILY_POLICY)
        untold = GETFAMILY_POLICY.replace(kind, bytes.fromhex("0800ff0003000000"), 1)
        self.assertEqual(parsePolicy(splitMessages(untold), 3), {1: 0, 2: 12})

    def test_otherCommand(self) -> None:
        """A dump about another command says nothing."""
        self.assertEqual(parsePolicy(splitMessages(GETFAMILY_POLICY), 4), {})

    def test_policyIsMissing(self) -> None:
        """A command whose policy is not in the dump is known to take nothing."""
        self.assertEqual(parsePolicy(splitMessages(GETFAMILY_POLICY)[:1], 3), {})

    def test_nothing(self) -> None:
        """An empty dump says nothing."""
        self.assertEqual(parsePolicy([], 3), {})

    @patient
    @given(st.data())
    def test_anyOctets(self, data: st.DataObject) -> None:
        """Whatever is in the dump, only L{NetlinkError} is raised."""
        messages = []
        for part in splitMessages(GETFAMILY_POLICY):
            octets = bytearray(part.data)
            for position in data.draw(st.lists(st.integers(16, len(octets) - 1), max_size=4)):
                octets[position] = data.draw(st.integers(0, 255))
            messages.append(Message(part.type, part.flags, part.sequence, part.port, bytes(octets)))
        try:
            attributes = parsePolicy(messages, 3)
        except NetlinkError:
            return
        for number, kind in attributes.items():
            self.assertIsInstance(number, int)
            self.assertIsInstance(kind, int)


class MalformedTests(SynchronousTestCase):
    """Tests of L{malformed}."""

    def test_otherErrors(self) -> None:
        """Any exception becomes one that says what was read."""
        with self.assertRaises(NetlinkError) as caught, malformed("READ"):
            raise ZeroDivisionError("odd")
        self.assertEqual(caught.exception.errno, errno.EBADMSG)
        self.assertEqual(
            str(caught.exception), "READ: EBADMSG: malformed: ZeroDivisionError('odd')"
        )

    def test_ownErrors(self) -> None:
        """Our own error passes as it is."""
        error = NetlinkError("INNER", errno.EPERM)
        with self.assertRaises(NetlinkError) as caught, malformed("OUTER"):
            raise error
        self.assertIs(caught.exception, error)
