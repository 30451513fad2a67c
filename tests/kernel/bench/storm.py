"""The part about storms: many connections at once, as after a server's restart."""

from __future__ import annotations

from itertools import product
from typing import Final

from tests.kernel.bench.part import AGENTS, REALTIME, Options, Part, Plot, run
from tests.kernel.bench.samples import MEBIBYTE, Sample, Value
from tests.kernel.rootfs import BENCH, Progress
from tests.kernel.uml import Guest

_MEMORIES: Final = ("21G", "2G")
_ALL: Final = tuple(product(_MEMORIES, (64, 8), ("small", "system")))
_QUICK: Final = tuple(product(_MEMORIES, (64,), ("small",)))
_AGENTS: Final = (*AGENTS, REALTIME)
_COUNTS: Final = (60, 200, 500)
_SECONDS: Final = 100.0
"""What one storm and the quiet after it may take."""


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Measure.

    @param options: how thoroughly.
    @param progress: told about each step.
    @return: the samples.
    """
    samples = []
    for memory, threads, trust in _QUICK if options.quick else _ALL:
        progress(f"storm: {memory}, {threads} threads, {trust} trust store")
        guest = Guest(BENCH, progress, memory)
        arguments = {"agents": _AGENTS, "counts": _COUNTS, "trust": trust, "threads": threads}
        arguments["rounds"] = options.rounds
        turns = options.rounds * len(_COUNTS) * len(_AGENTS)
        facts = run(guest, "storms.onLab", arguments, 120.0 + turns * _SECONDS)
        guest.close()
        setting = {"memory of guest": memory, "nfsd threads": threads, "trust": trust}
        samples += [{**setting, **sample} for sample in facts["rounds"]]
    return samples


PART: Final = Part(
    "storm",
    "Connections made at once, on the lab's kernel; a server holds at most 64 of strangers",
    ("memory of guest", "nfsd threads", "trust", "count"),
    (
        Value("succeeded", "succeeded"),
        Value("last", "last one after, s", 2),
        Value("cpu", "agent's CPU, s", 2),
        Value("memory", "peak memory, MiB", 1, MEBIBYTE),
        Value("processes", "processes"),
        Value("oversized", "oversized fragments"),
    ),
    (Plot("succeeded", lower=False), Plot("last", lower=True), Plot("memory", lower=True)),
    _measure,
)
