"""Tests for L{ktlsagent.processes.standardlog}, with real descriptors that nobody reads."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.bugs import logBug
from ktlsagent.processes.standardlog import (
    LINE,
    MOST_LINES,
    MOST_OCTETS,
    StandardLog,
    asText,
    standardLog,
    writerFor,
)

MANY = 12_000
"""How many events fill a pipe and all that is kept."""


class WaitingReactor(Clock):
    """A clock that can be called from threads."""

    def callFromThread(self, call: Callable[..., object], *arguments: Any) -> None:
        call(*arguments)


class StandardLogTestCase(SynchronousTestCase):
    """
    Tests of an observer.

    @ivar log: a logger that it observes, once there is one.
    """

    def setUp(self) -> None:
        self.reactor = WaitingReactor()

    def observe(self, write: Callable[[bytes], int]) -> StandardLog:
        """
        Make the observer.

        @param write: what it writes with.
        @return: the observer.
        """
        observer = StandardLog(self.reactor, write, asText)
        self.log = Logger("some.where", observer=observer)
        return observer

    def say(self, *numbers: int) -> None:
        """
        Log some numbers.

        @param numbers: the numbers.
        """
        for number in numbers:
            self.log.info("number {number} {filling}", number=number, filling="x" * 200)

    def pipe(self) -> tuple[int, int]:
        """
        Make a pipe.

        @return: the end to read, which does not block, and the end to write, which does.
        """
        near, far = os.pipe()
        self.addCleanup(os.close, near)
        self.addCleanup(os.close, far)
        os.set_blocking(near, False)
        return near, far

    def drained(self, near: int) -> list[str]:
        """
        Read all that is written while time passes.

        @param near: where from.
        @return: the lines, without their time.
        """
        data = b""
        while True:
            try:
                piece = os.read(near, 2**16)
            except BlockingIOError:
                if not self.reactor.getDelayedCalls():
                    break
                self.reactor.advance(0.5)
            else:
                data += piece
        self.assertTrue(data.endswith(b"\n"))
        return [line.partition(" ")[2] for line in data.decode().splitlines()]

    def gap(self, lines: list[str]) -> int:
        """
        Check that lines are whole and in their order, but for one gap that is told.

        @param lines: the lines.
        @return: how many are missing.
        """
        missing = expected = 0
        for line in lines:
            if "lines were dropped" in line:
                self.assertEqual(missing, 0)
                missing = int(line.split()[1])
                self.assertTrue(line.endswith(" because nobody read the log"), line)
                self.assertIn("[ktlsagent.processes.standardlog.StandardLog#warn]", line)
                expected += missing
            else:
                text = f"[some.where#info] number {expected} {'x' * 200}"
                self.assertEqual(line, text)
                expected += 1
        return missing


class UnreadTests(StandardLogTestCase):
    """Nobody reads, and then somebody does."""

    def unread(self, near: int, far: int) -> None:
        """
        Log more than is kept, read all of it, and log again.

        @param near: the end to read.
        @param far: the end to write.
        """
        before = fcntl.fcntl(far, fcntl.F_GETFL)
        observer = self.observe(writerFor(far))
        self.say(*range(MANY))
        self.assertLessEqual(observer._octets, MOST_OCTETS)
        self.assertLessEqual(len(observer._lines), MOST_LINES)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        lines = self.drained(near)
        missing = self.gap(lines)
        self.assertGreater(missing, 1000)
        self.assertEqual(len(lines) - 1 + missing, MANY)
        self.say(0)
        self.assertEqual(len(self.drained(near)), 1)
        self.assertEqual(fcntl.fcntl(far, fcntl.F_GETFL), before)

    def test_pipe(self) -> None:
        """A pipe that nobody reads blocks nobody; what was dropped is told where it is missing."""
        self.unread(*self.pipe())

    def test_connection(self) -> None:
        """So does a connection, as that to systemd's journal is one."""
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        near.setblocking(False)
        self.unread(near.fileno(), far.fileno())

    def test_terminal(self) -> None:
        """So does a terminal that is stopped."""
        near, far = os.openpty()
        self.addCleanup(os.close, near)
        self.addCleanup(os.close, far)
        os.set_blocking(near, False)
        observer = self.observe(writerFor(far))
        self.say(*range(MANY))
        self.assertGreater(observer._dropped, 1000)

    def test_notToBeOpened(self) -> None:
        """So does a pipe of somebody else's, which may not be opened once more."""

        def refuse(*_ignored: object) -> int:
            raise PermissionError(errno.EACCES, "no")

        near, far = self.pipe()
        self.patch(os, "open", refuse)
        self.unread(near, far)

    def test_newLinesMeanwhile(self) -> None:
        """What is logged when there is room again stands behind what was dropped."""
        near, far = self.pipe()
        observer = self.observe(writerFor(far))
        self.say(*range(MANY))
        dropped = observer._dropped
        os.read(near, 2**16)
        self.reactor.advance(0.5)
        self.say(MANY, MANY + 1)
        os.read(near, 2**12)
        self.reactor.advance(0.5)
        lines = self.drained(near)
        self.assertIn(f"{dropped} lines were dropped", lines[-3])
        self.assertIn(f"number {MANY + 1} ", lines[-1])

    def test_tellsAlone(self) -> None:
        """What was dropped is told as soon as there is room, even if nothing else is said."""
        near, far = self.pipe()
        self.observe(writerFor(far))
        self.say(*range(MANY))
        self.assertIn("lines were dropped", self.drained(near)[-1])

    def test_pauses(self) -> None:
        """It tries again soon while somebody reads, and seldom while nobody does."""
        near, far = self.pipe()
        self.observe(writerFor(far))
        self.say(*range(1000))
        pauses = []
        for _time in range(8):
            (call,) = self.reactor.getDelayedCalls()
            pauses.append(round(call.getTime() - self.reactor.seconds(), 2))
            self.reactor.advance(pauses[-1])
        self.assertEqual(pauses, [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5])
        os.read(near, 2**16)
        self.reactor.advance(0.5)
        (call,) = self.reactor.getDelayedCalls()
        self.assertAlmostEqual(call.getTime() - self.reactor.seconds(), 0.01)

    def test_manyShort(self) -> None:
        """The number of lines is bounded as well."""
        observer = self.observe(self.fullDisk)
        for _number in range(MOST_LINES + 5):
            self.log.info("x")
        self.assertEqual((len(observer._lines), observer._dropped), (MOST_LINES, 5))

    def fullDisk(self, _data: bytes) -> int:
        """
        Write to a disk that is full.

        @raise OSError: always.
        """
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class WriterTests(StandardLogTestCase):
    """Whatever standard output is."""

    def test_file(self) -> None:
        """To a file all is written at once, from several descriptors behind each other."""
        path = Path(self.mktemp())
        with path.open("wb") as file:
            self.observe(writerFor(file.fileno()))
            self.say(0)
            os.write(file.fileno(), b"other\n")
            self.say(1)
        lines = path.read_text().splitlines()
        self.assertEqual(len(lines), 3)
        self.assertEqual(lines[1], "other")

    def test_fullDisk(self) -> None:
        """A full disk ends nothing, and is named when there is room again."""
        with open("/dev/full", "wb") as full:
            full_ = writerFor(full.fileno())
            observer = self.observe(full_)
            self.say(*range(MANY))
            self.assertGreater(observer._dropped, 1000)
        lines: list[bytes] = []

        def write(data: bytes) -> int:
            lines.append(data)
            return len(data)

        observer._write = write
        self.reactor.advance(0.5)
        reason = b" because the log could not be written: No space left on device\n"
        self.assertTrue(lines[-1].endswith(reason), lines[-1])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_readerGone(self) -> None:
        """A reader that has gone ends nothing; one that comes back reads on."""
        path = self.mktemp()
        os.mkfifo(path)
        near = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        far = os.open(path, os.O_WRONLY)
        self.addCleanup(os.close, far)
        self.observe(writerFor(far))
        self.say(0)
        os.read(near, 2**16)
        os.close(near)
        self.say(0, 1)
        near = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, near)
        self.reactor.advance(0.5)
        data = os.read(near, 2**16).decode().splitlines()
        self.assertEqual(self.gap([line.partition(" ")[2] for line in data]), 0)
        self.assertEqual(len(data), 2)

    def test_noReaderYet(self) -> None:
        """A pipe without a reader at the start is waited for."""
        path = self.mktemp()
        os.mkfifo(path)
        near = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        far = os.open(path, os.O_WRONLY)
        self.addCleanup(os.close, far)
        os.close(near)
        self.observe(writerFor(far))
        self.say(0)
        near = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, near)
        self.reactor.advance(0.5)
        self.assertIn(b"number 0", os.read(near, 2**16))

    def test_closed(self) -> None:
        """Without standard output nothing is written to what may have its number."""
        self.patch(sys, "__stdout__", None)
        observer = standardLog(self.reactor)
        for _number in range(100):
            observer({"log_format": "x", "log_level": LogLevel.info})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_closedLater(self) -> None:
        """A descriptor that was closed ends nothing."""
        near, far = socket.socketpair()
        write = writerFor(far.fileno())
        near.close()
        far.close()
        observer = self.observe(write)
        self.say(*range(MANY))
        self.assertLessEqual(observer._octets, MOST_OCTETS)

    def test_standardOutput(self) -> None:
        """The observer of a process writes to its standard output."""
        near, far = self.pipe()
        with os.fdopen(os.dup(far), "w") as output:
            self.patch(sys, "__stdout__", output)
            standardLog(self.reactor)({"log_format": "x", "log_level": LogLevel.info})
        self.assertIn(b"#info] x\n", os.read(near, 100))

    def test_pieces(self) -> None:
        """What takes a line in pieces gets all of them, once."""
        pieces: list[bytes] = []

        def write(data: bytes) -> int:
            if len(pieces) % 3 == 2:
                pieces.append(b"")
                raise BlockingIOError(errno.EAGAIN, "full")
            pieces.append(data[:7])
            return min(7, len(data))

        observer = self.observe(write)
        self.say(0, 1)
        while self.reactor.getDelayedCalls():
            self.reactor.advance(0.5)
        lines = b"".join(pieces).decode().splitlines()
        self.assertEqual(self.gap([line.partition(" ")[2] for line in lines]), 0)
        self.assertEqual((len(lines), observer._octets), (2, 0))


