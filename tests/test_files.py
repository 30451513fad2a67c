"""Tests for L{ktlsagent.credentials.files}."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace

from ktlsagent.credentials.files import Files, Named, readableByOthers
from ktlsagent.errors import Mistake
from ktlsagent.safefiles import SAFE
from tests.support.folder import FolderTestCase

NAMED = Named("authenticate.client", "x509.crl", "a file of words")
NAMES = re.compile(r".*\.txt")


def words(data: bytes) -> Sequence[str]:
    """
    Parse a file.

    @param data: its content.
    @return: the words in it.
    """
    if b"?" in data:
        raise ValueError("a question")
    return data.decode().split()


class _DirectoryTestCase(FolderTestCase):
    """Has a directory."""

    def setUp(self) -> None:
        super().setUp()
        self.files = Files()

    def found(self) -> list[str]:
        """
        Say what is wrong.

        @return: what was found in each place.
        """
        return [mistake.found for mistake in self.files.mistakes]


class ReadTests(_DirectoryTestCase):
    """Files are read."""

    def test_once(self) -> None:
        """A file is read once: all that name it get the same, whatever becomes of it."""
        path = self.write("a", b"1")
        self.assertEqual(self.files.read(NAMED, path), b"1")
        self.write("a", b"2")
        self.assertEqual(self.files.read(NAMED, path), b"1")
        self.assertEqual(self.files.paths, {path})
        self.assertEqual(self.found(), [])

    def test_missing(self) -> None:
        """A file that is not there is a mistake, told with all sections that name it."""
        for section in ("a", "b", "a"):
            named = Named(section, NAMED.key, NAMED.expected)
            self.assertIsNone(self.files.read(named, "/nonexistent/file"))
        self.assertEqual(
            self.files.mistakes,
            [
                Mistake(
                    "a, b",
                    "x509.crl",
                    "a file of words",
                    "/nonexistent/file: No such file or directory",
                )
            ],
        )
        self.assertEqual(self.files.paths, {"/nonexistent/file"})

    def test_notRegular(self) -> None:
        """A pipe does not hold us up, and a device or a directory is no file."""
        pipe = os.path.join(self.directory, "pipe")
        os.mkfifo(pipe)
        for path in (pipe, "/dev/null", self.directory):
            self.assertIsNone(self.files.read(NAMED, path))
        self.assertEqual(
            self.found(),
            [
                f"{pipe}: Not a regular file",
                "/dev/null: Not a regular file",
                f"{self.directory}: Is a directory",
            ],
        )

    def test_private(self) -> None:
        """A private file that others can read is a mistake, with the command that helps."""
        path = self.write("key", b"1", 0o644)
        self.assertEqual(self.files.read(NAMED, path), b"1")
        self.assertEqual(self.found(), [])
        self.files.read(NAMED, path, private=True)
        (mistake,) = self.files.mistakes
        self.assertEqual(
            (mistake.found, mistake.advice), (f"{path} with mode 0644", f"chmod 0600 {path}")
        )
        self.patch(os, "statvfs", lambda _path: os.statvfs_result([0] * 8 + [os.ST_RDONLY, 0]))
        onVolume = Files()
        onVolume.read(NAMED, path, private=True)
        self.assertIn("defaultMode: 0400", onVolume.mistakes[0].advice)
        closed = Files()
        self.assertEqual(closed.read(NAMED, self.write("closed", b"2"), private=True), b"2")
        self.assertEqual(closed.mistakes, [])

    def test_keyOfAGroup(self) -> None:
        """A key may be readable for a group if root owns it, as Debian's ssl-cert has it."""
        for owner, mode, shared in (
            (0, 0o600, False),
            (0, 0o640, False),
            (0, 0o400, False),
            (0, 0o660, True),
            (0, 0o644, True),
            (0, 0o610, True),
            (1000, 0o600, False),
            (1000, 0o640, True),
            (1000, 0o604, True),
        ):
            status = os.stat_result((0o100000 | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))
            self.assertEqual(readableByOthers(status), shared, f"{owner} {mode:o}")

    def test_othersCanChange(self) -> None:
        """
        What decides who comes in may be changed by nobody else, which is a mistake; of
        anything else it is said.
        """
        path = self.write("a", b"1", 0o602)
        exposed = f"{path} with mode 0602, which others can change"
        self.assertEqual(self.files.read(NAMED, path), b"1")
        (mistake,) = self.files.mistakes
        self.assertEqual(
            (mistake.expected, mistake.found, mistake.advice), (SAFE, exposed, f"chmod go-w {path}")
        )
        self.assertEqual(self.files.notices, [])
        told = Files()
        self.assertEqual(told.read(replace(NAMED, decides=False), path), b"1")
        self.assertEqual(told.mistakes, [])
        (notice,) = told.notices
        self.assertEqual(
            notice,
            f"x509.crl: others can exchange {path}: expected {SAFE}, found {exposed}; "
            f"chmod go-w {path}",
        )

    def test_othersCanAdd(self) -> None:
        """Of a directory in which others can write, that is one mistake."""
        for name in ("a.txt", "b.txt"):
            self.write(name, b"word")
        os.chmod(self.directory, 0o777)
        self.files.gather(NAMED, self.directory, NAMES, words)
        self.assertEqual(
            self.found(),
            [f"{self.directory} with mode 0777, in which others can exchange anything"],
        )

    def test_notices(self) -> None:
        """What is odd is noted once."""
        for sentence in ("odd", "strange", "odd"):
            self.files.notice(sentence)
        self.assertEqual(self.files.notices, ["odd", "strange"])


