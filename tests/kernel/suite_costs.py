"""
What resumption saves, on forky's kernel: C{python -m twisted.trial tests.kernel.suite_costs}.
The figures are in the file of results; no part of the suites, as they need a quiet machine.
"""

from __future__ import annotations

from tests.kernel.policycases import COST_CASES
from tests.kernel.rootfs import FORKY
from tests.kernel.suites import makeSuite

CostTests = makeSuite("CostTests", __name__, FORKY, COST_CASES)
