"""The program that connects, and what it says."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.kernel.bench.guest.contenders import PROGRAMS
from tests.kernel.bench.guest.keys import certificate, privateKey
from tests.kernel.guest.hosts import Host
from tests.kernel.guest.waiting import Unexpected

SERVER: Final = "10.0.0.1"

_WARMING: Final = 0.2
"""Which part of a run's time is not looked at: it begins with all connections at once."""


@dataclass(frozen=True, slots=True)
class Load:
    """
    What the program found.

    @ivar began: the clock (C{CLOCK_MONOTONIC}) when it began.
    @ivar seconds: how long it took.
    @ivar clientSeconds: the processor time that it used itself.
    @ivar failed: how many connections failed, by the stage and the way.
    @ivar milliseconds: how long each successful connection took.
    @ivar at: the clock when each had its reply.
    """

    began: float
    seconds: float
    clientSeconds: float
    failed: dict[str, int]
    milliseconds: list[float]
    at: list[float]

    def rate(self, duration: float) -> tuple[float, list[float]]:
        """
        Look at the steady part of a run.

        @param duration: for how many seconds connections were begun.
        @return: connections per second, and how many milliseconds they took.
        """
        begin, end = self.began + _WARMING * duration, self.began + duration
        steady = [
            took for at, took in zip(self.at, self.milliseconds, strict=True) if begin < at <= end
        ]
        return len(steady) / (end - begin), steady


def run(
    host: Host,
    *options: str,
    concurrency: int = 1,
    client: str = "",
    port: int = 2049,
    patience: float = 20.0,
) -> Load:
    """
    Connect again and again.

    @param host: from where, and to where.
    @param options: of the program besides.
    @param concurrency: how many connections at a time.
    @param client: the kind of the client's certificate; empty for none.
    @param port: the server's.
    @param patience: how many seconds a connection may take.
    @return: what came of it.
    @raise Unexpected: if the program fails.
    """
    command = [str(PROGRAMS / "load"), f"-c{concurrency}", f"-t{patience}", *options]
    if client:
        command += ["-C", certificate(client, "client"), "-K", privateKey(client, "client")]
    done = host.attempt(*command, SERVER, str(port))
    if done.returncode:
        raise Unexpected(f"{' '.join(command)}: status {done.returncode}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return Load(**found)


def percentile(values: Sequence[float], part: float) -> float:
    """
    Find the value that a part of all do not exceed.

    @param values: all; at least one.
    @param part: between 0 and 1.
    @return: the value.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """
    Find the middle.

    @param values: at least one.
    @return: their median.
    """
    return statistics.median(values)
