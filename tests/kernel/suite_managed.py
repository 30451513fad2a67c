"""
The unit under a real systemd, on forky's kernel: C{python -m twisted.trial
tests.kernel.suite_managed}.
"""

from __future__ import annotations

from tests.kernel.cases import MANAGED_CASES
from tests.kernel.rootfs import MANAGED
from tests.kernel.suites import makeSuite

ManagedTests = makeSuite("ManagedTests", __name__, MANAGED, MANAGED_CASES)
