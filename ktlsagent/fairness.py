"""
Who may begin next: the line of the requests that wait for their turn, without a
clock and without a socket.

In each round every peer that waits gets one turn, the earliest deadline first; who
comes while a round runs is in the next one.  So a peer that asks for hundreds of
handshakes waits for itself, and nobody else waits for it.  Of the requests of one
peer the one with the earliest deadline goes first.

Who has one IPv6 address has a network of them, so that network is the peer.  But it may
be a whole LAN as well: within it the same goes on, with rounds in which every address
gets one turn.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from operator import attrgetter
from typing import Final, Generic, TypeVar

MOST_HANDSHAKES: Final = 1024
"""
How many handshakes are in progress at the most, if nothing else is configured: as many
as the NFS client has (C{WQ_DFL_ACTIVE}, for its queue C{xprtiod}).  nfsd has no more
than it has threads.
"""

_MEMORY_SHARE: Final = 16
"""Which part of the machine's memory handshakes may take."""

_HANDSHAKE_OCTETS: Final = 128 * 1024
"""What a handshake takes, with room for long certificate chains."""

_DESCRIPTOR_SHARE: Final = 2
"""As many descriptors are left for requests that wait, and for everything else."""

_PEER_SHARE: Final = 4
"""Which part of all handshakes may be those of one peer."""

_NETWORK_BITS: Final = 64
"""What one machine may choose its addresses from (RFC 4291, section 2.5.1)."""

_6TO4: Final = IPv6Network("2002::/16")
_6TO4_BITS: Final = 48
"""Such a network belongs to one IPv4 address (RFC 3056)."""

