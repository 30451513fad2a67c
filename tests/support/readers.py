"""What tests of the readers of configuration values have in common."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config.keyfile import Entry
from ktlsagent.errors import ConfigError, Mistake


class ReaderTestCase(SynchronousTestCase):
    """What the tests of readers have in common."""

    def entry(self, value: str) -> Entry:
        """
        Make an entry.

        @param value: its value.
        @return: the entry, on line 2.
        """
        return Entry("profile.a", "key", value, 2)

    def mistakes(self, read: Callable[[Entry], object], value: str) -> list[Mistake]:
        """
        Read a value that is wrong.

        @param read: the reader.
        @param value: the value.
        @return: the mistakes, each of which says everything.
        """
        error: ConfigError = self.assertRaises(ConfigError, read, self.entry(value))
        for mistake in error.mistakes:
            self.assertEqual((mistake.section, mistake.key, mistake.line), ("profile.a", "key", 2))
            self.assertTrue(mistake.expected and mistake.found and mistake.advice, mistake)
            self.assertTrue(str(mistake).isprintable())
        return list(error.mistakes)

    def mistake(self, read: Callable[[Entry], object], value: str) -> Mistake:
        """
        Read a value with one thing wrong.

        @param read: the reader.
        @param value: the value.
        @return: the mistake.
        """
        mistakes = self.mistakes(read, value)
        self.assertEqual(len(mistakes), 1, mistakes)
        return mistakes[0]
