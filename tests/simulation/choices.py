"""The choices of one schedule: all that happens by chance comes from its seed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

_Thing = TypeVar("_Thing")


class Choices:
    """
    A source of chance that a seed makes repeatable.

    @ivar faults: whether things go wrong; off while a schedule comes to its end.
    """

    def __init__(self, seed: int) -> None:
        """
        @param seed: the schedule's number.
        """
        self.faults = True
        self._random = random.Random(seed)
        # Most schedules have few faults of few kinds: with all of them at once
        # no handshake would succeed.
        self._rates = {"": self._random.choice((0.0, 0.002, 0.02, 0.1))}

    def fails(self, kind: str) -> bool:
        """
        Decide whether something goes wrong now.

        @param kind: what; some kinds never happen in some schedules.
        @return: whether it does.
        """
        if kind not in self._rates:
            self._rates[kind] = self._rates[""] * self._random.choice((0, 0, 1, 3))
        return self.faults and self._random.random() < self._rates[kind]

    def happens(self, probability: float) -> bool:
        """
        Decide whether something happens that is no fault.

        @param probability: how likely it is.
        @return: whether it does.
        """
        return self._random.random() < probability

    def one(self, things: Sequence[_Thing]) -> _Thing:
        """
        Choose one of several.

        @param things: the things.
        @return: one of them.
        """
        return self._random.choice(things)

    def weighted(self, things: Mapping[_Thing, float]) -> _Thing:
        """
        Choose one of several that are not equally likely.

        @param things: the things with their weights.
        @return: one of them.
        """
        return self._random.choices(list(things), list(things.values()))[0]

    def number(self, lowest: int, highest: int) -> int:
        """
        Choose a number.

        @param lowest: the lowest.
        @param highest: the highest.
        @return: a number between them, both included.
        """
        return self._random.randint(lowest, highest)

    def seconds(self, longest: float) -> float:
        """
        Choose a time.

        @param longest: the longest, in seconds.
        @return: a time between none and that.
        """
        return self._random.uniform(0.0, longest)

    def shuffled(self, things: Sequence[_Thing]) -> list[_Thing]:
        """
        Put things into some order.

        @param things: the things.
        @return: all of them.
        """
        return self._random.sample(things, len(things))

    def octets(self, number: int) -> bytes:
        """
        Make octets that mean nothing.

        @param number: how many.
        @return: the octets.
        """
        return self._random.randbytes(number)
