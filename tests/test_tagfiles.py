"""Tests for L{ktlsagent.peers.tagfiles}."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ktlsagent.errors import Mistake
from ktlsagent.peers.presented import Presented
from ktlsagent.peers.tagfiles import Definitions, Filters, Tags
from ktlsagent.peers.tagfilters import FILTER_TYPES
from tests.support.anycertificate import anyCertificate
from tests.support.properties import patient

FILTERS = """\
filters:
  lab: {type: x509.tbs.subject, pattern: "*,O=Lab,*"}
  self: {type: x509.derived.selfSigned}
"""


def read(*texts: str) -> tuple[Filters, Tags, list[Mistake]]:
    """
    Read files.

    @param texts: their texts; they are called a.yml, b.yml and so on.
    @return: filters, tags and mistakes.
    """
    definitions = Definitions()
    for name, text in zip("abcdef", texts, strict=False):
        definitions.read(f"{name}.yml", text)
    filters, tags = definitions.resolved()
    return filters, tags, definitions.mistakes


class DefinitionTests(SynchronousTestCase):
    """Tests for files without mistakes."""

    def good(self, *texts: str) -> tuple[Filters, Tags]:
        """
        Read files without mistakes.

        @param texts: their texts.
        @return: filters and tags.
        """
        filters, tags, mistakes = read(*texts)
        self.assertEqual(mistakes, [])
        return filters, tags

    def test_document(self) -> None:
        """A document defines filters and tags, in either order."""
        filters, tags = self.good(
            'tags:\n  staff:\n    filter:\n      - "lab"\n      - not self\n' + FILTERS
        )
        self.assertEqual(tags, {"staff": {"lab": True, "self": False}})
        self.assertEqual(
            {name: len(tests) for name, tests in filters.items()}, {"lab": 1, "self": 1}
        )
        self.assertEqual(
            [filters[name][0](Presented(anyCertificate())) for name in ("lab", "self")],
            [True, False],
        )

    def test_severalFiles(self) -> None:
        """A tag may name filters of later documents and later files."""
        first = "tags:\n  one: {filter: [lab]}\n---\ntags:\n  two: {filter: [self]}\n"
        _, tags = self.good(first, FILTERS)
        self.assertEqual(tags, {"one": {"lab": True}, "two": {"self": True}})

    def test_nothing(self) -> None:
        """Files, documents and sections may be empty."""
        for text in ("", "# nothing\n", "---\n---\n", "filters:\ntags:\n", "{}", "\ufeff# bom\n"):
            self.assertEqual(self.good(text), ({}, {}))

    def test_purposes(self) -> None:
        """A filter with purposes has a test for each."""
        text = "filters: {f: {type: x509.extension.keyUsage, purpose: [cRLSign, keyCertSign]}}"
        filters, _ = self.good(text)
        self.assertEqual(len(filters["f"]), 2)

    def test_textsAsTheyAre(self) -> None:
        """Text is not taken for numbers, dates or truth values, quoted or not."""
        filters, tags = self.good(
            "filters:\n"
            "  1: {type: x509.tbs.version, pattern: 3}\n"
            "  yes: {type: x509.tbs.validity.notBefore, pattern: 2026-01-01 00:00:00}\n"
            "  null: {type: x509.tbs.serialNumber, pattern: 0x1f}\n".replace("0x1f", "001f")
            + "tags:\n  2026-01-01: {filter: [1, not yes, ~]}\n".replace("~", "null")
        )
        self.assertEqual(set(filters), {"1", "yes", "null"})
        self.assertEqual(tags, {"2026-01-01": {"1": True, "yes": False, "null": True}})

    def test_filterCalledNot(self) -> None:
        """A name may be not, too."""
        text = "filters:\n  not: {type: x509.derived.selfSigned}\ntags:\n"
        self.assertEqual(self.good(f"{text}  t: {{filter: [not]}}")[1], {"t": {"not": True}})
        self.assertEqual(self.good(f"{text}  t: {{filter: [not not]}}")[1], {"t": {"not": False}})

    def test_names(self) -> None:
        """A name has up to 255 letters, digits, underscores and hyphens."""
        for name in ("a", "-", "_", "A-z_09", 255 * "x"):
            text = f"filters:\n  ? '{name}'\n  : {{type: x509.derived.selfSigned}}\n"
            self.assertEqual(list(self.good(text)[0]), [name])


class MistakeTests(SynchronousTestCase):
    """Tests for files with mistakes."""

    def mistakes(self, *texts: str) -> list[tuple[str, int, str]]:
        """
        Read files with mistakes.

        @param texts: their texts.
        @return: file, line and key of each mistake.
        """
        _, _, mistakes = read(*texts)
        for mistake in mistakes:
            self.assertTrue(mistake.expected and mistake.found and mistake.advice, mistake)
        return [(mistake.file, mistake.line, mistake.key) for mistake in mistakes]

    def mistake(self, *texts: str) -> str:
        """
        Read files with one mistake.

        @param texts: their texts.
        @return: the mistake in words.
        """
        _, _, mistakes = read(*texts)
        self.assertEqual(len(mistakes), 1, [str(mistake) for mistake in mistakes])
        self.assertTrue(mistakes[0].advice)
        return str(mistakes[0])

    def test_allAtOnce(self) -> None:
        """All mistakes are found, in all files, each with its place."""
        self.assertEqual(
            self.mistakes(
                "filters:\n"
                "  one: {type: x509.tbs.subject}\n"
                "  two:\n"
                "    type: x509.tbs.version\n"
                "    pattern: three\n"
                "    colour: blue\n"
                "tags:\n"
                "  t:\n"
                "    filter:\n"
                "      - one\n"
                "      - not  two\n"
                "      - three\n",
                "filters:\n  one: {type: x509.derived.selfSigned}\ntag:\n",
            ),
            [
                ("a.yml", 2, "filters.one"),
                ("a.yml", 6, "filters.two"),
                ("a.yml", 5, "filters.two.pattern"),
                ("a.yml", 11, "tags.t.filter"),
                ("b.yml", 3, ""),
                ("b.yml", 2, "filters.one"),
                ("a.yml", 12, "tags.t.filter"),
            ],
        )

    def test_unknownKeys(self) -> None:
        """An unknown key is refused, and probably another one."""
        for text, meant in (
            ("filter: {}", "filters"),
            ("tag: {}", "tags"),
            (
                "filters: {f: {Type: x509.derived.selfSigned, type: x509.derived.selfSigned}}",
                "type",
            ),
            (FILTERS + "tags: {t: {filters: [lab], filter: [lab]}}", "filter"),
        ):
            self.assertIn(f"did you mean {meant}?", self.mistake(text))
        self.assertIn("known are filters, tags", self.mistake("rules: {}"))

    def test_types(self) -> None:
        """A type is there, and known."""
        for text, words in (
            ("filters: {f: {type: x509.tbs.subjekt}}", "did you mean x509.tbs.subject?"),
            ("filters: {f: {type: X509.TBS.SUBJECT}}", "did you mean x509.tbs.subject?"),
            ("filters: {f: {type: colour}}", "x509.derived.selfSigned"),
            ("filters: {f: {type: ''}}", "found none"),
            ("filters: {f: {pattern: x}}", "found none"),
            ("filters: {f: {}}", "found none"),
            ("filters: {f: }", "found none"),
            ("filters: {f: x509.derived.selfSigned}", "expected keys with values, found text"),
            ("filters: {f: {type: [x509.tbs.subject]}}", "expected text, found a list"),
        ):
            self.assertIn(words, self.mistake(text))

    def test_parameters(self) -> None:
        """A type has its own key, and no other one."""
        for kind, keys, words in (
            ("x509.tbs.subject", "", "expected pattern beside the type x509.tbs.subject"),
            ("x509.tbs.validity.notBefore", "", "expected pattern beside"),
            ("x509.extension.keyUsage", "", "expected purpose beside"),
            ("x509.derived.selfSigned", "pattern: x", "expected no other key beside"),
            ("x509.derived.selfSigned", "purpose: [cRLSign]", "found purpose"),
            ("x509.tbs.version", "pattern: 3, purpose: [cRLSign]", "expected pattern beside"),
            (
                "x509.extension.keyUsage",
                "purpose: [cRLSign], pattern: x",
                "expected purpose beside",
            ),
        ):
            text = f"filters: {{f: {{type: {kind}, {keys}}}}}"
            self.assertIn(words, self.mistake(text))
        text = "filters: {f: {type: x509.derived.selfSigned, purpose: [x], pattern: x}}"
        wrong = ["filters.f.pattern", "filters.f.purpose"]
        self.assertEqual([key for _, _, key in self.mistakes(text)], wrong)

    def test_wrongParameter(self) -> None:
        """The wrong key in place of the right one is two mistakes."""
        text = "filters: {f: {type: x509.extension.keyUsage, pattern: cRLSign}}"
        self.assertEqual(len(self.mistakes(text)), 2)

    def test_patterns(self) -> None:
        """What is wrong with a pattern is said at its place."""
        for pattern, words in (
            ("", "expected a pattern, found nothing"),
            ("''", "expected a pattern, found nothing"),
            ("[a]", "expected text, found a list"),
            ("{a: b}", "expected text, found keys with values"),
            ('"a\\nb"', "found characters that cannot be seen"),
            ("'*****************'", "found 17 of them"),
        ):
            text = f"filters:\n  f:\n    type: x509.tbs.subject\n    pattern: {pattern}\n"
            message = self.mistake(text)
            self.assertTrue(message.startswith("a.yml, line 4: filters.f.pattern: "), message)
            self.assertIn(words, message)

    def test_purposes(self) -> None:
        """Purposes are a list with something in it, nothing of it twice."""
        for purposes, words in (
            ("[]", "expected at least one element, found an empty list"),
            ("", "expected a list, found nothing"),
            ("cRLSign", "expected a list, found text"),
            ("[cRLSign, cRLSign]", "found 'cRLSign' again"),
            ("[cRLSing]", "did you mean cRLSign?"),
            ("[[cRLSign]]", "expected text, found a list"),
        ):
            text = f"filters:\n  f:\n    type: x509.extension.keyUsage\n    purpose: {purposes}\n"
            self.assertIn(words, self.mistake(text))

    def test_tags(self) -> None:
        """A tag has filters: a list with something in it, nothing of it twice."""
        for tag, words in (
            ("", "expected the key filter"),
            ("{filter: }", "expected a list, found nothing"),
            ("{filter: []}", "found an empty list"),
            ("{filter: lab}", "expected a list, found text"),
            ("[lab]", "expected keys with values, found a list"),
            ("{filter: [lab, lab]}", "found 'lab' again"),
            ("{filter: [lab, not lab]}", "found 'lab' again"),
            ("{filter: [NOT lab]}", "or not and a name"),
            ("{filter: ['']}", "or not and a name"),
            ("{filter: [not]}", "found 'not'; did you mean"),
            ("{filter: [lap]}", "did you mean lab?"),
        ):
            message = self.mistake(f"{FILTERS}tags:\n  t: {tag}\n")
            self.assertTrue(message.startswith("a.yml, line 5: tags.t"), message)
            self.assertIn(words.split("; did")[0], message)

    def test_noFilters(self) -> None:
        """Without any filter there is none that could have been meant."""
        self.assertIn("found 'lab'; define it", self.mistake("tags: {t: {filter: [lab]}}"))

    def test_names(self) -> None:
        """Other names are refused; long ones are not repeated."""
        for section in ("filters", "tags"):
            for name in ("a.b", "'a b'", "''", "m\xfcller", 256 * "x", "a/b"):
                text = f"{section}:\n  ? {name}\n  : {{}}\n"
                message = self.mistake(text)
                self.assertTrue(message.startswith(f"a.yml, line 2: {section}: "), message)
                self.assertNotIn(40 * "x", message)

    def test_twice(self) -> None:
        """What is there twice is refused, and the first place is told."""
        value = "{type: x509.derived.selfSigned}"
        for text, words in (
            ("filters: {}\nfilters: {}\n", "line 2: filters: "),
            (f"filters:\n  f: {value}\n  f: {value}\n", "line 3: filters.f: "),
            ("filters:\n  f: {type: x509.tbs.version, pattern: 3,\n pattern: 3}", ".pattern: "),
        ):
            message = self.mistake(text)
            self.assertIn("found it again, first on line", message)
            self.assertIn(words, message)
        text = f"filters:\n  f: {value}\n"
        for texts in ((f"{text}---\n{text}",), (text, "", text)):
            self.assertIn("found it again, first in a.yml, line 2", self.mistake(*texts))

    def test_sameNameForBoth(self) -> None:
        """A filter and a tag may have the same name."""
        text = "filters: {f: {type: x509.derived.selfSigned}}\ntags: {f: {filter: [f]}}"
        self.assertEqual(self.mistakes(text), [])

    def test_shapes(self) -> None:
        """What should be something else is said to be what it is."""
        for text, words in (
            ("a", "expected keys with values, found text"),
            ("[a]", "expected keys with values, found a list"),
            ("filters: [a]", "filters: expected keys with values, found a list"),
            ("tags: a", "tags: expected keys with values, found text"),
            ("filters: {[a]: b}", "filters: expected text, found a list"),
            ("{a: b}: c", "expected text, found keys with values"),
        ):
            self.assertIn(words, self.mistake(text))

    def test_indirections(self) -> None:
        """Anchors, aliases and types are refused, each at its place."""
        for text, lines in (
            ("filters: &f {}\ntags: *f\n", [1, 2]),
            ("filters: !!map {}\n", [1]),
            ("filters:\n  a: !x {}\n", [2]),
            ("filters: ! {}\n", [1]),
            ("filters:\n  a: &a {type: x509.derived.selfSigned}\n  b:\n    <<: *a\n", [2, 4]),
            ("a: !!python/object/apply:os.system [id]\n", [1]),
        ):
            self.assertEqual(self.mistakes(text), [("a.yml", line, "") for line in lines])

    def test_notYAML(self) -> None:
        """What is no YAML is refused, with its line if that is known."""
        for text, line in (
            ("filters:\n  f:\n\ttype: x\n", 3),
            ("filters: *,O=Lab,*\n", 1),
            ("filters: {\n", 2),
            ("filters: *nothing\n", 1),
            ("a: b: c\n", 1),
            ("a\nb: \x07\n", 2),
            ('a: "\\U00110000"\n', 0),
            ('a: "\\UFFFFFFFF"\n', 0),
            ("%YAML " + 5000 * "9" + ".1\n--- a\n", 0),
            (1500 * "[", 0),
        ):
            self.assertEqual(self.mistakes(text), [("a.yml", line, "")])
        self.assertIn("U+0007", self.mistake("\x07"))
        self.assertIn("undefined alias", self.mistake("filters: *nothing\n"))

    def test_unreadableFile(self) -> None:
        """
        A filter that may be in what could not be read is not missed; other
        mistakes are found all the same.
        """
        uses = "tags: {t: {filter: [lab], colour: blue}}"
        for text in ("filters: {", "filters: &a {}"):
            self.assertEqual(self.mistakes(text, uses), [("a.yml", 1, ""), ("b.yml", 1, "tags.t")])
            self.assertEqual(self.mistakes(uses, text), [("a.yml", 1, "tags.t"), ("b.yml", 1, "")])

    def test_filterWithMistakes(self) -> None:
        """A filter with mistakes in it is there, so that tags may name it."""
        text = "filters: {f: {type: x}}\ntags: {t: {filter: [f]}}"
        self.assertEqual(self.mistakes(text), [("a.yml", 1, "filters.f")])


_WORDS = st.sampled_from(
    ["filters", "tags", "filter", "type", "pattern", "purpose", "f", "not f", "", "*", "a b", "3"]
) | st.sampled_from(list(FILTER_TYPES))


class AnythingTests(SynchronousTestCase):
    """Whatever is in a file, there are mistakes or definitions."""

    def check(self, text: str) -> None:
        """
        Read a file.

        @param text: its text.
        """
        filters, tags, mistakes = read(text, FILTERS)
        for mistake in mistakes:
            self.assertIn(mistake.file, ("a.yml", "b.yml"))
            self.assertLessEqual(mistake.line, text.count("\n") + 10)
            str(mistake)
        if not mistakes:
            for conditions in tags.values():
                self.assertTrue(conditions)
                self.assertLessEqual(conditions.keys(), filters.keys())
            self.assertTrue(all(filters.values()))

    @patient
    @given(st.text() | st.text("filters:tagpn-[]{}*&!?|>\"'# \n\t%@`,.0"))
    def test_anyText(self, text: str) -> None:
        """Any text is read, or refused."""
        self.check(text)

    @patient
    @given(
        st.recursive(
            _WORDS | st.none() | st.integers() | st.booleans(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(_WORDS, inner, max_size=4)
                | st.fixed_dictionaries({"filters": inner, "tags": inner})
            ),
            max_leaves=12,
        )
    )
    def test_anyStructure(self, value: Any) -> None:
        """Any structure is read, or refused."""
        self.check(yaml.safe_dump(value))
