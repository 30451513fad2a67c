"""Tests for L{ktlsagent.watch} and L{ktlsagent.notify}, with the running kernel's inotify."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor as realReactor
from twisted.internet.defer import Deferred
from twisted.internet.inotify import INotifyError
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from twisted.python import _inotify
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from ktlsagent import watch
from ktlsagent.notify import DirectoryNotify
from ktlsagent.watch import ANY_NAME, LONGEST_SECONDS, SETTLE_SECONDS, FileWatch, directoriesOf
from tests.support.reactor import TurnReactor

_A_MOMENT = 0.01


def descriptors() -> int:
    """
    Count this process's inotify descriptors.

    @return: how many.
    """
    count = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += os.readlink(path) == "anon_inode:inotify"
    return count


class WatchTestCase(SynchronousTestCase):
    """
    Tests with a folder, a watch and a reactor.

    @ivar folder: a folder of the test's own, by its path without links.
    @ivar reactor: the watch's reactor.
    @ivar said: when it was said that something has changed.
    @ivar watched: the watch.
    @ivar events: everything that was logged.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.reactor = TurnReactor()
        self.said: list[float] = []
        self.before = descriptors()
        self.watched = FileWatch(
            self.reactor, lambda: self.said.append(round(self.reactor.seconds(), 2))
        )
        self.addCleanup(self._leavesNothing)
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def _leavesNothing(self) -> None:
        """A watch that has been stopped holds nothing, and plans nothing."""
        self.watched.stop()
        self.reactor.settle()
        self.assertEqual(self.descriptors(), 0)
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def file(self, name: str, content: str = "first") -> Path:
        """
        Write a file.

        @param name: its path in the folder.
        @param content: what is in it.
        @return: its path.
        """
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def link(self, name: str, target: str) -> Path:
        """
        Make a symbolic link, in the place of what is there.

        @param name: its path in the folder.
        @param target: where it leads.
        @return: its path.
        """
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.symlink_to(target)
        new.rename(path)
        return path

    def watch(self, *paths: Path | str) -> None:
        """
        Watch some files.

        @param paths: their paths, in the folder if they are not absolute.
        """
        self.watched.watch([str(self.folder / path) for path in paths])
        self.reactor.settle()

    def wait(self, seconds: float = 0.0) -> None:
        """
        Let time pass.

        @param seconds: how much.
        """
        self.reactor.settle()
        self.reactor.turn(seconds)
        self.reactor.settle()

    def noticed(self, change: Callable[[], object], times: int = 1) -> None:
        """
        Expect that a change is said, once and when all is quiet.

        @param change: makes the change.
        @param times: how often it is said; 0 for a change that does not count.
        """
        self.said.clear()
        change()
        self.wait(SETTLE_SECONDS - _A_MOMENT)
        self.assertEqual(self.said, [], "too early")
        self.wait(2 * _A_MOMENT)
        self.wait(2 * LONGEST_SECONDS)
        self.assertEqual(len(self.said), times)

    def warnings(self) -> list[str]:
        """
        List what was warned of.

        @return: the texts.
        """
        return [eventAsText(event) for event in self.events if event["log_level"].name == "warn"]

    def descriptors(self) -> int:
        """
        Count the inotify descriptors that the watch holds.

        @return: how many.
        """
        return descriptors() - self.before


