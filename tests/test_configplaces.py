"""Tests for L{ktlsagent.config.places}."""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from ktlsagent.config.places import readKeys, readPath, readPaths, readPIN, readStores
from ktlsagent.errors import ConfigError
from tests.support.readers import ReaderTestCase

BAD_PATHS = (
    ("ca.pem", "from / on"),
    ("'/etc/ca.pem'", "without quotes"),
    ("~/ca.pem", "from / on"),
    ("/etc/ca.pem\xa0", "cannot be seen"),
    ("/etc/ca.pem\0", "cannot be seen"),
    (r"/etc/ca.pem\n", "cannot be seen"),
    ("/etc/\u200bca.pem", "cannot be seen"),
    ("file:/etc/ca.pem", "of URLs only pkcs11:"),
)


class PathTests(ReaderTestCase):
    """Tests for paths of files and directories."""

    def test_path(self) -> None:
        """A path is absolute, its escapes are replaced, and nothing else in it is special."""
        for value, path in (("/etc/a", "/etc/a"), (r"/a\sb;c", "/a b;c"), ("/é #x", "/é #x")):
            self.assertEqual(readPath(self.entry(value)), path)

    def test_badPaths(self) -> None:
        """What is wrong with a path is said, in a list as well."""
        for value, advice in BAD_PATHS:
            for read in (readPath, readPaths, readStores, readKeys, readPIN):
                if read is readPIN and not value.startswith("/"):
                    continue
                mistake = self.mistake(read, value)
                self.assertIn(advice, mistake.advice)
                self.assertIn("absolute path", mistake.expected)

    def test_noPath(self) -> None:
        """No path at all is refused."""
        self.assertEqual(self.mistake(readPath, "").found, "nothing")
        for read in (readPaths, readStores, readKeys):
            self.assertEqual(self.mistake(read, "").expected, "at least one element")

    def test_pastedKey(self) -> None:
        """What is written in place of a path and may be a key is not repeated."""
        mistake = self.mistake(readPaths, f"MC4C{'A' * 60}")
        self.assertEqual(mistake.found, "64 characters that begin with 'MC4C'")

    def test_lists(self) -> None:
        """
        A list is cut where another path follows: a file of tlshd's with any
        other separator in its name is one path, as it is there.
        """
        for value, paths in (
            ("/a", ("/a",)),
            ("/a;/b", ("/a", "/b")),
            ("/a ; /b ;", ("/a", "/b")),
            ("/a;b;/c;d", ("/a;b", "/c;d")),
            (r"/a\\;/b\s", ("/a\\", "/b ")),
        ):
            self.assertEqual(readPaths(self.entry(value)), paths)

    def test_wrongLists(self) -> None:
        """Each wrong element of a list is a mistake of its own."""
        mistakes = self.mistakes(readPaths, "a;/b;/b;;/c")
        self.assertEqual(
            [mistake.found for mistake in mistakes], ["nothing", "'a'", "'/b' 2 times"]
        )
        self.assertEqual(self.mistake(readPaths, ";/a").expected, "something before each ;")

    def test_words(self) -> None:
        """Some words are elements like paths, and none alone is the empty list."""
        read = partial(readStores, words=("system",))
        for value, stores in (
            ("/a", ("/a",)),
            ("system", ("system",)),
            ("/a;system;/b", ("/a", "system", "/b")),
            ("system ; /systems;", ("system", "/systems")),
            ("none", ()),
            ("none;", ()),
        ):
            self.assertEqual(read(self.entry(value)), stores)
        for value in ("none;/a", "/a;none", "system;none"):
            self.assertEqual(self.mistake(read, value).found, "none among others")
        self.assertEqual(self.mistake(readStores, "system").found, "'system'")
        self.assertEqual(self.mistake(readPaths, "none").found, "'none'")

    @settings(deadline=None)
    @given(
        st.text()
        | st.text(alphabet="/;a \\s")
        | st.lists(st.sampled_from(["/a", ";", "system", "none", "\\s", ""])).map(";".join)
    )
    def test_anyText(self, text: str) -> None:
        """What is read are paths and words, or it is refused."""
        entry = self.entry(text)
        try:
            stores = readStores(entry, ("system",))
        except ConfigError:
            pass
        else:
            self.assertEqual(len(stores), len(set(stores)))
            self.assertTrue(all(one == "system" or one.startswith("/") for one in stores))


