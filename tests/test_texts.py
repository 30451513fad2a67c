"""Tests for L{ktlsagent.texts}."""

from __future__ import annotations

import json
import shlex

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.texts import FIELD, cut, fitted, listed, printable, written
from tests.support.properties import patient

NASTY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            '\\"\x00\x1b\x7f\x9b\n\r\x85\u2028\u2029\u202e\u2066\ufeff\ud800\udfff\U0001f600'
        ),
        st.sampled_from("ux0123abcdef=[ "),
    ),
    max_size=80,
)
"""Texts with all that texts can do to lines and terminals."""


class WrittenTests(SynchronousTestCase):
    """Tests for L{written}."""

    @patient
    @given(NASTY)
    @example("\x7f")
    @example("handshake ok")
    @example("[ktlsagent.request#info]")
    @example("a handshake failed \\[ktlsagent \\\\handshake ok")
    def test_oneWord(self, value: str) -> None:
        """Every value is one word in printable ASCII, and can be had back."""
        text = written(value)
        self.assertTrue(text.isascii())
        self.assertTrue(text.isprintable())
        self.assertEqual(len(shlex.split(f"name={text} next")), 2)
        self.assertEqual(json.loads(text) if text.startswith('"') else text, value)

    def test_plain(self) -> None:
        """What needs no quotes has none."""
        for value in ("CN=server.lab,O=Lab", "[fd00::2]:2049", "sha256:a+/=", "a'"[:1]):
            self.assertEqual(written(value), value)
        for value in ("", "a b", "a'b", 'a"b', "a\\b", "m\u00fcller"):
            self.assertEqual(written(value), json.dumps(value))

    def test_noLineOfOurs(self) -> None:
        """What lines of ours begin with is in no value, whether it is quoted or not."""
        for value in (
            "[ktlsagent.a#info]",
            "x handshake ok y",
            "handshake failed",
            "handshake okay",
        ):
            text = written(value)
            for mark in ("[ktlsagent", "handshake ok", "handshake failed"):
                self.assertNotIn(mark, text)
        self.assertEqual(written("the handshake of [main]"), '"the handshake of [main]"')


class FittedTests(SynchronousTestCase):
    """Tests for L{fitted}."""

    @patient
    @given(NASTY, st.integers(5, 60))
    @example("\\" * 50, 20)
    @example("\\xff" * 50, 20)
    @example("\U0001f600" * 5, 12)
    def test_fits(self, value: str, most: int) -> None:
        """However it is written, it fits; of what does not the beginning is left."""
        plain = value.encode("utf-8", "backslashreplace").decode()
        text = fitted(value, most)
        self.assertLessEqual(len(written(text)), most)
        text.encode()
        if len(written(plain)) <= most:
            self.assertEqual(text, plain)
        else:
            self.assertTrue(text.endswith("..."))
            self.assertTrue(plain.startswith(text[:-3]))

    def test_asMuchAsPossible(self) -> None:
        """No more is taken away than has to be."""
        self.assertEqual(fitted("x" * 20, 20), "x" * 20)
        self.assertEqual(fitted("x" * 21, 20), "x" * 17 + "...")
        self.assertEqual(fitted("\x01" * 21, 20), "\x01" * 2 + "...")
        self.assertEqual(fitted("x y" * 9, 20), ("x y" * 9)[:15] + "...")
        self.assertEqual(len(fitted("x" * 10**6)), FIELD)

    def test_escapes(self) -> None:
        """Nothing is cut inside an escape that has been written by others, either."""
        for count in range(8, 26):
            for escape in ("\\xff", "\\u2028", "\\U0001f600", "\\,", "\\00", "\\\\"):
                text = fitted(f"a{escape * 20}", count).removesuffix("...")
                self.assertEqual(text, f"a{escape * 20}"[: len(text)])
                self.assertEqual((len(text) - 1) % len(escape), 0, text)


class ListedTests(SynchronousTestCase):
    """Tests for L{cut}, L{listed} and L{printable}."""

    def test_cut(self) -> None:
        """A long text is cut, and shows it."""
        self.assertEqual(cut("a" * 150), "a" * 150)
        self.assertEqual(cut("a" * 151), "a" * 150 + "...")
        self.assertEqual(cut("ab\\xff", 5), "ab...")

    def test_few(self) -> None:
        """A list of few short words is those words."""
        self.assertEqual(listed([]), "")
        self.assertEqual(listed(["a", "b c"]), "a, b c")
        self.assertEqual(listed([1, 2], hex), "0x1, 0x2")

    def test_many(self) -> None:
        """Of many words those are listed that have room, each not too long, but one in any case."""
        self.assertEqual(listed(["ab"] * 9, most=9), "ab, ab, and 7 more")
        self.assertEqual(listed(["ab"] * 9, most=1), "ab, and 8 more")
        self.assertEqual(listed(["abcd"], length=3, most=1), "abc...")
        self.assertEqual(listed(["abcd", "e"], length=3, most=11), "abc..., e")

    def test_work(self) -> None:
        """What is not listed is not even put into words."""
        asked: list[int] = []

        def show(number: int) -> str:
            asked.append(number)
            return f"host{number}.lab"

        self.assertTrue(listed(range(6500), show).endswith(" more"))
        self.assertLess(len(asked), 50)

    def test_printable(self) -> None:
        """What cannot be seen is escaped, and nothing else."""
        self.assertEqual(printable("m\u00fcller, a b"), "m\u00fcller, a b")
        self.assertEqual(
            printable("\n\x1b\x7f\u2028\u202e\ud800"), "\\n\\x1b\\x7f\\u2028\\u202e\\ud800"
        )

    @patient
    @given(NASTY)
    def test_printableAlways(self, text: str) -> None:
        """Nothing is left that a terminal or a journal would obey."""
        self.assertTrue(printable(text).isprintable())
