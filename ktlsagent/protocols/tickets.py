"""
Session tickets (RFC 8446, section 4.6.1): what a full handshake has proven about a
peer, for how long that holds, and by which ticket it may be said again, once.

All of it is in memory, belongs to one context, and goes with it: a reload makes new
contexts.  A worker process does not know the tickets of another one, and answers
them with full handshakes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from ktlsagent.protocols.boundedcache import BoundedCache
from ktlsagent.protocols.record import ContentType

LIFETIME_SECONDS = 2 * 60 * 60
"""
After this a peer has to prove again that it has its key, however often its session
has been resumed meanwhile.
"""

MOST_HELD = 16
"""How many tickets of one server are held: as many as a mount has connections (nconnect)."""

_MOST_OCTETS = 16 * 1024 * 1024
"""What all tickets of a kind may take: those of 5000 clients, mostly."""

_SESSION_OCTETS = 4096
"""What OpenSSL's session takes, besides the certificates that it has once more."""

_NEW_SESSION_TICKET = 4


@dataclass(frozen=True, slots=True)
class Proof:
    """
    What a full handshake has proven.

    @ivar certificates: the peer's certificates in DER, as they were verified; none if it
        has shown none.
    @ivar since: when that was, by the wall clock, in seconds of the epoch.
    @ivar until: when it may not be so any more, by the same clock: a certificate ends, or
        a CRL does or begins.
    @ivar expires: when it is too old, by the monotonic clock.
    """

    certificates: tuple[bytes, ...]
    since: float
    until: float
    expires: float

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificates, made anew: what is found in them takes more memory than they do."""
        return tuple(map(x509.load_der_x509_certificate, self.certificates))

    @property
    def octets(self) -> int:
        """How much memory it takes."""
        return sum(map(len, self.certificates))


@dataclass(frozen=True, slots=True)
class Issued:
    """
    A ticket that a client of ours has.

    @ivar proof: what is known about the client.
    @ivar sessionContext: OpenSSL's session id context of its session.
    """

    proof: Proof
    sessionContext: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """
    A ticket of a server.

    @ivar proof: what is known about the server.
    @ivar session: what goes with it.
    """

    proof: Proof
    session: SSL.Session = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewTicket:
    """
    What a C{NewSessionTicket} says.

    @ivar lifetime: for how many seconds it is good.
    @ivar identity: the ticket.
    """

    lifetime: int
    identity: bytes = field(repr=False)


def readTicket(contentType: int, content: bytes) -> NewTicket:
    """
    Read a record that holds one C{NewSessionTicket}, and nothing else.

    @param contentType: the record's real type.
    @param content: its content.
    @return: what is in it.
    @raise ValueError: if it holds anything else.
    """
    length = int.from_bytes(content[1:4], "big")
    message = content[4:]
    if (contentType, content[:1]) != (ContentType.HANDSHAKE, bytes((_NEW_SESSION_TICKET,))):
        raise ValueError("no ticket")
    if len(message) != length:
        raise ValueError("more or less than one ticket")
    nonceEnd = 9 + int.from_bytes(message[8:9], "big")
    end = nonceEnd + 2 + int.from_bytes(message[nonceEnd : nonceEnd + 2], "big")
    identity = message[nonceEnd + 2 : end]
    if not identity or len(message) < end:
        raise ValueError("a ticket that is cut off")
    return NewTicket(int.from_bytes(message[:4], "big"), identity)


class Tickets:
    """
    The tickets of one context.  Steps of its handshakes may run in several threads; a
    ticket that gets lost between two of them costs a full handshake.
    """

    def __init__(
        self,
        moments: Iterable[datetime] = (),
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param moments: when what peers are judged by changes without a reload.
        @param now: the wall clock, for dates, in seconds of the epoch.
        @param monotonic: the monotonic clock, for ages.
        """
        self._moments = [moment.timestamp() for moment in moments]
        self._now = now
        self._monotonic = monotonic
        self._issued: BoundedCache[bytes, Issued] = BoundedCache(_MOST_OCTETS)
        self._held: BoundedCache[Hashable, list[Held]] = BoundedCache(_MOST_OCTETS)

    def proof(self, chain: Sequence[x509.Certificate]) -> Proof:
        """
        Say how long it holds what a full handshake has proven just now.

        @param chain: the peer's certificates.
        @return: the proof.
        """
        now = self._now()
        ends = [certificate.not_valid_after_utc.timestamp() for certificate in chain]
        # What has ended already was no reason to refuse the peer.
        until = min((end for end in (*ends, *self._moments) if end > now), default=math.inf)
        encoded = [certificate.public_bytes(Encoding.DER) for certificate in chain]
        return Proof(tuple(encoded), now, until, self._monotonic() + LIFETIME_SECONDS)

    def limited(self, proof: Proof, seconds: int) -> Proof:
        """
        Limit a proof to the lifetime of the ticket that stands for it.

        @param proof: what has been proven.
        @param seconds: for how long the server takes the ticket.
        @return: the same for a shorter time.
        """
        return replace(proof, expires=min(proof.expires, self._monotonic() + seconds))

    def issue(self, identity: bytes, issued: Issued) -> None:
        """
        Note a ticket that a client gets.

        @param identity: the ticket.
        @param issued: what it stands for.
        """
        self._issued.put(identity, issued, len(identity) + issued.proof.octets)

    def redeem(self, offered: Iterable[bytes]) -> Issued | None:
        """
        Take the first of some tickets that is one of ours and still good; it is
        good only once.

        @param offered: what a client offers.
        @return: what it stands for, if there is one.
        """
        for identity in offered:
            issued = self._issued.pop(identity)
            if issued is not None and self._holds(issued.proof):
                return issued
        return None

    def wants(self, server: Hashable) -> bool:
        """
        Say whether one more ticket of a server is of use.

        @param server: the server.
        @return: whether it is.
        """
        return len(self._held.get(server) or ()) < MOST_HELD

    def hold(self, server: Hashable, held: Held) -> None:
        """
        Keep a ticket of a server.

        @param server: the server.
        @param held: the ticket.
        """
        self._hold(server, [*(self._held.pop(server) or ()), held])

    def take(self, server: Hashable) -> Held | None:
        """
        Take a server's newest ticket that is still good; it is good only once.

        @param server: the server.
        @return: the ticket, if there is one.
        """
        held = self._held.pop(server) or []
        while held:
            newest = held.pop()
            if self._holds(newest.proof):
                self._hold(server, held)
                return newest
        return None

    def _hold(self, server: Hashable, held: list[Held]) -> None:
        if held:
            octets = sum(_SESSION_OCTETS + 2 * one.proof.octets for one in held)
            self._held.put(server, held, octets)

    def _holds(self, proof: Proof) -> bool:
        return proof.since <= self._now() < proof.until and self._monotonic() < proof.expires
