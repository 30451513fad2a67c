"""The part about starts: how long until the first handshake, and what an idle agent holds."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench.chroot import Chroot
from tests.kernel.bench.part import (
    AGENTS,
    FLOOR,
    KTLSAGENT,
    TLSHD,
    WORKERS,
    Options,
    Part,
    Plot,
    runAlone,
)
from tests.kernel.bench.samples import MEBIBYTE, Sample, Value
from tests.kernel.rootfs import BENCH, Progress
from tests.kernel.uml import Guest

_SECONDS: Final = 60.0
_AGENTS: Final = (KTLSAGENT, WORKERS, TLSHD, FLOOR)


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Start agents on both kernels.

    @param options: how often.
    @param progress: told about each step.
    @return: the samples.
    """
    samples = []
    for kernel, guest, scenario, agents in (
        ("native", Chroot(BENCH, progress), "starts.onHost", _AGENTS),
        ("lab", Guest(BENCH, progress, "21G"), "starts.onLab", AGENTS),
    ):
        arguments = {"agents": agents, "rounds": options.rounds}
        progress(f"starting: {kernel}")
        found = runAlone(guest, scenario, arguments, _SECONDS * (options.rounds + 1))
        samples += [{"kernel": kernel, **sample} for sample in found]
    return samples


PART: Final = Part(
    "starting",
    "From an agent's start to its first handshake, and what it holds then",
    ("kernel",),
    (
        Value("joined", "joined the group, s", 2),
        Value("served", "first handshake, s", 2),
        Value("waited", "one that waited, s", 2),
        Value("resident", "resident, MiB", 1, MEBIBYTE),
        Value("proportional", "proportional, MiB", 1, MEBIBYTE),
        Value("processes", "processes"),
    ),
    (Plot("served", lower=True), Plot("proportional", lower=True)),
    _measure,
)
