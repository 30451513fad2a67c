"""Tests for L{ktlsagent.processes.dispatcher}: who gets a request."""

from __future__ import annotations

import os
import select

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.processes.dispatcher import Dispatcher
from ktlsagent.processes.slot import Slot, SlotAnnouncements


class DispatcherTests(SynchronousTestCase):
    """
    Tests for L{Dispatcher}.

    @ivar slots: the parent's ends.
    @ivar workers: the workers' ends.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.dispatcher = Dispatcher(self.clock, 100)
        self.slots: list[Slot] = []
        self.workers: list[SlotAnnouncements] = []

    def tearDown(self) -> None:
        self.dispatcher.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def said(self, word: str, value: bytes) -> None:
        """
        Hear what a worker says, as the parent does.

        @param word: what about.
        @param value: the rest.
        """
        if word == "back":
            self.dispatcher.announce(int(value))
        else:
            self.dispatcher.room()

    def add(self, number: int) -> None:
        """
        Begin workers.

        @param number: how many.
        """
        for _worker in range(number):
            near = Slot.make()
            self.addCleanup(near.close)
            far = Slot(os.dup(near.memory), os.dup(near.bell))
            self.addCleanup(far.close)
            self.slots.append(near)
            self.workers.append(SlotAnnouncements(far, self.said))
            self.dispatcher.add(near)

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
