"""TLS record framing: one record at a time, never a byte more (RFC 8446, section 5.1)."""

from __future__ import annotations

from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from ktlsagent.errors import PeerMisbehaved
from ktlsagent.protocols.cryptoinfo import CipherSuite
from ktlsagent.protocols.keyschedule import TrafficKeys

HEADER_LENGTH = 5
"""Octets of a record's header: type, legacy version, length."""

MAXIMUM_FRAGMENT = 2**14 + 256
"""The longest fragment a protected record may have (RFC 8446, section 5.2)."""

MOST_OCTETS = 2**18
"""
How many octets the peer's records may hold in a whole handshake.  Its certificates take
the most: OpenSSL takes 100 KiB of them (C{SSL_MAX_CERT_LIST_DEFAULT}), which are 13
certificates with keys and signatures of ML-DSA-87.  A ClientHello may have 64 KiB, twice.
"""

_SPARE_RECORDS = 64
_LEAST_FRAGMENT = 512
"""
How many records there may be besides those that the octets need.  The shortest records
that a peer can need are those of C{max_fragment_length} (RFC 6066, section 4).
"""

_AEADS: dict[str, type[AESCCM | AESGCM | ChaCha20Poly1305]] = {
    "TLS_AES_256_GCM_SHA384": AESGCM,
    "TLS_AES_128_GCM_SHA256": AESGCM,
    "TLS_CHACHA20_POLY1305_SHA256": ChaCha20Poly1305,
    "TLS_AES_128_CCM_SHA256": AESCCM,
}

_ALERT_LENGTH = 2
_TAG_LENGTH = 16
_FATAL = 2
_LEGACY_MAJOR_VERSION = 3


class ContentType(IntEnum):
    """C{ContentType} of RFC 8446, section 5.1."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23


_CONTENT_TYPES = frozenset(ContentType)


class AlertDescription(IntEnum):
    """C{AlertDescription} of RFC 8446, section 6."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


def alertName(number: int) -> str:
    """
    Name an alert as RFC 8446 does.

    @param number: the alert's number, 0 to 255.
    @return: for example C{certificate_expired}; C{alert_N} for one that has no name.
    """
    try:
        return AlertDescription(number).name.lower()
    except ValueError:
        return f"alert_{number}"


def plainAlert(description: AlertDescription) -> bytes:
    """
    Build a fatal alert record as it is sent before there are keys.

    @param description: the alert to send.
    @return: one complete record (RFC 8446, sections 5.1 and 6).
    """
    return bytes((ContentType.ALERT, 3, 3, 0, 2, _FATAL, description))


def sealedAlert(
    description: AlertDescription, suite: CipherSuite, keys: TrafficKeys, sequence: int
) -> bytes:
    """
    Build a fatal alert record as it is sent under traffic keys.

    @param description: the alert to send.
    @param suite: the negotiated suite.
    @param keys: the keys of our direction.
    @param sequence: the record's number under these keys.
    @return: one complete record (RFC 8446, sections 5.2 and 5.3).
    """
    content = bytes((_FATAL, description, ContentType.ALERT))
    header = bytes((ContentType.APPLICATION_DATA, 3, 3, 0, len(content) + _TAG_LENGTH))
    aead = _AEADS[suite.name](keys.key)
    return header + aead.encrypt(_nonce(keys, sequence), content, header)


def openedRecord(
    record: bytes, suite: CipherSuite, keys: TrafficKeys, sequence: int
) -> tuple[int, bytes]:
    """
    Read a protected record.

    @param record: one complete record.
    @param suite: the negotiated suite.
    @param keys: the keys of its direction.
    @param sequence: the record's number under these keys.
    @return: its real type and its content (RFC 8446, section 5.2).
    @raise ValueError: if it was not protected like this.
    """
    header, fragment = record[:HEADER_LENGTH], record[HEADER_LENGTH:]
    try:
        inner = _AEADS[suite.name](keys.key).decrypt(_nonce(keys, sequence), fragment, header)
    except InvalidTag:
        raise ValueError("a record under other keys or of another number") from None
    content = inner.rstrip(b"\x00")
    if not content:
        raise ValueError("a record without a type")
    return content[-1], content[:-1]


