"""Tests for L{ktlsagent.peers.patterns}."""

from __future__ import annotations

import itertools
import re
import time

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.peers.patterns import expression, matchesPattern, mayOverlap
from tests.support.patterns import reference
from tests.support.properties import patient

ALPHABET = "ab.*?\n"


class PatternTests(SynchronousTestCase):
    """Tests for L{matchesPattern} and L{expression}."""

    def test_literal(self) -> None:
        """What is no wildcard stands for itself, and case counts."""
        self.assertTrue(matchesPattern("server.lab", "server.lab"))
        for text in ("serverxlab", "Server.lab", "server.la", "server.labs", "", "a server.lab"):
            self.assertFalse(matchesPattern("server.lab", text))

    def test_star(self) -> None:
        """A star stands for any run of characters, an empty one too."""
        for text in ("ab", "axb", "a*b", "a\nb", "abab"):
            self.assertTrue(matchesPattern("a*b", text))
        for text in ("a", "b", "ba", "abc", "cab"):
            self.assertFalse(matchesPattern("a*b", text))
        self.assertTrue(matchesPattern("*", ""))
        self.assertTrue(matchesPattern("**a***b**", "ab"))

    def test_questionMark(self) -> None:
        """A question mark stands for one character."""
        self.assertTrue(matchesPattern("a?c", "abc"))
        self.assertTrue(matchesPattern("?", "\n"))
        for text in ("ac", "abbc", "ab", "?"):
            self.assertFalse(matchesPattern("a?c", text))
        self.assertTrue(matchesPattern("*??", "ab"))
        self.assertFalse(matchesPattern("*??", "a"))

    def test_nothingElseIsSpecial(self) -> None:
        """There are neither classes nor escapes."""
        for pattern, text in (
            ("[ab]", "a"),
            ("\\*", "*"),
            ("a|b", "a"),
            ("(a)", "a"),
            ("a+", "aa"),
        ):
            self.assertFalse(matchesPattern(pattern, text))
            self.assertTrue(matchesPattern(pattern, pattern))

    def test_empty(self) -> None:
        """An empty pattern matches the empty string alone."""
        self.assertTrue(matchesPattern("", ""))
        self.assertFalse(matchesPattern("", "a"))

    def test_stop(self) -> None:
        """No wildcard stands for a character at which it has to stop."""
        pattern = re.compile(expression("*.b?", "./"))
        for text in ("a.bb", ".bb", "aaa.b?"):
            self.assertIsNotNone(pattern.fullmatch(text))
        for text in ("a.a.bb", "a/.bb", "a.b.", "a.b/"):
            self.assertIsNone(pattern.fullmatch(text))

    def test_hostile(self) -> None:
        """No string makes a pattern with many stars take long."""
        started = time.process_time()
        self.assertFalse(matchesPattern("*a" * 100 + "b", "a" * 100_000))
        self.assertFalse(matchesPattern("*a?a" * 50 + "*b", "a" * 100_000 + "c"))
        self.assertLess(time.process_time() - started, 5)

    @patient
    @given(st.text(ALPHABET, max_size=12), st.text(ALPHABET, max_size=20))
    @example("*aa*a", "aaa")
    def test_asDefined(self, pattern: str, text: str) -> None:
        """Any pattern matches what the definition says."""
        self.assertEqual(matchesPattern(pattern, text), reference(pattern, text))

    @patient
    @given(st.text("ab.*?", max_size=12), st.text("ab.*?", max_size=20))
    @example("*a*a.b", "aaa.b")
    def test_stopAsDefined(self, pattern: str, text: str) -> None:
        """So does any pattern whose wildcards have to stop somewhere."""
        found = re.fullmatch(expression(pattern, "."), text) is not None
        self.assertEqual(found, reference(pattern, text, "."))

    @patient
    @given(st.text(max_size=20))
    def test_anyText(self, text: str) -> None:
        """Any string is matched by a star, and by as many question marks as it has characters."""
        self.assertTrue(matchesPattern("*", text))
        self.assertTrue(matchesPattern("?" * len(text), text))
        self.assertFalse(matchesPattern("?" * (len(text) + 1), text))


TEXTS = ["".join(some) for count in range(8) for some in itertools.product("ab", repeat=count)]
"""All texts that decide on short patterns."""


class OverlapTests(SynchronousTestCase):
    """Tests for L{mayOverlap}."""

    def test_overlap(self) -> None:
        """Literals, wildcards and both."""
        for one, other, expected in (
            ("laptop7", "laptop7", True),
            ("laptop7", "laptop8", False),
            ("laptop7", "laptop77", False),
            ("*", "laptop7", True),
            ("*", "", True),
            ("?", "", False),
            ("l*", "*7", True),
            ("l*", "x*", False),
            ("*7", "*8", False),
            ("l?ptop*", "la*", True),
            ("ab*ba", "aba", False),
            ("ab*ba", "abba", True),
            ("ab*ba", "???", False),
            ("a*b*c", "ac", False),
            # Not seen: the star in the middle has nothing to stand for.
            ("a*b*c", "axc", True),
        ):
            self.assertIs(mayOverlap(one, other), expected, (one, other))
            self.assertIs(mayOverlap(other, one), expected, (other, one))

    @patient
    @given(st.text("ab*?", max_size=3), st.text("ab*?", max_size=3))
    @example("a*a", "a")
    @example("*b*", "aa")
    def test_asDefined(self, one: str, other: str) -> None:
        """No text that both match is missed, and one star is understood exactly."""
        both = any(reference(one, text) and reference(other, text) for text in TEXTS)
        found = mayOverlap(one, other)
        self.assertTrue(found or not both)
        if max(one.count("*"), other.count("*")) < 2 or min(one.count("*"), other.count("*")) > 0:
            self.assertIs(found, both)
