"""
The machine suite, NVMe/TCP and keys of the kernel: C{python -m twisted.trial
tests.kernel.suite_nvme}.
"""

from __future__ import annotations

from tests.kernel.nvmecases import NVME_CASES
from tests.kernel.qemu import Guest
from tests.kernel.rootfs import MACHINE
from tests.kernel.suites import makeSuite

NvmeTests = makeSuite("NvmeTests", __name__, MACHINE, NVME_CASES, guestClass=Guest, memory="4G")
