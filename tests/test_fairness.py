"""Tests for L{ktlsagent.fairness}."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.fairness import Bounds, FairLine, Place, boundsFor
from tests.support.properties import patient

GIBI = 2**30
MANY = Bounds(10**6, 10**6)
BOUNDS = Bounds(4, 2)

_requests = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 20)), max_size=60)


class BoundsTests(SynchronousTestCase):
    """Tests for L{boundsFor} and L{Bounds}."""

    @given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 70))
    def test_shared(self, most: int, mostPerPeer: int, number: int) -> None:
        """Workers have together what was to be divided, each nearly the same, and at least 1."""
        shares = [Bounds(most, mostPerPeer).share(place, number) for place in range(1, number + 1)]
        for bound, found in (
            (most, [share.most for share in shares]),
            (mostPerPeer, [share.mostPerPeer for share in shares]),
        ):
            self.assertEqual(sum(found), max(bound, number))
            self.assertLessEqual(max(found) - min(found), 1)

    def test_derived(self) -> None:
        """What is not configured is as much as memory, descriptors and the kernel allow."""
        for memory, descriptors, expected in (
            (64 * GIBI, 16384, Bounds(1024, 256)),
            (64 * GIBI, 1024, Bounds(512, 128)),
            (GIBI, 16384, Bounds(512, 128)),
            (2**20, 3, Bounds(1, 1)),
        ):
            self.assertEqual(boundsFor(None, None, memory, descriptors), expected)

    def test_configured(self) -> None:
        """What is configured counts, and a peer's share is derived from it."""
        self.assertEqual(boundsFor(3000, None, GIBI, 1024), Bounds(3000, 750))
        self.assertEqual(boundsFor(None, 5, 64 * GIBI, 16384), Bounds(1024, 5))
        self.assertEqual(boundsFor(2, None, GIBI, 1024), Bounds(2, 1))


class FairLineTests(SynchronousTestCase):
    """Tests for L{FairLine}."""

    def setUp(self) -> None:
        self.line: FairLine[Place] = FairLine()

    def enter(self, peer: object, deadline: float = 0.0) -> Place:
        """
        Take a place in the line.

        @param peer: the peer.
        @param deadline: the deadline.
        @return: the place.
        """
        place = Place(peer, deadline)
        self.line.enter(place)
        return place

    def all(self, bounds: Bounds = MANY) -> list[Place]:
        """
        Let all begin who may.

        @param bounds: the bounds.
        @return: their places, in order.
        """
        begun = []
        while (place := self.line.next(bounds)) is not None:
            begun.append(place)
        return begun

    def test_empty(self) -> None:
        """Nobody waits."""
        self.assertIsNone(self.line.next(MANY))
        self.assertFalse(self.line.ready(MANY))

    def test_hundredsAndFive(self) -> None:
        """Two hundred requests of one peer do not keep five of another waiting."""
        for number in range(200):
            self.enter("greedy", number)
        five = [self.enter("modest", 1000 + number) for number in range(5)]
        order = self.all()
        self.assertEqual(len(order), 205)
        self.assertLess(max(order.index(place) for place in five), 10)

    def test_earliestDeadlineAmongPeers(self) -> None:
        """Of peers with a request each the one with the earliest deadline goes first."""
        for peer, deadline in (("a", 3), ("b", 1), ("c", 2)):
            self.enter(peer, deadline)
        self.assertEqual([place.peer for place in self.all()], ["b", "c", "a"])

    def test_streamOfNewPeers(self) -> None:
        """New peers without end, each in a hurry, do not keep an old one waiting."""
        self.enter("old", 100)
        patient = self.enter("old", 100)
        begun = []
        for number in range(10):
            self.enter(number, 1)
            begun.append(self.line.next(MANY))
        self.assertIn(patient, begun[:6])

    def test_peerAtItsBound(self) -> None:
        """A peer at its bound comes back when one of its handshakes is over."""
        first, second = self.enter("a"), self.enter("a")
        bounds = Bounds(9, 1)
        self.assertEqual(self.all(bounds), [first])
        self.assertEqual(self.line.begunWith("a"), 1)
        self.line.leave(first)
        self.assertEqual(self.all(bounds), [second])

    def test_leftTwice(self) -> None:
        """A place that was given back is left alone."""
        place = self.enter("a")
        self.line.leave(place)
        self.line.leave(place)
        self.assertEqual((self.line.waiting, self.line.begun, self.all()), (0, 0, []))
        self.assertEqual(self.line.begunWith("a"), 0)

    def test_stalePlaceInTheLine(self) -> None:
        """A peer that left and came back is in the line once."""
        self.line.leave(self.enter("a"))
        again, third = self.enter("a"), self.enter("a")
        other = self.enter("b")
        self.assertEqual(self.all(), [again, other, third])

    @patient
    @given(_requests)
    def test_earliestDeadlineOfAPeer(self, requests: list[tuple[int, int]]) -> None:
        """Of one peer's requests the one with the earliest deadline goes first."""
        self.line = FairLine()
        for peer, deadline in requests:
            self.enter(peer, deadline)
        order = self.all()
        self.assertEqual(len(order), len(requests))
        for peer in range(5):
            deadlines = [place.deadline for place in order if place.peer == peer]
            self.assertEqual(deadlines, sorted(deadlines))

    @patient
    @given(_requests)
    def test_equalShares(self, requests: list[tuple[int, int]]) -> None:
        """As long as two peers wait, neither has begun two more than the other."""
        self.line = FairLine()
        waiting = Counter(peer for peer, _deadline in requests)
        for peer, deadline in requests:
            self.enter(peer, deadline)
        begun: Counter[object] = Counter()
        for place in self.all():
            begun[place.peer] += 1
            shares = [begun[peer] for peer in waiting if begun[peer] < waiting[peer]]
            self.assertLessEqual(max(begun.values()) - min(shares, default=10**6), 1)


