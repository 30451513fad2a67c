"""
Who of the workers gets a request: whoever has the least to do.

The parent gives a token for each request that READY announces, and wakes one worker.
A worker that does not take its tokens soon, be it stopped, hung or in a long step, goes
last from then on, and others get the same tokens.  What a worker that dies or has no
descriptors had not taken others get as well; if nobody can take it, it waits.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ktlsagent.announcements import MOST_PENDING
from ktlsagent.processes.slot import Slot

_SOON_SECONDS = 0.05
"""
How often it is looked whether tokens are taken.  A worker looks for them each half
millisecond, unless a step takes longer: few take as long as this.
"""


class _Seat:
    """
    A worker that may get tokens.

    @ivar slot: how.
    @ivar late: whether it does not take what it has.
    @ivar passed: how many of its tokens others have got, too.
    @ivar mark: what it had taken at the last look, if it had tokens left then.
    """

    __slots__ = ("late", "mark", "passed", "slot")

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.late = False
        self.passed = 0
        self.mark: int | None = None

    def rank(self) -> tuple[bool, int, int, int]:
        """See L{Slot.rank}."""
        return (self.late and self.slot.taken == self.mark, *self.slot.rank)

    def look(self) -> int:
        """Look again, and say how many tokens should go to others."""
        slot = self.slot
        outstanding, taken = slot.outstanding, slot.taken
        self.late = outstanding > 0 and self.mark == taken
        self.mark = taken if outstanding else None
        if not self.late:
            self.passed = 0
        return outstanding - self.passed if self.late else 0


class Dispatcher:
    """Gives tokens to workers."""

    def __init__(self, clock: IReactorTime) -> None:
        """
        @param clock: the reactor.
        """
        self._clock = clock
        self._seats: dict[Slot, _Seat] = {}
        self._waiting = 0
        self._looking: IDelayedCall | None = None

    def add(self, slot: Slot) -> None:
        """
        A worker is at work; it has asked for all that was pending when it began.

        @param slot: its slot.
        """
        self._seats[slot] = _Seat(slot)
        self.room()

    def remove(self, slot: Slot) -> None:
        """
        A worker gets no more: it has ended, or is about to.

        @param slot: its slot, whether it was added or not; still open.
        """
        if self._seats.pop(slot, None) is not None:
            self.announce(slot.outstanding)

    def announce(self, number: int | None) -> None:
        """
        Requests wait.

        @param number: how many; C{None} if nobody knows.
        """
        self._give(MOST_PENDING if number is None else number)

    def room(self) -> None:
        """A worker may be able to take what waits."""
        waiting, self._waiting = self._waiting, 0
        self._give(waiting)

    def stop(self) -> None:
        """Give nothing any more."""
        self._seats.clear()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _give(self, number: int) -> None:
        """Give tokens, and keep those that nobody can take."""
        self._waiting += self._share(number, [*self._seats.values()])
        self._waiting = min(self._waiting, MOST_PENDING)

    def _share(self, number: int, seats: list[_Seat]) -> int:
        """Give tokens, each to who has the least to do then, and say how many are left."""
        seats = [seat for seat in seats if not seat.slot.closed]
        if not seats:
            return number
        woken = set()
        # Who asks as often as the kernel holds requests gets all there are.
        for _token in range(min(number, MOST_PENDING)):
            slot = min(seats, key=_Seat.rank).slot
            slot.give()
            woken.add(slot)
        for slot in woken:
            slot.ring()
        if woken:
            self._lookSoon()
        return 0

    def _look(self) -> None:
        """See to it that no token stays with a worker that does not take it."""
        self._looking = None
        seats = [*self._seats.values()]
        overdue = [(seat, seat.look()) for seat in seats]
        prompt = [seat for seat in seats if not seat.late]
        for seat, number in overdue:
            seat.passed += number - self._share(number, prompt)
        if any(seat.slot.outstanding for seat in seats):
            self._lookSoon()

    def _lookSoon(self) -> None:
        if self._looking is None:
            self._looking = self._clock.callLater(_SOON_SECONDS, self._look)
