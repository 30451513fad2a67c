"""The kernel suite on forky's kernel: C{python -m twisted.trial tests.kernel.suite_forky}."""

from __future__ import annotations

from tests.kernel.cases import CASES
from tests.kernel.policycases import POLICY_CASES
from tests.kernel.rootfs import FORKY
from tests.kernel.suites import makeSuite

ForkyTests = makeSuite("ForkyTests", __name__, FORKY, (*CASES, *POLICY_CASES))