def openedAlert(record: bytes, suite: CipherSuite, keys: TrafficKeys, sequence: int) -> int:
    """
    Read a protected alert.

    @param record: one complete record.
    @param suite: the negotiated suite.
    @param keys: the keys of its direction.
    @param sequence: the record's number under these keys.
    @return: the alert's number (RFC 8446, section 6).
    @raise ValueError: if it is none, or was not protected like this.
    """
    contentType, content = openedRecord(record, suite, keys, sequence)
    if contentType != ContentType.ALERT or len(content) != _ALERT_LENGTH:
        raise ValueError("a record of another kind")
    return content[1]


def _nonce(keys: TrafficKeys, sequence: int) -> bytes:
    """The nonce of a record (RFC 8446, section 5.3)."""
    number = int.from_bytes(keys.iv, "big") ^ sequence
    return number.to_bytes(len(keys.iv), "big")


def fragmentLength(header: bytes | bytearray) -> int:
    """
    Read a record's header.

    @param header: exactly L{HEADER_LENGTH} octets.
    @return: how many octets follow the header.
    @raise PeerMisbehaved: if this is no header of a TLS record.
    """
    if header[0] not in _CONTENT_TYPES or header[1] != _LEGACY_MAJOR_VERSION:
        raise PeerMisbehaved(
            "not-tls", f"expected a TLS record from the peer, found octets {header.hex(' ')}"
        )
    length = int.from_bytes(header[3:5], "big")
    if length == 0:
        raise PeerMisbehaved("bad-record", "expected a record with content, found an empty one")
    if length > MAXIMUM_FRAGMENT:
        raise PeerMisbehaved(
            "record-overflow",
            f"expected a record of at most {MAXIMUM_FRAGMENT} octets, found a length of {length}",
        )
    return length


class RecordReader:
    """
    Collects one record after another from a stream, and tells the reader of
    the stream how many octets it may take without touching the next record.

    Each record costs a step, however short it is, and what the peer sends is kept until it
    is whole: so there is a bound on both, which holds for all kinds of records together.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._length = HEADER_LENGTH
        self._records = 0
        self._octets = 0

    def wanted(self) -> int:
        """
        Say how many octets may be read now.

        @return: at least 1, and never past the end of the current record.
        """
        return self._length - len(self._buffer)

    def feed(self, data: bytes) -> bytes | None:
        """
        Take what was read.

        @param data: at most L{wanted} octets.
        @return: the record, header included, if C{data} completes one.
        @raise PeerMisbehaved: if this is no TLS record, or one too many.
        @raise ValueError: if there is more data than was wanted.
        """
        if len(data) > self.wanted():
            raise ValueError("more data than the current record has")
        self._buffer += data
        if len(self._buffer) == self._length == HEADER_LENGTH:
            self._length += self._admit(fragmentLength(self._buffer))
        if len(self._buffer) < self._length:
            return None
        record = bytes(self._buffer)
        self._buffer.clear()
        self._length = HEADER_LENGTH
        return record

    def _admit(self, length: int) -> int:
        """Count a record before it is read."""
        self._records += 1
        self._octets += length
        if self._octets > MOST_OCTETS:
            raise PeerMisbehaved(
                "handshake-too-long",
                f"expected a handshake in at most {MOST_OCTETS} octets, found {self._octets}",
            )
        if self._records > _SPARE_RECORDS + self._octets // _LEAST_FRAGMENT:
            raise PeerMisbehaved(
                "too-many-records",
                f"expected at most {_SPARE_RECORDS} records more than a handshake of "
                f"{self._octets} octets needs, found {self._records} records",
            )
        return length


def wholeRecord(data: bytes) -> bytes | None:
    """
    Find the protected record that some octets begin with.

    @param data: what has been received, and not been taken yet.
    @return: the record, C{None} if it is not whole yet.
    @raise ValueError: if it is a record of another kind, or none.
    """
    if data[:1] not in (b"", bytes((ContentType.APPLICATION_DATA,))):
        raise ValueError("no protected record")
    length = HEADER_LENGTH + int.from_bytes(data[3:5], "big")
    if length > HEADER_LENGTH + MAXIMUM_FRAGMENT:
        raise ValueError("a record that is too long")
    return data[:length] if len(data) >= max(length, HEADER_LENGTH + 1) else None


def splitRecords(data: bytes) -> list[bytes]:
    """
    Cut our own output into its records.

    @param data: complete records, one after another.
    @return: the records, headers included.
    @raise ValueError: if C{data} does not end at the end of a record.
    """
    records = []
    while data:
        end = HEADER_LENGTH + int.from_bytes(data[3:5], "big")
        if len(data) < end:
            raise ValueError("an incomplete record")
        records.append(data[:end])
        data = data[end:]
    return records
