"""Tests of L{ktlsagent.protocols.record}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import PeerMisbehaved
from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES, packCryptoInfo
from ktlsagent.protocols.keyschedule import TrafficKeys
from ktlsagent.protocols.record import (
    HEADER_LENGTH,
    MAXIMUM_FRAGMENT,
    MOST_OCTETS,
    AlertDescription,
    RecordReader,
    alertName,
    fragmentLength,
    openedAlert,
    openedRecord,
    plainAlert,
    sealedAlert,
    splitRecords,
    wholeRecord,
)
from tests.support.modelktls import ModelDirection
from tests.support.properties import patient

CHANGE_CIPHER_SPEC = bytes.fromhex("140303000101")
"""RFC 8446, appendix D.4."""

HANDSHAKE = bytes.fromhex("160303000401000000")
APPLICATION_DATA = bytes.fromhex("1703030002") + b"ab"


def _readAll(stream: bytes, chunk: int) -> list[bytes]:
    """Read a stream as a transport does: never more than is wanted."""
    reader = RecordReader()
    records = []
    while stream:
        size = min(chunk, reader.wanted())
        record = reader.feed(stream[:size])
        stream = stream[size:]
        if record is not None:
            records.append(record)
    return records


class AlertTests(SynchronousTestCase):
    """Tests of the alerts' names and of an alert without keys."""

    def test_names(self) -> None:
        """Alerts are named as in RFC 8446, section 6."""
        self.assertEqual(alertName(45), "certificate_expired")
        self.assertEqual(alertName(48), "unknown_ca")
        self.assertEqual(alertName(0), "close_notify")

    def test_unknownNumber(self) -> None:
        """An alert without a name is called by its number."""
        self.assertEqual(alertName(200), "alert_200")

    def test_plainAlert(self) -> None:
        """An alert without keys is one fatal record of two octets (RFC 8446, section 6)."""
        self.assertEqual(
            plainAlert(AlertDescription.UNEXPECTED_MESSAGE), bytes.fromhex("1503030002020a")
        )

    def test_sealedAlert(self) -> None:
        """An alert under keys is what kTLS opens, for every suite and at any place."""
        for suite in CIPHER_SUITES.values():
            keys = TrafficKeys(b"k" * suite.keyLength, b"iv" * 6)
            for sequence in (0, 1, 2**32 + 7):
                record = sealedAlert(AlertDescription.ACCESS_DENIED, suite, keys, sequence)
                self.assertEqual(fragmentLength(record[:HEADER_LENGTH]), len(record) - 5)
                kernel = ModelDirection(packCryptoInfo(suite, keys, sequence))
                self.assertEqual(kernel.open(record), (21, bytes((2, 49))))

    def test_openedAlert(self) -> None:
        """An alert under keys is read, and nothing else is taken for one."""
        for suite in CIPHER_SUITES.values():
            keys = TrafficKeys(b"k" * suite.keyLength, b"iv" * 6)
            record = sealedAlert(AlertDescription.ACCESS_DENIED, suite, keys, 3)
            self.assertEqual(openedAlert(record, suite, keys, 3), 49)
            padded = ModelDirection(packCryptoInfo(suite, keys, 3)).seal(b"\x02\x31\x15", 0)
            self.assertEqual(openedAlert(padded, suite, keys, 3), 49)
            self.assertRaises(ValueError, openedAlert, record, suite, keys, 4)
            plain = plainAlert(AlertDescription.ACCESS_DENIED)
            self.assertRaises(ValueError, openedAlert, plain, suite, keys, 3)
            for content, contentType in ((b"\x02\x31", 23), (b"\x02", 21), (b"\x02\x31\x00", 21)):
                other = ModelDirection(packCryptoInfo(suite, keys, 3)).seal(content, contentType)
                self.assertRaises(ValueError, openedAlert, other, suite, keys, 3)


