"""
Keeps the memory of the program, in which there are private keys, pre-shared keys and
PINs, from being written to disk when it crashes, and from others' eyes.

A limit of 0 is enough where the kernel writes the file itself.  Where it pipes it to a
program instead (C{core_pattern}, as systemd-coredump has it) the limit is only that
program's to heed, if it does; a process that is not dumpable gives it nothing, and lets
no process of the same user look into its memory (C{PR_SET_DUMPABLE(2const)}).
"""

from __future__ import annotations

import ctypes
import resource
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def forbid() -> None:
    """
    Have this process leave no core dump, nor those that it forks.  What it executes is
    to call this again.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
