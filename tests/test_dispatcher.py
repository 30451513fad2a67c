"""Tests for L{ktlsagent.processes.dispatcher}: who gets a request."""

from __future__ import annotations

import os
import select
from contextlib import ExitStack
from functools import partial
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.processes.dispatcher import Dispatcher
from ktlsagent.processes.slot import Slot, SlotAnnouncements
from tests.support.properties import patient


class DispatcherTestCase(SynchronousTestCase):
    """
    Has workers.

    @ivar slots: the parent's ends.
    @ivar workers: the workers' ends.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.dispatcher = Dispatcher(self.clock, 100)
        self.slots: list[Slot] = []
        self.workers: list[SlotAnnouncements] = []
        self.ends = ExitStack()

    def tearDown(self) -> None:
        self.dispatcher.stop()
        self.ends.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def said(self, slot: Slot, word: str, _value: bytes) -> None:
        """
        Hear what a worker says, as the parent does.

        @param slot: whose word it is.
        @param word: what about.
        """
        if word == "back":
            self.dispatcher.back(slot)
        else:
            self.dispatcher.room()

    def add(self, number: int) -> None:
        """
        Begin workers.

        @param number: how many.
        """
        for _worker in range(number):
            self.dispatcher.add(self.expect())

    def expect(self) -> Slot:
        """
        Start a worker.

        @return: the parent's end of its slot.
        """
        near = Slot.make()
        self.ends.callback(near.close)
        far = Slot(os.dup(near.memory), os.dup(near.bell))
        self.ends.callback(far.close)
        self.slots.append(near)
        self.workers.append(SlotAnnouncements(self.clock, far, partial(self.said, near)))
        self.dispatcher.expect(near)
        return near

    def given(self) -> list[int]:
        """
        Say how many tokens each worker has.

        @return: the numbers.
        """
        return [slot.outstanding for slot in self.slots]

    def woken(self) -> list[int]:
        """
        Let those wake up that have been called.

        @return: their numbers.
        """
        found = []
        for number, worker in enumerate(self.workers):
            if select.select([worker.fileno()], [], [], 0)[0]:
                worker.heard()
                found.append(number)
        return found

    def take(self, *numbers: int) -> None:
        """
        Have workers take all their tokens.

        @param numbers: theirs.
        """
        for number in numbers:
            self.workers[number].due()
            self.workers[number].settled(0)

    def busy(self, number: int, inFlight: int, *, busy: bool = True, crowded: bool = False) -> None:
        """
        Have a worker say what it has to do.

        @param number: its number.
        @param inFlight: its requests.
        @param busy: whether it has something to do now.
        @param crowded: whether it can begin nothing.
        """
        self.workers[number].load(inFlight, 0.0, busy=busy, crowded=crowded)


class DispatcherTests(DispatcherTestCase):
    """Who gets tokens."""

    def test_oneWakesOne(self) -> None:
        """One READY wakes one worker, of however many."""
        self.add(16)
        self.dispatcher.announce(1)
        self.assertEqual((sum(self.given()), len(self.woken())), (1, 1))

    def test_none(self) -> None:
        """If nothing was announced nobody is woken."""
        self.add(2)
        self.dispatcher.announce(0)
        self.assertEqual((self.given(), self.woken()), ([0, 0], []))

    def test_spread(self) -> None:
        """Several that come at once are spread, and each worker is woken once."""
        self.add(3)
        self.dispatcher.announce(7)
        self.assertEqual(sorted(self.given()), [2, 2, 3])
        self.assertEqual(self.woken(), [0, 1, 2])

    def test_leastToDo(self) -> None:
        """Who has the least to do gets it."""
        self.add(4)
        self.busy(0, 5)
        self.busy(1, 2)
        self.busy(2, 900, busy=False)
        self.busy(3, 1, busy=False, crowded=True)
        for expected in ([0, 0, 1, 0], [0, 0, 2, 0]):
            self.dispatcher.announce(1)
            self.assertEqual(self.given(), expected)
        self.busy(2, 900)
        self.dispatcher.announce(4)
        self.assertEqual(self.given(), [1, 3, 2, 0])

    def test_moreThanProcessors(self) -> None:
        """
        More workers than processors get nothing while the first ones take it and may
        begin with it: a busy one does not wait for a processor but has it.
        """
        self.dispatcher = Dispatcher(self.clock, 2)
        self.add(4)
        self.busy(0, 7)
        self.busy(1, 8)
        self.dispatcher.announce(3)
        self.assertEqual(self.given(), [2, 1, 0, 0])
        self.take(0)
        self.busy(1, 8, crowded=True)
        self.dispatcher.announce(1)
        self.assertEqual(self.given(), [0, 1, 1, 0])

    def test_unknown(self) -> None:
        """If nobody knows how many wait, all together ask as often as the kernel holds requests."""
        self.add(3)
        self.dispatcher.announce(None)
        self.assertEqual((sum(self.given()), max(self.given())), (50, 17))

    def test_bounded(self) -> None:
        """However many are announced, nobody asks for more than the kernel can hold."""
        self.add(1)
        self.dispatcher.announce(100000)
        self.assertEqual(self.given(), [50])

    def test_beforeAnybody(self) -> None:
        """What comes before the first worker waits for it, within the same bound."""
        for number in (3, None, 100000):
            self.dispatcher.announce(number)
        self.add(2)
        self.assertEqual(self.given(), [50, 0])

    def test_full(self) -> None:
        """What a worker has no room for others get, and it gets no more until it has."""
        self.add(2)
        self.dispatcher.announce(3)
        self.workers[0].due()
        self.workers[0].settled(2)
        self.assertEqual(sum(self.given()), 3)
        self.assertEqual(self.given()[0], 0)
        self.take(1)
        self.dispatcher.announce(4)
        self.assertEqual(self.given(), [0, 4])
        self.workers[0].room()
        self.take(1)
        self.dispatcher.announce(2)
        self.assertEqual(self.given(), [1, 1])

    def test_allFull(self) -> None:
        """What nobody has room for waits, until somebody has."""
        self.add(2)
        self.dispatcher.announce(2)
        for worker in self.workers:
            worker.due()
            worker.settled(1)
        # The second one was given what the first one had, and has given both back.
        self.workers[1].due()
        self.workers[1].settled(1)
        self.assertEqual(self.given(), [0, 0])
        self.dispatcher.announce(1)
        self.workers[0].room()
        self.assertGreaterEqual(self.given()[0], 3)
        self.assertEqual(self.given()[1], 0)

    def test_dies(self) -> None:
        """What a dead worker had not taken others get."""
        self.add(3)
        self.dispatcher.announce(6)
        self.dispatcher.remove(self.slots[0])
        self.assertEqual(self.given(), [2, 3, 3])
        self.dispatcher.remove(self.slots[0])
        self.assertEqual(self.given(), [2, 3, 3])

    def test_lastDies(self) -> None:
        """What the last worker had not taken waits for the next one."""
        self.add(1)
        self.dispatcher.announce(2)
        self.dispatcher.remove(self.slots[0])
        self.add(1)
        self.assertEqual(self.given(), [2, 2])

    def test_hangs(self) -> None:
        """What a worker does not take soon another one gets too, once, and what comes next."""
        self.add(2)
        self.busy(1, 3)
        self.dispatcher.announce(1)
        self.assertEqual(self.given(), [1, 0])
        self.clock.pump([0.05, 0.05])
        self.assertEqual(self.given(), [1, 1])
        self.assertEqual(self.woken(), [0, 1])
        self.take(1)
        self.clock.pump([0.05] * 10)
        self.assertEqual(self.given(), [1, 0])
        self.dispatcher.announce(2)
        self.assertEqual(self.given(), [1, 2])

    def test_wakesUp(self) -> None:
        """A worker that goes on gets its share again."""
        self.add(2)
        self.busy(1, 3)
        self.dispatcher.announce(1)
        self.clock.pump([0.05] * 4)
        self.take(0, 1)
        self.dispatcher.announce(1)
        self.assertEqual(self.given(), [1, 0])

    def test_allHang(self) -> None:
        """If all hang, who comes first to itself takes all; and a new worker does."""
        self.add(2)
        self.dispatcher.announce(2)
        self.clock.pump([0.05] * 4)
        self.dispatcher.announce(1)
        self.assertEqual(sum(self.given()), 3)
        self.add(1)
        self.clock.pump([0.05] * 2)
        self.assertEqual(self.given()[2], 3)

    def test_longSteps(self) -> None:
        """A worker that takes what it has every time is not late, though there is always more."""
        self.add(2)
        self.busy(1, 1000)
        for _time in range(20):
            self.dispatcher.announce(1)
            self.clock.advance(0.018)
            self.take(0)
            self.dispatcher.announce(1)
            self.clock.advance(0.018)
        self.assertEqual(self.given()[1], 0)

    def test_restsAtRest(self) -> None:
        """While no token is out, nothing is looked at."""
        self.add(2)
        self.dispatcher.announce(2)
        self.take(0, 1)
        self.clock.advance(0.05)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TimeTests(DispatcherTestCase):
    """When requests were announced, as workers learn it."""

    def announce(self, now: float, number: int | None = 1) -> None:
        """
        Announce requests.

        @param now: the time.
        @param number: how many.
        """
        self.clock.rightNow = now
        self.dispatcher.announce(number)

    def times(self, worker: int, patience: float = 5.0) -> list[float | None]:
        """
        Have a worker take a request for each of its tokens.

        @param worker: its number.
        @param patience: for how long the kernel waits for each.
        @return: when it thinks that they were announced.
        """
        announcements = self.workers[worker]
        found = [announcements.announced(patience) for _token in range(announcements.due() or 0)]
        announcements.settled(0)
        return found

    def test_asInOneProcess(self) -> None:
        """A worker that takes all knows all, however late it is."""
        self.add(1)
        for now in (1.0, 2.0, 2.5):
            self.announce(now)
        self.assertEqual(self.times(0), [1.0, 2.0, 2.5])
        self.announce(3.0, 2)
        self.assertEqual(self.times(0), [3.0, 3.0])

    def test_othersMayBeFirst(self) -> None:
        """Who asks first gets the oldest request, whoever has got the token for it."""
        self.add(2)
        self.announce(1.0)
        self.announce(1.01)
        self.announce(1.02)
        self.assertEqual(self.given(), [2, 1])
        self.assertEqual((self.times(1), self.times(0)), ([1.0], [1.0, 1.01]))

    def test_taken(self) -> None:
        """What was taken makes what comes next no older, also while others have tokens."""
        self.add(2)
        self.announce(1.001)
        self.announce(1.002)
        self.take(0)
        self.announce(1.003)
        self.take(1)
        self.announce(1.004)
        self.assertEqual((self.times(0), self.times(1)), ([1.002], [1.003]))

    def test_hangs(self) -> None:
        """What one does not take keeps its time with another, and makes nothing else older."""
        self.add(2)
        self.busy(1, 3)
        self.announce(1.0, 2)
        self.clock.pump([0.05] * 2)
        self.assertEqual(self.times(1), [1.0, 1.0])
        self.clock.pump([0.05] * 2)
        self.announce(3.0)
        self.assertEqual(self.times(1), [3.0])
        # The first one wakes up, and finds nothing; what comes then is as old as it is.
        self.assertEqual(self.times(0), [1.0, 1.0])
        self.announce(4.0)
        self.assertEqual(self.times(0), [4.0])

    def test_dies(self) -> None:
        """What a dead worker had not taken keeps its time."""
        self.add(2)
        self.busy(1, 3)
        self.announce(1.0)
        self.clock.rightNow = 1.01
        self.dispatcher.remove(self.slots[0])
        self.assertEqual(self.times(1), [1.0])

    def test_givenBack(self) -> None:
        """What was given back keeps its time, also if more comes before the parent hears of it."""
        self.add(2)
        self.busy(1, 3)
        heard: list[str] = []
        self.patch(self.workers[0], "_say", lambda word, _value: heard.append(word))
        self.announce(1.0, 2)
        self.workers[0].due()
        self.workers[0].settled(2)
        self.announce(2.0)
        self.assertEqual(self.given(), [0, 1])
        self.assertEqual(heard, ["back"])
        self.dispatcher.back(self.slots[0])
        self.assertEqual(self.times(1), [1.0, 1.0, 2.0])

    def test_deadWithWhatItGaveBack(self) -> None:
        """What was given back is not lost if the worker dies before the parent hears of it."""
        self.add(2)
        self.busy(1, 3)
        self.patch(self.workers[0], "_say", lambda _word, _value: None)
        self.announce(1.0, 2)
        self.workers[0].due()
        self.workers[0].settled(2)
        self.dispatcher.remove(self.slots[0])
        self.assertEqual(self.times(1), [1.0, 1.0])

    def test_waits(self) -> None:
        """What nobody had room for keeps its time until somebody has."""
        self.add(1)
        self.announce(1.0)
        self.workers[0].due()
        self.workers[0].settled(1)
        self.announce(2.0)
        self.clock.rightNow = 4.0
        self.workers[0].room()
        self.assertEqual(self.times(0), [1.0, 2.0])

    def test_lost(self) -> None:
        """
        If nobody knows how many wait, the times of those that are known still are, and
        what comes later is not thought to be older than it is.
        """
        self.add(2)
        self.announce(1.0, 2)
        self.announce(1.001, None)
        self.assertEqual(self.times(0), [1.0, 1.0] + [1.001] * 24)
        self.assertEqual(self.times(1), [1.0, 1.0] + [1.001] * 24)
        self.announce(3.0)
        self.assertEqual(self.times(0), [3.0])

    def test_starts(self) -> None:
        """A worker that starts knows what waits for it, and no more when others have taken it."""
        self.announce(1.0)
        slot = self.expect()
        self.announce(2.0)
        self.workers[0].begin()
        self.assertEqual(
            [self.workers[0].announced(5.0) for _request in range(3)], [1.0, 2.0, None]
        )
        self.dispatcher.add(slot)
        second = self.expect()
        self.assertEqual(list(second.foretold), [])
        self.dispatcher.remove(second)

    def test_allHangForLong(self) -> None:
        """Of more announcements than the kernel holds requests the newest count."""
        self.add(1)
        for number in range(60):
            self.announce(1.0 + number / 100)
        self.assertEqual(self.times(0)[:50], [1.0 + number / 100 for number in range(10, 60)])

    @patient
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(("announce", "take", "back", "silent", "look", "die")),
                st.integers(0, 2),
                st.floats(0, 0.05),
            ),
            max_size=40,
        )
    )
    def test_neverTooLate(self, events: list[tuple[str, int, float]]) -> None:
        """
        Whatever workers do within the time that the kernel waits, each knows of each request
        that it takes when it was announced, or a time before.
        """
        self.tearDown()
        self.setUp()
        self.dispatcher = Dispatcher(self.clock, 2)
        self.add(3)
        pending: list[float] = []
        for what, number, seconds in events:
            self.clock.rightNow += seconds
            worker, slot = self.workers[number], self.slots[number]
            if what == "announce":
                pending.append(self.clock.rightNow)
                self.dispatcher.announce(1)
            elif what == "take":
                for _token in range(min(worker.due(), len(pending))):
                    thought = worker.announced(5.0)
                    assert thought is not None
                    self.assertLessEqual(thought, pending.pop(0))
                worker.settled(0)
                worker.room()
            elif what == "back":
                worker.settled(worker.due())
            elif what == "silent":
                with mock.patch.object(worker, "_say"):
                    worker.settled(worker.due())
            elif what == "look":
                self.clock.pump([0.03, 0.03])
            else:
                self.dispatcher.remove(slot)
                self.add(1)
                self.slots[number], self.workers[number] = self.slots.pop(), self.workers.pop()
