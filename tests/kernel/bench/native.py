"""The part about an NFS server's handshakes without the kernel that asks for them."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench import rates
from tests.kernel.bench.chroot import Chroot
from tests.kernel.bench.part import Options, Part
from tests.kernel.bench.samples import Sample
from tests.kernel.rootfs import BENCH, Progress

_WORKERS: Final = (1,)
"""How many processes ktlsagent serves with."""


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Measure with each number of worker processes.

    @param options: how thoroughly.
    @param progress: told about each step.
    @return: the samples.
    """
    samples = []
    guest = Chroot(BENCH, progress)
    for workers in _WORKERS:
        found = rates.measure(guest, "rates.onHost", {"workers": workers}, options, progress)
        samples += [{"workers": workers, **sample} for sample in found]
    guest.close()
    return samples


PART: Final = Part(
    "native",
    "Handshakes for an NFS server, upcall stubbed, on this machine's kernel and processors",
    ("workers", *rates.DIMENSIONS),
    rates.VALUES,
    rates.PLOTS[:-1],
    _measure,
)