class SeveralTests(StandardLogTestCase):
    """Several who log at the same time."""

    def test_signal(self) -> None:
        """A line that a signal's handler logs in the middle of another comes behind it."""
        lines: list[bytes] = []

        def write(data: bytes) -> int:
            lines.append(data)
            if len(lines) == 1:
                self.say(1)
            return len(data)

        self.observe(write)
        self.say(0)
        self.assertEqual([b"number 0 " in lines[0], b"number 1 " in lines[1]], [True, True])
        self.assertEqual(len(lines), 2)

    def test_threads(self) -> None:
        """Threads lose nothing, and every line is whole."""
        path = Path(self.mktemp())
        with path.open("wb") as file:
            self.observe(writerFor(file.fileno()))
            threads = [threading.Thread(target=self.say, args=range(500)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        lines = path.read_text().splitlines()
        self.assertEqual(len(lines), 2000)
        self.assertEqual({len(line.split()) for line in lines}, {5})

    def test_processes(self) -> None:
        """Lines of several processes do not get into each other, even the longest ones."""
        near, far = self.pipe()
        os.set_blocking(near, True)
        children = []
        for letter in "abc":
            child = os.fork()
            if not child:
                try:
                    self.observe(writerFor(far))
                    for _number in range(40):
                        self.log.info("{text}", text=letter * 9000)
                        while self.reactor.getDelayedCalls():
                            self.reactor.advance(0.5)
                finally:
                    os._exit(0)
            children.append(child)
        data = b""
        while data.count(b"\n") < 120:
            data += os.read(near, 2**16)
        for child in children:
            os.waitpid(child, 0)
        for line in data.decode().splitlines(keepends=True):
            self.assertEqual(len(line), LINE)
            self.assertEqual(len(set(line.rpartition("] ")[2].strip(".\n"))), 1)

    def test_fork(self) -> None:
        """After a fork only the first process writes what was kept."""
        near, far = self.pipe()
        observer = self.observe(writerFor(far))
        self.say(*range(MANY))
        child = os.fork()
        if not child:
            with observer._lock:
                os._exit(len(observer._lines) + observer._octets + observer._dropped)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertGreater(self.gap(self.drained(near)), 1000)


class TextTests(SynchronousTestCase):
    """Tests for L{asText}."""

    def text(self, text: str) -> str:
        """
        Make a line.

        @param text: the event's text.
        @return: the line, without its time.
        """
        event = {"log_format": "{text}", "text": text, "log_namespace": "a"}
        line = asText({**event, "log_level": LogLevel.warn, "log_time": 0.0})
        assert line is not None
        self.assertLessEqual(len(line), LINE)
        self.assertTrue(line.endswith(b"\n"))
        return line.decode().partition(" ")[2][:-1]

    def test_text(self) -> None:
        """An event is a line as Twisted writes it."""
        self.assertEqual(self.text("m\u00fcller"), "[a#warn] m\u00fcller")
        self.assertEqual(self.text("one\ntwo"), "[a#warn] one\n\ttwo")

    def test_nothing(self) -> None:
        """An event without words is no line."""
        self.assertIsNone(asText({}))

    def test_escapes(self) -> None:
        """Nothing in it moves a cursor or ends a line."""
        self.assertEqual(
            self.text("a\x1b[2J\r\x00\x85\u2028\u202e\ud800\x7f"),
            "[a#warn] a\\x1b[2J\\r\\x00\\x85\\u2028\\u202e\\ud800\\x7f",
        )

    def test_long(self) -> None:
        """A long line is cut, and shows it, but not inside an escape or a character."""
        for one in ("x", "\x00", "\u2028", "\U0001f600", "\n"):
            for before in range(4):
                line = self.text("x" * before + one * 10_000)
                self.assertTrue(line.endswith("..."))
                self.assertGreater(len(line.encode()), 4000)
                self.assertNotIn("\\x...", line)

    def test_bug(self) -> None:
        """A bug has its traceback, in lines that belong together."""
        lines: list[bytes | None] = []
        try:
            raise LookupError("a\n[ktlsagent]")  # noqa: TRY301 - it is the test's
        except LookupError:
            logBug(Logger(observer=lambda event: lines.append(asText(event))), Failure())  # type: ignore[arg-type]
        (line,) = lines
        assert line is not None
        first, *others = line.decode().splitlines()
        self.assertTrue(first.endswith("This is a bug in ktlsagent"))
        self.assertTrue(all(one.startswith("\t") for one in others), others)
        self.assertEqual(others[-1], "\tbuiltins.LookupError: a\\n[ktlsagent]")
