"""Tests for L{ktlsagent.stepqueue}."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import DeadlineExpired
from ktlsagent.fairness import Bounds
from ktlsagent.stepqueue import (
    LOOK_SECONDS,
    REFUSALS_IN_A_ROW,
    STEPS_PER_LAP,
    STEPS_PER_TURN,
    StepQueue,
    Turn,
)

FAR = 100.0
"""A deadline that does not come."""


class StepQueueTestCase(SynchronousTestCase):
    """Has a queue, whose clock the tests advance, and notes what runs."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.bounds = Bounds(10, 10)
        self.queue = StepQueue(self.clock, lambda: self.bounds, self.look, self.changed)
        self.ran: list[str] = []
        self.looks = 0
        self.changes: list[tuple[bool, bool]] = []
        self.coming: list[str] = []

    def look(self) -> None:
        """Count how often new requests were looked for, and find those that come."""
        self.looks += 1
        while self.coming:
            self.wait(self.coming.pop())

    def changed(self) -> None:
        """Note whether there is something to do, and whether nobody may begin."""
        self.changes.append((self.queue.busy, self.queue.crowded))

    def hold(self, turn: Turn) -> None:
        """
        Use up what may run before the reactor has its turn.

        @param turn: a turn that has come.
        """
        while not self.clock.getDelayedCalls():
            turn.run(lambda: None)

    def step(self, name: str) -> Callable[[], None]:
        """
        Make a step.

        @param name: what it notes when it runs.
        @return: the step.
        """
        return lambda: self.ran.append(name)

    def wait(
        self, name: str, deadline: float = FAR, peer: str = "peer", *, refused: bool = False
    ) -> Turn:
        """
        Get into the line.

        @param name: what is noted when the turn comes.
        @param deadline: the deadline.
        @param peer: the peer.
        @param refused: whether it is only to be refused.
        @return: the turn.
        """
        turn = self.queue.turn(peer, deadline, refused=refused)
        turn.granted.addCallback(lambda _none: self.ran.append(name))
        return turn

    def begin(self, deadline: float = FAR) -> Turn:
        """
        Have a turn.

        @param deadline: its deadline.
        @return: the turn.
        """
        turn = self.queue.turn("peer", deadline)
        self.clock.advance(0)
        self.successResultOf(turn.granted)
        return turn

    def oneTurn(self) -> None:
        """Let the reactor take a turn, for which one call is scheduled."""
        (call,) = self.clock.getDelayedCalls()
        call.cancel()
        self.queue._reactorsTurn()

    def turns(self) -> None:
        """Let the reactor take turns, each with a few steps."""
        while self.clock.getDelayedCalls():
            before = len(self.ran)
            self.oneTurn()
            self.assertLessEqual(len(self.ran) - before, STEPS_PER_TURN)