class FairLineMachine(RuleBasedStateMachine):
    """Requests come, begin, end and give up in any order."""

    places = Bundle("places")

    def __init__(self) -> None:
        super().__init__()
        self.line: FairLine[Place] = FairLine()
        self.known: list[Place] = []
        # How often each other peer has begun while a peer could have.
        self.overtaken: defaultdict[int, Counter[object]] = defaultdict(Counter)

    def held(self, peer: object) -> int:
        """Count what a peer has in progress."""
        return sum(place.begun and not place.left for place in self.known if place.peer == peer)

    def waits(self, peer: object) -> list[Place]:
        """List what a peer waits for."""
        return [
            place for place in self.known if place.peer == peer and not (place.begun or place.left)
        ]

    @rule(target=places, peer=st.integers(0, 4), deadline=st.integers(0, 9))
    def enter(self, peer: int, deadline: int) -> Place:
        """A request comes."""
        place = Place(peer, deadline)
        self.line.enter(place)
        self.known.append(place)
        return place

    @rule(place=consumes(places))
    def leave(self, place: Place) -> None:
        """A request is over, or gives up."""
        self.line.leave(place)

    @rule()
    def next(self) -> None:
        """The next one begins."""
        total = self.line.begun
        eligible = {
            peer for peer in range(5) if self.waits(peer) and self.held(peer) < BOUNDS.mostPerPeer
        }
        could = {peer: self.waits(peer) for peer in eligible}
        place = self.line.next(BOUNDS)
        if total >= BOUNDS.most or not eligible:
            assert place is None
            return
        assert place is not None, "somebody may begin, and does"
        assert place.peer in eligible, "within the bounds"
        assert place.deadline == min(one.deadline for one in could[place.peer])
        for peer in range(5):
            if peer not in eligible or peer == place.peer:
                self.overtaken[peer] = Counter()
            else:
                self.overtaken[peer][place.peer] += 1
                assert self.overtaken[peer][place.peer] <= 2, "nobody starves"

    @invariant()
    def counts(self) -> None:
        """The line knows who waits and who is in progress, and forgets all others."""
        live = [place for place in self.known if not place.left]
        assert self.line.begun == sum(place.begun for place in live) <= BOUNDS.most
        assert self.line.waiting == len(live) - self.line.begun
        assert set(self.line._peers) == {place.peer for place in live}


class FairLineMachineTests(SynchronousTestCase):
    """Tests for L{FairLine}, in any order."""

    def test_machine(self) -> None:
        """Whatever happens, the bounds hold, and nobody starves."""
        few = settings(patient, max_examples=50, stateful_step_count=40)
        run_state_machine_as_test(FairLineMachine, settings=few)
