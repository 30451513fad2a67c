"""
A model of kTLS: what the kernel does with a C{struct tls12_crypto_info_*},
in Python, so that keys and sequence numbers can be tested without a kernel.
"""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from ktlsagent.protocols.cryptoinfo import packCryptoInfo
from ktlsagent.protocols.session import EstablishedSession

_KEY_AND_SALT = {51: (16, 4), 52: (32, 4), 53: (16, 4), 54: (32, 0)}
"""Octets of key and salt by C{TLS_CIPHER_*} (C{include/uapi/linux/tls.h})."""

_APPLICATION_DATA = 23
_CCM_128 = 53
_CHACHA20 = 54
_HEADER_LENGTH = 5
_IV_LENGTH = 12
_SEQUENCE_LENGTH = 8
_TAG_LENGTH = 16
_TLS_1_3 = 0x0304


class ModelDirection:
    """
    One direction of a socket under kTLS.

    @ivar sequence: the number of the next record.
    """

    def __init__(self, info: bytes) -> None:
        """
        @param info: what C{setsockopt(SOL_TLS, TLS_TX or TLS_RX)} would take.
        @raise ValueError: if the kernel would not take it.
        """
        version, cipher = struct.unpack_from("=HH", info)
        if version != _TLS_1_3 or cipher not in _KEY_AND_SALT:
            raise ValueError("EINVAL: version or cipher")
        keyLength, saltLength = _KEY_AND_SALT[cipher]
        ivEnd = 4 + _IV_LENGTH - saltLength
        keyEnd = ivEnd + keyLength
        saltEnd = keyEnd + saltLength
        if len(info) != saltEnd + _SEQUENCE_LENGTH:
            raise ValueError("EINVAL: length")
        key = info[ivEnd:keyEnd]
        self._iv = info[keyEnd:saltEnd] + info[4:ivEnd]
        self.sequence = int.from_bytes(info[saltEnd:], "big")
        self._aead: AESGCM | AESCCM | ChaCha20Poly1305
        if cipher == _CHACHA20:
            self._aead = ChaCha20Poly1305(key)
        elif cipher == _CCM_128:
            self._aead = AESCCM(key, _TAG_LENGTH)
        else:
            self._aead = AESGCM(key)

    def seal(self, data: bytes, contentType: int = _APPLICATION_DATA) -> bytes:
        """
        Make a record (RFC 8446, section 5.2).

        @param data: its content.
        @param contentType: the content's real type.
        @return: the record.
        """
        inner = data + bytes((contentType,))
        header = bytes((_APPLICATION_DATA, 3, 3))
        header += (len(inner) + _TAG_LENGTH).to_bytes(2, "big")
        return header + self._aead.encrypt(self._nonce(), inner, header)

    def open(self, record: bytes) -> tuple[int, bytes]:
        """
        Read a record.

        @param record: one whole record.
        @return: its content's real type, and its content.
        @raise cryptography.exceptions.InvalidTag: if key, IV or sequence
            number are not those of the sender.
        """
        header, fragment = record[:_HEADER_LENGTH], record[_HEADER_LENGTH:]
        inner = self._aead.decrypt(self._nonce(), fragment, header).rstrip(b"\x00")
        return inner[-1], inner[:-1]

    def _nonce(self) -> bytes:
        """The nonce of the next record (RFC 8446, section 5.3)."""
        number = int.from_bytes(self._iv, "big") ^ self.sequence
        self.sequence += 1
        return number.to_bytes(_IV_LENGTH, "big")


class ModelKTLS:
    """
    A socket under kTLS.

    @ivar transmit: its sending direction.
    @ivar receive: its receiving direction.
    """

    def __init__(self, session: EstablishedSession) -> None:
        """
        @param session: the session to install.
        """
        transmit, receive = session.transmit, session.receive
        self.transmit = ModelDirection(
            packCryptoInfo(session.suite, transmit.keys, transmit.sequence)
        )
        self.receive = ModelDirection(packCryptoInfo(session.suite, receive.keys, receive.sequence))
