"""A clock that is a function."""

from __future__ import annotations


class Clock:
    """A clock in the test's hand."""

    def __init__(self, now: float = 1500.0) -> None:
        """
        @param now: what it says.
        """
        self.now = now

    def __call__(self) -> float:
        return self.now
