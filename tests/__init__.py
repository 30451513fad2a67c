"""The tests of the agent; the kernel suite is in L{tests.kernel}."""

from __future__ import annotations

import os
from pathlib import Path

from ktlsagent import safefiles


def _trusted() -> frozenset[int]:
    """
    @return: the uids of those who may change anything, and of those whose the working
        directory is: root may run the tests in somebody's checkout.
    """
    here = Path.cwd()
    owners = (directory.stat().st_uid for directory in (here, *here.parents))
    return frozenset((0, os.geteuid(), *owners))


safefiles.trustedUsers = _trusted