_TRANSLATED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
"""Where each IPv4 address has one of its own (RFC 6052, RFC 8215)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    How many handshakes may be in progress.

    @ivar most: with all peers together.
    @ivar mostPerPeer: with one peer.
    """

    most: int
    mostPerPeer: int

    @property
    def within(self) -> Bounds:
        """The bounds within the network of a peer: one address of several may have half."""
        return Bounds(self.mostPerPeer, (self.mostPerPeer + 1) // 2)

    def share(self, place: int, number: int) -> Bounds:
        """
        Divide them among workers.

        @param place: which of the workers, from 1 on.
        @param number: how many there are.
        @return: the bounds of this one.  All together have these, but each at least 1.
        """
        return Bounds(
            *(max(1, (bound + place - 1) // number) for bound in (self.most, self.mostPerPeer))
        )


def boundsFor(most: int | None, mostPerPeer: int | None, memory: int, descriptors: int) -> Bounds:
    """
    Find the bounds of a machine.

    @param most: the one that is configured, C{None} to derive it.
    @param mostPerPeer: the one that is configured, C{None} to derive it.
    @param memory: the machine's memory in octets.
    @param descriptors: how many descriptors the process may have.
    @return: the bounds, at least 1 each.
    """
    if most is None:
        affordable = memory // _MEMORY_SHARE // _HANDSHAKE_OCTETS
        most = max(1, min(MOST_HANDSHAKES, affordable, descriptors // _DESCRIPTOR_SHARE))
    if mostPerPeer is None:
        mostPerPeer = max(1, most // _PEER_SHARE)
    return Bounds(most, mostPerPeer)


def sourceOf(peer: Hashable) -> Hashable:
    """
    Say whose an address is.

    @param peer: an address, or what else stands for a peer.
    @return: the network of an IPv6 address; anything else is itself.
    """
    if not isinstance(peer, IPv6Address) or any(peer in network for network in _TRANSLATED):
        return peer
    bits = _6TO4_BITS if peer in _6TO4 else _NETWORK_BITS
    # Link-local addresses of different links are different networks' (RFC 4007).
    return int(peer) >> (peer.max_prefixlen - bits), bits, peer.scope_id


_numbers = itertools.count()
_source = attrgetter("source")
_peer = attrgetter("peer")


class Place:
    """
    A place in the line, and afterwards among those in progress.

    @ivar peer: whose request it is.
    @ivar source: the network that the peer is in, see L{sourceOf}.
    @ivar deadline: until when its turn is of use.
    @ivar number: of two with the same deadline, who was first.
    @ivar begun: whether it had its turn.
    @ivar left: whether it is over, or nobody waits any more.
    """

    __slots__ = ("begun", "deadline", "left", "number", "peer", "source")

    def __init__(self, peer: Hashable, deadline: float) -> None:
        """
        @param peer: whose request it is.
        @param deadline: until when its turn is of use.
        """
        self.peer = peer
        self.source = sourceOf(peer)
        self.deadline = deadline
        self.number = next(_numbers)
        self.begun = False
        self.left = False


_Place = TypeVar("_Place", bound=Place)


class _Deadlines(Generic[_Place]):
    """Those who wait at one address, the earliest deadline first."""

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        # Its first one has not left.
        self._heap: list[tuple[float, int, _Place]] = []

    @property
    def first(self) -> tuple[float, int] | None:
        return self._heap[0][:2] if self._heap else None

    def enter(self, place: _Place) -> None:
        heapq.heappush(self._heap, (place.deadline, place.number, place))

    def leave(self, _place: _Place) -> None:
        self._tidy()

    def next(self, _bounds: Bounds) -> _Place | None:
        place = heapq.heappop(self._heap)[-1]
        self._tidy()
        return place

    def _tidy(self) -> None:
        """Forget who has left."""
        while self._heap and self._heap[0][-1].left:
            heapq.heappop(self._heap)


class _Peer(Generic[_Place]):
    """The requests of one peer: those that wait, and how many there are."""

    __slots__ = ("begun", "inLine", "line", "waiting")

    def __init__(self, line: _Deadlines[_Place] | FairLine[_Place]) -> None:
        self.line = line
        self.waiting = 0
        self.begun = 0
        self.inLine = False


class FairLine(Generic[_Place]):
    """
    The line.  Each operation takes a time that grows with the logarithm of its length.

    @ivar waiting: how many wait.
    @ivar begun: how many are in progress.
    """

    def __init__(self, peerOf: Callable[[_Place], Hashable] = _source) -> None:
        """
        @param peerOf: says between whom the turns go round.
        """
        self.waiting = 0
        self.begun = 0
        self._peerOf = peerOf
        self._round = 0
        self._peers: dict[Hashable, _Peer[_Place]] = {}
        self._line: list[tuple[int, tuple[float, int], _Peer[_Place]]] = []

    @property
    def first(self) -> tuple[float, int] | None:
        """Deadline and number of who comes next, or would have; C{None} if nobody may."""
        return self._line[0][1] if self._line else None

    def enter(self, place: _Place) -> None:
        """
        Take a place in the line.

        @param place: a new place; it is to be given back by L{leave}.
        """
        key = self._peerOf(place)
        found = self._peers.get(key)
        if found is None:
            inside = place.peer != key
            found = self._peers[key] = _Peer(FairLine(_peer) if inside else _Deadlines())
        found.line.enter(place)
        found.waiting += 1
        self.waiting += 1
        self._comeBack(found)

    def leave(self, place: _Place) -> None:
        """
        Give a place back: the handshake is over, or nobody waits for its turn any more.

        @param place: the place; one that was given back before is left alone.
        """
        if not place.left:
            place.left = True
            self._leave(place)

    def next(self, bounds: Bounds) -> _Place | None:
        """
        Let the next one begin.

        @param bounds: how many may be in progress.
        @return: whose turn it is; C{None} if nobody waits, or nobody may begin.
        """
        while self.ready(bounds):
            self._round, _first, found = heapq.heappop(self._line)
            found.inLine = False
            # A peer with too many in progress comes back when one of them is over.
            if found.waiting and found.begun < bounds.mostPerPeer:
                inside = isinstance(found.line, FairLine)
                place = found.line.next(bounds.within if inside else bounds)
                if place is not None:
                    self._begin(place, found)
                    return place
        return None

    def ready(self, bounds: Bounds) -> bool:
        """
        Say whether it is worth while to ask for the next one.

        @param bounds: how many may be in progress.
        @return: false if there is certainly none.
        """
        return bool(self._line) and self.begun < bounds.most

    def begunWith(self, source: Hashable) -> int:
        """
        Count the handshakes with a peer.

        @param source: the peer, as L{Place.source} has it.
        @return: how many are in progress.
        """
        found = self._peers.get(source)
        return 0 if found is None else found.begun

    def _begin(self, place: _Place, found: _Peer[_Place]) -> None:
        place.begun = True
        found.begun += 1
        found.waiting -= 1
        self.begun += 1
        self.waiting -= 1
        self._comeBack(found)

    def _leave(self, place: _Place) -> None:
        key = self._peerOf(place)
        found = self._peers[key]
        if place.begun:
            self.begun -= 1
            found.begun -= 1
        else:
            self.waiting -= 1
            found.waiting -= 1
        if isinstance(found.line, FairLine):
            found.line._leave(place)
        else:
            found.line.leave(place)
        if found.waiting or found.begun:
            self._comeBack(found)
        else:
            del self._peers[key]

    def _comeBack(self, found: _Peer[_Place]) -> None:
        """Put a peer with requests that wait into the next round."""
        first = found.line.first
        if first is not None and found.waiting and not found.inLine:
            found.inLine = True
            heapq.heappush(self._line, (self._round + 1, first, found))
