"""
When cryptography runs: at once if nothing else waits, else the earliest deadline first.

Between steps READY is looked at, and answered with ACCEPT before any more work is
done on what was accepted earlier: the kernel holds only a few requests that nobody
has accepted.  Only steps that take no time follow each other without a look.  After
some steps the reactor looks at all else.

What was begun is brought to an end before more is begun: work on many handshakes
at once ends none of them early.  Who begins next is L{ktlsagent.fairness}'s.  Those
that are only to be told that they are refused cost hardly anything, and begin first,
in a line of their own with bounds as high; but not so many that handshakes wait long.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable
from functools import partial
from typing import Final, Self

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ktlsagent.errors import DeadlineExpired
from ktlsagent.fairness import Bounds, FairLine, Place
from ktlsagent.seldom import Seldom

Step = Callable[[], None]

STEPS_PER_LAP: Final = 16
"""
How many steps a handshake has before others come first.  It needs half as many; a
peer that cuts its messages into a thousand records holds up nobody but itself.
"""

STEPS_PER_TURN: Final = 8
"""How many steps may follow each other before the reactor has its turn."""

REFUSALS_IN_A_ROW: Final = 8
"""How many refusals may begin before a handshake: together they cost less than it does."""

LOOK_SECONDS: Final = 0.0005
"""For how long steps may follow each other without a look at READY."""


class Turn(Place):
    """
    The turn of a request: a context manager, which ends it.

    @ivar granted: fires when the turn has come, or fails if it comes too late.
    @ivar line: where it waits.
    """

    __slots__ = ("_queue", "_steps", "granted", "line")

    def __init__(
        self, queue: StepQueue, line: FairLine[Turn], peer: Hashable, deadline: float
    ) -> None:
        """
        @param queue: what it is a turn of.
        @param line: where it waits.
        @param peer: whose request it is.
        @param deadline: in the clock's seconds.
        """
        super().__init__(peer, deadline)
        self.granted: Deferred[None] = Deferred()
        self.line = line
        self._queue = queue
        self._steps = 0

    def run(self, step: Step) -> None:
        """
        Run a step when its time comes, at once or later, but never in another one;
        not at all if the turn ends before, or at the deadline.

        @param step: must not raise.
        """
        self._queue.add(self._steps // STEPS_PER_LAP, self, step)
        self._steps += 1

    def expire(self) -> None:
        """The deadline has come: a turn that has not come does not come any more."""
        if not self.granted.called:
            self.granted.errback(self._queue.tooLate(self))

    def __enter__(self) -> Self:
        """The turn may have come or not."""
        return self

    def __exit__(self, *exception: object) -> None:
        """The turn is over, or not wanted any more."""
        self._queue.end(self)


class StepQueue:
    """
    Requests that wait for their turn, and the steps of those that have it.

    @ivar busy: whether there is something to do that waits for the processor only.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        bounds: Callable[[], Bounds],
        look: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        """
        @param clock: gives the turns.
        @param bounds: says how many handshakes may be in progress.
        @param look: called between steps: lets new requests get into the line.
        @param changed: called when L{busy} or L{crowded} may be others than before.
        """
        self.busy = False
        self._clock = clock
        self._bounds = bounds
        self._look = look
        self._changed = changed
        self._order = itertools.count()
        self._steps: list[tuple[int, float, int, Turn, Step]] = []
        self._line: FairLine[Turn] = FairLine()
        self._refusals: FairLine[Turn] = FairLine()
        self._refusedInARow = 0
        self._seldom = Seldom(clock, self.log)
        self._called = False
        self._running = False
        self._left = STEPS_PER_TURN
        self._looked = 0.0

    @property
    def crowded(self) -> bool:
        """Whether no more handshakes may begin before some have ended."""
        return self._line.begun >= self._bounds().most

    def turn(self, peer: Hashable, deadline: float, *, refused: bool = False) -> Turn:
        """
        Get into the line.

        @param peer: whose request it is.
        @param deadline: in the clock's seconds.
        @param refused: whether its peer is only to be told that it is refused.
        @return: the turn, which does not come before this returns.
        """
        line = self._refusals if refused else self._line
        turn = Turn(self, line, peer, deadline)
        line.enter(turn)
        self._callIfNeeded()
        return turn

    def add(self, lap: int, turn: Turn, step: Step) -> None:
        """
        Run a step: see L{Turn.run}.

        @param lap: steps of an earlier lap go first, whatever their deadlines.
        @param turn: the turn that it is part of.
        @param step: must not raise.
        """
        heapq.heappush(self._steps, (lap, turn.deadline, next(self._order), turn, step))
        if not self._called:
            self._run(self._next)

    def end(self, turn: Turn) -> None:
        """
        End a turn.

        @param turn: the turn, whether it has come or not.
        """
        turn.line.leave(turn)
        self._callIfNeeded()

    def _callIfNeeded(self) -> None:
        if self._running:
            return
        bounds = self._bounds()
        if self._steps or self._line.ready(bounds) or self._refusals.ready(bounds):
            self._callSoon()
        elif self._line.waiting:
            self._seldom.warn(
                "requests wait for their turn: {begun} handshakes are in progress, of at most "
                "{most} (max_handshakes) and {mostPerPeer} with one peer (max_per_peer), and "
                "{waiting} wait",
                begun=self._line.begun,
                most=bounds.most,
                mostPerPeer=bounds.mostPerPeer,
                waiting=self._line.waiting,
            )

    def _callSoon(self) -> None:
        if not self._called:
            self._called = True
            self._setBusy(True)
            self._clock.callLater(0, self._reactorsTurn)

    def _reactorsTurn(self) -> None:
        self._called = False
        self._left = STEPS_PER_TURN
        self._run(self._nextOrBegin)

    def _run(self, choose: Callable[[], Step | None]) -> None:
        """Run some steps, unless this is part of one."""
        if self._running:
            return
        self._running = True
        self._setBusy(True)
        try:
            step = choose() if self._left else None
            while step is not None:
                self._left -= 1
                step()
                self._lookIfNeeded()
                step = self._next() if self._left else None
        finally:
            self._running = False
            self._callIfNeeded()
            self._setBusy(self._called)

    def _setBusy(self, busy: bool) -> None:  # noqa: FBT001 - what its name says
        if self.busy is not busy:
            self.busy = busy
            self._changed()

    def _lookIfNeeded(self) -> None:
        now = self._clock.seconds()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._look()

    def _next(self) -> Step | None:
        """Choose among the steps of what was begun."""
        now = self._clock.seconds()
        while self._steps and (self._steps[0][3].left or self._steps[0][1] <= now):
            # Its request has ended, or does so in this turn of the reactor.
            heapq.heappop(self._steps)
        return heapq.heappop(self._steps)[-1] if self._steps and not self._steps[0][0] else None

    def _nextOrBegin(self) -> Step | None:
        """Choose: what was begun, then who comes next, then who needs more than others."""
        step = self._next()
        if step is not None:
            return step
        turn = self._nextTurn(self._bounds())
        if turn is not None:
            return partial(self._begin, turn)
        return heapq.heappop(self._steps)[-1] if self._steps else None

    def _nextTurn(self, bounds: Bounds) -> Turn | None:
        """Choose who begins: refusals before handshakes, but for some of these in between."""
        lines = [self._refusals, self._line]
        if self._refusedInARow >= REFUSALS_IN_A_ROW:
            lines.reverse()
        turn = lines[0].next(bounds) or lines[1].next(bounds)
        refused = turn is not None and turn.line is self._refusals
        self._refusedInARow = self._refusedInARow + 1 if refused else 0
        return turn

    def _begin(self, turn: Turn) -> None:
        if turn.deadline > self._clock.seconds():
            turn.granted.callback(None)
        else:
            turn.granted.errback(self.tooLate(turn))

    def tooLate(self, turn: Turn) -> DeadlineExpired:
        """
        Say why a turn has not come in time.

        @param turn: the turn.
        @return: the reason.
        """
        return DeadlineExpired(
            "overload",
            "expected a turn within the kernel's deadline, found "
            f"{turn.line.begunWith(turn.source)} handshakes with the same peer and "
            f"{turn.line.begun} with all in progress, and {turn.line.waiting} requests that "
            "wait; give the agent more of the processor, or look at max_handshakes and "
            "max_per_peer",
        )
