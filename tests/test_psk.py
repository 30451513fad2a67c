"""Tests of L{ktlsagent.protocols.psk}."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import KeyUnusable, PeerMisbehaved
from ktlsagent.protocols import psk
from ktlsagent.protocols.psk import (
    MOST_IDENTITIES,
    SHA256,
    SHA384,
    HelloGate,
    HelloReader,
    PreSharedKey,
    hashOf,
    identityText,
    isGenerated,
    listIdentities,
    quoteIdentity,
)
from tests.support.properties import patient
from tests.support.tlspeers import clientHello, handshakeRecords, offeredKeys

NVME = b"NVMe1R01 nqn.2014-08.org.nvmexpress:uuid:host nqn.target mSo1dA=="


class TextTests(SynchronousTestCase):
    """Identities are shown to people, but a peer chooses them."""

    def test_long(self) -> None:
        """Of a very long identity only the beginning is shown."""
        self.assertEqual(identityText(b"x" * 512), "x" * 512)
        self.assertEqual(identityText(b"x" * 513), "x" * 512 + "...")
        self.assertEqual(identityText("\U0001f600".encode() * 512), "\U0001f600" * 512)
        self.assertEqual(identityText("\U0001f600".encode() * 513), "\U0001f600" * 512 + "...")
        self.assertEqual(identityText(b"\xff" * 2**16), "\\xff" * 127 + "...")

    def test_many(self) -> None:
        """Of very many identities only the first are shown, with the number of the others."""
        self.assertEqual(listIdentities([b"a", b"b"]), "a, b")
        self.assertEqual(listIdentities([]), "")
        self.assertEqual(
            listIdentities([b"a" * 190] * 10), ", ".join([*["a" * 190] * 2, "and 8 more"])
        )
        self.assertEqual(
            listIdentities([b"a" * 999, b"b"], quoteIdentity), f"'{'a' * 512}...', and 1 more"
        )


class HashTests(SynchronousTestCase):
    """Tests of L{hashOf}."""

    def test_nvme(self) -> None:
        """An NVMe identity names its hash, whatever the version, the kind and the key's length."""
        for identity, expected in (
            (b"NVMe0R01 nqn.host nqn.target", SHA256),
            (b"NVMe0R02 nqn.host nqn.target", SHA384),
            (b"NVMe1R01 nqn.host nqn.target digest==", SHA256),
            (b"NVMe1R02 nqn.host nqn.target digest==", SHA384),
            (b"NVMe1G02 nqn.host nqn.target digest==", SHA384),
            (b"NVMe0R01", SHA256),
        ):
            for length in (32, 48):
                self.assertEqual(hashOf(identity, length), expected)

    def test_nvmeOfALaterHash(self) -> None:
        """An NVMe identity with a hash that is not known is refused by its name."""
        for number in (0, 3, 99):
            identity = b"NVMe1R%02d nqn.host nqn.target" % number
            error = self.assertRaises(KeyUnusable, hashOf, identity, 48)
            self.assertEqual(error.code, "unknown-hash")
            self.assertIn(f"found '{identity.decode()}'", error.reason)

    def test_generic(self) -> None:
        """The hash of any other key is told by its length."""
        for identity in (b"client", b"NVMe", b"NVMe1R011 a b", b"nvme1R02 a b", b"x NVMe1R02 a"):
            self.assertEqual(hashOf(identity, 32), SHA256)
            self.assertEqual(hashOf(identity, 48), SHA384)
            self.assertEqual(hashOf(identity, 64), SHA256)


class GeneratedTests(SynchronousTestCase):
    """Tests of L{isGenerated}."""

    def test_kinds(self) -> None:
        """Only identities of NVMe/TCP say so, by one letter."""
        for identity in (b"NVMe1G01 a b c", b"NVMe1G02 a b c", b"NVMe0G01"):
            self.assertTrue(isGenerated(identity))
        for identity in (NVME, b"NVMe1g01 a b", b"NVMe1G01x", b"xNVMe1G01 a", b"G", b""):
            self.assertFalse(isGenerated(identity))


class QuoteTests(SynchronousTestCase):
    """Tests of L{quoteIdentity} and of what a key shows of itself."""

    def test_quote(self) -> None:
        """An identity is text, and its octets where it is none."""
        self.assertEqual(quoteIdentity("m\u00fcller".encode()), "'m\u00fcller'")
        self.assertEqual(quoteIdentity(b"a\xffb"), "'a\\xffb'")

    def test_secrecy(self) -> None:
        """A key does not show itself."""
        key = PreSharedKey(b"client", b"not for you", SHA256, 7)
        for shown in (repr(key), str(key), f"{key}"):
            self.assertIn("client", shown)
            self.assertNotIn("not for you", shown)


