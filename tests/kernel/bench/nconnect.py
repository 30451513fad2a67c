"""The part about a mount with many connections, also where handshakes are slow."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench.part import KTLSAGENT, TLSHD, Options, Part, Plot, runAlone
from tests.kernel.bench.samples import Sample, Value
from tests.kernel.rootfs import BENCH, Progress
from tests.kernel.uml import Guest

_AGENTS: Final = (KTLSAGENT, TLSHD)
"""The bare one tells no failure from another, so that nothing would be tried again."""

_GUESTS: Final = (("21G", 0), ("1G", 100))
"""The memory, and how many milliseconds a server's handshake takes longer."""

_RUNS: Final = 4
"""In a round."""

_LIMIT: Final = 45.0
"""A run takes a few seconds; what takes longer than this has come to a standstill."""


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Measure.

    @param options: how thoroughly.
    @param progress: told about each step.
    @return: the samples.
    """
    samples = []
    runs = options.rounds * _RUNS
    for memory, slow in _GUESTS:
        progress(f"nconnect: {memory}, a server that is {slow} ms slower, {runs} runs of each")
        guest = Guest(BENCH, progress, memory)
        arguments = {"agents": _AGENTS, "runs": runs, "seconds": slow / 1e3, "limit": _LIMIT}
        timeout = 120.0 + runs * len(_AGENTS) * (2 * _LIMIT + 15.0)
        found = runAlone(guest, "mounting.manyConnections", arguments, timeout)
        setting = {"memory of guest": memory, "server slower by, ms": slow}
        samples += [{**setting, **sample} for sample in found]
    return samples


PART: Final = Part(
    "nconnect",
    "A hard mount with nconnect=16 (NFS 4.2, mutual TLS), until all connections are in use",
    ("memory of guest", "server slower by, ms"),
    (
        Value("runs", "runs"),
        Value("hung", f"hung for {_LIMIT:.0f} s"),
        Value("p50", "p50 of the others, s", 2),
        Value("longest", "longest of the others, s", 2),
        Value("failed", "failed"),
        Value("cpu", "client agent's CPU, ms for each of 16", 1),
    ),
    (Plot("hung", lower=True), Plot("p50", lower=True)),
    _measure,
)
