"""
Files that are watched: it is said, once all is quiet again, that something has
changed, in whatever way that was done.

A file may be written in place, replaced by one of another name, deleted and
made again; a link or a directory on the way to it may be exchanged, as
Kubernetes (C{..data}) and certbot (C{live/}) do.  So it is not the file that
is watched but every directory on the way to it, for the one name in it that
leads there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ktlsagent.bugs import logBug
from ktlsagent.interfaces import IAgentReactor

try:
    from twisted.internet.inotify import INotifyError

    from ktlsagent.notify import DirectoryNotify
except ImportError:  # pragma: no cover - where Twisted does not find libc
    _WITH_INOTIFY = False
else:
    _WITH_INOTIFY = True

SETTLE_SECONDS = 1.0
"""How long nothing must have changed before it is said that something has."""

LONGEST_SECONDS = 5.0
"""After what time it is said even if there is no end of changes."""

ANY_NAME = ""
"""Stands for all names in a directory."""

_MOST_LINKS = 40
"""How many symbolic links the kernel follows (C{MAXSYMLINKS})."""

_MOST_LOOKS = 10
"""How often to look again for directories that have just come."""

_NONE = (
    "expected to be told by the kernel when a configured file changes, found no inotify to be had; "
    "changes are taken up at a SIGHUP only: raise fs.inotify.max_user_instances or the limit on "
    "open files, or use a kernel with CONFIG_INOTIFY_USER"
)
_NOT_ALL = (
    "expected to watch the directories of all configured files, found that this is refused for {}; "
    "changes there are taken up at a SIGHUP only"
)
_LIMIT = "the limit fs.inotify.max_user_watches is reached: raise it"
_MOST_NAMED = 3
"""How many directories a warning names."""


def directoriesOf(paths: Iterable[str]) -> Mapping[str, set[str]]:
    """
    Find what has to be watched.  What is not there ends the way: its nearest
    directory is watched for the name to come.

    @param paths: files, and directories whose files are meant.
    @return: the directories on the way, by paths without links, and the names
        in each that lead to one of the files; L{ANY_NAME} for all.
    """
    found: dict[str, set[str]] = {}
    for path in paths:
        end = _follow(os.path.join(os.getcwd(), path), found)
        if end is not None and os.path.isdir(end):
            found.setdefault(end, set()).add(ANY_NAME)
            for link in _links(end):
                _follow(link, found)
    return found


def _follow(path: str, found: dict[str, set[str]]) -> str | None:
    """Go to a file as the kernel does, and note the way; tell where it is, if it is there."""
    at = "/"
    left = path.split("/")[::-1]
    links = 0
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            at = os.path.dirname(at)
            continue
        found.setdefault(at, set()).add(name)
        there = os.path.join(at, name)
        try:
            target = os.readlink(there)
        except OSError as error:
            if error.errno == errno.EINVAL:
                at = there
                continue
            if error.errno == errno.ENOTDIR:
                del found[at]
            return None
        links += 1
        if links > _MOST_LINKS:
            return None
        if target.startswith("/"):
            at = "/"
        left += target.split("/")[::-1]
    return at


def _links(directory: str) -> list[str]:
    """List the symbolic links in a directory."""
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_symlink()]
    except OSError:
        return []


@dataclass(slots=True)
class _Look:
    """
    What was seen of the paths at one time, and what tells of changes from
    then on.

    @ivar paths: the paths.
    @ivar notify: where the kernel's news come from, if it gives any.
    @ivar names: which names count, by directory.
    @ivar refused: the directories that are not watched, and why.
    """

    paths: Sequence[str]
    notify: DirectoryNotify | None = None
    names: dict[str, set[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def watch(self, notify: DirectoryNotify) -> None:
        """
        Watch all that has to be, and look again for what came meanwhile.

        @param notify: is to tell of changes.
        """
        self.notify = notify
        same: dict[int, set[str]] = {}
        for _look in range(_MOST_LOOKS):
            wanted = directoriesOf(self.paths)
            new = [path for path in wanted if path not in self.names and path not in self.refused]
            for directory in new:
                try:
                    watched = notify.add(directory)
                except INotifyError:
                    self._refuse(directory)
                else:
                    # One directory may be mounted in two places: the kernel counts it once.
                    self.names[directory] = same.setdefault(watched, set())
            for directory in wanted.keys() & self.names.keys():
                self.names[directory] |= wanted[directory]
            if not new:
                return

    def _refuse(self, directory: str) -> None:
        """Note why a directory cannot be watched, unless it has gone."""
        if not os.path.isdir(directory):
            return
        readable = os.access(directory, os.R_OK, effective_ids=True)
        self.refused[directory] = _LIMIT if readable else f"uid {os.geteuid()} may not read it"

    def problem(self) -> str:
        """
        Say what will not be noticed.

        @return: in words, with what to do; empty if all will be.
        """
        if self.notify is None:
            return _NONE
        if not self.refused:
            return ""
        named = [f"{path} ({why})" for path, why in self.refused.items()][:_MOST_NAMED]
        more = len(self.refused) - len(named)
        return _NOT_ALL.format(", ".join(named) + (f" and {more} more" if more else ""))


class FileWatch:
    """
    Says that one of some files has changed, or may have.

    It is the caller who reads the files; to miss nothing, after L{watch} has
    returned and again whenever C{changed} is called.
    """

    log = Logger()

    def __init__(self, reactor: IAgentReactor, changed: Callable[[], None]) -> None:
        """
        @param reactor: the reactor.
        @param changed: called in the reactor's thread, L{SETTLE_SECONDS} after
            the last of some changes.
        """
        self._reactor = reactor
        self._changed = changed
        self._paths: Sequence[str] | None = None
        self._notify: DirectoryNotify | None = None
        self._call: IDelayedCall | None = None
        self._latest = 0.0
        self._problem = ""

    def watch(self, paths: Iterable[str]) -> None:
        """
        Watch these files from now on, and no others.  Looks at file systems,
        which may be slow: to be called in a thread, or before the reactor has
        anything else to do.

        @param paths: files, and directories whose files are meant; they need
            not be there.
        """
        self._paths = tuple(paths)
        self._reactor.callFromThread(self._use, self._look(self._paths))

    def stop(self) -> None:
        """Watch nothing any more, and say nothing; in the reactor's thread."""
        self._paths = None
        self._problem = ""
        if self._call is not None:
            self._call.cancel()
            self._call = None
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    def _look(self, paths: Sequence[str]) -> _Look:
        """Find out what to watch, and watch it (in a thread)."""
        look = _Look(paths)
        if _WITH_INOTIFY:
            try:
                notify = DirectoryNotify(self._reactor, partial(self._happened, look.names))
            except INotifyError:
                return look
            look.watch(notify)
        return look

    def _use(self, look: _Look) -> None:
        """Hear what is new from now on, unless that is asked for no longer."""
        if look.paths is not self._paths:
            if look.notify is not None:
                look.notify.close()
            return
        if look.notify is not None:
            last, self._notify = self._notify, look.notify
            look.notify.start()
            if last is not None:
                # What it has not told yet may have come before the new one was there.
                last.finish()
        problem = look.problem()
        if problem and problem != self._problem:
            self.log.warn("{problem}", problem=problem)
        self._problem = problem

    def _happened(self, names: Mapping[str, set[str]], directory: str, name: str | None) -> None:
        """Something has happened in a directory; see whether it is ours."""
        if name is not None and not names[directory] & {name, ANY_NAME}:
            return
        now = self._reactor.seconds()
        if self._call is None:
            self._latest = now + LONGEST_SECONDS
            self._call = self._reactor.callLater(SETTLE_SECONDS, self._settled)
        else:
            self._call.reset(max(0.0, min(SETTLE_SECONDS, self._latest - now)))

    def _settled(self) -> None:
        self._call = None
        Deferred.fromCoroutine(self._say()).addErrback(self._failed)

    async def _say(self) -> None:
        """Watch what is there now, and only then have it read."""
        paths = self._paths or ()
        look = await deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), self._look, paths
        )
        self._use(look)
        if self._paths is not None:
            self._changed()

    def _failed(self, failure: Failure) -> None:
        logBug(self.log, failure)
