"""Tests for L{ktlsagent.processes.workerlog}."""

from __future__ import annotations

import json
import os
import sys

from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, Logger, LogLevel, capturedLogs, eventAsText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.bugs import logBug
from ktlsagent.processes.workerlog import Relay, RelayedOutput, asJSON, workerLog
from tests.support.reactor import TurnReactor


class WorkerLogTests(SynchronousTestCase):
    """Tests for L{workerLog}."""

    def written(self, *, relayed: bool) -> str:
        """
        Have a worker log something.

        @param relayed: whether its parent logs it.
        @return: what the worker writes.
        """
        near, far = os.pipe()
        with os.fdopen(far, "w") as output, os.fdopen(near) as written:
            self.patch(sys, "__stdout__", output)
            log = workerLog(TurnReactor(), 3, relayed=relayed)
            Logger("some.where", observer=log).error("handshake {outcome}", outcome="failed")
            return written.readline()

    def test_text(self) -> None:
        """A worker's line says which one it is."""
        text = self.written(relayed=False).partition(" ")[2]
        self.assertEqual(text, "[some.where#error worker=3] handshake failed\n")

    def test_relayed(self) -> None:
        """The parent gets the event."""
        event = json.loads(self.written(relayed=True))
        self.assertEqual((event["worker"], event["outcome"]), (3, "failed"))


class RelayTests(SynchronousTestCase):
    """Tests for L{asJSON} and L{Relay}."""

    def setUp(self) -> None:
        self.relay = Relay()
        self.relay.makeConnection(StringTransport())

    def relayed(self, *lines: bytes | None) -> list[LogEvent]:
        """
        Have something relayed.

        @param lines: the lines that come.
        @return: what is logged.
        """
        with capturedLogs() as events:
            for line in lines:
                assert line is not None
                self.relay.dataReceived(line)
        return list(events)

    def event(self, **fields: object) -> LogEvent:
        """
        Make an event.

        @param fields: what it has besides.
        @return: the event.
        """
        return {
            "log_format": "expected\n{what}",
            "log_namespace": "some.where",
            "log_level": LogLevel.warn,
            "log_system": "some.where#warn worker=2",
            "log_time": 12.5,
            "what": "text",
            **fields,
        }

    def test_same(self) -> None:
        """An event is the same at the other end, whatever is in its words."""
        for what in ("text", "\n\x00\u2028{what}", "\U0001f600 {", 7, 1.5):
            event = self.event(what=what)
            (found,) = self.relayed(asJSON(event))
            self.assertEqual(eventAsText(found), eventAsText(event))
            for name in ("log_level", "log_time", "log_namespace", "what"):
                self.assertEqual(found[name], event[name])

    def test_fields(self) -> None:
        """Only numbers and short texts go with it."""
        line = asJSON(self.event(source=self, long="x" * 1025, wide="\x00" * 200, short="x" * 1024))
        (found,) = self.relayed(line)
        self.assertEqual({"source", "long", "wide", "short"} & set(found), {"short"})

    def test_long(self) -> None:
        """A long text is cut."""
        line = asJSON(self.event(what="\x00" * 10**6))
        assert line is not None
        self.assertLess(len(line), 5000)

    def test_bug(self) -> None:
        """A bug comes with its traceback."""
        events: list[LogEvent] = []
        try:
            raise LookupError("none")  # noqa: TRY301 - it is the test's
        except LookupError:
            logBug(Logger(observer=events.append), Failure())  # type: ignore[arg-type]
        (found,) = self.relayed(asJSON(events[0]))
        self.assertIn("LookupError: none", eventAsText(found))
        self.assertIs(found["log_level"], LogLevel.critical)

    def test_nothing(self) -> None:
        """What says nothing is not written."""
        self.assertIsNone(asJSON({"log_level": LogLevel.info}))

    def test_printed(self) -> None:
        """What a library in a worker prints is shown, and disturbs nothing."""
        good = asJSON(self.event())
        for printed in (b"hello\x1b[2J", b"[]", b"7", b"{}", b'{"log_level": "x"}', b"\xff" * 9000):
            first, second = self.relayed(printed + b"\n", good)
            text = eventAsText(first)
            self.assertIn("a worker has printed ", text)
            self.assertTrue(text.isprintable() and len(text) < 1200, text)
            self.assertIn("expected", eventAsText(second))

    def test_endless(self) -> None:
        """What never ends a line is dropped."""
        self.assertEqual(self.relayed(*[b"x" * 2**14] * 20), [])
        self.assertLess(len(self.relay._buffer), 2**17)
        self.assertEqual(len(self.relayed(b"\n", asJSON(self.event()))), 2)


class RelayedOutputTests(SynchronousTestCase):
    """Tests for L{RelayedOutput}."""

    def test_hearsOut(self) -> None:
        """What has been written when it is closed is logged."""
        reactor = TurnReactor()
        output = RelayedOutput(reactor)
        line = asJSON({"log_format": "last words", "log_time": 1.0, "log_level": LogLevel.info})
        assert line is not None
        os.write(output.fileno(), line)
        with capturedLogs() as events:
            ended = output.close()
            reactor.settle()
        self.successResultOf(ended)
        self.assertEqual([eventAsText(event)[-10:] for event in events], ["last words"])

    def test_heldOpen(self) -> None:
        """A process that does not end is not waited for."""
        reactor = TurnReactor()
        output = RelayedOutput(reactor)
        other = os.dup(output.fileno())
        ended = output.close()
        self.assertNoResult(ended)
        reactor.turn(1.0)
        self.successResultOf(ended)
        os.close(other)
        reactor.settle()
