"""The end of TLS 1.3's key schedule: from traffic secret to key and IV (RFC 8446, section 7)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

CLIENT_TRAFFIC_SECRET = b"CLIENT_TRAFFIC_SECRET_0"
"""The key log's label for C{client_application_traffic_secret_0}."""

SERVER_TRAFFIC_SECRET = b"SERVER_TRAFFIC_SECRET_0"
"""The key log's label for C{server_application_traffic_secret_0}."""

_KEY_LOG_FIELDS = 3


@dataclass(frozen=True, slots=True)
class TrafficKeys:
    """
    What protects the records of one direction.

    @ivar key: the C{write_key}.
    @ivar iv: the C{write_iv}.
    """

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)


def expandLabel(hashName: str, secret: bytes, label: bytes, length: int) -> bytes:
    """
    C{HKDF-Expand-Label} with an empty context (RFC 8446, section 7.1).

    @param hashName: the suite's hash, as C{hashlib} spells it.
    @param secret: the secret to expand.
    @param label: the label, without its C{tls13 } prefix.
    @param length: octets wanted; at most one block of the hash, which is all
        that keys and IVs need.
    @return: C{length} octets.
    """
    full = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes((len(full),)) + full + b"\x00"
    return hmac.digest(secret, info + b"\x01", hashName)[:length]


def trafficKeys(hashName: str, secret: bytes, keyLength: int, ivLength: int) -> TrafficKeys:
    """
    Derive C{write_key} and C{write_iv} (RFC 8446, section 7.3).

    @param hashName: the suite's hash, as C{hashlib} spells it.
    @param secret: an application traffic secret.
    @param keyLength: octets of the suite's key.
    @param ivLength: octets of the suite's IV.
    @return: the keys of that secret's direction.
    """
    return TrafficKeys(
        key=expandLabel(hashName, secret, b"key", keyLength),
        iv=expandLabel(hashName, secret, b"iv", ivLength),
    )


def parseKeyLogLine(line: bytes) -> tuple[bytes, bytes]:
    """
    Read a line of the key log (RFC 9850, section 2).

    @param line: C{LABEL CLIENT_RANDOM SECRET}, the last two in hexadecimal.
    @return: the label and the secret.
    @raise ValueError: if the line is not of this form; the message does not
        quote the line.
    """
    fields = line.split(b" ")
    if len(fields) != _KEY_LOG_FIELDS:
        raise ValueError("a key log line that has not three fields")
    try:
        return fields[0], bytes.fromhex(fields[2].decode("ascii"))
    except ValueError:
        # Not chained: the original message may quote the secret.
        raise ValueError("a key log line whose secret is not hexadecimal") from None