class HelloReaderTests(SynchronousTestCase):
    """Tests of L{HelloReader}."""

    def read(self, records: list[bytes]) -> list[bytes] | None:
        """Read a ClientHello of which every record but the last leaves something wanting."""
        reader = HelloReader()
        for record in records[:-1]:
            self.assertIsNone(reader.feed(record))
        return reader.feed(records[-1])

    def refused(self, code: str, *records: bytes) -> str:
        """Read what is refused, and get the words."""
        error: PeerMisbehaved = self.assertRaises(PeerMisbehaved, self.read, list(records))
        self.assertEqual(error.code, code)
        return error.reason

    def test_identities(self) -> None:
        """The identities are in the order in which they are offered."""
        for offered in ([NVME], [b"a", NVME, b"a", b"\xff\x00"], []):
            message = clientHello((43, b"\x02\x03\x04"), offeredKeys(*offered))
            self.assertEqual(self.read(handshakeRecords(message)), offered)

    def test_none(self) -> None:
        """A ClientHello without the extension offers none."""
        for message in (clientHello(), clientHello((43, b"\x02\x03\x04"))):
            self.assertEqual(self.read(handshakeRecords(message)), [])

    def test_noExtensions(self) -> None:
        """So does one of the old days, which has no extensions at all."""
        message = clientHello()[:-2]
        message = message[:1] + (len(message) - 4).to_bytes(3, "big") + message[4:]
        self.assertEqual(self.read(handshakeRecords(message)), [])

    def test_split(self) -> None:
        """A ClientHello may be split anywhere."""
        message = clientHello(offeredKeys(NVME, b"other"))
        for size in (1, 2, 3, 4, 5, 50, len(message) - 1):
            self.assertEqual(self.read(handshakeRecords(message, size)), [NVME, b"other"])

    def test_long(self) -> None:
        """A ClientHello may be longer than a record."""
        identities = [b"%0999d" % number for number in range(60)]
        message = clientHello(offeredKeys(*identities))
        self.assertGreater(len(message), 3 * 2**14)
        self.assertEqual(self.read(handshakeRecords(message)), identities)

    def test_tooLong(self) -> None:
        """But not without end."""
        words = self.refused("unexpected-message", *handshakeRecords(b"\x01\x01\x00\x01"))
        self.assertIn("65537 octets", words)

    def test_manyIdentities(self) -> None:
        """More identities than anybody offers are refused, and not all of them are read."""
        offered = [b"%d" % number for number in range(MOST_IDENTITIES + 1)]
        message = clientHello(offeredKeys(*offered[:-1]))
        self.assertEqual(self.read(handshakeRecords(message)), offered[:-1])
        self.refused("too-many-identities", *handshakeRecords(clientHello(offeredKeys(*offered))))
        takes: list[int] = []
        take = psk._Cursor.take

        def counting(cursor: psk._Cursor, count: int) -> bytes:
            takes.append(count)
            return take(cursor, count)

        self.patch(psk._Cursor, "take", counting)
        hello = clientHello(offeredKeys(*[b"x"] * 1600))
        self.refused("too-many-identities", *handshakeRecords(hello))
        self.assertLess(len(takes), 6 * MOST_IDENTITIES)

    def test_otherRecords(self) -> None:
        """What is no handshake, or another message, is not waited for."""
        for record in ("150303 0002 0128", "140303 0001 01", "170303 0001 ff"):
            self.refused("unexpected-message", bytes.fromhex(record))
        words = self.refused("unexpected-message", *handshakeRecords(b"\x02\x00\x00\x00"))
        self.assertIn("found a message of type 2", words)

    def test_emptyRecord(self) -> None:
        """A record without content is no beginning."""
        self.refused("decode-error", bytes.fromhex("1603010000"))

    def test_truncated(self) -> None:
        """A ClientHello whose vectors do not fit into it is refused, wherever it ends."""
        content = clientHello(offeredKeys(NVME))[4:]
        refused = 0
        for end in range(len(content)):
            message = b"\x01" + end.to_bytes(3, "big") + content[:end]
            try:
                self.assertEqual(self.read(handshakeRecords(message)), [])
            except PeerMisbehaved as error:
                self.assertEqual(error.code, "decode-error")
                refused += 1
        # It may end where the extensions begin.
        self.assertEqual(refused, len(content) - 1)

    def test_hashes(self) -> None:
        """The binders' lengths tell the hashes; one has to be there for each identity."""
        identities = b"".join(b"\x00\x01%d" % number + bytes(4) for number in range(3))
        for lengths, expected in (
            ((32, 48, 64), [SHA256, SHA384, None]),
            ((48, 48, 32, 32), [SHA384, SHA384, SHA256]),
            ((32, 32), None),
            ((), None),
        ):
            binders = b"".join(bytes((length,)) + bytes(length) for length in lengths)
            content = b"".join(
                len(part).to_bytes(2, "big") + part for part in (identities, binders)
            )
            reader = HelloReader()
            (record,) = handshakeRecords(clientHello((41, content)))
            if expected is None:
                error: PeerMisbehaved = self.assertRaises(PeerMisbehaved, reader.feed, record)
                self.assertEqual(error.code, "decode-error")
            else:
                self.assertEqual(reader.feed(record), [b"0", b"1", b"2"])
                self.assertEqual(reader.hashes, expected)

    @patient
    @given(st.lists(st.binary(min_size=1, max_size=60), max_size=5), st.integers(1, 300))
    def test_any(self, identities: list[bytes], size: int) -> None:
        """Whatever is offered, in whatever records, is read as it is."""
        message = clientHello((10, b"\x00\x02\x00\x1d"), offeredKeys(*identities))
        self.assertEqual(self.read(handshakeRecords(message, size)), identities)

    @patient
    @given(
        st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6),
        st.integers(1, 300),
        st.binary(max_size=30),
    )
    def test_mangled(self, changes: list[tuple[int, int]], size: int, more: bytes) -> None:
        """However a ClientHello is mangled, it is read, waited for or refused."""
        message = bytearray(clientHello((43, b"\x02\x03\x04"), offeredKeys(NVME, b"other")) + more)
        for at, value in changes:
            message[at % len(message)] = value
        reader = HelloReader()
        try:
            for record in handshakeRecords(bytes(message), size):
                if reader.feed(record) is not None:
                    break
        except PeerMisbehaved as error:
            self.assertIn(error.code, ("decode-error", "unexpected-message"))

    @patient
    @given(st.binary(max_size=60), st.sampled_from((0, 20, 21, 22, 23, 255)))
    def test_anyRecord(self, fragment: bytes, kind: int) -> None:
        """So is any first record."""
        record = bytes((kind, 3, 3)) + len(fragment).to_bytes(2, "big") + fragment
        with contextlib.suppress(PeerMisbehaved):
            self.assertIn(HelloReader().feed(record), (None, []))


