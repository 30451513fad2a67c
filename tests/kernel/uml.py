"""
Boots a root file system under user-mode Linux.

The guest's root is the cached root file system, read-only, through hostfs; this
checkout is mounted into it, read-only too.  Everything lives in mount and PID
namespaces of its own that end with this process.  Only the standard library is
used here.

The guest has one processor, but its kernel and its programs are processes of the
machine that wait for each other at every system call.  They share one processor
here: to wake the other one up takes longer than most system calls do, and how
long depends on what else the machine does.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Final

from tests.kernel.guests import BaseGuest, GuestDied, mounts, namespaced

__all__ = ["Guest", "GuestDied"]

_INIT: Final = "/srv/ktlsagent/tests/kernel/guest/init.sh"

_BOOT: Final = """
mount -t tmpfs -o mode=1777,size=100% tmpfs {root}/tmp
chroot {root} /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp HOME=/tmp \\
    linux.uml mem={memory} root=/dev/root rootfstype=hostfs ro init={init} quiet \\
    con0=null,fd:1 con=null ssl0=fd:{requests},fd:{results} ssl=null {options} </dev/null
"""
# The shell stays, as PID 1 of its namespace: a kernel in that place could not
# end itself by a signal.


class Guest(BaseGuest):
    """A guest under user-mode Linux."""

    def _start(self, root: Path) -> subprocess.Popen[bytes]:
        requestsRead, self._requests = os.pipe()
        self._results, resultsWrite = os.pipe()
        script = mounts(root) + _BOOT.format(
            root=shlex.quote(str(root)),
            memory=self._memory,
            init=_INIT,
            requests=requestsRead,
            results=resultsWrite,
            options=" ".join(self.recipe.bootOptions),
        )
        command = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))]
        return self._launch([*command, *namespaced(script)], requestsRead, resultsWrite)