class KeyTests(ReaderTestCase):
    """Tests for private keys, which may be in a token."""

    def test_keys(self) -> None:
        """
        A list of keys is cut where another path or URI follows, since the
        attributes of a URI have the same separator between them.
        """
        for value, keys in (
            ("/a", ("/a",)),
            ("pkcs11:token=t;object=o", ("pkcs11:token=t;object=o",)),
            (
                "pkcs11:token=t;object=o?module-name=softhsm2;/b;pkcs11:id=%01;/c;",
                ("pkcs11:token=t;object=o?module-name=softhsm2", "/b", "pkcs11:id=%01", "/c"),
            ),
        ):
            self.assertEqual(readKeys(self.entry(value)), keys)

    def test_certificatesInTokens(self) -> None:
        """A certificate is in a file."""
        self.assertEqual(
            self.mistake(readPaths, "pkcs11:token=t").found, "a URL of the scheme 'pkcs11'"
        )

    def test_pin(self) -> None:
        """
        A PIN in the file is refused, however it is written, and nothing of the
        URI is repeated.
        """
        for value in (
            "pkcs11:token=t?pin-value=1234",
            "pkcs11:token=t?module-name=m&pin-value=1234",
            "pkcs11:token=t?PIN-Value = 1234",
            "pkcs11:token=t;pin%2dvalue%3d1234",
            "pkcs11 :t?pin-value=1234",
            "/a?pin-value=1234",
        ):
            mistake = self.mistake(readKeys, value)
            self.assertIn("token_pin", mistake.advice)
            self.assertNotIn("1234", str(mistake))
        for read in (readPath, readPaths, readStores, readPIN):
            for value in ("pkcs11:t?pin-value=1234", "pkcs11 :t?pin-value=1234"):
                self.assertNotIn("1234", str(self.mistake(read, value)))

    def test_repeated(self) -> None:
        """Of a URI that is there twice only the scheme is repeated."""
        value = "pkcs11:id=1?pin-value=1234"
        first, second = self.mistakes(readKeys, f"{value};{value}")
        self.assertEqual(first.found, "a URL of the scheme 'pkcs11' 2 times")
        self.assertNotIn("1234", str(second))

    def test_otherURLs(self) -> None:
        """Other schemes, and blanks in a URI, are refused."""
        for value in ("tpmkey:uuid=a", "PKCS11:token=t", "pkcs11:token=a b", "handle:0x81000000"):
            mistake = self.mistake(readKeys, value)
            self.assertIn("only pkcs11: can be used, without blanks", mistake.advice)
            self.assertIn("a URL of the scheme", mistake.found)


class PINTests(ReaderTestCase):
    """Tests for where a PIN is."""

    def test_places(self) -> None:
        """A PIN is in a file or in a credential."""
        for value in ("/run/pin", "credential:pin", "credential:ktlsagent.pin_1-a"):
            self.assertEqual(readPIN(self.entry(value)), value)

    def test_nothing(self) -> None:
        """No place at all is refused."""
        self.assertEqual(self.mistake(readPIN, "").found, "nothing")

    def test_elsewhere(self) -> None:
        """What is no place may be the PIN itself, and is not repeated."""
        for value in ("1234", "credential:", "credential:../1234", "credential:..", "file:/1234"):
            mistake = self.mistake(readPIN, value)
            self.assertEqual(mistake.found, "neither")
            self.assertNotIn("1234", str(mistake))
