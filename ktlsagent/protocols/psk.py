"""
External pre-shared keys in TLS 1.3 (RFC 8446, section 4.2.11): which hash a key
is for, and which identities a ClientHello offers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ktlsagent.errors import KeyUnusable, PeerMisbehaved
from ktlsagent.protocols.record import HEADER_LENGTH, ContentType
from ktlsagent.texts import cut, listed

SHA256 = "sha256"
SHA384 = "sha384"

_NVME_IDENTITY = re.compile(rb"NVMe(\d)([A-Z])(\d\d)(?: |$)")
"""An identity of NVMe/TCP (TP 8018, NVMe TCP transport specification, section 3.6.1.3)."""

_NVME_HASHES = {b"01": SHA256, b"02": SHA384}
_SHA384_KEY_LENGTH = 48

_SHOWN = 512
"""Characters of an identity: one of NVMe/TCP with two names of 223 has less."""

_BINDERS = {32: SHA256, 48: SHA384}
"""The hashes by the lengths of their binders."""

_CLIENT_HELLO = 1
_PRE_SHARED_KEY = 41
_MAXIMUM_HELLO = 2**16
_SHORT_HELLO = 2**13
_LENGTH_OCTETS = 3

MOST_IDENTITIES = 64
"""
How many identities a client may offer: each is looked for, by us and by OpenSSL.  Hosts of
NVMe/TCP offer one, clients with tickets one or two.
"""

TOO_MANY_IDENTITIES = "too-many-identities"


@dataclass(frozen=True, slots=True)
class PreSharedKey:
    """
    An external pre-shared key.

    @ivar identity: the name that it goes by on the wire.
    @ivar key: the key.
    @ivar hash: the name of its hash, as C{hashlib} spells it.
    @ivar serial: the serial of the kernel's key that it was read from.
    """

    identity: bytes
    key: bytes = field(repr=False)
    hash: str
    serial: int


def hashOf(identity: bytes, keyLength: int) -> str:
    """
    Say which hash a key is for: that of an NVMe identity is in its name, any
    other is told by the key's length.

    @param identity: the key's identity.
    @param keyLength: octets of the key.
    @return: L{SHA256} or L{SHA384}.
    @raise KeyUnusable: if it is an NVMe identity with a hash that is not known.
    """
    nvme = _NVME_IDENTITY.match(identity)
    if nvme is None:
        return SHA384 if keyLength == _SHA384_KEY_LENGTH else SHA256
    if nvme[3] not in _NVME_HASHES:
        raise KeyUnusable(
            "unknown-hash",
            "expected an NVMe identity with the hash 01 (SHA-256) or 02 (SHA-384), "
            f"found {quoteIdentity(identity)}",
        )
    return _NVME_HASHES[nvme[3]]


def isGenerated(identity: bytes) -> bool:
    """
    Say whether an identity is that of a key which both sides of NVMe/TCP have made while
    they authenticated each other, and will make again.

    @param identity: the key's identity.
    @return: whether it is.
    """
    nvme = _NVME_IDENTITY.match(identity)
    return nvme is not None and nvme[2] == b"G"


def identityText(identity: bytes) -> str:
    """
    Turn an identity into text for people; a peer decides how long it is, so
    only its beginning may be left.

    @param identity: as it is on the wire.
    @return: its text.
    """
    # A character is four octets at most.
    text = identity[: 4 * (_SHOWN + 1)].decode("utf-8", "backslashreplace")
    return cut(text, _SHOWN)


def listIdentities(identities: Sequence[bytes], show: Callable[[bytes], str] = identityText) -> str:
    """
    List identities for people; a peer decides how many there are.

    @param identities: as they are on the wire.
    @param show: turns each into text.
    @return: the first ones, and how many more there are.
    """
    return listed(identities, show, length=len("'...'") + _SHOWN)


def quoteIdentity(identity: bytes) -> str:
    """
    Show an identity to people.

    @param identity: as it is on the wire.
    @return: its text, in quotes.
    """
    return f"'{identityText(identity)}'"


class HelloReader:
    """
    Collects records until they hold a whole ClientHello.

    @ivar hashes: the hashes that the client takes the keys of its identities to be for, as
        the lengths of its binders tell; C{None} for one that is not known.
    """

    def __init__(self) -> None:
        self.hashes: list[str | None] = []
        self._message = bytearray()

    def feed(self, record: bytes) -> list[bytes] | None:
        """
        Take the client's next record.

        @param record: one whole record.
        @return: the identities that the ClientHello offers, in its order,
            when it is whole; C{None} before.
        @raise PeerMisbehaved: if this is no ClientHello, or a malformed one.
        """
        if record[0] != ContentType.HANDSHAKE:
            raise PeerMisbehaved(
                "unexpected-message",
                f"expected a ClientHello, found a record of type {record[0]}",
            )
        self._message += record[HEADER_LENGTH:]
        if not self._message:
            raise PeerMisbehaved("decode-error", "expected a ClientHello, found an empty record")
        length = int.from_bytes(self._message[1:4], "big")
        if self._message[0] != _CLIENT_HELLO or length > _MAXIMUM_HELLO:
            raise PeerMisbehaved(
                "unexpected-message",
                f"expected a ClientHello, found a message of type {self._message[0]} "
                f"and {length} octets",
            )
        if len(self._message) < 4 + length:
            return None
        try:
            identities, binders = _offered(bytes(self._message[4 : 4 + length]))
        except ValueError as error:
            raise PeerMisbehaved(
                "decode-error", f"expected a well-formed ClientHello, found {error}"
            ) from error
        if len(identities) > MOST_IDENTITIES:
            raise PeerMisbehaved(
                TOO_MANY_IDENTITIES,
                f"expected a client that offers at most {MOST_IDENTITIES} identities, found one "
                "that offers more",
            )
        self.hashes = [_BINDERS.get(binder) for binder in binders]
        return identities


class HelloGate:
    """
    Looks whether a ClientHello that is for OpenSSL offers too many identities: it tries to
    decrypt each as a ticket.  A short one cannot offer so many that it matters, and is not
    looked into.
    """

    def __init__(self) -> None:
        self._reader: HelloReader | None = None
        self._open = False

    def admit(self, record: bytes) -> None:
        """
        Look at the client's next record.

        @param record: one whole record.
        @raise PeerMisbehaved: if there are too many.  What else is wrong OpenSSL says better.
        """
        if self._reader is None:
            self._reader = HelloReader()
            # A first record without the length is nothing that a client has a reason for.
            length = record[HEADER_LENGTH + 1 : HEADER_LENGTH + 4]
            self._open = (
                len(length) == _LENGTH_OCTETS and int.from_bytes(length, "big") <= _SHORT_HELLO
            )
        if self._open:
            return
        try:
            self._open = self._reader.feed(record) is not None
        except PeerMisbehaved as error:
            if error.code == TOO_MANY_IDENTITIES:
                raise
            self._open = True


class _Cursor:
    """Reads vectors of the presentation language (RFC 8446, section 3.4)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def more(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """Take octets."""
        start, self._at = self._at, self._at + count
        if self._at > len(self._data):
            raise ValueError("a vector that is shorter than it says")
        return self._data[start : self._at]

    def vector(self, lengthOctets: int) -> bytes:
        """Take a vector whose length comes first."""
        return self.take(int.from_bytes(self.take(lengthOctets), "big"))


def _offered(hello: bytes) -> tuple[list[bytes], list[int]]:
    """
    List the identities of C{OfferedPsks} and the lengths of their binders (RFC 8446,
    sections 4.1.2 and 4.2.11), but not many more than there may be.
    """
    cursor = _Cursor(hello)
    cursor.take(2 + 32)  # legacy_version, random
    cursor.vector(1)  # legacy_session_id
    cursor.vector(2)  # cipher_suites
    cursor.vector(1)  # legacy_compression_methods
    extensions = _Cursor(cursor.vector(2) if cursor.more else b"")
    identities: list[bytes] = []
    binders: list[int] = []
    while extensions.more:
        kind = int.from_bytes(extensions.take(2), "big")
        content = _Cursor(extensions.vector(2))
        if kind == _PRE_SHARED_KEY:
            offered, bound = _Cursor(content.vector(2)), _Cursor(content.vector(2))
            while offered.more and len(identities) <= MOST_IDENTITIES:
                identities.append(offered.vector(2))
                offered.take(4)  # obfuscated_ticket_age
            while bound.more and len(binders) < len(identities):
                binders.append(len(bound.vector(1)))
            if len(binders) < len(identities):
                raise ValueError("an identity without a binder")
            break
    return identities, binders
