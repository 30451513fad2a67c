"""Tests for L{ktlsagent.credentials.threadsteps}."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ktlsagent.credentials.threadsteps import MARGIN_SECONDS, MOST_THREADS, ThreadSteps, threadPool
from ktlsagent.errors import DeadlineExpired
from ktlsagent.interfaces import IAgentReactor
from tests.support.reactor import HeldThreadPool, TurnReactor, TurnThreadPool

ROOT = Path(__file__).parents[1]

_HANGING = """
import sys, threading
from twisted.internet import reactor
from ktlsagent.credentials.threadsteps import ThreadSteps, threadPool

steps = ThreadSteps(reactor, "the token", threadPool("hangs"))
begun = threading.Event()

def hang():
    begun.set()
    threading.Event().wait()

def begin():
    steps.run(reactor.seconds() + 60, hang).addErrback(lambda _: None)
    begun.wait()
    reactor.stop()

reactor.callWhenRunning(begin)
reactor.run()
print("ended")
"""


class StepsTestCase(SynchronousTestCase):
    """Has threads that are none."""

    def setUp(self) -> None:
        self.reactor = TurnReactor()
        self.ran: list[str] = []
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def texts(self) -> list[str]:
        """
        List what was logged.

        @return: the texts.
        """
        return [eventAsText(event, includeTimestamp=False) for event in self.events]

    def step(self, name: str) -> Callable[[], str]:
        """
        Make a step.

        @param name: what it notes when it runs, and returns.
        @return: the step.
        """

        def step() -> str:
            self.ran.append(name)
            return name

        return step

    def refusal(self, result: Deferred[str]) -> str:
        """
        Say why a step was given up.

        @param result: what was to be its result.
        @return: the reason.
        """
        error = self.failureResultOf(result, DeadlineExpired).value
        assert isinstance(error, DeadlineExpired)
        self.assertEqual(error.code, "token-slow")
        return error.reason


class ResultTests(StepsTestCase):
    """Threads that come back."""

    def setUp(self) -> None:
        super().setUp()
        self.steps = ThreadSteps(self.reactor, "the token", TurnThreadPool(self.reactor))

    def test_result(self) -> None:
        """What a step returns comes in a later turn of the reactor."""
        result = self.steps.run(10, self.step("a"))
        self.assertNoResult(result)
        self.reactor.settle()
        self.assertEqual(self.successResultOf(result), "a")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_exception(self) -> None:
        """What a step raises comes as well."""

        def bug() -> str:
            raise ZeroDivisionError

        result = self.steps.run(10, bug)
        self.reactor.settle()
        self.failureResultOf(result, ZeroDivisionError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_many(self) -> None:
        """However many steps there are, all of them run."""
        results = [self.steps.run(10, self.step(str(number))) for number in range(50)]
        self.reactor.settle()
        self.assertEqual(
            [self.successResultOf(result) for result in results],
            [str(number) for number in range(50)],
        )


class HangingTests(StepsTestCase):
    """Threads that hang."""

    def setUp(self) -> None:
        super().setUp()
        self.pool = HeldThreadPool(self.reactor)
        self.steps = ThreadSteps(self.reactor, "the token", self.pool)

    def fill(self, deadline: float = 60) -> list[Deferred[str]]:
        """
        Keep all threads busy.

        @param deadline: until when they may be.
        @return: what is to come of it.
        """
        return [
            self.steps.run(deadline, self.step(f"busy {number}")) for number in range(MOST_THREADS)
        ]

    def test_bound(self) -> None:
        """No more threads than allowed work at a time."""
        self.fill()
        waiting = self.steps.run(60, self.step("waiting"))
        self.assertEqual(self.pool.held, MOST_THREADS)
        self.pool.release()
        self.reactor.settle()
        self.assertEqual(self.pool.held, MOST_THREADS)
        self.assertNoResult(waiting)

    def test_earliestDeadlineFirst(self) -> None:
        """Of those that wait, the step with the earliest deadline goes first."""
        self.fill()
        for deadline, name in ((30, "late"), (10, "early"), (20, "middle"), (20, "next")):
            self.steps.run(deadline, self.step(name))
        for _thread in range(MOST_THREADS + 4):
            self.pool.release()
            self.reactor.settle()
        self.assertEqual(self.ran[MOST_THREADS:], ["early", "middle", "next", "late"])

    def test_deadlineOfOneThatWaits(self) -> None:
        """A step whose time is over before it began never runs, and nobody keeps it."""
        self.fill()
        results = [self.steps.run(5, self.step("never")) for _ in range(3)]
        self.reactor.turn(5 - MARGIN_SECONDS)
        for result in results:
            self.assertIn("all 4 threads that may wait for it waiting", self.refusal(result))
        self.assertEqual(self.steps._waiting, [])
        for _thread in range(MOST_THREADS):
            self.pool.release()
            self.reactor.settle()
        self.assertNotIn("never", self.ran)
        self.assertEqual((self.steps.stuck, self.texts()), (0, []))

    def test_deadlineOfOneThatRuns(self) -> None:
        """A step that hangs is given up in time, named once, and dropped when it returns."""
        self.reactor.advance(100)
        result = self.steps.run(105, self.step("hangs"))
        self.reactor.turn(5 - MARGIN_SECONDS - 0.01)
        self.assertNoResult(result)
        self.reactor.turn(0.01)
        self.assertEqual(
            self.refusal(result),
            "expected the token to answer in time, found no answer after 5.0 s",
        )
        self.assertEqual(self.steps.stuck, 1)
        (text,) = self.texts()
        self.assertIn(
            "the token has not answered for 5.0 s: a thread waits for it on, 1 of 4", text
        )
        self.reactor.turn(60 + MARGIN_SECONDS)
        self.pool.release()
        self.reactor.settle()
        self.assertEqual((self.steps.stuck, self.ran), (0, ["hangs"]))
        _first, text = self.texts()
        self.assertIn("it took 65.0 s", text)

    def test_hangingThreadsCount(self) -> None:
        """A thread that was given up is still one; when it is back, the others go on."""
        for result in self.fill(5):
            result.addErrback(lambda failure: failure.trap(DeadlineExpired) and None)
        self.reactor.turn(5)
        self.assertEqual(self.steps.stuck, MOST_THREADS)
        waiting = self.steps.run(60, self.step("waiting"))
        self.assertEqual(self.pool.held, MOST_THREADS)
        self.pool.release(2)
        self.reactor.settle()
        self.pool.release(MOST_THREADS - 1)
        self.reactor.settle()
        self.assertEqual(self.successResultOf(waiting), "waiting")
        self.assertEqual(self.steps.stuck, MOST_THREADS - 1)

    def test_noTimeAtAll(self) -> None:
        """A step without any time left is given up at once."""
        self.reactor.advance(100)
        result = self.steps.run(90, self.step("a"))
        self.reactor.turn()
        self.refusal(result)


class RealThreadsTests(TestCase):
    """Real threads, and the reactor that everybody has."""

    timeout = 30

    def setUp(self) -> None:
        self.reactor = cast(IAgentReactor, reactor)
        self.steps = ThreadSteps(self.reactor, "the token", threadPool("token"))
        self.go = threading.Event()
        self.addCleanup(self.go.set)

    def inTime(self) -> float:
        """
        Choose a deadline that is far away.

        @return: the deadline.
        """
        return self.reactor.seconds() + 20

    @inlineCallbacks
    def test_result(self) -> Generator[Deferred[Any], Any, None]:
        """A step runs in a thread of its own kind, and its result comes in the reactor's."""
        thread = yield self.steps.run(self.inTime(), threading.current_thread)
        self.assertIsNot(thread, threading.current_thread())
        self.assertTrue(thread.daemon)
        self.assertIn("token", thread.name)

    @inlineCallbacks
    def test_exception(self) -> Generator[Deferred[Any], Any, None]:
        """A bug in a step comes back and does not end the thread."""
        for _time in range(MOST_THREADS + 1):
            result: Deferred[float] = self.steps.run(self.inTime(), lambda: 1 / 0)
            yield self.assertFailure(result, ZeroDivisionError)

    @inlineCallbacks
    def test_hanging(self) -> Generator[Deferred[Any], Any, None]:
        """While some threads hang, the reactor goes on, and so do the other threads."""
        hanging = [self.steps.run(self.inTime(), self.go.wait) for _ in range(MOST_THREADS - 1)]
        for _time in range(20):
            yield self.steps.run(self.inTime(), threading.get_ident)
        late: Deferred[bool] = self.steps.run(self.reactor.seconds() + 0.1, self.go.wait)
        yield self.assertFailure(late, DeadlineExpired)
        self.assertEqual(self.steps.stuck, 1)
        self.go.set()
        yield gatherResults(hanging)

    def test_processEnds(self) -> None:
        """A process ends while a thread hangs."""
        ran = subprocess.run(
            [sys.executable, "-c", _HANGING],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        self.assertEqual((ran.stdout, ran.stderr, ran.returncode), ("ended\n", "", 0))
