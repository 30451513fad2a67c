"""Tests for L{ktlsagent.stepqueue}."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.stepqueue import StepQueue


class StepQueueTests(SynchronousTestCase):
    """Tests for L{StepQueue}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = StepQueue(self.clock)
        self.ran: list[str] = []

    def step(self, name: str) -> Callable[[], None]:
        """
        Make a step.

        @param name: what it notes when it runs.
        @return: the step.
        """
        return lambda: self.ran.append(name)

    def test_notAtOnce(self) -> None:
        """A step does not run before the turn is over, and runs in the next one."""
        self.queue.add(1, self.step("a"))
        self.assertEqual(self.ran, [])
        self.clock.advance(0)
        self.assertEqual(self.ran, ["a"])

    def test_oneInATurn(self) -> None:
        """Between two steps the reactor gets its turn: only one call is ever scheduled."""
        for name in "abc":
            self.queue.add(1, self.step(name))
        turns = 0
        while self.clock.getDelayedCalls():
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.clock.getDelayedCalls()[0].cancel()
            self.queue._runOne()
            turns += 1
            self.assertEqual(len(self.ran), turns)
        self.assertEqual(self.ran, ["a", "b", "c"])

    def test_earliestDeadlineFirst(self) -> None:
        """The step with the earliest deadline goes first, whenever it was added."""
        self.queue.add(30, self.step("late"))
        self.queue.add(10, self.step("early"))
        self.queue.add(20, self.step("middle"))
        self.clock.advance(0)
        self.queue.add(15, self.step("new"))
        self.clock.pump([0] * 5)
        self.assertEqual(self.ran[0], "early")
        self.assertEqual(sorted(self.ran), ["early", "late", "middle", "new"])

    def test_equalDeadlines(self) -> None:
        """Steps with the same deadline keep their order: steps are not compared."""
        names = [str(number) for number in range(20)]
        for name in names:
            self.queue.add(1, self.step(name))
        self.clock.pump([0] * 25)
        self.assertEqual(self.ran, names)

    def test_stepAddsStep(self) -> None:
        """A step can add the next one, which waits for its turn like any other."""
        self.queue.add(2, lambda: self.queue.add(1, self.step("next")))
        self.queue.add(3, self.step("last"))
        self.clock.pump([0] * 5)
        self.assertEqual(self.ran, ["next", "last"])

    def test_stepThatRaises(self) -> None:
        """A bug in one step does not keep the others from running."""

        def bug() -> None:
            raise ZeroDivisionError

        self.queue.add(1, bug)
        self.queue.add(2, self.step("other"))
        self.assertRaises(ZeroDivisionError, self.clock.advance, 0)
        self.clock.advance(0)
        self.assertEqual(self.ran, ["other"])
        self.queue.add(3, self.step("new"))
        self.clock.advance(0)
        self.assertEqual(self.ran, ["other", "new"])
