"""Tests for L{ktlsagent.config.keyfile}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.config.keyfile import (
    Entry,
    hasPIN,
    parseKeyFile,
    quote,
    splitList,
    unescape,
    wholeNumber,
)
from ktlsagent.errors import ConfigError, Mistake

BASE64 = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg="


def entryOf(value: str) -> Entry:
    """
    Make an entry.

    @param value: its value.
    @return: the entry, on line 2.
    """
    return Entry("authenticate", "keyrings", value, 2)


class LineTests(SynchronousTestCase):
    """Tests for how lines become entries."""

    def entries(self, text: str) -> list[Entry]:
        """
        Parse a text without mistakes.

        @param text: the file.
        @return: the entries.
        """
        entries, mistakes = parseKeyFile(text)
        self.assertEqual(mistakes, [])
        return entries

    def mistake(self, text: str) -> Mistake:
        """
        Parse a text with one mistake.

        @param text: the file.
        @return: the mistake, which says everything.
        """
        _, mistakes = parseKeyFile(text)
        self.assertEqual(len(mistakes), 1, mistakes)
        (mistake,) = mistakes
        self.assertTrue(mistake.expected and mistake.found and mistake.advice)
        return mistake

    def test_entries(self) -> None:
        """
        Headers and keys come in the order of the file, keys before the first
        header too, and a section may come twice.
        """
        self.assertEqual(
            self.entries("a=1\n[b.c]\nd=2\n\n[e f]\n[b.c]\nd=3"),
            [
                Entry("", "a", "1", 1),
                Entry("b.c", "", "", 2),
                Entry("b.c", "d", "2", 3),
                Entry("e f", "", "", 5),
                Entry("b.c", "", "", 6),
                Entry("b.c", "d", "3", 7),
            ],
        )

    def test_blanks(self) -> None:
        """
        Blanks around the equals sign, at both ends of lines, and a carriage
        return before the line feed are no part of anything.
        """
        for line in ("k=/a", "k = /a", "k\t=\t/a\t ", "k=/a\r\n", " k= /a \n\n"):
            self.assertEqual(self.entries(line), [Entry("", "k", "/a", 1)])
        self.assertEqual(self.entries("  [debug] \r\n"), [Entry("debug", "", "", 1)])

    def test_valuesToTheEndOfTheLine(self) -> None:
        """Nothing in a value is special but the backslash."""
        value = "/a b=c;d#e%f:${g}é"
        (entry,) = self.entries(f"k={value}")
        self.assertEqual((entry.value, unescape(entry)), (value, value))

    def test_comments(self) -> None:
        """
        Blank lines and lines that begin with a number sign are passed over, in
        front of the first section too.
        """
        text = "# x509.crl\n\n  # -----BEGIN CERTIFICATE-----\n[debug]\n#\nloglevel=3"
        self.assertEqual(
            self.entries(text), [Entry("debug", "", "", 4), Entry("debug", "loglevel", "3", 6)]
        )

    def test_notKeyValue(self) -> None:
        """A line that is nothing of what can be in a file is refused where it is."""
        for section, line in (
            ("[debug]\n", "loglevel 1"),
            ("[debug]\n", "loglevel: 1"),
            ("[debug]\n", "; comment"),
            ("[debug]\n", "=1"),
            ("[debug]\n", "log\x1blevel=1"),
            ("\n", "loglevel"),
            ("\n", "\ufeffloglevel=1"),
        ):
            mistake = self.mistake(section + line)
            self.assertEqual((mistake.line, mistake.found), (2, repr(line)))
            self.assertEqual(mistake.section, section.strip("[]\n"))

    def test_badHeaders(self) -> None:
        """
        What begins like a section and is none is refused; the keys below it
        are not held against the operator as well.
        """
        for header in ("[debug", "[]", "[debug] # x", "[[debug]]", "[de\x07bug]", "[debug]x=1"):
            mistake = self.mistake(f"{header}\nloglevel=1\nfoo=2\n")
            self.assertEqual((mistake.line, mistake.found), (1, repr(header)))

    def test_longHeaders(self) -> None:
        """
        A section's name has up to 32 characters, after a prefix of lower-case
        letters that ends in a dot if there is one.
        """
        for name in ("a" * 32, f"profile.{'A' * 32}", f"{'p' * 16}.{'.' * 32}"):
            self.assertEqual(self.entries(f"[{name}]"), [Entry(name, "", "", 1)])
        for name in ("a" * 33, f"profile.{'A' * 33}", f"Profile.{'A' * 32}", f".{'a' * 32}"):
            self.assertIn(f"{len(name) + 2} characters", self.mistake(f"[{name}]").found)

    def test_badLineBelowBadHeader(self) -> None:
        """A line that is no key=value is refused below a wrong header too."""
        entries, (_, second) = parseKeyFile("[debug\nloglevel\n")
        self.assertEqual((second.section, second.line, entries), ("", 2, []))

    def test_strangersAreNotQuoted(self) -> None:
        """A long line that should not be there is described: it may be a key."""
        for line in (BASE64, BASE64[:-1], f"{BASE64}x", f"[{BASE64}]"):
            mistake = self.mistake(f"[debug]\n{line}")
            self.assertNotIn("MIGHA", str(mistake))
            self.assertIn(f"characters that begin with '{line[:4]}'", mistake.found)

    def test_pastedPEM(self) -> None:
        """
        PEM text in the file is one mistake, nothing of it is shown, and the
        lines after it are read.
        """
        for before, section in (("[debug]\n", "debug"), ("\n", "")):
            entries, (mistake,) = parseKeyFile(
                f"{before}-----BEGIN PRIVATE KEY-----\nMIGH\nAgEA=\n"
                "-----END PRIVATE KEY-----\n[debug]\nloglevel=x\n"
            )
            self.assertEqual(
                (mistake.section, mistake.line, mistake.found), (section, 2, "PEM text")
            )
            self.assertNotIn("MIGH", str(mistake))
            self.assertEqual(entries[-1], Entry("debug", "loglevel", "x", 7))

    def test_pastedPEMInOneLine(self) -> None:
        """PEM text that ends on the line it begins on hides no other line."""
        entries, (mistake,) = parseKeyFile(
            r"x509.crl=-----BEGIN X509 CRL-----\nMIGH\n-----END X509 CRL-----" "\na=1\n"
        )
        self.assertEqual((mistake.line, entries), (1, [Entry("", "a", "1", 2)]))

    @settings(deadline=None)
    @given(st.text() | st.text(alphabet="[]=# a\\;\n-"))
    def test_anyText(self, text: str) -> None:
        """
        Any text becomes entries and mistakes, in the order of its lines and at
        most one for each.
        """
        entries, mistakes = parseKeyFile(text)
        good = [entry.line for entry in entries]
        bad = [mistake.line for mistake in mistakes]
        lines = good + bad
        self.assertEqual((good, bad), (sorted(good), sorted(bad)))
        self.assertEqual(len(lines), len(set(lines)))
        self.assertLessEqual(set(lines), set(range(1, text.count("\n") + 2)))


class ValueTests(SynchronousTestCase):
    """Tests for strings, lists and numbers."""

    def test_escapes(self) -> None:
        """A backslash and a blank can be escaped, the blank at the end too."""
        self.assertEqual(unescape(entryOf(r"/a\\b\sc\s")), r"/a\b c ")
        self.assertEqual(unescape(entryOf(r"\n\t\r;")), "\n\t\r;")

    def test_lists(self) -> None:
        """
        A list is cut at separators without a backslash before them, of which
        the last may be missing; blanks around the pieces are dropped.
        """
        for value, pieces in (
            (r"a\;b;c\sd", ["a;b", "c d"]),
            (r"a\\;b", ["a\\", "b"]),
            (" a ; b ;", ["a", "b"]),
            ("a;;b;;", ["a", "", "b", ""]),
            ("", []),
            (r"\s", []),
            (";", [""]),
        ):
            self.assertEqual(splitList(entryOf(value)), pieces)

    def test_wrongEscapes(self) -> None:
        """
        A backslash before anything else is refused, in strings and in lists,
        and so is one at the end of a line.
        """
        for read, value, found, expected in (
            (unescape, r"/a\qb", "'q'", "one of s n t r \\"),
            (unescape, r"/a\;b", "';'", "one of s n t r \\"),
            (unescape, "/a\\", "the end of the line", "one of s n t r \\"),
            (splitList, r"a;\x", "'x'", "one of s n t r \\ ;"),
            (splitList, "a;\\", "the end of the line", "one of s n t r \\ ;"),
        ):
            error: ConfigError = self.assertRaises(ConfigError, read, entryOf(value))
            (mistake,) = error.mistakes
            self.assertEqual((mistake.section, mistake.key), ("authenticate", "keyrings"))
            self.assertEqual((mistake.line, mistake.found), (2, found))
            self.assertEqual(mistake.expected, f"after a backslash {expected}")

    def test_numbers(self) -> None:
        """A number is made of digits and nothing else."""
        for value, number in (("0", 0), ("007", 7), ("9" * 9, 999999999)):
            self.assertEqual(wholeNumber(entryOf(value)), number)
        for value in ("", "-1", "1.0", "0x1", "true", "0 # x", "\u0663", "1" * 10, "9" * 5000):
            self.assertRaises(ConfigError, wholeNumber, entryOf(value))

    def test_quote(self) -> None:
        """Text as long as a name is quoted, longer text is described."""
        self.assertEqual(quote("a" * 32), repr("a" * 32))
        self.assertEqual(quote("a" * 33), "33 characters that begin with 'aaaa'")

    def test_quotePIN(self) -> None:
        """Text with a PIN in it is described, however short it is and however it is written."""
        for text in (
            "pkcs11:a?pin-value=1234",
            "pkcs11:a?pin%2Dvalue%3D1234",
            "PIN-VALUE = 1234",
        ):
            self.assertTrue(hasPIN(text))
            self.assertEqual(quote(text), f"{len(text)} characters that begin with {text[:4]!r}")
        self.assertFalse(hasPIN("pkcs11:a?pin-source=file:/pin"))
