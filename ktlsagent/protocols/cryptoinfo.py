"""
What kTLS takes: one table row per cipher suite, and the C{struct
tls12_crypto_info_*} of C{include/uapi/linux/tls.h}.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ktlsagent.protocols.keyschedule import TrafficKeys

TLS_1_3 = 0x0304
"""C{TLS_1_3_VERSION} of C{linux/tls.h}, and the version on the wire."""

HEADER = struct.Struct("=HH")
"""C{struct tls_crypto_info}: version and cipher type, in the machine's byte order."""

IV_LENGTH = 12
"""Octets of a TLS 1.3 write IV for every suite here (RFC 8446, section 5.3)."""

_SEQUENCE_LENGTH = 8


@dataclass(frozen=True, slots=True)
class CipherSuite:
    """
    A TLS 1.3 cipher suite that kTLS has.

    @ivar name: the name that RFC 8446, appendix B.4, gives it.
    @ivar hash: the name of its hash, as C{hashlib} spells it.
    @ivar cipher: its C{TLS_CIPHER_*} of C{linux/tls.h}.
    @ivar keyLength: octets of the key.
    @ivar saltLength: how many octets of the write IV the kernel calls salt.
    @ivar value: its number on the wire (RFC 8446, appendix B.4).
    """

    name: str
    hash: str
    cipher: int
    keyLength: int
    saltLength: int
    value: bytes

    @property
    def infoLength(self) -> int:
        """Octets of the suite's C{struct tls12_crypto_info_*}."""
        return HEADER.size + IV_LENGTH + self.keyLength + _SEQUENCE_LENGTH


CIPHER_SUITES = {
    suite.name: suite
    for suite in (
        CipherSuite("TLS_AES_256_GCM_SHA384", "sha384", 52, 32, 4, b"\x13\x02"),
        CipherSuite("TLS_AES_128_GCM_SHA256", "sha256", 51, 16, 4, b"\x13\x01"),
        CipherSuite("TLS_CHACHA20_POLY1305_SHA256", "sha256", 54, 32, 0, b"\x13\x03"),
        CipherSuite("TLS_AES_128_CCM_SHA256", "sha256", 53, 16, 4, b"\x13\x04"),
    )
}
"""The suites that TLS 1.3 and kTLS share, by name, in our order of preference."""


def packCryptoInfo(suite: CipherSuite, keys: TrafficKeys, sequence: int) -> bytes:
    """
    Build what C{setsockopt(SOL_TLS, TLS_TX or TLS_RX)} takes.

    The kernel splits the 12-octet write IV: its first octets are the salt,
    the rest is the iv; ChaCha20-Poly1305 has no salt.

    @param suite: the negotiated suite.
    @param keys: key and write IV of one direction.
    @param sequence: the number of the next record in that direction.
    @return: the structure; it holds the key, so it is never logged or kept.
    """
    salt, iv = keys.iv[: suite.saltLength], keys.iv[suite.saltLength :]
    counter = sequence.to_bytes(_SEQUENCE_LENGTH, "big")
    return HEADER.pack(TLS_1_3, suite.cipher) + iv + keys.key + salt + counter
