"""What the agent has taken and owes: requests, descriptors, timers, key links."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Ledger:
    """
    The agent's books.  At rest everything accepted has been answered and
    nothing is held.

    @ivar accepted: requests taken from the kernel.
    @ivar answered: requests for which DONE was sent, whether or not the
        kernel still wanted it.
    @ivar descriptors: sockets of requests that are open.
    @ivar timers: timers of requests that are running.
    @ivar keyLinks: keyrings of requests that are linked into the process keyring.
    @ivar latest: the latest deadline of all requests there ever were, in the reactor's
        seconds: when it has passed, nothing is in flight.
    """

    accepted: int = 0
    answered: int = 0
    descriptors: int = 0
    timers: int = 0
    keyLinks: int = 0
    latest: float = 0.0

    @property
    def inFlight(self) -> int:
        """Requests that have been accepted and not answered."""
        return self.accepted - self.answered

    def balanced(self) -> bool:
        """
        Say whether nothing is owed or held.

        @return: true if every request was answered and all was given back.
        """
        return not (self.inFlight or self.descriptors or self.timers or self.keyLinks)

    def __str__(self) -> str:
        return (
            f"accepted={self.accepted} answered={self.answered} in-flight={self.inFlight} "
            f"descriptors={self.descriptors} timers={self.timers} key-links={self.keyLinks}"
        )
