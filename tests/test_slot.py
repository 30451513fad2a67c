"""Tests for L{ktlsagent.processes.slot}: what the parent and a worker share."""

from __future__ import annotations

import errno
import math
import mmap
import os
import select

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ktlsagent.interfaces import IAnnouncements
from ktlsagent.processes.slot import Slot, SlotAnnouncements
from tests.support.agent import openDescriptors


class SlotTestCase(SynchronousTestCase):
    """
    Has both ends of a slot.

    @ivar near: the parent's.
    @ivar far: the worker's, which maps the page itself.
    @ivar announcements: the worker's announcements.
    @ivar said: what they tell the parent.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.near = Slot.make()
        self.addCleanup(self.near.close)
        self.far = Slot(os.dup(self.near.memory), os.dup(self.near.bell))
        self.addCleanup(self.far.close)
        self.said: list[tuple[str, bytes]] = []
        self.announcements = SlotAnnouncements(
            self.clock, self.far, lambda word, value: self.said.append((word, value))
        )

    def rung(self) -> bool:
        """
        Look whether the worker would wake up.

        @return: true if so.
        """
        return bool(select.select([self.announcements.fileno()], [], [], 0)[0])


class TokenTests(SlotTestCase):
    """Tokens."""

    def test_interface(self) -> None:
        """It is what an agent needs."""
        self.assertTrue(verifyObject(IAnnouncements, self.announcements))

    def test_given(self) -> None:
        """What the one gives is due to the other until it has settled it."""
        self.announcements.begin()
        self.assertEqual((self.announcements.due(), self.near.outstanding), (0, 0))
        self.near.give(0.0)
        self.near.give(0.0)
        self.assertEqual((self.announcements.due(), self.near.outstanding), (2, 2))
        self.announcements.settled(0)
        self.assertEqual((self.announcements.due(), self.near.outstanding), (0, 0))
        self.assertEqual((self.near.taken, self.said), (2, []))

    def test_givenMeanwhile(self) -> None:
        """What is given while others are settled stays due."""
        self.near.give(0.0)
        self.announcements.due()
        self.near.give(0.0)
        self.announcements.settled(0)
        self.assertEqual(self.announcements.due(), 1)

    def test_wraps(self) -> None:
        """Four thousand million tokens are not too many."""
        words = memoryview(mmap.mmap(self.near.memory, mmap.PAGESIZE)).cast("I")
        self.near.given = words[0] = words[16] = 2**32 - 1
        self.near.give(0.0)
        self.assertEqual((self.near.outstanding, self.announcements.due()), (1, 1))
        self.announcements.settled(0)
        self.assertEqual((self.near.outstanding, self.near.taken), (0, 0))

    def test_bell(self) -> None:
        """The bell is heard once, however often it was rung, and wakes only who has not heard."""
        self.assertFalse(self.rung())
        self.near.ring()
        self.near.ring()
        self.assertTrue(self.rung())
        self.announcements.heard()
        self.assertFalse(self.rung())
        self.announcements.heard()

    def test_bellIsFull(self) -> None:
        """A worker that hears nothing does not keep the parent from going on."""
        os.eventfd_write(self.near.bell, 2**64 - 2)
        self.near.ring()
        self.assertTrue(self.rung())

    def test_noRoom(self) -> None:
        """Who has no room is passed over, and says what it gives back, and when there is room."""
        for _token in range(3):
            self.near.give(0.0)
        self.announcements.due()
        self.announcements.settled(2)
        self.assertEqual((self.near.state()[-1], self.near.outstanding), (True, 0))
        self.assertEqual(self.said, [("back", b"")])
        self.assertEqual((self.near.returning, self.near.reclaim(), self.near.reclaim()), (2, 2, 0))
        self.near.give(0.0)
        self.announcements.due()
        self.announcements.settled(0)
        self.assertTrue(self.near.state()[-1])
        self.announcements.room()
        self.assertEqual((self.near.state()[-1], self.said[1:]), (False, [("room", b"")]))

    def test_end(self) -> None:
        """Who ends gives back what it has not taken, and takes nothing any more."""
        self.announcements.end()
        self.assertEqual((self.near.state()[-1], self.said), (True, []))
        self.near.give(0.0)
        self.announcements.end()
        self.assertEqual((self.said, self.near.reclaim()), ([("back", b"")], 1))


class TimeTests(SlotTestCase):
    """When requests were announced."""

    def take(self, number: int, patience: float = 5.0) -> list[float | None]:
        """
        Take requests.

        @param number: how many.
        @param patience: for how long the kernel waits for each.
        @return: when they were announced.
        """
        return [self.announcements.announced(patience) for _request in range(number)]

    def test_announced(self) -> None:
        """The worker knows of each request what the parent knows."""
        self.clock.advance(10)
        self.assertEqual(self.take(1), [None])
        for announced in (7.25, 8.5):
            self.near.give(announced)
        self.announcements.due()
        self.announcements.due()
        self.near.give(9.0)
        self.assertEqual(self.take(3), [7.25, 8.5, None])
        self.announcements.settled(0)
        self.announcements.due()
        self.assertEqual(self.take(2), [9.0, None])

    def test_tooOld(self) -> None:
        """What the kernel has given up is not what was taken."""
        for announced in (1.0, 4.0):
            self.near.give(announced)
        self.clock.advance(8)
        self.announcements.due()
        self.assertEqual(self.take(2), [4.0, None])

    def test_settled(self) -> None:
        """What was given back, or was not there, is nobody's time any more."""
        for left in (0, 2):
            self.near.give(1.0)
            self.near.give(2.0)
            self.announcements.due()
            self.announcements.settled(left)
            self.assertEqual(self.take(1), [None])

    def test_many(self) -> None:
        """Of more tokens than the kernel holds requests the newest times are known."""
        for announced in range(1000):
            self.near.give(float(announced))
        self.announcements.due()
        self.assertEqual(self.take(51, math.inf), [*map(float, range(950, 1000)), None])

    def test_wraps(self) -> None:
        """Times come with tokens whose number begins again at 0."""
        words = memoryview(mmap.mmap(self.near.memory, mmap.PAGESIZE)).cast("I")
        self.near.given = words[0] = words[16] = 2**32 - 1
        self.announcements.due()
        self.announcements.settled(0)
        self.near.give(1.0)
        self.near.give(2.0)
        self.announcements.due()
        self.assertEqual(self.take(3), [1.0, 2.0, None])

    def test_foretold(self) -> None:
        """A worker that begins knows of what waits, until it has taken it."""
        self.near.foretell([1.0, 2.0, 3.0])
        self.near.foretell([2.0, 3.0])
        self.announcements.begin()
        self.assertEqual(self.take(1), [2.0])
        self.announcements.settled(0)
        self.near.give(4.0)
        self.announcements.due()
        self.assertEqual(self.take(2), [4.0, None])

    def test_returnedWraps(self) -> None:
        """As many tokens may be given back as may be given."""
        words = memoryview(mmap.mmap(self.near.memory, mmap.PAGESIZE)).cast("I")
        self.near.reclaimed = words[22] = 2**32 - 1
        self.near.give(0.0)
        self.near.give(0.0)
        self.announcements.due()
        self.announcements.settled(2)
        self.assertEqual((self.near.reclaim(), self.near.returning), (2, 0))


