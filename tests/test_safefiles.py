"""Tests for L{ktlsagent.safefiles}."""

from __future__ import annotations

import errno
import os
import stat
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from ktlsagent import safefiles
from ktlsagent.safefiles import Exposure, Place, judge, readFile
from tests.support.folder import FolderTestCase

DIRECTORY = stat.S_IFDIR
FILE = stat.S_IFREG
LINK = stat.S_IFLNK
AGENT = 998
OTHER = 1000
USERS = frozenset((0, AGENT))


def place(
    path: str, mode: int = 0, *, owner: int = 0, group: int = 0, listed: bool = False
) -> Place:
    """
    Describe what is met on the way.

    @param path: its path; a directory's ends with a slash.
    @param mode: kind and permissions; by default what is usual.
    @param owner: its owner.
    @param group: its group.
    @param listed: whether there is an access control list.
    @return: it.
    """
    usual = DIRECTORY | 0o755 if path.endswith("/") else FILE | 0o644
    if mode and not stat.S_IFMT(mode):
        mode |= stat.S_IFMT(usual)
    return Place(path, owner, group, mode or usual, listed)


class JudgeTests(SynchronousTestCase):
    """Tests of L{judge} on values."""

    def judge(self, *places: Place) -> Exposure | None:
        """
        Judge a way without a link that leads elsewhere.

        @param places: what is met on it, from the root on.
        @return: what comes of it.
        """
        return judge(list(pairwise(places)), USERS)

    def assertSafe(self, *places: Place) -> None:
        """Check that nobody else can change the last of these."""
        self.assertEqual(self.judge(place("/"), *places), None)

    def assertExposed(self, found: str, advice: str, *places: Place) -> None:
        """Check that somebody else can, and what is said about it."""
        self.assertEqual(self.judge(place("/"), *places), Exposure(found, advice))

    def test_usual(self) -> None:
        """What root or the agent's user owns, and nobody else can write, is safe."""
        self.assertSafe(place("/etc/"), place("/etc/a"))
        self.assertSafe(place("/etc/"), place("/etc/a", 0o640, group=OTHER))
        self.assertSafe(place("/home/"), place("/home/a/", owner=AGENT), place("f", owner=AGENT))

    def test_owners(self) -> None:
        """An owner can do anything, whatever the mode says at the moment."""
        for mode in (0o400, 0o644):
            self.assertExposed(
                "/a of uid 1000, who can change it", "chown root /a", place("/a", mode, owner=OTHER)
            )
        self.assertExposed(
            "/b/ of uid 1000, who can exchange what is in it",
            "chown root /b/",
            *(place("/b/", 0o500, owner=OTHER), place("/b/c/"), place("/b/c/f")),
        )
        self.assertExposed(
            "/n of uid 65534, who can change it", "chown root /n", place("/n", owner=65534)
        )

    def test_modes(self) -> None:
        """Permission to write, for a group or for all, is enough."""
        for mode in (0o666, 0o646, 0o602):
            self.assertExposed(
                f"/a with mode {mode:04o}, which others can change",
                "chmod go-w /a",
                place("/a", mode),
            )
        for mode in (0o777, 0o2777, 0o757):
            self.assertExposed(
                f"/b/ with mode {mode:04o}, in which others can exchange anything",
                "chmod go-w /b/",
                *(place("/b/", mode), place("/b/f")),
            )

    def test_groups(self) -> None:
        """
        A group may write if it is root's or the agent's user's own, and if its
        permissions are not the most that an access control list gives.
        """
        for group in (0, AGENT):
            self.assertSafe(place("/b/", 0o775, group=group), place("/b/f", 0o664, group=group))
            for places in (
                (place("/b/", 0o775, group=group, listed=True), place("/b/f")),
                (place("/b/"), place("/b/f", 0o664, group=group, listed=True)),
            ):
                self.assertNotEqual(self.judge(place("/"), *places), None)
        for group in (OTHER, 50, 100):
            for places in (
                (place("/b/", 0o775, group=group), place("/b/f")),
                (place("/b/"), place("/b/f", 0o664, group=group)),
            ):
                self.assertNotEqual(self.judge(place("/"), *places), None)

    def test_sticky(self) -> None:
        """Where everybody can write but not exchange, it matters whose the entry is."""
        sticky = place("/tmp/", 0o1777)
        self.assertSafe(sticky, place("/tmp/a"))
        self.assertSafe(sticky, place("/tmp/b/", owner=AGENT), place("/tmp/b/f"))
        where = "in a directory where everybody can write"
        for entry, after in (
            (place("/tmp/x", owner=OTHER), ()),
            (place("/tmp/x", LINK | 0o777, owner=OTHER), (place("/etc/"), place("/etc/f"))),
            (place("/tmp/x", DIRECTORY | 0o755, owner=OTHER), (place("/tmp/x/f"),)),
        ):
            self.assertExposed(
                f"/tmp/x of uid 1000, {where}",
                "move it to a directory of root's, or chown -h root /tmp/x",
                *(sticky, entry, *after),
            )
        self.assertNotEqual(
            self.judge(place("/"), place("/tmp/", 0o1777, owner=OTHER), place("/tmp/f")), None
        )

    def test_links(self) -> None:
        """A link has no permissions of its own, and its owner cannot change where it leads."""
        link = place("/etc/l", LINK | 0o777, owner=OTHER)
        hops = [(place("/"), place("/etc/")), (place("/etc/"), link), (place("/"), place("/f"))]
        self.assertEqual(judge(hops, USERS), None)

    def test_secretVolume(self) -> None:
        """A volume of Kubernetes is as safe as its mount point, with links that root owns."""
        volume = place("/secret/", 0o3777, group=2000)
        hops = [
            (place("/"), volume),
            (volume, place("/secret/tls.crt", LINK | 0o777)),
            (volume, place("/secret/..data", LINK | 0o777)),
            (volume, place("/secret/..2026_01_01/", 0o2755, group=2000)),
            (place("/secret/..2026_01_01/"), place("tls.crt", 0o440, group=2000)),
        ]
        self.assertEqual(judge(hops, USERS), None)


