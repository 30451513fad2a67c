"""The values that go into a handshake and come out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from cryptography import x509

from ktlsagent.protocols.cryptoinfo import CipherSuite
from ktlsagent.protocols.keyschedule import TrafficKeys


class Role(Enum):
    """Which side of the handshake we are."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def peer(self) -> str:
        """The other side's role, in words."""
        return "server" if self is Role.CLIENT else "client"


@dataclass(frozen=True, slots=True)
class Direction:
    """
    What kTLS needs to know of one direction.

    @ivar keys: the application traffic keys.
    @ivar sequence: the number of the next record under these keys.
    """

    keys: TrafficKeys = field(repr=False)
    sequence: int


@dataclass(frozen=True, slots=True)
class EstablishedSession:
    """
    A completed handshake, ready for the kernel.

    @ivar suite: the negotiated cipher suite.
    @ivar group: the key exchange's group, C{None} if the library cannot say.
    @ivar peerCertificate: the peer's certificate, which was verified, or
        C{None} if the peer sent none.
    @ivar keySerial: the serial of the pre-shared key that both have, if any.
    @ivar transmit: our sending direction.
    @ivar receive: our receiving direction.
    """

    suite: CipherSuite
    group: str | None
    peerCertificate: x509.Certificate | None
    transmit: Direction
    receive: Direction
    keySerial: int | None = None
