"""
Who may begin next: the line of the requests that wait for their turn, without a
clock and without a socket.

In each round every peer that waits gets one turn, the earliest deadline first; who
comes while a round runs is in the next one.  So a peer that asks for hundreds of
handshakes waits for itself, and nobody else waits for it.  Of the requests of one
peer the one with the earliest deadline goes first.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    How many handshakes may be in progress.

    @ivar most: with all peers together.
    @ivar mostPerPeer: with one peer.
    """

    most: int
    mostPerPeer: int

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


class Place:
    """
    A place in the line, and afterwards among those in progress.

    @ivar peer: whose request it is.
    @ivar deadline: until when its turn is of use.
    @ivar begun: whether it had its turn.
    @ivar left: whether it is over, or nobody waits any more.
    """

    __slots__ = ("begun", "deadline", "left", "peer")

    def __init__(self, peer: Hashable, deadline: float) -> None:
        """
        @param peer: whose request it is.
        @param deadline: until when its turn is of use.
        """
        self.peer = peer
        self.deadline = deadline
        self.begun = False
        self.left = False


_Place = TypeVar("_Place", bound=Place)


class _Peer(Generic[_Place]):
    """The requests of one peer: those that wait, and how many are in progress."""

    __slots__ = ("begun", "inLine", "peer", "waiting")

    def __init__(self, peer: Hashable) -> None:
        self.peer = peer
        # A heap, whose first one has not left.
        self.waiting: list[tuple[float, int, _Place]] = []
        self.begun = 0
        self.inLine = False


class FairLine(Generic[_Place]):
    """
    The line.  Each operation takes a time that grows with the logarithm of its length.

    @ivar waiting: how many wait.
    @ivar begun: how many are in progress.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.begun = 0
        self._order = itertools.count()
        self._round = 0
        self._peers: dict[Hashable, _Peer[_Place]] = {}
        self._line: list[tuple[int, float, int, _Peer[_Place]]] = []

    def enter(self, place: _Place) -> None:
        """
        Take a place in the line.

        @param place: a new place; it is to be given back by L{leave}.
        """
        found = self._peers.get(place.peer)
        if found is None:
            found = self._peers[place.peer] = _Peer(place.peer)
        heapq.heappush(found.waiting, (place.deadline, next(self._order), place))
        self.waiting += 1
        self._comeBack(found)

    def leave(self, place: _Place) -> None:
        """
        Give a place back: the handshake is over, or nobody waits for its turn any more.

        @param place: the place; one that was given back before is left alone.
        """
        if place.left:
            return
        place.left = True
        found = self._peers[place.peer]
        if place.begun:
            self.begun -= 1
            found.begun -= 1
        else:
            self.waiting -= 1
        self._tidy(found)
        self._comeBack(found)

    def next(self, bounds: Bounds) -> _Place | None:
        """
        Let the next one begin.

        @param bounds: how many may be in progress.
        @return: whose turn it is; C{None} if nobody waits, or nobody may begin.
        """
        while self.ready(bounds):
            self._round, _deadline, _number, found = heapq.heappop(self._line)
            found.inLine = False
            # A peer with too many in progress comes back when one of them is over.
            if found.waiting and found.begun < bounds.mostPerPeer:
                return self._begin(found)
        return None

    def ready(self, bounds: Bounds) -> bool:
        """
        Say whether it is worth while to ask for the next one.

        @param bounds: how many may be in progress.
        @return: false if there is certainly none.
        """
        return bool(self._line) and self.begun < bounds.most

    def begunWith(self, peer: Hashable) -> int:
        """
        Count the handshakes with a peer.

        @param peer: the peer.
        @return: how many are in progress.
        """
        found = self._peers.get(peer)
        return 0 if found is None else found.begun

    def _begin(self, found: _Peer[_Place]) -> _Place:
        place = heapq.heappop(found.waiting)[-1]
        place.begun = True
        found.begun += 1
        self.begun += 1
        self.waiting -= 1
        self._tidy(found)
        self._comeBack(found)
        return place

    def _comeBack(self, found: _Peer[_Place]) -> None:
        """Put a peer with requests that wait into the next round."""
        if found.waiting and not found.inLine:
            found.inLine = True
            deadline, number, _first = found.waiting[0]
            heapq.heappush(self._line, (self._round + 1, deadline, number, found))

    def _tidy(self, found: _Peer[_Place]) -> None:
        """Forget who has left, and a peer of whom nobody is left."""
        while found.waiting and found.waiting[0][-1].left:
            heapq.heappop(found.waiting)
        if not (found.waiting or found.begun):
            del self._peers[found.peer]
