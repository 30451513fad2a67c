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


class Demand(Enum):
    """How much something that is not mandatory is wanted."""

    OFF = "off"
    ACCEPT = "accept"
    REQUIRE = "require"


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
    @ivar peerChain: the peer's certificate and those up to the root, as they
        were verified; empty if the peer sent none.
    @ivar keySerial: the serial of the pre-shared key that both have, if any.
    @ivar alpn: the protocol that both agreed on by ALPN, if any.
    @ivar resumed: whether an earlier session was resumed: the peer's
        certificates are those that it showed then.
    @ivar transmit: our sending direction.
    @ivar receive: our receiving direction.
    """

    suite: CipherSuite
    group: str | None
    peerChain: tuple[x509.Certificate, ...]
    transmit: Direction
    receive: Direction
    keySerial: int | None = None
    alpn: str | None = None
    resumed: bool = False

    @property
    def peerCertificate(self) -> x509.Certificate | None:
        """The peer's own certificate, C{None} if the peer sent none."""
        return self.peerChain[0] if self.peerChain else None
