"""Tests of L{ktlsagent.protocols.keyschedule}."""

from __future__ import annotations

import traceback

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.protocols.keyschedule import (
    CLIENT_TRAFFIC_SECRET,
    SERVER_TRAFFIC_SECRET,
    TrafficKeys,
    expandLabel,
    parseKeyLogLine,
    trafficKeys,
)
from tests.support.properties import patient

# RFC 8448, section 3, "{server} derive secret "tls13 c ap traffic"".
CLIENT_SECRET = bytes.fromhex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")

# RFC 8448, section 3, "{server} derive secret "tls13 s ap traffic"".
SERVER_SECRET = bytes.fromhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")

# RFC 8448, section 3, "{client} derive write traffic keys for application data".
CLIENT_KEY = bytes.fromhex("17422dda596ed5d9acd890e3c63f5051")
CLIENT_IV = bytes.fromhex("5b78923dee08579033e523d9")

# RFC 8448, section 3, "{server} derive write traffic keys for application data".
SERVER_KEY = bytes.fromhex("9f02283b6c9c07efc26bb9f2ac92e356")
SERVER_IV = bytes.fromhex("cf782b88dd83549aadf1e984")

# RFC 8448, section 3, "{client} send application_data record": the complete record.
CLIENT_RECORD = bytes.fromhex(
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a2044"
    "1e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4"
)

# The same for the server, whose NewSessionTicket was number 0.
SERVER_RECORD = bytes.fromhex(
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a"
    "59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d"
)

# The payload of both: octets 0 to 49, followed by the type application_data.
PAYLOAD = bytes(range(50)) + b"\x17"


def _independentExpandLabel(hashName: str, secret: bytes, label: bytes, length: int) -> bytes:
    """C{HKDF-Expand-Label} with C{cryptography}'s HKDF (RFC 8446, section 7.1)."""
    algorithm = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384()}[hashName]
    label = b"tls13 " + label
    info = bytes((0, length, len(label))) + label + bytes(1)
    return HKDFExpand(algorithm, length, info).derive(secret)


class TrafficKeysTests(SynchronousTestCase):
    """Tests of L{trafficKeys} and L{expandLabel}."""

    def test_clientVector(self) -> None:
        """The client's keys are those of RFC 8448, section 3."""
        keys = trafficKeys("sha256", CLIENT_SECRET, 16, 12)
        self.assertTrue(keys == TrafficKeys(CLIENT_KEY, CLIENT_IV))

    def test_serverVector(self) -> None:
        """The server's keys are those of RFC 8448, section 3."""
        keys = trafficKeys("sha256", SERVER_SECRET, 16, 12)
        self.assertTrue(keys == TrafficKeys(SERVER_KEY, SERVER_IV))

    def test_recordVectors(self) -> None:
        """The keys open the application data of RFC 8448, section 3."""
        client = trafficKeys("sha256", CLIENT_SECRET, 16, 12)
        self.assertEqual(
            AESGCM(client.key).decrypt(client.iv, CLIENT_RECORD[5:], CLIENT_RECORD[:5]), PAYLOAD
        )
        server = trafficKeys("sha256", SERVER_SECRET, 16, 12)
        nonce = server.iv[:-1] + bytes((server.iv[-1] ^ 1,))
        self.assertEqual(
            AESGCM(server.key).decrypt(nonce, SERVER_RECORD[5:], SERVER_RECORD[:5]), PAYLOAD
        )

    @patient
    @given(st.sampled_from((("sha256", 32), ("sha384", 48))), st.data())
    def test_againstAnotherHKDF(self, kind: tuple[str, int], data: st.DataObject) -> None:
        """For both hashes and any secret, C{cryptography}'s HKDF says the same."""
        name, size = kind
        secret = data.draw(st.binary(min_size=size, max_size=size))
        label = data.draw(st.binary(max_size=12))
        length = data.draw(st.integers(1, size))
        self.assertEqual(
            expandLabel(name, secret, label, length),
            _independentExpandLabel(name, secret, label, length),
        )

    def test_lengths(self) -> None:
        """Key and IV have the lengths asked for, also the longest that a suite has."""
        keys = trafficKeys("sha384", bytes(48), 32, 12)
        self.assertEqual((len(keys.key), len(keys.iv)), (32, 12))

    def test_secretsAreNotShown(self) -> None:
        """Neither key nor IV is in what is shown of them."""
        self.assertEqual(repr(TrafficKeys(CLIENT_KEY, CLIENT_IV)), "TrafficKeys()")


class KeyLogTests(SynchronousTestCase):
    """Tests of L{parseKeyLogLine}."""

    def test_line(self) -> None:
        """Label and secret of a line are read (RFC 9850, section 2)."""
        for label in (CLIENT_TRAFFIC_SECRET, SERVER_TRAFFIC_SECRET):
            line = label + b" " + b"5a" * 32 + b" " + CLIENT_SECRET.hex().encode()
            self.assertEqual(parseKeyLogLine(line), (label, CLIENT_SECRET))

    def test_labels(self) -> None:
        """The labels are those of RFC 9850, section 2.1."""
        self.assertEqual(CLIENT_TRAFFIC_SECRET, b"CLIENT_TRAFFIC_SECRET_0")
        self.assertEqual(SERVER_TRAFFIC_SECRET, b"SERVER_TRAFFIC_SECRET_0")

    def test_malformed(self) -> None:
        """A line of another form is refused without being quoted, not even in a traceback."""
        for line in (
            b"",
            b"LABEL",
            b"LABEL c0ffee",
            b"LABEL 00 c0ffee c0ffee",
            b"LABEL 00 c0ffeX",
            b"LABEL 00 c0ffe",
            b"LABEL 00 c0ffee\xff",
        ):
            error = self.assertRaises(ValueError, parseKeyLogLine, line)
            shown = "".join(traceback.format_exception(error))
            self.assertNotIn("c0ff", shown)
            self.assertTrue(error.__cause__ is None)

    @patient
    @given(st.binary(max_size=60))
    def test_anyOctets(self, line: bytes) -> None:
        """Whatever is logged, nothing but C{ValueError} comes out."""
        try:
            label, secret = parseKeyLogLine(line)
        except ValueError:
            return
        self.assertIsInstance(label, bytes)
        self.assertIsInstance(secret, bytes)