class StepTests(StepQueueTestCase):
    """The steps of what was begun."""

    def test_atOnce(self) -> None:
        """A step runs at once if nothing waits, and no call is scheduled."""
        self.begin().run(self.step("a"))
        self.assertEqual(self.ran, ["a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_looks(self) -> None:
        """After a step that has taken time somebody looks for new requests."""
        turn = self.begin()
        self.looks = 0

        def step(seconds: float) -> None:
            self.ran.append(f"{self.looks} looks")
            self.clock.rightNow += seconds

        def more() -> None:
            for seconds in (LOOK_SECONDS, LOOK_SECONDS, LOOK_SECONDS / 2, LOOK_SECONDS / 2):
                turn.run(partial(step, seconds))

        turn.run(more)
        self.assertEqual(self.ran, ["0 looks", "1 looks", "2 looks", "2 looks"])
        self.assertEqual(self.looks, 3)

    def test_whoComesMeanwhile(self) -> None:
        """A request that is found between two steps is in the line, and no more than that."""
        turn = self.begin()
        self.coming = ["new"]

        def first() -> None:
            self.clock.rightNow += LOOK_SECONDS
            turn.run(self.step("second"))

        turn.run(first)
        self.assertEqual(self.ran, ["second"])
        self.turns()
        self.assertEqual(self.ran, ["second", "new"])

    def test_reactorsTurn(self) -> None:
        """After some steps the reactor has its turn; only one call is ever scheduled."""
        turn = self.begin()
        names = [str(number) for number in range(STEPS_PER_LAP)]
        for name in names:
            turn.run(self.step(name))
        self.assertLess(len(self.ran), STEPS_PER_TURN)
        self.turns()
        self.assertEqual(self.ran, names)

    def test_earliestDeadlineFirst(self) -> None:
        """The step with the earliest deadline goes first, whenever it was added."""
        late, early, middle, new = (self.begin(deadline) for deadline in (30, 10, 20, 15))
        self.hold(late)

        def first() -> None:
            self.ran.append("early")
            new.run(self.step("new"))

        late.run(self.step("late"))
        early.run(first)
        middle.run(self.step("middle"))
        self.turns()
        self.assertEqual(self.ran, ["early", "new", "middle", "late"])

    def test_equalDeadlines(self) -> None:
        """Steps with the same deadline keep their order: steps are not compared."""
        names = [str(number) for number in range(10)]
        turns = [self.begin() for _name in names]
        self.hold(turns[0])
        for name, turn in zip(names, turns, strict=True):
            turn.run(self.step(name))
        self.turns()
        self.assertEqual(self.ran, names)

    def test_stepAddsStep(self) -> None:
        """A step can add the next one, which waits for its turn like any other."""
        first, last = self.begin(2), self.begin(3)
        self.hold(last)
        first.run(lambda: first.run(self.step("next")))
        last.run(self.step("last"))
        self.turns()
        self.assertEqual(self.ran, ["next", "last"])

    def test_stepThatRaises(self) -> None:
        """A bug in one step does not keep the others from running."""

        def bug() -> None:
            raise ZeroDivisionError

        turn = self.begin()
        self.assertRaises(ZeroDivisionError, turn.run, bug)
        self.hold(turn)
        turn.run(bug)
        turn.run(self.step("other"))
        self.assertRaises(ZeroDivisionError, self.clock.advance, 0)
        self.clock.advance(0)
        self.assertEqual(self.ran, ["other"])
        turn.run(self.step("new"))
        self.clock.advance(0)
        self.assertEqual(self.ran, ["other", "new"])

    def test_deadlineHasPassed(self) -> None:
        """A step whose deadline has passed does not run, and takes nobody's turn."""
        early, late = self.begin(1), self.begin(2)
        self.hold(late)
        early.run(self.step("early"))
        late.run(self.step("late"))
        self.clock.advance(1)
        self.assertEqual(self.ran, ["late"])

    def test_turnIsOver(self) -> None:
        """A step of a request that has ended does not run, and takes nobody's turn."""
        over, other = self.begin(1), self.begin(2)
        self.hold(other)
        with over:
            over.run(self.step("over"))
        other.run(self.step("other"))
        self.clock.advance(0)
        self.assertEqual(self.ran, ["other"])
        self.turns()
        self.assertEqual(self.ran, ["other"])

    def test_manyRecords(self) -> None:
        """A peer that makes more steps than a handshake needs lets all others go first."""
        greedy, other = self.begin(1), self.begin(2)
        for number in range(STEPS_PER_LAP + 2):
            greedy.run(self.step(str(number)))
        other.run(self.step("other"))
        self.wait("new")
        self.turns()
        normal = [str(number) for number in range(STEPS_PER_LAP)]
        self.assertEqual(self.ran, [*normal, "other", "new", "16", "17"])


class TurnTests(StepQueueTestCase):
    """Who begins when."""

    def test_notAtOnce(self) -> None:
        """A turn comes in the next turn of the reactor."""
        self.wait("a")
        self.assertEqual(self.ran, [])
        self.clock.advance(0)
        self.assertEqual(self.ran, ["a"])

    def test_whatWasBegunFirst(self) -> None:
        """Nothing more is begun while there are steps to run, whatever the deadlines."""
        begun = self.begin()
        self.wait("new", deadline=1)
        begun.run(lambda: begun.run(self.step("second")))
        self.turns()
        self.assertEqual(self.ran, ["second", "new"])

    def test_bound(self) -> None:
        """No more than allowed are in progress; the next one begins when one is over."""
        self.bounds = Bounds(2, 2)
        first, second = self.begin(), self.begin()
        with capturedLogs() as events:
            self.wait("third")
            self.wait("fourth")
        (said,) = [eventAsText(event) for event in events]
        self.assertIn("2 handshakes are in progress, of at most 2 (max_handshakes)", said)
        self.turns()
        self.assertEqual(self.ran, [])
        with first:
            pass
        self.turns()
        self.assertEqual(self.ran, ["third"])
        self.bounds = Bounds(3, 3)
        with second:
            pass
        self.turns()
        self.assertEqual(self.ran, ["third", "fourth"])

    def test_boundOfAPeer(self) -> None:
        """A peer has no more than its share in progress; others are not concerned."""
        self.bounds = Bounds(10, 1)
        first = self.begin()
        self.wait("second")
        self.wait("other", peer="other")
        self.turns()
        self.assertEqual(self.ran, ["other"])
        with first:
            pass
        self.turns()
        self.assertEqual(self.ran, ["other", "second"])

    def test_tooLate(self) -> None:
        """A turn that has not come at its deadline fails, and says what is in the way."""
        self.bounds = Bounds(1, 1)
        self.begin()
        turn = self.wait("late", deadline=5)
        turn.expire()
        error = self.failureResultOf(turn.granted, DeadlineExpired).value
        self.assertEqual(error.code, "overload")
        self.assertIn("1 handshakes with the same peer", error.reason)
        turn.expire()

    def test_deadlineHasPassed(self) -> None:
        """A turn that comes when the deadline has passed fails."""
        turn = self.wait("late", deadline=1)
        self.clock.advance(1)
        self.failureResultOf(turn.granted, DeadlineExpired)
        self.assertEqual(self.ran, [])

    def test_expiredInTime(self) -> None:
        """A deadline that comes after the turn is no matter of the turn's."""
        turn = self.begin()
        turn.expire()

    def test_notWantedAnyMore(self) -> None:
        """A request that ends in the line is not waited for."""
        with self.wait("gone"):
            pass
        self.wait("other", peer="other")
        self.turns()
        self.assertEqual(self.ran, ["other"])


class BusyTests(StepQueueTestCase):
    """What others may know of it."""

    def test_busy(self) -> None:
        """It is busy from when a turn is to come until nothing is left to do."""
        turn = self.wait("a")
        self.assertTrue(self.queue.busy)
        self.clock.advance(0)
        self.assertFalse(self.queue.busy)
        turn.run(lambda: self.changes.append((self.queue.busy, self.queue.crowded)))
        self.assertEqual(
            self.changes, [(True, False), (False, False)] + [(True, False)] * 2 + [(False, False)]
        )

    def test_crowded(self) -> None:
        """It is crowded while as many are in progress as may be."""
        self.bounds = Bounds(2, 2)
        turns = [self.wait(name) for name in "ab"]
        self.clock.advance(0)
        self.assertTrue(self.queue.crowded)
        self.assertEqual(self.changes[-1], (False, True))
        self.queue.end(turns[0])
        self.assertFalse(self.queue.crowded)


class RefusalTests(StepQueueTestCase):
    """Requests that are only to be told that they are refused."""

    def refuse(self, name: str, peer: str = "refused") -> Turn:
        """
        Get into the line of those.

        @param name: what is noted when the turn comes.
        @param peer: the peer.
        @return: the turn.
        """
        return self.wait(name, peer=peer, refused=True)

    def test_first(self) -> None:
        """They begin before handshakes, whenever these came and whatever their deadlines."""
        self.wait("a", 1.0)
        self.wait("b", 1.0, "other")
        self.refuse("no")
        self.turns()
        self.assertEqual(self.ran, ["no", "a", "b"])

    def test_notAlways(self) -> None:
        """A flood of them does not keep a handshake from beginning."""
        self.bounds = Bounds(100, 100)
        self.wait("a")
        self.wait("b")
        for _request in range(3 * REFUSALS_IN_A_ROW):
            self.refuse("no")
        self.turns()
        row = ["no"] * REFUSALS_IN_A_ROW
        self.assertEqual(self.ran, [*row, "a", *row, "b", *row])

    def test_nothingElse(self) -> None:
        """If no handshake waits, or none may begin, they do not wait for one."""
        self.bounds = Bounds(20, 20)
        for _request in range(2 * REFUSALS_IN_A_ROW):
            self.refuse("no")
        self.turns()
        self.assertEqual(len(self.ran), 2 * REFUSALS_IN_A_ROW)

    def test_full(self) -> None:
        """They do not wait for handshakes to end, nor keep others from beginning."""
        self.bounds = Bounds(1, 1)
        self.begin()
        self.wait("a")
        no = self.refuse("no")
        self.turns()
        self.assertEqual((self.ran, self.queue.crowded), (["no"], True))
        self.refuse("too many")
        self.turns()
        self.assertEqual(self.ran, ["no"])
        self.queue.end(no)
        self.turns()
        self.assertEqual(self.ran, ["no", "too many"])

    def test_fair(self) -> None:
        """A peer that is refused often waits for itself, also with those that are silent."""
        self.bounds = Bounds(5, 2)
        for _request in range(9):
            self.refuse("greedy", "greedy")
        self.refuse("other", "other")
        self.turns()
        self.assertEqual(self.ran, ["greedy", "other", "greedy"])

    def test_tooLate(self) -> None:
        """One whose turn does not come in time is told about its own line."""
        self.bounds = Bounds(1, 1)
        self.refuse("no")
        self.turns()
        late = self.refuse("late")
        late.expire()
        error = self.failureResultOf(late.granted, DeadlineExpired).value
        self.assertIn("found 1 handshakes with the same peer and 1 with all", error.reason)
        self.queue.end(late)