class FileTests(WatchTestCase):
    """Changes of a file."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.file("server.pem")
        self.watch("server.pem")

    def test_writtenInPlace(self) -> None:
        """New content in the same file is noticed."""
        self.noticed(lambda: self.path.write_text("second"))

    def test_cutOff(self) -> None:
        """A file that gets shorter without being opened is noticed."""
        self.noticed(lambda: os.truncate(self.path, 1))

    def test_replaced(self) -> None:
        """A file that is renamed over it is noticed, and so is a change of that one."""
        self.noticed(lambda: self.file("server.pem.new").rename(self.path))
        self.noticed(lambda: self.path.write_text("third"))

    def test_linkedInItsPlace(self) -> None:
        """A hard link of the name is noticed."""
        other = self.file("other.pem")
        self.path.unlink()
        self.wait(SETTLE_SECONDS)
        self.noticed(lambda: self.path.hardlink_to(other))

    def test_deletedAndMadeAgain(self) -> None:
        """A file that goes is noticed, and so is one that comes."""
        self.noticed(self.path.unlink)
        self.noticed(lambda: self.path.write_text("second"))

    def test_mode(self) -> None:
        """A file that gets another mode is noticed: a key with the wrong one is not taken."""
        self.noticed(lambda: self.path.chmod(0o600))

    def test_moved(self) -> None:
        """A file that gets another name is noticed."""
        self.noticed(lambda: self.path.rename(self.folder / "old.pem"))

    def test_itsDirectoryIsReplaced(self) -> None:
        """Another directory in the place of its directory is noticed, and watched from then on."""
        path = self.file("tls/server.pem")
        self.file("new/server.pem", "second")
        self.watch("tls/server.pem")

        def replace() -> None:
            path.parent.rename(self.folder / "old")
            (self.folder / "new").rename(path.parent)

        self.noticed(replace)
        self.noticed(lambda: path.write_text("third"))
        self.noticed(lambda: self.file("old/server.pem", "third"), times=0)

    def test_itsDirectoryGoes(self) -> None:
        """A directory that is deleted and made again is noticed; others are still watched."""
        path = self.file("tls/server.pem")
        self.watch("server.pem", "tls/server.pem")
        self.noticed(lambda: shutil.rmtree(path.parent))
        self.noticed(lambda: self.path.write_text("second"))
        self.noticed(lambda: self.file("tls/server.pem"))
        self.noticed(lambda: path.write_text("second"))

    def test_notThereYet(self) -> None:
        """A file whose directories are missing is noticed when it comes, at whatever pace."""
        self.watch("a/b/server.pem")
        self.noticed((self.folder / "a").mkdir)
        self.noticed((self.folder / "a/b").mkdir)
        self.noticed(lambda: self.file("a/b/server.pem"))
        self.noticed(lambda: self.file("a/b/server.pem", "second"))

    def test_madeAtOnce(self) -> None:
        """A file that comes with its directories is noticed once."""
        self.watch("a/b/server.pem")
        self.noticed(lambda: self.file("a/b/server.pem"))

    def test_aFileInTheWay(self) -> None:
        """A path through a file leads nowhere until there is a directory."""
        self.watch("server.pem/inside")
        self.assertEqual(self.warnings(), [])
        self.noticed(self.path.unlink)
        self.noticed(lambda: self.file("server.pem/inside"))

    def test_othersDoNotCount(self) -> None:
        """What happens to other names in the directory is not said."""

        def change() -> None:
            self.file("other.pem").chmod(0o600)
            self.file("server.pem.swp").unlink()
            self.file("server/pem").parent.rename(self.folder / "x")

        self.noticed(change, times=0)

    def test_readingDoesNotCount(self) -> None:
        """A file that is read has not changed."""
        self.noticed(self.path.read_bytes, times=0)

    def test_unreadableName(self) -> None:
        """A name that is no text is a name like any other."""
        name = os.fsdecode(b"\xff\xfe.pem")
        self.watch(name)
        self.noticed(lambda: self.file(name))


class LinkTests(WatchTestCase):
    """Symbolic links on the way to a file."""

    def test_kubernetes(self) -> None:
        """A volume that is exchanged by one link is noticed, each time."""
        self.file("..1/tls.crt")
        self.file("..1/tls.key")
        self.link("..data", "..1")
        self.link("tls.crt", "..data/tls.crt")
        self.link("tls.key", "..data/tls.key")
        self.watch("tls.crt", "tls.key")
        for number in (2, 3):

            def swap(number: int = number) -> None:
                self.file(f"..{number}/tls.crt", "new")
                self.file(f"..{number}/tls.key", "new")
                self.link("..data", f"..{number}")
                shutil.rmtree(self.folder / f"..{number - 1}")

            self.noticed(swap)
            self.assertEqual((self.folder / "tls.key").read_text(), "new")
            self.assertEqual(self.descriptors(), 1)

    def test_certbot(self) -> None:
        """A link that leads to a new file is noticed, and so is a change of that one."""
        self.file("archive/site/cert1.pem")
        self.link("live/site/cert.pem", "../../archive/site/cert1.pem")
        self.watch("live/site/cert.pem")

        def renew() -> None:
            self.file("archive/site/cert2.pem", "second")
            self.link("live/site/cert.pem", "../../archive/site/cert2.pem")

        self.noticed(renew)
        self.noticed(lambda: self.file("archive/site/cert1.pem", "old"), times=0)
        self.noticed(lambda: self.file("archive/site/cert2.pem", "third"))

    def test_absolute(self) -> None:
        """An absolute link is followed."""
        target = self.file("elsewhere/cert.pem")
        self.link("cert.pem", str(target))
        self.watch("cert.pem")
        self.noticed(lambda: target.write_text("second"))

    def test_broken(self) -> None:
        """A link that leads nowhere is watched to its end."""
        self.link("cert.pem", "elsewhere/cert.pem")
        self.watch("cert.pem")
        self.noticed(lambda: self.file("elsewhere/cert.pem"))
        self.noticed(lambda: self.file("elsewhere/cert.pem", "second"))

    def test_circle(self) -> None:
        """Links without end are watched as far as the kernel would go."""
        self.link("a", "b")
        self.link("b", "a")
        self.watch("a")
        self.noticed((self.folder / "b").unlink)
        self.noticed(lambda: self.file("b"))

    def test_swapWhileLooking(self) -> None:
        """A link that is exchanged while the directories are being collected is not missed."""
        self.file("one/cert.pem")
        second = self.file("two/cert.pem")
        self.link("current", "one")
        add = DirectoryNotify.add
        swapped: list[str] = []

        def addLate(notify: DirectoryNotify, directory: str) -> int:
            if not swapped:
                swapped.append(directory)
                self.link("current", "two")
            return add(notify, directory)

        self.patch(DirectoryNotify, "add", addLate)
        self.watch("current/cert.pem")
        self.wait(SETTLE_SECONDS)
        self.noticed(lambda: second.write_text("second"))

    def test_goneWhileLooking(self) -> None:
        """A directory that goes while the directories are being collected is not missed."""
        first = self.file("tls/cert.pem")
        add = DirectoryNotify.add
        left = [str(first.parent)]

        def addLate(notify: DirectoryNotify, directory: str) -> int:
            if directory in left:
                left.remove(directory)
                shutil.rmtree(directory)
            return add(notify, directory)

        self.patch(DirectoryNotify, "add", addLate)
        self.watch("tls/cert.pem")
        self.wait(SETTLE_SECONDS)
        self.assertEqual(self.warnings(), [])
        (self.folder / "tls").mkdir()
        self.wait(SETTLE_SECONDS)
        self.noticed((self.folder / "tls/cert.pem").touch)

    def test_noEndOfDirectories(self) -> None:
        """If there are ever more directories the looking ends; what comes then is an event."""
        add = DirectoryNotify.add
        self.file("0/cert.pem")
        self.link("current", "0")
        added: list[str] = []

        def addMore(notify: DirectoryNotify, directory: str) -> int:
            if directory.startswith(f"{self.folder}/"):
                added.append(directory)
                self.file(f"{len(added)}/cert.pem")
                self.link("current", f"{len(added)}")
            return add(notify, directory)

        self.patch(DirectoryNotify, "add", addMore)
        self.watch("current/cert.pem")
        self.assertTrue(2 < len(added) < 20, added)
        self.patch(DirectoryNotify, "add", add)
        self.wait(SETTLE_SECONDS)
        path = (self.folder / "current").resolve() / "cert.pem"
        self.noticed(lambda: path.write_text("second"))


class DirectoryTests(WatchTestCase):
    """Directories whose files are meant."""

    def test_anyFile(self) -> None:
        """Every file in a directory counts."""
        path = self.file("cas/one.pem")
        self.watch("cas")
        self.noticed(lambda: path.write_text("second"))
        self.noticed(lambda: self.file("cas/two.pem"))
        self.noticed(path.unlink)

    def test_linksInIt(self) -> None:
        """What links in a directory lead to counts."""
        path = self.file("shared/ca.pem")
        self.link("cas/ca.pem", "../shared/ca.pem")
        self.watch("cas")
        self.noticed(lambda: path.write_text("second"))

    def test_aLinkToIt(self) -> None:
        """A directory that is reached by a link is that which the link leads to."""
        self.file("one/ca.pem")
        self.link("cas", "one")
        self.watch("cas")
        self.noticed(lambda: self.file("one/more.pem"))
        self.file("two/ca.pem")
        self.noticed(lambda: self.link("cas", "two"))
        self.noticed(lambda: self.file("two/more.pem"))
        self.noticed(lambda: self.file("one/other.pem"), times=0)

    def test_notThereYet(self) -> None:
        """A directory that comes is noticed, and then its files."""
        self.watch("cas")
        self.noticed((self.folder / "cas").mkdir)
        self.noticed(lambda: self.file("cas/ca.pem"))

    def test_unreadable(self) -> None:
        """A directory that cannot be listed is watched as far as it can be."""

        def refuse(path: str) -> Any:
            raise PermissionError

        (self.folder / "cas").mkdir()
        self.patch(os, "scandir", refuse)
        self.assertIn(ANY_NAME, directoriesOf([str(self.folder / "cas")])[str(self.folder / "cas")])


class DirectoriesOfTests(SynchronousTestCase):
    """Tests for L{directoriesOf}."""

    def test_theWay(self) -> None:
        """Every directory is there with the name that leads on, whatever the spelling."""
        folder = Path(self.mktemp()).resolve()
        (folder / "a").mkdir(parents=True)
        (folder / "a/file").touch()
        (folder / "link").symlink_to(".//a/../a/./file")
        found = directoriesOf([str(folder / "link")])
        self.assertEqual(found[str(folder)], {"link", "a"})
        self.assertEqual(found[str(folder / "a")], {"file"})
        self.assertIn(folder.parent.name, found[str(folder.parent.parent)])
        self.assertIn(folder.parts[1], found["/"])

    def test_relative(self) -> None:
        """A relative path begins where the agent runs."""
        self.assertIn("nothing.pem", directoriesOf(["nothing.pem"])[os.path.realpath(".")])

    def test_nothing(self) -> None:
        """Without files there is nothing to watch."""
        self.assertEqual(directoriesOf([]), {})


class SettleTests(WatchTestCase):
    """When a change is said."""

    def test_aSetIsSaidOnce(self) -> None:
        """A certificate and its key that come one after the other are one change."""
        self.watch("tls.crt", "tls.key")
        self.file("tls.crt")
        self.wait(0.6)
        self.file("tls.key")
        self.wait(0.6)
        self.assertEqual(self.said, [])
        self.wait(0.5)
        self.assertEqual(self.said, [1.7])

    def test_aHalfWrittenSet(self) -> None:
        """If the second half comes late each half is said: the reader sees what is there."""
        self.watch("tls.crt", "tls.key")
        self.noticed(lambda: self.file("tls.crt"))
        self.noticed(lambda: self.file("tls.key"))

    def test_noEnd(self) -> None:
        """Changes without end are said all the same, and what comes after as well."""
        path = self.file("tls.crt")
        self.watch("tls.crt")
        for number in range(12):
            path.write_text(str(number))
            self.wait(0.5)
        self.assertEqual(self.said, [LONGEST_SECONDS])
        self.wait(0.5)
        self.assertEqual(self.said, [LONGEST_SECONDS, 6.5])

    def test_aLateReactor(self) -> None:
        """A reactor that was busy for long says it as soon as it can."""
        path = self.file("tls.crt")
        self.watch("tls.crt")
        path.write_text("second")
        self.reactor.settle()
        self.reactor.rightNow += LONGEST_SECONDS + 1
        path.write_text("third")
        (notify,) = self.reactor.readers
        notify.doRead()
        self.reactor.settle()
        self.assertEqual(self.said, [LONGEST_SECONDS + 1])

    def test_changeBeforeItIsSaid(self) -> None:
        """What changes while the directories are looked at is there when it is said, or said."""
        path = self.file("tls.crt")
        self.watch("tls.crt")
        path.write_text("second")
        self.reactor.settle()
        look = self.watched._look

        def lookSlowly(paths: Any) -> Any:
            path.write_text("third")
            found = look(paths)
            path.write_text("fourth")
            return found

        self.patch(self.watched, "_look", lookSlowly)
        self.wait(SETTLE_SECONDS)
        self.assertEqual(len(self.said), 1)
        self.patch(self.watched, "_look", look)
        self.wait(SETTLE_SECONDS)
        self.assertEqual(len(self.said), 2)

    def test_bug(self) -> None:
        """An error that is not expected is logged, and the next change is said."""
        path = self.file("tls.crt")
        self.watch("tls.crt")
        look = self.watched._look

        def fail(paths: Any) -> Any:
            raise ZeroDivisionError

        self.patch(self.watched, "_look", fail)
        self.noticed(lambda: path.write_text("second"), times=0)
        self.flushLoggedErrors(ZeroDivisionError)
        self.patch(self.watched, "_look", look)
        self.noticed(lambda: path.write_text("third"))


class ReplaceTests(WatchTestCase):
    """Other files."""

    def test_onlyTheNewCount(self) -> None:
        """Files that are not watched any more do not count; there is one descriptor."""
        self.watch("one/a")
        self.assertEqual(self.descriptors(), 1)
        self.watch("two/a")
        self.assertEqual(self.descriptors(), 1)
        self.noticed(lambda: self.file("one/a"), times=0)
        self.noticed(lambda: self.file("two/a"))

    def test_whatWasNotToldYet(self) -> None:
        """A change that came just before is not lost, though its file is watched no longer."""
        path = self.file("a")
        self.watch("a", "b")
        path.write_text("second")
        self.watched.watch([str(self.folder / "b")])
        self.wait(SETTLE_SECONDS)
        self.assertEqual(len(self.said), 1)

    def test_theLastOneHolds(self) -> None:
        """Of two that come at once the last one holds, and a look at older files is dropped."""
        path = self.file("a")
        self.watch("a")
        path.write_text("second")
        self.reactor.settle()
        look = self.watched._look
        replaced: list[Iterable[str]] = []

        def lookLate(paths: Any) -> Any:
            found = look(paths)
            if not replaced:
                replaced.append(paths)
                self.watched.watch([str(self.folder / "b")])
            return found

        self.patch(self.watched, "_look", lookLate)
        self.wait(SETTLE_SECONDS)
        self.assertEqual((len(self.said), self.descriptors()), (1, 1))
        self.wait(LONGEST_SECONDS)
        self.noticed(lambda: path.write_text("third"), times=0)
        self.noticed(lambda: self.file("b"))

    def test_nothing(self) -> None:
        """Without files nothing is said."""
        self.watch("a")
        self.watch()
        self.noticed(lambda: self.file("a"), times=0)


class StopTests(WatchTestCase):
    """Stopping."""

    def test_nothingIsSaid(self) -> None:
        """After a stop nothing is said, not even what was about to be."""
        self.watch("a")
        self.file("a")
        self.reactor.settle()
        self.watched.stop()
        self.assertEqual(self.descriptors(), 0)
        self.wait(LONGEST_SECONDS)
        self.assertEqual(self.said, [])

    def test_whileLooking(self) -> None:
        """A look that is under way when it is stopped leaves nothing behind."""
        self.watch("a")
        look = self.watched._look

        def lookLate(paths: Any) -> Any:
            found = look(paths)
            self.watched.stop()
            return found

        self.patch(self.watched, "_look", lookLate)
        self.file("a")
        self.wait(SETTLE_SECONDS)
        self.wait(LONGEST_SECONDS)
        self.assertEqual((self.said, self.descriptors()), ([], 0))

    def test_never(self) -> None:
        """What was never begun can be stopped, and what was stopped can be begun again."""
        self.watched.stop()
        self.watch("a")
        self.noticed(lambda: self.file("a"))
        self.watched.stop()
        self.watch("a")
        self.noticed(lambda: self.file("a", "second"))

    def test_withoutInotify(self) -> None:
        """A look that has found no inotify is dropped as well."""
        self.patch(watch, "_WITH_INOTIFY", False)
        self.watched.watch(["/a"])
        self.watched.stop()
        self.wait()
        self.assertEqual(self.warnings(), [])


class _Refusing:
    """
    Twisted's seam to inotify, with limits.

    @ivar refused: the directories that cannot be watched.
    """

    init = staticmethod(_inotify.init)
    remove = staticmethod(_inotify.remove)

    def __init__(self) -> None:
        self.refused: set[str] = set()

    def add(self, descriptor: int, path: Any, mask: int) -> int:
        """
        See L{_inotify.add}.
        """
        if os.fsdecode(path.path) in self.refused:
            raise INotifyError("a test")
        return _inotify.add(descriptor, path, mask)


class ProblemTests(WatchTestCase):
    """What cannot be watched."""

    def setUp(self) -> None:
        super().setUp()
        self.system = _Refusing()
        self.patch(DirectoryNotify, "_inotify", self.system)

    def test_noneAtAll(self) -> None:
        """Without inotify there is one warning with what to do, and no harm."""
        self.patch(watch, "_WITH_INOTIFY", False)
        self.watch("a")
        self.watch("a")
        (warning,) = self.warnings()
        self.assertIn("taken up at a SIGHUP only: raise fs.inotify.max_user_instances", warning)
        self.noticed(lambda: self.file("a"), times=0)

    def test_noDescriptor(self) -> None:
        """Without a free descriptor it is the same, until there is one again."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            self.watched.watch([str(self.folder / "a")])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        self.reactor.settle()
        self.assertIn("the limit on open files", self.warnings()[0])
        self.watch("a")
        self.noticed(lambda: self.file("a"))
        self.assertEqual(len(self.warnings()), 1)

    def test_noneAnyMore(self) -> None:
        """If there is no second one to be had the first is kept."""
        self.watch("a")
        self.patch(watch, "_WITH_INOTIFY", False)
        self.noticed(lambda: self.file("a"))
        self.noticed(lambda: self.file("a", "second"))
        self.assertEqual(len(self.warnings()), 1)

    def test_fullLimit(self) -> None:
        """A directory that cannot be watched is named with the limit; others are watched."""
        self.file("one/a")
        self.file("two/a")
        self.system.refused = {str(self.folder / "one")}
        self.watch("one/a", "two/a")
        self.noticed(lambda: self.file("two/a", "second"))
        self.noticed(lambda: self.file("one/a", "second"), times=0)
        (warning,) = self.warnings()
        self.assertIn(f"{self.folder}/one (the limit fs.inotify.max_user_watches", warning)
        self.assertIn("are taken up at a SIGHUP only", warning)

    def test_manyDirectories(self) -> None:
        """Of many directories some are named, and the others counted."""
        for name in "abcde":
            self.system.refused.add(str(self.file(f"{name}/file").parent))
        self.watch(*(f"{name}/file" for name in "abcde"))
        (warning,) = self.warnings()
        self.assertIn(") and 2 more; changes there", warning)

    def test_unreadableDirectory(self) -> None:
        """A directory that may not be read is named as such."""
        self.system.refused.add(str(self.file("one/a").parent))
        self.patch(os, "access", lambda path, mode, *, effective_ids: False)
        self.watch("one/a")
        (warning,) = self.warnings()
        self.assertIn(f"{self.folder}/one (uid {os.geteuid()} may not read it)", warning)

    def test_whenItChanges(self) -> None:
        """A warning is given again only after all was well."""
        self.file("one/a")
        for refused, count in ((True, 1), (True, 1), (False, 1), (True, 2)):
            self.system.refused = {str(self.folder / "one")} if refused else set()
            self.watch("one/a")
            self.assertEqual(len(self.warnings()), count)

    def test_overflow(self) -> None:
        """Events that the kernel has dropped may have been ours."""
        path = self.file("a")
        others = [str(self.file(name)) for name in "bc"]
        self.watch("a")
        with open("/proc/sys/fs/inotify/max_queued_events") as limit:
            most = int(limit.read())

        def flood() -> None:
            for number in range(most // 2 + 1):
                for other in others:
                    os.utime(other, (number, number))
            path.write_text("second")

        self.noticed(flood)

    def test_mountedTwice(self) -> None:
        """Two paths to one directory are one watch with the names of both."""
        self.file("one/a")
        self.file("two/b")
        same = self.folder / "one"

        def add(descriptor: int, path: Any, mask: int) -> int:
            moved = type(path)(os.fsencode(same)) if path.basename() == b"two" else path
            return _inotify.add(descriptor, moved, mask)

        self.patch(self.system, "add", add)
        self.watch("one/a", "two/b")
        self.noticed(lambda: self.file("one/a", "second"))
        self.noticed(lambda: self.file("one/b"))

    def test_closedOnce(self) -> None:
        """A descriptor is closed once, also if the reactor has closed it: it may be another's."""
        notify = DirectoryNotify(self.reactor, lambda directory, name: None)
        notify.connectionLost(Failure(ZeroDivisionError()))
        with open("/dev/null") as other:
            notify.close()
            os.fstat(other.fileno())


class RealReactorTests(TestCase):
    """With the running reactor and its threads."""

    def test_change(self) -> Deferred[None]:
        """A change is said, and after a stop there is nothing left."""
        self.patch(watch, "SETTLE_SECONDS", 0.01)
        folder = Path(self.mktemp())
        folder.mkdir()
        said: Deferred[None] = Deferred()
        watched = FileWatch(cast(Any, realReactor), lambda: said.callback(None))
        watched.watch([str(folder / "a")])
        (folder / "a").write_text("first")
        said.addCallback(lambda _ignored: watched.stop())
        return said
