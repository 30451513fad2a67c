"""The part about a client whose mounts are all made at once."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench.part import AGENTS, Options, Part, Plot, runAlone
from tests.kernel.bench.samples import MEBIBYTE, Sample, Value
from tests.kernel.rootfs import BENCH, Progress
from tests.kernel.uml import Guest

_MEMORY: Final = "21G"
_COUNTS: Final = (1, 16, 64)
_REPEATS: Final = 3
"""How many times in a round: one takes little time."""

_LIMIT: Final = 60.0


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Measure.

    @param options: how thoroughly.
    @param progress: told about each step.
    @return: the samples.
    """
    rounds = options.rounds * (1 if options.quick else _REPEATS)
    progress(f"mounts: {rounds} times {_COUNTS} at once")
    guest = Guest(BENCH, progress, _MEMORY)
    arguments = {"agents": AGENTS, "counts": _COUNTS, "rounds": rounds, "limit": _LIMIT}
    turns = 2 * rounds * len(_COUNTS) * len(AGENTS)
    return runAlone(guest, "mounting.atOnce", arguments, 120.0 + turns * _LIMIT)


PART: Final = Part(
    "mounts",
    "Mounts from different addresses, all at once (NFS 3, mutual TLS), on the lab's kernel",
    ("when", "count"),
    (
        Value("last", "last one after, s", 2),
        Value("p50", "p50, s", 2),
        Value("p99", "p99, s", 2),
        Value("cpu", "client agent's CPU, ms each", 1),
        Value("memory", "peak memory, MiB", 1, MEBIBYTE),
        Value("processes", "processes"),
        Value("failed", "failures"),
    ),
    (Plot("last", lower=True), Plot("p50", lower=True), Plot("cpu", lower=True)),
    _measure,
)
