"""
Steps that may take long, because somebody outside the process has to answer: each
runs in a thread, a few at a time, the earliest deadline first.

Nobody can end a thread.  So its step is given up at its deadline, what comes of it
later is dropped, and the thread, which does not keep the process from ending, counts
as one of the few until it is back.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ktlsagent.errors import DeadlineExpired
from ktlsagent.interfaces import IAgentReactor

MARGIN_SECONDS = 0.05
"""How much before its deadline a step is given up, so that there is time to say so."""

MOST_THREADS = 4
"""How many threads may wait for the same answerer."""

_Result = TypeVar("_Result")


class _DaemonThread(threading.Thread):
    """A thread that does not keep the process from ending."""

    def __init__(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401 - Thread's
        super().__init__(*arguments, daemon=True, **more)


class _DaemonThreadPool(ThreadPool):
    """A pool of such threads."""

    threadFactory = _DaemonThread


def threadPool(name: str) -> ThreadPool:
    """
    Make a pool for L{ThreadSteps}; its threads start when they are needed.

    @param name: what its threads are called.
    @return: the pool, which nobody has to stop.
    """
    pool = _DaemonThreadPool(0, MOST_THREADS, name)
    pool.start()
    return pool


@dataclass(order=True)
class _Job:
    """A step and what becomes of it."""

    deadline: float
    number: int
    step: Callable[[], Any] = field(compare=False)
    result: Deferred[Any] = field(compare=False)
    timer: IDelayedCall | None = field(compare=False, default=None)
    began: float | None = field(compare=False, default=None)
    over: bool = field(compare=False, default=False)


class ThreadSteps:
    """
    Steps that wait for the same answerer.

    @ivar stuck: how many threads have not come back at the deadlines of their steps.
    """

    log = Logger()

    def __init__(self, reactor: IAgentReactor, answerer: str, pool: ThreadPool) -> None:
        """
        @param reactor: gives time and takes the results.
        @param answerer: who has to answer, in words.
        @param pool: the threads; shared with nobody.
        """
        self.stuck = 0
        self._reactor = reactor
        self._answerer = answerer
        self._pool = pool
        self._order = itertools.count()
        self._waiting: list[_Job] = []
        self._running = 0

    def run(self, deadline: float, step: Callable[[], _Result]) -> Deferred[_Result]:
        """
        Run a step when a thread is free.

        @param deadline: in the reactor's seconds.
        @param step: runs in a thread.
        @return: fires in the reactor's thread with what the step returns or
            raises, or fails with L{DeadlineExpired} shortly before the deadline.
        """
        job = _Job(deadline, next(self._order), step, Deferred())
        left = max(0.0, deadline - MARGIN_SECONDS - self._reactor.seconds())
        job.timer = self._reactor.callLater(left, self._late, job)
        heapq.heappush(self._waiting, job)
        self._start()
        return job.result

    def _start(self) -> None:
        """Give the free threads something to do."""
        while self._waiting and self._running < MOST_THREADS:
            job = heapq.heappop(self._waiting)
            self._running += 1
            job.began = self._reactor.seconds()
            deferToThreadPool(self._reactor, self._pool, job.step).addBoth(self._done, job)

    def _done(self, result: Any, job: _Job) -> None:  # noqa: ANN401 - whatever the step returns
        """A thread is back."""
        self._running -= 1
        if job.over:
            self.stuck -= 1
            self.log.info(
                "{answerer} has answered after all, to a question that was given up: it took "
                "{seconds} s",
                answerer=self._answerer,
                seconds=round(self._reactor.seconds() - (job.began or 0.0), 1),
            )
        else:
            self._end(job, result)
        self._start()

    def _late(self, job: _Job) -> None:
        """There is no more time for a step."""
        job.timer = None
        if job.began is None:
            found = f"all {MOST_THREADS} threads that may wait for it waiting"
        else:
            seconds = round(self._reactor.seconds() - job.began, 1)
            found = f"no answer after {seconds} s"
            self.stuck += 1
            self.log.warn(
                "{answerer} has not answered for {seconds} s: a thread waits for it on, "
                "{stuck} of {most} that may",
                answerer=self._answerer,
                seconds=seconds,
                stuck=self.stuck,
                most=MOST_THREADS,
            )
        reason = f"expected {self._answerer} to answer in time, found {found}"
        self._end(job, Failure(DeadlineExpired("token-slow", reason)))

    def _end(self, job: _Job, result: Any) -> None:  # noqa: ANN401 - whatever the step returns
        """Tell whoever waits for a step, once."""
        job.over = True
        while self._waiting and self._waiting[0].over:
            heapq.heappop(self._waiting)
        if job.timer is not None:
            job.timer.cancel()
        job.result.callback(result)
