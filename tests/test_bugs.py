"""Tests for L{ktlsagent.bugs}."""

from __future__ import annotations

from twisted.logger import Logger, capturedLogs, eventAsText
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.bugs import Bug, logBug


def recur(times: int, words: str) -> None:
    """
    Fail deep inside.

    @param times: how deep.
    @param words: what the exception says.
    @raise LookupError: always.
    """
    if times:
        recur(times - 1, words)
    raise LookupError(words)


class BugTests(SynchronousTestCase):
    """Tests for L{logBug}."""

    def text(self, times: int, words: str) -> str:
        """
        Log a bug.

        @param times: how deep it is.
        @param words: what the exception says.
        @return: the text in the log.
        """
        with capturedLogs() as events:
            try:
                recur(times, words)
            except LookupError:
                logBug(Logger(), Failure())
        (event,) = events
        self.assertIsInstance(event["log_failure"], Bug)
        self.assertIsInstance(self.flushLoggedErrors(LookupError)[0].value, LookupError)
        return eventAsText(event)

    def test_traceback(self) -> None:
        """It says where it has happened, and what."""
        lines = self.text(1, "no such thing").splitlines()
        self.assertTrue(lines[0].endswith("#critical] This is a bug in ktlsagent"), lines[0])
        self.assertEqual(lines[1], "Traceback (most recent call last):")
        self.assertRegex(lines[2], "^  .*test_bugs.py, line [0-9]+, in text$")
        self.assertRegex(lines[-2], "^  .*test_bugs.py, line [0-9]+, in recur$")
        self.assertEqual(lines[-1], "builtins.LookupError: no such thing")

    def test_deep(self) -> None:
        """Of very many calls the innermost are told."""
        lines = self.text(500, "no such thing").splitlines()
        self.assertEqual(lines[2], "  (482 calls before)")
        self.assertEqual(len(lines), 24)

    def test_words(self) -> None:
        """What a peer has put into an exception is bounded, and starts no line."""
        for words in ("x" * 10**5, "\n2026-01-01 [ktlsagent#info] ok" * 999, "\x1b[2J\u2028\r"):
            text = self.text(500, words)
            self.assertLess(len(text.encode()), 4096)
            self.assertTrue(text.splitlines()[-1].startswith("builtins.LookupError: "))
            self.assertTrue(all(line.isprintable() for line in text.split("\n")))

    def test_mute(self) -> None:
        """An exception that cannot say anything is no bug in the log."""

        class Mute(Exception):
            def __str__(self) -> str:
                raise ValueError

        text = Bug(Failure(Mute())).getTraceback()
        self.assertIn("Mute", text)
        self.assertTrue(all(line.isprintable() for line in text.split("\n")))
