"""The part about starts: how long until the first handshake, and what an idle agent holds."""

from __future__ import annotations

from typing import Final

from tests.kernel.bench.chroot import Chroot
from tests.kernel.bench.part import AGENTS, Options, Part, Plot, run
from tests.kernel.bench.samples import MEBIBYTE, Sample, Value
from tests.kernel.rootfs import BENCH, Progress
from tests.kernel.uml import Guest

_SECONDS: Final = 30.0


def _measure(options: Options, progress: Progress) -> list[Sample]:
    """
    Start agents on both kernels.

    @param options: how often.
    @param progress: told about each step.
    @return: the samples.
    """
    samples = []
    for kernel, guest, scenario in (
        ("host", Chroot(BENCH, progress), "starts.onHost"),
        ("lab", Guest(BENCH, progress, "21G"), "starts.onLab"),
    ):
        arguments = {"agents": AGENTS, "rounds": options.rounds}
        progress(f"starting: {kernel}")
        facts = run(guest, scenario, arguments, _SECONDS * (options.rounds + 1))
        guest.close()
        samples += [{"kernel": kernel, **sample} for sample in facts["rounds"]]
    return samples


PART: Final = Part(
    "starting",
    "From an agent's start to its first handshake, and what it holds then",
    ("kernel",),
    (
        Value("served", "first handshake, s", 2),
        Value("resident", "resident, MiB", 1, MEBIBYTE),
        Value("proportional", "proportional, MiB", 1, MEBIBYTE),
    ),
    (Plot("served", lower=True), Plot("resident", lower=True)),
    _measure,
)
