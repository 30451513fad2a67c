"""
What the kernel says about directories: Twisted's inotify, made to last as long
as it is wanted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from twisted.internet import inotify
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorFDSet
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

_ENTRIES = (
    inotify.IN_MODIFY
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_ATTRIB
    | inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_MOVED
)
_ITSELF = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT

_NO_WATCH = 2**32 - 1
"""The watch descriptor -1, as Twisted reads it: that of an overflow."""


class DirectoryNotify(inotify.INotify):
    """
    Tells what happens in directories, until it is closed.

    Twisted's own class ends when one of the directories is deleted, and keeps
    silent if events were lost.
    """

    def __init__(self, reactor: IReactorFDSet, happened: Callable[[str, str | None], None]) -> None:
        """
        @param reactor: the reactor; nothing is said before L{start}.
        @param happened: told of each event, by the directory as it was given
            and the name of the entry.  No name: the directory itself has gone
            or moved, or, without a directory, events were lost.
        @raise inotify.INotifyError: if there is none to be had.
        """
        super().__init__(reactor)
        self._happened = happened
        self._watchpoints[_NO_WATCH] = inotify._Watch(
            FilePath(b"/"), callbacks=[lambda *_ignored: happened("", None)]
        )

    def add(self, directory: str) -> int:
        """
        Watch a directory.

        @param directory: its path, without symbolic links.
        @return: what is the same for all paths to the same directory.
        @raise inotify.INotifyError: if it cannot be watched.
        """
        watched: int = self.watch(
            FilePath(os.fsencode(directory)),
            mask=_ENTRIES | _ITSELF | inotify.IN_ONLYDIR,
            callbacks=[partial(self._event, directory)],
        )
        return watched

    def start(self) -> None:
        """Tell what has happened already, and what will; in the reactor's thread."""
        self.startReading()

    def finish(self) -> None:
        """Tell what has happened already, and close; in the reactor's thread."""
        self.doRead()
        self.close()

    def close(self) -> None:
        """Close, once; in the reactor's thread."""
        if self.connected:
            self.connectionLost(Failure(ConnectionDone()))

    def loseConnection(self, *_ignored: object) -> None:
        """
        Do nothing: Twisted asks for this when one directory is deleted, and
        there are the others.
        """

    def _event(self, directory: str, _watch: object, path: FilePath[bytes], mask: int) -> None:
        """Something has happened in a directory, or to it."""
        name = None if mask & _ITSELF else os.fsdecode(path.basename())
        self._happened(directory, name)