class FragmentLengthTests(SynchronousTestCase):
    """Tests of L{fragmentLength}."""

    def test_everyType(self) -> None:
        """The four record types of TLS 1.3 are accepted."""
        for kind in (20, 21, 22, 23):
            self.assertEqual(fragmentLength(bytes((kind, 3, 3, 1, 2))), 258)

    def test_firstRecordOfAClient(self) -> None:
        """A ClientHello's legacy version may be 0x0301 (RFC 8446, section 5.1)."""
        self.assertEqual(fragmentLength(bytes.fromhex("1603010007")), 7)

    def test_longest(self) -> None:
        """A protected fragment may have 2^14 + 256 octets (RFC 8446, section 5.2)."""
        self.assertEqual(MAXIMUM_FRAGMENT, 16640)
        self.assertEqual(fragmentLength(bytes.fromhex("1703034100")), 16640)

    def test_badLength(self) -> None:
        """Empty fragments and too long ones are refused, with the length found."""
        for header, code, words in (
            ("1703034101", "record-overflow", "16641"),
            ("160303ffff", "record-overflow", "65535"),
            ("1603030000", "bad-record", "an empty one"),
            ("1703030000", "bad-record", "an empty one"),
        ):
            error = self.assertRaises(PeerMisbehaved, fragmentLength, bytes.fromhex(header))
            self.assertEqual(error.code, code)
            self.assertIn(words, error.reason)

    def test_notTLS(self) -> None:
        """Octets that begin no TLS record are refused and shown."""
        for header in (b"GET /", bytes.fromhex("1803030001"), bytes.fromhex("1602000001")):
            error = self.assertRaises(PeerMisbehaved, fragmentLength, header)
            self.assertEqual(error.code, "not-tls")
            self.assertIn(header.hex(" "), error.reason)


class RecordReaderTests(SynchronousTestCase):
    """Tests of L{RecordReader}."""

    def test_wanted(self) -> None:
        """First the header is wanted, then the fragment, then the next header."""
        reader = RecordReader()
        self.assertEqual(reader.wanted(), HEADER_LENGTH)
        self.assertIsNone(reader.feed(HANDSHAKE[:2]))
        self.assertEqual(reader.wanted(), 3)
        self.assertIsNone(reader.feed(HANDSHAKE[2:5]))
        self.assertEqual(reader.wanted(), 4)
        self.assertIsNone(reader.feed(HANDSHAKE[5:6]))
        self.assertEqual(reader.wanted(), 3)
        self.assertEqual(reader.feed(HANDSHAKE[6:]), HANDSHAKE)
        self.assertEqual(reader.wanted(), HEADER_LENGTH)

    def test_anyChunks(self) -> None:
        """However the stream is cut, the same records come out."""
        records = [HANDSHAKE, CHANGE_CIPHER_SPEC, APPLICATION_DATA]
        for chunk in (1, 2, 3, 5, 100):
            self.assertEqual(_readAll(b"".join(records), chunk), records)

    def test_nothing(self) -> None:
        """Feeding nothing changes nothing."""
        reader = RecordReader()
        self.assertIsNone(reader.feed(b""))
        self.assertEqual(reader.wanted(), HEADER_LENGTH)

    def test_tooMuch(self) -> None:
        """More than was wanted is a bug of the caller: it belongs to the kernel."""
        reader = RecordReader()
        self.assertRaises(ValueError, reader.feed, HANDSHAKE)
        reader.feed(HANDSHAKE[:5])
        self.assertRaises(ValueError, reader.feed, HANDSHAKE[5:] + b"\x17")

    def test_longestRecord(self) -> None:
        """The longest record is read whole."""
        record = bytes.fromhex("1703034100") + bytes(16640)
        self.assertEqual(_readAll(record, 4096), [record])

    @patient
    @given(st.binary(max_size=200), st.integers(1, 20))
    def test_anyOctets(self, stream: bytes, chunk: int) -> None:
        """Whatever the peer sends, only L{PeerMisbehaved} comes out, and no octet is lost."""
        try:
            records = _readAll(stream, chunk)
        except PeerMisbehaved:
            return
        self.assertTrue(stream.startswith(b"".join(records)))


