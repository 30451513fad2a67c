"""
A program that mounts from several servers in the same instant, looks for files in each
mount, and unmounts: C{python3 -m tests.kernel.bench.guest.mounter JSON}.

It calls mount(2) itself, because mount.nfs takes longer than a handshake.  What became of
the mounts is a line of JSON on its standard output; then it waits for a line on its standard
input; what became of the files is a second line.  There is one also if something never comes
to an end.  Only the standard library is used here.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2
_POINTS: Final = Path("/run/mnt")

_libc = ctypes.CDLL(None, use_errno=True)


class AtOnce:
    """
    Something that threads do at once.

    @ivar began: the clock (C{CLOCK_MONOTONIC}) when they began.
    @ivar results: what each found, and how many seconds after the beginning; L{None} for
        those that have not come to an end.
    """

    def __init__(self, tasks: Sequence[Callable[[], int]]) -> None:
        """
        Begin.

        @param tasks: what is done, each by a thread of its own.
        """
        self.results: list[tuple[int, float] | None] = [None] * len(tasks)
        self._gate = threading.Event()
        self._threads = [
            threading.Thread(target=self._perform, args=(number, task), daemon=True)
            for number, task in enumerate(tasks)
        ]
        for thread in self._threads:
            thread.start()
        self.began = time.monotonic()
        self._gate.set()

    def _perform(self, number: int, task: Callable[[], int]) -> None:
        self._gate.wait()
        found = task()
        self.results[number] = (found, time.monotonic() - self.began)

    def finish(self, deadline: float) -> bool:
        """
        Wait for the end.

        @param deadline: the clock when it is waited for no longer.
        @return: whether all have come to their end.
        """
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return None not in self.results


def _mount(source: str, point: Path, options: str) -> int:
    """
    Mount.

    @param source: what.
    @param point: where.
    @param options: as the kernel reads them.
    @return: errno; 0 if it is mounted.
    """
    words = (os.fsencode(source), os.fsencode(point), b"nfs", 0, options.encode())
    return ctypes.get_errno() if _libc.mount(*words) else 0


def _look(path: Path) -> int:
    """
    Ask the server for a file that is not there.

    @param path: the file.
    @return: errno; 0 if the server has answered.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return 0
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _unmount(point: Path, *, forcibly: bool) -> None:
    """
    Unmount.

    @param point: what.
    @param forcibly: whether somebody waits for the server in there, and gets an error now.
    """
    if forcibly:
        _libc.umount2(os.fsencode(point), _MNT_FORCE)
    if _libc.umount2(os.fsencode(point), 0):
        _libc.umount2(os.fsencode(point), _MNT_FORCE | _MNT_DETACH)


def perform(
    source: str, options: Sequence[str], lookups: int, limit: float, between: Callable[[], object]
) -> Iterator[list[tuple[int, float] | None]]:
    """
    Do it all.

    @param source: what is mounted.
    @param options: how, for each mount.
    @param lookups: how many files to look for in each, all at once.
    @param limit: how many seconds the mounts may take, and the lookups after that.
    @param between: called when all is mounted.
    @return: of the mounts, and then of the lookups, errno and seconds of each, or L{None}.
    """
    points = [_POINTS / f"at-once-{number}" for number in range(len(options))]
    for point in points:
        point.mkdir(exist_ok=True)
    mounting = AtOnce([partial(_mount, source, *how) for how in zip(points, options, strict=True)])
    mounting.finish(mounting.began + limit)
    results = list(mounting.results)
    yield results
    between()
    mounted = [point for point, result in zip(points, results, strict=True) if _good(result)]
    files = [point / f"none-{number}" for point in mounted for number in range(lookups)]
    looking = AtOnce([partial(_look, file) for file in files])
    finished = looking.finish(looking.began + limit)
    yield list(looking.results)
    for point in mounted:
        _unmount(point, forcibly=not finished)


def _good(result: tuple[int, float] | None) -> bool:
    """Say whether something was mounted."""
    return result is not None and result[0] == 0


if __name__ == "__main__":
    for found in perform(**json.loads(sys.argv[1]), between=sys.stdin.readline):
        print(json.dumps(found), flush=True)
    # Threads that still wait for a server end with this.
    os._exit(0)
