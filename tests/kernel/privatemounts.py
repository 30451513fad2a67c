"""
Runs a command in a mount namespace in which nothing that is mounted is seen outside:
C{python3 -I privatemounts.py COMMAND ...}, called in a new mount namespace.

C{mount --make-rprivate /} does not do in a chroot, as its root need not be the root of
a mount.  setns(2) to the namespace that one is in leads to the namespace's own root,
where all mounts are reached, and then one goes back.  Only the standard library is
used here.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_CLONE_NEWNS: Final = 0x20000
_MS_PRIVATE: Final = 0x40000
_MS_REC: Final = 0x4000
"""linux/sched.h and linux/mount.h."""


def _check(result: int, what: str) -> None:
    """
    Look at what a system call returned.

    @param result: its result.
    @param what: what it was to do.
    """
    if result:
        number = ctypes.get_errno()
        hint = ": it needs real root, with CAP_SYS_ADMIN" if number == 1 else ""
        sys.exit(f"{what} failed: {os.strerror(number)}{hint}")


def makePrivate() -> None:
    """Make all mounts of this process's mount namespace private."""
    libc = ctypes.CDLL(None, use_errno=True)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    directory = os.open(".", os.O_PATH | os.O_DIRECTORY)
    namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    _check(libc.setns(namespace, _CLONE_NEWNS), "setns(2) to the namespace's own root")
    flags = ctypes.c_ulong(_MS_REC | _MS_PRIVATE)
    _check(libc.mount(None, b"/", None, flags, None), "making mounts private")
    os.fchdir(root)
    os.chroot(".")
    os.fchdir(directory)
    for descriptor in (root, directory, namespace):
        os.close(descriptor)


def main() -> None:
    """Make mounts private, and become the command."""
    makePrivate()
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
