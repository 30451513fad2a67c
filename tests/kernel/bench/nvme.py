"""The part about NVMe/TCP: controllers with several queues that connect at once."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench.part import KTLSAGENT, TLSHD, Failed, Options, Part, Plot, run
from tests.kernel.bench.samples import Sample, Value
from tests.kernel.guests import GuestDied
from tests.kernel.qemu import Guest
from tests.kernel.rootfs import MACHINE, Progress

_AGENTS: Final = (KTLSAGENT, TLSHD)
_COUNTS: Final = (1, 8)
_SECONDS: Final = 400.0
"""What a turn of an agent may take."""


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Measure.

    @param options: how often.
    @param progress: told about each step.
    @return: the samples.
    """
    guest = Guest(MACHINE, progress, "4G")
    samples: list[Sample] = []
    for number in range(options.rounds):
        progress(f"nvme: round {number + 1}, {max(_COUNTS)} controllers at once")
        arguments = {"agents": _AGENTS, "counts": _COUNTS, "number": number}
        try:
            facts = run(guest, "nvmes.onMachine", arguments, _SECONDS * len(_AGENTS))
        except GuestDied as error:
            # The emulated kernel sometimes fails when many controllers do not come up.
            progress(f"nvme: round {number + 1} is lost: {error}"[:300])
            continue
        samples += facts["rounds"]
    guest.close()
    if not samples:
        raise Failed("nvme: not one round came to its end")
    return samples


PART: Final = Part(
    "nvme",
    "NVMe/TCP controllers with four queues that connect at once, in an emulated machine",
    ("controllers",),
    (
        Value("connected", "all connected after, s", 2),
        Value("each", "each, s", 2),
        Value("reset", "reset, s each", 2),
        Value("cpu", "agent's CPU, s each", 2),
        Value("refused", "not connected"),
        Value("broken", "broken"),
    ),
    (
        Plot("connected", lower=True),
        Plot("each", lower=True),
        Plot("reset", lower=True),
        Plot("cpu", lower=True),
    ),
    _measure,
)
