"""What the parts about rates have in common: settings, what is measured, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Final

from tests.kernel.bench.part import Options, Plot, agentsFor, run
from tests.kernel.bench.samples import MEBIBYTE, Sample, Value
from tests.kernel.guests import BaseGuest
from tests.kernel.rootfs import Progress

DIMENSIONS: Final = ("keys", "trust", "client", "concurrency")

VALUES: Final = (
    Value("rate", "handshakes/s", 1),
    Value("p50", "p50, ms", 1),
    Value("p99", "p99, ms", 1),
    Value("cpu", "agent's CPU, ms each", 2),
    Value("clientCpu", "client's CPU, ms each", 2),
    Value("memory", "peak memory, MiB", 1, MEBIBYTE),
    Value("proportional", "peak proportional memory, MiB", 1, MEBIBYTE),
    Value("processes", "processes"),
    Value("failures", "failures"),
)

PLOTS: Final = (
    Plot("rate", lower=False),
    Plot("p99", lower=True),
    Plot("cpu", lower=True),
    Plot("memory", lower=True),
    Plot("proportional", lower=True),
)

_ALL: Final = (
    *product(("ecdsa",), ("small", "system"), (False, True)),
    *product(("rsa", "mldsa"), ("small",), (True,)),
)
"""Not all combinations: what a trust store costs does not depend on the server's key."""

_QUICK: Final = (("ecdsa", "small", False), ("ecdsa", "system", True))
_CONCURRENCIES: Final = (1, 8, 32)
_QUICK_SECONDS: Final = 2.0

_SPARE_SECONDS: Final = 120.0
"""What a scenario may take besides."""


def measure(
    guest: BaseGuest,
    scenario: str,
    options: Options,
    progress: Progress,
    *,
    agents: Sequence[str],
    seconds: float,
    **extra: Any,
) -> list[Sample]:
    """
    Measure all settings.

    @param guest: where.
    @param scenario: which.
    @param options: how thoroughly.
    @param progress: told about each step.
    @param agents: which.
    @param seconds: for how long connections are made, unless a look is enough.
    @param extra: arguments of the scenario that are the same for all settings.
    @return: the samples.
    """
    samples = []
    seconds = _QUICK_SECONDS if options.quick else seconds
    for keys, trust, mutual in _QUICK if options.quick else _ALL:
        able = agentsFor(keys, agents)
        client = "mutual" if mutual else "anonymous"
        progress(f"{scenario}: {keys}, {trust} trust store, {client} client")
        arguments = {"agents": able, "keys": keys, "trust": trust, "mutual": mutual}
        arguments |= {"concurrencies": _CONCURRENCIES, "rounds": options.rounds}
        turns = options.rounds * len(_CONCURRENCIES) * len(able)
        facts = run(
            guest,
            scenario,
            {**arguments, **extra, "seconds": seconds},
            _SPARE_SECONDS + turns * (seconds + 25.0),
        )
        samples += [
            {
                "keys": keys,
                "trust": trust,
                "client": client,
                **sample,
                "failures": sum(sample["failed"].values()),
            }
            for sample in facts["rounds"]
        ]
    return samples
