"""Tests for L{ktlsagent.fairness}."""

from __future__ import annotations

from collections import Counter, defaultdict
from ipaddress import ip_address

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

from ktlsagent.fairness import Bounds, FairLine, Place, boundsFor, sourceOf
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


class _LineTestCase(SynchronousTestCase):
    """Has a line."""

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


class FairLineTests(_LineTestCase):
    """Tests for L{FairLine}."""

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


class SourceTests(SynchronousTestCase):
    """Tests for L{sourceOf}: whose addresses are the same peer's."""

    def assertSources(self, *groups: tuple[str, ...]) -> None:
        """
        Check that the addresses of a group are one peer's, and no others.

        @param groups: the groups.
        """
        sources = [{sourceOf(ip_address(address)) for address in group} for group in groups]
        self.assertEqual([len(found) for found in sources], [1] * len(groups))
        self.assertEqual(len(set.union(*sources)), len(groups))

    def test_ipv4(self) -> None:
        """An IPv4 address is a peer."""
        self.assertSources(("192.0.2.1",), ("192.0.2.2",))
        self.assertEqual(sourceOf(ip_address("192.0.2.1")), ip_address("192.0.2.1"))

    def test_ipv6(self) -> None:
        """An IPv6 network of 64 bits is one."""
        self.assertSources(
            ("2001:db8::1", "2001:db8::2", "2001:db8::ffff:ffff:ffff:ffff"),
            ("2001:db8:0:1::1",),
            ("2001:db8:1::1", "2001:db8:1::"),
            ("fd00::1", "fd00::2"),
            ("::1", "::2"),
        )

    def test_linkLocal(self) -> None:
        """A link is one; the network's number is the same on all links."""
        self.assertSources(
            ("fe80::1%eth0", "fe80::2%eth0"), ("fe80::1%eth1",), ("fe80::1", "fe80::2")
        )

    def test_translated(self) -> None:
        """Behind a translator for all of IPv4 each IPv4 address is one."""
        self.assertSources(
            ("64:ff9b::192.0.2.1",),
            ("64:ff9b::192.0.2.2",),
            ("64:ff9b:1:2:3::192.0.2.1",),
            ("64:ff9b:1:2:3::192.0.2.2",),
            ("64:ff9b:2::1", "64:ff9b:2::2"),
        )

    def test_6to4(self) -> None:
        """All networks that one IPv4 address makes (6to4) are one peer's."""
        self.assertSources(
            ("2002:c000:0201::1", "2002:c000:0201:1::1", "2002:c000:0201:ffff::"),
            ("2002:c000:0202::1",),
        )

    def test_anythingElse(self) -> None:
        """A peer that has no address is like an address."""
        self.assertIsNone(sourceOf(None))
        self.assertEqual(sourceOf("2001:db8::1"), "2001:db8::1")


class NetworkTests(_LineTestCase):
    """Tests for L{FairLine} with peers that have networks."""

    def addresses(self, network: str, number: int) -> list[object]:
        """
        Make addresses of a network.

        @param network: the beginning of each.
        @param number: how many.
        @return: the addresses.
        """
        return [ip_address(f"{network}::{at + 1:x}") for at in range(number)]

    def test_manyAddressesOfOne(self) -> None:
        """Who takes another address for each request is one peer, with one peer's share."""
        for address in self.addresses("2001:db8:bad", 200):
            self.enter(address, 1)
        modest = [self.enter(address, 1000) for address in self.addresses("2001:db8:1", 3)]
        modest.append(self.enter(ip_address("192.0.2.1"), 1000))
        order = self.all(Bounds(100, 10))
        self.assertEqual(len(order), 14)
        self.assertLess(max(order.index(place) for place in modest), 7)
        self.assertEqual(self.line.begunWith(sourceOf(ip_address("2001:db8:bad::1"))), 10)

    def test_neighbours(self) -> None:
        """Of a LAN with one network nobody waits for a greedy neighbour."""
        greedy, *others = self.addresses("2001:db8", 6)
        for number in range(200):
            self.enter(greedy, number)
        five = [self.enter(address, 1000) for address in others]
        order = self.all()
        self.assertEqual(len(order), 205)
        self.assertLess(max(order.index(place) for place in five), 8)

    def test_silentNeighbour(self) -> None:
        """One of several addresses has half of their network's places at the most."""
        silent, other = self.addresses("2001:db8", 2)
        places = [self.enter(silent) for _number in range(9)]
        bounds = Bounds(100, 7)
        self.assertEqual(self.all(bounds), places[:4])
        late = [self.enter(other) for _number in range(9)]
        self.assertEqual(self.all(bounds), late[:3])
        self.line.leave(places[0])
        self.assertEqual(self.all(bounds), [places[4]])
        self.line.leave(late[0])
        self.assertEqual(self.all(bounds), [late[3]])
        for place in [*places, *late]:
            self.line.leave(place)
        self.assertEqual((self.line.waiting, self.line.begun, self.line._peers), (0, 0, {}))

    def test_one(self) -> None:
        """With a bound of 1 there is 1, as for any other peer."""
        first, second = self.addresses("2001:db8", 2)
        places = [self.enter(first), self.enter(second)]
        self.assertEqual(self.all(Bounds(9, 1)), places[:1])
        self.line.leave(places[0])
        self.assertEqual(self.all(Bounds(9, 1)), places[1:])

    @patient
    @given(
        st.lists(
            st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 9))
            | st.integers(0, 60)
            | st.none(),
            max_size=80,
        )
    )
    def test_anyOrder(self, does: list[tuple[int, int, int] | int | None]) -> None:
        """
        Whoever comes, begins and leaves in whatever order: the bounds hold, and nobody
        waits who may begin.
        """
        line: FairLine[Place] = FairLine()
        bounds = Bounds(6, 3)
        known: list[Place] = []
        for what in does:
            if isinstance(what, tuple):
                network, address, deadline = what
                known.append(Place(ip_address(f"2001:db8:{network}::{address:x}"), deadline))
                line.enter(known[-1])
            elif what is not None and known:
                line.leave(known.pop(what % len(known)))
            elif what is None:
                begun = Counter(place.source for place in known if place.begun)
                held = Counter(place.peer for place in known if place.begun)
                may = [
                    place
                    for place in known
                    if not place.begun and begun[place.source] < 3 and held[place.peer] < 2
                ]
                place = line.next(bounds)
                if may and begun.total() < 6:
                    self.assertIn(place, may)
                else:
                    self.assertIsNone(place)
            self.assertEqual(line.begun, sum(place.begun for place in known))
            self.assertEqual(line.waiting, len(known) - line.begun)
        for place in known:
            line.leave(place)
        self.assertEqual((line.waiting, line.begun, line._peers), (0, 0, {}))


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