class BoundsTests(SynchronousTestCase):
    """Tests of what L{RecordReader} takes of one handshake."""

    def taken(self, code: str, kind: int, length: int, most: int = 10**5) -> int:
        """
        Count the records of a flood until it is refused.

        @param code: the refusal's code.
        @param kind: the records' type.
        @param length: octets of each.
        @param most: how many there may be.
        """
        reader = RecordReader()
        header = bytes((kind, 3, 3)) + length.to_bytes(2, "big")
        for number in range(most):
            try:
                reader.feed(header)
            except PeerMisbehaved as error:
                self.assertEqual(error.code, code)
                return number
            self.assertIsNotNone(reader.feed(bytes(length)))
        raise self.failureException("not refused")

    def test_shortRecords(self) -> None:
        """Records that nobody needs are refused after 64, whatever their type."""
        for kind in (20, 21, 22, 23):
            for length in (1, 2, 7):
                self.assertEqual(self.taken("too-many-records", kind, length), 64)
        self.assertEqual(self.taken("too-many-records", 23, 22), 66)
        self.assertEqual(self.taken("too-many-records", 22, 256), 128)

    def test_neededRecords(self) -> None:
        """Records that are short because the peer's have to be take the whole handshake."""
        for length in (512, 1024, 2**14, MAXIMUM_FRAGMENT):
            self.assertEqual(self.taken("handshake-too-long", 23, length), MOST_OCTETS // length)

    def test_header(self) -> None:
        """A record too many is refused before it is read."""
        reader = RecordReader()
        for _record in range(MOST_OCTETS // 2**14):
            reader.feed(bytes.fromhex("1703034000"))
            reader.feed(bytes(2**14))
        error = self.assertRaises(PeerMisbehaved, reader.feed, bytes.fromhex("1703030001"))
        self.assertIn(f"at most {MOST_OCTETS} octets, found {MOST_OCTETS + 1}", error.reason)

    @patient
    @given(st.lists(st.integers(1, MAXIMUM_FRAGMENT), max_size=300))
    def test_any(self, lengths: list[int]) -> None:
        """Whatever the lengths, there are at most 64 records more than octets in 512s."""
        reader = RecordReader()
        records = octets = 0
        for length in lengths:
            records, octets = records + 1, octets + length
            try:
                reader.feed(b"\x16\x03\x03" + length.to_bytes(2, "big"))
            except PeerMisbehaved:
                self.assertTrue(octets > MOST_OCTETS or records > 64 + octets // 512)
                return
            self.assertLessEqual(octets, MOST_OCTETS)
            self.assertLessEqual(records, 64 + octets // 512)
            reader.feed(bytes(length))


class SplitRecordsTests(SynchronousTestCase):
    """Tests of L{splitRecords}."""

    def test_records(self) -> None:
        """Output is cut at the ends of its records."""
        self.assertEqual(splitRecords(b""), [])
        self.assertEqual(
            splitRecords(HANDSHAKE + CHANGE_CIPHER_SPEC), [HANDSHAKE, CHANGE_CIPHER_SPEC]
        )

    def test_everyTruncation(self) -> None:
        """A cut record is not passed over."""
        for end in range(1, len(HANDSHAKE)):
            self.assertRaises(ValueError, splitRecords, APPLICATION_DATA + HANDSHAKE[:end])


class OpenedRecordTests(SynchronousTestCase):
    """Tests of L{openedRecord}."""

    def test_opened(self) -> None:
        """What the peer has sealed is opened, with every suite, at its number alone."""
        for suite in CIPHER_SUITES.values():
            keys = TrafficKeys(bytes(suite.keyLength), bytes(12))
            record = ModelDirection(packCryptoInfo(suite, keys, 7)).seal(b"content", 22)
            self.assertEqual(openedRecord(record, suite, keys, 7), (22, b"content"))
            self.assertRaises(ValueError, openedRecord, record, suite, keys, 8)
            self.assertRaises(ValueError, openedRecord, record[:-1], suite, keys, 7)
            self.assertRaises(ValueError, openedRecord, record[:5], suite, keys, 7)

    def test_padding(self) -> None:
        """Padding does not count, and nothing but padding is no content."""
        suite = CIPHER_SUITES["TLS_AES_128_GCM_SHA256"]
        keys = TrafficKeys(bytes(16), bytes(12))
        for content, expected in ((b"data\x17\0", (23, b"data")), (b"\x17\0", (23, b""))):
            record = ModelDirection(packCryptoInfo(suite, keys, 0)).seal(content, 0)
            self.assertEqual(openedRecord(record, suite, keys, 0), expected)
        record = ModelDirection(packCryptoInfo(suite, keys, 0)).seal(b"", 0)
        self.assertRaises(ValueError, openedRecord, record, suite, keys, 0)


class WholeRecordTests(SynchronousTestCase):
    """Tests of L{wholeRecord}."""

    def test_parts(self) -> None:
        """A protected record is found when its last octet is there, whatever comes behind."""
        for end in range(len(APPLICATION_DATA)):
            self.assertIsNone(wholeRecord(APPLICATION_DATA[:end]))
        for more in (b"", b"more"):
            self.assertEqual(wholeRecord(APPLICATION_DATA + more), APPLICATION_DATA)

    def test_others(self) -> None:
        """Records of other kinds, and longer ones than there may be, are none."""
        for data in (HANDSHAKE, CHANGE_CIPHER_SPEC, b"G", b"\x17\x03\x03\x41\x01"):
            self.assertRaises(ValueError, wholeRecord, data)
        self.assertIsNone(wholeRecord(b"\x17\x03\x03\x41\x00"))