class HelloGateTests(SynchronousTestCase):
    """Tests of L{HelloGate}."""

    def admitted(self, message: bytes, size: int = 2**14) -> str | None:
        """
        Let a message through.

        @param message: the message.
        @param size: the most octets that a record takes.
        @return: the code of the refusal.
        """
        gate = HelloGate()
        for record in [*handshakeRecords(message, size), bytes.fromhex("1703030001ff")]:
            try:
                gate.admit(record)
            except PeerMisbehaved as error:
                return error.code
        return None

    def test_few(self) -> None:
        """Who offers few passes, however long, in whatever records."""
        for count, length in ((0, 0), (1, 1), (2, 30000), (MOST_IDENTITIES, 900)):
            hello = clientHello(offeredKeys(*[b"x" * length] * count))
            for size in (100, 2**14):
                self.assertIsNone(self.admitted(hello, size))

    def test_many(self) -> None:
        """Who offers many does not, if it is long; a short one is not looked into."""
        long = clientHello(offeredKeys(*[b"x"] * 1600))
        for size in (1, 3, 1000, 2**14):
            self.assertEqual(self.admitted(long, size), "too-many-identities")
        short = clientHello(offeredKeys(*[b"x"] * (MOST_IDENTITIES + 1)))
        self.assertIsNone(self.admitted(short))

    def test_others(self) -> None:
        """What is no ClientHello, or a malformed one, is OpenSSL's to refuse."""
        for message in (b"\x02\x00\xff\xff" + bytes(9), b"\x01\x00\x40\x00" + bytes(2**14), b"x"):
            self.assertIsNone(self.admitted(message))
