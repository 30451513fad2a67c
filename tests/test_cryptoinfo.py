"""Tests of L{ktlsagent.protocols.cryptoinfo}."""

from __future__ import annotations

import sys

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.protocols.cryptoinfo import CIPHER_SUITES, packCryptoInfo
from ktlsagent.protocols.keyschedule import TrafficKeys

# include/uapi/linux/tls.h: name, TLS_CIPHER_*, then where iv, key, salt and
# rec_seq of struct tls12_crypto_info_* begin, and its size.
LAYOUTS = (
    ("TLS_AES_128_GCM_SHA256", 51, 4, 12, 28, 32, 40),
    ("TLS_AES_256_GCM_SHA384", 52, 4, 12, 44, 48, 56),
    ("TLS_AES_128_CCM_SHA256", 53, 4, 12, 28, 32, 40),
    ("TLS_CHACHA20_POLY1305_SHA256", 54, 4, 16, 48, 48, 56),
)

KEY = bytes(range(0x40, 0x60))
IV = bytes.fromhex("a0a1a2a3a4a5a6a7a8a9aaab")


class LayoutTests(SynchronousTestCase):
    """Tests of L{packCryptoInfo}."""

    def test_layouts(self) -> None:
        """Every field is where C{linux/tls.h} has it."""
        for name, cipher, ivAt, keyAt, saltAt, sequenceAt, total in LAYOUTS:
            suite = CIPHER_SUITES[name]
            key = KEY[: suite.keyLength]
            info = packCryptoInfo(suite, TrafficKeys(key, IV), 0x0102030405060708)
            self.assertEqual(len(info), total, name)
            self.assertEqual(suite.infoLength, total, name)
            self.assertEqual(int.from_bytes(info[0:2], sys.byteorder), 0x0304, name)
            self.assertEqual(int.from_bytes(info[2:4], sys.byteorder), cipher, name)
            self.assertEqual(info[saltAt:sequenceAt] + info[ivAt:keyAt], IV, name)
            self.assertEqual(info[keyAt:saltAt], key, name)
            self.assertEqual(info[sequenceAt:], bytes((1, 2, 3, 4, 5, 6, 7, 8)), name)

    def test_saltIsTheBeginningOfTheIV(self) -> None:
        """The first four octets of the write IV are the salt of an AES suite."""
        info = packCryptoInfo(CIPHER_SUITES["TLS_AES_128_GCM_SHA256"], TrafficKeys(KEY[:16], IV), 0)
        self.assertEqual(info[28:32].hex(), "a0a1a2a3")
        self.assertEqual(info[4:12].hex(), "a4a5a6a7a8a9aaab")

    def test_negativeSequence(self) -> None:
        """A sequence number that does not exist is not packed."""
        suite = CIPHER_SUITES["TLS_AES_128_GCM_SHA256"]
        self.assertRaises(OverflowError, packCryptoInfo, suite, TrafficKeys(KEY[:16], IV), -1)


class SuiteTests(SynchronousTestCase):
    """Tests of L{CIPHER_SUITES}."""

    def test_suites(self) -> None:
        """The four suites that TLS 1.3 and kTLS share are there, the strongest first."""
        self.assertEqual(
            list(CIPHER_SUITES),
            [
                "TLS_AES_256_GCM_SHA384",
                "TLS_AES_128_GCM_SHA256",
                "TLS_CHACHA20_POLY1305_SHA256",
                "TLS_AES_128_CCM_SHA256",
            ],
        )

    def test_hashes(self) -> None:
        """A suite's hash is the one in its name (RFC 8446, appendix B.4)."""
        for name, suite in CIPHER_SUITES.items():
            self.assertEqual(suite.name, name)
            self.assertTrue(name.endswith(suite.hash.upper()), name)