class LoadTests(SlotTestCase):
    """What the parent knows of the worker."""

    def test_load(self) -> None:
        """The parent knows what the worker has to do."""
        self.near.give(0.0)
        self.announcements.due()
        self.announcements.settled(0)
        self.announcements.load(7, 1.5, busy=True, crowded=False)
        self.assertEqual(self.near.state(), (1, 7, True, False, False))
        self.announcements.load(8, 1.5, busy=False, crowded=True)
        self.assertEqual(self.near.state(), (1, 8, False, True, False))

    def test_latest(self) -> None:
        """The parent knows the latest deadline, rounded up."""
        self.announcements.load(1, 1234567.25, busy=False, crowded=False)
        self.assertEqual(self.near.latest, 1234568)


class MakeTests(SynchronousTestCase):
    """Descriptors."""

    def test_closed(self) -> None:
        """Nothing is left of a slot that is closed."""
        before = openDescriptors()
        slot = Slot.make()
        self.assertEqual(len(openDescriptors()), len(before) + 3)
        for descriptor in slot.memory, slot.bell:
            self.assertFalse(os.get_inheritable(descriptor))
        slot.close()
        self.assertEqual(openDescriptors(), before)

    def test_noDescriptors(self) -> None:
        """Nothing is left of a slot that could not be made, wherever that failed."""
        before = openDescriptors()

        def refuse(*_arguments: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        for module, function in ((mmap, "mmap"), (os, "eventfd"), (os, "ftruncate")):
            self.patch(module, function, refuse)
            self.assertRaises(OSError, Slot.make)
            self.assertEqual(openDescriptors(), before)
