"""The part about an NFS server's handshakes without the kernel that asks for them."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench import rates
from tests.kernel.bench.chroot import Chroot
from tests.kernel.bench.part import FLOOR, KTLSAGENT, TLSHD, WORKERS, Options, Part
from tests.kernel.bench.samples import Sample
from tests.kernel.rootfs import BENCH, Progress

_AGENTS: Final = (KTLSAGENT, WORKERS, TLSHD, FLOOR)
_SECONDS: Final = 3.0


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Measure.

    @param options: how thoroughly.
    @param progress: told about each step.
    @return: the samples.
    """
    guest = Chroot(BENCH, progress)
    samples = rates.measure(
        guest, "rates.onHost", options, progress, agents=_AGENTS, seconds=_SECONDS
    )
    guest.close()
    return samples


PART: Final = Part(
    "native",
    "Handshakes for an NFS server, upcall stubbed, on this machine's kernel and processors",
    rates.DIMENSIONS,
    rates.VALUES,
    rates.PLOTS,
    _measure,
)
