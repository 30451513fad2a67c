"""
Who of the workers gets a request: whoever has the least to do.

The parent gives a token for each request that READY announces, and wakes one worker.
No more workers than there are processors get any while these take them: more would only
take the processors, and their caches, from each other.

A worker that does not take its tokens soon, be it stopped, hung or in a long step, goes
last from then on, and others get the same tokens.  What a worker that dies or has no
descriptors had not taken others get as well; if nobody can take it, it waits.

The kernel hands requests over in the order in which it has announced them, whoever asks,
and counts their time from there.  So it is not the tokens that have times: who gets one
learns when the oldest request was announced that it may find with it, if no other worker
asks before.  As in one process, that is never too late, but may be too early.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ktlsagent.announcements import MOST_PENDING, ReadyTimes
from ktlsagent.processes.slot import MODULUS, Slot

_SOON_SECONDS = 0.02
"""
How often it is looked whether tokens are taken.  A worker looks for them each half
millisecond, unless a step takes longer: hardly any takes as long as this.
"""

_ABLE = 1 << 41
"""The rank from which on a worker cannot begin at once with what it gets."""

_CLOSED = 1 << 43
"""The rank of a worker that gets nothing."""


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

    def rank(self) -> int:
        """
        Say how much it has to do, in one number: who has least comes first.  This and
        what calls it are written for speed: the parent does it for each request.
        """
        taken, inFlight, busy, crowded, closed = self.slot.state()
        if closed:
            return _CLOSED
        hangs = self.late and taken == self.mark
        load = inFlight + (self.slot.given - taken) % MODULUS
        return hangs << 42 | crowded << 41 | busy << 40 | load

    def held(self) -> int:
        """Say how many tokens nobody else has, and will take or give back."""
        outstanding = self.slot.outstanding
        if self.late and self.slot.taken == self.mark:
            outstanding = max(0, outstanding - self.passed)
        return outstanding + self.slot.returning

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

    def __init__(self, clock: IReactorTime, processors: int) -> None:
        """
        @param clock: the reactor.
        @param processors: how many there are.
        """
        self._clock = clock
        self._processors = processors
        self._seats: dict[Slot, _Seat] = {}
        self._expected: set[Slot] = set()
        self._times = ReadyTimes()
        self._waiting = 0
        self._looking: IDelayedCall | None = None
        self._looked = 0.0

    def expect(self, slot: Slot) -> None:
        """
        A worker starts.

        @param slot: its slot.
        """
        self._expected.add(slot)
        self._foretell()

    def add(self, slot: Slot) -> None:
        """
        A worker is at work; it has asked for all that was pending when it began.

        @param slot: its slot.
        """
        self._expected.discard(slot)
        self._seats[slot] = _Seat(slot)
        self.room()

    def remove(self, slot: Slot) -> None:
        """
        A worker gets no more: it has ended, or is about to.

        @param slot: its slot, whether it was added or not; still open.
        """
        self._expected.discard(slot)
        if self._seats.pop(slot, None) is not None:
            self._giveKnown(slot.outstanding + slot.reclaim())

    def back(self, slot: Slot) -> None:
        """
        A worker has given tokens back.

        @param slot: its slot.
        """
        self._giveKnown(slot.reclaim())

    def announce(self, number: int | None) -> None:
        """
        Requests wait that have just been announced.

        @param number: how many; C{None} if nobody knows.
        """
        if number is None:
            self._keep(0)
            self._give(MOST_PENDING)
        else:
            self._times.read(number, self._clock.seconds())
            self._giveKnown(number)

    def room(self) -> None:
        """A worker may be able to take what waits."""
        waiting, self._waiting = self._waiting, 0
        self._giveKnown(waiting)

    def stop(self) -> None:
        """Give nothing any more."""
        self._seats.clear()
        self._expected.clear()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _giveKnown(self, number: int) -> None:
        """Give tokens for requests whose times are known."""
        self._keep(number)
        self._give(number)

    def _give(self, number: int) -> None:
        """Give tokens, and keep those that nobody can take."""
        left = self._share(number, self._seats.values())
        self._waiting = min(self._waiting + left, MOST_PENDING)
        self._foretell()

    def _keep(self, number: int) -> None:
        """Forget the times of what was taken, given that so many tokens are nobody's just now."""
        held = sum(seat.held() for seat in self._seats.values())
        self._times.keep(held + self._waiting + number)

    def _foretell(self) -> None:
        """Tell workers that start what they find, unless there are others to take it."""
        for slot in self._expected:
            slot.foretell(self._times.pending() if self._waiting else ())

    def _share(self, number: int, seats: Iterable[_Seat]) -> int:
        """Give tokens, each to who has the least to do then, and say how many are left."""
        now = self._clock.seconds()
        times = self._times.pending()
        woken = set()
        # Who asks as often as the kernel holds requests gets all there are.
        left = min(number, MOST_PENDING)
        while left and (seat := self._choose(seats)) is not None:
            before = seat.slot.outstanding
            # Whatever it may find beyond what we know is announced later than now.
            seat.slot.give(times[before] if before < len(times) else now)
            woken.add(seat.slot)
            left -= 1
        for slot in woken:
            slot.ring()
        if woken:
            self._lookSoon()
        return left

    def _choose(self, seats: Iterable[_Seat]) -> _Seat | None:
        """Find who has the least to do, among as many as there are processors if they can."""
        best, least, left = None, _CLOSED, self._processors
        for seat in seats:
            rank = seat.rank()
            if rank < least:
                best, least = seat, rank
            if rank < _ABLE:
                left -= 1
                if not left:
                    break
        return best

    def _lookSoon(self) -> None:
        """See to it that tokens are looked at; while more are given no timer is needed for it."""
        if self._looking is None:
            self._looked = self._clock.seconds()
            self._looking = self._clock.callLater(_SOON_SECONDS, self._late)
        elif self._clock.seconds() - self._looked >= _SOON_SECONDS:
            self._looking.reset(_SOON_SECONDS)
            self._look()

    def _late(self) -> None:
        self._looking = None
        self._look()
        if any(seat.slot.outstanding for seat in self._seats.values()):
            self._lookSoon()

    def _look(self) -> None:
        """Give what somebody does not take to others, too."""
        self._looked = self._clock.seconds()
        self._keep(0)
        overdue = [(seat, number) for seat in self._seats.values() if (number := seat.look())]
        if overdue:
            prompt = [seat for seat in self._seats.values() if not seat.late]
            for seat, number in overdue:
                seat.passed += number - self._share(number, prompt)
