"""
The kernel suite on trixie's kernel: C{python -m twisted.trial tests.kernel.suite_trixie}.
C{KTLSAGENT_LAB_OLDER=uml} or C{=machine} says how it is booted, see L{tests.kernel.older}.
"""

from __future__ import annotations

from tests.kernel.cases import OLDER_KERNEL_CASES
from tests.kernel.older import Guest
from tests.kernel.rootfs import TRIXIE
from tests.kernel.suites import makeSuite

TrixieTests = makeSuite("TrixieTests", __name__, TRIXIE, OLDER_KERNEL_CASES, guestClass=Guest)
