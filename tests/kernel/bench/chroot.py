"""
Runs scenarios in the root file system, but on this machine's own kernel.

The file system is read-only; what is written, the network, and the processes are in
namespaces that end with this process.  Only the standard library is used here.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from pathlib import Path
from typing import Final

from tests.kernel.guests import BaseGuest, mounts, namespaced

_INIT: Final = "/srv/ktlsagent/tests/kernel/bench/chroot.sh"

_BEGIN: Final = """
exec chroot {root} /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LAB_LINE={line} sh {init}
"""


class Chroot(BaseGuest):
    """The root file system on this machine's own kernel."""

    def _start(self, root: Path) -> subprocess.Popen[bytes]:
        ours, theirs = socket.socketpair()
        self._requests = ours.detach()
        self._results = os.dup(self._requests)
        script = mounts(root) + _BEGIN.format(
            root=shlex.quote(str(root)),
            line=theirs.fileno(),
            init=_INIT,
        )
        return self._launch(namespaced(script, "--net", "--uts"), theirs.detach())
