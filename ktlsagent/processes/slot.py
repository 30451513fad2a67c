"""
A page of memory that the parent and one worker share, with a bell: how requests are
given to a worker, and how the parent knows what it has to do, without a message for each.

A token stands for a request that waits in the kernel.  One too many does no harm: then
the kernel has nothing for who asks.  With it comes when the request was announced, by the
monotonic clock, which all processes share.  Each number has one writer, and is read as a
whole.  The time is written before the number of tokens; a processor that shows them the
other way round shows a time of long ago, or none, and the request is only of unknown age.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from ktlsagent.announcements import ReadyTimes
from ktlsagent.interfaces import IAnnouncements

_GIVEN, _FORETOLD = range(2)
"""
Tokens that the parent has given, and times that it has foretold; what follows is the
worker's, in a cache line of its own.
"""

_TAKEN, _IN_FLIGHT, _BUSY, _CROWDED, _CLOSED, _LATEST, _RETURNED = range(16, 23)
_STATE = struct.Struct("@5I")
_STATE_AT = 4 * _TAKEN
_PAGE = mmap.PAGESIZE
MODULUS = 2**32

_TIMES_AT = 128
_TIMES = 64
"""Of how many tokens the times are kept, the newest: more than the kernel holds requests."""


class Slot:
    """
    The shared page and the bell, as either end has them.

    @ivar given: how many tokens the parent has given, modulo 2**32; for the parent only.
    @ivar reclaimed: of how many the parent knows that they were given back; likewise.
    @ivar memory: descriptor of the page (C{memfd_create(2)}).
    @ivar bell: descriptor of the bell (C{eventfd(2)}), which the parent rings.
    """

    def __init__(self, memory: int, bell: int) -> None:
        """
        @param memory: descriptor of the page, which is the slot's from now on.
        @param bell: descriptor of the bell, likewise.
        @raise OSError: if the page cannot be mapped.
        """
        self.memory = memory
        self.bell = bell
        self.given = 0
        self.reclaimed = 0
        self._page = mmap.mmap(memory, _PAGE)
        self._words = memoryview(self._page).cast("I")
        self._times = memoryview(self._page)[_TIMES_AT:].cast("d")[:_TIMES]

    @classmethod
    def make(cls) -> Slot:
        """
        Make a new one.

        @return: the slot.
        @raise OSError: if there are no descriptors or no memory.
        """
        memory = os.memfd_create("ktlsagent", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, _PAGE)
            bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                return cls(memory, bell)
            except OSError:
                os.close(bell)
                raise
        except OSError:
            os.close(memory)
            raise

    def close(self) -> None:
        """Give back the page and the bell; the other end is not affected."""
        self._words.release()
        self._times.release()
        self._page.close()
        os.close(self.memory)
        os.close(self.bell)

    @property
    def outstanding(self) -> int:
        """How many tokens have been given and not taken."""
        return (self._words[_GIVEN] - self._words[_TAKEN]) % MODULUS

    @property
    def returning(self) -> int:
        """How many tokens were given back that the parent has not reclaimed."""
        return (self._words[_RETURNED] - self.reclaimed) % MODULUS

    @property
    def taken(self) -> int:
        """How many tokens have been taken, modulo 2**32."""
        return self._words[_TAKEN]

    @property
    def latest(self) -> int:
        """The latest deadline of all its requests, in the seconds of its reactor, rounded up."""
        return self._words[_LATEST]

    def state(self) -> tuple[int, int, int, int, int]:
        """
        Look at everything at once, as it is asked for each request.

        @return: how many tokens have been taken, modulo 2**32; how many requests are in
            flight; whether the worker has something to do that waits for the processor
            only; whether it may begin no more handshakes before some have ended; and
            whether it can take no more requests for now.
        """
        return cast(tuple[int, int, int, int, int], _STATE.unpack_from(self._page, _STATE_AT))

    def give(self, announced: float) -> None:
        """
        Give the worker a token; it hears of it when the bell rings, or when it looks.

        @param announced: when its request was, by the monotonic clock, or before.
        """
        self._times[self.given % _TIMES] = announced
        self.given = self._words[_GIVEN] = (self.given + 1) % MODULUS

    def reclaim(self) -> int:
        """
        Take what the worker has given back.

        @return: how many tokens.
        """
        number = self.returning
        self.reclaimed = (self.reclaimed + number) % MODULUS
        return number

    def foretell(self, announced: Sequence[float]) -> None:
        """
        Say what waits for a worker that has not begun yet, and has no tokens: it begins by
        taking all there is.

        @param announced: when the requests were, the oldest first.
        """
        for number, time in enumerate(announced):
            self._times[number] = time
        self._words[_FORETOLD] = len(announced)

    def times(self, first: int, number: int) -> Sequence[float]:
        """
        Say when requests were announced.

        @param first: the number of the first one's token.
        @param number: how many.
        @return: the times of the newest of them.
        """
        last = first + number
        return [self._times[token % _TIMES] for token in range(last - min(number, _TIMES), last)]

    @property
    def foretold(self) -> Sequence[float]:
        """What was foretold."""
        return self.times(0, self._words[_FORETOLD])

    def ring(self) -> None:
        """Wake the worker."""
        # It is full of calls that were not heard: one more makes no difference.
        with suppress(BlockingIOError):
            os.eventfd_write(self.bell, 1)


@implementer(IAnnouncements)
class SlotAnnouncements:
    """The announcements of a worker: its parent's tokens."""

    def __init__(self, clock: IReactorTime, slot: Slot, say: Callable[[str, bytes], None]) -> None:
        """
        @param clock: the reactor, which has the monotonic clock's time.
        @param slot: where the tokens come.
        @param say: tells the parent something.
        """
        self._clock = clock
        self._slot = slot
        self._say = say
        self._seen = 0
        self._times = ReadyTimes()

    def begin(self) -> None:
        """See L{IAnnouncements}: it is the parent who listens, and knows what waits."""
        self._note(self._slot.foretold)

    def fileno(self) -> int:
        """See L{IAnnouncements}."""
        return self._slot.bell

    def heard(self) -> None:
        """See L{IAnnouncements}."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._slot.bell)

    def due(self) -> int:
        """See L{IAnnouncements}."""
        words = self._slot._words
        seen, self._seen = self._seen, words[_GIVEN]
        if seen != self._seen:
            self._note(self._slot.times(seen, (self._seen - seen) % MODULUS))
        return (self._seen - words[_TAKEN]) % MODULUS

    def announced(self, patience: float) -> float | None:
        """See L{IAnnouncements}."""
        return self._times.take(patience, self._clock.seconds())

    def settled(self, left: int) -> None:
        """See L{IAnnouncements}: others get what is left."""
        words = self._slot._words
        self._times.clear()
        words[_CLOSED] |= left > 0
        words[_RETURNED] = (words[_RETURNED] + left) % MODULUS
        words[_TAKEN] = self._seen
        if left:
            self._say("back", b"")

    def _note(self, announced: Sequence[float]) -> None:
        for time in announced:
            self._times.read(1, time)

    def room(self) -> None:
        """See L{IAnnouncements}."""
        self._slot._words[_CLOSED] = 0
        self._say("room", b"")

    def load(self, inFlight: int, latest: float, *, busy: bool, crowded: bool) -> None:
        """See L{IAnnouncements}."""
        words = self._slot._words
        words[_IN_FLIGHT], words[_LATEST] = inFlight, math.ceil(latest)
        words[_BUSY], words[_CROWDED] = busy, crowded

    def end(self) -> None:
        """See L{IAnnouncements}: others get what has not been taken."""
        self._slot._words[_CLOSED] = 1
        self.settled(self.due())
