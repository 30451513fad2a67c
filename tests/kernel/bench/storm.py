"""The part about storms: many connections at once, as after a server's restart."""

from __future__ import annotations

from itertools import product
from typing import Final

from tests.kernel.bench.part import AGENTS, REALTIME, Options, Part, Plot, run
from tests.kernel.bench.samples import MEBIBYTE, Sample, Value
from tests.kernel.rootfs import BENCH, Progress
from tests.kernel.uml import Guest

_MEMORIES: Final = ("21G", "2G")
_COUNTS: Final = (60, 200, 500)
_ALL: Final = (
    *product(_MEMORIES, (64, 8), ("small",), (_COUNTS,)),
    # Eight threads ask for eight handshakes at a time, and so hide what each of them costs.
    *product(_MEMORIES, (64,), ("system",), ((60, 500),)),
)
_QUICK: Final = tuple(product(_MEMORIES, (64,), ("small",), (_COUNTS,)))

_OFTEN: Final = 60
_OFTEN_ROUNDS: Final = 10
"""So often is a storm of so many made, with little memory: chance decides much there."""

_AGENTS: Final = (*AGENTS, REALTIME)
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
    for memory, threads, trust, counts in _QUICK if options.quick else _ALL:
        progress(f"storm: {memory}, {threads} threads, {trust} trust store")
        guest = Guest(BENCH, progress, memory)
        setting = {"memory of guest": memory, "nfsd threads": threads, "trust": trust}
        plans = [(counts, options.rounds)]
        more = 0 if options.quick else _OFTEN_ROUNDS - options.rounds
        if (memory, trust) == ("2G", "small") and more > 0:
            plans.append(((_OFTEN,), more))
        before = 0
        for many, rounds in plans:
            arguments = {"agents": _AGENTS, "counts": many, "trust": trust, "threads": threads}
            turns = rounds * len(many) * len(_AGENTS)
            limit = 120.0 + turns * _SECONDS
            facts = run(guest, "storms.onLab", {**arguments, "rounds": rounds}, limit)
            samples += [
                {**setting, **sample, "round": sample["round"] + before}
                for sample in facts["rounds"]
            ]
            before += rounds
        guest.close()
    return samples


PART: Final = Part(
    "storm",
    "Connections made at once, on the lab's kernel; a server keeps 64 of strangers",
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
