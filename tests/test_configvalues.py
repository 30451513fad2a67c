"""Tests for L{ktlsagent.config.values}."""

from __future__ import annotations

from ktlsagent.config.keyfile import Entry
from ktlsagent.config.values import (
    readBound,
    readChoice,
    readChoices,
    readKeyrings,
    readNames,
    readNumber,
    suggest,
)
from tests.support.readers import ReaderTestCase


class ListTests(ReaderTestCase):
    """Tests for lists of names."""

    def test_names(self) -> None:
        """Names are taken in their order, without blanks, and with their escapes replaced."""
        for value, names in (
            ("a", ("a",)),
            (" b ; a ;", ("b", "a")),
            (r"a\;b;c\sd;\\", ("a;b", "c d", "\\")),
        ):
            self.assertEqual(readNames(self.entry(value)), names)

    def test_emptyLists(self) -> None:
        """A list without a name is refused, and so is a gap."""
        for value in ("", r"\s"):
            mistake = self.mistake(readNames, value)
            self.assertEqual(mistake.expected, "at least one element")
            self.assertIn("to have the default", mistake.advice)
        for value in (";", ";;", "a;;b"):
            mistake = self.mistake(readNames, value)
            self.assertEqual(mistake.expected, "something before each ;")

    def test_keyrings(self) -> None:
        """The list of keyrings may be empty, as tlshd has it."""
        self.assertEqual(readKeyrings(self.entry("")), ())
        self.assertEqual(readKeyrings(self.entry(".nfs;a")), (".nfs", "a"))
        self.mistake(readKeyrings, ";")

    def test_known(self) -> None:
        """
        A gap, a repetition and an unknown name in one list are three mistakes,
        and the names that others have for something lead to ours.
        """

        def read(entry: Entry) -> object:
            return readNames(entry, ("X25519", "P-256"), {"prime256v1": "P-256"})

        self.assertEqual(read(self.entry("P-256;X25519")), ("P-256", "X25519"))
        mistakes = self.mistakes(read, "X25519;;zzz;X25519")
        self.assertEqual(
            [mistake.found for mistake in mistakes], ["nothing", "'X25519' 2 times", "'zzz'"]
        )
        self.assertEqual(mistakes[2].advice, "known are X25519, P-256")
        for name, ours in (("PRIME256V1", "P-256"), ("x25519", "X25519")):
            self.assertEqual(self.mistake(read, name).advice, f"did you mean {ours}?")


class WordTests(ReaderTestCase):
    """Tests for words and numbers."""

    def test_choice(self) -> None:
        """One of some words stands for its value, any other is refused."""
        choices = {"off": 0, "require": 1}
        self.assertEqual(readChoice(self.entry("require"), choices), 1)
        for value, found, advice in (
            ("required", "'required'", "did you mean require?"),
            ("zz", "'zz'", "known are off, require"),
            ("", "nothing", "known are off, require"),
            ("off;require", "'off;require'", "did you mean require?"),
        ):
            mistake = self.mistake(lambda entry: readChoice(entry, choices), value)
            self.assertEqual((mistake.expected, mistake.found), ("off or require", found))
            self.assertEqual(mistake.advice, advice)

    def test_choices(self) -> None:
        """Several words stand for their values, and one for the empty list if it is alone."""
        choices = {"a": 0, "b": 1}

        def read(entry: Entry) -> tuple[int, ...]:
            return readChoices(entry, choices, "none")

        self.assertEqual(read(self.entry("b;a")), (1, 0))
        self.assertEqual(read(self.entry("none")), ())
        self.assertEqual(self.mistake(read, "none;a").found, "'none'")
        self.assertEqual(self.mistake(read, "a;a").found, "'a' 2 times")
        self.mistake(read, "")

    def test_number(self) -> None:
        """A number is within its bounds."""

        def read(entry: Entry) -> int:
            return readNumber(entry, 2, 10, "count again")

        self.assertEqual([read(self.entry(value)) for value in ("2", "10")], [2, 10])
        for value in ("1", "11"):
            mistake = self.mistake(read, value)
            self.assertEqual((mistake.expected, mistake.found), ("a number from 2 to 10", value))
            self.assertEqual(mistake.advice, "count again")
        self.mistake(read, "x")

    def test_bound(self) -> None:
        """A bound is a number that is not 0, or the word auto."""
        values = [readBound(self.entry(value)) for value in ("1", "65536", "auto")]
        self.assertEqual(values, [1, 65536, None])
        for value in ("0", "65537"):
            mistake = self.mistake(readBound, value)
            self.assertEqual(mistake.expected, "a number from 1 to 65536")
            self.assertIn("auto", mistake.advice)
        self.mistake(readBound, "many")

    def test_suggest(self) -> None:
        """The name that comes closest is suggested, whatever its case, else all are listed."""
        self.assertEqual(suggest("ALPHA", ["alpha", "beta"]), "did you mean alpha?")
        self.assertEqual(suggest("zz", ["alpha", "beta"]), "known are alpha, beta")
        self.assertEqual(suggest("gamma", ["alpha"], {"gamma": "alpha"}), "did you mean alpha?")
