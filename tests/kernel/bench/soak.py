"""The part about endurance: what agents hold after very many handshakes."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench.part import KTLSAGENT, Options, Part, Plot, runAlone
from tests.kernel.bench.samples import MEBIBYTE, Sample, Value
from tests.kernel.rootfs import BENCH, Progress
from tests.kernel.uml import Guest

_HANDSHAKES: Final = 100_000
_QUICK_HANDSHAKES: Final = 2_000
_STEPS: Final = 10
_LEAST_RATE: Final = 20.0
"""Handshakes per second: what takes longer is given up."""


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Measure.

    @param options: how thoroughly.
    @param progress: told about each step.
    @return: the samples.
    """
    handshakes = _QUICK_HANDSHAKES if options.quick else _HANDSHAKES
    progress(f"soak: {handshakes} handshakes")
    guest = Guest(BENCH, progress, "21G")
    # tlshd begins anew with each handshake: there is nothing that could grow.
    arguments = {"agents": [KTLSAGENT], "handshakes": handshakes, "steps": _STEPS}
    return runAlone(guest, "soaks.onLab", arguments, 120.0 + handshakes / _LEAST_RATE)


PART: Final = Part(
    "soak",
    "What ktlsagent holds after many handshakes (mutual, 8 at a time), on the lab's kernel",
    ("handshakes",),
    (
        Value("descriptors", "descriptors"),
        Value("resident", "resident, MiB", 2, MEBIBYTE),
        Value("memory", "allocated, MiB", 2, MEBIBYTE),
        Value("failures", "failures"),
    ),
    (Plot("resident", lower=True), Plot("descriptors", lower=True)),
    _measure,
)