class ParsedTests(_DirectoryTestCase):
    """Files are parsed."""

    def test_once(self) -> None:
        """A file is parsed once, for all that want the same of it."""
        parsed: list[bytes] = []

        def parse(data: bytes) -> str:
            parsed.append(data)
            return data.decode()

        path = self.write("a", b"a")
        self.assertEqual([self.files.parsed(NAMED, path, parse) for _ in range(2)], ["a", "a"])
        self.assertEqual(parsed, [b"a"])
        self.assertEqual(self.files.parsed(NAMED, path, words), ["a"])

    def test_broken(self) -> None:
        """What cannot be parsed is a mistake in each section that names it."""
        path = self.write("a", b"?")
        for section in ("a", "b"):
            named = Named(section, NAMED.key, NAMED.expected)
            self.assertIsNone(self.files.parsed(named, path, words))
        self.assertEqual(
            [(mistake.section, mistake.found) for mistake in self.files.mistakes],
            [("a, b", f"a question in {path}")],
        )

    def test_missing(self) -> None:
        """What is not there is not parsed."""
        self.assertIsNone(self.files.parsed(NAMED, "/nonexistent/file", words))


class GatherTests(_DirectoryTestCase):
    """A path may stand for many files."""

    def gather(self, path: str) -> list[tuple[str, list[str]]]:
        """
        Read what a path stands for.

        @param path: the path.
        @return: what was found, by the file's name.
        """
        found = self.files.gather(NAMED, path, NAMES, words)
        return [(os.path.basename(file), list(content)) for file, content in found]

    def test_file(self) -> None:
        """A file may have any name."""
        self.assertEqual(self.gather(self.write("a.b", b"1 2")), [("a.b", ["1", "2"])])

    def test_directory(self) -> None:
        """Of a directory all files with the right names are read, in order, but no hidden ones."""
        os.mkdir(os.path.join(self.directory, "d.txt"))
        for name, content in (
            ("b.txt", b"b"),
            ("a.txt", b"a"),
            ("README", b"?"),
            (".old.txt", b"?"),
            ("empty.txt", b""),
        ):
            self.write(name, content)
        self.assertEqual(self.gather(self.directory), [("a.txt", ["a"]), ("b.txt", ["b"])])
        self.assertEqual(self.found(), [])
        names = ("a.txt", "b.txt", "empty.txt")
        files = {os.path.join(self.directory, name) for name in names}
        self.assertEqual(self.files.paths, {self.directory, *files})

    def test_links(self) -> None:
        """A file is read once, however many links lead to it, and wherever it is."""
        elsewhere = self.write("elsewhere", b"1")
        for name in ("a.txt", "b.txt"):
            os.symlink(elsewhere, os.path.join(self.directory, name))
        self.assertEqual(self.gather(self.directory), [("a.txt", ["1"])])

    def test_broken(self) -> None:
        """One broken file of a directory is a mistake; a link to nothing is only odd."""
        self.write("a.txt", b"a")
        broken = self.write("b.txt", b"?")
        gone = os.path.join(self.directory, "c.txt")
        os.symlink("/nonexistent/file", gone)
        self.assertEqual(self.gather(self.directory), [("a.txt", ["a"])])
        self.assertEqual(self.found(), [f"a question in {broken}"])
        self.assertEqual(self.files.notices, [f"{gone} is a link to nothing, and is passed over"])

    def test_none(self) -> None:
        """A file or a directory in which nothing is found is a mistake."""
        self.assertEqual(self.gather(self.directory), [])
        empty = self.write("empty.txt")
        self.assertEqual(self.gather(empty), [])
        self.assertEqual(self.gather(self.directory), [])
        self.assertEqual(self.found(), [f"none in {self.directory}", f"none in {empty}"])

    def test_gone(self) -> None:
        """A directory that cannot be listed is a mistake."""

        def listdir(path: str) -> list[str]:
            raise PermissionError(13, "Permission denied", path)

        self.patch(os, "listdir", listdir)
        self.assertEqual(self.gather(self.directory), [])
        self.assertEqual(self.found(), [f"{self.directory}: Permission denied"])
