"""The part about an NFS server on the lab's kernel: rates, times, costs."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench import rates
from tests.kernel.bench.part import AGENTS, Options, Part
from tests.kernel.bench.samples import Sample
from tests.kernel.rootfs import BENCH, Progress
from tests.kernel.uml import Guest

_MEMORY: Final = "21G"
"""The kernel then holds 50 requests that nobody has accepted, the most it ever does."""

_THREADS: Final = 64
_SECONDS: Final = 5.0


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Measure.

    @param options: how thoroughly.
    @param progress: told about each step.
    @return: the samples.
    """
    guest = Guest(BENCH, progress, _MEMORY)
    samples = rates.measure(
        guest,
        "rates.onLab",
        options,
        progress,
        agents=AGENTS,
        seconds=_SECONDS,
        threads=_THREADS,
    )
    guest.close()
    return samples


PART: Final = Part(
    "server",
    "Handshakes for an NFS server, on the lab's kernel (one processor)",
    rates.DIMENSIONS,
    rates.VALUES,
    rates.PLOTS,
    _measure,
)