class ReadTests(FolderTestCase):
    """Tests of L{readFile} on files."""

    def setUp(self) -> None:
        super().setUp()
        os.chmod(self.directory, 0o755)
        self.before = os.listdir("/proc/self/fd")

    def tearDown(self) -> None:
        self.assertEqual(os.listdir("/proc/self/fd"), self.before)

    def test_content(self) -> None:
        """A file is read, with its status."""
        path = self.write("a", b"abc")
        content = readFile(path)
        self.assertEqual((content.data, content.exposure), (b"abc", None))
        self.assertTrue(os.path.samestat(content.status, os.stat(path)))

    def test_paths(self) -> None:
        """A path may have what paths have, and begin in the working directory."""
        path = self.write("a", b"abc")
        name = os.path.basename(self.directory)
        for other in (
            os.path.relpath(path),
            f"{self.directory}//./a",
            f"{self.directory}/../{name}/a",
            f"/../..{path}",
        ):
            self.assertEqual(readFile(other).data, b"abc", other)

    def test_links(self) -> None:
        """Links are followed as the system follows them, behind directories and to the root."""
        os.mkdir(self.path("sub"))
        self.write("sub/a", b"abc")
        os.symlink("sub", self.path("relative"))
        os.symlink(self.path("relative"), self.path("absolute"))
        os.symlink("../relative/../absolute/a", self.path("sub/file"))
        for name in ("relative/a", "absolute/a", "absolute/file", "sub/file"):
            self.assertEqual(readFile(self.path(name)).data, b"abc", name)

    def test_noFile(self) -> None:
        """What is no file, or leads to none, is an error, and nothing is waited for."""
        self.write("a", b"abc")
        os.mkfifo(self.path("pipe"))
        os.symlink("loop", self.path("loop"))
        os.symlink("gone", self.path("dangling"))
        for path, number in (
            (self.path("gone"), errno.ENOENT),
            (self.path("dangling"), errno.ENOENT),
            (self.path("a/b"), errno.ENOTDIR),
            (self.path("loop"), errno.ELOOP),
            (self.path("x" * 300), errno.ENAMETOOLONG),
            (self.path("pipe"), errno.EINVAL),
            ("/dev/null", errno.EINVAL),
            (self.directory, errno.EISDIR),
            ("/", errno.EISDIR),
        ):
            error = self.assertRaises(OSError, readFile, path)
            self.assertEqual(error.errno, number, path)
        self.assertRaises(ValueError, readFile, "/a\0b")

    def test_unreadable(self) -> None:
        """A file that may not be opened is an error, too."""

        def refuse(*_arguments: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        path = self.write("a", b"abc")
        self.patch(safefiles._Walk, "name", refuse)
        self.assertRaises(PermissionError, readFile, path)

    def exposure(self, name: str) -> str:
        """
        Say why others can change a file.

        @param name: its name.
        @return: in words, without the folder.
        """
        exposure = readFile(self.path(name)).exposure
        return exposure.found.replace(self.directory, "") if exposure else ""

    def test_exposures(self) -> None:
        """The modes of the file, of directories above it and beside links are looked at."""
        for name in ("safe", "open", "sticky"):
            os.mkdir(self.path(name))
            self.write(f"{name}/a", b"abc")
        os.chmod(self.path("open"), 0o777)
        os.chmod(self.path("sticky"), 0o1777)
        self.write("b", b"abc", 0o666)
        os.symlink("../safe/a", self.path("open/toSafe"))
        os.symlink("../open/a", self.path("safe/toOpen"))
        os.symlink("../safe/a", self.path("sticky/toSafe"))
        exposed = "/open with mode 0777, in which others can exchange anything"
        for name, found in (
            ("safe/a", ""),
            ("sticky/a", ""),
            ("sticky/toSafe", ""),
            ("b", "/b with mode 0666, which others can change"),
            ("open/a", exposed),
            ("open/toSafe", exposed),
            ("open/../safe/a", exposed),
        ):
            self.assertEqual(self.exposure(name), found, name)
        self.assertIn("/open with mode 0777", self.exposure("safe/toOpen"))

    def test_exchanged(self) -> None:
        """What is exchanged between the look and the reading is not read."""
        path = self.write("a", b"looked at")
        self.write("b", b"exchanged", 0o666)
        name = safefiles._Walk.name

        def exchange(walk: safefiles._Walk) -> str:
            os.rename(self.path("b"), path)
            return name(walk)

        self.patch(safefiles._Walk, "name", exchange)
        content = readFile(path)
        self.assertEqual((content.data, content.exposure), (b"looked at", None))

    def test_accessControlList(self) -> None:
        """A list is looked for where a group can write."""
        path = self.write("a", b"abc", 0o660)
        asked: list[str] = []

        def getxattr(file: str, attribute: str) -> bytes:
            if os.readlink(file) != path:
                raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
            asked.append(attribute)
            return b""

        self.patch(os, "getxattr", getxattr)
        self.assertIn("with mode 0660, which others can change", self.exposure("a"))
        self.assertEqual(asked, ["system.posix_acl_access"])
        os.chmod(path, 0o640)
        self.assertEqual(self.exposure("a"), "")
