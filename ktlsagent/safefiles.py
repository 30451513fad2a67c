"""
Reads files by a path that is walked along step by step, and says who else could change
what is found there: what is looked at is what is read, whatever is exchanged meanwhile.

Root and the user that the agent runs as may change anything.  Others can change what
they own, as an owner can always give himself the permission; what the mode lets them
write; and whatever is in a directory of which one of these is true.  A directory with
the sticky bit, as C{/tmp} is, keeps them from exchanging what they do not own
(C{inode(7)}).  A link is only as safe as the directory that it is in.

The group's bits of a file with an access control list are the most that the list gives
to anybody but owner and others (C{acl(5)}), so that the mode tells enough.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

SAFE: Final = "a file that only root and the agent's own user can change"
"""What is expected of a file, in words."""

_MOST_LINKS: Final = 40
"""C{MAXSYMLINKS} of the kernel."""

_ACL: Final = "system.posix_acl_access"


@dataclass(frozen=True, slots=True)
class Place:
    """
    What was met on the way to a file.

    @ivar path: how it was come to.
    @ivar owner: its owner's uid.
    @ivar group: its gid.
    @ivar mode: kind and permissions, as in C{st_mode}.
    @ivar listed: whether the group's permissions are an access control list's.
    """

    path: str
    owner: int
    group: int
    mode: int
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Exposure:
    """
    Why others can change a file.

    @ivar found: in words, with the file or directory that is at fault.
    @ivar advice: what to do.
    """

    found: str
    advice: str


@dataclass(frozen=True, slots=True)
class Content:
    """
    A file.

    @ivar data: what is in it.
    @ivar status: its status at that time.
    @ivar exposure: why others can change it; C{None} if they cannot.
    """

    data: bytes
    status: os.stat_result
    exposure: Exposure | None


def readFile(path: str) -> Content:
    """
    Read a file.  Pipes and devices are not opened: they could hold us up.

    @param path: its path, absolute or from the working directory.
    @return: the file.
    @raise OSError: if there is none that can be read.
    @raise ValueError: if there is a NUL in the path.
    """
    with ExitStack() as held:
        walk = _Walk(held)
        walk.go(os.path.join(os.getcwd(), path))
        place = walk.hops[-1][1] if walk.hops else walk.here
        if stat.S_ISDIR(place.mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(place.mode):
            raise OSError(errno.EINVAL, "Not a regular file")
        with open(walk.name(), "rb") as file:
            status = os.fstat(file.fileno())
            return Content(file.read(), status, judge(walk.hops, trustedUsers()))


def trustedUsers() -> frozenset[int]:
    """
    @return: the uids of those who may change anything.
    """
    return frozenset((0, os.geteuid()))


def judge(hops: Sequence[tuple[Place, Place]], trusted: frozenset[int]) -> Exposure | None:
    """
    Say why others can change a file.

    @param hops: the way to it: each directory, and what was looked up in it; the
        file itself comes last.
    @param trusted: the uids of those who may.
    @return: the first reason that there is, C{None} if there is none.
    """
    for directory, entry in hops:
        where = directory.path
        if directory.owner not in trusted:
            return Exposure(
                f"{where} of uid {directory.owner}, who can exchange what is in it",
                f"chown root {where}",
            )
        if _writable(directory, trusted):
            sticky = directory.mode & stat.S_ISVTX
            if not sticky:
                return Exposure(
                    f"{where} with mode {_mode(directory)}, in which others can exchange anything",
                    f"chmod go-w {where}",
                )
            if entry.owner not in trusted:
                return Exposure(
                    f"{entry.path} of uid {entry.owner}, in a directory where everybody can write",
                    f"move it to a directory of root's, or chown -h root {entry.path}",
                )
    file = hops[-1][1]
    if file.owner not in trusted:
        return Exposure(
            f"{file.path} of uid {file.owner}, who can change it", f"chown root {file.path}"
        )
    if _writable(file, trusted):
        return Exposure(
            f"{file.path} with mode {_mode(file)}, which others can change",
            f"chmod go-w {file.path}",
        )
    return None


def _writable(place: Place, trusted: frozenset[int]) -> bool:
    """
    Say whether the permissions let others write.  The group with a user's own number
    is that user's own, as root's is, unless a list gives its permissions to others.
    """
    own = place.group in trusted and not place.listed
    return bool(place.mode & (stat.S_IWOTH if own else stat.S_IWOTH | stat.S_IWGRP))


def _mode(place: Place) -> str:
    return f"{stat.S_IMODE(place.mode):04o}"


class _Walk:
    """
    The way from the root to a file, with one descriptor at a time.

    @ivar here: where it has come to.
    @ivar hops: the directories that it went through, and what was looked up in each.
    """

    def __init__(self, held: ExitStack) -> None:
        """
        @param held: closes what is open at the end.
        """
        self.hops: list[tuple[Place, Place]] = []
        self._descriptor = os.open("/", os.O_PATH)
        held.callback(self._close)
        self.here = _place(self._descriptor, "/")

    def name(self) -> str:
        """
        @return: a path that leads to just where it has come to.
        """
        return f"/proc/self/fd/{self._descriptor}"

    def go(self, path: str) -> None:
        """
        Walk.

        @param path: an absolute path.
        @raise OSError: if it leads nowhere.
        """
        links = 0
        pending = path.split("/")[::-1]
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            directory = self.here
            where = os.path.join(directory.path, name)
            descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._descriptor)
            try:
                entry = _place(descriptor, where)
                self.hops.append((directory, entry))
                if not stat.S_ISLNK(entry.mode):
                    self._enter(os.dup(descriptor), entry)
                    continue
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink("", dir_fd=descriptor)
            finally:
                os.close(descriptor)
            pending += target.split("/")[::-1]
            if target.startswith("/"):
                self._enter(root := os.open("/", os.O_PATH), _place(root, "/"))

    def _enter(self, descriptor: int, place: Place) -> None:
        """Be there now."""
        self._close()
        self._descriptor, self.here = descriptor, place

    def _close(self) -> None:
        os.close(self._descriptor)


def _place(descriptor: int, path: str) -> Place:
    """Look at what is open."""
    status = os.fstat(descriptor)
    listed = bool(status.st_mode & stat.S_IWGRP) and not stat.S_ISLNK(status.st_mode)
    if listed:
        try:
            os.getxattr(f"/proc/self/fd/{descriptor}", _ACL)
        except OSError:
            listed = False
    return Place(path, status.st_uid, status.st_gid, status.st_mode, listed)
