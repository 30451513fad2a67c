"""The part about agents that are started anew while somebody mounts."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench.part import KTLSAGENT, TLSHD, Options, Part, Plot, runAlone
from tests.kernel.bench.samples import Sample, Value
from tests.kernel.rootfs import BENCH, Progress
from tests.kernel.uml import Guest

_TURNS: Final = (
    (KTLSAGENT, "restart"),
    (TLSHD, "restart"),
    (KTLSAGENT, "exec in place"),
    (KTLSAGENT, "SIGKILL"),
    (TLSHD, "SIGKILL"),
)
_SECONDS: Final = 200.0
"""What a turn may take: a mount may have to wait for a minute."""


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Measure.

    @param options: how often.
    @param progress: told about each step.
    @return: the samples.
    """
    progress(f"restarts: {len(_TURNS)} turns, {options.rounds} times")
    guest = Guest(BENCH, progress, "21G")
    arguments = {"turns": _TURNS, "rounds": options.rounds}
    timeout = 60.0 + options.rounds * len(_TURNS) * _SECONDS
    return runAlone(guest, "restarts.mounting", arguments, timeout)


PART: Final = Part(
    "restarts",
    "Mounts while the agent of client and server is started anew eight times",
    ("way",),
    (
        Value("mounts", "mounts that succeeded"),
        Value("failed", "that failed"),
        Value("noAgent", "of them with ESRCH"),
        Value("away", "no agent for, s", 2),
        Value("longestAway", "at the most, s", 2),
        Value("p50", "mount p50, s", 2),
        Value("longest", "longest mount, s", 2),
    ),
    (Plot("failed", lower=True), Plot("longest", lower=True)),
    _measure,
)
